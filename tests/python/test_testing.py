"""`anabranch.testing`: virtual time for pipelines and user code, and memory."""

import asyncio
import inspect
import itertools
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import (
    Seen,
    balanced,
    child,
    every_way,
    finish,
    go,
    turns,
    with_sink,
)

import anabranch as ab
from anabranch import _virtual
from anabranch.testing import VirtualClock, VirtualLoop, virtual_time

manual = virtual_time(auto_advance=False)


def napping(log, clock, *naps):
    """Tasks that each nap, and note when they wake."""

    async def nap(seconds):
        await asyncio.sleep(seconds)
        log.append((clock.now(), seconds))

    return [asyncio.create_task(nap(seconds)) for seconds in naps]


# The clock moves by hand.


@manual
async def test_g6_advance_runs_all_that_is_due_in_time_order(clock):
    log = []
    tasks = napping(log, clock, 3.0, 1.0, 2.0, 2.5)
    await clock.advance(2.5)
    assert log == [(1.0, 1.0), (2.0, 2.0), (2.5, 2.5)]
    assert clock.now() == 2.5
    await clock.advance(timedelta(seconds=10))
    assert log[3:] == [(3.0, 3.0)]
    assert (clock.now(), all(task.done() for task in tasks)) == (12.5, True)


@manual
async def test_g6_advance_goes_on_to_quiescence(clock):
    log = []

    async def chain():
        await asyncio.sleep(1.0)
        await turns(100)
        for _ in range(3):
            await asyncio.sleep(0.5)
            await asyncio.to_thread(log.append, clock.now())
        await turns(100)
        log.append("end")

    task = asyncio.create_task(chain())
    await clock.advance(2.5)
    assert log == [1.5, 2.0, 2.5, "end"]
    assert task.done()


@manual
async def test_g6_advance_0_lets_happen_what_can_happen_now(clock):
    async def settle():
        await turns(1000)
        return await asyncio.to_thread(int, "7")

    task, later = asyncio.create_task(settle()), asyncio.create_task(asyncio.sleep(0.001))
    await clock.advance(0)
    assert (task.result(), later.done(), clock.now()) == (7, False, 0.0)
    await clock.advance(0.001)
    assert later.done()


@manual
async def test_g6_advances_side_by_side_each_return_at_their_time(clock):
    log = []

    async def advance(seconds):
        await clock.advance(seconds)
        log.append((clock.now(), seconds))

    given_up = asyncio.create_task(advance(1.5))
    tasks = [asyncio.create_task(advance(seconds)) for seconds in (2.0, 1.0, 3.0)]
    await turns(1)
    given_up.cancel()
    await asyncio.gather(*tasks)
    assert log == [(1.0, 1.0), (2.0, 2.0), (3.0, 3.0)]


# The clock moves by itself.


@every_way
def test_g6_a_whole_pipeline_runs_in_no_time_at_all(driver, kind):
    clock, log = VirtualClock(), []

    def every_hour():
        for n in range(24):
            clock.spend(3600.0)
            yield ("acme", n)

    def store(window, ctx):
        log.append((clock.now(), len(window), ctx.attempt))
        if ctx.attempt == 1:
            raise OSError("busy")

    pipeline = ab.Pipeline("p", clock=clock).source(every_hour()).fan_out(by=ab.item(0))
    pipeline = pipeline.window(max_items=12, max_age=86_400.0)
    pipeline = with_sink(pipeline, kind, store, retry=ab.Retry.fixed(1800.0))
    report = balanced(go(pipeline, driver, clock))
    assert (report.committed, report.retried) == (24, 2)
    hours = [(at / 3600.0, items, attempt) for at, items, attempt in log]
    # The generator holds up the pipeline, so the second attempt is late; at its end nothing does.
    assert hours == [(12.0, 12, 1), (13.0, 12, 2), (24.0, 12, 1), (24.5, 12, 2)]


def user_code(unit, waits):
    """What a user wrote, without a thought of virtual time."""

    async def readings():
        for n in range(6):
            yield n
            await asyncio.sleep(unit)

    async def main():
        seen = []

        async def store(window):
            await asyncio.sleep(unit / 10)
            if len(seen) == 1 and not waits:
                waits.append(window)
                raise OSError("busy")
            try:
                async with asyncio.timeout(unit / 10):
                    await asyncio.sleep(unit * 100)
            except TimeoutError:
                seen.append(await asyncio.to_thread(list, window))

        pipeline = ab.Pipeline("p").source(readings()).window(max_items=3, max_age=unit * 1000)
        await pipeline.for_each(store, retry=ab.Retry.fixed(unit)).run()
        return seen

    return main()


def test_g6_the_same_user_code_runs_on_the_real_clock():
    clock = VirtualClock()
    virtual = ab.testing.run(user_code(3600.0, []), clock=clock)
    real = asyncio.run(user_code(0.001, []))
    assert virtual == real == [[0, 1, 2], [3, 4, 5]]
    assert clock.now() == pytest.approx(3600.0 * 6.3)


