"""The hand-written loop that only routes by tenant and cuts windows: no map, no filter."""

from __future__ import annotations

from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING

from data import WINDOW_ITEMS, WINDOW_SECONDS, Event, Window
from loops.blocking import CHUNK, NOTHING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def run(events: Iterable[Event], sink: Callable[[Window], object]) -> None:
    """Route `events` into windows of 500 or 1 s per tenant."""
    windows: dict[str, Window] = {}
    opened: dict[str, float] = {}
    source = iter(events)
    now = monotonic()
    while True:
        event = NOTHING
        for event in islice(source, CHUNK):
            tenant = event["tenant"]
            try:
                window = windows[tenant]
            except KeyError:
                windows[tenant] = window = []
                opened[tenant] = now
            window.append(event)
            if len(window) == WINDOW_ITEMS:
                del windows[tenant]
                sink(window)
        if event is NOTHING:
            break
        now = monotonic()
        for tenant in [t for t in windows if now - opened[t] >= WINDOW_SECONDS]:
            sink(windows.pop(tenant))
    for window in windows.values():
        sink(window)
