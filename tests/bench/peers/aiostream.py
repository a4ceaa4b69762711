"""aiostream: its map and filter; it has no grouping, so the windows are cut in the `async for`."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

from aiostream import pipe, stream

from data import WINDOW_ITEMS, WINDOW_SECONDS, Event, Window, double, keep
from loops.blocking import CHUNK

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


async def _consume(events: Sequence[Event], sink: Callable[[Window], object]) -> None:
    windows: dict[str, Window] = {}
    opened: dict[str, float] = {}
    now = monotonic()
    seen = 0
    # `pipe.map` with a plain function: with a coroutine function it makes a task per event.
    source = stream.iterate(events) | pipe.map(double) | pipe.filter(keep)
    async with source.stream() as streamer:
        async for event in streamer:
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
            seen += 1
            if seen % CHUNK == 0:
                now = monotonic()
                for old in [t for t in windows if now - opened[t] >= WINDOW_SECONDS]:
                    sink(windows.pop(old))
    for window in windows.values():
        sink(window)


def run(events: Sequence[Event], sink: Callable[[Window], object]) -> None:
    """Run the canonical job."""
    asyncio.run(_consume(events, sink))
