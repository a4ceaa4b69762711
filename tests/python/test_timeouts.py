"""Timeouts through the public API: what is cancelled, what is left behind, and what is told."""

import asyncio
import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from support import Live, Seen, balanced, every_driver, go, turns, wait_for, within

import anabranch as ab
from anabranch import _driver, _legs, _tasks
from anabranch.testing import VirtualClock

# For coroutines: those that must not time out do not suspend, so that no delay can reach them.
SHORT = 0.02
# For threads: enough for one that does nothing on a machine that does a lot.
POOLED = 0.4


@pytest.fixture
def no_grace(monkeypatch):
    """Leave behind soon what does not end after its timeout: the real grace takes seconds."""
    monkeypatch.setattr(_legs, "_TIMEOUT_GRACE", SHORT)


def one(*items):
    return ab.Pipeline("p").source(list(items) or [1])


async def for_ever():
    await asyncio.Event().wait()


@pytest.mark.parametrize("takes_ctx", [False, True])
@pytest.mark.parametrize("concurrency", [1, 4])
@every_driver
def test_r8_an_async_handler_is_cancelled_at_its_timeout(driver, concurrency, takes_ctx):
    ended, tasks = [], set()

    async def handler(n):
        tasks.add(asyncio.current_task())
        try:
            await for_ever() if n == 2 else None
        except asyncio.CancelledError:
            ended.append(n)
            raise

    async def with_ctx(n, ctx):
        await handler(n)

    sink = with_ctx if takes_ctx else handler
    pipeline = one(1, 2, 3).for_each(sink, timeout=SHORT, concurrency=concurrency, name="store")
    report = balanced(go(pipeline, driver))
    assert ended == [2]
    assert concurrency > 1 or len(tasks) == 1, "the worker takes its cancellation back"
    assert (report.committed, report.codes) == (2, {"timeout": 1})
    (failure,) = report.failures
    assert isinstance(failure.error, ab.HandlerTimeout)
    assert isinstance(failure.error, TimeoutError)
    assert (failure.stage, failure.error.timeout) == ("store", SHORT)
    assert str(failure.error) == (
        "pipeline 'p', stage 'store': the attempt took longer than its timeout of 0.02 s"
    )
    assert (failure.error.late, failure.error.abandoned, report.abandoned) == (None, False, 0)


@pytest.mark.parametrize("operator", ["map", "filter", "tap", "flat_map"])
def test_r8_every_async_operator_has_a_timeout(operator):
    async def call(n):
        await for_ever() if n == 2 else None
        return [n]

    pipeline = getattr(one(1, 2, 3), operator)(call, timeout=SHORT).collect()
    report = balanced(go(pipeline))
    assert len(report.items) == 2
    assert report.codes == {"timeout": 1}


@every_driver
def test_r4_each_attempt_has_its_own_timeout(driver):
    attempts, undone = [], []

    async def handler(n, ctx):
        attempts.append(ctx.attempt)
        ctx.compensate(undone.append, ctx.attempt)
        if ctx.attempt < 3:
            await for_ever()

    pipeline = one().for_each(handler, timeout=SHORT, retry=ab.Retry.fixed(0))
    report = balanced(go(pipeline, driver))
    assert (attempts, undone) == ([1, 2, 3], [1, 2])
    assert (report.committed, report.retried, report.failures) == (1, 2, ())


def test_r5_a_timeout_keeps_attempts_and_each_error():
    async def handler(n):
        await for_ever()

    retry = ab.Retry.fixed(0, attempts=2)
    report = balanced(go(one().for_each(handler, timeout=SHORT, retry=retry)))
    with pytest.raises(ab.PipelineFailed) as failed:
        report.raise_for_failure()
    (error,) = failed.value.exceptions
    assert (error.code, error.attempts, error.gave_up) == ("timeout", 2, "attempts")
    assert [type(each) for each in error.history] == [ab.HandlerTimeout] * 2
    assert error.__cause__ is report.failures[0].error


@every_driver
def test_r4_context_tells_the_deadline(driver):
    seen = []

    async def handler(n, ctx):
        seen.append(ctx.deadline)

    before = time.monotonic()
    balanced(go(one().for_each(handler, timeout=60), driver))
    assert 60 <= seen[0] <= 60 + time.monotonic() - before


