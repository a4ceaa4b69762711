"""The drivers: blocking, asyncio, beside the caller; promotion; leaving; one run per object."""

import asyncio
import contextvars
import functools
import inspect
import signal
import socket
import threading

import pytest
from support import (
    DEADLINE,
    Live,
    Seen,
    balanced,
    every_driver,
    every_sink,
    flat,
    go,
    turns,
    wait_for,
    with_sink,
    within,
)

import anabranch as ab
from anabranch.testing import virtual_time


def in_a_loop():
    try:
        return asyncio.get_running_loop() is not None
    except RuntimeError:
        return False


# Promotion: run_blocking opens a loop when something must be awaited.


async def add_one(n):
    return n + 1


async def async_numbers():
    for n in range(100):
        yield n


def test_e9_run_blocking_opens_a_loop_only_if_something_is_async():
    loops = []
    source = ab.Pipeline("p").source(range(3))
    source.for_each(lambda n: loops.append(in_a_loop()), inline=True).run_blocking()
    assert loops == [False] * 3
    source.map(add_one).for_each(lambda n: loops.append(in_a_loop()), inline=True).run_blocking()
    assert loops[3:] == [True] * 3


@pytest.mark.parametrize("inline", [True, False])
@every_driver
def test_e9_a_def_sink_that_returns_a_coroutine_has_it_awaited(driver, inline):
    done = []

    async def store(n):
        await asyncio.sleep(0)
        done.append(n)

    pipeline = ab.Pipeline("p").source(range(100)).window(max_items=7)
    pipeline = pipeline.for_each(lambda window: store(window), inline=inline)  # noqa: PLW0108 - not async itself
    report = balanced(go(pipeline, driver))
    assert flat(done) == list(range(100))
    assert (report.committed, report.windows) == (100, 15)


@pytest.mark.parametrize("inline", [True, False])
@every_driver
def test_e9_what_such_a_coroutine_raises_is_the_sinks_failure(driver, inline):
    attempts = []

    async def store(n):
        attempts.append(n)
        if n == 3 and attempts.count(3) < 3:
            raise OSError(n)

    pipeline = ab.Pipeline("p").source(range(5))
    retry = ab.Retry.fixed(0, attempts=2)
    pipeline = pipeline.for_each(lambda n: store(n), inline=inline, retry=retry)  # noqa: PLW0108 - not async itself
    report = balanced(go(pipeline, driver))
    assert (report.committed, report.codes, report.retried) == (4, {"OSError": 1}, 1)


@every_sink
@every_driver
def test_e9_an_undo_that_returns_a_coroutine_has_it_awaited(driver, kind):
    done = []

    async def remove(n):
        await asyncio.sleep(0)
        done.append((n, in_a_loop()))

    def sink(n, ctx):
        ctx.compensate(done.append, "first")
        ctx.compensate(lambda: remove(n))
        raise ValueError(n)

    pipeline = with_sink(ab.Pipeline("p").source([7]), kind, sink)
    report = balanced(go(pipeline, driver))
    assert done == [(7, True), "first"]
    assert (report.compensated, report.stuck) == (2, 0)


def test_e9_promotion_goes_on_with_the_same_run():
    seen = Seen()

    async def later(n):
        seen(n)

    def sink(n):
        if n == 500:
            return later(n)
        seen(n)
        return None

    pipeline = ab.Pipeline("p").source(iter(range(1000))).for_each(sink, inline=True)
    report = balanced(pipeline.run_blocking())
    assert sorted(seen.items) == list(range(1000))
    assert report.committed == 1000


@every_driver
def test_an_async_source_runs_under_every_driver(driver):
    pipeline = ab.Pipeline("p").source(async_numbers()).collect()
    assert go(pipeline, driver).items == list(range(100))


def test_run_blocking_refuses_to_block_a_loop():
    async def main():
        pipeline = ab.Pipeline("p").source([1]).collect()
        with pytest.raises(RuntimeError, match=r"await pipeline\.run"):
            pipeline.run_blocking()

    asyncio.run(main())


@every_sink
def test_run_blocking_works_in_any_thread(kind):
    reports = []
    pipeline = with_sink(ab.Pipeline("p").source(range(100)), kind, lambda unit, ctx: None)
    thread = threading.Thread(target=lambda: reports.append(pipeline.run_blocking()))
    thread.start()
    thread.join()
    assert balanced(reports[0]).committed == 100


