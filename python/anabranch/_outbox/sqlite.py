"""The store in SQLite: the SQL, run through the interpreter's own `sqlite3`.

Two copies of SQLite in one process drop each other's locks on a file, and the caller's connection
is of this one; see `_outbox.sqlite_over`.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from typing import TYPE_CHECKING, Any, Final, TypeVar

from anabranch import _core
from anabranch._outbox import sqlite_line
from anabranch._outbox.line import Common
from anabranch._outbox.sqlite_line import SqliteLine
from anabranch._outbox.sqlite_over import SqliteWriting, as_json, divisions, run, timed
from anabranch._outbox.store import (
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
    whole,
)
from anabranch.errors import ClosedError, ConfigError, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from anabranch._outbox.members import NewJoin
    from anabranch._outbox.sqlite_over import Steps
    from anabranch._outbox.store import (
        Division,
        Keep,
        Receipt,
        Row,
        Settings,
        Written,
    )


T = TypeVar("T")

_OLDEST = (3, 35, 0)
# Messages of paused topics that one transaction sets aside, or brings back.
_ASIDE: Final = 10_000
# How many more than it claims a claim looks through for them.
_BEHIND: Final = 1000


class SqliteStore(SqliteWriting):
    """The messages in one file, or those of a tenant."""

    def __init__(
        self, path: str, settings: Settings, common: Common[SqliteLine] | None = None
    ) -> None:
        if sqlite3.sqlite_version_info < _OLDEST:
            raise ConfigError(
                f"this Python's SQLite is {sqlite3.sqlite_version}; an outbox needs 3.35 or later"
            )
        self.label = f"sqlite:///{path}"
        # In a thread, each row that is fetched would wait for the interpreter anew.
        self.is_quick = True
        self.costs = True
        if settings.tenant is not None:
            self.label += f"?tenant={settings.tenant}"
        self._settings = settings
        self.keep: Keep = settings.keep
        self._migrations, self._sql = _core.outbox_sql(
            "sqlite", settings.prefix, of_tenant=settings.tenant is not None
        )
        self._needed = self._migrations[-1][0]
        self._common = common or Common(SqliteLine(path))

    @property
    def line(self) -> SqliteLine:
        """The connection, which others may have in common with it."""
        return self._common.line

    def of(self, tenant: str) -> SqliteStore:
        """Give a tenant's messages, over the same connection."""
        settings = self._settings._replace(tenant=tenant)
        return SqliteStore(self.line.path, settings, self._common)

    def share(self, lines: dict[str, SqliteLine]) -> None:
        """Work over the connection that others have to the same database."""
        self._common.share(lines.setdefault(self.line.path, self.line))

    def beside(self, use: str) -> SqliteStore:
        common = self._common.beside(use, lambda: SqliteLine(self.line.path))
        return SqliteStore(self.line.path, self._settings, common)

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
    def _own(
        self, *, checked: bool = True, writes: bool = True, durable: bool = True
    ) -> Generator[sqlite3.Cursor]:
        """Give a transaction of this store's own, one at a time; who only reads waits for none."""
        with self.line.lock:
            try:
                cursor = self._opened(checked=checked).cursor()
                is_part = cursor.connection.in_transaction
                if is_part:
                    # Of what somebody does together.
                    yield cursor
                    return
                hurries = not durable and self.line.may_hurry
                if hurries:
                    cursor.execute("pragma synchronous = normal")
                try:
                    cursor.execute("begin immediate" if writes else "begin")
                    yield cursor
                    cursor.execute("commit")
                except BaseException:
                    # A full disk has rolled back already; a commit that waited in vain has not.
                    if cursor.connection.in_transaction:
                        cursor.execute("rollback")
                    raise
                finally:
                    if hurries:
                        cursor.execute("pragma synchronous = full")
            except sqlite3.Error as error:
                raise self._unavailable(error) from error

    def _opened(self, *, checked: bool) -> sqlite3.Connection:
        if self._common.closed:
            raise ClosedError(f"outbox {self.label} is closed: make another")
        connection = self.line.opened(self.label, creates=not checked)
        if checked and not self._common.checked:
            found = self._version(connection.cursor())
            if found != self._needed:
                raise mismatched(self.label, found, self._needed)
            self._common.checked = True
        return connection

    def _unavailable(self, error: sqlite3.Error) -> StoreUnavailable:
        text = str(error)
        reason = "failed"
        if "unable to open" in text:
            advice = "check the path; outbox.migrate() creates the file, in a folder that exists"
            reason = "missing"
        elif "locked" in text or "busy" in text:
            waited = sqlite_line.PATIENCE
            advice = f"another writer held the file for {waited:g} s: keep transactions short"
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
            return cursor.execute(self._sql[name], self._timed(given)).fetchall()

    def _count(self, name: str, given: Mapping[str, Any]) -> int:
        with self._own() as cursor:
            return cursor.execute(self._sql[name], self._timed(given)).rowcount

    def _timed(self, given: Mapping[str, Any]) -> dict[str, Any]:
        tenant = self._settings.tenant
        return timed(given) if tenant is None else timed({**given, "tenant": tenant})

    def _ids(self, name: str, given: Mapping[str, Any]) -> list[int]:
        return sorted(row[0] for row in self._one(name, given))

    @property
    def statements(self) -> Mapping[str, str]:
        """The SQL, by name."""
        return self._sql

    def _run(self, cursor: sqlite3.Cursor, steps: Steps[T]) -> T:
        return run(cursor, self.of_tenant(steps))

    def do(self, steps: Steps[T]) -> T:
        """Run statements in a transaction of their own."""
        with self._own() as cursor:
            return self._run(cursor, steps)

    def write_steps(self, rows: Sequence[Written]) -> Steps[list[int]]:
        """Return what writes messages."""
        return self._write(rows)

    def write(self, rows: Sequence[Written]) -> list[int]:
        with self._own() as cursor:
            return self._run(cursor, self._write(rows))

    def retract(self, message: int) -> bool:
        with self._own() as cursor:
            return self._run(cursor, self._retract(message))

    def join(self, join: NewJoin) -> int:
        with self._own() as cursor:
            return self._run(cursor, self._join(join))

    def attach(self, join: int, messages: list[int]) -> None:
        with self._own() as cursor:
            self._run(cursor, self._attach(join, messages))

    def cancel_join(self, join: int) -> bool:
        with self._own() as cursor:
            return self._run(cursor, self._cancel_join(join))

    def joins(self, after: int, limit: int) -> list[Row]:
        return self._one("joins", {"after": after, "limit": limit}, writes=False)

    def together(self) -> AbstractContextManager[object]:
        return self._own()

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
        # It waits for no disk, for the same reason as a claim in PostgreSQL.
        with self._own(durable=False) as cursor:
            rows = self._claim(cursor, given)
            state = cursor.execute(self._sql["subscribers_version"], self._timed({})).fetchone()
            version, overdue, paused = state
            if overdue:
                self._run(cursor, self._expire())
                given["limit"] = limit - len(rows)
                rows += self._claim(cursor, given)
            if paused:
                cursor.execute(
                    self._sql["set_aside"], self._timed({"limit": limit + _BEHIND})
                ).fetchall()
        return Claimed(version, whole(rows, owner, lease))

    def _claim(self, cursor: sqlite3.Cursor, given: Mapping[str, Any]) -> list[Row]:
        now = self._timed({**given, "more": 1})
        rows = cursor.execute(self._sql["claimable"], now).fetchall()
        if rows:
            ids = json.dumps([row[0] for row in rows])
            cursor.execute(self._sql["claim"], {**now, "ids": ids})
        return rows

    def peek(self, limit: int) -> list[Row]:
        given = {"limit": limit, "skip": int(self._settings.skip), "without": None, "by": None}
        return urgent_first(self._one("peek", given, writes=False))

    def ack(self, receipts: Sequence[Receipt]) -> list[int]:
        with self._own() as cursor:
            return self._run(cursor, self._end(receipts))

    def abandon(self, given: Sequence[tuple[int, int, int, int, str | None]]) -> list[int]:
        return self._ids("abandon", as_json(given))

    def fail(self, given: Sequence[tuple[int, int, int, str]]) -> list[int]:
        with self._own() as cursor:
            return self._run(cursor, self._die("fail", as_json(given)))

    def divide(self, given: Sequence[Division]) -> list[int]:
        with self._own() as cursor:
            return self._run(cursor, self._die("divide", as_json(divisions(given))))

    def release(self, receipts: Sequence[Receipt]) -> list[int]:
        return self._ids("release", as_json(receipts))

    def extend(self, receipts: Sequence[Receipt], lease: int) -> list[int]:
        return self._ids("extend", {**as_json(receipts), "lease": lease})

    def reap(self, *, leases: bool = True) -> Reaped:
        with self._own() as cursor:
            at = self._timed({})
            over = cursor.execute(self._sql["reap_leases"], at).rowcount if leases else 0
            expired = len(self._run(cursor, self._die("reap_expired", at)))
            self._run(cursor, self._expire())
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
            cursor.execute(self._sql["wait_no_more"], self._timed(given))
            return gone > 0

    def subscriptions(self) -> tuple[int, list[tuple[str, str, int]]]:
        with self._own(writes=False) as cursor:
            version = cursor.execute(self._sql["subscribers_version"], self._timed({})).fetchone()
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
        given = self._timed({**which.given(READY, limit), "error": error})
        with self._own() as cursor:
            return len(self._run(cursor, self._die("cancel", given)))

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

    def tenants(self) -> list[str]:
        return [row[0] for row in self._one("tenants", {}, writes=False)]

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
        return self.line.listen(heard)

    def rest(self) -> None:
        self.line.rest()

    def close(self) -> None:
        if self._settings.tenant is None:
            self._common.close()
