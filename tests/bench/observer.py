"""The cases about the monitor's own thread and memory: time, sleep, and bytes.

What the pipeline loses by being looked at is in `watched`, and by a client that hangs in `hung`.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import monotonic, sleep
from typing import TYPE_CHECKING

import anabranch as ab
from outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Generator

    from measure import Settings

TENANTS = 10_000
# Shares of a core, and seconds.
CORE_BAR = 0.01
BULK_BAR = 0.002
VISIBLE_BAR = 100e-6
# Branches whose slots are kept while nobody looks.
KEPT = 16_000
BYTES_BAR = 512

# Runs pipelines of so many branches, and tells its resident memory while all are there.
BRANCHES = """
import os, sys
import anabranch as ab
def resident():
    pages = open("/proc/self/statm").read().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
count, told = int(sys.argv[1]), []
def events():
    yield from range(count)
    for _ in range(2_000_000):  # time for a sweep
        yield 0
    told.append(resident())
ab.Pipeline("p").source(events()).fan_out(by=lambda n: n).for_each(id, inline=True).run_blocking()
print(told[0])
"""


@contextmanager
def _directory() -> Generator[Path]:
    with tempfile.TemporaryDirectory(prefix="ab-") as made:
        os.environ["ANABRANCH_RUNTIME_DIR"] = f"{made}/run"
        os.environ["ANABRANCH_OBSERVE"] = "auto"
        yield Path(made, "run")


@contextmanager
def _running(events: int) -> Generator[None]:
    """Run a pipeline over all tenants in a thread, at so many events per second."""
    names = [f"tenant-{n:06d}" for n in range(TENANTS)]
    ended = threading.Event()

    def source() -> Generator[str]:
        yield from names
        began = monotonic()
        for n in itertools.count():
            if n % 100 == 0:
                if ended.is_set():
                    return
                sleep(max(0.0, n / events - (monotonic() - began)))
            yield names[n % TENANTS]

    pipeline = ab.Pipeline("bench").source(source()).fan_out(by=str).for_each(id, inline=True)
    thread = threading.Thread(target=pipeline.run_blocking)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _thread() -> Path:
    """Return where the kernel tells of the monitor's thread."""
    tasks = Path("/proc/self/task").iterdir()
    return next(it for it in tasks if (it / "comm").read_text().startswith("anabranch-monit"))


def _on_cpu(thread: Path) -> float:
    return int((thread / "schedstat").read_text().split()[0]) / 1e9


def _client(path: Path, **sub: object) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(path))
    hello = {"t": "hello", "proto": [1, 1]}
    for message in hello, {"t": "sub", "id": 1, **sub}:
        connection.sendall(json.dumps(message).encode() + b"\n")
    return connection


def _ticks(path: Path, seconds: float, **sub: object) -> tuple[int, int, float]:
    """Read for so long; return the ticks, the rows that came, and the seconds the thread took."""
    thread = _thread()
    ticks = rows = 0
    with _client(path, **sub) as connection, connection.makefile("rb", buffering=1 << 20) as lines:
        end = None
        for line in lines:
            ticks += line.startswith(b'{"t":"tick"')
            if line.startswith(b'{"t":"rows"'):
                rows += line.count(b"],[") + 1
            if end is None and ticks:
                began, end = _on_cpu(thread), monotonic() + seconds
                ticks = rows = 0
            if end is not None and monotonic() >= end:
                break
        return ticks, rows, _on_cpu(thread) - began


def sampler(settings: Settings) -> Outcome:
    """Dashboard 3: the time of the monitor's thread for 10 000 branches that all change."""
    seconds = settings.seconds(10)
    visible = [[0, n + 1] for n in range(60)]
    topics = ["totals", "branches", "windows", "errors", "log", "stages"]
    with _directory() as directory, _running(20_000):
        sleep(1.0)
        (path,) = directory.glob("*.sock")
        few = {"visible": visible, "topics": ["totals", "log"], "tick_ms": 100, "bulk_ms": 60_000}
        ticks, _, took = _ticks(path, seconds, **few)
        tick = took / ticks
        all_ = {"visible": visible, "topics": topics, "tick_ms": 100, "bulk_ms": 1000}
        ticks, rows, took_all = _ticks(path, seconds, **all_)
    bulk = (took_all - tick * ticks) / (seconds / 1.0)
    share = took_all / seconds
    return Outcome(
        bar=f"<= {BULK_BAR * 1e3:.0f} ms, {VISIBLE_BAR * 1e6:.0f} us, {CORE_BAR:.0%}",
        measured=f"{bulk * 1e3:.2f} ms, {tick * 1e6:.0f} us, {share:.2%}",
        spread=f"{rows / seconds:,.0f} rows/s",
        ours="a bulk tick, a visible tick, of a core",
        against="a client at 10 Hz that reads all",
        met=bulk <= BULK_BAR and tick <= VISIBLE_BAR and share <= CORE_BAR,
        numbers={"bulk": bulk, "tick": tick, "share": share, "rows": rows, "seconds": seconds},
    )


def asleep(settings: Settings) -> Outcome:
    """Dashboard 1: how often the thread wakes up while nobody is connected. Counted, not timed."""
    seconds = settings.seconds(10)

    def switches(thread: Path) -> int:
        lines = (thread / "status").read_text().splitlines()
        return sum(int(it.split(":")[1]) for it in lines if "ctxt_switches" in it)

    with _directory(), _running(100_000):
        sleep(1.0)
        thread = _thread()
        before = switches(thread)
        sleep(seconds)
        woken = switches(thread) - before
    return Outcome(
        bar="0 wake-ups",
        measured=str(woken),
        spread=f"in {seconds:g} s",
        ours="context switches of the thread",
        against="100 k/s into 10 000 branches",
        met=woken == 0,
        numbers={"woken": woken, "seconds": seconds},
    )


def branch_bytes(settings: Settings) -> Outcome:
    """Dashboard 6: what a branch costs the process that may be looked at, while nobody does."""

    def resident(observe: str) -> int:
        environment = os.environ | {"ANABRANCH_OBSERVE": observe}
        command = [sys.executable, "-c", BRANCHES, str(KEPT)]
        told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return int(told.stdout)

    pairs = 1 if settings.quick else 3
    with _directory():
        more = [(resident("auto") - resident("off")) / KEPT for _ in range(pairs)]
    return Outcome(
        bar=f"<= {BYTES_BAR} B",
        measured=f"{median(more):.0f} B",
        spread=f"{min(more):.0f}-{max(more):.0f} B",
        ours=f"resident, per branch of {KEPT:,}",
        against="the same with observe=off",
        met=median(more) <= BYTES_BAR,
        numbers={"bytes": more},
    )


CASES = {"sampler": sampler, "asleep": asleep, "branch-bytes": branch_bytes}
