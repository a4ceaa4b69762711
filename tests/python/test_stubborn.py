"""What no abort ends is left behind, and the program goes on.

Coroutines that swallow every cancellation, and threads, which nothing can interrupt.
"""

import asyncio
import contextlib
import signal
import threading

import pytest
from support import DRIVERS, Live, Seen, balanced, child, every_driver, finish, go, wait_for, within

import anabranch as ab
from anabranch import _driver, _legs, _patience
from anabranch.testing import VirtualClock, virtual_time

# Real time: for what is stuck in a thread there is no other.
SHORT = 0.02


@pytest.fixture
def no_grace(monkeypatch):
    """Leave behind soon what does not end after an abort; closing would wait for it for ever."""
    monkeypatch.setattr(_patience, "_GRACE", SHORT)
    monkeypatch.setattr(_driver, "_POOL_CLOSE", 3600.0)


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


@pytest.mark.parametrize("seconds", [3.0, 6.0])
@virtual_time
async def test_e5_c9_what_began_after_the_abort_is_cancelled_before_it_is_left(clock, seconds):
    begun, done, undone = [], [], []

    async def sink(window, ctx):
        ctx.compensate(undone.append, window)
        begun.append((clock.now(), window))
        await asyncio.sleep(seconds)
        done.append(window)

    pipeline = ab.Pipeline("p").source(Live(1, 2, 3))
    pipeline = pipeline.window(max_items=9, on_cancel="flush").for_each(sink)
    async with pipeline.start() as running:
        await asyncio.sleep(1.0)
        running.abort()
        report = balanced(await running.wait())
    assert (begun, report.outcome, report.abandoned) == ([(1.0, [1, 2, 3])], "aborted", 0)
    if seconds < 5.0:
        assert (done, undone, report.committed) == ([[1, 2, 3]], [], 3)
    else:
        # What is undone does not go on to its end.
        assert (done, undone, report.codes) == ([], [[1, 2, 3]], {"cancelled": 3})
        assert clock.now() == 6.0


@virtual_time
async def test_e5_r8_what_began_after_the_abort_has_a_grace_of_its_own_to_end_in(clock):
    stubborn = Stubborn(clock)

    async def sink(window):
        await stubborn.wait()

    pipeline = ab.Pipeline("p").source(Live(1, 2, 3))
    pipeline = pipeline.window(max_items=9, on_cancel="flush").for_each(sink)
    async with pipeline.start() as running:
        await asyncio.sleep(1.0)
        running.abort()
        report = balanced(await running.wait())
    # It is asked to end where what was under way at the abort is left, and left 5 s later.
    assert stubborn.cancelled[:2] == [6.0, 11.0]
    assert (report.codes, report.abandoned, report.left) == ({"cancelled": 3}, 1, 0)
    assert [row.seconds for row in report.abandonments] == [10.0]


class Stuck:
    """A `def` handler that does not end before the test lets it, whatever is asked of it."""

    def __init__(self):
        self.begun = Seen()
        self.release = threading.Event()
        self.undone = []
        self.threads = []
        self.refused = []

    def handler(self, n, ctx):
        self.threads.append(threading.current_thread())
        ctx.compensate(self.undone.append, n)
        self.begun(n)
        wait_for(self.release)
        try:
            ctx.compensate(self.undone.append, "too late")
        except ab.ClosedError as error:
            self.refused.append(error)

    def end(self):
        """Let the threads go, once the run has ended without them."""
        assert all(thread.is_alive() for thread in self.threads)
        self.release.set()
        for thread in self.threads:
            thread.join(20)
            assert not thread.is_alive(), "it takes no more jobs"


@every_driver
def test_e5_r8_a_thread_that_is_stuck_at_an_abort_is_left_behind(driver, no_grace, caplog):
    stuck, begun = Stuck(), threading.Event()

    def sink(n, ctx):
        if n:
            wait_for(begun)
            raise ValueError
        begun.set()
        stuck.handler(n, ctx)

    pipeline = ab.Pipeline("p", threads=2, on_error="stop").source([0, 1]).fan_out(by=abs)
    report = balanced(go(pipeline.for_each(sink), driver))
    assert (report.outcome, report.codes) == ("failed", {"ValueError": 1, "cancelled": 1})
    assert (report.abandoned, report.late, stuck.undone) == (1, 0, [0])
    (row,) = report.abandonments
    assert (row.stage, row.tenant, row.attempt, row.seconds) == ("sink", 0, 1, SHORT)
    (message,) = (it.message for it in report.failures if it.code == "cancelled")
    assert message == "it had not ended 0.02 s after the run was aborted, and was left behind"
    assert "1 thread is still busy in its handler, and left behind" in caplog.text
    stuck.end()
    assert (len(stuck.refused), stuck.undone) == (1, [0])


