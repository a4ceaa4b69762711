"""Branches while the pipeline runs: paused, drained, removed, restarted, idle, failed: B4, B7."""

import asyncio
import contextlib
import threading

import pytest
from support import Live, balanced, go, wait_for

import anabranch as ab


class Told:
    """The callables around a branch, and a sink, and what they were told."""

    def __init__(self):
        self.log = []
        self.refuse = ()
        self.failing = set()
        self.undo = None

    def new(self, tenant):
        self.log.append(f"new {tenant}")
        if tenant in self.refuse:
            raise PermissionError(tenant)

    def closed(self, tenant):
        self.log.append(f"closed {tenant}")

    def sink(self, unit, ctx):
        self.log.append(unit)
        if self.undo is not None:
            ctx.compensate(self.note, f"undo {unit}", level="branch")
            ctx.finalize(self.note, f"close {unit}", level="branch")
        if ctx.tenant in self.failing:
            raise OSError(unit)

    def note(self, what):
        self.log.append(what)

    def taken(self):
        """What it was told since the last time."""
        log, self.log = self.log, []
        return log


def fanned(source, told, *, window=None, **options):
    """One branch per first letter, a window if wanted, and an inline sink."""
    pipeline = ab.Pipeline("p").source(source)
    pipeline = pipeline.fan_out(
        by=lambda item: item[0], on_new_branch=told.new, on_branch_closed=told.closed, **options
    )
    if window is not None:
        pipeline = pipeline.window(max_items=window)
    return pipeline.for_each(told.sink, inline=True)


@contextlib.asynccontextmanager
async def started(told, **options):
    """A running pipeline and its source; at the end the report is checked."""
    source = Live()
    async with fanned(source, told, **options).start() as running:
        yield running, source
        source.end()
        balanced(await running.wait())


@ab.testing.virtual_time
async def test_b4_a_paused_branch_takes_items_in_and_hands_none_out(clock):
    told = Told()
    async with started(told) as (running, source):
        source.put("a1", "b1")
        await clock.advance(0.0)
        acme = running.branch("a")
        assert (acme.tenant, acme.state) == ("a", "open")
        acme.pause()
        source.put("a2", "b2")
        await clock.advance(200.0)
        assert told.taken() == ["new a", "new b", "a1", "b1", "b2"]
        assert (acme.state, acme.counts.left, acme.counts.committed) == ("paused", 1, 1)
        acme.resume()
        await clock.advance(0.0)
        assert told.taken() == ["a2"]
    assert running.report.branch("a").committed == 2


@ab.testing.virtual_time
async def test_b4_a_drained_branch_closes_and_comes_back_for_its_next_item(clock):
    told = Told()
    async with started(told, window=10) as (running, source):
        source.put("a1", "a2")
        await clock.advance(0.0)
        acme = running.branch("a")
        acme.drain()
        await clock.advance(0.0)
        assert told.taken() == ["new a", ["a1", "a2"], "closed a"]
        assert (acme.state, acme.counts.generation) == ("evicted", 1)
        source.put("a3")
        await clock.advance(0.0)
        assert (told.taken(), acme.state, acme.counts.generation) == (["new a"], "open", 2)
        acme.restart()
        await clock.advance(0.0)
        assert told.taken() == [["a3"], "closed a", "new a"]
        assert (acme.state, acme.counts.generation) == ("open", 3)
    assert told.taken() == ["closed a"]


@ab.testing.virtual_time
async def test_b4_a_removed_branch_finishes_what_it_holds_and_refuses_what_comes(clock):
    told = Told()
    async with started(told, window=10) as (running, source):
        source.put("a1")
        await clock.advance(0.0)
        acme = running.branch("a")
        acme.remove()
        source.put("a2", "b1")
        await clock.advance(0.0)
        assert (acme.state, told.taken()) == ("removed", ["new a", "new b", ["a1"], "closed a"])
        assert running.add_branch("a").state == "open"
        source.put("a3")
        await clock.advance(0.0)
    assert told.taken() == ["new a", ["a3"], ["b1"], "closed a", "closed b"]
    report = running.report
    assert (report.codes, report.committed) == ({"branch.removed": 1}, 3)
    (failure,) = report.failures
    assert (failure.stage, failure.tenant, failure.gave_up) == ("fan_out", "a", "error")
    assert isinstance(failure.error, ab.BranchRefused)
    assert str(failure.error) == (
        "pipeline 'p': the branch of tenant 'a' was removed; add_branch() opens it again"
    )