@every_way
def test_g6_def_sinks_and_undo_actions_run_in_the_pipelines_thread(driver, kind):
    clock, threads = VirtualClock(), []

    def note(*args):
        threads.append(threading.current_thread())

    def sink(unit, ctx):
        note()
        ctx.compensate(note)
        raise ValueError(unit)

    before = threading.active_count()
    pipeline = with_sink(ab.Pipeline("p", clock=clock).source([1, 2, 3]), kind, sink)
    report = balanced(go(pipeline, driver, clock))
    assert (report.failed, report.compensated) == (3, 3)
    assert threads == [threading.current_thread()] * 6
    assert threading.active_count() == before


@every_way
def test_g6_what_a_callable_spends_makes_the_others_late(driver, kind):
    clock, log = VirtualClock(), []

    def slow(unit, ctx):
        clock.spend(2.5)
        log.append((unit, clock.now()))

    pipeline = with_sink(ab.Pipeline("p", clock=clock).source([1, 2, 3]), kind, slow)
    report = balanced(go(pipeline, driver, clock))
    assert log == [(1, 2.5), (2, 5.0), (3, 7.5)]
    assert report.seconds == 7.5


def test_g6_run_blocking_goes_on_in_virtual_time_when_it_meets_a_coroutine():
    clock = VirtualClock()

    async def later(n):
        await asyncio.sleep(60.0)

    pipeline = ab.Pipeline("p", clock=clock).source([1, 2]).for_each(lambda n: later(n))  # noqa: PLW0108 - not async itself
    assert balanced(pipeline.run_blocking()).committed == 2
    assert clock.now() == 120.0


@virtual_time
async def test_g6_an_endless_source_leaves_the_others_their_turn(clock):
    pipeline = ab.Pipeline("p").source(itertools.count()).filter(lambda n: n < 0).collect()
    async with pipeline.start() as running:
        await turns(50)
    assert balanced(running.report).outcome == "drained"
    assert clock.now() == 0.0


# User code.


@virtual_time(start=100.0)
async def test_g6_sleep_and_timeout_go_by_the_clock(clock):
    assert asyncio.get_running_loop().time() == 100.0
    await asyncio.sleep(86_400.0)
    assert clock.now() == 86_500.0
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.25):
            await asyncio.sleep(1.0)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.Event().wait(), 0.25)
    assert clock.now() == 86_500.5


@virtual_time
async def test_g6_time_stands_still_while_functions_run_in_threads(clock):
    gate, order = threading.Event(), []

    def work(n):
        order.append((n, threading.current_thread() is not threading.main_thread()))
        if n == 0:
            gate.wait(20)
        return n, clock.now()

    ticking = asyncio.create_task(asyncio.sleep(0.001))
    jobs = [asyncio.create_task(asyncio.to_thread(work, n)) for n in range(5)]
    # The thread waits for what a coroutine does.
    asyncio.get_running_loop().call_soon(lambda: asyncio.get_running_loop().call_soon(gate.set))
    assert await asyncio.gather(*jobs) == [(n, 0.0) for n in range(5)]
    assert order == [(n, True) for n in range(5)]
    await ticking
    assert clock.now() == 0.001


@virtual_time
async def test_g6_functions_in_an_executor_of_the_users_own_are_waited_for(clock):
    meeting = threading.Barrier(3, timeout=20)
    with ThreadPoolExecutor(3) as executor:
        calls = [
            asyncio.get_running_loop().run_in_executor(executor, meeting.wait) for _ in range(3)
        ]
        async with asyncio.timeout(0.001):
            assert sorted(await asyncio.gather(*calls)) == [0, 1, 2]
    assert clock.now() == 0.0


@virtual_time
async def test_g6_a_coroutine_may_be_called_from_a_thread(clock):
    loop = asyncio.get_running_loop()

    async def answer():
        await turns(5)
        return 42

    def ask():
        return asyncio.run_coroutine_threadsafe(answer(), loop).result(20)

    assert await asyncio.to_thread(ask) == 42
    assert clock.now() == 0.0


@virtual_time
async def test_g6_sockets_are_real(clock):
    async def serve(reader, writer):
        while line := await reader.readline():
            await asyncio.sleep(60.0)
            writer.write(line.upper())
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        for line in (b"one\n", b"two\n"):
            writer.write(line)
            assert await reader.readline() == line.upper()
        writer.close()
        await writer.wait_closed()
        await turns(5)
    assert clock.now() == 120.0


@manual
async def test_g6_a_line_server_delivers_in_real_time_and_windows_go_by_the_clock(clock):
    lines, seen = ab.tcp_lines("127.0.0.1", 0), Seen()
    pipeline = ab.Pipeline("p").source(lines).tap(seen).window(max_age=30.0).collect()
    async with pipeline.start() as running:
        _, writer = await asyncio.open_connection(*running.address)
        writer.write(b"one\ntwo\n")
        await seen.reach(2)
        await clock.advance(31.0)
        writer.write(b"three\n")
        await seen.reach(3)
        writer.close()
        await writer.wait_closed()
    assert running.report.items == [["one", "two"], ["three"]]


