"""The cases about being looked at, by instructions: what a clock cannot tell from nothing.

Counted is the thread that drives the canonical job over 10 000 tenants, at so many events and at
twice as many: the difference is the hot path, without what is done once; what it takes to make the
events is taken off, and the garbage collector is not there. They come as a list, in the chunks of
256 of a run at full load; from a generator each would be a chunk and a slice of its own, for its
time is virtual. It stands still, so the sweeps over all branches are not in it. They take a share
of the time that is fixed by `monitor/slots.rs`, one part in 2000, and one in 200 while somebody
looks: it is added, as if all of it were always used up. As a program it is the job itself:

    python tests/bench/seen.py {data,off,auto,watched} EVENTS
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
    from collections.abc import Callable

    from anabranch.testing import VirtualClock
    from measure import Settings
    from outcome import Outcome

EVENTS = 50_000
# Real seconds at the first event: the client's wishes have come by then.
HEADWAY = 1.0
# Virtual seconds that the run is old by then: a young one sweeps all the time.
AGE = 3600.0
# What the sweeps may take of the time.
SHARES = {"auto": 1 / 2000, "watched": 1 / 200}


def _headway(clock: VirtualClock) -> Callable[[object], None]:
    """Return what is called for each branch, and lets time pass for the first one."""
    begun: list[object] = []

    def opened(tenant: object) -> None:
        if not begun:
            begun.append(tenant)
            time.sleep(HEADWAY)
            clock.spend(AGE)

    return opened


def main() -> None:
    """Run the job one way."""
    import anabranch as ab
    import watched
    from anabranch import _observe
    from data import BRANCH_CAPACITY, WINDOW_ITEMS, WINDOW_SECONDS, Totals, double, keep

    way, count = sys.argv[1], int(sys.argv[2])
    # When it comes depends on all that was made before.
    gc.disable()
    events = watched.events_of(count)
    if way == "data":
        return
    clock, totals = ab.testing.VirtualClock(), Totals()
    _observe.in_virtual_time = True
    # The first one opens the way in.
    ab.Pipeline("first").source([1]).collect().run_blocking()
    directory = os.environ["ANABRANCH_RUNTIME_DIR"]
    with watched.somebody(directory) if way == "watched" else nullcontext():
        (
            ab.Pipeline("bench", clock=clock)
            .source(events)
            .map(double)
            .filter(keep)
            .fan_out(by="tenant", capacity=BRANCH_CAPACITY, on_new_branch=_headway(clock))
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

    def count(way: str, events: int) -> int:
        with tempfile.TemporaryDirectory(prefix="ab-") as made:
            observe = "auto" if way == "watched" else "off" if way == "data" else way
            told = {"ANABRANCH_RUNTIME_DIR": f"{made}/run", "ANABRANCH_OBSERVE": observe}
            return driver_instructions(__file__, way, str(events), environment=told)

    def each(way: str) -> float:
        return (count(way, 2 * events) - count(way, events)) / events

    data = each("data")
    off, seen = each("off") - data, each(way) - data
    hot, sweeps = seen / off - 1, SHARES[way]
    more = hot + sweeps
    return Outcome(
        bar=f"<= {bar:.1%}",
        measured=f"{more:+.2%}",
        spread=f"{hot:+.2%} and sweeps",
        ours=f"{seen:.1f} instructions per event",
        against=f"{off:.1f} per event with observe=off",
        met=more <= bar,
        numbers={"data": data, "off": off, way: seen, "events": events},
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