@ab.testing.virtual_time
async def test_b4_a_branch_is_added_before_its_first_item(clock):
    told = Told()
    told.refuse = ("x",)
    async with started(told) as (running, source):
        assert running.add_branch("a").counts.received == 0
        assert told.taken() == ["new a"]
        with pytest.raises(PermissionError):
            running.add_branch("x")
        told.refuse = ()
        source.put("a1", "x1")
        await clock.advance(0.0)
        assert told.taken() == ["new x", "new x", "a1", "x1"]


@ab.testing.virtual_time
async def test_b4_an_idle_branch_is_evicted_after_idle_ttl_and_comes_back(clock):
    told = Told()
    async with started(told, idle_ttl=60.0) as (running, source):
        source.put("a1")
        await clock.advance(30.0)
        source.put("a2")
        await clock.advance(59.9)
        assert running.branch("a").state == "open"
        await clock.advance(0.1)
        assert running.branch("a").state == "evicted"
        assert told.taken() == ["new a", "a1", "a2", "closed a"]
        source.put("a3")
        await clock.advance(0.0)
        assert told.taken() == ["new a", "a3"]
        assert running.branch("a").counts.committed == 3
    report = running.report
    assert (report.branch("a").generation, len(report.branches)) == (2, 1)


@ab.testing.virtual_time
async def test_b4_by_default_a_branch_is_idle_for_five_minutes(clock):
    told = Told()
    async with started(told) as (running, source):
        source.put("a1")
        await clock.advance(299.0)
        assert running.branch("a").state == "open"
        await clock.advance(1.0)
        assert running.branch("a").state == "evicted"


@ab.testing.virtual_time
async def test_b3_b4_an_item_whose_branch_may_not_come_back_has_failed(clock):
    told = Told()
    async with started(told) as (running, source):
        source.put("a1")
        await clock.advance(0.0)
        running.branch("a").drain()
        await clock.advance(0.0)
        told.refuse = ("a",)
        source.put("a2")
        await clock.advance(0.0)
        assert told.taken() == ["new a", "a1", "closed a", "new a"]
        told.refuse = ()
        source.put("a3")
    assert running.report.codes == {"PermissionError": 1}
    assert told.taken() == ["new a", "a3", "closed a"]


@ab.testing.virtual_time
async def test_b4_a_command_that_does_not_fit_is_refused_and_says_why(clock):
    told = Told()
    async with started(told) as (running, source):
        stranger = running.branch("x")
        for ask in (stranger.pause, stranger.remove, lambda: stranger.state):
            with pytest.raises(ab.BranchError, match="branch 'x': there is no such branch; add"):
                ask()
        source.put("a1")
        await clock.advance(0.0)
        acme = running.branch("a")
        acme.pause()
        with pytest.raises(ab.BranchError) as caught:
            acme.pause()
        assert str(caught.value) == "pipeline 'p', branch 'a': cannot pause while it is paused"
        assert (caught.value.tenant, caught.value.state) == ("a", "paused")
        with pytest.raises(ab.BranchError, match="cannot be added while it is paused"):
            running.add_branch("a")
        acme.remove()
        await clock.advance(0.0)
        with pytest.raises(ab.BranchError, match="cannot be resumed while it is removed"):
            acme.resume()
        with pytest.raises(ab.BranchError, match="cannot be throttled while it is removed"):
            acme.throttle(5.0)
        with pytest.raises(ab.ConfigError, match="rate must be a finite number > 0, got 0"):
            acme.throttle(0)