@every_driver
def test_r6_r8_timeout_grace_and_back_off_are_exact(driver):
    clock, log = VirtualClock(), []

    async def handler(n):
        log.append(("begun", clock.now()))
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            log.append(("cancelled", clock.now()))
            # Stubborn: the grace of five seconds is over before it ends.
            await asyncio.sleep(60)

    pipeline = ab.Pipeline("p", clock=clock).source([1])
    retry = ab.Retry.fixed(2, attempts=2)
    pipeline = pipeline.for_each(handler, timeout=10, retry=retry)
    report = balanced(go(pipeline, driver, clock))
    assert log[:4] == [("begun", 0), ("cancelled", 10), ("begun", 17), ("cancelled", 27)]
    assert (report.codes, report.abandoned) == ({"timeout": 1}, 2)
    assert [call.seconds for call in report.abandonments] == [15.0, 15.0]
    assert (report.failures[0].attempts, report.failures[0].delay) == (2, 2.0)


@every_driver
def test_r8_many_handlers_time_out_and_their_workers_go_on(driver):
    async def handler(n):
        await for_ever() if n % 2 else None

    pipeline = one(*range(200)).for_each(handler, timeout=SHORT, concurrency=50)
    report = balanced(go(pipeline, driver))
    assert (report.committed, report.codes) == (100, {"timeout": 100})
    assert report.abandoned == 0


def test_r8_a_late_exception_goes_to_the_error():
    async def handler(n):
        try:
            await for_ever()
        finally:
            raise OSError("while closing")

    (failure,) = go(one().for_each(handler, timeout=SHORT)).failures
    assert (failure.code, str(failure.error.late)) == ("timeout", "while closing")


@pytest.mark.parametrize("takes_ctx", [False, True])
@every_driver
def test_r8_a_late_result_of_an_async_handler_is_dropped_and_counted(driver, takes_ctx):
    async def handler(n):
        # The cancellation of the first item must not be felt by the second.
        assert asyncio.current_task().cancelling() == 0
        with contextlib.suppress(asyncio.CancelledError):
            await for_ever() if n == 1 else None
        return n

    async def with_ctx(n, ctx):
        return await handler(n)

    pipeline = one(1, 2).map(with_ctx if takes_ctx else handler, timeout=SHORT).collect()
    report = balanced(go(pipeline, driver))
    assert report.items == [2]
    assert (report.codes, report.late, report.abandoned) == ({"timeout": 1}, 1, 0)


@within
async def test_r8_an_async_handler_that_does_not_end_is_left_behind_and_replaced(no_grace):
    seen, release, ended = Seen(), asyncio.Event(), []

    async def handler(n):
        seen(n)
        while n == 1 and not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()
        ended.append(n)

    source = Live(1, 2, 3)
    pipeline = ab.Pipeline("p").source(source).for_each(handler, timeout=SHORT, name="store")
    async with pipeline.start() as running:
        # The next items come through another worker, while the first one is still stuck.
        await seen.reach(3)
        assert ended[:1] == [2]
        release.set()
        await turns(20)
        source.end()
        report = balanced(await running.wait())
    assert (report.committed, report.codes) == (2, {"timeout": 1})
    assert (report.abandoned, report.late) == (1, 1)
    (left,) = report.abandonments
    assert (left.stage, left.tenant, left.attempt) == ("store", None, 1)
    assert left.seconds >= 2 * SHORT
    assert report.failures[0].error.abandoned
    assert "calls left behind because they did not end: 1" in str(report)
    assert report.to_dict()["timeouts"]["calls"][0]["attempt"] == 1


@within
async def test_r8_a_run_does_not_wait_for_those_left_behind(no_grace, monkeypatch, caplog):
    monkeypatch.setattr(_tasks, "_LAST_CHANCE", 0.0)
    release, stuck = asyncio.Event(), []

    async def handler(n):
        stuck.append(asyncio.current_task())
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()

    report = balanced(await one().for_each(handler, timeout=SHORT).run())
    assert (report.codes, report.abandoned) == ({"timeout": 1}, 1)
    told = "pipeline 'p': tasks are still busy and were left behind: 1 of stage 'handler'"
    assert told in caplog.text
    release.set()
    await asyncio.wait(stuck)
    assert not stuck[0].cancelled()
    assert stuck[0].exception() is None


