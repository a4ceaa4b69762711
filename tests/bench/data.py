"""Owns the canonical job: its events, its callables and the sums every contestant must reach.

One million small dicts of one hundred tenants, made in advance. The callables are shared by the
hand-written loops, by anabranch and by its peers, so a ratio compares machinery and nothing else.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

CANONICAL_EVENTS = 1_000_000
TENANTS = 100
SEED = 1
BRANCH_CAPACITY = 1000
WINDOW_ITEMS = 500
WINDOW_SECONDS = 1.0


class Event(TypedDict):
    """One event of one tenant."""

    tenant: str
    id: int
    value: float


Window = list[Event]


def make_events(count: int) -> list[Event]:
    """Return `count` events; the same ones at every call.

    The tenants are one hundred `str` objects used again and again, as after interning or parsing
    through a table.
    """
    tenants = [f"tenant-{n:03d}" for n in range(TENANTS)]
    choose = random.Random(SEED).choice
    return [{"tenant": choose(tenants), "id": n, "value": (n & 1023) / 1024} for n in range(count)]


def double(event: Event) -> Event:
    """Map: a new event with the value doubled."""
    return {"tenant": event["tenant"], "id": event["id"], "value": event["value"] * 2}


def keep(event: Event) -> bool:
    """Filter: nine events of ten."""
    return event["id"] % 10 != 0


def make_lines(count: int) -> list[bytes]:
    """Return the first `count` events as lines on the wire: tenant, id and value between tabs."""
    return [
        f"{event['tenant']}\t{event['id']}\t{event['value']}\n".encode()
        for event in make_events(count)
    ]


def parse(line: str) -> Event:
    """Map: a line, without its end, to its event."""
    tenant, number, value = line.split("\t")
    return {"tenant": tenant, "id": int(number), "value": float(value)}


@dataclass(frozen=True)
class Sums:
    """What a contestant's sink has seen: events, and the sum of their values.

    All values are multiples of 1/512 below 2, so the sum is exact in any order.
    """

    count: int
    value: float


def expected(events: Sequence[Event]) -> Sums:
    """Return the sums that mapping and filtering `events` must give, computed on its own."""
    values = [2 * event["value"] for event in events if event["id"] % 10 != 0]
    return Sums(len(values), sum(values))


class Totals:
    """The sink: counts events and adds up their values. For one thread."""

    def __init__(self) -> None:
        self.count = 0
        self.value = 0.0

    def sums(self) -> Sums:
        """Return what has been seen so far."""
        return Sums(self.count, self.value)

    def store(self, window: Iterable[Event]) -> None:
        """Take one window in a blocking sink."""
        count = 0
        value = 0.0
        for event in window:
            count += 1
            value += event["value"]
        self.count += count
        self.value += value

    def take(self, event: Event) -> None:
        """Take one event in a blocking sink."""
        self.count += 1
        self.value += event["value"]

    async def store_async(self, window: Window) -> None:
        """Take one window in an `async def` sink."""
        self.store(window)

    async def handle(self, event: Event) -> None:
        """Take one event and return at once."""
        self.count += 1
        self.value += event["value"]

    async def handle_later(self, event: Event) -> None:
        """Take one event after one turn of the loop."""
        await asyncio.sleep(0)
        self.count += 1
        self.value += event["value"]


class Edges:
    """The sink of the window-only job: looks at the first and the last event of each window.

    Cheap enough to leave the routing visible, and still wrong as soon as an event is lost, doubled,
    out of order or in the wrong window.
    """

    def __init__(self) -> None:
        self.count = 0
        self.value = 0.0

    def sums(self) -> Sums:
        """Return what has been seen so far."""
        return Sums(self.count, self.value)

    def store(self, window: Window) -> None:
        """Take one window."""
        self.count += len(window)
        self.value += window[0]["value"] - window[-1]["value"] / 2


def expected_edges(events: Sequence[Event]) -> Sums:
    """Return what `Edges` must hold after `events`, cut per tenant into windows."""
    totals = Edges()
    per_tenant: dict[str, Window] = {}
    for event in events:
        per_tenant.setdefault(event["tenant"], []).append(event)
    for mine in per_tenant.values():
        for start in range(0, len(mine), WINDOW_ITEMS):
            totals.store(mine[start : start + WINDOW_ITEMS])
    return totals.sums()


class SharedTotals(Totals):
    """The sink for several threads."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = Lock()

    def store(self, window: Iterable[Event]) -> None:
        """Take one window on any thread."""
        mine = Totals()
        mine.store(window)
        with self._lock:
            self.count += mine.count
            self.value += mine.value