def test_b4_a_run_that_has_not_begun_or_is_over_has_no_branches():
    async def main():
        running = fanned(["a1"], Told()).start()
        with pytest.raises(ab.ClosedError, match="pipeline 'p' does not run yet"):
            running.branch("a").pause()
        async with running:
            await running.wait()
        with pytest.raises(ab.ClosedError, match="has ended: its report tells of its branches"):
            running.branch("a").pause()

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["thread", "pool"])
def test_b4_a_command_may_come_from_any_thread(kind):
    told, source = Told(), Live("a1", "b1")
    came, answers = threading.Event(), []

    def command(running):
        acme = running.branch("a")
        for ask in (acme.pause, acme.pause, acme.resume):
            try:
                ask()
            except ab.BranchError as error:
                answers.append(error.state)
            else:
                answers.append(acme.state)
        answers.append(acme.counts.received)

    def sink(item):
        if kind == "pool" and item == "b1":
            command(box[0])
        if item == "b1":
            came.set()

    box = []

    async def main():
        pipeline = ab.Pipeline("p").source(source).fan_out(by=lambda item: item[0])
        running = pipeline.for_each(sink).start()
        # Before it starts: a thread of the pool may be at the second item before `as` binds.
        box.append(running)
        async with running:
            if kind == "thread":
                await asyncio.to_thread(lambda: (wait_for(came), command(running)))
            else:
                await asyncio.to_thread(wait_for, came)
            source.end()
            balanced(await running.wait())

    asyncio.run(main())
    assert answers == ["paused", "paused", "open", 1]
    assert told.log == []


def test_b4_those_who_wait_for_an_answer_hear_of_the_end():
    source, blocked = Live("a1"), threading.Event()
    errors = []

    def command(running):
        while True:
            try:
                running.branch("a").throttle(100.0)
            except ab.AnabranchError as error:
                errors.append(type(error))
                return
            blocked.set()

    async def main():
        pipeline = ab.Pipeline("p").source(source).fan_out(by=lambda item: item[0])
        async with pipeline.collect().start() as running:
            running.add_branch("a")
            thread = threading.Thread(target=command, args=(running,))
            thread.start()
            await asyncio.to_thread(wait_for, blocked)
            source.end()
            await running.wait()
        await asyncio.to_thread(thread.join)

    asyncio.run(main())
    assert errors == [ab.ClosedError]


@ab.testing.virtual_time
async def test_b4_a_command_from_within_a_callable_is_carried_out_behind_it(clock, caplog):
    told, source, box = Told(), Live(), []

    def look(item):
        if item == "a2":
            with pytest.raises(ab.BranchError, match="cannot look at branches"):
                _ = box[0].branch("a").state
            box[0].branch("a").pause()
            box[0].branch("x").pause()
        return item

    pipeline = ab.Pipeline("p").source(source).fan_out(by=lambda item: item[0]).map(look)
    async with pipeline.for_each(told.sink, inline=True).start() as running:
        box.append(running)
        source.put("a1")
        await clock.advance(0.0)
        source.put("a2")
        await clock.advance(0.0)
        assert running.branch("a").state == "paused"
        assert "not carried out: pipeline 'p', branch 'x': there is no such branch" in caplog.text
        running.branch("a").resume()
        source.end()
        balanced(await running.wait())


@pytest.mark.parametrize(
    ("command", "expected"),
    [("fail", ["undo a1", "close a1"]), ("remove", ["close a1"]), ("drain", ["close a1"])],
)
@ab.testing.virtual_time
async def test_c19_what_a_branch_registered_is_undone_if_it_fails(clock, command, expected):
    told = Told()
    told.undo = True
    async with started(told) as (running, source):
        source.put("a1")
        await clock.advance(0.0)
        told.undo = None
        told.taken()
        getattr(running.branch("a"), command)()
        await clock.advance(0.0)
        found = [it for it in told.taken() if not it.startswith("closed")]
        assert found == expected


@ab.testing.virtual_time
async def test_b7_a_branch_that_is_failed_by_command_tells_the_reason(clock):
    told = Told()
    async with started(told) as (running, source):
        source.put("a1")
        await clock.advance(0.0)
        why = ConnectionError("no route")
        running.branch("a").fail(why)
        await clock.advance(0.0)
        source.put("a2", "a3", "b1")
        await clock.advance(0.0)
        assert running.branch("a").state == "failed"
        running.branch("a").restart()
        source.put("a4")
    report = running.report
    assert (report.codes, report.committed) == ({"branch.failed": 2}, 3)
    assert {str(it.error) for it in report.failures} == {"branch 'a': no route"}
    assert report.failures[0].error.__cause__ is why
    assert told.taken() == ["new a", "a1", "closed a", "new b", "b1", "new a", "a4", *CLOSED]


