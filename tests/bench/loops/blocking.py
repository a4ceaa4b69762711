"""The hand-written blocking loop: map, filter, a dict of lists, windows of 500 or 1 s."""

from __future__ import annotations

from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING

from data import WINDOW_ITEMS, WINDOW_SECONDS, Event, Window, double, keep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# The age of windows is looked at between chunks: one clock read per chunk, nothing per event. The
# chunk is not collected first, so an event is never held back by the next one.
CHUNK = 4096
NOTHING: Event = {"tenant": "", "id": 0, "value": 0.0}


def run(events: Iterable[Event], sink: Callable[[Window], object]) -> None:
    """Run the canonical job over `events`."""
    windows: dict[str, Window] = {}
    opened: dict[str, float] = {}
    source = iter(events)
    now = monotonic()
    while True:
        event = NOTHING
        for event in islice(source, CHUNK):
            event = double(event)  # noqa: PLW2901 - one local fewer
            if keep(event):
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