@pytest.mark.parametrize("start", [0.0, 1e6, 1e9])
def test_g6_however_large_the_time_is_it_goes_on(start):
    clock, log = VirtualClock(start), []

    async def tick():
        for _ in range(10):
            await asyncio.sleep(1e-9)
            log.append(clock.now())

    async def beside():
        retry = ab.Retry.fixed(0.1, attempts=3)

        def fail(n):
            raise OSError

        return await ab.Pipeline("p").source([1]).for_each(fail, retry=retry).run()

    async def main():
        return (await asyncio.gather(tick(), beside()))[1]

    report = ab.testing.run(main(), clock=clock)
    assert report.failures[0].delay == 0.2
    # Each delay takes time, if only the least there is: without any it could repeat for ever.
    assert all(earlier < later for earlier, later in itertools.pairwise([start, *log]))
    assert clock.now() == pytest.approx(start + 0.2, abs=1e-5)


# The same seed, the same run.


def course(seed, shape):
    """Run some pipeline with everything in it that takes time; note what happened when."""
    clock, log = VirtualClock(seed=seed), []
    chance = random.Random(shape)
    naps = [chance.choice([0.0, 0.1, 0.5, 2.0]) for _ in range(30)]
    failing = {n for n in range(30) if chance.random() < 0.3}

    async def source():
        for n, nap in enumerate(naps):
            yield n
            await asyncio.sleep(nap)

    async def look_up(n, ctx):
        log.append((clock.now(), "look up", n, ctx.attempt))
        await asyncio.sleep(naps[-n] / 7)
        if n in failing and ctx.attempt < 3:
            raise OSError(n)
        return await asyncio.to_thread(int, n)

    def store(window, ctx):
        log.append((clock.now(), "store", ctx.tenant, tuple(window), ctx.window.reason))
        ctx.compensate(lambda: log.append((clock.now(), "undo", tuple(window))))
        if failing.intersection(window):
            raise OSError(window)

    async def main():
        retry = ab.Retry.exponential(attempts=3, base=0.3)
        pipeline = ab.Pipeline("p").source(source())
        pipeline = pipeline.map(look_up, concurrency=4, ordered=False, retry=retry)
        pipeline = pipeline.fan_out(by=lambda n: n % 3).window(max_items=4, max_age=1.0, idle=0.4)
        return balanced(await pipeline.for_each(store, retry=retry).run())

    report = ab.testing.run(main(), clock=clock)
    return log, report.seconds, str(report)


@settings(max_examples=25)
@given(seed=st.integers(0, 2**64), shape=st.integers(0, 2**32))
def test_g6_the_same_seed_repeats_the_same_run(seed, shape):
    first = course(seed, shape)
    assert course(seed, shape) == first
    times = [entry[0] for entry in first[0]]
    assert times == sorted(times)


def test_g6_another_seed_is_another_run():
    assert course(1, 7) != course(2, 7)


def test_g6_pipelines_on_one_clock_get_seeds_of_their_own():
    def delays(clock):
        def fail(n):
            raise OSError

        retry = ab.Retry.exponential(attempts=3, base=1.0)
        for _ in range(3):
            pipeline = ab.Pipeline("p", clock=clock).source([1])
            yield pipeline.for_each(fail, retry=retry).run_blocking().failures[0].delay

    first = list(delays(VirtualClock(seed=3)))
    assert len(set(first)) == 3
    assert list(delays(VirtualClock(seed=3))) == first


# For test frameworks.


@virtual_time
async def plain(first, clock, *, second=2):
    await asyncio.sleep(1.0)
    return first, second, clock.now()


def test_virtual_time_hides_the_clock_from_the_framework():
    assert list(inspect.signature(plain).parameters) == ["first", "second"]
    assert not inspect.iscoroutinefunction(plain)
    assert plain(1) == plain(1) == (1, 2, 1.0)


def test_virtual_time_wants_a_coroutine_function():
    with pytest.raises(ab.ConfigError, match="virtual_time: test must be an async def"):
        virtual_time(lambda: None)


@pytest.fixture
def number():
    return 7


@pytest.mark.parametrize("other", [1, 2])
@virtual_time
async def test_virtual_time_leaves_fixtures_and_parameters_alone(number, other, clock):
    assert (number, other in (1, 2), clock.now()) == (7, True, 0.0)


def test_the_loop_can_be_had_by_a_factory():
    clock = VirtualClock()
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(clock)) as runner:
        assert runner.run(asyncio.sleep(60.0, "slept")) == "slept"
        assert runner.get_loop().virtual_clock is clock
    assert clock.now() == 60.0


def test_importing_the_package_does_not_import_its_test_module():
    script = """
        import sys, anabranch as ab
        print("anabranch.testing" in sys.modules, ab.testing.run.__name__)
    """
    assert finish(child(script)) == (0, "False run\n", "")


def test_g6_a_run_ends_without_waiting(monkeypatch):
    # What is waited for where a thread may be about to end.
    monkeypatch.setattr(_virtual, "_HOLD", 20.0)
    began = time.monotonic()

    async def nap():
        await asyncio.sleep(1.0)

    ab.testing.run(nap())
    ab.testing.explore(nap, seeds=3)
    assert time.monotonic() - began < 10.0
