"""The cases of the outbox that are about messages per second, beside the same written by hand."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from dataclasses import dataclass
from functools import partial
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

import anabranch as ab
import stores
from loops import outbox as by_hand
from measure import Paired, Settings, check
from outcome import Outcome, rate
from stores import BODY, TOPIC, Bench

if TYPE_CHECKING:
    from collections.abc import Callable

MESSAGES = 200_000
CALLS_OF = 1000


@dataclass(frozen=True)
class Way:
    """One way to do a case's job: what is made ready before, and what is timed."""

    name: str
    ready: Callable[[Bench, int], None]
    run: Callable[[Bench, int], int]


@dataclass(frozen=True)
class Case:
    """Two ways in turn; `least` is what ours must reach by itself, per second.

    Attributes:
        kind: The database.
        ours: The one that the bar is about.
        against: What it is compared with.
        bar: How many times as fast it must be. 0: it has only to reach `least`.
        least: Messages per second.
        messages: How many of them.
    """

    kind: str
    ours: Way
    against: Way
    bar: float
    least: int = 0
    messages: int = MESSAGES

    def run(self, settings: Settings) -> Outcome:
        """Measure."""
        count = settings.size(self.messages)
        paired = Paired([], [])
        with stores.OPENED[self.kind]() as bench:
            turns = [(self.ours, paired.ours), (self.against, paired.theirs)]
            for pair in range(settings.pairs + 1):
                for way, seconds in turns if pair % 2 == 0 else reversed(turns):
                    way.ready(bench, count)
                    gc.collect()
                    begun = perf_counter()
                    done = way.run(bench, count)
                    taken = perf_counter() - begun
                    check(done, count, way.name)
                    # The first pair warms up.
                    if pair:
                        seconds.append(taken)
        return self._outcome(paired, count)

    def _outcome(self, paired: Paired, count: int) -> Outcome:
        ratio = paired.ratio()
        per_second = count / median(paired.ours)
        bars = [f">= {self.bar:.2f}x"] if self.bar else []
        bars += [f">= {self.least // 1000} k/s"] if self.least else []
        return Outcome(
            bar=", ".join(bars) or "none",
            measured=f"{ratio.median:.2f}x",
            spread=f"{ratio.low:.2f}-{ratio.high:.2f}",
            ours=rate(count, median(paired.ours)),
            against=f"{rate(count, median(paired.theirs))} {self.against.name}",
            met=ratio.median >= self.bar and per_second >= self.least,
            numbers={
                "messages": count,
                "ours_seconds": paired.ours,
                "theirs_seconds": paired.theirs,
            },
        )


# -- a worker


def _ready(bench: Bench, count: int) -> None:
    bench.forget()
    bench.fill(count)
    bench.settle()


def _work(
    bench: Bench, count: int, *, asynchronous: bool = False, pooled: bool = False, **options: Any
) -> int:
    """Handle all there is with a handler that does nothing, message by message."""
    return _work_on(bench.outbox, count, asynchronous=asynchronous, pooled=pooled, **options)


def _work_on(
    outboxes: Any,
    count: int,
    *,
    asynchronous: bool = False,
    pooled: bool = False,
    subscribers: int = 1,
    **options: Any,
) -> int:
    handled = 0
    worker = ab.OutboxWorker(outboxes, observe="off", **options)

    def handle(message: ab.Message) -> None:
        nonlocal handled
        handled += 1
        if handled == count:
            worker.stop()

    async def handle_later(message: ab.Message) -> None:
        handle(message)

    for number in range(subscribers):
        if asynchronous:
            worker.on(TOPIC, subscriber=f"s{number}")(handle_later)
        else:
            worker.on(TOPIC, subscriber=f"s{number}", inline=not pooled)(handle)
    asyncio.run(worker.run())
    return handled


