"""The cases about how long a claim takes, beside many rows that are not to be claimed."""

from __future__ import annotations

import contextlib
import gc
from functools import partial
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING

import stores
from measure import Settings, Spread, check
from outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stores import Bench

BATCH = 100
CLAIMS = 20
SCHEDULED = 300_000
ENDED = 1_000_000
PRIORITIES = 10
DAY = 86_400_000
BESIDE_BAR = 1.5

# How many go through one table, as long as there is time; and of them, between two looks.
THROUGH = 10_000_000
ROUND = 50_000
LARGE = 1000
SECONDS = 270.0
FRESH_BAR = 1.5
HELD_BAR = 3.0


def _schedule(bench: Bench, count: int) -> None:
    for priority in range(PRIORITIES):
        bench.fill(count // PRIORITIES, delay=DAY, priority=priority)


def _end(bench: Bench, count: int) -> None:
    bench.fill(count // 2, ended="archived")
    bench.fill(count // 2, ended="dead")


def _claims(bench: Bench) -> list[float]:
    """Claim a few times a few of those that are ready; return the milliseconds of each."""
    bench.fill(BATCH * CLAIMS)
    took: list[float] = []
    for _ in range(CLAIMS):
        begun = perf_counter()
        claimed = bench.outbox.claim(BATCH)
        took.append((perf_counter() - begun) * 1e3)
        check(len(claimed), BATCH, "claim")
        bench.outbox.ack(claimed)
    return took


def _beside(
    settings: Settings, *, kind: str, rows: int, fill: Callable[[Bench, int], None]
) -> Outcome:
    opened = stores.OPENED[kind]
    empty_ms: list[float] = []
    full_ms: list[float] = []
    with opened() as empty, opened() as full:
        fill(full, settings.size(rows))
        for bench in (empty, full):
            bench.settle()
            # Connections, statements that are prepared, and pages that are read first.
            _claims(bench)
        gc.collect()
        turns = [(empty, empty_ms), (full, full_ms)]
        for pair in range(settings.pairs):
            for bench, took in turns if pair % 2 == 0 else reversed(turns):
                took.extend(_claims(bench))
    ratio = median(full_ms) / median(empty_ms)
    spread = Spread.of(full_ms)
    return Outcome(
        bar=f"<= {BESIDE_BAR:.1f}x",
        measured=f"{ratio:.2f}x",
        spread=f"{spread.low:.2f}-{spread.high:.2f} ms",
        ours=f"{spread.median:.2f} ms of {BATCH}",
        against=f"{median(empty_ms):.2f} ms empty",
        met=ratio <= BESIDE_BAR,
        numbers={"rows": settings.size(rows), "full_ms": full_ms, "empty_ms": empty_ms},
    )


@contextlib.contextmanager
def _reader(bench: Bench, *, holds: bool) -> Iterator[None]:
    """Somebody who looks at the database as it was when it was empty, all the time; or nobody."""
    with contextlib.closing(bench.connect()) as conn:
        if holds:
            conn.execute("set transaction isolation level repeatable read")
            conn.execute("select count(*) from outbox_message").fetchone()
        yield
        conn.rollback()


def _round(bench: Bench, count: int) -> float:
    """Let so many messages pass; return the milliseconds of a claim, in the middle."""
    bench.fill(count)
    took: list[float] = []
    while True:
        begun = perf_counter()
        claimed = bench.outbox.claim(LARGE)
        taken = perf_counter() - begun
        if not claimed:
            return median(took)
        took.append(taken * 1e3)
        bench.outbox.ack(claimed)


def _through(settings: Settings, *, holds: bool, bar: float) -> Outcome:
    """Let messages pass through one table, with nothing but autovacuum to clean it up."""
    end = perf_counter() + settings.seconds(SECONDS)
    rounds: list[float] = []
    with stores.postgres() as bench:
        _round(bench, ROUND)
        with _reader(bench, holds=holds):
            while perf_counter() < end and len(rounds) * ROUND < THROUGH:
                rounds.append(_round(bench, ROUND))
            check(bench.outbox.counts(), {stores.TOPIC: {"done": ROUND * (len(rounds) + 1)}}, "it")
    some = max(1, len(rounds) // 10)
    first, last = median(rounds[:some]), median(rounds[-some:])
    passed = len(rounds) * ROUND
    return Outcome(
        bar=f"<= {bar:.1f}x at the end",
        measured=f"{last / first:.2f}x",
        spread=f"{min(rounds):.1f}-{max(rounds):.1f} ms",
        ours=f"{last:.1f} ms of {LARGE}",
        against=f"{first:.1f} ms, {passed / 1e6:.1f} M before",
        met=last <= bar * first,
        numbers={"messages": passed, "round": ROUND, "claim_ms": rounds},
    )


CASES = {
    f"outbox{name}-{what}": partial(_beside, kind=kind, rows=rows, fill=fill)
    for kind, name in (("postgres", ""), ("sqlite", "-sqlite"))
    for what, rows, fill in (("scheduled", SCHEDULED, _schedule), ("ended", ENDED, _end))
} | {
    "outbox-through": partial(_through, holds=False, bar=FRESH_BAR),
    "outbox-through-held": partial(_through, holds=True, bar=HELD_BAR),
}
