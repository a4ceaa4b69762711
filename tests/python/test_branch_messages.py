"""What is told of mistakes with branches and failures: B4, B5, B10, T1, F14."""

import asyncio
import logging

import pytest
from support import Live, balanced, go

import anabranch as ab


def keyed(source, **options):
    return ab.Pipeline("p").source(source).fan_out(by=lambda item: item[0], **options)


@ab.testing.virtual_time
async def test_b4_a_command_with_an_argument_that_is_not_allowed_says_so(clock):
    source = Live()
    async with keyed(source).collect().start() as running:
        acme = running.add_branch("a")
        for ask, told in (
            (lambda: running.branch([]), "pipeline 'p': tenant must be a key (unhashable type"),
            (lambda: running.add_branch([]), "pipeline 'p': tenant must be a key (unhashable type"),
            (lambda: acme.throttle(0), "pipeline 'p', branch 'a', throttle: rate must be a finite"),
            (lambda: acme.throttle(1, 0), "'a', throttle: burst must be an int from 1 to"),
            (lambda: acme.throttle(None, 3), "throttle: burst must be None where rate is None"),
            (lambda: acme.fail(5), "'a', fail: reason must be a text or an exception, got 5"),
        ):
            with pytest.raises(ab.ConfigError) as refused:
                ask()
            assert told in str(refused.value)
        assert acme.state == "open"
        source.end()
        balanced(await running.wait())


@ab.testing.virtual_time
async def test_b4_of_a_fail_and_a_restart_the_restart_wins(clock):
    source, told = Live(), []
    pipeline = keyed(source, on_new_branch=told.append).collect()
    async with pipeline.start() as running:
        acme = running.add_branch("a")
        acme.fail()
        acme.restart()
        assert (acme.state, acme.counts.generation, told) == ("open", 2, ["a", "a"])
        source.put("a1")
        source.end()
        report = balanced(await running.wait())
    assert (report.items, report.codes) == (["a1"], {})


@ab.testing.virtual_time
async def test_b4_what_comes_while_a_failed_branch_restarts_waits_for_it(clock):
    source, seen = Live(), []

    async def slow(item):
        seen.append(item)
        await asyncio.sleep(10.0)

    async with keyed(source).for_each(slow).start() as running:
        source.put("a1", "a2")
        await clock.advance(1.0)
        acme = running.branch("a")
        acme.fail()
        acme.restart()
        assert acme.state == "draining"
        source.put("a3")
        await clock.advance(1.0)
        assert seen == ["a1"]
        await clock.advance(10.0)
        assert (seen, acme.state) == (["a1", "a3"], "open")
        source.end()
        report = balanced(await running.wait())
    assert (report.committed, report.codes) == (2, {"branch.failed": 1})


class Door:
    """An `on_new_branch` that may refuse."""

    def __init__(self):
        self.closed = False

    def __call__(self, tenant):
        if self.closed:
            raise PermissionError("no")


@pytest.mark.parametrize("how", ["first", "drain", "restart", "back-off", "idle"])
@ab.testing.virtual_time
async def test_b7_what_on_new_branch_raises_is_told_alike_whenever_it_does(clock, how):
    source, door, failing = Live(), Door(), []

    def sink(item):
        if failing:
            raise OSError(item)

    policy = ab.restart(ab.Retry.fixed(5.0))
    pipeline = keyed(source, on_new_branch=door, on_branch_error=policy, idle_ttl=50.0)
    async with pipeline.for_each(sink, inline=True).start() as running:
        if how != "first":
            source.put("a0")
            await clock.advance(1.0)
        acme = running.branch("a")
        if how == "back-off":
            failing.append(1)
            source.put("a-")
            await clock.advance(1.0)
            failing.clear()
            source.put("a1", "a2")
            await clock.advance(1.0)
        door.closed = True
        if how == "idle":
            await clock.advance(60.0)
        elif how in ("drain", "restart"):
            getattr(acme, how)()
        if how != "back-off":
            source.put("a1")
            await clock.advance(0.0)
            source.put("a2")
        await clock.advance(9.0)
        door.closed = False
        source.put("a3")
        await clock.advance(1.0)
        source.end()
        report = balanced(await running.wait())
    codes = dict(report.codes)
    codes.pop("OSError", None)
    assert codes == {"PermissionError": 2}
    assert report.committed == (1 if how == "first" else 2)
    refused = [it for it in report.failures if it.code == "PermissionError"]
    assert [it.item for it in refused] == ["a1", "a2"]
    assert all("'a'" in "".join(it.error.__notes__) for it in refused)