def test_context_variables_of_the_caller_are_seen_by_every_callable():
    variable = contextvars.ContextVar("variable", default="unset")
    seen = {}

    async def in_task(n):
        seen["async"] = variable.get()
        return n

    def run(pipeline):
        variable.set("the caller's")
        go(pipeline, "run_blocking")

    source = ab.Pipeline("p").source([1])
    for name, inline in [("inline", True), ("pool", False)]:
        sink = functools.partial(lambda name, n: seen.update({name: variable.get()}), name)
        pipeline = source.map(in_task).for_each(sink, inline=inline)
        contextvars.copy_context().run(run, pipeline)
    assert seen == dict.fromkeys(["async", "inline", "pool"], "the caller's")


# Signals.


def test_e9_run_blocking_sets_and_restores_a_sigint_handler_on_the_main_thread():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    during = []

    def sink(n):
        during.append((signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)))

    ab.Pipeline("p").source([1]).for_each(sink, inline=True).run_blocking()
    assert all(now is not then for now, then in zip(during[0], before, strict=True))
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_e9_handlers_of_the_users_own_are_left_alone():
    def mine(number, frame):
        pass

    before = signal.signal(signal.SIGINT, mine), signal.signal(signal.SIGTERM, mine)
    try:
        during = []
        ab.Pipeline("p").source([1]).for_each(
            lambda n: during.append(signal.getsignal(signal.SIGINT)), inline=True
        ).run_blocking()
        assert during == [mine]
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGINT, before[0])
        signal.signal(signal.SIGTERM, before[1])


def test_e9_handlers_are_restored_after_an_exception():
    def leave(n):
        raise SystemExit

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit):
        ab.Pipeline("p").source([1]).for_each(leave, inline=True).run_blocking()
    assert signal.getsignal(signal.SIGINT) is before


def test_e5_whatever_a_signal_handler_raises_the_run_is_rolled_back_before_it_goes_on():
    class Own(BaseException):
        pass

    came, undone = threading.Event(), []

    def stop(number, frame):
        came.set()
        raise Own("out")

    def sink(n, ctx):
        ctx.compensate(undone.append, n)
        # The driver has the main thread to itself: nothing else is interrupted.
        signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
        wait_for(came)

    pipeline = ab.Pipeline("p", commit="end").source([1]).for_each(sink)
    before = signal.signal(signal.SIGUSR1, stop)
    try:
        with pytest.raises(Own, match="out"):
            pipeline.run_blocking()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert (undone, balanced(pipeline.last_report).outcome) == ([1], "aborted")


# Leaving `async with start()`.


@every_sink
@within
async def test_e9_leaving_without_an_error_drains(kind):
    source, taken, seen = Live(*range(100)), Seen(), Seen()
    pipeline = ab.Pipeline("p").source(source).tap(taken).window(max_items=1000)
    pipeline = with_sink(pipeline, kind, lambda unit, ctx: seen(unit))
    async with pipeline.start() as running:
        await taken.reach(100)
    report = balanced(running.report)
    assert (report.outcome, report.committed) == ("drained", 100)
    assert seen.items == [list(range(100))]
    assert source.closed


@every_sink
@within
async def test_e9_leaving_with_an_error_aborts(kind):
    source, taken, seen = Live(*range(100)), Seen(), Seen()
    pipeline = ab.Pipeline("p").source(source).tap(taken).window(max_items=1000)
    pipeline = with_sink(pipeline, kind, lambda unit, ctx: seen(unit))
    with pytest.raises(LookupError):
        async with pipeline.start() as running:
            await taken.reach(100)
            raise LookupError
    report = balanced(running.report)
    assert (report.outcome, report.committed, report.dropped) == ("aborted", 0, 100)
    assert source.closed


@virtual_time
async def test_e9_a_drain_that_takes_longer_than_grace_aborts(clock):
    source, seen, undone = Live(1), Seen(), []

    async def stuck(n, ctx):
        ctx.compensate(lambda: undone.append(clock.now()))
        seen(n)
        await asyncio.Event().wait()

    async with ab.Pipeline("p", grace=45.0).source(source).for_each(stuck).start() as running:
        await seen.reach(1)
        await clock.advance(10.0)
        running.drain()
        report = balanced(await running.wait())
    assert (report.outcome, undone) == ("aborted", [55.0])


@virtual_time(start=1e9)
async def test_e9_a_drain_before_the_start_has_its_grace_from_the_start_on(clock):
    running = ab.Pipeline("p", grace=45.0).source(Live(1)).collect().start()
    running.drain()
    async with running:
        report = balanced(await running.wait())
    assert (report.outcome, clock.now()) == ("drained", 1e9)