def _ready_for_two(bench: Bench, count: int) -> None:
    # Deliveries are counted: each message has two.
    _ready(bench, count // 2)


def _ready_four(bench: Bench, count: int) -> None:
    _ready(bench, 0)
    for schema in _SCHEMAS:
        other = ab.Outbox(bench.url, schema=schema)
        other.migrate()
        for subscription in other.subscriptions():
            other.unsubscribe(subscription.subscriber)
        other.close()
        with contextlib.closing(bench.connect(options=f"-c search_path={schema}")) as conn, conn:
            conn.execute("delete from outbox_message")
            conn.execute(
                "insert into outbox_message (topic, body, format, priority, enqueued_at, due_at) "
                "select %s, %s, 2, 5, 0, 0 from generate_series(1, %s)",
                (TOPIC, BODY, count // len(_SCHEMAS)),
            )
    bench.settle()


_SCHEMAS = ("a", "b", "c", "d")


def _work_four(bench: Bench, count: int) -> int:
    outboxes = {schema: ab.Outbox(bench.url, schema=schema) for schema in _SCHEMAS}
    try:
        return _work_on(outboxes, count)
    finally:
        for outbox in outboxes.values():
            outbox.close()


def _work_inline(bench: Bench, count: int) -> int:
    options = {"check_same_thread": False} if bench.kind == "sqlite" else {}
    return _work(bench, count, ack="inline", connect=partial(bench.connect, **options))


def _handled(
    loop: Callable[[Bench, Callable[[Any], None]], None],
) -> Callable[[Bench, int], int]:
    def run(bench: Bench, count: int) -> int:
        handled = 0

        def handle(row: Any) -> None:
            nonlocal handled
            handled += 1

        loop(bench, handle)
        return handled

    return run


# -- writing


def _emptied(bench: Bench, count: int) -> None:
    bench.forget()
    bench.settle()


def _enqueue_many(bench: Bench, count: int) -> int:
    for _ in range(count // CALLS_OF):
        bench.outbox.enqueue_many([ab.Draft(TOPIC, BODY) for _ in range(CALLS_OF)])
    return _written(bench)


def _insert_many(bench: Bench, count: int) -> int:
    sql = "insert into by_hand (topic, body) values "
    sql += "(?, ?)" if bench.kind == "sqlite" else "(%s, %s)"
    with contextlib.closing(bench.connect()) as conn:
        for _ in range(count // CALLS_OF):
            conn.cursor().executemany(sql, [(TOPIC, BODY) for _ in range(CALLS_OF)])
            conn.commit()
        written: int = conn.execute("select count(*) from by_hand").fetchone()[0]
    return written


def _enqueue_one_by_one(bench: Bench, count: int) -> int:
    with contextlib.closing(bench.connect()) as conn:
        for _ in range(count):
            bench.outbox.enqueue(conn, TOPIC, BODY)
        conn.commit()
    return _written(bench)


def _insert_one_by_one(bench: Bench, count: int) -> int:
    by_hand.insert_one_by_one(bench, count)
    return _written(bench)


def _written(bench: Bench) -> int:
    with contextlib.closing(bench.connect()) as conn:
        count: int = conn.execute("select count(*) from outbox_message").fetchone()[0]
    return count


def _hand_ready(bench: Bench, count: int) -> None:
    by_hand.fill(bench, 0)


LEASE = Way("worker", _ready, _work)
ASYNC = Way("worker, async def", _ready, partial(_work, asynchronous=True))
POOLED = Way("worker, def in a thread", _ready, partial(_work, pooled=True))
TWO = Way("worker, two subscribers", _ready_for_two, partial(_work, subscribers=2))
FOUR = Way("worker, 4 stores", _ready_four, _work_four)
INLINE = Way("worker, ack='inline'", _ready, _work_inline)
HAND = Way("claim + delete by hand", by_hand.fill, _handled(by_hand.claim_and_delete))
HAND_INLINE = Way("lock + delete by hand", by_hand.fill, _handled(by_hand.in_one_transaction))
MANY = Way("enqueue_many", _emptied, _enqueue_many)
HAND_MANY = Way("executemany by hand", _hand_ready, _insert_many)
ONE = Way("enqueue", _emptied, _enqueue_one_by_one)
HAND_ONE = Way("the same INSERT by hand", _emptied, _insert_one_by_one)

CASES = {
    "outbox-lease": Case("postgres", LEASE, HAND, 1.2, 100_000).run,
    "outbox-inline": Case("postgres", INLINE, HAND_INLINE, 1.0).run,
    "outbox-async": Case("postgres", ASYNC, LEASE, 0.7).run,
    "outbox-two": Case("postgres", TWO, LEASE, 0.7).run,
    "outbox-four": Case("postgres", FOUR, LEASE, 0.9).run,
    "outbox-pooled": Case("postgres", POOLED, LEASE, 0.0, messages=20_000).run,
    "outbox-many": Case("postgres", MANY, HAND_MANY, 0.0, 150_000).run,
    "outbox-one": Case("postgres", ONE, HAND_ONE, 0.9, messages=20_000).run,
    "outbox-sqlite": Case("sqlite", LEASE, HAND, 0.0, 120_000).run,
    "outbox-sqlite-many": Case("sqlite", MANY, HAND_MANY, 0.0, 200_000).run,
    "outbox-sqlite-one": Case("sqlite", ONE, HAND_ONE, 0.9).run,
}
