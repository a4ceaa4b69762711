"""The hand-written loop that awaits its sink once per window."""

from __future__ import annotations

from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING

from data import WINDOW_ITEMS, WINDOW_SECONDS, Event, Window, double, keep
from loops.blocking import CHUNK, NOTHING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable


async def run(events: Iterable[Event], sink: Callable[[Window], Awaitable[object]]) -> None:
    """Run the canonical job over `events`, awaiting `sink`."""
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
                    await sink(window)
        if event is NOTHING:
            break
        now = monotonic()
        for tenant in [t for t in windows if now - opened[t] >= WINDOW_SECONDS]:
            await sink(windows.pop(tenant))
    for window in windows.values():
        await sink(window)