@within
async def test_r8_a_cancellation_from_outside_beats_the_timeout():
    seen, cleaning, source = Seen(), asyncio.Event(), Live(1)

    async def handler(n):
        try:
            seen(n)
            await for_ever()
        finally:
            # Between the timeout and the end of the handler.
            cleaning.set()
            with contextlib.suppress(asyncio.CancelledError):
                await for_ever()

    pipeline = ab.Pipeline("p").source(source).for_each(handler, timeout=SHORT)
    task = asyncio.create_task(pipeline.run())
    await cleaning.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    report = balanced(pipeline.last_report)
    assert (report.codes, report.abandoned) == ({"cancelled": 1}, 0)


def test_r8_a_timeout_of_the_handlers_own_stays_its_own():
    async def handler(n):
        try:
            async with asyncio.timeout(SHORT / 10):
                await for_ever()
        except TimeoutError:
            raise OSError("mine") from None

    report = balanced(go(one().for_each(handler, timeout=60)))
    assert report.codes == {"OSError": 1}


def test_r8_ours_reaches_through_a_longer_one_of_the_handlers_own():
    async def handler(n):
        async with asyncio.timeout(60):
            await for_ever()

    report = balanced(go(one().for_each(handler, timeout=SHORT)))
    assert report.codes == {"timeout": 1}
    assert report.failures[0].error.late is None


def released(release):
    """Let go of a handler, as `tap_error`, once its attempt has ended."""
    return lambda failure: release.set()


@every_driver
def test_r8_a_pooled_def_fails_at_its_timeout_and_its_late_result_is_counted(driver):
    release, cancelled = threading.Event(), []

    def handler(n, ctx):
        wait_for(release)
        cancelled.append(ctx.cancelled)

    pipeline = one().for_each(handler, timeout=SHORT).tap_error(released(release))
    report = balanced(go(pipeline, driver))
    assert (report.committed, report.codes) == (0, {"timeout": 1})
    assert (cancelled, report.late, report.abandoned) == ([True], 1, 0)


@every_driver
def test_r8_a_late_exception_of_a_pooled_def_goes_to_the_error(driver):
    release = threading.Event()

    def handler(n):
        wait_for(release)
        raise OSError("late")

    pipeline = one().for_each(handler, timeout=SHORT).tap_error(released(release))
    report = balanced(go(pipeline, driver))
    (failure,) = report.failures
    assert (failure.code, str(failure.error.late), report.late) == ("timeout", "late", 0)


@pytest.mark.parametrize("told", [False, True])
@every_driver
def test_r8_the_report_tells_a_late_exception_though_operators_were_told_before(driver, told):
    release, raised, told_of = threading.Event(), OSError("late"), []

    def handler(n):
        if n == 2:
            release.set()
            return
        wait_for(release)
        raise raised

    pipeline = one(1, 2).for_each(handler, timeout=POOLED)
    report = balanced(go(pipeline.tap_error(told_of.append) if told else pipeline, driver))
    (failure,) = report.failures
    assert failure.metadata == {"timeout": POOLED, "late": raised, "abandoned": False}
    assert failure.to_dict()["metadata"] == {"timeout": POOLED, "late": "late", "abandoned": False}
    # An operator had what was known by then, and that does not change.
    assert [it.metadata["late"] for it in told_of] == [None] * told


def test_r8_metadata_of_ones_own_stays_whatever_comes_late():
    release = threading.Event()

    def handler(n):
        wait_for(release)
        raise OSError("late")

    pipeline = one().for_each(handler, timeout=SHORT).tap_error(released(release))
    pipeline = pipeline.map_error(lambda failure: failure.replace(metadata={"late": "mine"}))
    (failure,) = balanced(go(pipeline)).failures
    assert failure.metadata == {"late": "mine"}


@every_driver
def test_e4_a_late_exit_is_not_swallowed(driver):
    release = threading.Event()

    def handler(n):
        wait_for(release)
        raise SystemExit(3)

    pipeline = one().for_each(handler, timeout=SHORT).tap_error(released(release))
    with pytest.raises(SystemExit):
        go(pipeline, driver)


