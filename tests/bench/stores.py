"""Owns the databases that the outbox is measured on: a server, or a file, for each case."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anabranch as ab

if TYPE_CHECKING:
    from collections.abc import Iterator

# The server of the tests, which starts and removes itself.
sys.path.append(str(Path(__file__).parent.parent / "python"))

TOPIC = "bench"
BODY = json.dumps({"n": 7, "to": "ada", "what": "an order that was paid"}).encode()

_FILL = {
    "postgres": """
        insert into outbox_message (topic, body, format, priority, enqueued_at, due_at{more})
        select '{topic}', %(body)s, 2, {priority}, t.now, t.now + {delay}{values}
        from generate_series(1, %(count)s),
          (select cast(extract(epoch from clock_timestamp()) * 1000 as bigint) as now) t""",
    "sqlite": """
        with recursive n(n) as (select 1 union all select n + 1 from n where n < :count)
        insert into outbox_message (topic, body, format, priority, enqueued_at, due_at{more})
        select '{topic}', :body, 2, {priority}, t.now, t.now + {delay}{values}
        from n, (select cast((julianday('now') - 2440587.5) * 86400000 as integer) as now) t""",
}


class Bench:
    """An outbox in a database of its own, and what fills it quicker than anybody enqueues."""

    def __init__(self, kind: str, url: str) -> None:
        self.kind = kind
        self.url = url
        self.outbox = ab.Outbox(url)
        self.outbox.migrate()

    def connect(self, **options: Any) -> Any:
        """Make a connection of the user's."""
        return connect(self.kind, self.url, **options)

    def fill(self, count: int, *, delay: int = 0, priority: int = 5, ended: str = "") -> None:
        """Write messages that are ready; later by so many milliseconds; or archived, or dead."""
        more, values = "", ""
        if ended:
            more = ", state, ended_at"
            values = f", {1 if ended == 'dead' else 2}, t.now"
        sql = _FILL[self.kind].format(
            topic=TOPIC, priority=priority, delay=delay, more=more, values=values
        )
        with contextlib.closing(self.connect()) as conn, conn:
            conn.execute(sql, {"count": count, "body": BODY})

    def settle(self) -> None:
        """Let the database know what is there, as autovacuum would by and by."""
        if self.kind == "sqlite":
            return
        with contextlib.closing(self.connect(autocommit=True)) as conn:
            conn.execute("vacuum analyze")

    def forget(self) -> None:
        """Forget who subscribed, and all messages."""
        for subscription in self.outbox.subscriptions():
            self.outbox.unsubscribe(subscription.subscriber)
        with contextlib.closing(self.connect()) as conn, conn:
            conn.execute("delete from outbox_message")


def connect(kind: str, url: str, **options: Any) -> Any:
    """Make a connection of the user's."""
    if kind == "sqlite":
        return sqlite3.connect(url.removeprefix("sqlite:///"), **options)
    import psycopg

    return psycopg.connect(url, **options)


@contextlib.contextmanager
def server() -> Iterator[Any]:
    """Start a PostgreSQL with its default settings; remove it at the end."""
    import postgres

    one = postgres.Server("")
    try:
        yield one
    finally:
        one.close()


@contextlib.contextmanager
def postgres() -> Iterator[Bench]:
    """Give an outbox in PostgreSQL."""
    with server() as one:
        bench = Bench("postgres", one.url(one.create()))
        try:
            yield bench
        finally:
            bench.outbox.close()


@contextlib.contextmanager
def sqlite() -> Iterator[Bench]:
    """Give an outbox in a file with a write-ahead log, whose commits wait for the disk."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench.db"
        with contextlib.closing(sqlite3.connect(path)) as conn:
            conn.execute("pragma journal_mode = wal")
        bench = Bench("sqlite", f"sqlite:///{path}")
        try:
            yield bench
        finally:
            bench.outbox.close()


OPENED = {"postgres": postgres, "sqlite": sqlite}
