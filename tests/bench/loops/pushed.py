"""The bare loop over a generator: what one event costs from its yield to the sink."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data import Event, double, keep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def run(events: Iterable[Event], sink: Callable[[Event], object]) -> None:
    """Push each event to `sink` as it comes."""
    for event in events:
        mapped = double(event)
        if keep(mapped):
            sink(mapped)
