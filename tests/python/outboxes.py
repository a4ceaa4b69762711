"""The stores of an outbox as the one suite sees them, and which rows a store cannot have."""

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import postgres
import psycopg

import anabranch as ab

# The version of the tables.
VERSION = 2

# The rows a store cannot have, and why.
CANNOT = {
    "memory": {"D1": "it has no tables"},
    "postgres": {},
    "sqlite": {
        "K6": "it has no row locks: one writes at a time",
        "K11": "it has no clock but that of the process it runs in",
    },
}


# The rows the contract `inline` cannot have, and why: the others hold for it, too.
INLINE_CANNOT = {
    "A1, A10, K7, K8": "it has no lease: the database rolls back what a dead worker held, at once",
    "A7": "the ack is the transaction's own",
    "H5 (crashes)": "nothing is written before a handler is called: a crash is no attempt",
    "H6": "handlers of one outbox share a connection, so they are called one after another",
    "K5, K6 (sqlite)": "one writes at a time: a second worker waits for the first",
    "memory": "it has no driver",
}


class MemorySide:
    """An outbox in memory, whose clock the test moves."""

    kind = "memory"

    def __init__(self, **options):
        self._time = 1_750_000_000.0
        self.outbox = ab.Outbox.memory(clock=lambda: self._time, **options)
        self.again = self.outbox

    def pass_time(self, seconds: float) -> None:
        self._time += seconds

    @contextlib.contextmanager
    def transaction(self) -> Iterator[object]:
        with self.outbox.transaction() as tx:
            yield tx

    def close(self) -> None:
        self.outbox.close()


class SqliteSide:
    """An outbox in a file; time passes by shifting the rows back. `again` is another process's."""

    kind = "sqlite"

    def __init__(self, folder: Path, **options):
        self.path = folder / "shop.db"
        self.url = f"sqlite:///{self.path}"
        self.outbox = ab.Outbox(self.url, **options)
        self.again = ab.Outbox(self.url, **options)
        self.outbox.migrate()

    def pass_time(self, seconds: float) -> None:
        shift = round(seconds * 1000)
        with contextlib.closing(sqlite3.connect(self.path)) as conn, conn:
            conn.execute(
                "update outbox_message set enqueued_at = enqueued_at - :shift, "
                "due_at = due_at - :shift, expires_at = expires_at - :shift, "
                "ended_at = ended_at - :shift, leased_until = leased_until - :shift, "
                "claimed_at = claimed_at - :shift",
                {"shift": shift},
            )
            for table in ("dedupe", "inbox", "worker"):
                conn.execute(f"update outbox_{table} set until = until - ?", (shift,))
            conn.execute(
                "update outbox_join set deadline = deadline - :shift, ended_at = ended_at - :shift",
                {"shift": shift},
            )
            conn.execute(
                "update outbox_plan set next_at = next_at - :shift, "
                "leased_until = leased_until - :shift",
                {"shift": shift},
            )

    @contextlib.contextmanager
    def transaction(self) -> Iterator[object]:
        with contextlib.closing(sqlite3.connect(self.path)) as conn, conn:
            yield conn

    def close(self) -> None:
        self.outbox.close()
        self.again.close()


class PostgresSide:
    """An outbox in a database of its own; time passes by shifting the rows back."""

    kind = "postgres"

    def __init__(self, **options):
        self.server = postgres.server()
        self.database = self.server.create()
        self.url = self.server.url(self.database)
        self.outbox = ab.Outbox(self.url, **options)
        self.again = ab.Outbox(self.url, **options)
        self.outbox.migrate()

    def pass_time(self, seconds: float) -> None:
        shift = round(seconds * 1000)
        with psycopg.connect(self.url) as conn:
            conn.execute(
                f"update outbox_message set enqueued_at = enqueued_at - {shift}, "
                f"due_at = due_at - {shift}, expires_at = expires_at - {shift}, "
                f"ended_at = ended_at - {shift}, leased_until = leased_until - {shift}, "
                f"claimed_at = claimed_at - {shift}"
            )
            for table in ("dedupe", "inbox", "worker"):
                conn.execute(f"update outbox_{table} set until = until - {shift}")
            conn.execute(
                f"update outbox_join set deadline = deadline - {shift}, "
                f"ended_at = ended_at - {shift}"
            )
            conn.execute(
                f"update outbox_plan set next_at = next_at - {shift}, "
                f"leased_until = leased_until - {shift}"
            )

    @contextlib.contextmanager
    def transaction(self) -> Iterator[object]:
        with psycopg.connect(self.url) as conn:
            yield conn

    def close(self) -> None:
        self.outbox.close()
        self.again.close()
        self.server.drop(self.database)


def opened(kind: str, folder: Path, **options) -> MemorySide | PostgresSide | SqliteSide:
    if kind == "postgres":
        return PostgresSide(**options)
    return MemorySide(**options) if kind == "memory" else SqliteSide(folder, **options)


def ids(messages) -> list[int]:
    return [message.id for message in messages]


def in_threads(count: int, work) -> None:
    """Run `work(number)` in so many threads at once, and raise what one of them raised."""
    errors = []
    start = threading.Barrier(count)

    def run(number):
        try:
            start.wait()
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
