"""The store in SQLite: the SQL, run through the interpreter's own `sqlite3`.

Two copies of SQLite in one process drop each other's locks on a file, and the caller's connection
is of this one. What is written over a caller's connection is a generator of statements, so that
`sqlite3` and `aiosqlite` run the same.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from anabranch import _core
from anabranch._outbox_draft import digest
from anabranch._outbox_store import Reaped, check_duplicate
from anabranch.errors import (
    ClosedError,
    ConfigError,
    ForkedProcessError,
    SchemaMismatch,
    StoreUnavailable,
    refused,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator, Mapping, Sequence

    from anabranch._outbox_store import Receipt, Row, Settings, Written

T = TypeVar("T")
# One statement and its parameters, many times over if they are a list; sent back: its rows.
Steps: TypeAlias = "Generator[tuple[str, Any], list[Any], T]"

_OLDEST = (3, 35, 0)
# Seconds to wait for another writer.
_PATIENCE: Final = 5.0


class SqliteStore:
    """The messages in one file."""

    def __init__(self, path: str, settings: Settings) -> None:
        if sqlite3.sqlite_version_info < _OLDEST:
            raise ConfigError(
                f"this Python's SQLite is {sqlite3.sqlite_version}; an outbox needs 3.35 or later"
            )
        self.label = f"sqlite:///{path}"
        self._path = path
        self._settings = settings
        self._migrations, self._sql = _core.outbox_sql("sqlite", settings.prefix)
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._checked = False
        self._pid = 0
        self._closed = False

    # -- the caller's connection

    def write_over(self, connection: object, rows: Sequence[Written]) -> object:
        """Write over a caller's connection: ids, or a coroutine of them if it is awaited."""
        return self._over(connection, self._write(rows))

    def retract_over(self, connection: object, message: int) -> object:
        """Take a message back over a caller's connection."""
        return self._over(connection, self._retract(message))

    def _over(self, connection: object, steps: Steps[T]) -> T | Coroutine[Any, Any, T]:
        if isinstance(connection, sqlite3.Connection):
            self._check_transaction(connection)
            return self._run_over(connection, steps)
        if any(kind.__module__.split(".")[0] == "aiosqlite" for kind in type(connection).__mro__):
            return self._await_over(connection, steps)
        allowed = f"a connection of sqlite3 or aiosqlite, to the database of {self.label}"
        raise refused("conn", connection, allowed, subject="enqueue")

    def _run_over(self, connection: sqlite3.Connection, steps: Steps[T]) -> T:
        cursor = connection.cursor()
        cursor.row_factory = None
        try:
            return _run(cursor, steps)
        except sqlite3.OperationalError as error:
            raise self._explained(error) from error
        finally:
            cursor.close()

    async def _await_over(self, connection: Any, steps: Steps[T]) -> T:  # noqa: ANN401 - aiosqlite may be missing
        self._check_transaction(connection)
        cursor = await connection.cursor()
        cursor.row_factory = None
        try:
            rows: list[Any] = []
            sql, given = next(steps)
            while True:
                if _is_many(given):
                    await cursor.executemany(sql, given)
                else:
                    await cursor.execute(sql, given)
                    rows = list(await cursor.fetchall())
                sql, given = steps.send(rows)
        except StopIteration as end:
            result: T = end.value
            return result
        except sqlite3.OperationalError as error:
            raise self._explained(error) from error
        finally:
            await cursor.close()

    def _check_transaction(self, connection: Any) -> None:  # noqa: ANN401 - of either driver
        # `autocommit` is there since Python 3.12; -1 is the way of before.
        begins = getattr(connection, "autocommit", -1)
        by_itself = connection.isolation_level is not None if begins == -1 else not begins
        if not by_itself and not connection.in_transaction:
            raise ConfigError(
                f"outbox {self.label}: the connection is in autocommit mode and no transaction is "
                "open: execute 'BEGIN' first, or enqueue without a connection",
                argument="conn",
                value=connection,
            )

    def _explained(self, error: sqlite3.OperationalError) -> Exception:
        """Say what to raise: the caller's own error, unless the tables are missing."""
        if f"no such table: {self._settings.prefix}" in str(error):
            return SchemaMismatch(
                f"outbox {self.label}: the connection's database has no outbox tables: call "
                "outbox.migrate() once, and enqueue over a connection to the same file",
                store=self.label,
                found=0,
                needed=self._needed,
            )
        return error

    # -- what is written

    def _write(self, rows: Sequence[Written]) -> Steps[list[int]]:
        if len(rows) > 1 and not any(row["dedupe_key"] for row in rows):
            yield self._sql["enqueue_many"], rows if isinstance(rows, list) else list(rows)
            # Nobody else writes meanwhile, so their ids follow each other.
            found = yield self._sql["last_id"], {}
            last: int = found[0][0]
            return list(range(last - len(rows) + 1, last + 1))
        ids: list[int] = []
        for row in rows:
            message = yield from self._write_one(row)
            ids.append(message)
        return ids

    def _write_one(self, row: Written) -> Steps[int]:
        key = row["dedupe_key"]
        said = b""
        if key is not None:
            said = digest(row)
            yield self._sql["dedupe_drop_old"], {"dedupe_key": key}
            found = yield self._sql["dedupe_find"], {"dedupe_key": key}
            if found:
                known: int = found[0][0]
                check_duplicate(self.label, key, known, same=found[0][1] == said)
                return known
        found = yield self._sql["enqueue"], row
        message: int = found[0][0]
        if key is not None:
            kept = {
                "dedupe_key": key,
                "digest": said,
                "message_id": message,
                "dedupe_for": self._settings.dedupe_for,
            }
            yield self._sql["dedupe_keep"], kept
        return message

    def _retract(self, message: int) -> Steps[bool]:
        gone = yield self._sql["retract"], {"id": message}
        if gone:
            # Its key goes with it: whoever enqueues it again means it.
            yield self._sql["dedupe_forget"], {"id": message, "dedupe_key": gone[0][1]}
        return bool(gone)

    def _end(self, receipts: Sequence[Receipt]) -> Steps[list[int]]:
        name = "ack_archive" if self._settings.archive else "ack_delete"
        ended = yield self._sql[name], _given(receipts)
        counts: dict[str, int] = {}
        for _, topic in ended:
            counts[topic] = counts.get(topic, 0) + 1
        if counts:
            yield (
                self._sql["count_done"],
                [{"topic": topic, "count": count} for topic, count in counts.items()],
            )
        return sorted(row[0] for row in ended)

    # -- this store's own connection

    def migrate(self) -> int:
        with self._own(checked=False) as cursor:
            found = self._version(cursor)
            if found is None or found > self._needed:
                raise self._mismatch(found)
            for version, statements in self._migrations:
                if version > found:
                    for statement in statements:
                        cursor.execute(statement)
                    cursor.execute(self._sql["set_version"], {"version": version})
            return self._needed - found

    @property
    def _needed(self) -> int:
        return self._migrations[-1][0]

    def _version(self, cursor: sqlite3.Cursor) -> int | None:
        if not cursor.execute(self._sql["has_meta"]).fetchall():
            return 0
        found = cursor.execute(self._sql["version"]).fetchone()
        return None if found is None else int(found[0])

    def _mismatch(self, found: int | None) -> SchemaMismatch:
        if found is not None and found < self._needed:
            what = "there are no outbox tables" if found == 0 else f"the tables are version {found}"
            advice = f"this anabranch needs version {self._needed}: call outbox.migrate() once"
        else:
            what = f"the tables are version {'unknown' if found is None else found}"
            advice = f"this anabranch knows version {self._needed}: install the later anabranch"
        return SchemaMismatch(
            f"outbox {self.label}: {what}; {advice}",
            store=self.label,
            found=found,
            needed=self._needed,
        )

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
                raise self._mismatch(found)
            self._checked = True
        return self._connection

    def _unavailable(self, error: sqlite3.Error) -> StoreUnavailable:
        text = str(error)
        if "unable to open" in text:
            advice = "check the path; outbox.migrate() creates the file, in a folder that exists"
        elif "locked" in text or "busy" in text:
            advice = f"another writer held the file for {_PATIENCE:g} s: keep transactions short"
        elif "readonly" in text:
            advice = "this user may not write to the file, or to its folder"
        elif "full" in text:
            advice = "free some space; nothing of this call was written"
        else:
            advice = "nothing of this call was written"
        return StoreUnavailable(f"outbox {self.label}: {text}; {advice}", store=self.label)

    def _one(self, name: str, given: Mapping[str, Any], *, writes: bool = True) -> list[Any]:
        with self._own(writes=writes) as cursor:
            return cursor.execute(self._sql[name], given).fetchall()

    def _ids(self, name: str, given: Mapping[str, Any]) -> list[int]:
        return sorted(row[0] for row in self._one(name, given))

    def write(self, rows: Sequence[Written]) -> list[int]:
        with self._own() as cursor:
            return _run(cursor, self._write(rows))

    def retract(self, message: int) -> bool:
        with self._own() as cursor:
            return _run(cursor, self._retract(message))

    def owner(self) -> int:
        number: int = self._one("owner", {})[0][0]
        return number

    def claim(self, owner: int, limit: int, lease: int) -> list[Row]:
        skip = int(self._settings.skip)
        given = {"owner": owner, "limit": limit, "lease": lease, "skip": skip}
        return _urgent_first(self._one("claim", given))

    def peek(self, limit: int) -> list[Row]:
        given = {"limit": limit, "skip": int(self._settings.skip)}
        return _urgent_first(self._one("peek", given, writes=False))

    def ack(self, receipts: Sequence[Receipt]) -> list[int]:
        with self._own() as cursor:
            return _run(cursor, self._end(receipts))

    def abandon(self, given: Sequence[tuple[int, int, int, int, str | None]]) -> list[int]:
        return self._ids("abandon", _given(given))

    def fail(self, given: Sequence[tuple[int, int, int, str]]) -> list[int]:
        return self._ids("fail", _given(given))

    def release(self, receipts: Sequence[Receipt]) -> list[int]:
        return self._ids("release", _given(receipts))

    def extend(self, receipts: Sequence[Receipt], lease: int) -> list[int]:
        return self._ids("extend", {**_given(receipts), "lease": lease})

    def reap(self) -> Reaped:
        with self._own() as cursor:
            leases = cursor.execute(self._sql["reap_leases"]).rowcount
            expired = cursor.execute(self._sql["reap_expired"]).rowcount
            cursor.execute(self._sql["reap_dedupes"])
            return Reaped(leases, expired)

    def rows(self, *, status: str | None, topic: str | None, after: int, limit: int) -> list[Row]:
        given = {"status": status, "topic": topic, "after": after, "limit": limit}
        return self._one("list", given, writes=False)

    def counts(self) -> list[tuple[str, str, int]]:
        return self._one("counts", {}, writes=False)

    def requeue(self, *, ids: list[int] | None, topic: str | None) -> int:
        given = {"ids": None if ids is None else json.dumps(ids), "topic": topic}
        with self._own() as cursor:
            return cursor.execute(self._sql["requeue"], given).rowcount

    def purge(self, *, status: str, topic: str | None, older_than: int, limit: int) -> int:
        state = {"dead": 1, "done": 2}[status]
        given = {"state": state, "topic": topic, "older_than": older_than, "limit": limit}
        with self._own() as cursor:
            return cursor.execute(self._sql["purge"], given).rowcount

    def close(self) -> None:
        with self._lock:
            self._closed = True
            connection, self._connection = self._connection, None
            if connection is not None and self._pid == os.getpid():
                connection.close()


def _run(cursor: sqlite3.Cursor, steps: Steps[T]) -> T:
    rows: list[Any] = []
    try:
        sql, given = next(steps)
        while True:
            if _is_many(given):
                cursor.executemany(sql, given)
            else:
                rows = cursor.execute(sql, given).fetchall()
            sql, given = steps.send(rows)
    except StopIteration as end:
        result: T = end.value
        return result


def _is_many(given: object) -> bool:
    return isinstance(given, list)


def _given(receipts: Sequence[Sequence[Any]]) -> dict[str, str]:
    return {"given": json.dumps(receipts)}


# The columns priority, due_at and id of a row; `returning` has no order of its own.
def _urgent_first(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (-row[9], row[12], row[0]))


def _quoted(path: str) -> str:
    from urllib.parse import quote

    return quote(path)
