"""The cases about a client that is stopped and reads nothing: what it does to those it looks at.

The monitor writes to it until nothing more fits. From then on it has to wait for nobody, keep no
more than it may, and let go of it in the end.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
from contextlib import contextmanager
from functools import partial
from statistics import median
from time import monotonic
from typing import TYPE_CHECKING

import latency
import ours
import watched
from dashboard import BRANCHES, directory_of_its_own, job_of
from data import CANONICAL_EVENTS, expected, make_events
from measure import Paired, Spread, timed
from outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from measure import Settings

THROUGHPUT_BAR = 0.01
MIB = 1 << 20
MEMORY_BAR_MIB = 1.0
# Seconds of patience, and as much for the machine as it takes to tell the time.
CLOSED_BAR = 30.5
CLIENTS = 8


@contextmanager
def stopped(directory: str, *, connected: bool) -> Generator[None]:
    """Start a process and stop it: a client that looks at all, or one that never connects.

    A process that has just been started leaves its traces in the machine's caches. What is to be
    measured is the client: so that the process is there both ways.
    """
    with watched.somebody(directory, connected=connected) as pid:
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)


def _turns(pairs: int) -> list[bool]:
    """Whether there is such a client, run by run: each way first in every other pair."""
    return [way for pair in range(pairs) for way in ((True, False), (False, True))[pair % 2]]


def throughput(settings: Settings) -> Outcome:
    """Dashboard 2: the canonical job over 10 000 tenants, with a client that is stopped."""
    events = watched.events_of(settings.size(CANONICAL_EVENTS))
    sums = expected(events)
    job = partial(watched.through, events, "auto")
    seconds: dict[bool, list[float]] = {True: [], False: []}
    with watched.monitored() as directory:
        for there in [True, False, *_turns(settings.pairs)]:
            with stopped(directory, connected=there):
                seconds[there].append(timed(job, sums, "anabranch"))
    # The first ones have warmed caches.
    paired = Paired(seconds[True][1:], seconds[False][1:])
    return watched.compared(paired, len(events), THROUGHPUT_BAR, "without it")


def push(settings: Settings) -> Outcome:
    """Dashboard 2: the latency of one event at a time, with a client that is stopped."""
    full = watched.events_of(settings.size(CANONICAL_EVENTS) // 10)
    events = make_events(settings.size(20_000))
    gc.freeze()
    took: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    with watched.monitored() as directory:
        for there in _turns(settings.pairs):
            with stopped(directory, connected=there):
                # More than its socket holds.
                watched.through(full, "auto")
                took[there].append(latency.timed_push(ours.pushed, events, "anabranch"))
    p99, alone = (Spread.of([it[1] for it in took[there]]) for there in (True, False))
    noise = alone.high - alone.low
    p50, p50_alone = (median(it[0] for it in took[there]) for there in (True, False))
    return Outcome(
        bar=f"p99 + <= {noise:.2f} us of noise",
        measured=f"{p99.median - alone.median:+.2f} us",
        spread=f"{p99.low:.2f}-{p99.high:.2f} us",
        ours=f"p50 {p50:.2f}, p99 {p99.median:.2f} us",
        against=f"p50 {p50_alone:.2f}, p99 {alone.median:.2f} us without it",
        met=p99.median - alone.median <= noise,
        numbers={"with_us": took[True], "without_us": took[False]},
    )


def let_go(settings: Settings) -> Outcome:
    """Dashboard 2: what clients that read nothing cost in memory, and when they are let go of."""
    del settings  # their patience is what it is
    with directory_of_its_own() as directory, job_of(BRANCHES) as job:
        (path,) = directory.glob("*.sock")
        before = _resident(job.pid)
        clients = [_connect(path) for _ in range(CLIENTS)]
        begun = monotonic()
        most = before
        gone: list[float] = []
        ends = select.poll()
        for client in clients:
            ends.register(client, select.POLLRDHUP)
        while len(gone) < CLIENTS and monotonic() - begun < 2 * CLOSED_BAR:
            for number, _ in ends.poll(100):
                ends.unregister(number)
                gone.append(monotonic() - begun)
            most = max(most, _resident(job.pid))
        for client in clients:
            client.close()
    each = (most - before) / CLIENTS / MIB
    last = max(gone) if len(gone) == CLIENTS else float("inf")
    return Outcome(
        bar=f"<= {MEMORY_BAR_MIB:.0f} MiB each, gone in {CLOSED_BAR:.1f} s",
        measured=f"{each:.2f} MiB, {last:.1f} s",
        spread="",
        ours=f"{CLIENTS} clients",
        against=f"{BRANCHES:,} branches",
        met=each <= MEMORY_BAR_MIB and last <= CLOSED_BAR,
        numbers={"mib_each": each, "gone_seconds": gone},
    )


def _resident(pid: int) -> int:
    with open(f"/proc/{pid}/statm", encoding="ascii") as told:  # noqa: PTH123 - a file of the kernel
        return int(told.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _connect(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(path))
    client.sendall(watched.HELLO)
    return client


CASES = {"hung-client": throughput, "hung-latency": push, "hung-memory": let_go}
