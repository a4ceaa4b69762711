"""What is written over a connection to SQLite: the caller's, or the store's own.

It is a generator of statements, so that `sqlite3` and `aiosqlite` run the same.
"""

from __future__ import annotations

import functools
import json
import sqlite3
import time
from collections import Counter
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from anabranch._outbox.draft import Alike, digest
from anabranch._outbox.inline_steps import LEASE, OfTenant
from anabranch._outbox.members import check_members, members_of, sorted_members
from anabranch._outbox.store import COLUMNS, check_duplicate, held_alike, whole
from anabranch.errors import ConfigError, SchemaMismatch, refused

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence

    from anabranch._outbox.members import NewJoin
    from anabranch._outbox.outcomes import Outcomes
    from anabranch._outbox.store import Division, Receipt, Row, Settings, Wanted, Written

T = TypeVar("T")
# One statement and its parameters, many times over if they are a list; sent back: its rows, or
# that of the row it has inserted, if the parameters are a tuple.
Steps: TypeAlias = "Generator[tuple[str, Any], list[Any], T]"


# How many messages one statement writes: SQLite may take 999 parameters.
_AT_ONCE: Final = 100

_columns: Callable[[Any], tuple[Any, ...]] = itemgetter(*COLUMNS[:10])


class SqliteWriting(OfTenant):
    """The part of a store in SQLite that works over any connection."""

    label: str
    _settings: Settings
    _sql: Mapping[str, str]
    _needed: int

    def write_over(self, connection: object, rows: Sequence[Written]) -> object:
        """Write over a caller's connection: ids, or a coroutine of them if it is awaited."""
        if len(rows) == 1 and isinstance(connection, sqlite3.Connection) and rows[0]["plain"]:
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

    def _over(self, connection: object, steps: Steps[T]) -> T | Coroutine[Any, Any, T]:
        steps = self.of_tenant(steps)
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
            return run(cursor, steps)
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
                if is_many(given):
                    await cursor.executemany(sql, given)
                else:
                    await cursor.execute(sql, given)
                    rows = list(await cursor.fetchall())
                    if isinstance(given, tuple):
                        rows = [(cursor.lastrowid,)]
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

    def _write(self, rows: Sequence[Written]) -> Steps[list[int]]:
        if isinstance(rows, Alike):
            ids = yield from self._write_alike(rows)
            return ids
        ids = yield from self._write_all(rows)
        for join, members in members_of(rows, ids).items():
            yield from self._attach(join, members)
        return ids

    def _write_all(self, rows: Sequence[Written]) -> Steps[list[int]]:
        if len(rows) > 1 and not any(row["dedupe_key"] for row in rows):
            now = _now()
            yield self._sql["enqueue"], [_values(row, now) for row in rows]
            # Nobody else writes meanwhile, so their ids follow each other.
            found = yield self._sql["last_id"], {}
            last: int = found[0][0]
            return list(range(last - len(rows) + 1, last + 1))
        ids: list[int] = []
        for row in rows:
            message = yield from self._write_one(row)
            ids.append(message)
        return ids

    def _write_alike(self, rows: Alike) -> Steps[list[int]]:
        row, now = rows.common, _now()
        last = 0
        for at in range(0, len(rows), _AT_ONCE):
            bodies = rows.bodies[at : at + _AT_ONCE]
            common = (row["topic"], row["format"], row["priority"], row["tenant"], now, now)
            sql = several(self._sql["enqueue_alike"], len(bodies))
            found = yield sql, (*common, *bodies)
            last = found[0][0]
        return list(range(last - len(rows) + 1, last + 1))

    def _write_plain(self, connection: sqlite3.Connection, row: Written) -> int | None:
        # What most who enqueue do: by way of the steps it takes twice as long.
        self._check_transaction(connection)
        try:
            return connection.execute(self._sql["enqueue_plain"], _plain(row)).lastrowid
        except sqlite3.OperationalError as error:
            raise self._explained(error) from error

    def _write_one(self, row: Written) -> Steps[int]:
        key = row["dedupe_key"]
        said = b""
        if key is not None:
            said = digest(row)
            whose = {"dedupe_key": key, "tenant": row["tenant"]}
            yield self._sql["dedupe_drop_old"], timed(whose)
            found = yield self._sql["dedupe_find"], whose
            if found:
                known: int = found[0][0]
                check_duplicate(self.label, key, known, same=found[0][1] == said)
                return known
        if row["plain"]:
            found = yield self._sql["enqueue_plain"], _plain(row)
        else:
            found = yield self._sql["enqueue"], _values(row, _now())
        message: int = found[0][0]
        if key is not None:
            kept = {
                "dedupe_key": key,
                "tenant": row["tenant"],
                "digest": said,
                "message_id": message,
                "dedupe_for": self._settings.dedupe_for,
            }
            yield self._sql["dedupe_keep"], timed(kept)
        return message

    def _retract(self, message: int) -> Steps[bool]:
        gone = yield self._sql["retract"], timed({"id": message})
        if gone:
            # Its key goes with it: whoever enqueues it again means it.
            yield self._sql["dedupe_forget"], {"id": message, "dedupe_key": gone[0][1]}
            yield from self._tally(gone[0][2], 0, 1)
        return bool(gone)

    def _see(self, key: str, keep: int) -> Steps[bool]:
        noted = yield self._sql["inbox_see"], timed({"key": key, "keep": keep})
        return not noted

    def _end(self, receipts: Sequence[Receipt]) -> Steps[list[int]]:
        name = "ack_archive" if self._settings.archive else "ack_delete"
        ended: list[int] = []
        for owner, claims, ids in held_alike(receipts):
            given = {"owner": owner, "claims": claims, "ids": json.dumps(ids)}
            ended += yield from self._gone(name, timed(given))
        return sorted(ended)

    def _gone(self, name: str, given: Mapping[str, Any]) -> Steps[list[int]]:
        """Run what ends messages well, and count them, by topic and for joins."""
        ended = yield self._sql[name], given
        counts = Counter((row[1], row[3] or "") for row in ended)
        if counts:
            yield (
                self._sql["count_done"],
                [
                    {"topic": topic, "tenant": tenant, "count": count}
                    for (topic, tenant), count in counts.items()
                ],
            )
        for join, count in sorted(Counter(row[2] for row in ended if row[2]).items()):
            yield from self._tally(join, count, 0)
        return sorted(row[0] for row in ended)

    def _die(self, name: str, given: Mapping[str, Any]) -> Steps[list[int]]:
        """Run what may make messages dead, and count those that are members of joins."""
        dead = yield self._sql[name], given
        for join, count in sorted(Counter(row[1] for row in dead if row[1]).items()):
            yield from self._tally(join, 0, count)
        return sorted(row[0] for row in dead)

    # Within a caller's transaction, as `PostgresInline` tells. One writes at a time: nothing is
    # locked but the file.

    def take(self, limit: int, wanted: Wanted) -> Steps[tuple[int, bool, list[Row]]]:
        yield self._sql["inline_begin"], {}
        given = {"limit": limit, "skip": int(self._settings.skip), "more": 0, **wanted.columns()}
        rows = yield self._sql["claimable"], timed(given)
        [(version, overdue, _)] = yield self._sql["subscribers_version"], timed({})
        if overdue:
            yield from self._expire()
        return version, bool(overdue), whole(rows)

    def finish(self, ids: Sequence[int]) -> Steps[list[int]]:
        name = "inline_archive" if self._settings.archive else "inline_delete"
        ended = yield from self._gone(name, timed({"ids": json.dumps(ids)}))
        return ended

    def hold(self, message: int, claims: int, owner: int) -> Steps[Row | None]:
        given = {"id": message, "claims": claims, "owner": owner, "lease": LEASE}
        rows = yield self._sql["inline_hold"], timed(given)
        return rows[0] if rows else None

    def put(self, outcomes: Outcomes) -> Steps[int]:
        ended: list[Any] = []
        if outcomes.acks:
            ended += yield from self._end(outcomes.acks)
        if outcomes.dead:
            ended += yield from self._die("fail", as_json(outcomes.dead))
        if outcomes.divided:
            ended += yield from self._die("divide", as_json(divisions(outcomes.divided)))
        for name, each in (("abandon", outcomes.again), ("release", outcomes.releases)):
            if each:
                ended += yield self._sql[name], as_json(each)
        return len(ended)

    # Joins.

    def _join(self, join: NewJoin) -> Steps[int]:
        [(id_,)] = yield self._sql["join_create"], timed(join.columns())
        for follow in join.follows(id_):
            yield self._sql["join_follow"], follow
        written: int = id_
        return written

    def _attach(self, join: int, messages: list[int]) -> Steps[None]:
        known = yield self._sql["join_known"], {"join": join}
        states = yield self._sql["join_states"], {"ids": json.dumps(messages)}
        check_members(self.label, join, known, messages, states)
        new = yield self._sql["join_members"], {"join": join, "ids": json.dumps(messages)}
        came = sorted_members(self.label, join, known, [row[0] for row in new], states)
        if came.open:
            yield self._sql["join_mark"], {"join": join, "ids": json.dumps(came.open)}
        yield from self._tally(join, came.done, came.failed)

    def _tally(self, join: int | None, done: int, failed: int) -> Steps[None]:
        """Count members that have ended, and let follow what follows."""
        before = yield self._sql["join_state"], {"join": join}
        if not before:
            return
        given = timed({"join": join, "done": done, "failed": failed})
        [(state,)] = yield self._sql["join_tally"], given
        if state and not before[0][0]:
            outcome = 1 if state == 1 else 2
            yield self._sql["join_followed"], {**given, "outcome": outcome}

    def _expire(self) -> Steps[None]:
        for (join,) in (yield self._sql["join_overdue"], timed({})):
            yield from self._tally(join, 0, 0)

    def _cancel_join(self, join: int) -> Steps[bool]:
        cancelled = yield self._sql["join_cancel"], timed({"join": join})
        return bool(cancelled)


