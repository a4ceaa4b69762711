"""What is written over a caller's connection to PostgreSQL, by whatever driver made it.

It is a generator of statements; here are those who execute them: psycopg 3 (sync and async),
asyncpg, and SQLAlchemy 2 (Connection, Session, and their async kinds) over one of these.
"""

from __future__ import annotations

import functools
import json
import re
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from anabranch._outbox.draft import Alike, digest
from anabranch._outbox.inline_steps import PostgresInline
from anabranch._outbox.members import check_members, members_of, sorted_members
from anabranch._outbox.store import COLUMNS, check_duplicate
from anabranch.errors import ConfigError, RetryLater, SchemaMismatch, refused

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator, Iterable, Mapping, Sequence

    from anabranch._outbox.members import NewJoin
    from anabranch._outbox.store import Settings, Written

T = TypeVar("T")
# One statement and its parameters; sent back: its rows.
Steps: TypeAlias = "Generator[tuple[str, Mapping[str, Any]], list[Any], T]"

# Seconds until what another transaction is at work on is looked at again.
_A_MOMENT: Final = 1.0

# What every row has, so that null can mean: as in the first one.
_REQUIRED: Final = frozenset(("topic", "format", "priority", "delay"))

# libpq's names for where a transaction is.
_IDLE: Final = 0
_IN_ERROR: Final = 3

_NAMED: Final = re.compile(r"(?<![:\w]):([a-z_]+)")


@functools.cache
def by_percent(sql: str) -> str:
    """Return a statement as psycopg takes it."""
    return _NAMED.sub(r"%(\1)s", sql)


@functools.cache
def by_number(sql: str) -> tuple[str, tuple[str, ...]]:
    """Return a statement as asyncpg takes it, and its parameters in their order."""
    names: list[str] = []

    def number(found: re.Match[str]) -> str:
        if found[1] not in names:
            names.append(found[1])
        return f"${names.index(found[1]) + 1}"

    return _NAMED.sub(number, sql), tuple(names)


_DRIVERS: Final = {
    "psycopg.Connection": "psycopg",
    "psycopg.AsyncConnection": "psycopg, awaited",
    "asyncpg.Connection": "asyncpg",
    "asyncpg.PoolConnectionProxy": "asyncpg",
    "sqlalchemy.AsyncConnection": "SQLAlchemy, awaited",
    "sqlalchemy.AsyncSession": "SQLAlchemy, awaited",
    "sqlalchemy.Connection": "SQLAlchemy",
    "sqlalchemy.Session": "SQLAlchemy",
}


@functools.cache
def driver_of(kind: type) -> str | None:
    """Tell by whom a connection is, without importing anybody; None: it is of none we know."""
    names = (f"{it.__module__.split('.')[0]}.{it.__name__}" for it in kind.__mro__)
    return next((_DRIVERS[name] for name in names if name in _DRIVERS), None)


def is_psycopg(connection: object) -> bool:
    """Whether a connection is psycopg's, and not awaited."""
    kind: Any = type(connection)
    return driver_of(kind) == "psycopg"


@functools.cache
def _tuples() -> Any:  # noqa: ANN401 - psycopg's, which may be missing
    from psycopg.rows import tuple_row

    return tuple_row