@every_driver
def test_r8_a_stuck_thread_is_left_behind_and_replaced(driver, no_grace, monkeypatch):
    # Closing does not wait for it: the test would not end in time.
    monkeypatch.setattr(_driver, "_POOL_CLOSE", 3600.0)
    release, threads = threading.Event(), []

    def handler(n):
        threads.append(threading.current_thread())
        if n == 1:
            wait_for(release)

    pipeline = ab.Pipeline("p", threads=1).source([1, 2, 3])
    report = balanced(go(pipeline.for_each(handler, timeout=POOLED), driver))
    assert (report.committed, report.codes) == (2, {"timeout": 1})
    assert (report.abandoned, report.late) == (1, 0)
    assert threads[0] not in threads[1:]
    assert threads[0].is_alive()
    release.set()
    threads[0].join(20)
    assert not threads[0].is_alive(), "the stuck thread takes no more jobs"


@every_driver
def test_r8_a_pooled_attempt_is_tried_again_and_its_undo_runs_first(driver):
    release, log = threading.Event(), []

    def handler(n, ctx):
        log.append(f"attempt {ctx.attempt}")
        ctx.compensate(log.append, f"undo {ctx.attempt}")
        if ctx.attempt == 1:
            wait_for(release)
            with contextlib.suppress(ab.ClosedError):
                ctx.compensate(log.append, "too late")
        else:
            release.set()

    # Further ones, should a busy machine need more than the time for one that does nothing.
    retry = ab.Retry.fixed(0, attempts=50)
    report = balanced(go(one().for_each(handler, timeout=POOLED, retry=retry), driver))
    attempts = report.retried + 1
    pairs = [(f"attempt {n}", f"undo {n}") for n in range(1, attempts)]
    assert log == [*(entry for pair in pairs for entry in pair), f"attempt {attempts}"]
    assert (report.committed, attempts >= 2) == (1, True)


@every_driver
def test_r8_a_job_does_not_use_up_its_time_while_it_waits_for_a_thread(driver):
    begun, ended, deadlines = [], [], []
    routed = threading.Event()

    def source():
        yield from (1, 2, 3)
        routed.set()

    def handler(n, ctx):
        begun.append(time.monotonic())
        deadlines.append(ctx.deadline)
        wait_for(routed)
        ended.append(time.monotonic())

    pipeline = ab.Pipeline("p", threads=1).source(source())
    report = balanced(go(pipeline.for_each(handler, timeout=60, concurrency=3), driver))
    assert report.committed == 3
    # The time of one begins when the one before has ended.
    assert deadlines[1] - deadlines[0] >= ended[0] - begun[0]
    assert deadlines[2] - deadlines[1] >= ended[1] - begun[1]


@every_driver
def test_r8_a_def_that_returns_a_coroutine_is_timed_out_too(driver):
    async def store(n):
        await for_ever() if n == 1 else None

    def sink(n):
        return store(n)

    report = balanced(go(one(1, 2).for_each(sink, timeout=POOLED), driver))
    assert (report.committed, report.codes) == (1, {"timeout": 1})
    assert report.abandoned == 0


@pytest.mark.parametrize(
    "build",
    [
        lambda: one().map(lambda n: n, timeout=5),
        lambda: one().filter(lambda n: n, timeout=5),
        lambda: one().flat_map(lambda n: [n], timeout=5, retry=ab.Retry.fixed(1)),
        lambda: one().tap(print, timeout=5),
        lambda: one().for_each(print, timeout=5, inline=True),
    ],
    ids=["map", "filter", "flat_map", "tap", "inline"],
)
def test_r8_a_timeout_of_an_inline_def_is_refused(build):
    with pytest.raises(
        ab.ConfigError, match="timeout must be None for a def that runs inline"
    ) as e:
        build()
    assert (e.value.argument, e.value.value) == ("timeout", 5)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), "soon", True])
def test_r8_a_timeout_is_seconds(timeout):
    with pytest.raises(ab.ConfigError, match="timeout must be a number of seconds > 0"):
        one().for_each(print, timeout=timeout)


@within
async def test_a_def_that_has_not_got_a_thread_in_time_is_not_called_any_more():
    """By hand: `ab.timeout` on an executor that is busy."""
    loop, may_end, called = asyncio.get_running_loop(), threading.Event(), []
    executor = ThreadPoolExecutor(1)
    loop.set_default_executor(executor)
    busy = loop.run_in_executor(None, wait_for, may_end)
    with pytest.raises(ab.HandlerTimeout) as caught:
        await ab.timeout(lambda: called.append(1), 0.01)
    assert not caught.value.abandoned
    may_end.set()
    await busy
    # Behind it in the same line.
    await loop.run_in_executor(None, len, ())
    assert called == []