@pytest.mark.parametrize("way", ["drain", "abort"])
@within
async def test_drain_and_abort_may_be_called_from_any_thread_and_twice(way):
    source, seen = Live(1), Seen()
    async with ab.Pipeline("p").source(source).for_each(seen).start() as running:
        await seen.reach(1)
        for _ in range(2):
            await asyncio.to_thread(getattr(running, way))
        report = balanced(await running.wait())
        getattr(running, way)()
    assert report.outcome == {"drain": "drained", "abort": "aborted"}[way]


def test_drain_from_another_thread_ends_run_blocking():
    begun, threads = threading.Event(), []

    def endless():
        n = 0
        while True:
            yield n
            n += 1

    async def main():
        async with ab.Pipeline("p").source(endless()).for_each(lambda n: begun.set()).start() as it:
            thread = threading.Thread(target=lambda: (wait_for(begun), it.drain()))
            threads.append(thread)
            thread.start()
            return await it.wait()

    assert balanced(asyncio.run(main())).outcome == "drained"
    threads[0].join()


# One run per object, one loop per run.


@every_driver
@pytest.mark.parametrize("again", ["run_blocking", "run", "start"])
def test_e6_a_pipeline_runs_once(driver, again):
    pipeline = ab.Pipeline("ingest").source([1]).collect()
    go(pipeline, driver)
    with pytest.raises(ab.ClosedError, match="'ingest' has been run already"):
        go(pipeline, again)


@within
async def test_e6_two_runs_at_once_are_refused():
    source = Live()
    pipeline = ab.Pipeline("p").source(source).collect()
    async with pipeline.start():
        with pytest.raises(ab.ClosedError):
            await pipeline.run()
        source.end()


def test_e6_wait_in_another_loop_is_refused():
    async def wait(running):
        async with asyncio.timeout(DEADLINE):
            await running.wait()

    async def main():
        source = Live()
        async with ab.Pipeline("p").source(source).collect().start() as running:
            with pytest.raises(ab.ClosedError, match="another event loop"):
                await asyncio.to_thread(asyncio.run, wait(running))
            source.end()

    asyncio.run(main())


@within
async def test_e6_running_is_used_once_and_only_started():
    running = ab.Pipeline("p").source([1]).collect().start()
    with pytest.raises(ab.ClosedError, match="not running"):
        await running.wait()
    async with running:
        assert (await running.wait()).items == [1]
    assert (await running.wait()).items == [1]
    with pytest.raises(ab.ClosedError, match="started already"):
        await running.__aenter__()


@within
async def test_address_of_a_source_that_does_not_listen_is_refused():
    async with ab.Pipeline("p").source([1]).collect().start() as running:
        with pytest.raises(ab.ClosedError, match="listens"):
            _ = running.address


# Lines from a socket; more of it where the line server itself is tested.


async def sent(data, **options):
    """What a pipeline makes of these bytes from one client."""
    lines = ab.tcp_lines("127.0.0.1", 0, until="disconnected", **options)
    async with ab.Pipeline("p").source(lines).collect().start() as running:
        host, port = running.address
        assert (host, port > 0) == ("127.0.0.1", True)
        _, client = await asyncio.open_connection(host, port)
        client.write(data)
        client.close()
        await client.wait_closed()
        return balanced(await running.wait())


@within
async def test_e9_lines_are_str_without_their_end():
    report = await sent(b"one\r\ntwo\r\r\n\nthr\xc3\xa9e\nlast")
    assert report.items == ["one", "two\r", "", "thrée", "last"]


@within
async def test_e9_invalid_utf8_goes_by_policy_and_bytes_are_untouched():
    report = await sent(b"ok\n\xff\nok\n")
    assert (report.items, report.codes) == (["ok", "ok"], {"source.invalid_utf8": 1})
    assert (await sent(b"a\xffb\n", errors="replace")).items == ["a�b"]
    assert (await sent(b"a\xffb\r\n", encoding=None)).items == [b"a\xffb"]


def test_e9_an_address_in_use_is_an_error_at_start():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        lines = ab.tcp_lines("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(OSError, match="in use"):
            ab.Pipeline("p").source(lines).collect().run_blocking()


@within
async def test_running_is_what_the_docs_say():
    assert inspect.iscoroutinefunction(ab.Running.wait)
    running = ab.Pipeline("p").source(Live()).collect().start()
    assert running.report is None
    async with running:
        await turns(3)
        assert running.report is None
    assert running.report.outcome == "drained"


def test_e9_a_start_cancelled_on_its_way_in_leaves_nothing_running():
    async def main():
        def endless():
            while True:
                yield 1

        pipeline = ab.Pipeline("p").source(endless()).for_each(lambda unit: None, inline=True)

        async def use():
            async with pipeline.start() as running:
                await running.wait()

        task = asyncio.create_task(use())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return balanced(pipeline.last_report).outcome

    assert asyncio.run(main()) == "aborted"
