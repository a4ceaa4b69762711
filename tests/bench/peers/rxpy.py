"""RxPY (`reactivex`): group_by, then a buffer by time or count per group."""

from __future__ import annotations

from typing import TYPE_CHECKING

import reactivex
from reactivex import operators as ops

from data import WINDOW_ITEMS, WINDOW_SECONDS, double, keep

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from reactivex import GroupedObservable, Observable

    from data import Event, Window


def _tenant(event: Event) -> str:
    return event["tenant"]


def _windows(group: GroupedObservable[str, Event]) -> Observable[Window]:
    return group.pipe(ops.buffer_with_time_or_count(WINDOW_SECONDS, WINDOW_ITEMS))


def _raise(error: Exception) -> None:
    raise error


def run(events: Sequence[Event], sink: Callable[[Window], object]) -> None:
    """Run the canonical job.

    On the subscriber's own thread (the current-thread scheduler): the events come from memory, so
    `subscribe` returns when the last one has passed.
    """
    reactivex.from_iterable(events).pipe(
        ops.map(double),
        ops.filter(keep),
        ops.group_by(_tenant),
        ops.flat_map(_windows),
    ).subscribe(on_next=sink, on_error=_raise)
