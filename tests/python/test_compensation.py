"""Undo through the public API: which actions run, when, where, and what the report tells."""

import gc
import weakref

import pytest
from support import Live, Seen, balanced, every_driver, every_sink, every_way, go, with_sink, within

import anabranch as ab


class Refused(Exception):
    """What a handler raises that is to be undone."""


def one(*items):
    return ab.Pipeline("p").source(list(items) or [1])


@every_way
def test_c1_actions_run_in_reverse(driver, kind):
    ran = []

    def handler(unit, ctx):
        for name in "abc":
            ctx.compensate(ran.append, name)
        raise Refused

    report = balanced(go(with_sink(one(), kind, handler), driver))
    assert ran == ["c", "b", "a"]
    assert (report.compensated, report.stuck, report.failed) == (3, 0, 1)


@pytest.mark.parametrize("registers", [True, False])
@ab.testing.virtual_time
async def test_c11_a_run_that_drops_an_item_cannot_commit_at_its_end(clock, registers, caplog):
    ran, source = [], Live()

    def handler(n, ctx):
        ctx.compensate(ran.append, n, when=registers)

    pipeline = ab.Pipeline("p", commit="end").source(source)
    pipeline = pipeline.fan_out(by=lambda n: "acme", capacity=1, on_full="drop_newest")
    async with pipeline.for_each(handler, inline=True).start() as running:
        running.add_branch("acme").pause()
        source.put(1, 2)
        await clock.advance(0.0)
        running.branch("acme").resume()
        source.end()
        report = balanced(await running.wait())
    assert ran == ([1] if registers else [])
    # Items count as they ended; that it is undone, the outcome tells.
    assert (report.committed, report.dropped, report.failed) == (1, 1, 0)
    assert (report.outcome, report.ok) == ("failed", False)
    why = "pipeline 'p' failed: 1 item dropped, so by commit=\"end\" all was undone"
    assert why in caplog.text
    with pytest.raises(ab.PipelineFailed) as caught:
        report.raise_for_failure()
    assert caught.value.message == why


@pytest.mark.parametrize("window", [None, 3])
@every_way
def test_c1_reverse_order_holds_through_stages_and_into_a_window(driver, kind, window):
    ran = []

    def stage(name):
        def register(n, ctx):
            ctx.compensate(ran.append, (name, n))
            return n

        return register

    async def third(n, ctx):
        ctx.compensate(ran.append, ("third", n))
        return n

    def sink(unit, ctx):
        ctx.compensate(ran.append, ("sink", unit))
        raise Refused

    pipeline = one(1, 2, 3).map(stage("first")).map(stage("second")).map(third)
    pipeline = pipeline if window is None else pipeline.window(max_items=window)
    registered = [("first", "second"), ("third",), ("sink",)]
    balanced(go(with_sink(pipeline, kind, sink), driver))
    if window is None:
        for n in (1, 2, 3):
            own = [name for name, unit in ran if unit == n]
            assert own == [name for leg in reversed(registered) for name in reversed(leg)]
    else:
        assert ran[0] == ("sink", [1, 2, 3])
        assert ran[1:4] == [("third", 3), ("third", 2), ("third", 1)]
        both = ("second", "first")
        assert ran[4:] == [(name, n) for n in (3, 2, 1) for name in both]


@every_way
def test_c3_an_action_that_raises_does_not_stop_the_others(driver, kind):
    ran = []

    def broken():
        raise ConnectionError("down")

    def handler(unit, ctx):
        ctx.compensate(ran.append, "first")
        ctx.compensate(broken)
        ctx.compensate(ran.append, "last")
        raise Refused

    report = balanced(go(with_sink(one(), kind, handler), driver))
    assert ran == ["last", "first"]
    assert (report.compensated, report.stuck) == (2, 1)
    outcomes = [(action.name, action.outcome) for action in report.compensations]
    assert outcomes == [("append", "done"), ("broken", "failed"), ("append", "done")]
    assert isinstance(report.compensations[1].error, ConnectionError)


@every_way
def test_c5_an_action_registered_by_an_action_runs_in_the_next_pass_and_each_once(driver, kind):
    ran = []

    def undo(name, ctx):
        ran.append(name)
        if name == "b":
            ctx.compensate(ran.append, "undo of b")

    def handler(unit, ctx):
        ctx.compensate(undo, "a")
        ctx.compensate(undo, "b")
        raise Refused

    report = go(with_sink(one(), kind, handler), driver)
    assert ran == ["b", "a", "undo of b"]
    assert report.compensated == 3


@pytest.mark.parametrize("asynchronous", [False, True])
@every_way
def test_c5_playback_gives_up_after_16_passes(driver, kind, asynchronous):
    passes = []

    def undo(ctx):
        passes.append(1)
        ctx.compensate(again)

    async def undo_async(ctx):
        undo(ctx)

    again = undo_async if asynchronous else undo

    def handler(unit, ctx):
        ctx.compensate(again)
        raise Refused

    report = go(with_sink(one(), kind, handler), driver)
    assert len(passes) == 16
    assert (report.compensated, report.stuck) == (16, 1)


@every_way
def test_c6_nothing_registered_nothing_undone(driver, kind):
    def handler(unit, ctx):
        raise Refused

    report = balanced(go(with_sink(one(), kind, handler), driver))
    assert (report.compensated, report.stuck, report.compensations) == (0, 0, ())