CLOSED = ["closed a", "closed b"]


@pytest.mark.parametrize("driver", ["run_blocking", "run"])
def test_b7_a_branch_fails_after_so_many_failures_in_a_row_and_the_others_go_on(driver):
    told = Told()
    told.failing = {"a"}
    items = [f"{'ab'[n % 2]}{n}" for n in range(2000)]
    pipeline = fanned(items, told, on_branch_error=ab.fail(after=3))
    report = balanced(go(pipeline, driver))
    assert report.codes == {"OSError": 3, "branch.failed": 997}
    assert (report.branch("a").state, report.branch("a").failed) == ("failed", 1000)
    assert report.branch("b").committed == 1000
    assert told.log.count("closed a") == told.log.count("closed b") == 1
    # The same error for all of them: a failed tenant costs the others next to nothing.
    assert len({id(it.error) for it in report.failures if it.code == "branch.failed"}) == 1


@ab.testing.virtual_time
async def test_b7_a_branch_restarts_after_its_back_off_and_loses_nothing(clock):
    told = Told()
    told.failing = {"a"}
    policy = ab.restart(ab.Retry.exponential(attempts=3, base=10.0, factor=3.0, jitter="none"))
    async with started(told, on_branch_error=policy) as (running, source):
        source.put("a1", "a2", "a3", "b1")
        await clock.advance(9.0)
        assert running.branch("a").state == "restarting"
        assert told.taken() == ["new a", "new b", "a1", "b1", "closed a"]
        await clock.advance(1.0)
        assert told.taken() == ["new a", "a2", "closed a"]
        told.failing = set()
        await clock.advance(29.0)
        assert told.taken() == []
        await clock.advance(1.0)
        assert told.taken() == ["new a", "a3"]
    assert running.report.branch("a").generation == 3
    assert running.report.codes == {"OSError": 2}


def test_b7_a_failure_may_stop_the_pipeline():
    told = Told()
    told.failing = {"a"}
    pipeline = fanned((f"a{n}" for n in range(10_000)), told, on_branch_error="stop_pipeline")
    report = balanced(go(pipeline))
    assert (report.outcome, report.codes) == ("failed", {"OSError": 1})


def test_b7_by_default_a_branch_goes_on():
    told = Told()
    told.failing = {"a"}
    report = balanced(go(fanned([f"a{n}" for n in range(100)], told)))
    assert (report.codes, report.branch("a").state) == ({"OSError": 100}, "open")


@ab.testing.virtual_time
async def test_b9_an_abort_reaches_branches_in_every_state(clock):
    told = Told()
    told.failing = {"r"}
    policy = ab.restart(ab.Retry.fixed(100.0))
    pipeline = fanned(source := Live(), told, window=2, on_branch_error=policy)
    async with pipeline.start() as running:
        source.put("p1", "p2", "p3", "d1", "r1", "r2", "r3", "f1", "o1", "e1", "e2")
        await clock.advance(0.0)
        running.branch("p").pause()
        source.put("p4", "p5", "p6")
        await clock.advance(0.0)
        running.branch("d").remove()
        running.branch("f").fail()
        running.branch("e").drain()
        await clock.advance(0.0)
        states = {key: running.branch(key).state for key in "pdrfoe"}
        assert states == {
            "p": "paused",
            "d": "removed",
            "r": "restarting",
            "f": "failed",
            "o": "open",
            "e": "evicted",
        }
        running.abort()
        report = balanced(await running.wait())
    assert report.outcome == "aborted"


@ab.testing.virtual_time
async def test_b14_branches_may_outlive_the_source(clock):
    told = Told()
    pipeline = fanned(["a1", "a2", "b1"], told, window=2, close_branches=False, idle_ttl=50.0)
    async with pipeline.start() as running:
        await clock.advance(49.0)
        assert running.report is None
        assert told.taken() == ["new a", "new b", ["a1", "a2"]]
        await clock.advance(1.0)
        assert told.taken() == ["closed a"]
    assert told.taken() == [["b1"], "closed b"]
    assert (running.report.outcome, running.report.committed) == ("drained", 3)
