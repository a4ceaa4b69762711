"""The cases about branches: a great many, idle ones, throttled ones, and one that fails."""

from __future__ import annotations

import gc
import os
import random
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import anabranch as ab
import ours
from data import CANONICAL_EVENTS, SEED, Edges, Event, Sums, Totals, expected, expected_edges
from loops import blocking
from measure import Settings, Spread, interleaved
from outcome import Outcome, rate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from data import Window

MANY = 100_000
SOME = 1000
MANY_BAR = 1.3
IDLE_BAR_BYTES = 1024
THROTTLE_BAR_NS = 30.0
HEALTHY_BAR = 0.95


def _events(count: int, tenants: int) -> list[Event]:
    names = [f"tenant-{n:06d}" for n in range(tenants)]
    choose = random.Random(SEED).choice
    events: list[Event] = [
        {"tenant": choose(names), "id": n, "value": (n & 1023) / 1024} for n in range(count)
    ]
    gc.collect()
    gc.freeze()
    return events


def many(settings: Settings) -> Outcome:
    """B13: the canonical job over 100 000 tenants, against the loop over the same."""
    events = _events(settings.size(CANONICAL_EVENTS), settings.size(MANY))

    def through(run: Callable[..., None]) -> Sums:
        totals = Totals()
        run(events, totals.store)
        return totals.sums()

    ways = partial(through, ours.canonical), partial(through, blocking.run)
    paired = interleaved(*ways, expected(events), settings.pairs)
    ratio = paired.ratio()
    return Outcome(
        bar=f">= {MANY_BAR:.2f}x",
        measured=f"{ratio.median:.2f}x",
        spread=f"{ratio.low:.2f}-{ratio.high:.2f}",
        ours=rate(len(events), median(paired.ours)),
        against=f"{rate(len(events), median(paired.theirs))} blocking loop",
        met=ratio.median >= MANY_BAR,
        numbers={"ours_seconds": paired.ours, "theirs_seconds": paired.theirs},
    )


def _resident() -> int:
    gc.collect()
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def idle(settings: Settings) -> Outcome:
    """B13: what an idle branch costs beyond its key, once it has handled a window."""
    count = settings.size(MANY)
    keys = [f"tenant-{n:06d}" for n in range(count)]
    sizes: list[int] = []

    def events() -> Iterator[Event]:
        sizes.append(_resident())
        for n, key in enumerate(keys):
            for _ in range(2):
                yield {"tenant": key, "id": n, "value": 0.0}
        # By now all windows but those of the last chunk have been handled.
        sizes.append(_resident())

    pipeline = ab.Pipeline("bench").source(events()).fan_out(by="tenant").window(max_items=2)
    pipeline.for_each(len, inline=True).run_blocking().raise_for_failure()
    each = (sizes[1] - sizes[0]) / count
    return Outcome(
        bar=f"<= {IDLE_BAR_BYTES} B each",
        measured=f"{each:.0f} B",
        spread="",
        ours=f"{count} branches",
        against=f"{sizes[0] / 2**20:.0f} MiB before",
        met=each <= IDLE_BAR_BYTES,
        numbers={"branches": count, "resident_bytes": sizes},
    )


def _throttled(events: Sequence[Event], sink: Callable[[Window], object], *, on: bool) -> None:
    pipeline = ab.Pipeline("bench").source(events).fan_out(by="tenant")
    if on:
        pipeline = pipeline.throttle(1e9, burst=1_000_000)
    pipeline = pipeline.window(max_items=500, max_age=1.0)
    pipeline.for_each(sink, inline=True).run_blocking().raise_for_failure()


def throttle(settings: Settings) -> Outcome:
    """B11: what a throttle that delays nothing costs an event, on the routing job."""
    events = _events(settings.size(CANONICAL_EVENTS), 100)

    def through(*, on: bool) -> Sums:
        edges = Edges()
        _throttled(events, edges.store, on=on)
        return edges.sums()

    ways = partial(through, on=True), partial(through, on=False)
    paired = interleaved(*ways, expected_edges(events), settings.pairs)
    more = zip(paired.ours, paired.theirs, strict=True)
    cost = Spread.of([(with_it - without) / len(events) * 1e9 for with_it, without in more])
    return Outcome(
        bar=f"<= {THROTTLE_BAR_NS:.0f} ns each",
        measured=f"{cost.median:.1f} ns",
        spread=f"{cost.low:.1f}-{cost.high:.1f}",
        ours=rate(len(events), median(paired.ours)),
        against=f"{rate(len(events), median(paired.theirs))} without",
        met=cost.median <= THROTTLE_BAR_NS,
        numbers={"with_seconds": paired.ours, "without_seconds": paired.theirs},
    )


def failing(settings: Settings) -> Outcome:
    """B7: what 999 tenants lose because one of 1000 fails for good."""
    events = _events(settings.size(CANONICAL_EVENTS), SOME)
    sick = "tenant-000000"
    healthy = [event for event in events if event["tenant"] != sick]

    def through(*, fails: bool) -> Sums:
        edges = Edges()

        def store(window: Window) -> None:
            if window[0]["tenant"] != sick:
                edges.store(window)
            elif fails:
                raise OSError(sick)

        pipeline = ab.Pipeline("bench").source(events)
        pipeline = pipeline.fan_out(by="tenant", on_branch_error=ab.fail(after=3))
        pipeline = pipeline.window(max_items=100, max_age=1.0)
        pipeline.for_each(store, inline=True).run_blocking()
        return edges.sums()

    once = Edges()
    _windows(healthy, once)
    ways = partial(through, fails=True), partial(through, fails=False)
    paired = interleaved(*ways, once.sums(), settings.pairs)
    ratio = paired.ratio()
    return Outcome(
        bar=f">= {HEALTHY_BAR:.2f}x",
        measured=f"{ratio.median:.3f}x",
        spread=f"{ratio.low:.3f}-{ratio.high:.3f}",
        ours=rate(len(healthy), median(paired.ours)),
        against=f"{rate(len(healthy), median(paired.theirs))} with none failing",
        met=ratio.median >= HEALTHY_BAR,
        numbers={"failing_seconds": paired.ours, "healthy_seconds": paired.theirs},
    )


def _windows(events: Sequence[Event], edges: Edges) -> None:
    """Cut windows of a hundred per tenant, by hand."""
    per_tenant: dict[str, Window] = {}
    for event in events:
        per_tenant.setdefault(event["tenant"], []).append(event)
    for mine in per_tenant.values():
        for start in range(0, len(mine), 100):
            edges.store(mine[start : start + 100])


CASES = {
    "tenants": many,
    "tenants-idle": idle,
    "throttle": throttle,
    "failing-tenant": failing,
}
