"""The outbox beside the same statements by hand: messages per second, as a table and as JSON.

    .venv-bench/bin/python tests/bench/outbox.py [--messages 20000] [--json FILE] [--url URL]

Without a URL it is a file of SQLite, and the outbox in memory; with one, an empty database of
PostgreSQL. Ours and the one by hand take turns; the median of the rounds counts.
"""

import argparse
import asyncio
import contextlib
import json
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import anabranch as ab

ROUNDS = 5
BATCH = 1000


class Bench:
    """One store to measure."""

    def __init__(self, name: str, outbox: ab.Outbox, connect: Callable[[], object] | None):
        self.name = name
        self.outbox = outbox
        self.connect = connect

    def fill(self, count: int, **options: object) -> None:
        for _ in range(0, count, BATCH):
            self.outbox.enqueue_many([ab.Draft("bench", {"n": n}, **options) for n in range(BATCH)])

    def drain(self) -> int:
        count = 0
        while claimed := self.outbox.claim(BATCH):
            count += self.outbox.ack(claimed)
        return count


def enqueue_many(bench: Bench, count: int) -> None:
    bench.fill(count)


def claim_and_ack(bench: Bench, count: int) -> None:
    assert bench.drain() == count


def one_by_one(bench: Bench, count: int) -> None:
    with contextlib.closing(bench.connect()) as conn:
        for n in range(count):
            bench.outbox.enqueue(conn, "bench", {"n": n})
        conn.commit()


def by_hand(bench: Bench, count: int) -> None:
    mark = "?" if isinstance(bench.connect(), sqlite3.Connection) else "%s"
    sql = (
        "insert into outbox_message (topic, body, format, priority, enqueued_at, due_at) "
        f"values ({mark}, {mark}, 2, 5, {mark}, {mark})"
    )
    with contextlib.closing(bench.connect()) as conn:
        cursor = conn.cursor()
        for n in range(count):
            now = round(time.time() * 1000)
            cursor.execute(sql, ("bench", json.dumps({"n": n}).encode(), now, now))
        conn.commit()


def worker(kind: str) -> Callable[[Bench, int], None]:
    def work(bench: Bench, count: int) -> None:
        expected = count * (2 if kind == "two" else 1)
        handled = 0
        made = ab.OutboxWorker(bench.outbox, observe="off")

        def handle(message: ab.Message) -> None:
            nonlocal handled
            handled += 1
            if handled == expected:
                made.stop()

        async def handle_async(message: ab.Message) -> None:
            handle(message)

        if kind == "def":
            made.on("bench", inline=True)(handle)
        else:
            made.on("bench")(handle_async)
        if kind == "two":
            made.on("bench", subscriber="second")(handle_async)
        asyncio.run(made.run())
        for subscription in bench.outbox.subscriptions():
            bench.outbox.unsubscribe(subscription.subscriber)

    return work


# What is measured; whether it needs messages first, leaves some, and needs a connection.
CASES = {
    "enqueue_many, 1000 a call": (enqueue_many, False, True, False),
    "claim and ack, 1000 at a time": (claim_and_ack, True, False, False),
    "enqueue one by one, one transaction": (one_by_one, False, True, True),
    "  the same INSERT by hand": (by_hand, False, True, True),
    "worker, def inline": (worker("def"), True, False, False),
    "worker, async def": (worker("async"), True, False, False),
    "worker, two subscribers (messages)": (worker("two"), True, False, False),
}


def measure(bench: Bench, count: int) -> Iterator[tuple[str, list[float]]]:
    rates: dict[str, list[float]] = {name: [] for name in CASES}
    for _ in range(ROUNDS):
        for name, (case, filled, leaves, connects) in CASES.items():
            if connects and bench.connect is None:
                continue
            if filled:
                bench.fill(count)
            begun = time.perf_counter()
            case(bench, count)
            rates[name].append(count / (time.perf_counter() - begun))
            if leaves:
                bench.drain()
    yield from ((name, given) for name, given in rates.items() if given)


def claim_beside_scheduled(bench: Bench, scheduled: int) -> tuple[float, float]:
    """Seconds of a claim of 500 without, and with, so many messages that are due later."""

    def claim() -> float:
        bench.fill(BATCH)
        begun = time.perf_counter()
        claimed = bench.outbox.claim(500)
        taken = time.perf_counter() - begun
        bench.outbox.ack(claimed)
        bench.drain()
        return taken

    without = statistics.median(claim() for _ in range(ROUNDS))
    for priority in range(10):
        bench.fill(scheduled // 10, delay=86_400.0, priority=priority)
    return without, statistics.median(claim() for _ in range(ROUNDS))


def benches(url: str | None, folder: str) -> Iterator[Bench]:
    if url is not None:
        import psycopg

        yield Bench("PostgreSQL", ab.Outbox(url), lambda: psycopg.connect(url))
        return
    path = Path(folder) / "bench.db"
    yield Bench("SQLite", ab.Outbox(f"sqlite:///{path}"), lambda: sqlite3.connect(path))
    yield Bench("memory", ab.Outbox.memory(), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--scheduled", type=int, default=300_000)
    parser.add_argument("--url")
    parser.add_argument("--json")
    asked = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for bench in benches(asked.url, folder):
            bench.outbox.migrate()
            count = asked.messages if bench.connect is not None else min(asked.messages, 5000)
            for name, rates in measure(bench, count):
                middle = statistics.median(rates)
                spread = (max(rates) - min(rates)) / middle
                found.append({"store": bench.name, "case": name, "rate": middle, "spread": spread})
                sys.stdout.write(f"{bench.name:11} {name:38} {middle:10,.0f}/s ±{spread:.0%}\n")
            if bench.connect is not None and asked.scheduled:
                without, beside = claim_beside_scheduled(bench, asked.scheduled)
                name = f"claim beside {asked.scheduled} scheduled"
                found.append({"store": bench.name, "case": name, "ratio": beside / without})
                sys.stdout.write(
                    f"{bench.name:11} {name:38} {beside / without:10.2f} times as long\n"
                )
            bench.outbox.close()
    if asked.json:
        Path(asked.json).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