@ab.testing.virtual_time
async def test_b10_a_branch_that_would_be_one_too_many_is_not_added(clock):
    source = Live("a1")
    pipeline = keyed(source, max_branches=1, on_max_branches="overflow").collect()
    async with pipeline.start() as running:
        await clock.advance(0.0)
        with pytest.raises(ab.BranchRefused) as refused:
            running.add_branch("b")
        assert refused.value.code == "branch.limit"
        assert str(refused.value) == (
            "pipeline 'p': no branch for tenant 'b': there are max_branches=1 already, and its "
            "items go to that of ab.OVERFLOW; raise max_branches, or drain a branch or let "
            "idle_ttl close it"
        )
        source.put("b1")
        source.end()
        report = balanced(await running.wait())
    assert [branch.tenant for branch in report.branches] == ["a", ab.OVERFLOW]


@pytest.mark.parametrize("mode", ["drop_newest", "drop_oldest", "fail"])
def test_b6_a_branch_timeout_without_waiting_is_a_mistake(mode):
    with pytest.raises(ab.ConfigError) as refused:
        keyed([], on_full=mode, branch_timeout=5.0)
    assert str(refused.value) == (
        f"pipeline 'p', stage 'fan_out': branch_timeout must be None where on_full is {mode!r}: "
        "only a branch that waits holds others up, got 5.0"
    )
    keyed([], on_full=lambda tenant: mode, branch_timeout=5.0)


def test_t1_an_operator_that_cannot_be_called_is_told_what_it_takes():
    pipeline = keyed([]).collect()
    for take in (pipeline.recover, pipeline.tap_error, pipeline.map_error):
        with pytest.raises(ab.ConfigError, match="must be a callable that takes a Failure, got 3"):
            take(3)


def test_f14_no_code_of_a_users_can_be_one_of_ours():
    class Mine(ab.AnabranchError):
        code = "branch.full"

    def of(change):
        return keyed(["a1"]).map(int).map_error(change).collect()

    def forged(failure):
        return ab.Failure(code="timeout", stage="s", error=failure.error)

    def raised(item):
        raise Mine(item)

    assert list(go(of(forged)).codes) == ["ValueError"]
    (code,) = go(of(lambda failure: Mine("x"))).codes
    assert code.endswith("Mine")
    (code,) = go(of(lambda failure: ab.BranchRefused("x", code="branch.failed"))).codes
    assert code == "anabranch.errors.BranchRefused"
    (code,) = go(keyed(["a1"]).map(raised).collect()).codes
    assert code.endswith("Mine")
    assert go(of(lambda failure: failure)).codes == {"ValueError": 1}
    failure = ab.Failure(code="x", stage="s", error=OSError("x"))
    for code in ("", 5):
        with pytest.raises(ValueError, match="must be a text of at least one character"):
            failure.replace(code=code)


class Unprintable:
    def __repr__(self):
        raise RuntimeError("no")


def test_e1_a_failure_has_a_text_whatever_its_item_does():
    report = ab.Pipeline("p").source([Unprintable()]).map(int).collect().run_blocking()
    (failure,) = report.failures
    assert repr(failure) == f"<Failure {failure}>"
    failure = ab.Failure(code="x", stage="s", tenant=Unprintable(), error=OSError("gone"))
    assert str(failure) == "stage 's', tenant '<Unprintable without a text>': x: gone"


@ab.testing.virtual_time
async def test_b4_a_branch_beyond_the_grace_of_a_drain_makes_the_run_aborted(clock):
    source = Live()
    pipeline = ab.Pipeline("p", grace=5.0).source(source).fan_out(by=lambda item: item[0])
    async with pipeline.collect().start() as running:
        running.add_branch("a").pause()
        source.put("a1")
        await clock.advance(0.0)
        running.drain()
        await clock.advance(5.0)
        report = balanced(await running.wait())
    assert (report.outcome, report.left) == ("aborted", 1)


def test_b7_failures_of_branches_are_logged_once_by_the_end_of_the_run(caplog):
    with caplog.at_level(logging.DEBUG, logger="anabranch"):
        pipeline = keyed([f"a{n}" for n in range(9)], on_branch_error=ab.fail(after=2))
        go(pipeline.map(int).collect())
    assert [(it.name, it.levelname) for it in caplog.records] == [("anabranch", "WARNING")]


def test_t6_the_line_of_the_log_names_the_most_frequent_codes_however_many_there_are(caplog):
    def fail(n):
        raise type(f"E{n % 9}", (Exception,), {})

    go(ab.Pipeline("p").source([*range(9), 7, 7, 3]).map(fail).collect())
    told = "pipeline 'p' completed with failures: E7 x3, E3 x2, E0 x1, E1 x1, E2 x1, 4 other codes"
    assert [it.getMessage() for it in caplog.records] == [told]
