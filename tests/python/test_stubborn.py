"""Coroutines that swallow every cancellation: they are left behind, and the program goes on."""

import asyncio

import pytest
from support import DRIVERS, balanced, every_driver, go

import anabranch as ab
from anabranch.testing import VirtualClock


class Stubborn:
    """Waits for ever, whoever cancels it; tells when it was cancelled."""

    def __init__(self, clock):
        self.clock = clock
        self.cancelled = []
        self.begun = asyncio.Event()

    async def wait(self):
        self.begun.set()
        while len(self.cancelled) < 100:
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                self.cancelled.append(self.clock.now())


def with_shape(pipeline, shape):
    if shape == "woven":
        return pipeline.map(lambda n: n)
    return pipeline.window(max_items=1) if shape == "windowed" else pipeline


@pytest.mark.parametrize("shape", ["batched", "woven", "windowed"])
@pytest.mark.parametrize("takes_ctx", [False, True])
@every_driver
def test_e5_r8_a_sink_that_swallows_every_cancel_is_abandoned(driver, takes_ctx, shape, caplog):
    clock, undone = VirtualClock(), []
    stubborn = Stubborn(clock)

    async def sink(unit, ctx=None):
        tenant = unit[0] if isinstance(unit, list) else unit
        if ctx is not None:
            ctx.compensate(undone.append, tenant)
        if tenant == 0:
            await stubborn.wait()
        else:
            await stubborn.begun.wait()
            await asyncio.sleep(10.0)
            raise ValueError

    async def without(unit):
        await sink(unit)

    pipeline = ab.Pipeline("p", clock=clock, on_error="stop").source([0, 1, 0, 0])
    pipeline = with_shape(pipeline.fan_out(by=lambda n: n), shape)
    report = balanced(go(pipeline.for_each(sink if takes_ctx else without), driver, clock))
    # The failure aborts at 10 s; 5 s later the run goes on without the one that does not end.
    assert stubborn.cancelled[:2] == [10.0, 15.0]
    assert (report.codes, report.left) == ({"ValueError": 1, "cancelled": 1}, 2)
    assert (report.outcome, report.abandoned) == ("failed", 1)
    (row,) = report.abandonments
    assert (row.stage, row.tenant, row.seconds) == ("sink" if takes_ctx else "without", 0, 5.0)
    assert sorted(undone) == ([0, 1] if takes_ctx else [])
    assert "were left behind" in caplog.text


@every_driver
def test_e5_r8_so_is_a_coroutine_that_a_def_returned(driver):
    clock = VirtualClock()
    stubborn = Stubborn(clock)

    async def failing():
        await stubborn.begun.wait()
        raise ValueError

    def sink(n):
        return failing() if n else stubborn.wait()

    pipeline = ab.Pipeline("p", clock=clock, on_error="stop").source([0, 1]).fan_out(by=abs)
    report = balanced(go(pipeline.for_each(sink), driver, clock))
    assert stubborn.cancelled[:2] == [0.0, 5.0]
    assert (report.codes, report.abandoned) == ({"ValueError": 1, "cancelled": 1}, 1)


@pytest.mark.parametrize("driver", DRIVERS[1:])
def test_e5_a_cancelled_run_ends_though_its_sink_does_not(driver):
    clock = VirtualClock()
    stubborn = Stubborn(clock)

    async def sink(n):
        await stubborn.wait()

    pipeline = ab.Pipeline("p", clock=clock).source([1, 2]).for_each(sink)

    async def started():
        async with pipeline.start():
            await asyncio.Event().wait()

    async def main():
        task = asyncio.ensure_future(pipeline.run() if driver == "run" else started())
        await stubborn.begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return clock.now()

    assert ab.testing.run(main(), clock=clock) == 5.5
    report = balanced(pipeline.last_report)
    assert (report.outcome, report.abandoned, report.left) == ("aborted", 1, 1)
