"""Cancellation: whose it is, what the caller sees, and what the report tells."""

import asyncio
import contextlib
import itertools
import signal
import threading
import time

import pytest
from support import (
    Live,
    Seen,
    balanced,
    every_driver,
    every_sink,
    every_way,
    go,
    turns,
    with_sink,
    within,
)

import anabranch as ab
from anabranch.testing import VirtualClock, virtual_time


@every_sink
@within
async def test_e2_cancelling_run_raises_and_last_report_tells(kind):
    source, seen, undone = Live(1, 2, 3), Seen(), []

    def handler(unit, ctx):
        ctx.compensate(undone.append, unit)
        seen(unit)

    pipeline = with_sink(ab.Pipeline("p").source(source), kind, handler)
    task = asyncio.create_task(pipeline.run())
    await seen.reach(3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    report = balanced(pipeline.last_report)
    assert (report.outcome, report.received, report.failed) == ("aborted", 3, 0)
    assert source.closed


@within
async def test_e2_a_cancelled_handler_is_undone_before_run_raises():
    source, seen, log = Live(1), Seen(), []

    async def undo(unit):
        await turns(3)
        log.append(("undone", unit))

    async def handler(unit, ctx):
        ctx.compensate(undo, unit)
        seen(unit)
        await asyncio.Event().wait()

    pipeline = ab.Pipeline("p").source(source).for_each(handler)
    task = asyncio.create_task(pipeline.run())
    await seen.reach(1)
    task.cancel()
    await turns(1)
    # A second cancellation does not cut the rollback off.
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log == [("undone", 1)]
    assert balanced(pipeline.last_report).compensated == 1


@every_way
def test_e2_a_cancelled_error_of_a_handlers_own_is_a_failure(driver, kind):
    def handler(unit, ctx):
        if unit == 2:
            raise asyncio.CancelledError("mine")

    pipeline = with_sink(ab.Pipeline("p").source([1, 2, 3]), kind, handler)
    report = balanced(go(pipeline, driver))
    assert (report.outcome, report.committed, report.codes) == ("completed", 2, {"cancelled": 1})


@every_driver
def test_e2_a_cancelled_error_in_a_stage_is_a_failure(driver):
    def call(n):
        if n == 2:
            raise asyncio.CancelledError("mine")
        return n

    pipeline = ab.Pipeline("p").source([1, 2, 3]).map(call).filter(lambda n: n).collect()
    report = balanced(go(pipeline, driver))
    assert (report.items, report.codes) == ([1, 3], {"cancelled": 1})


@within
async def test_e2_cancelling_wait_does_not_stop_the_pipeline():
    source, seen = Live(1), Seen()
    async with ab.Pipeline("p").source(source).for_each(seen).start() as running:
        await seen.reach(1)
        waiting = asyncio.create_task(running.wait())
        await turns(2)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        source.put(2)
        await seen.reach(2)
        source.end()
        report = await running.wait()
    assert (report.outcome, report.committed) == ("completed", 2)


@virtual_time
async def test_e2_a_timeout_around_run_is_the_callers(clock):
    pipeline = ab.Pipeline("p").source(Live()).for_each(Seen())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(60.0):
            await pipeline.run()
    assert (pipeline.last_report.outcome, clock.now()) == ("aborted", 60.0)


@pytest.mark.parametrize("how", ["drain", "leave", "signal"])
@within
async def test_e8_a_drain_takes_what_an_async_source_had_given(how):
    given, seen, enough, go_on = [], Seen(), asyncio.Event(), asyncio.Event()

    async def source():
        for n in itertools.count():
            given.append(n)
            if n == 100:
                enough.set()
            yield n

    async def sink(n):
        await go_on.wait()
        seen(n)

    pipeline = ab.Pipeline("p").source(source())
    pipeline = pipeline.fan_out(by=lambda n: n % 2, capacity=10).for_each(sink)
    async with pipeline.start() as running:
        await enough.wait()
        if how == "drain":
            running.drain()
        elif how == "signal":
            signal.raise_signal(signal.SIGTERM)
        go_on.set()
    report = balanced(running.report)
    assert (report.outcome, report.received, report.left) == ("drained", len(given), 0)
    assert sorted(seen.items) == given


@pytest.mark.parametrize("how", ["abort", "cancel", "leave"])
@virtual_time
async def test_b9_a_cancellation_reaches_the_handlers_of_every_branch(clock, how):
    cancelled, undone, seen = [], [], Seen()

    async def sink(item, ctx):
        ctx.compensate(undone.append, ctx.tenant)
        seen(item)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append((ctx.tenant, clock.now()))
            raise

    # One unit in flight in each, another one behind it.
    pipeline = ab.Pipeline("p").source(Live(*"abcabc")).fan_out(by=lambda item: item)
    pipeline = pipeline.for_each(sink)

    async def started():
        with contextlib.suppress(LookupError):
            async with pipeline.start() as running:
                await seen.reach(3)
                if how == "leave":
                    raise LookupError
                running.abort()

    task = asyncio.create_task(pipeline.run() if how == "cancel" else started())
    if how == "cancel":
        await seen.reach(3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await asyncio.wait([task])
    report = balanced(pipeline.last_report)
    # At once: nobody waits for a grace to be over.
    assert sorted(cancelled) == [(tenant, 0.0) for tenant in "abc"]
    assert sorted(undone) == [*"abc"]
    assert (report.outcome, report.codes, report.left) == ("aborted", {"cancelled": 3}, 3)


@every_way
def test_t10_a_context_is_cancelled_when_its_item_has_ended_and_not_before(driver, kind):
    kept, during = [], []

    def look(n, ctx):
        kept.append(ctx)
        during.append(ctx.cancelled)
        return n

    pipeline = ab.Pipeline("p").source(range(3)).map(look)
    balanced(go(with_sink(pipeline, kind, look), driver))
    assert during == [False] * 6
    assert [ctx.cancelled for ctx in kept] == [True] * 6
    for ctx in kept:
        with pytest.raises(ab.ClosedError):
            ctx.compensate(print)


@pytest.mark.parametrize("stage", ["map", "for_each"])
@pytest.mark.parametrize("concurrency", [1, 2])
@every_driver
def test_t10_r8_each_item_has_a_deadline_of_its_own(driver, concurrency, stage):
    clock, told = VirtualClock(), []

    async def call(n, ctx):
        told.append((clock.now(), ctx.deadline, ctx.remaining))
        await asyncio.sleep(3.0)
        told.append((clock.now(), ctx.deadline, ctx.remaining))
        return n

    pipeline = ab.Pipeline("p", clock=clock).source(range(2 * concurrency))
    pipeline = getattr(pipeline, stage)(call, timeout=5.0, concurrency=concurrency)
    pipeline = pipeline.collect() if stage == "map" else pipeline
    assert balanced(go(pipeline, driver, clock)).committed == 2 * concurrency
    # What the one before took is not taken from the next.
    times = [(0.0, 5.0, 5.0), (3.0, 5.0, 2.0), (3.0, 8.0, 5.0), (6.0, 8.0, 2.0)]
    assert sorted(told, key=lambda it: it[:2]) == [it for it in times for _ in range(concurrency)]


@within
async def test_t10_a_def_in_a_thread_hears_of_an_abort_by_its_context():
    begun, heard = Seen(), threading.Event()

    def sink(n, ctx):
        assert not ctx.cancelled
        begun(n)
        while not ctx.cancelled:
            # It must come; the test has its own limit.
            time.sleep(0.001)
        heard.set()

    async with ab.Pipeline("p").source(Live(1)).for_each(sink).start() as running:
        await begun.reach(1)
        running.abort()
        balanced(await running.wait())
    assert heard.is_set()
