"""Coroutines that swallow every cancellation, at the end of their run: E5, E7, R8.

A third signal waits for nothing, and the end of an event loop not for what the run leaves behind.
"""

import asyncio
import signal

import pytest
from support import balanced, child, finish

import anabranch as ab
from anabranch.testing import virtual_time

# What swallows its cancellation for ever, and the signals that come then. They come in the loop
# itself, between two of its callbacks, as most do; each when the one before has had its effect.
STUBBORN = """
    import asyncio, logging, signal, sys
    import anabranch as ab
    from anabranch import _patience, _tasks

    # It says what it leaves behind.
    logging.getLogger("anabranch").addHandler(logging.NullHandler())

    def send(hops):
        loop = asyncio.get_running_loop()
        if hops:
            loop.call_soon(send, hops - 1)
        elif signals:
            loop.call_soon(send, 20)
            signal.raise_signal(signals.pop())

    async def stubborn():
        send(0)
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                pass

    async def store(n):
        if kind == "handler":
            await stubborn()

    def returns(n):
        return stubborn()

    async def events():
        yield 1
        if kind != "handler":
            await stubborn()

    async def nested():
        async for event in events():
            yield event

    async def undo():
        await stubborn()

    def registers(n, ctx):
        ctx.compensate(print, "undone")
        ctx.compensate(undo, retries=3)
        raise LookupError

    kind, number, count = sys.argv[1:]
    signals = [int(number)] * int(count)
    pipeline = ab.Pipeline("p", rollback_deadline=None)
    pipeline = {
        "handler": lambda: pipeline.source([1]).for_each(store),
        "source": lambda: pipeline.source(events()).for_each(store),
        "nested": lambda: pipeline.source(nested()).for_each(store),
        "coroutine": lambda: pipeline.source([1]).for_each(returns),
        "undo": lambda: pipeline.source([1]).for_each(registers, inline=True),
    }[kind]()
"""
STAGES = {"handler": "store", "source": "events", "nested": "nested", "coroutine": "returns"}


def steer(script, kind, number, count):
    """Run a script under so many signals; return its exit code, stdout and stderr."""
    return finish(child(STUBBORN + script, arguments=[kind, str(int(number)), str(count)]))