@every_way
def test_c7_the_report_keeps_the_failure_and_tells_of_every_action(driver, kind):
    def restore():
        pass

    def handler(unit, ctx):
        ctx.compensate(restore)
        ctx.compensate(restore, name="the index")
        raise Refused("original")

    pipeline = ab.Pipeline("p").source([("acme", 1)]).fan_out(by=ab.item(0))
    report = go(with_sink(pipeline, kind, handler, name="store"), driver)
    (failure,) = report.failures
    assert (failure.code, str(failure.error)) == ("Refused", "original")
    assert [action.name for action in report.compensations] == ["the index", "restore"]
    for action in report.compensations:
        assert (action.stage, action.tenant, action.outcome) == ("store", "acme", "done")
        assert action.seconds >= 0
        assert action.error is None


@every_way
def test_c9_what_the_failing_step_registered_runs_too(driver, kind):
    ran = []

    def upstream(n, ctx):
        ctx.compensate(ran.append, "upstream")
        return n

    def handler(unit, ctx):
        ctx.compensate(ran.append, "before the failure")
        raise Refused

    go(with_sink(one().map(upstream), kind, handler), driver)
    assert ran == ["before the failure", "upstream"]


@every_driver
def test_c9_a_map_that_registers_and_raises_is_undone(driver):
    ran = []

    def parse(n, ctx):
        ctx.compensate(ran.append, n)
        if n == 2:
            raise Refused
        return n

    report = balanced(go(one(1, 2, 3).map(parse).collect(), driver))
    assert (ran, report.items, report.compensated) == ([2], [1, 3], 1)


@every_way
def test_c10_a_failed_attempts_actions_run_before_the_next_attempt(driver, kind):
    log = []

    def handler(unit, ctx):
        log.append(f"attempt {ctx.attempt}")
        ctx.compensate(log.append, f"undo {ctx.attempt}a")
        ctx.compensate(log.append, f"undo {ctx.attempt}b")
        if ctx.attempt < 3:
            raise Refused

    report = balanced(go(with_sink(one(), kind, handler, retry=ab.Retry.fixed(0)), driver))
    assert log == [
        *("attempt 1", "undo 1b", "undo 1a"),
        *("attempt 2", "undo 2b", "undo 2a"),
        "attempt 3",
    ]
    assert (report.committed, report.compensated, report.retried) == (1, 4, 2)


@every_way
def test_c10_upstream_is_undone_only_when_the_last_attempt_has_failed(driver, kind):
    log = []

    def upstream(n, ctx):
        ctx.compensate(log.append, "undo upstream")
        return n

    def handler(unit, ctx):
        log.append(ctx.attempt)
        raise Refused

    retry = ab.Retry.fixed(0, attempts=3)
    go(with_sink(one().map(upstream), kind, handler, retry=retry), driver)
    assert log == [1, 2, 3, "undo upstream"]


class Row:
    """Something an undo action refers to."""


@every_sink
@within
async def test_c11_success_releases_the_actions_at_once(kind):
    source, seen, rows, ran = Live(1), Seen(), [], []

    def register(ctx):
        row = Row()
        rows.append(weakref.ref(row))
        ctx.compensate(ran.append, row)

    def upstream(number, ctx):
        register(ctx)
        return number

    def handler(unit, ctx):
        register(ctx)
        seen(unit)

    pipeline = ab.Pipeline("p").source(source).map(upstream)
    async with with_sink(pipeline, kind, handler).start() as running:
        for number in range(2, 6):
            await seen.reach(number - 1)
            source.put(number)
        await seen.reach(5)
        # The pipeline still runs: only what its threads have in hand may live.
        assert [row() for row in rows[:6]] == [None] * 6
        source.end()
        report = await running.wait()
    assert (ran, report.compensated) == ([], 0)


@every_way
def test_c11_a_later_failure_never_undoes_what_was_committed(driver, kind):
    ran = []

    def handler(unit, ctx):
        ctx.compensate(ran.append, unit)
        if unit == 3:
            raise Refused

    report = balanced(go(with_sink(one(1, 2, 3, 4), kind, handler), driver))
    assert (ran, report.committed, report.failed) == ([3], 3, 1)


@every_way
def test_registering_after_the_unit_has_ended_is_refused(driver, kind):
    kept = []
    go(with_sink(one(), kind, lambda unit, ctx: kept.append(ctx)), driver)
    with pytest.raises(ab.ClosedError, match="before the handler returns"):
        kept[0].compensate(print)


@every_way
def test_c20_no_context_is_made_where_nobody_takes_one(driver, kind):
    # What earlier runs left to the collector.
    gc.collect()
    contexts = []

    def count(unit):
        contexts.append(sum(type(it) is ab.Context for it in gc.get_objects()))

    async def count_async(unit):
        count(unit)

    pipeline = one(*range(5)).map(lambda n: n).window(max_items=2)
    sink = count_async if kind == "async" else count
    options = {} if kind == "async" else {"inline": kind == "inline"}
    go(pipeline.for_each(sink, **options), driver)
    assert contexts == [0, 0, 0]


@pytest.mark.parametrize("level", ["unit", "branch", "pipeline"])
@pytest.mark.parametrize("verb", ["compensate", "finalize"])
def test_c5_what_registers_itself_for_ever_is_stopped_at_every_level(verb, level):
    ran = 0

    def again(ctx):
        nonlocal ran
        ran += 1
        assert ran < 100, "it has no end"
        getattr(ctx, verb)(again, level=level)

    def store(item, ctx):
        getattr(ctx, verb)(again, level=level)
        if verb == "compensate":
            raise OSError(item)

    pipeline = ab.Pipeline("p", on_error="stop").source([1])
    pipeline = pipeline.fan_out(by=str, on_branch_error=ab.fail()).for_each(store, inline=True)
    report = balanced(pipeline.run_blocking())
    assert (ran, report.stuck) == (16, 1)
    (stuck,) = (it for it in report.compensations if it.outcome == "failed")
    assert (stuck.name, stuck.stage, "last pass" in str(stuck.error)) == ("again", "store", True)
