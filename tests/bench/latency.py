"""The cases about time: from yield to sink, and how late others wake up beside a full load."""

from __future__ import annotations

import asyncio
import gc
from statistics import median
from time import perf_counter_ns
from typing import TYPE_CHECKING

import ours
from data import CANONICAL_EVENTS, Event, SharedTotals, Sums, Totals, Window, expected, make_events
from loops import pushed
from measure import Settings, Spread, check, interleaved, percentile
from outcome import Outcome, rate
from streams import Endless, bystander, nap, tick

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

PACE_NS = 50_000
ROUND_EVENTS = 10_000
PUSH_BARS_US = (3.0, 10.0)
TICKER_BAR_MS = 1.5
POOL_BAR_MS = 4.0
POOL_RATE_BAR = 0.8
POOL_THREADS = 8


def _paced(events: Sequence[Event], sent: dict[int, int]) -> Iterator[Event]:
    # Busy: a sleep would add the wake-up of this thread to what is measured.
    for event in events:
        due = perf_counter_ns() + PACE_NS
        while perf_counter_ns() < due:
            pass
        sent[event["id"]] = perf_counter_ns()
        yield event


def timed_push(
    job: Callable[[Iterable[Event], Callable[[Event], object]], None],
    events: Sequence[Event],
    name: str,
) -> tuple[float, float]:
    """Return the median and the 99th percentile from `yield` to sink, in microseconds."""
    sent: dict[int, int] = {}
    took: list[float] = []
    totals = Totals()

    def sink(event: Event) -> None:
        took.append((perf_counter_ns() - sent[event["id"]]) / 1e3)
        totals.take(event)

    gc.collect()
    job(_paced(events, sent), sink)
    check(totals.sums(), expected(events), name)
    return percentile(took, 50), percentile(took, 99)


def push(settings: Settings) -> Outcome:
    """Yield to sink: a generator that yields one event at a time, under `run_blocking`."""
    events = make_events(settings.size(20_000))
    gc.freeze()
    ours_us: list[tuple[float, float]] = []
    loop_us: list[tuple[float, float]] = []
    for pair in range(settings.pairs):
        order = [(ours.pushed, ours_us, "anabranch"), (pushed.run, loop_us, "the loop")]
        for job, took_us, name in order if pair % 2 == 0 else reversed(order):
            took_us.append(timed_push(job, events, name))
    p50, p99 = (Spread.of([run[i] for run in ours_us]) for i in (0, 1))
    loop_p50, loop_p99 = (median(run[i] for run in loop_us) for i in (0, 1))
    return Outcome(
        bar="p50 <= {:.0f}, p99 <= {:.0f} us".format(*PUSH_BARS_US),
        measured=f"{p50.median:.2f}, {p99.median:.2f} us",
        spread=f"{p50.low:.2f}-{p50.high:.2f}, {p99.low:.2f}-{p99.high:.2f}",
        ours=f"{p50.median:.2f}, {p99.median:.2f} us",
        against=f"{loop_p50:.2f}, {loop_p99:.2f} us bare loop",
        met=p50.median <= PUSH_BARS_US[0] and p99.median <= PUSH_BARS_US[1],
        numbers={"ours_us": ours_us, "loop_us": loop_us},
    )


async def _loaded(events: Sequence[Event], seconds: float) -> tuple[list[float], int]:
    totals = Totals()
    source = Endless(events, seconds)
    late, _ = await asyncio.gather(tick(seconds), ours.canonical_async(source, totals.store))
    check(totals.sums(), source.expected(), "anabranch")
    return late, source.count()


def ticker(settings: Settings) -> Outcome:
    """A 1 ms ticker in the same loop, idle and beside a pipeline at full load."""
    seconds = settings.seconds(10.0)
    events = make_events(ROUND_EVENTS)
    gc.collect()
    gc.freeze()
    idle: list[float] = []
    loaded: list[float] = []
    passed = 0
    for turn in range(2):
        for load in (False, True) if turn == 0 else (True, False):
            if load:
                late, count = asyncio.run(_loaded(events, seconds))
                loaded += late
                passed += count
            else:
                idle += asyncio.run(tick(seconds))
    idle_p99, loaded_p99 = percentile(idle, 99) * 1e3, percentile(loaded, 99) * 1e3
    return Outcome(
        bar=f"p99 + <= {TICKER_BAR_MS} ms",
        measured=f"+{loaded_p99 - idle_p99:.2f} ms",
        spread=f"max {max(loaded) * 1e3:.1f} ms",
        ours=f"p99 {loaded_p99:.2f} ms at {rate(passed, 2 * seconds)}",
        against=f"p99 {idle_p99:.2f} ms idle",
        met=loaded_p99 - idle_p99 <= TICKER_BAR_MS,
        numbers={
            "seconds": 2 * seconds,
            "events": passed,
            "ticks": len(loaded),
            "loaded_ms": {p: percentile(loaded, p) * 1e3 for p in (50, 90, 99)},
            "idle_ms": {p: percentile(idle, p) * 1e3 for p in (50, 90, 99)},
        },
    )


def _pooled(events: Sequence[Event], sink_late: list[float] | None) -> Sums:
    totals = SharedTotals()

    def store(window: Window) -> None:
        totals.store(window)
        if sink_late is not None:
            nap(sink_late)

    ours.pooled(events, store, POOL_THREADS)
    return totals.sums()


def pool(settings: Settings) -> Outcome:
    """A `def` sink that sleeps 1 ms per window on the pool, beside a thread of the user's own."""
    events = make_events(settings.size(CANONICAL_EVENTS))
    gc.collect()
    gc.freeze()
    sink_late: list[float] = []
    user_late: list[float] = []

    def sleeping() -> Sums:
        with bystander() as late:
            sums = _pooled(events, sink_late)
        user_late.extend(late)
        return sums

    def awake() -> Sums:
        # The same thread beside it: what is compared is the sink's sleep and nothing else.
        with bystander():
            return _pooled(events, None)

    paired = interleaved(sleeping, awake, expected(events), settings.pairs)
    ratio = paired.ratio()
    user_ms, sink_ms = percentile(user_late, 99) * 1e3, percentile(sink_late, 99) * 1e3
    return Outcome(
        bar=f"p99 <= {POOL_BAR_MS:.0f} ms each, >= {POOL_RATE_BAR:.2f}x",
        measured=f"{user_ms:.2f}, {sink_ms:.2f} ms, {ratio.median:.2f}x",
        spread=f"{ratio.low:.2f}-{ratio.high:.2f}",
        ours=rate(len(events), median(paired.ours)),
        against=f"{rate(len(events), median(paired.theirs))} without the sleep",
        met=max(user_ms, sink_ms) <= POOL_BAR_MS and ratio.median >= POOL_RATE_BAR,
        numbers={
            "user_ms": {p: percentile(user_late, p) * 1e3 for p in (50, 90, 99)},
            "sink_ms": {p: percentile(sink_late, p) * 1e3 for p in (50, 90, 99)},
            "ticks": len(user_late),
            "sleeping_seconds": paired.ours,
            "awake_seconds": paired.theirs,
        },
    )


CASES = {"push": push, "ticker": ticker, "pool": pool}