@pytest.mark.parametrize("kind", STAGES)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_e5_a_third_signal_ends_what_swallows_its_cancellation(number, kind):
    script = """
    try:
        pipeline.run_blocking()
    except KeyboardInterrupt:
        report = pipeline.last_report
        print("left", report.outcome, report.balanced, report.stuck)
        print([row.stage for row in report.abandonments])
    """
    assert steer(script, kind, number, 3) == (0, f"left aborted True 0\n['{STAGES[kind]}']\n", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_c3_e5_an_undo_action_that_a_third_signal_leaves_is_stuck(number):
    script = """
    try:
        pipeline.run_blocking()
    except KeyboardInterrupt:
        report = pipeline.last_report
        print(report.outcome, report.balanced, report.compensated)
        print([(it.name, it.outcome, str(it.error)[:14]) for it in report.compensations])
    """
    rows = "[('undo', 'failed', 'it had not end'), ('print', 'failed', 'it had no turn')]"
    assert steer(script, "undo", number, 3) == (0, f"aborted True 0\n{rows}\n", "")


@pytest.mark.parametrize("kind", STAGES)
def test_e5_so_does_a_third_sigterm_in_a_loop_of_the_program(kind):
    script = """
    try:
        asyncio.run(pipeline.run())
    except KeyboardInterrupt:
        print("left", [row.stage for row in pipeline.last_report.abandonments])
    """
    assert steer(script, kind, signal.SIGTERM, 3) == (0, f"left ['{STAGES[kind]}']\n", "")


@pytest.mark.parametrize("kind", STAGES)
def test_e5_two_interrupts_of_a_loop_of_the_program_end_it(kind):
    script = """
    _patience._GRACE = 0.02
    try:
        asyncio.run(pipeline.run())
    except KeyboardInterrupt:
        print("left", [row.stage for row in pipeline.last_report.abandonments])
    """
    # The first one cancels the main task, the second one ends the loop.
    assert steer(script, kind, signal.SIGINT, 2) == (0, f"left ['{STAGES[kind]}']\n", "")


@pytest.mark.parametrize("kind", STAGES)
def test_e4_a_log_may_end_the_process_when_it_is_said_what_is_left_behind(kind):
    script = """
    class Exits(logging.Handler):
        def emit(self, record):
            sys.exit(7)

    logging.getLogger("anabranch").addHandler(Exits())
    _patience._GRACE = _tasks._LAST_CHANCE = 0.02
    pipeline.run_blocking()
    """
    assert steer(script, kind, signal.SIGTERM, 2) == (7, "", "")


def test_e5_r8_a_thread_with_nothing_to_do_is_not_said_to_be_busy():
    script = """
    class Said(logging.Handler):
        def emit(self, record):
            if "busy" in record.getMessage():
                print(record.getMessage())

    logging.getLogger("anabranch").addHandler(Said())
    try:
        pipeline.run_blocking()
    except KeyboardInterrupt:
        pass
    """
    # The pipeline has a thread, for undo actions, and it waits for the first one.
    said = "pipeline 'p': tasks are still busy and were left behind: 1 of other coroutines\n"
    assert steer(script, "undo", signal.SIGTERM, 3) == (0, said, "")


RUNS = {"run": "pipeline.run()", "start": "started()"}


@pytest.mark.parametrize("how", RUNS)
@pytest.mark.parametrize("kind", [*STAGES, "undo"])
def test_e5_a_third_interrupt_of_a_loop_of_the_program_leaves_at_once(kind, how):
    script = f"""
    async def started():
        async with pipeline.start() as running:
            await running.wait()

    try:
        asyncio.run({RUNS[how]})
    except KeyboardInterrupt:
        report = pipeline.last_report
        print("left", report.outcome, report.balanced)
        print([row.stage for row in report.abandonments])
        print([(it.name, it.outcome, str(it.error)[:14]) for it in report.compensations])
        print(report.seconds < 5)
        print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
    """
    stages = [] if kind == "undo" else [STAGES[kind]]
    rows = "[('undo', 'failed', 'it had not end'), ('print', 'failed', 'it had no turn')]"
    said = f"left aborted True\n{stages}\n{rows if kind == 'undo' else '[]'}\nTrue\nTrue\n"
    assert steer(script, kind, signal.SIGINT, 3) == (0, said, "")


@pytest.mark.parametrize("kind", STAGES)
def test_e7_r8_what_two_signals_leave_behind_is_reported_and_nothing_else_said(kind):
    script = """
    _patience._GRACE = 0.02
    report = pipeline.run_blocking()
    (row,) = report.abandonments
    print(report.outcome, report.abandoned, row.stage, row.tenant, row.attempt, row.seconds)
    """
    said = f"aborted 1 {STAGES[kind]} None 1 0.02\n"
    assert steer(script, kind, signal.SIGTERM, 2) == (0, said, "")


class Events:
    """An async source that swallows its cancellation; what comes of it then is up to the test."""

    def __init__(self, clock, *, brings):
        self.clock = clock
        self.brings = brings
        self.cancelled = []
        self.closed = []

    async def __aiter__(self):
        try:
            yield 0
            while len(self.cancelled) < 100:
                try:
                    await asyncio.sleep(10.0 if self.brings else 1000.0)
                except asyncio.CancelledError:
                    self.cancelled.append(self.clock.now())
                if self.brings:
                    yield 1
        finally:
            await asyncio.sleep(3.0)
            self.closed.append(self.clock.now())


async def ended(events, way):
    """Run with this source, and end that so; return the report, and what came out."""
    seen = []
    pipeline = ab.Pipeline("p", grace=30.0).source(events, name="events")
    async with pipeline.for_each(seen.append, inline=True).start() as running:
        await asyncio.sleep(1.0)
        running.abort() if way == "abort" else running.drain()
        return balanced(await running.wait()), seen


@pytest.mark.parametrize("way", ["abort", "drain"])
@virtual_time
async def test_r8_a_source_that_does_not_end_is_left_behind(clock, way):
    events = Events(clock, brings=False)
    report, seen = await ended(events, way)
    (row,) = report.abandonments
    assert (row.stage, row.tenant, row.attempt, row.seconds) == ("events", None, 1, 5.0)
    assert (report.outcome, report.abandoned, seen) == ("aborted", 1, [0])
    # A drain waits for the grace first. It is asked to end once, and once more at the very last.
    aborted = 1.0 if way == "abort" else 31.0
    assert events.cancelled == [1.0, aborted + 5.5]
    assert clock.now() == aborted + 6.0


@pytest.mark.parametrize("way", ["abort", "drain"])
@virtual_time
async def test_e8_what_a_source_brings_after_it_was_cancelled_is_accounted_for(clock, way):
    events = Events(clock, brings=True)
    report, seen = await ended(events, way)
    # One item more; and it has the time it needs to close.
    assert (events.cancelled, events.closed, report.abandoned) == ([1.0], [4.0], 0)
    assert (report.received, report.left) == ((2, 1) if way == "abort" else (2, 0))
    assert seen == ([0] if way == "abort" else [0, 1])
    assert report.outcome == ("aborted" if way == "abort" else "drained")