class PostgresWriting(PostgresInline):
    """The part of a store in PostgreSQL that works over any connection."""

    label: str
    _settings: Settings
    _sql: Mapping[str, str]
    _needed: int

    def write_over(self, connection: object, rows: Sequence[Written]) -> object:
        """Write over a caller's connection: ids, or a coroutine of them if it is awaited."""
        if len(rows) == 1 and rows[0]["plain"] and is_psycopg(connection):
            return [self._write_plain(connection, rows[0])]
        return self._over(connection, self._write(rows))

    def retract_over(self, connection: object, message: int) -> object:
        """Take a message back over a caller's connection."""
        return self._over(connection, self._retract(message))

    def seen_over(self, connection: object, key: str, keep: int) -> object:
        """Note over a caller's connection that something is handled: whether it was before."""
        return self._over(connection, self._see(key, keep))

    def join_over(self, connection: object, join: NewJoin) -> object:
        """Write a join over a caller's connection: its id."""
        return self._over(connection, self._join(join))

    def attach_over(self, connection: object, join: int, messages: list[int]) -> object:
        """Make messages members of a join over a caller's connection."""
        return self._over(connection, self._attach(join, messages))

    def cancel_join_over(self, connection: object, join: int) -> object:
        """End a join over a caller's connection: whether it was open."""
        return self._over(connection, self._cancel_join(join))

    def over(self, connection: object, steps: Steps[T]) -> T | Coroutine[Any, Any, T]:
        """Run statements over a caller's connection."""
        return self._over(connection, steps)

    def _over(self, connection: Any, steps: Steps[T]) -> T | Coroutine[Any, Any, T]:  # noqa: ANN401 - of any driver
        steps = self.of_tenant(steps)
        driver: str | None = driver_of(connection.__class__)
        if driver == "psycopg":
            return self._over_psycopg(connection, steps)
        if driver == "psycopg, awaited":
            return self._over_psycopg_async(connection, steps)
        if driver == "asyncpg":
            return self._over_asyncpg(connection, steps)
        if driver == "SQLAlchemy, awaited":
            return self._over_alchemy_async(connection, steps)
        if driver == "SQLAlchemy":
            return self._over_alchemy(connection, steps)
        allowed = (
            "a connection of psycopg, asyncpg or SQLAlchemy, or a session of SQLAlchemy, to the "
            f"database of {self.label}"
        )
        raise refused("conn", connection, allowed, subject="enqueue")

    def _over_psycopg(self, connection: Any, steps: Steps[T]) -> T:  # noqa: ANN401 - may be missing
        self._check_psycopg(connection)
        with connection.cursor(row_factory=_tuples()) as cursor:
            try:
                return run(cursor, steps)
            except Exception as error:
                raise self._explained(error) from error

    def _write_plain(self, connection: Any, row: Written) -> int:  # noqa: ANN401 - as above
        # What most who enqueue do: by way of the steps it takes a sixth longer.
        self._check_psycopg(connection)
        with connection.cursor(row_factory=_tuples()) as cursor:
            try:
                cursor.execute(by_percent(self._sql["enqueue_plain"]), row)
                message: int = cursor.fetchone()[0]
            except Exception as error:
                raise self._explained(error) from error
        return message

    async def _over_psycopg_async(self, connection: Any, steps: Steps[T]) -> T:  # noqa: ANN401 - as above
        self._check_psycopg(connection)
        async with connection.cursor(row_factory=_tuples()) as cursor:
            try:
                sql, given = next(steps)
                while True:
                    await cursor.execute(by_percent(sql), given)
                    has_rows = cursor.pgresult.nfields > 0
                    sql, given = steps.send(await cursor.fetchall() if has_rows else [])
            except StopIteration as end:
                result: T = end.value
                return result
            except Exception as error:
                raise self._explained(error) from error

    def _check_psycopg(self, connection: Any) -> None:  # noqa: ANN401 - as above
        status: int = connection.pgconn.transaction_status
        if status == _IN_ERROR:
            raise self._aborted(connection)
        if connection.autocommit and status == _IDLE:
            raise self._autocommits(connection, "begin one: with conn.transaction():")

    async def _over_asyncpg(self, connection: Any, steps: Steps[T]) -> T:  # noqa: ANN401 - as above
        if not connection.is_in_transaction():
            raise self._autocommits(connection, "begin one: async with conn.transaction():")
        try:
            sql, given = next(steps)
            while True:
                text, names = by_number(sql)
                rows = await connection.fetch(text, *(given[name] for name in names))
                sql, given = steps.send([tuple(row) for row in rows])
        except StopIteration as end:
            result: T = end.value
            return result
        except Exception as error:
            raise self._explained(error) from error

    def _over_alchemy(self, connection: Any, steps: Steps[T]) -> T:  # noqa: ANN401 - as above
        on = connection.connection() if hasattr(connection, "get_bind") else connection
        try:
            sql, given = next(steps)
            while True:
                result = on.exec_driver_sql(*_for_alchemy(on, sql, given))
                rows = [tuple(row) for row in result] if result.returns_rows else []
                sql, given = steps.send(rows)
        except StopIteration as end:
            value: T = end.value
            return value
        except Exception as error:
            raise self._explained(error) from error

    async def _over_alchemy_async(self, connection: Any, steps: Steps[T]) -> T:  # noqa: ANN401 - as above
        session = hasattr(connection, "get_bind")
        on = await connection.connection() if session else connection

        def work(sync: Any) -> T:  # noqa: ANN401 - as above
            return self._over_alchemy(sync, steps)

        value: T = await on.run_sync(work)
        return value

    def _aborted(self, connection: object) -> ConfigError:
        return ConfigError(
            f"outbox {self.label}: the connection's transaction has failed: roll it back first",
            argument="conn",
            value=connection,
        )

    def _autocommits(self, connection: object, advice: str) -> ConfigError:
        return ConfigError(
            f"outbox {self.label}: the connection is in autocommit mode and no transaction is open"
            f": {advice}, or enqueue without a connection",
            argument="conn",
            value=connection,
        )

    def _explained(self, error: Exception) -> Exception:
        """Say what to raise: the caller's own error, unless the tables are missing."""
        cause: Any = getattr(error, "orig", None) or error
        state = getattr(cause, "sqlstate", None)
        if state == "42P01" and f"{self._settings.prefix}" in str(error):
            return SchemaMismatch(
                f"outbox {self.label}: the connection's database has no outbox tables: call "
                "outbox.migrate() once, and enqueue over a connection to the same database",
                store=self.label,
                found=0,
                needed=self._needed,
            )
        return error

    # What is written.

    def _write(self, rows: Sequence[Written]) -> Steps[list[int]]:
        if isinstance(rows, Alike):
            sizes = list(map(len, rows.bodies))
            given = {
                **rows.common,
                "body": b"".join(rows.bodies),
                "starts": _numbers(accumulate(sizes[:-1], initial=1)),
                "sizes": _numbers(sizes),
            }
            written = yield self._sql["enqueue_alike"], given
            return sorted(row[0] for row in written)
        ids = yield from self._write_all(rows)
        for join, members in members_of(rows, ids).items():
            yield from self._attach(join, members)
        return ids

    def _write_all(self, rows: Sequence[Written]) -> Steps[list[int]]:
        if len(rows) > 1 and not any(row["dedupe_key"] for row in rows):
            columns = {name: [row[name] for row in rows] for name in COLUMNS}
            written = yield self._sql["enqueue_many"], _said_once(columns)
            return [row[0] for row in written]
        ids: list[int] = []
        for row in rows:
            message = yield from self._write_one(row)
            ids.append(message)
        return ids

    def _write_one(self, row: Written) -> Steps[int]:
        key = row["dedupe_key"]
        if key is None:
            written = yield self._sql["enqueue_plain" if row["plain"] else "enqueue"], row
            plain: int = written[0][0]
            return plain
        said = digest(row)
        given = {
            "dedupe_key": key,
            "tenant": row["tenant"],
            "digest": said,
            "dedupe_for": self._settings.dedupe_for,
        }
        kept = yield self._sql["dedupe_keep"], given
        if kept:
            message: int = kept[0][0]
            yield self._sql["enqueue_kept"], {**row, "id": message}
            return message
        whose = {"dedupe_key": key, "tenant": row["tenant"]}
        found = yield self._sql["dedupe_find"], whose
        known: int = found[0][0]
        check_duplicate(self.label, key, known, same=bytes(found[0][1]) == said)
        return known

    def _retract(self, message: int) -> Steps[bool]:
        gone = yield self._sql["retract"], {"id": message}
        if gone:
            # Its key goes with it: whoever enqueues it again means it.
            yield self._sql["dedupe_forget"], {"id": message, "dedupe_key": gone[0][1]}
        return bool(gone)

    def _see(self, key: str, keep: int) -> Steps[bool]:
        [(is_free, is_new)] = yield self._sql["inbox_see"], {"key": key, "keep": keep}
        if not is_free:
            later = RetryLater(_A_MOMENT)
            later.add_note(f"outbox {self.label}: another transaction is at work on {key!r}")
            raise later
        return not is_new

    # Joins.

    def _join(self, join: NewJoin) -> Steps[int]:
        [(id_,)] = yield self._sql["join_create"], join.columns()
        for follow in join.follows(id_):
            yield self._sql["join_follow"], follow
        written: int = id_
        return written

    def _attach(self, join: int, messages: list[int]) -> Steps[None]:
        # Messages before joins, as acks lock them.
        states = yield self._sql["join_states"], {"ids": json.dumps(messages)}
        known = yield self._sql["join_known"], {"join": join}
        check_members(self.label, join, known, messages, states)
        new = yield self._sql["join_members"], {"join": join, "ids": json.dumps(messages)}
        came = sorted_members(self.label, join, known, [row[0] for row in new], states)
        if came.open:
            yield self._sql["join_mark"], {"join": join, "ids": json.dumps(came.open)}
        if came.done or came.failed:
            given = {"join": join, "done": came.done, "failed": came.failed}
            yield self._sql["join_tally"], given

    def _cancel_join(self, join: int) -> Steps[bool]:
        cancelled = yield self._sql["join_cancel"], {"join": join}
        return bool(cancelled)


