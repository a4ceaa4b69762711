"""A gateway as a process of its own, for test_real_input: TCP lines, windows per tenant, SQLite.

    python gateway.py DATABASE FLAKY_TENANT

Writes one JSON object per line: its address first, then one for each window it has stored, and in
the end, after SIGTERM, the report and the windows it gave up. The flaky tenant's store fails now
and then, half-way or after all was written, sometimes at every attempt.
"""

import asyncio
import json
import sqlite3
import sys
from itertools import count
from threading import Lock

import anabranch as ab
from anabranch.traffic import Entry, parse

ATTEMPTS = 3


class Store:
    def __init__(self, path: str, flaky: str) -> None:
        self._path = path
        self._flaky = flaky
        self._numbers = count(1)
        self._connection = ab.per_thread(self._connect)
        self._connection().executescript(
            "pragma journal_mode = wal;"
            "create table lines (number integer, tenant text, sequence integer, line text);"
            "create index lines_by_number on lines (number);"
        )
        self._output = Lock()
        # Only the flaky tenant's thread, of which there is one at a time, changes these.
        self._turn = 0
        self.failures = 0
        self.given_up: list[list[int]] = []

    def store(self, window: list[Entry], ctx: ab.Context) -> None:
        number = next(self._numbers)
        ctx.compensate(self._undo, number)
        fails, halfway = self._fate(ctx)
        # Two transactions, so that there is something to undo in any case.
        half = len(window) // 2
        self._write(number, window[:half])
        if fails and halfway:
            self._fail(window, ctx)
        self._write(number, window[half:])
        if fails:
            self._fail(window, ctx)
        self.tell(stored=ctx.tenant, items=len(window))

    def _fate(self, ctx: ab.Context) -> tuple[bool, bool]:
        """Return whether this attempt is to fail, and whether with half of the window written."""
        if ctx.tenant != self._flaky:
            return False, False
        if ctx.attempt == 1:
            self._turn += 1
        saved, lost = self._turn % 8 in (1, 5), self._turn % 8 in (3, 7)
        return lost or (saved and ctx.attempt == 1), self._turn % 8 in (5, 7)

    def _fail(self, window: list[Entry], ctx: ab.Context) -> None:
        self.failures += 1
        if ctx.attempt == ATTEMPTS:
            self.given_up.append([entry.sequence for entry in window])
        raise ConnectionError("the store is away")

    def _write(self, number: int, entries: list[Entry]) -> None:
        with self._connection() as connection:
            rows = [(number, *entry) for entry in entries]
            connection.executemany("insert into lines values (?, ?, ?, ?)", rows)

    def _undo(self, number: int) -> None:
        with self._connection() as connection:
            connection.execute("delete from lines where number = ?", (number,))

    def tell(self, **what: object) -> None:
        with self._output:
            sys.stdout.write(json.dumps(what) + "\n")
            sys.stdout.flush()

    def close(self) -> None:
        self._connection.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=30, check_same_thread=False)
        connection.execute("pragma synchronous = off")
        return connection


async def serve(store: Store) -> None:
    pipeline = (
        ab.Pipeline("gateway", threads=4)
        .source(ab.tcp_lines("127.0.0.1", 0))
        .map(parse)
        .fan_out(by=ab.attr("tenant"))
        .window(max_items=500, max_age=0.2)
        .for_each(store.store, retry=ab.Retry.exponential(attempts=ATTEMPTS, base=0.01))
    )
    async with pipeline.start() as running:
        store.tell(address=running.address)
        report = await running.wait()
    store.tell(report=report.to_dict(), failures=store.failures, given_up=store.given_up)


def main() -> None:
    store = Store(*sys.argv[1:])
    asyncio.run(serve(store))
    store.close()


if __name__ == "__main__":
    main()
