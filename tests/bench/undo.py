"""The cases about undo actions: what it costs to register one that is never run."""

from __future__ import annotations

import gc
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

import anabranch as ab
from counted import can_count, instructions
from data import (
    BRANCH_CAPACITY,
    CANONICAL_EVENTS,
    WINDOW_ITEMS,
    WINDOW_SECONDS,
    Sums,
    Totals,
    double,
    expected,
    keep,
    make_events,
)
from measure import Paired, Settings, Spread, interleaved
from outcome import Outcome, rate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from data import Event, Window

WINDOW_BAR_PERCENT = 3.0
EVENT_BAR_NS = 1000.0
# Of less than that a median says little about some percent.
PAIRS = 40
EVENTS = 200_000


def _nothing(_: object) -> None:
    """Undo; never called."""


def canonical(
    events: Sequence[Event], *, undoable: bool, clock: ab.testing.VirtualClock | None = None
) -> Sums:
    """Run the canonical job, with an undo action for each window or without."""
    totals = Totals()

    def store(window: Window, ctx: ab.Context) -> None:
        ctx.compensate(_nothing, window)
        totals.store(window)

    (
        ab.Pipeline("bench", clock=clock)
        .source(events)
        .map(double)
        .filter(keep)
        .fan_out(by="tenant", capacity=BRANCH_CAPACITY)
        .window(max_items=WINDOW_ITEMS, max_age=WINDOW_SECONDS)
        .for_each(store if undoable else totals.store, inline=True)
        .run_blocking()
        .raise_for_failure()
    )
    return totals.sums()


def _paired(settings: Settings, way: Callable[..., Sums], whole: Sums) -> Paired:
    pairs = settings.pairs if settings.quick else max(PAIRS, settings.pairs)
    return interleaved(partial(way, undoable=True), partial(way, undoable=False), whole, pairs)


def window(settings: Settings) -> Outcome:
    """Register one undo action for each window of the canonical job.

    By instructions where they can be counted: what is asked about is less than what one run differs
    from the next by.
    """
    return _window_counted(settings) if can_count() else _window_timed(settings)


def _window_counted(settings: Settings) -> Outcome:
    events = settings.size(EVENTS)
    data, without, undoable = (instructions(way, events) for way in ("data", "without", "with"))
    more = (undoable - without) / (without - data) * 100
    return Outcome(
        bar=f"<= {WINDOW_BAR_PERCENT:.0f} % more",
        measured=f"{more:+.2f} %",
        spread="instructions",
        ours=f"{(undoable - data) / events:.0f} per event",
        against=f"{(without - data) / events:.0f} per event without",
        met=more <= WINDOW_BAR_PERCENT,
        numbers={"data": data, "without": without, "with": undoable},
    )


def _window_timed(settings: Settings) -> Outcome:
    events = make_events(settings.size(CANONICAL_EVENTS))
    gc.collect()
    gc.freeze()
    paired = _paired(settings, partial(canonical, events), expected(events))
    pairs = zip(paired.ours, paired.theirs, strict=True)
    more = Spread.of([(with_it / without - 1) * 100 for with_it, without in pairs])
    return Outcome(
        bar=f"<= {WINDOW_BAR_PERCENT:.0f} % more",
        measured=f"{more.median:+.2f} %",
        spread=f"{more.low:+.2f} to {more.high:+.2f}",
        ours=rate(len(events), median(paired.ours)),
        against=f"{rate(len(events), median(paired.theirs))} without",
        met=more.median <= WINDOW_BAR_PERCENT,
        numbers={"with_seconds": paired.ours, "without_seconds": paired.theirs},
    )


def _per_event(events: Sequence[Event], *, undoable: bool) -> Sums:
    totals = Totals()

    def take(event: Event, ctx: ab.Context) -> None:
        if undoable:
            ctx.compensate(_nothing, event)
        totals.take(event)

    pipeline = ab.Pipeline("bench").source(events).for_each(take, inline=True)
    pipeline.run_blocking().raise_for_failure()
    return totals.sums()


def event(settings: Settings) -> Outcome:
    """Register one undo action for each event, in a sink that takes the context either way."""
    events = make_events(settings.size(EVENTS))
    gc.collect()
    gc.freeze()
    whole = Sums(len(events), sum(it["value"] for it in events))
    paired = _paired(settings, partial(_per_event, events), whole)
    pairs = zip(paired.ours, paired.theirs, strict=True)
    each = Spread.of([(with_it - without) / len(events) * 1e9 for with_it, without in pairs])
    return Outcome(
        bar=f"<= {EVENT_BAR_NS:.0f} ns each",
        measured=f"{each.median:.0f} ns",
        spread=f"{each.low:.0f}-{each.high:.0f}",
        ours=rate(len(events), median(paired.ours)),
        against=f"{rate(len(events), median(paired.theirs))} without",
        met=each.median <= EVENT_BAR_NS,
        numbers={"with_seconds": paired.ours, "without_seconds": paired.theirs},
    )


CASES = {"undo-window": window, "undo-event": event}