@functools.cache
def several(sql: str, count: int) -> str:
    """Return a statement that takes so many bodies: each statement costs as much as some rows."""
    return sql.format(bodies=", ".join(["(?)"] * count))


def _plain(row: Written) -> tuple[Any, ...]:
    """Return what a row of the table begins with that says no more."""
    now = _now()
    return row["topic"], row["body"], row["format"], row["priority"], row["tenant"], now, now


def _values(row: Written, now: int) -> tuple[Any, ...]:
    """Return what a row of the table begins with, in the order of its columns."""
    due, ttl = row["due"], row["ttl"]
    return (
        *_columns(row),
        now,
        now + row["delay"] if due is None else due,
        None if ttl is None else now + ttl,
    )


def _now() -> int:
    return round(time.time() * 1000)


def timed(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters with the time."""
    return {**given, "now": _now()}


def run(cursor: sqlite3.Cursor, steps: Steps[T]) -> T:
    """Execute statements one after the other."""
    rows: list[Any] = []
    try:
        sql, given = next(steps)
        while True:
            if is_many(given):
                cursor.executemany(sql, given)
            else:
                rows = cursor.execute(sql, given).fetchall()
                if isinstance(given, tuple):
                    rows = [(cursor.lastrowid,)]
            sql, given = steps.send(rows)
    except StopIteration as end:
        result: T = end.value
        return result


def is_many(given: object) -> bool:
    """Whether a statement is to be executed many times over."""
    return isinstance(given, list)


def divisions(given: Sequence[Division]) -> list[Sequence[Any]]:
    """Return divisions as the statement takes them."""
    return [
        (*one[:4], None if one[4] is None else json.dumps(one[4]), *one[5:7], int(one[7]))
        for one in given
    ]


def as_json(receipts: Sequence[Sequence[Any]]) -> dict[str, str | int]:
    """Return receipts as statements take them."""
    return {"given": json.dumps(receipts), "now": _now()}
