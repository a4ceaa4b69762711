"""The cases about memory: resident size must be flat once a long run is warm."""

from __future__ import annotations

import os
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import ours
from data import TENANTS, Sums, Totals
from measure import Settings, check
from outcome import Outcome, rate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from data import Event, Window

GENERATED = 10_000_000
UNITS = 1_000_000
SAMPLES = 100
WARM = SAMPLES // 5
GROWTH_BAR_MIB = 1.0
MIB = 1 << 20


def _generate(count: int) -> Iterator[Event]:
    tenants = [f"tenant-{n:03d}" for n in range(TENANTS)]
    for n in range(count):
        yield {"tenant": tenants[n % TENANTS], "id": n, "value": (n & 1023) / 1024}


def _resident() -> int:
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


class Watched(Totals):
    """A sink that looks at the resident size a hundred times in a run of `count` events."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.resident: list[int] = []
        self._step = count // SAMPLES
        self._next = self._step

    def _look(self) -> None:
        if self.count >= self._next:
            self._next += self._step
            self.resident.append(_resident())

    def store(self, window: Window) -> None:
        """Take one window."""
        super().store(window)
        self._look()

    def take(self, event: Event) -> None:
        """Take one event."""
        super().take(event)
        self._look()


def _outcome(count: int, job: Callable[[Watched], None], expected: Sums) -> Outcome:
    watched = Watched(expected.count)
    start = perf_counter()
    job(watched)
    seconds = perf_counter() - start
    check(watched.sums(), expected, "anabranch")
    warm, rest = watched.resident[:WARM], watched.resident[WARM:]
    grown = (max(rest) - max(warm)) / MIB
    return Outcome(
        bar=f"grows <= {GROWTH_BAR_MIB:.0f} MiB",
        measured=f"{grown:+.2f} MiB",
        spread=f"peak {max(watched.resident) / MIB:.1f} MiB",
        ours=rate(count, seconds),
        against=f"{max(warm) / MIB:.1f} MiB after a fifth",
        met=grown <= GROWTH_BAR_MIB,
        numbers={"events": count, "seconds": seconds, "resident_bytes": watched.resident},
    )


def generated(settings: Settings) -> Outcome:
    """The canonical job over events that a generator makes on the way."""
    count = settings.size(GENERATED)
    kept = [0, 0.0]
    for n in range(count):
        if n % 10:
            kept[0] += 1
            kept[1] += (n & 1023) / 512
    expected = Sums(int(kept[0]), kept[1])
    return _outcome(
        count, lambda watched: ours.canonical(_generate(count), watched.store), expected
    )


def undo(settings: Settings) -> Outcome:
    """C11: units that each register an undo and succeed release it at once."""
    count = settings.size(UNITS)
    expected = Sums(count, sum((n & 1023) / 1024 for n in range(count)))
    return _outcome(count, lambda watched: ours.undoable(_generate(count), watched.take), expected)


CASES = {"memory": generated, "memory-undo": undo}
