"""The cases where anabranch and another way do the same job in turn: what counts is the ratio."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from statistics import median
from typing import TYPE_CHECKING

import ours
from data import CANONICAL_EVENTS, Edges, Event, Sums, Totals, expected, expected_edges, make_events
from loops import awaiting, blocking, per_event, route
from measure import Settings, interleaved
from outcome import Outcome, rate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Job = Callable[[Sequence[Event]], Sums]

CONCURRENCY = 64
PEER_BAR = 2.0


@dataclass(frozen=True)
class Race:
    """One job and the two ways to do it."""

    bar: float
    against: str
    ours: Job
    theirs: Job
    expected: Callable[[Sequence[Event]], Sums] = expected
    # Slow ways get fewer events, and anabranch the same few.
    events: int = CANONICAL_EVENTS

    def run(self, settings: Settings) -> Outcome:
        """Time both ways."""
        events = make_events(settings.size(self.events))
        # The events live through all runs: no contestant's collections should walk over them.
        gc.collect()
        gc.freeze()
        paired = interleaved(
            partial(self.ours, events),
            partial(self.theirs, events),
            self.expected(events),
            settings.pairs,
        )
        ratio = paired.ratio()
        return Outcome(
            bar=f">= {self.bar:.2f}x",
            measured=f"{ratio.median:.2f}x",
            spread=f"{ratio.low:.2f}-{ratio.high:.2f}",
            ours=rate(len(events), median(paired.ours)),
            against=f"{rate(len(events), median(paired.theirs))} {self.against}",
            met=ratio.median >= self.bar,
            numbers={
                "events": len(events),
                "ours_seconds": paired.ours,
                "theirs_seconds": paired.theirs,
            },
        )


def _ours_canonical(events: Sequence[Event]) -> Sums:
    totals = Totals()
    ours.canonical(events, totals.store)
    return totals.sums()


def _ours_under_run(events: Sequence[Event]) -> Sums:
    totals = Totals()
    asyncio.run(ours.canonical_async(events, totals.store))
    return totals.sums()


def _ours_awaiting(events: Sequence[Event]) -> Sums:
    totals = Totals()
    asyncio.run(ours.awaiting(events, totals.store_async))
    return totals.sums()


def _ours_per_event(events: Sequence[Event]) -> Sums:
    totals = Totals()
    asyncio.run(ours.per_event(events, totals.handle, concurrency=1))
    return totals.sums()


def _ours_concurrent(events: Sequence[Event]) -> Sums:
    totals = Totals()
    asyncio.run(ours.per_event(events, totals.handle_later, concurrency=CONCURRENCY))
    return totals.sums()


def _ours_children(events: Sequence[Event]) -> Sums:
    totals = Totals()
    asyncio.run(ours.children(events, totals.handle))
    return totals.sums()


def _ours_route(events: Sequence[Event]) -> Sums:
    edges = Edges()
    ours.route(events, edges.store)
    return edges.sums()


def _blocking(events: Sequence[Event]) -> Sums:
    totals = Totals()
    blocking.run(events, totals.store)
    return totals.sums()


def _blocking_under_loop(events: Sequence[Event]) -> Sums:
    async def main() -> Sums:
        return _blocking(events)

    return asyncio.run(main())


def _awaiting(events: Sequence[Event]) -> Sums:
    totals = Totals()
    asyncio.run(awaiting.run(events, totals.store_async))
    return totals.sums()


def _per_event(events: Sequence[Event]) -> Sums:
    totals = Totals()
    asyncio.run(per_event.inline(events, totals.handle))
    return totals.sums()


def _task_group(events: Sequence[Event]) -> Sums:
    totals = Totals()
    asyncio.run(per_event.task_group(events, totals.handle_later, CONCURRENCY))
    return totals.sums()


def _children(events: Sequence[Event]) -> Sums:
    totals = Totals()
    asyncio.run(per_event.children(events, totals.handle))
    return totals.sums()


def _route(events: Sequence[Event]) -> Sums:
    edges = Edges()
    route.run(events, edges.store)
    return edges.sums()


def _peer(module: str, events: Sequence[Event]) -> Sums:
    totals = Totals()
    import_module(f"peers.{module}").run(events, totals.store)
    return totals.sums()


def _against_peer(module: str, events: int = CANONICAL_EVENTS) -> Race:
    return Race(PEER_BAR, module, _ours_canonical, partial(_peer, module), events=events)


RACES = {
    "canonical": Race(1.0, "blocking loop", _ours_canonical, _blocking),
    "canonical-run": Race(0.95, "blocking loop", _ours_under_run, _blocking_under_loop),
    "async-sink": Race(0.95, "awaiting loop", _ours_awaiting, _awaiting),
    "async-handler": Race(0.9, "loop that awaits inline", _ours_per_event, _per_event),
    "async-sleep": Race(
        3.0, "TaskGroup and semaphore", _ours_concurrent, _task_group, events=200_000
    ),
    "children": Race(1.0, "TaskGroup", _ours_children, _children, events=10_000),
    "route": Race(1.8, "routing loop", _ours_route, _route, expected_edges),
    "peer-bytewax": _against_peer("bytewax"),
    "peer-asyncio": _against_peer("asyncio_queues"),
    "peer-anyio": _against_peer("anyio_streams"),
    "peer-rxpy": _against_peer("rxpy", 200_000),
    "peer-aiostream": _against_peer("aiostream", 200_000),
    "peer-streamz": _against_peer("streamz", 100_000),
}
