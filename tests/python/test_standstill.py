"""Virtual time that cannot go on, and clocks that are not moved by who thinks so."""

import asyncio
import inspect
import re
import threading
import time

import pytest
from support import Live, go

import anabranch as ab
from anabranch.testing import StandstillError, VirtualClock, virtual_time

# Nothing can ever happen.


def test_g6_nothing_can_ever_happen_is_an_error_that_names_what_waits():
    cleaned = []

    async def holds_forever():
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(5.0)
            cleaned.append(True)

    async def main():
        source = Live()
        async with ab.Pipeline("ingest").source(source).collect().start():
            await asyncio.sleep(2.0)
            await asyncio.gather(asyncio.create_task(holds_forever(), name="the holder"))

    with pytest.raises(StandstillError, match="nothing can ever happen") as stuck:
        ab.testing.run(main())
    error = stuck.value
    assert error.now == 2.0
    line = inspect.getsourcelines(holds_forever)[1] + 2
    (holder,) = (it for it in error.waiting if "the holder" in it)
    assert "holds_forever" in holder
    assert holder.endswith(f"{__file__}:{line}")
    assert "pipeline: ingest" in error.waiting
    assert any("main" in it for it in error.waiting)
    assert all(it in str(error) for it in error.waiting)
    assert len(error.waiting) == 3, "the pipeline's own tasks are no news"
    # What was cancelled then has had its time, and the clock is free again.
    assert cleaned == [True]


def test_g6_by_hand_time_that_nobody_moves_is_an_error():
    clock = VirtualClock()

    async def main():
        await clock.advance(1.0)
        await asyncio.sleep(5.0)

    with pytest.raises(StandstillError, match=r"only clock\.advance\(\)") as stuck:
        ab.testing.run(main(), clock=clock, auto_advance=False)
    assert stuck.value.now == 1.0


def test_g6_what_is_cancelled_at_the_end_has_its_time_even_by_hand():
    clock, cleaned = VirtualClock(), []

    async def lingering():
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(5.0)
            cleaned.append(clock.now())

    async def main():
        task = asyncio.create_task(lingering())
        await clock.advance(1.0)
        return task

    task = ab.testing.run(main(), clock=clock, auto_advance=False)
    assert (cleaned, task.cancelled()) == ([6.0], True)


def test_g6_a_thread_that_never_ends_is_named():
    never = threading.Event()

    async def main():
        await asyncio.to_thread(never.wait)

    async def let_go():
        try:
            await main()
        finally:
            never.set()

    with pytest.raises(StandstillError, match="a function in a thread does not end") as stuck:
        ab.testing.run(let_go(), patience=0.1)
    assert "thread: Event.wait" in stuck.value.waiting


def test_g6_it_is_still_named_where_nothing_lets_it_go():
    never = threading.Event()

    async def main():
        await asyncio.to_thread(never.wait)

    try:
        with pytest.raises(StandstillError) as stuck:
            ab.testing.run(main(), patience=0.1)
    finally:
        never.set()
    assert "thread: Event.wait" in stuck.value.waiting


def test_g6_a_socket_that_stays_silent_is_named():
    async def main():
        async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0) as server:
            await server.serve_forever()

    with pytest.raises(StandstillError, match="nothing comes from the sockets"):
        ab.testing.run(main(), patience=0.05)


# Whose clock it is.


def test_a_pipeline_with_a_clock_is_refused_in_another_loop():
    clock = VirtualClock()
    pipeline = ab.Pipeline("ingest", clock=clock).source([1]).collect()
    with pytest.raises(ab.ConfigError, match=r"ab\.testing\.run") as refused:
        asyncio.run(pipeline.run())
    assert (refused.value.pipeline, refused.value.argument) == ("ingest", "clock")
    for driver in ("run", "start"):
        with pytest.raises(ab.ConfigError):
            go(pipeline, driver, VirtualClock())
    assert go(pipeline, "run", clock).items == [1]


@pytest.mark.parametrize("clock", [1.0, time.monotonic, time])
def test_a_clock_that_is_none_is_refused(clock):
    with pytest.raises(ab.ConfigError, match=r"'ingest': clock must be an ab\.testing\.Virtual"):
        ab.Pipeline("ingest", clock=clock)


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), "1", None, True, 1e10])
def test_bad_times_are_refused_by_name_and_value(seconds):
    shown = re.escape(repr(seconds))
    with pytest.raises(ab.ConfigError, match=f"start must be .*, got {shown}"):
        VirtualClock(seconds)
    clock = VirtualClock()
    with pytest.raises(ab.ConfigError, match=f"seconds must be .*, got {shown}"):
        clock.spend(seconds)
    with pytest.raises(ab.ConfigError, match=f"seconds must be .*, got {shown}"):
        ab.testing.run(clock.advance(seconds), clock=clock)


def test_a_seed_is_a_whole_number():
    with pytest.raises(ab.ConfigError, match=r"seed must be an int, got 0\.5"):
        VirtualClock(seed=0.5)


def test_advance_outside_the_clocks_loop_is_refused():
    for run in (asyncio.run, ab.testing.run):
        with pytest.raises(RuntimeError, match=r"ab\.testing\.run\(main\(\), clock=clock\)"):
            run(VirtualClock().advance(1.0))


@virtual_time
async def test_one_clock_is_moved_by_one_at_a_time(clock):
    pipeline = ab.Pipeline("p", clock=clock).source([1]).collect()
    with pytest.raises(RuntimeError, match="moved by an event loop already"):
        await asyncio.to_thread(pipeline.run_blocking)


def test_a_clock_may_be_used_again():
    clock = VirtualClock()
    for n in range(1, 4):
        ab.testing.run(asyncio.sleep(1.0), clock=clock)
        assert clock.now() == n
    assert repr(clock) == "<VirtualClock: now=3.0 s, seed=0>"
