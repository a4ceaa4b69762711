"""The same jobs through anabranch's public API, as its documentation would write them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anabranch as ab
from data import BRANCH_CAPACITY, WINDOW_ITEMS, WINDOW_SECONDS, Event, Window, double, keep, parse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    Sink = Callable[[Window], object]
    AsyncSink = Callable[[Window], Awaitable[object]]
    Handler = Callable[[Event], Awaitable[object]]


def _mapped(events: Iterable[Event]) -> ab.Pipeline[Any]:
    return ab.Pipeline("bench").source(events).map(double).filter(keep)


def _windowed(events: Iterable[Event]) -> ab.Pipeline[Any]:
    return (
        _mapped(events)
        .fan_out(by="tenant", capacity=BRANCH_CAPACITY)
        .window(max_items=WINDOW_ITEMS, max_age=WINDOW_SECONDS)
    )


def canonical(events: Iterable[Event], sink: Sink) -> None:
    """Run the canonical job: an inline `def` sink under `run_blocking`."""
    _windowed(events).for_each(sink, inline=True).run_blocking().raise_for_failure()


async def canonical_async(events: Iterable[Event], sink: Sink) -> None:
    """Run the canonical job with the same sink, under `await run()`."""
    report = await _windowed(events).for_each(sink, inline=True).run()
    report.raise_for_failure()


async def awaiting(events: Iterable[Event], sink: AsyncSink) -> None:
    """Run the canonical job with an `async def` sink, called once per window."""
    report = await _windowed(events).for_each(sink).run()
    report.raise_for_failure()


async def per_event(events: Iterable[Event], handler: Handler, concurrency: int) -> None:
    """Map, filter, and call an `async def` handler once per event."""
    report = await _mapped(events).for_each(handler, concurrency=concurrency).run()
    report.raise_for_failure()


async def children(events: Iterable[Event], handler: Handler) -> None:
    """Give each event a child of one ErrGroup, all at once."""
    async with ab.ErrGroup("bench") as group:
        for event in events:
            mapped = double(event)
            if keep(mapped):
                group.go(handler, mapped)


def route(events: Iterable[Event], sink: Sink) -> None:
    """Fan out by name and window; no Python callable but the sink."""
    (
        ab.Pipeline("bench")
        .source(events)
        .fan_out(by="tenant", capacity=BRANCH_CAPACITY)
        .window(max_items=WINDOW_ITEMS, max_age=WINDOW_SECONDS)
        .for_each(sink, inline=True)
        .run_blocking()
        .raise_for_failure()
    )


def pushed(events: Iterable[Event], sink: Callable[[Event], object]) -> None:
    """Map, filter, and call an inline `def` sink once per event."""
    _mapped(events).for_each(sink, inline=True).run_blocking().raise_for_failure()


def pooled(events: Iterable[Event], sink: Sink, threads: int) -> None:
    """Run the canonical job with a `def` sink on the pipeline's pool."""
    (
        ab.Pipeline("bench", threads=threads)
        .source(events)
        .map(double)
        .filter(keep)
        .fan_out(by="tenant", capacity=BRANCH_CAPACITY)
        .window(max_items=WINDOW_ITEMS, max_age=WINDOW_SECONDS)
        .for_each(sink)
        .run_blocking()
        .raise_for_failure()
    )


async def tcp(sink: Callable[[Event], object], connect: Callable[[int], object]) -> None:
    """Serve lines on a free loopback port, parse and count, end when all clients have gone."""
    pipeline = (
        ab.Pipeline("bench")
        .source(ab.tcp_lines("127.0.0.1", 0, until="disconnected"))
        .map(parse)
        .for_each(sink, inline=True)
    )
    async with pipeline.start() as running:
        connect(running.address[1])
        report = await running.wait()
    report.raise_for_failure()


def undoable(events: Iterable[Event], sink: Callable[[Event], object]) -> None:
    """Register an undo for each of many units that all succeed."""

    def store(event: Event, ctx: ab.Context) -> None:
        ctx.compensate(sink, event)
        sink(event)

    pipeline = ab.Pipeline("bench").source(events).for_each(store, inline=True)
    pipeline.run_blocking().raise_for_failure()
