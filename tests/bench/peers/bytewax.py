"""Bytewax: source batches of 1000, map and filter on whole batches, one worker."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from bytewax import operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import DynamicSource, StatelessSourcePartition
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.testing import run_main

from data import WINDOW_ITEMS, WINDOW_SECONDS, Event, Window, double, keep

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BATCH = 1000


class _Batches(StatelessSourcePartition[Event]):
    def __init__(self, events: Sequence[Event]) -> None:
        self._events = events
        self._next = 0

    def next_batch(self) -> Sequence[Event]:
        batch = self._events[self._next : self._next + BATCH]
        if not batch:
            raise StopIteration
        self._next += BATCH
        return batch


class _Source(DynamicSource[Event]):
    def __init__(self, events: Sequence[Event]) -> None:
        self._events = events

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _Batches:
        del step_id, worker_index, worker_count
        return _Batches(self._events)


class _Windows(StatelessSinkPartition[Any]):
    def __init__(self, sink: Callable[[Window], object]) -> None:
        self._sink = sink

    def write_batch(self, items: list[tuple[str, Window]]) -> None:
        for _tenant, window in items:
            self._sink(window)


class _Sink(DynamicSink[Any]):
    def __init__(self, sink: Callable[[Window], object]) -> None:
        self._sink = sink

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _Windows:
        del step_id, worker_index, worker_count
        return _Windows(self._sink)


def _keyed(batch: list[Event]) -> list[tuple[str, Event]]:
    # One pass instead of op.map, op.filter and op.key_on, which cost a call into Python each.
    return [(event["tenant"], event) for event in map(double, batch) if keep(event)]


def run(events: Sequence[Event], sink: Callable[[Window], object]) -> None:
    """Run the canonical job."""
    flow = Dataflow("canonical")
    source = op.input("source", flow, _Source(events))
    keyed = op.flat_map_batch("keyed", source, _keyed)
    windows = op.collect(
        "window", keyed, timeout=timedelta(seconds=WINDOW_SECONDS), max_size=WINDOW_ITEMS
    )
    op.output("sink", windows, _Sink(sink))
    run_main(flow)
