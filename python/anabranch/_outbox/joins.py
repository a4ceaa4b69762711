"""Joins: a message that follows when enough others have ended."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, cast, overload

from anabranch._outbox.draft import Draft, milliseconds
from anabranch._outbox.members import NewJoin
from anabranch._outbox.memory import MemoryStore
from anabranch._outbox.message import Message
from anabranch.errors import refused

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from datetime import timedelta

    from anabranch._outbox.connections import Asyncpg, Awaited, Blocking
    from anabranch._outbox.memory import Transaction
    from anabranch._outbox.postgres import PostgresStore
    from anabranch._outbox.sqlite import SqliteStore
    from anabranch._outbox.store import Row

    Seconds: TypeAlias = float | timedelta

_STATUSES = ("open", "done", "failed", "expired", "cancelled")
_MOST_MEMBERS = 1_000_000
_MOST_AT_ONCE = 100_000


class Join(NamedTuple):
    """A join, as it was when it was read.

    Attributes:
        id: Its number, as `Outbox.join` gave it.
        status: "open"; "done": enough members have ended well; "failed": too many have not;
            "expired": its time was over before; "cancelled".
        expected: How many members it is to have.
        quorum: How many of them complete it.
        tolerates: Whether members that are dead complete it like those that are done.
        attached: How many members it has.
        done: How many of them are done.
        failed: How many are dead, or were retracted.
        deadline: When it is over; None: never.
        ended_at: When it ended; None: it is open.
    """

    id: int
    status: Literal["open", "done", "failed", "expired", "cancelled"]
    expected: int
    quorum: int
    tolerates: bool
    attached: int
    done: int
    failed: int
    deadline: datetime | None
    ended_at: datetime | None


class Joining:
    """The part of an outbox that lets messages follow others."""

    _here: SqliteStore | PostgresStore | MemoryStore
    _written: Callable[[Draft], dict[str, Any]]

    @overload
    def join(
        self,
        conn: Awaited | Asyncpg,
        /,
        *,
        expected: int,
        then: Draft,
        otherwise: Draft | None = None,
        quorum: int | None = None,
        deadline: Seconds | None = None,
        failures: Literal["fail", "tolerate"] = "fail",
    ) -> Coroutine[Any, Any, int]: ...
    @overload
    def join(
        self,
        conn: Blocking | Transaction | None = None,
        /,
        *,
        expected: int,
        then: Draft,
        otherwise: Draft | None = None,
        quorum: int | None = None,
        deadline: Seconds | None = None,
        failures: Literal["fail", "tolerate"] = "fail",
    ) -> int: ...
    def join(
        self,
        conn: Any = None,
        /,
        *,
        expected: int,
        then: Draft,
        otherwise: Draft | None = None,
        quorum: int | None = None,
        deadline: Seconds | None = None,
        failures: Literal["fail", "tolerate"] = "fail",
    ) -> Any:
        """Make a join: a message that is enqueued when several others have ended.

        The others are its members: `Draft(…, join=join)`, in the same transaction or later, or
        `attach`. Each is counted once, in the transaction that ends it; the message that follows is
        enqueued in the transaction that completes the join, once, be that after seconds or days.

        Args:
            conn: A connection, as for `enqueue`; None: it is durable when this returns. Over one
                that is awaited, await the result.
            expected: How many members it will have.
            then: What is enqueued when it is complete.
            otherwise: What is enqueued instead when it has failed, or its time is over.
            quorum: How many members complete it; None: all.
            deadline: After how many seconds it is over; None: never.
            failures: What a member that is dead, or was retracted, is: "fail": it does not count,
                and when a quorum is out of reach the join has failed; "tolerate": it counts like
                one that is done. One that is requeued is not counted again.

        Returns:
            The join's id, for the members.

        Raises:
            ConfigError: As for `enqueue`.
            SchemaMismatch: As for `enqueue`.
            StoreUnavailable: As for `enqueue`.

        Example:
            >>> import anabranch as ab
            >>> outbox = ab.Outbox.memory()
            >>> with outbox.transaction() as tx:
            ...     join = outbox.join(tx, expected=2, then=ab.Draft("order.ready", {"id": 7}))
            ...     _ = outbox.enqueue_many(
            ...         tx, [ab.Draft(topic, {"id": 7}, join=join) for topic in ("pick", "bill")]
            ...     )
            >>> for _ in range(3):
            ...     [message, *_] = outbox.claim(1)
            ...     print(message.topic, outbox.ack(message))
            pick 1
            bill 1
            order.ready 1
        """
        new = NewJoin(
            _count("expected", expected, _MOST_MEMBERS),
            expected if quorum is None else _count("quorum", quorum, expected),
            _tolerates(failures),
            None
            if deadline is None
            else milliseconds("deadline", deadline, subject="join", positive=True),
            self._written(_follow("then", then)),
            None if otherwise is None else self._written(_follow("otherwise", otherwise)),
        )
        if conn is None:
            return self._here.join(new)
        if isinstance(self._here, MemoryStore):
            return self._here.check_own(conn, "join").join(new)
        return self._here.join_over(conn, new)

    @overload
    def attach(
        self, conn: Awaited | Asyncpg, join: int, messages: int | Iterable[int], /
    ) -> Coroutine[Any, Any, None]: ...
    @overload
    def attach(
        self, conn: Blocking | Transaction, join: int, messages: int | Iterable[int], /
    ) -> None: ...
    @overload
    def attach(self, join: int, messages: int | Iterable[int], /) -> None: ...
    def attach(self, *given: Any) -> Any:
        """Make messages that are enqueued already members of a join.

        One that has ended meanwhile is counted at once; one that is a member already is not
        counted again.

        Args:
            given: A connection, if wanted, as for `enqueue`. Then the join, and a message's id or
                several.

        Raises:
            ConfigError: There is no such join or message, it has another join, or the join has all
                its members.
            SchemaMismatch: As for `enqueue`.
            StoreUnavailable: As for `enqueue`.
        """
        if len(given) not in (2, 3):
            raise TypeError("attach() takes (conn, join, messages) or (join, messages)")
        join = _id("join", given[-2], "attach")
        several = [given[-1]] if isinstance(given[-1], int) else list(given[-1])
        messages = sorted({_id("messages", message, "attach") for message in several})
        if len(given) == 2:  # noqa: PLR2004 - no connection
            self._here.attach(join, messages)
            return None
        if isinstance(self._here, MemoryStore):
            self._here.check_own(given[0], "attach").attach(join, messages)
            return None
        return self._here.attach_over(given[0], join, messages)

    @overload
    def cancel_join(self, conn: Awaited | Asyncpg, join: int, /) -> Coroutine[Any, Any, bool]: ...
    @overload
    def cancel_join(self, conn: Blocking | Transaction, join: int, /) -> bool: ...
    @overload
    def cancel_join(self, join: int, /) -> bool: ...
    def cancel_join(self, *given: Any) -> Any:
        """End a join: nothing follows. Its members are handled all the same.

        Args:
            given: A connection, if wanted, as for `enqueue`. Then the join.

        Returns:
            True if it was open.

        Raises:
            ConfigError: An argument is not allowed.
            SchemaMismatch: As for `enqueue`.
            StoreUnavailable: As for `enqueue`.
        """
        if len(given) not in (1, 2):
            raise TypeError("cancel_join() takes (conn, join) or (join)")
        join = _id("join", given[-1], "cancel_join")
        if len(given) == 1:
            return self._here.cancel_join(join)
        if isinstance(self._here, MemoryStore):
            return self._here.check_own(given[0], "cancel_join").cancel_join(join)
        return self._here.cancel_join_over(given[0], join)

    def joins(self, *, after: int = 0, limit: int = 100) -> list[Join]:
        """List joins in the order of their ids. One that has ended is forgotten after a week.

        Args:
            after: Only those with a higher id: the last one of the page before.
            limit: How many at most.

        Raises:
            ConfigError: An argument is not allowed.
            SchemaMismatch: The tables are missing, or of another version.
            StoreUnavailable: The database cannot be reached, or refuses.
        """
        if type(limit) is not int or not 1 <= limit <= _MOST_AT_ONCE:
            allowed = f"an int from 1 to {_MOST_AT_ONCE:_}"
            raise refused("limit", limit, allowed, subject="joins")
        return [_read(row) for row in self._here.joins(after, limit)]


def _count(argument: str, value: object, most: int) -> int:
    if type(value) is not int or not 1 <= value <= most:
        raise refused(argument, value, f"an int from 1 to {most:_}", subject="join")
    return value


def _id(argument: str, value: object, subject: str) -> int:
    known = value.id if isinstance(value, Message) else value
    if type(known) is not int or known < 1:
        what = "a join's id, an int" if argument == "join" else "messages or their ids"
        raise refused(argument, value, what, subject=subject)
    return known


def _tolerates(failures: object) -> bool:
    if failures not in ("fail", "tolerate"):
        raise refused("failures", failures, "'fail' or 'tolerate'", subject="join")
    return failures == "tolerate"


def _follow(argument: str, draft: object) -> Draft:
    if not isinstance(draft, Draft) or draft.dedupe_key is not None or draft.join is not None:
        allowed = "an ab.Draft without dedupe_key and join: it is enqueued once"
        raise refused(argument, draft, allowed, subject="join")
    return draft


def _read(row: Row) -> Join:
    id_, expected, quorum, tolerates, attached, done, failed, state, deadline, ended_at = row
    return Join(
        id_,
        cast("Any", _STATUSES[state]),
        expected,
        quorum,
        bool(tolerates),
        attached,
        done,
        failed,
        _time(deadline),
        _time(ended_at),
    )


def _time(at: int | None) -> datetime | None:
    return None if at is None else datetime.fromtimestamp(at / 1000, tz=UTC)
