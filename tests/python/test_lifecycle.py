"""The end of a process under a running pipeline, in every way a process ends.

Each scenario runs in a Python of its own, several times over: what it shows is a race, mostly, and
the code and the output have to be the same each time, and stderr empty. `make trials` runs each 50
times, by `LIFECYCLE`, and then wants every one of them to be over within 3 s of its end.
"""

import os
import signal
import textwrap
import time
from dataclasses import dataclass

import pytest
from support import ENDLESS, SINKS, child, finish

TRIALS = "LIFECYCLE" in os.environ
REPEATS = int(os.environ.get("LIFECYCLE", "3"))
# At once: one waits for its handlers while another starts its interpreter.
AT_ONCE = 3
# From the moment a script says that it is leaving; on a machine of its own.
SOON = 3.0


@dataclass(frozen=True)
class Scenario:
    """A script, and how it has to end; `leaving` is to be the last thing it does by itself."""

    script: str
    code: int = 0
    out: str = ""
    # Python's: warnings are errors, but where one is due.
    flags: tuple[str, ...] = ("-W", "error")
    # Sent once the script has said "ready".
    signals: tuple[signal.Signals, ...] = ()
    by_sink: bool = True


RUN_IN_LOOP = (
    ENDLESS
    + """
    async def started():
        running = pipeline.start()
        await running.__aenter__()
        while not done:
            await asyncio.sleep(0)
        return running
"""
)

STOPPED = """
    report = pipeline.last_report
    assert report.balanced, report
    # A handler may be cancelled; what it had in hand is undone.
    assert set(report.codes) <= {"cancelled"}, report.codes
    assert report.committed == len(done), (report, len(done))
    assert len(done) + len(undone) == report.received, (report, len(done), len(undone))
    print(report.outcome)
"""

