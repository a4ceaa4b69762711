"""The cases about the monitor: what it costs that somebody may look, and that somebody does."""

from __future__ import annotations

import gc
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import anabranch as ab
import ours
from data import CANONICAL_EVENTS, SEED, Sums, Totals, expected
from measure import Paired, Settings, Spread, interleaved
from outcome import Outcome, rate

if TYPE_CHECKING:
    from collections.abc import Generator

    from data import Event

TENANTS = 10_000
# Shares of the throughput.
WATCHED_BAR = 0.01
UNWATCHED_BAR = 0.002
# What is said by who looks at all there is, ten times a second.
_SUB = {
    "t": "sub",
    "id": 1,
    "tick_ms": 100,
    "bulk_ms": 1000,
    "topics": ["totals", "stages", "branches", "windows", "errors", "log"],
    "visible": [[pipeline, branch] for pipeline in range(3) for branch in range(60)],
}
HELLO = "".join(f"{json.dumps(it)}\n" for it in ({"t": "hello", "proto": [1, 1]}, _SUB)).encode()
# Says that, and reads, until its input ends.
CLIENT = """
import os, socket, sys, threading
os.sched_setaffinity(0, range(os.cpu_count()))  # its own time is not the pipeline's
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0))).start()
connection = socket.socket(socket.AF_UNIX)
if len(sys.argv) < 3:
    print(flush=True)
    threading.Event().wait()
connection.connect(sys.argv[1])
connection.sendall(sys.argv[2].encode())
print(connection.recv(1 << 20)[:1], flush=True)
while connection.recv(1 << 20):
    pass
threading.Event().wait()
"""


def events_of(count: int) -> list[Event]:
    names = [f"tenant-{n:06d}" for n in range(TENANTS)]
    choose = random.Random(SEED).choice
    events: list[Event] = [
        {"tenant": choose(names), "id": n, "value": (n & 1023) / 1024} for n in range(count)
    ]
    gc.collect()
    gc.freeze()
    return events


@contextmanager
def somebody(directory: str, *, connected: bool = True) -> Generator[int]:
    """Start a client that looks at all, in a process of its own; give its pid.

    Args:
        directory: Where the way in is.
        connected: Whether it connects; otherwise there is just its process.
    """
    (path,) = Path(directory).glob("*.sock")
    told = [str(path), HELLO.decode()] if connected else []
    command = [sys.executable, "-c", CLIENT, *told]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        assert process.stdin is not None
        process.stdin.close()


@contextmanager
def monitored() -> Generator[str]:
    """Open the way in, in a directory of its own."""
    with tempfile.TemporaryDirectory(prefix="ab-") as made:
        directory = os.environ["ANABRANCH_RUNTIME_DIR"] = f"{made}/run"
        os.environ["ANABRANCH_OBSERVE"] = "auto"
        # The first one opens it.
        ab.Pipeline("first").source([1]).collect().run_blocking()
        yield directory


def through(events: list[Event], observe: str) -> Sums:
    """Run the canonical job over 10 000 tenants."""
    os.environ["ANABRANCH_OBSERVE"] = observe
    totals = Totals()
    ours.canonical(events, totals.store)
    return totals.sums()


def cost(settings: Settings, bar: float, *, looked_at: bool) -> Outcome:
    """Measure what the canonical job over 10 000 tenants loses by what lets it be looked at.

    Args:
        settings: How much to measure.
        bar: The share of its throughput it may lose.
        looked_at: Whether somebody does.
    """
    events = events_of(settings.size(CANONICAL_EVENTS))
    with monitored() as directory:
        ways = partial(through, events, "auto"), partial(through, events, "off")
        with somebody(directory) if looked_at else nullcontext():
            paired = interleaved(*ways, expected(events), settings.pairs)
    return compared(paired, len(events), bar, "with observe=off")


def compared(paired: Paired, events: int, bar: float, against: str) -> Outcome:
    """Tell what share of the throughput the one way costs against the other."""
    more = zip(paired.ours, paired.theirs, strict=True)
    cost = Spread.of([our / their - 1 for our, their in more])
    return Outcome(
        bar=f"<= {bar:.1%}",
        measured=f"{cost.median:+.2%}",
        spread=f"{cost.low:+.2%} to {cost.high:+.2%}",
        ours=rate(events, median(paired.ours)),
        against=f"{rate(events, median(paired.theirs))} {against}",
        met=cost.median <= bar,
        numbers={"ours_seconds": paired.ours, "theirs_seconds": paired.theirs},
    )


def watched(settings: Settings) -> Outcome:
    """Dashboard 1: the canonical job over 10 000 tenants, with a client that looks at all."""
    return cost(settings, WATCHED_BAR, looked_at=True)


def unwatched(settings: Settings) -> Outcome:
    """Dashboard 1: the same with nobody connected."""
    return cost(settings, UNWATCHED_BAR, looked_at=False)


def first_picture(settings: Settings) -> Outcome:
    """Dashboard 5: from connecting to the last row of 10 000 branches."""
    from time import perf_counter

    bar = 0.05
    seconds: list[float] = []
    with tempfile.TemporaryDirectory(prefix="ab-") as made:
        os.environ["ANABRANCH_RUNTIME_DIR"] = directory = f"{made}/run"
        os.environ["ANABRANCH_OBSERVE"] = "auto"
        events = events_of(settings.size(CANONICAL_EVENTS))
        ours.canonical(events, Totals().store)
        (path,) = Path(directory).glob("*.sock")
        for _ in range(settings.pairs):
            begin = perf_counter()
            rows = _picture(str(path))
            seconds.append(perf_counter() - begin)
    spread = Spread.of(seconds)
    return Outcome(
        bar=f"<= {bar * 1000:.0f} ms",
        measured=f"{spread.median * 1000:.1f} ms",
        spread=f"{spread.low * 1000:.1f}-{spread.high * 1000:.1f} ms",
        ours=f"{rows} rows",
        against="a client that parses no row",
        met=spread.median <= bar,
        numbers={"seconds": seconds, "rows": rows},
    )


def _picture(path: str) -> int:
    rows = 0
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        sub = {"t": "sub", "id": 1, "topics": ["totals", "branches"]}
        for message in {"t": "hello", "proto": [1, 1]}, sub:
            connection.sendall(json.dumps(message).encode() + b"\n")
        with connection.makefile("rb", buffering=1 << 20) as lines:
            for line in lines:
                if line.startswith(b'{"t":"rows"'):
                    rows += line.count(b"],[") + 1
                    if b'"more":false' in line[:80]:
                        break
    return rows


CASES = {"watched": watched, "unwatched": unwatched, "first-picture": first_picture}
