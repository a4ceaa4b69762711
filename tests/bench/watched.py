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
from measure import Settings, Spread, interleaved
from outcome import Outcome, rate

if TYPE_CHECKING:
    from collections.abc import Generator

    from data import Event

TENANTS = 10_000
# Shares of the throughput.
WATCHED_BAR = 0.01
UNWATCHED_BAR = 0.002
# Reads all there is, ten times a second, until its input ends; or, hung, nothing.
CLIENT = """
import json, os, socket, sys, threading
os.sched_setaffinity(0, range(os.cpu_count()))  # its own time is not the pipeline's
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
hung = sys.argv[2] == "hung"
topics = ["totals", "stages", "branches", "windows", "errors", "log"]
visible = [[p, n] for p in range(3) for n in range(60)]
sub = {"t": "sub", "id": 1, "tick_ms": 100, "bulk_ms": 1000, "topics": topics, "visible": visible}
for message in {"t": "hello", "proto": [1, 1]}, sub:
    connection.sendall(json.dumps(message).encode() + b"\\n")
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0))).start()
print(connection.recv(1 if hung else 1 << 20)[:1], flush=True)
while not hung and connection.recv(1 << 20):
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
def somebody(directory: str, client: str) -> Generator[None]:
    """Connect a client that `reads`, or is `hung`, in a process of its own."""
    (path,) = Path(directory).glob("*.sock")
    command = [sys.executable, "-c", CLIENT, str(path), client]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        yield
        assert process.stdin is not None
        process.stdin.close()


def cost(settings: Settings, bar: float, *, client: str | None) -> Outcome:
    """Measure what the canonical job over 10 000 tenants loses by being looked at.

    Args:
        settings: How much to measure.
        bar: The share of its throughput it may lose.
        client: None, if nobody looks; a client that `reads`, or one that is `hung`.
    """
    events = events_of(settings.size(CANONICAL_EVENTS))
    with tempfile.TemporaryDirectory(prefix="ab-") as made:
        directory = f"{made}/run"
        os.environ["ANABRANCH_RUNTIME_DIR"] = directory

        def through(observe: str) -> Sums:
            os.environ["ANABRANCH_OBSERVE"] = observe
            totals = Totals()
            ours.canonical(events, totals.store)
            return totals.sums()

        # The first one opens the way in.
        ab.Pipeline("first").source([1]).collect().run_blocking()
        ways = partial(through, "auto"), partial(through, "off")
        with somebody(directory, client) if client else nullcontext():
            paired = interleaved(*ways, expected(events), settings.pairs)
    more = zip(paired.ours, paired.theirs, strict=True)
    cost = Spread.of([our / their - 1 for our, their in more])
    return Outcome(
        bar=f"<= {bar:.1%}",
        measured=f"{cost.median:+.2%}",
        spread=f"{cost.low:+.2%} to {cost.high:+.2%}",
        ours=rate(len(events), median(paired.ours)),
        against=f"{rate(len(events), median(paired.theirs))} with observe=off",
        met=cost.median <= bar,
        numbers={"ours_seconds": paired.ours, "theirs_seconds": paired.theirs},
    )


def watched(settings: Settings) -> Outcome:
    """Dashboard 1: the canonical job over 10 000 tenants, with a client that looks at all."""
    return cost(settings, WATCHED_BAR, client="reads")


def unwatched(settings: Settings) -> Outcome:
    """Dashboard 1: the same with nobody connected."""
    return cost(settings, UNWATCHED_BAR, client=None)


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