@pytest.mark.parametrize("how", ["abort", "cancel", "error"])
@within
async def test_c8_its_actions_run_in_the_thread_that_replaces_it(how, no_grace):
    stuck = Stuck()
    pipeline = ab.Pipeline("p", threads=1).source(Live(1, 2)).for_each(stuck.handler)

    async def started():
        with contextlib.suppress(LookupError):
            async with pipeline.start() as running:
                await stuck.begun.reach(1)
                if how == "error":
                    raise LookupError
                running.abort()
                await running.wait()

    if how == "cancel":
        task = asyncio.create_task(pipeline.run())
        await stuck.begun.reach(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        await started()
    report = balanced(pipeline.last_report)
    assert (report.outcome, report.codes, report.left) == ("aborted", {"cancelled": 1}, 1)
    assert (report.abandoned, report.compensated, report.stuck) == (1, 1, 0)
    assert stuck.undone == [1]
    stuck.end()


@within
async def test_r8_an_abort_waits_for_no_thread_however_many_are_stuck(no_grace, monkeypatch):
    # Two more than a run that goes on replaces: they keep their places until the abort.
    count = 66
    monkeypatch.setattr(_legs, "_TIMEOUT_GRACE", SHORT)
    release, failed = threading.Event(), Seen()

    def handler(n):
        wait_for(release)

    pipeline = ab.Pipeline("p", threads=count // 2).source(Live(*range(count)))
    pipeline = pipeline.for_each(handler, concurrency=count, timeout=SHORT).tap_error(failed)
    async with pipeline.start() as running:
        await failed.reach(count)
        running.abort()
        report = balanced(await running.wait())
    release.set()
    assert report.outcome == "aborted"
    assert report.abandoned == report.failed == count


@every_driver
def test_e4_an_exit_of_what_was_left_behind_is_not_swallowed(driver, no_grace):
    begun, release, threads = threading.Event(), threading.Event(), []

    def undo():
        # The run goes on until this has ended.
        release.set()
        threads[0].join(20)

    def sink(n, ctx):
        if n:
            wait_for(begun)
            raise ValueError
        threads.append(threading.current_thread())
        ctx.compensate(undo)
        begun.set()
        wait_for(release)
        raise SystemExit(3)

    pipeline = ab.Pipeline("p", threads=2, on_error="stop").source([0, 1]).fan_out(by=abs)
    pipeline = pipeline.for_each(sink)
    with pytest.raises(SystemExit):
        go(pipeline, driver)
    assert balanced(pipeline.last_report).abandoned == 1


def test_e5_e7_two_interrupts_end_a_run_with_a_handler_that_is_stuck_in_c():
    script = """
    import logging, threading
    import anabranch as ab
    from anabranch import _driver, _patience

    logging.getLogger("anabranch").addHandler(logging.NullHandler())
    _patience._GRACE = 0.02
    _driver._POOL_CLOSE = 3600.0
    undone, never = [], threading.Lock()
    never.acquire()

    def stuck(n, ctx):
        ctx.compensate(undone.append, n)
        print("ready", flush=True)
        never.acquire()

    class Session(_driver.Session):
        def drain(self):
            super().drain()
            print("drains", flush=True)

    _driver.Session = Session
    pipeline = ab.Pipeline("p", threads=1, grace=3600.0).source([1, 2]).for_each(stuck)
    report = pipeline.run_blocking()
    print(report.outcome, report.codes, report.abandoned, report.left, undone)
    """
    process = child(script)
    for said in ("ready\n", "drains\n"):
        assert process.stdout.readline() == said
        process.send_signal(signal.SIGINT)
    assert finish(process) == (0, "aborted {'cancelled': 1} 1 1 [1]\n", "")


@virtual_time
async def test_c2_c8_what_ends_with_the_run_is_undone_after_a_handler_that_takes_its_time(clock):
    begun, ran = asyncio.Event(), []

    async def handler(n, ctx):
        if n == 1:
            ctx.compensate(ran.append, "run", level="pipeline")
            return
        ctx.compensate(ran.append, "unit")
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(4.0)
            ctx.compensate(ran.append, "late")
            ran.append("ended")

    async with ab.Pipeline("p").source([1, 2]).for_each(handler).start() as running:
        await begun.wait()
        running.abort()
        report = balanced(await running.wait())
    assert ran == ["ended", "late", "unit", "run"]
    assert (clock.now(), report.compensated, report.abandoned) == (4.0, 3, 0)


@virtual_time
async def test_c19_r8_it_is_undone_though_a_handler_never_ends(clock):
    begun, ran = asyncio.Event(), []

    async def handler(n, ctx):
        if n == 1:
            ctx.compensate(lambda: ran.append(("run", clock.now())), level="pipeline")
            return
        ctx.compensate(lambda: ran.append(("unit", clock.now())))
        begun.set()
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(1000.0)

    async with ab.Pipeline("p").source([1, 2]).for_each(handler).start() as running:
        await begun.wait()
        running.abort()
        report = balanced(await running.wait())
    # It is left behind after 5 s, and its unit comes first.
    assert ran == [("unit", 5.0), ("run", 5.0)]
    assert (report.compensated, report.abandoned) == (2, 1)
