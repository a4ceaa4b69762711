"""The store in SQLite: the SQL, run through the interpreter's own `sqlite3`.

Two copies of SQLite in one process drop each other's locks on a file, and the caller's connection
is of this one; see `_outbox_sqlite_over`.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
from typing import TYPE_CHECKING, Any, Final, TypeVar

from anabranch import _core
from anabranch._outbox_sqlite_over import SqliteWriting, as_json, divisions, run, timed
from anabranch._outbox_sqlite_watch import FileWatch
from anabranch._outbox_store import (
    ANY,
    DEAD,
    MOST_READY,
    READY,
    Ages,
    Claimed,
    Inspected,
    Reaped,
    Wanted,
    Which,
    ages,
    mismatched,
    urgent_first,
)
from anabranch.errors import (
    ClosedError,
    ConfigError,
    ForkedProcessError,
    StoreUnavailable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from anabranch._outbox_members import NewJoin
    from anabranch._outbox_sqlite_over import Steps
    from anabranch._outbox_store import (
        Division,
        Keep,
        Receipt,
        Row,
        Settings,
        Written,
    )


T = TypeVar("T")

_OLDEST = (3, 35, 0)
# Seconds to wait for another writer.
_PATIENCE: Final = 5.0
# Messages of paused topics that one transaction sets aside, or brings back.
_ASIDE: Final = 10_000
# How many more than it claims a claim looks through for them.
_BEHIND: Final = 1000


class SqliteStore(SqliteWriting):
    """The messages in one file."""

    def __init__(self, path: str, settings: Settings) -> None:
        if sqlite3.sqlite_version_info < _OLDEST:
            raise ConfigError(
                f"this Python's SQLite is {sqlite3.sqlite_version}; an outbox needs 3.35 or later"
            )
        self.label = f"sqlite:///{path}"
        # In a thread, each row that is fetched would wait for the interpreter anew.
        self.is_quick = True
        self.costs = True
        self._path = path
        self._settings = settings
        self.keep: Keep = settings.keep
        self._migrations, self._sql = _core.outbox_sql("sqlite", settings.prefix)
        self._needed = self._migrations[-1][0]
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._checked = False
        self._pid = 0
        self._closed = False

    def beside(self) -> SqliteStore:
        """Give the same messages over a connection of their own."""
        return SqliteStore(self._path, self._settings)

    # -- this store's own connection

    def migrate(self) -> int:
        with self._own(checked=False) as cursor:
            found = self._version(cursor)
            if found is None or found > self._needed:
                raise mismatched(self.label, found, self._needed)
            for version, statements in self._migrations:
                if version > found:
                    for statement in statements:
                        cursor.execute(statement)
                    cursor.execute(self._sql["set_version"], {"version": version})
            return self._needed - found

    def _version(self, cursor: sqlite3.Cursor) -> int | None:
        if not cursor.execute(self._sql["has_meta"]).fetchall():
            return 0
        found = cursor.execute(self._sql["version"]).fetchone()
        return None if found is None else int(found[0])

    @contextlib.contextmanager
    def _own(self, *, checked: bool = True, writes: bool = True) -> Generator[sqlite3.Cursor]:
        """Give a transaction of this store's own, one at a time; who only reads waits for none."""
        with self._lock:
            try:
                cursor = self._opened(checked=checked).cursor()
                cursor.execute("begin immediate" if writes else "begin")
                try:
                    yield cursor
                    cursor.execute("commit")
                except BaseException:
                    # A full disk has rolled back already; a commit that waited in vain has not.
                    if cursor.connection.in_transaction:
                        cursor.execute("rollback")
                    raise
            except sqlite3.Error as error:
                raise self._unavailable(error) from error

    def _opened(self, *, checked: bool) -> sqlite3.Connection:
        if self._closed:
            raise ClosedError(f"outbox {self.label} is closed: make another")
        if self._connection is None:
            # Connecting would create a file; an empty one is made by migrate alone.
            mode = "rw" if checked else "rwc"
            uri = f"file:{_quoted(self._path)}?mode={mode}"
            self._connection = sqlite3.connect(
                uri, uri=True, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
            )
            self._pid = os.getpid()
        if self._pid != os.getpid():
            raise ForkedProcessError(
                f"outbox {self.label} was opened in process {self._pid}, before the fork: make "
                "another in this one"
            )
        if checked and not self._checked:
            found = self._version(self._connection.cursor())
            if found != self._needed:
                raise mismatched(self.label, found, self._needed)
            self._checked = True
        return self._connection

    def _unavailable(self, error: sqlite3.Error) -> StoreUnavailable:
        text = str(error)
        reason = "failed"
        if "unable to open" in text:
            advice = "check the path; outbox.migrate() creates the file, in a folder that exists"
            reason = "missing"
        elif "locked" in text or "busy" in text:
            advice = f"another writer held the file for {_PATIENCE:g} s: keep transactions short"
            reason = "busy"
        elif "readonly" in text:
            advice = "this user may not write to the file, or to its folder"
            reason = "denied"
        elif "full" in text:
            reason, advice = "full", "free some space; nothing of this call was written"
        elif "not a database" in text:
            reason, advice = "missing", "it is another kind of file: mend the URL"
        else:
            advice = "nothing of this call was written"
        message = f"outbox {self.label}: {text}; {advice}"
        return StoreUnavailable(message, store=self.label, reason=reason)

    def _one(self, name: str, given: Mapping[str, Any], *, writes: bool = True) -> list[Any]:
        with self._own(writes=writes) as cursor:
            return cursor.execute(self._sql[name], timed(given)).fetchall()

    def _count(self, name: str, given: Mapping[str, Any]) -> int:
        with self._own() as cursor:
            return cursor.execute(self._sql[name], timed(given)).rowcount

    def _ids(self, name: str, given: Mapping[str, Any]) -> list[int]:
        return sorted(row[0] for row in self._one(name, given))

    @property
    def statements(self) -> Mapping[str, str]:
        """The SQL, by name."""
        return self._sql

    def do(self, steps: Steps[T]) -> T:
        """Run statements in a transaction of their own."""
        with self._own() as cursor:
            return run(cursor, steps)

    def write_steps(self, rows: Sequence[Written]) -> Steps[list[int]]:
        """Return what writes messages."""
        return self._write(rows)

    def write(self, rows: Sequence[Written]) -> list[int]:
        with self._own() as cursor:
            return run(cursor, self._write(rows))

    def retract(self, message: int) -> bool:
        with self._own() as cursor:
            return run(cursor, self._retract(message))

    def join(self, join: NewJoin) -> int:
        with self._own() as cursor:
            return run(cursor, self._join(join))

    def attach(self, join: int, messages: list[int]) -> None:
        with self._own() as cursor:
            run(cursor, self._attach(join, messages))

    def cancel_join(self, join: int) -> bool:
        with self._own() as cursor:
            return run(cursor, self._cancel_join(join))

    def joins(self, after: int, limit: int) -> list[Row]:
        return self._one("joins", {"after": after, "limit": limit}, writes=False)

    def owner(self) -> int:
        number: int = self._one("owner", {})[0][0]
        return number

    def claim(self, owner: int, limit: int, lease: int, wanted: Wanted = ANY) -> Claimed:
        given: dict[str, Any] = {
            "owner": owner,
            "limit": limit,
            "lease": lease,
            "skip": int(self._settings.skip),
            **wanted.columns(),
        }
        with self._own() as cursor:
            rows = cursor.execute(self._sql["claim"], timed(given)).fetchall()
            state = cursor.execute(self._sql["subscribers_version"], timed({})).fetchone()
            version, overdue, paused = state
            if overdue:
                run(cursor, self._expire())
                given["limit"] = limit - len(rows)
                rows += cursor.execute(self._sql["claim"], timed(given)).fetchall()
            if paused:
                cursor.execute(self._sql["set_aside"], timed({"limit": limit + _BEHIND})).fetchall()
        return Claimed(version, urgent_first(rows))

    def peek(self, limit: int) -> list[Row]:
        given = {"limit": limit, "skip": int(self._settings.skip), "without": None, "by": None}
        return urgent_first(self._one("peek", given, writes=False))

    def ack(self, receipts: Sequence[Receipt]) -> list[int]:
        with self._own() as cursor:
            return run(cursor, self._end(receipts))

    def abandon(self, given: Sequence[tuple[int, int, int, int, str | None]]) -> list[int]:
        return self._ids("abandon", as_json(given))

    def fail(self, given: Sequence[tuple[int, int, int, str]]) -> list[int]:
        with self._own() as cursor:
            return run(cursor, self._die("fail", as_json(given)))

    def divide(self, given: Sequence[Division]) -> list[int]:
        with self._own() as cursor:
            return run(cursor, self._die("divide", as_json(divisions(given))))

    def release(self, receipts: Sequence[Receipt]) -> list[int]:
        return self._ids("release", as_json(receipts))

    def extend(self, receipts: Sequence[Receipt], lease: int) -> list[int]:
        return self._ids("extend", {**as_json(receipts), "lease": lease})

    def reap(self, *, leases: bool = True) -> Reaped:
        with self._own() as cursor:
            at = timed({})
            over = cursor.execute(self._sql["reap_leases"], at).rowcount if leases else 0
            expired = len(run(cursor, self._die("reap_expired", at)))
            run(cursor, self._expire())
            for name in ("dedupes", "inbox", "joins", "members", "follow", "workers"):
                cursor.execute(self._sql[f"reap_{name}"], at)
            return Reaped(over, expired)

    def subscribe(self, subscriber: str, patterns: list[str]) -> None:
        given = {"subscriber": subscriber, "patterns": json.dumps(patterns)}
        with self._own() as cursor:
            less = cursor.execute(self._sql["subscribe_less"], given).rowcount
            more = cursor.execute(self._sql["subscribe"], given).rowcount
            if less or more:
                cursor.execute(self._sql["subscribers_changed"])

    def unsubscribe(self, subscriber: str) -> bool:
        given = {"subscriber": subscriber}
        with self._own() as cursor:
            gone = cursor.execute(self._sql["unsubscribe"], given).rowcount
            if gone:
                cursor.execute(self._sql["subscribers_changed"])
            cursor.execute(self._sql["wait_no_more"], timed(given))
            return gone > 0

    def subscriptions(self) -> tuple[int, list[tuple[str, str, int]]]:
        with self._own(writes=False) as cursor:
            version = cursor.execute(self._sql["subscribers_version"], timed({})).fetchone()
            return version[0], cursor.execute(self._sql["subscriptions"]).fetchall()

    def next_in(self) -> int | None:
        wait: int | None = self._one("next", {}, writes=False)[0][0]
        return wait

    def backlog(self) -> tuple[int, int | None]:
        [(count, waited)] = self._one("backlog", {"most": MOST_READY}, writes=False)
        return count, waited

    def rows(self, *, status: str | None, topic: str | None, after: int, limit: int) -> list[Row]:
        given = {"status": status, "topic": topic, "after": after, "limit": limit}
        return self._one("list", given, writes=False)

    def counts(self) -> list[tuple[str, str, int]]:
        return self._one("counts", {}, writes=False)

    def ages(self) -> Ages:
        return ages(*self._one("ages", {}, writes=False)[0])

    def chosen(self, state: int, which: Which) -> int:
        name = "count_ended" if state else "count_open"
        count: int = self._one(name, which.given(state), writes=False)[0][0]
        return count

    def requeue(self, which: Which, limit: int) -> int:
        return self._count("requeue", which.given(DEAD, limit))

    def cancel(self, which: Which, error: str, limit: int) -> int:
        given = timed({**which.given(READY, limit), "error": error})
        with self._own() as cursor:
            return len(run(cursor, self._die("cancel", given)))

    def purge(self, state: int, which: Which, limit: int) -> int:
        return self._count("purge", which.given(state, limit))

    def pause(self, pattern: str) -> None:
        self._count("pause", {"pattern": pattern})
        after = 0
        while moved := self._one("set_aside_all", {"after": after, "limit": _ASIDE}):
            after = max(row[0] for row in moved)

    def resume(self, pattern: str) -> bool:
        gone = self._count("resume", {"pattern": pattern})
        while self._one("bring_back", {"limit": _ASIDE}):
            pass
        return bool(gone)

    def pauses(self) -> list[tuple[str, int]]:
        return self._one("pauses", {}, writes=False)

    def beat(self, owner: int, told: str, lasts: int) -> None:
        self._count("beat", {"id": owner, "told": told, "lasts": lasts})

    def inspect(self) -> Inspected:
        with self._own(writes=False) as cursor:
            return Inspected(journal=cursor.execute("pragma journal_mode").fetchone()[0])

    def leave(self, owner: int) -> None:
        self._count("leave", {"id": owner})

    def workers(self) -> list[tuple[int, str, int, int, int]]:
        return self._one("workers", {}, writes=False)

    def listen(self, heard: Callable[[], object]) -> Callable[[], object]:
        return FileWatch(self._path, heard).close

    def rest(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None and self._pid == os.getpid():
                connection.close()

    def close(self) -> None:
        self._closed = True
        self.rest()


def _quoted(path: str) -> str:
    from urllib.parse import quote

    return quote(path)