def _numbers(numbers: Iterable[int]) -> str:
    """Return numbers as statements take them: drivers write arrays value by value."""
    return "{" + ",".join(map(str, numbers)) + "}"


def _said_once(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Shorten what is the same in all rows, for drivers write arrays value by value.

    The body stays as it is: it tells how many there are.
    """
    for name, column in columns.items():
        if name != "body" and column.count(column[0]) == len(column):
            # An optional column is null where it ends, as it is where nothing was said.
            columns[name] = column[:1] if column[0] is None or name in _REQUIRED else column
    return columns


def run(cursor: Any, steps: Steps[T]) -> T:  # noqa: ANN401 - psycopg's
    """Execute statements one after the other."""
    try:
        sql, given = next(steps)
        while True:
            cursor.execute(by_percent(sql), given)
            # `description` would describe each column.
            sql, given = steps.send(cursor.fetchall() if cursor.pgresult.nfields else [])
    except StopIteration as end:
        result: T = end.value
        return result


def _for_alchemy(on: Any, sql: str, given: Mapping[str, Any]) -> tuple[str, Any]:  # noqa: ANN401 - SQLAlchemy's
    if on.dialect.driver == "asyncpg":
        text, names = by_number(sql)
        return text, tuple(given[name] for name in names)
    return by_percent(sql), dict(given)