SCENARIOS = {
    "exit with a running pipeline": Scenario(
        RUN_IN_LOOP
        + """
    async def main():
        await started()
        leaving()
        sys.exit(7)

    asyncio.run(main())
""",
        code=7,
        out="ready\n",
    ),
    "exit while a thread is in a run": Scenario(
        ENDLESS
        + """
    threading.Thread(target=pipeline.run_blocking, daemon=True).start()
    until = time.monotonic() + 30.0
    while not done:
        time.sleep(0.001)
        assert time.monotonic() < until, "the run has handled nothing in 30 s"
    leaving()
    sys.exit(5)
""",
        code=5,
        out="ready\n",
    ),
    "sys.exit in a handler": Scenario(
        """
    import asyncio, sys
    import anabranch as ab

    def out(n):
        if n == 3:
            leaving()
            sys.exit(9)

    async def out_async(n):
        out(n)

    kind = sys.stdin.readline().strip()
    pipeline = ab.Pipeline("p").source(range(10))
    pipeline = pipeline.for_each(out_async) if kind == "async" else (
        pipeline.for_each(out, inline=kind == "inline")
    )
    asyncio.run(pipeline.run())
""",
        code=9,
    ),
    "an exception in main": Scenario(
        RUN_IN_LOOP
        + """
    async def main():
        async with pipeline.start() as running:
            while not done:
                await asyncio.sleep(0)
            leaving()
            raise LookupError

    try:
        asyncio.run(main())
    except LookupError:
        print(pipeline.last_report.outcome, pipeline.last_report.balanced)
""",
        out="ready\naborted True\n",
    ),
    "a handler stuck in C": Scenario(
        """
    import asyncio, sys, threading
    import anabranch as ab

    begun, lock = threading.Event(), threading.Lock()
    lock.acquire()

    def stuck(n):
        begun.set()
        lock.acquire()

    async def stuck_async(n):
        stuck(n)

    kind = sys.stdin.readline().strip()
    pipeline = ab.Pipeline("p", grace=0.01).source([1])
    pipeline = pipeline.for_each(stuck_async) if kind == "async" else (
        pipeline.for_each(stuck, inline=kind == "inline")
    )
    threading.Thread(target=pipeline.run_blocking, daemon=True).start()
    begun.wait()
    leaving()
    sys.exit(3)
""",
        code=3,
    ),
    "one Ctrl-C": Scenario(
        ENDLESS + "    pipeline.run_blocking()" + STOPPED,
        out="ready\ndrained\n",
        signals=(signal.SIGINT,),
    ),
    "one SIGTERM": Scenario(
        ENDLESS + "    pipeline.run_blocking()" + STOPPED,
        out="ready\ndrained\n",
        signals=(signal.SIGTERM,),
    ),
    "one SIGTERM in a loop": Scenario(
        ENDLESS + "    asyncio.run(pipeline.run())" + STOPPED,
        out="ready\ndrained\n",
        signals=(signal.SIGTERM,),
    ),
    "one SIGTERM for two in a loop": Scenario(
        """
    import asyncio, itertools
    import anabranch as ab
    begun = set()

    async def events(name):
        for n in itertools.count():
            await asyncio.sleep(0.001)
            yield n
            if name not in begun:
                begun.add(name)
                if len(begun) == 2:
                    print("ready", flush=True)

    async def store(n):
        await asyncio.sleep(0)

    async def main():
        pipelines = [ab.Pipeline(name).source(events(name)).for_each(store) for name in "ab"]
        for report in await asyncio.gather(*(pipeline.run() for pipeline in pipelines)):
            assert report.balanced, report
            print(report.outcome)

    asyncio.run(main())
    import signal
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
""",
        out="ready\ndrained\ndrained\n",
        signals=(signal.SIGTERM,),
        by_sink=False,
    ),
    "two SIGTERMs for two in a loop": Scenario(
        """
    import asyncio, itertools, signal
    import anabranch as ab
    begun, undone = set(), []

    async def store(n, ctx):
        ctx.compensate(undone.append, ctx.pipeline)
        begun.add(ctx.pipeline)
        if len(begun) == 2 and n == 0:
            signal.raise_signal(signal.SIGTERM)
            # Once the first one was heard: two that come together are one to the interpreter.
            await asyncio.sleep(0)
            print("ready", flush=True)
        await asyncio.sleep(3600)

    async def main():
        pipelines = [ab.Pipeline(name).source([0]).for_each(store) for name in "ab"]
        for report in await asyncio.gather(*(pipeline.run() for pipeline in pipelines)):
            assert report.balanced, report
            print(report.outcome)
        print(sorted(undone))

    asyncio.run(main())
""",
        out="ready\naborted\naborted\n['a', 'b']\n",
        signals=(signal.SIGTERM,),
        by_sink=False,
    ),
    "one Ctrl-C in a loop": Scenario(
        ENDLESS
        + """
    try:
        asyncio.run(pipeline.run())
    except KeyboardInterrupt:
        print("interrupted")
"""
        + STOPPED,
        out="ready\ninterrupted\naborted\n",
        signals=(signal.SIGINT,),
    ),
    "two Ctrl-Cs": Scenario(
        """
    import signal, threading
    import anabranch as ab

    undone = []
    entered, leave = threading.Event(), threading.Event()

    def source():
        yield from range(5)
        # On the main thread, where Ctrl-C is heard.
        entered.wait()
        leaving()
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        leave.set()
        while True:
            yield 5

    def register(n, ctx):
        ctx.compensate(undone.append, n)
        return n

    def held(unit):
        entered.set()
        leave.wait()

    pipeline = ab.Pipeline("p").source(source()).map(register).window(max_items=4)
    report = pipeline.for_each(held).run_blocking()
    assert report.balanced, report
    print(report.outcome, report.committed, len(undone) == report.received - 4)
""",
        out="aborted 4 True\n",
        by_sink=False,
    ),
    "three Ctrl-Cs": Scenario(
        """
    import signal
    import anabranch as ab

    def thrice(n):
        leaving()
        for _ in range(3):
            signal.raise_signal(signal.SIGINT)

    try:
        ab.Pipeline("p").source([1]).for_each(thrice, inline=True).run_blocking()
    except KeyboardInterrupt:
        print("left")
""",
        out="left\n",
        by_sink=False,
    ),
    "three Ctrl-Cs under a stuck handler": Scenario(
        """
    import asyncio, logging, signal, sys, threading
    import anabranch as ab

    # It says what it leaves behind.
    logging.getLogger("anabranch").addHandler(logging.NullHandler())
    begun, never = threading.Event(), threading.Event()

    def source():
        while not begun.is_set():
            # Slowly: a full pipeline would not ask again.
            time.sleep(0.001)
            yield 0
        leaving()
        for _ in range(3):
            signal.raise_signal(signal.SIGINT)
        while True:
            yield 1

    def stuck(n):
        begun.set()
        never.wait()

    async def stuck_async(n):
        begun.set()
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                pass

    def quick(n):
        begun.set()

    kind = sys.stdin.readline().strip()
    pipeline = ab.Pipeline("p").source(source())
    pipeline = {
        "inline": lambda: pipeline.for_each(quick, inline=True),
        "pool": lambda: pipeline.for_each(stuck),
        "async": lambda: pipeline.for_each(stuck_async),
    }[kind]()
    try:
        pipeline.run_blocking()
    except KeyboardInterrupt:
        report = pipeline.last_report
        print("left", report.outcome, report.balanced)
""",
        out="left aborted True\n",
    ),
    "a fork": Scenario(
        RUN_IN_LOOP
        + """
    import warnings

    # Python itself warns of forks beside threads.
    warnings.simplefilter("ignore", DeprecationWarning)

    async def main():
        running = await started()
        child = os.fork()
        if child == 0:
            # The child leaves as any program does: the run it holds is the parent's.
            sys.exit(6)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        running.drain()
        leaving()
        report = await running.wait()
        print(report.outcome, report.balanced)
        await running.__aexit__(None, None, None)

    asyncio.run(main())
""",
        out="ready\n6\ndrained True\n",
    ),
    "asyncio.run twice": Scenario(
        """
    import asyncio, sys, threading
    import anabranch as ab

    kind = sys.stdin.readline().strip()

    async def main():
        seen = []

        async def see(n):
            seen.append(n)

        pipeline = ab.Pipeline("p").source(range(100)).map(lambda n: n)
        pipeline = pipeline.for_each(see) if kind == "async" else (
            pipeline.for_each(seen.append, inline=kind == "inline")
        )
        report = await pipeline.run()
        return report.committed, len(seen), threading.active_count()

    print(asyncio.run(main()))
    leaving()
    print(asyncio.run(main()))
""",
        out="(100, 100, 1)\n(100, 100, 1)\n",
    ),
    "a loop closed under a run": Scenario(
        RUN_IN_LOOP
        + """
    import gc

    loop = asyncio.new_event_loop()
    running = loop.run_until_complete(started())
    loop.close()
    leaving()
    del running, loop
    gc.collect()
    report = pipeline.last_report
    print(report.outcome, report.balanced)
""",
        out="ready\naborted True\n",
        flags=(),
    ),
}

