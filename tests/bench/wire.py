"""The case about the socket: lines from another process, parsed and counted."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import ours
from data import Sums, Totals, make_events
from loops import tcp as loop
from measure import Settings, interleaved
from outcome import Outcome, rate

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from data import Event

    Connect = Callable[[int], object]
    Serve = Callable[[Callable[[Event], object], Connect], Coroutine[None, None, None]]

LINES = 1_000_000
LINES_BAR = 300_000


@contextmanager
def _client(lines: int) -> Iterator[Connect]:
    """Start the client, wait until its lines are made; yield what tells it a port to fill."""
    command = [sys.executable, str(Path(__file__).with_name("blast.py")), str(lines)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        tell = client.stdin
        client.stdout.readline()

        def connect(port: int) -> None:
            tell.write(f"{port}\n")
            tell.flush()

        yield connect


def tcp(settings: Settings) -> Outcome:
    """Loopback lines: `tcp_lines`, parse, count; the asyncio protocol by hand beside it."""
    lines = settings.size(LINES)
    events = make_events(lines)
    expected = Sums(lines, sum(event["value"] for event in events))

    with _client(lines) as connect:

        def served(serve: Serve) -> Sums:
            totals = Totals()
            asyncio.run(serve(totals.take, connect))
            return totals.sums()

        paired = interleaved(
            lambda: served(ours.tcp), lambda: served(loop.run), expected, settings.pairs
        )
    ours_seconds, ratio = median(paired.ours), paired.ratio()
    return Outcome(
        bar=f">= {LINES_BAR // 1000} k/s",
        measured=rate(lines, ours_seconds),
        spread=f"{ratio.low:.2f}-{ratio.high:.2f}",
        ours=rate(lines, ours_seconds),
        against=f"{rate(lines, median(paired.theirs))} asyncio protocol",
        met=lines / ours_seconds >= LINES_BAR,
        numbers={
            "lines": lines,
            "ours_seconds": paired.ours,
            "theirs_seconds": paired.theirs,
        },
    )


CASES = {"tcp": tcp}
