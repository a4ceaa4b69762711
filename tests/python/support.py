"""What the tests of running pipelines share: every way to run one, and to call a sink."""

import asyncio
import functools
import itertools
import os
import subprocess
import sys
import textwrap
import threading

import pytest

import anabranch as ab

# No test waits longer for what must happen; none passes because time went by.
DEADLINE = 20.0

DRIVERS = ("run_blocking", "run", "start")
SINKS = ("inline", "pool", "async")

# A script that never ends by itself, for `child`: the kind of its sink comes by stdin.
ENDLESS = """
    import asyncio, itertools, os, signal, sys, threading
    import anabranch as ab

    def register(n, ctx):
        ctx.compensate(undone.append, n)
        return n

    def told(unit):
        if not done:
            print("ready", flush=True)
        done.extend(unit)

    async def told_async(unit):
        await asyncio.sleep(0)
        told(unit)

    undone, done = [], []
    pipeline = ab.Pipeline("p").source(itertools.count())
    pipeline = pipeline.map(register).window(max_items=10)
    pipeline = {
        "inline": lambda: pipeline.for_each(told, inline=True),
        "pool": lambda: pipeline.for_each(told),
        "async": lambda: pipeline.for_each(told_async),
    }[sys.stdin.readline().strip()]()
"""

every_driver = pytest.mark.parametrize("driver", DRIVERS)
every_sink = pytest.mark.parametrize("kind", SINKS)
every_way = pytest.mark.parametrize(("driver", "kind"), list(itertools.product(DRIVERS, SINKS)))


def go(pipeline, driver="run_blocking", clock=None):
    """Run to the end, one way or another, by the pipeline's clock; return the report."""
    if driver == "run_blocking":
        return pipeline.run_blocking()
    main = pipeline.run() if driver == "run" else _started(pipeline)
    return asyncio.run(main) if clock is None else ab.testing.run(main, clock=clock)


async def _started(pipeline):
    async with pipeline.start() as running:
        return await running.wait()


def with_sink(pipeline, kind, fn, **options):
    """Add `fn(unit, ctx)`, a `def`, as the sink: inline, on the pool, or as an `async def`."""
    if kind != "async":
        return pipeline.for_each(fn, inline=kind == "inline", **options)

    @functools.wraps(fn)
    async def handler(unit, ctx):
        return fn(unit, ctx)

    return pipeline.for_each(handler, **options)


def within(test):
    """Run an async test in a loop of its own, with the deadline."""

    @functools.wraps(test)
    def run(*args, **kwargs):
        async def limited():
            async with asyncio.timeout(DEADLINE):
                await test(*args, **kwargs)

        asyncio.run(limited())

    return run


def flat(windows):
    """The items of these windows."""
    return list(itertools.chain.from_iterable(windows))


async def turns(count):
    """Let the loop go round: whatever can happen without an event from outside happens."""
    for _ in range(count):
        await asyncio.sleep(0)


def wait_for(event):
    """Wait for a `threading.Event`, which must come."""
    assert event.wait(DEADLINE), "what the test waits for has not happened"


class Live:
    """An async source that gives what the test puts in, until the test ends it."""

    def __init__(self, *items):
        self._queue = asyncio.Queue()
        self.closed = False
        self.put(*items)

    def put(self, *items):
        for item in items:
            self._queue.put_nowait(item)

    def end(self):
        self._queue.put_nowait(StopAsyncIteration)

    async def __aiter__(self):
        try:
            while (item := await self._queue.get()) is not StopAsyncIteration:
                yield item
        finally:
            self.closed = True


class Seen:
    """What a callable was given so far; tests wait until it is enough."""

    def __init__(self):
        self.items = []
        self._waiting = []
        self._lock = threading.Lock()

    def __call__(self, item):
        with self._lock:
            self.items.append(item)
            for count, wake in self._waiting:
                if len(self.items) >= count:
                    wake()

    async def reach(self, count):
        loop = asyncio.get_running_loop()
        future = loop.create_future()

        def wake():
            loop.call_soon_threadsafe(lambda: future.done() or future.set_result(None))

        with self._lock:
            self._waiting.append((count, wake))
            if len(self.items) >= count:
                wake()
        async with asyncio.timeout(DEADLINE):
            await future


def balanced(report):
    """Check a report against E8, and that no branch tells of more than there was; return it."""
    assert report.balanced, report
    for end in ("committed", "filtered", "failed", "dropped", "left"):
        assert sum(getattr(it, end) for it in report.branches) <= getattr(report, end), end
    return report


def child(script, *, arguments=(), flags=("-W", "error"), **options):
    """Start a Python of its own that runs `script`, with warnings as errors."""
    command = [sys.executable, *flags, "-u", "-c", textwrap.dedent(script), *arguments]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    # Not the checkout, should the tests be run from there.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.Popen(command, text=True, env=environment, **pipes, **options)


def finish(process, **options):
    """Wait for a child; return its exit code, stdout and stderr."""
    try:
        out, err = process.communicate(timeout=DEADLINE, **options)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        pytest.fail(f"the child hangs; stdout:\n{out}\nstderr:\n{err}")
    return process.returncode, out, err