PREAMBLE = """
import sys, time

def leaving():
    # By the clock all processes share.
    print("leaving", time.monotonic(), file=sys.stdout, flush=True)

"""

ROWS = [
    pytest.param(scenario, sink, id=f"{name}-{sink}" if scenario.by_sink else name)
    for name, scenario in SCENARIOS.items()
    for sink in (SINKS if scenario.by_sink else SINKS[:1])
]


def begin(scenario, sink):
    script = textwrap.dedent(PREAMBLE) + textwrap.dedent(scenario.script)
    process = child(script, flags=scenario.flags)
    process.stdin.write(f"{sink}\n")
    process.stdin.flush()
    return process


def end(scenario, process):
    """Let a child come to its end; return what it said, and when it was to leave."""
    said, left = "", None
    if scenario.signals:
        said = process.stdout.readline()
        left = time.monotonic()
        for number in scenario.signals if said == "ready\n" else ():
            process.send_signal(number)
    code, out, err = finish(process)
    over = time.monotonic()
    lines = (said + out).splitlines(keepends=True)
    for line in lines:
        if line.startswith("leaving "):
            left = float(line.split()[1])
    out = "".join(line for line in lines if not line.startswith("leaving "))
    return code, out, err, over - (left or 0.0)


@pytest.mark.parametrize(("scenario", "sink"), ROWS)
@pytest.mark.timeout(60 + 10 * REPEATS)
def test_e5_e6_e7_a_process_ends_as_it_should_each_time(scenario, sink):
    left = REPEATS
    while left > 0:
        processes = [begin(scenario, sink) for _ in range(min(left, AT_ONCE))]
        left -= len(processes)
        ends = [end(scenario, process) for process in processes]
        for code, out, err, seconds in ends:
            assert (code, out, err) == (scenario.code, scenario.out, "")
            # Elsewhere only a hang is an error: a busy machine is not.
            assert seconds < SOON or not TRIALS, f"it took {seconds:.1f} s to end"
