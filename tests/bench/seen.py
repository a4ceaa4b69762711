"""The cases about being looked at, by instructions: what a clock cannot tell from nothing.

Counted is the thread that drives the canonical job over 10 000 tenants. Its clock is moved on by
its source, a second for a million events: so it tells of its branches as often as one of that
speed would. As a program it is the job itself:

    python tests/bench/seen.py {nothing,off,auto,watched} EVENTS
"""

from __future__ import annotations

import gc
import os
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    import anabranch as ab
    from data import Event
    from measure import Settings
    from outcome import Outcome

EVENTS = 400_000
# Events between two moves of the clock, and by how many seconds it is moved.
STRIDE = 1000
STEP = 0.001
# Real seconds before the first event: the client's wishes have come by then.
HEADWAY = 1.0


def _paced(events: Iterable[Event], clock: ab.testing.VirtualClock) -> Generator[Event]:
    time.sleep(HEADWAY)
    for n, event in enumerate(events, 1):
        if n % STRIDE == 0:
            clock.advance(STEP)
        yield event


def main() -> None:
    """Run the job one way: `nothing` only makes its events."""
    import anabranch as ab
    import watched
    from anabranch import _observe
    from data import BRANCH_CAPACITY, WINDOW_ITEMS, WINDOW_SECONDS, Totals, double, keep

    way, count = sys.argv[1], int(sys.argv[2])
    events = watched.events_of(count)
    clock, totals = ab.testing.VirtualClock(), Totals()
    _observe.in_virtual_time = True
    # The first one opens the way in.
    ab.Pipeline("first").source([1]).collect().run_blocking()
    directory = os.environ["ANABRANCH_RUNTIME_DIR"]
    with watched.somebody(directory, "reads") if way == "watched" else nullcontext():
        gc.collect()
        gc.freeze()
        paced = _paced(events if way != "nothing" else events[:1], clock)
        (
            ab.Pipeline("bench", clock=clock)
            .source(paced)
            .map(double)
            .filter(keep)
            .fan_out(by="tenant", capacity=BRANCH_CAPACITY)
            .window(max_items=WINDOW_ITEMS, max_age=WINDOW_SECONDS)
            .for_each(totals.store, inline=True)
            .run_blocking()
            .raise_for_failure()
        )


def _counted(settings: Settings, way: str, bar: float) -> Outcome:
    from counted import can_count, driver_instructions
    from outcome import Outcome

    events = settings.size(EVENTS)
    if not can_count():
        return Outcome(
            bar=f"<= {bar:.1%}",
            measured="-",
            spread="-",
            ours="not counted",
            against="there is no valgrind here",
            met=False,
            numbers={},
        )

    def count(way: str) -> int:
        with tempfile.TemporaryDirectory(prefix="ab-") as made:
            observe = "auto" if way == "watched" else "off" if way == "nothing" else way
            told = {"ANABRANCH_RUNTIME_DIR": f"{made}/run", "ANABRANCH_OBSERVE": observe}
            return driver_instructions(__file__, way, str(events), environment=told)

    nothing, off, seen = (count(it) for it in ("nothing", "off", way))
    more = (seen - off) / (off - nothing)
    return Outcome(
        bar=f"<= {bar:.1%}",
        measured=f"{more:+.2%}",
        spread="instructions",
        ours=f"{(seen - nothing) / events:.0f} per event",
        against=f"{(off - nothing) / events:.0f} per event with observe=off",
        met=more <= bar,
        numbers={"nothing": nothing, "off": off, way: seen, "events": events},
    )


def watched_counted(settings: Settings) -> Outcome:
    """Dashboard 1: with a client that looks at all, ten times a second."""
    return _counted(settings, "watched", 0.01)


def unwatched_counted(settings: Settings) -> Outcome:
    """Dashboard 1: with nobody connected."""
    return _counted(settings, "auto", 0.002)


CASES = {"watched-counted": watched_counted, "unwatched-counted": unwatched_counted}

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
