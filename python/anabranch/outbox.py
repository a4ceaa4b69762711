"""`Outbox`: messages that are written in the caller's own transaction, and handled afterwards."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, TypeAlias, cast, overload

from anabranch import _core
from anabranch._outbox_draft import Draft, Options, milliseconds
from anabranch._outbox_memory import MemoryStore, Transaction
from anabranch._outbox_message import FailedAttempt, Message, Status
from anabranch._outbox_shown import hide, show
from anabranch._outbox_sqlite import SqliteStore
from anabranch._outbox_store import (
    Reaped,
    Settings,
    Subscription,
    check_prefix,
    described,
    matches,
)
from anabranch.errors import ConfigError, LeaseLost, refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable
    from datetime import timedelta
    from types import TracebackType
    from typing import Unpack

    from anabranch._outbox_postgres import PostgresStore
    from anabranch._outbox_store import Receipt, Store

    Seconds: TypeAlias = float | timedelta

__all__ = [
    "Draft",
    "FailedAttempt",
    "Message",
    "Outbox",
    "Reaped",
    "Status",
    "Subscription",
    "Transaction",
]

_STATUSES = ("ready", "scheduled", "leased", "dead", "done")
# How many messages one transaction purges: other writers come in between.
_CHUNK = 1000
_MOST_AT_ONCE = 100_000


class Blocking(Protocol):
    """A connection, or a session, whose methods block: of sqlite3, psycopg or SQLAlchemy."""

    def commit(self) -> None: ...


class Awaited(Protocol):
    """One whose methods are awaited: of aiosqlite, psycopg or SQLAlchemy."""

    def commit(self) -> Awaitable[None]: ...


class Asyncpg(Protocol):
    """A connection of asyncpg."""

    def is_in_transaction(self) -> bool: ...


class Outbox:
    """Messages in a database, written together with the data they tell of.

    If the transaction that enqueues a message commits, the message will be handled: at least once.
    A handler that is cut off, or whose lease is over before it has acked, is followed by another
    attempt; so what a handler does elsewhere must bear being done twice.

    Enqueue over your own connection and inside your own transaction: nothing else is written, and
    nothing is committed or rolled back for you. `claim`, `ack` and the rest are the queue itself;
    they use a connection of the outbox's own, and may be called from any thread.

    A file of SQLite is worked on with the settings it has. One that commits each message by itself
    waits for the disk each time: enqueue many in one transaction.

    Args:
        url: `postgresql://user:password@host/database`, which needs psycopg 3;
            `sqlite:///relative.db` or `sqlite:////absolute/path.db`; for one in memory there is
            `Outbox.memory`.
        prefix: What its tables' names begin with.
        ordering: What the other messages of an ordering key do while the first one waits for its
            next attempt or its due time: "block": they wait, too; "skip": the next one that is due
            goes first. A dead message holds up nobody.
        archive: Whether messages that are done are kept. They are deleted otherwise, and counted.
        dedupe_for: For how many seconds a dedupe key is remembered.
        max_payload: How many bytes a payload may have.
        expose_payloads: Whether the dashboard may show what dead letters hold.

    Raises:
        ConfigError: An argument is not allowed.

    Example:
        >>> import sqlite3
        >>> import anabranch as ab
        >>> folder = getfixture("tmp_path")
        >>> outbox = ab.Outbox(f"sqlite:///{folder}/shop.db")
        >>> outbox.migrate()
        1
        >>> conn = sqlite3.connect(folder / "shop.db")
        >>> _ = conn.execute("create table orders (id integer primary key)")
        >>> with conn:  # one transaction: the order and the message, or neither
        ...     _ = conn.execute("insert into orders (id) values (7)")
        ...     message_id = outbox.enqueue(conn, "order.created", {"id": 7})
        >>> for message in outbox.claim():
        ...     print(message.topic, message.payload)
        ...     _ = outbox.ack(message)
        order.created {'id': 7}
        >>> outbox.counts()
        {'order.created': {'done': 1}}
        >>> outbox.close(); conn.close()
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "outbox_",
        ordering: Literal["block", "skip"] = "block",
        archive: bool = False,
        dedupe_for: Seconds = 86_400.0,
        max_payload: int = 8 * 1024 * 1024,
        expose_payloads: bool = False,
    ) -> None:
        settings = _settings(prefix, ordering, archive, dedupe_for, max_payload)
        self._begin(_store(url, settings), max_payload, expose_payloads)

    @classmethod
    def memory(
        cls,
        *,
        ordering: Literal["block", "skip"] = "block",
        archive: bool = False,
        dedupe_for: Seconds = 86_400.0,
        max_payload: int = 8 * 1024 * 1024,
        expose_payloads: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """Make an outbox that lives as long as the process: for tests, and for trying things out.

        Args:
            ordering: As for any outbox, and so are the others.
            archive: Whether messages that are done are kept.
            dedupe_for: For how many seconds a dedupe key is remembered.
            max_payload: How many bytes a payload may have.
            expose_payloads: Whether the dashboard may show what dead letters hold.
            clock: Tells the time, in seconds since 1970.

        Raises:
            ConfigError: An argument is not allowed.

        Example:
            >>> import anabranch as ab
            >>> outbox = ab.Outbox.memory()
            >>> with outbox.transaction() as tx:
            ...     outbox.enqueue(tx, "order.created", {"id": 7})
            1
            >>> outbox.counts()
            {'order.created': {'ready': 1}}
        """
        outbox = cls.__new__(cls)
        settings = _settings("outbox_", ordering, archive, dedupe_for, max_payload)
        if not callable(clock):
            raise refused("clock", clock, "a callable that returns seconds", subject="Outbox")
        store = MemoryStore(settings, clock)
        outbox._begin(store, max_payload, expose_payloads)  # noqa: SLF001 - its own
        return outbox

    def _begin(
        self,
        store: SqliteStore | PostgresStore | MemoryStore,
        max_payload: int,
        expose_payloads: object,
    ) -> None:
        if not isinstance(expose_payloads, bool):
            raise refused("expose_payloads", expose_payloads, "a bool", subject="Outbox")
        self._max_payload = max_payload
        self._here = store
        self._store: Store = store
        self._owner: int | None = None
        # Told that something may have been enqueued, by whoever waits for it.
        self._listeners: list[Callable[[], object]] = []
        self._random = random.Random()  # noqa: S311 - it spreads delays
        show(self, store, payloads=expose_payloads)

    def __repr__(self) -> str:
        return f"Outbox({self._store.label!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the outbox's own connection. What was claimed stays so until its lease is over."""
        hide(self)
        self._store.close()

    def migrate(self) -> int:
        """Make the tables, or bring them to the version this anabranch works on.

        Nothing else does so. It can be called again, and by several processes at once.

        Returns:
            How many versions they were behind.

        Raises:
            SchemaMismatch: The tables are of a later version.
            StoreUnavailable: The database cannot be reached, or refuses.
        """
        return self._store.migrate()

    # -- writing

    @overload
    def enqueue(
        self, conn: Awaited | Asyncpg, topic: str, payload: object, /, **options: Unpack[Options]
    ) -> Coroutine[Any, Any, int]: ...
    @overload
    def enqueue(
        self,
        conn: Blocking | Transaction,
        topic: str,
        payload: object,
        /,
        **options: Unpack[Options],
    ) -> int: ...
    @overload
    def enqueue(self, topic: str, payload: object, /, **options: Unpack[Options]) -> int: ...
    def enqueue(self, *given: Any, **options: Any) -> Any:
        """Write a message: in the transaction of your connection, or alone.

        Over a connection the message is invisible to others until you commit, and gone if you roll
        back. Without one it is durable when this returns.

        Args:
            given: A connection, if wanted: one of `sqlite3` or `aiosqlite`; one of psycopg, of
                asyncpg, or a connection or session of SQLAlchemy; or a transaction of an outbox in
                memory. Over one that is awaited, await the result. Then the topic and the payload.
            options: See `Draft`.

        Returns:
            The message's id; that of the message there is already, if its dedupe key is known.

        Raises:
            ConfigError: An argument is not allowed, or the connection is in autocommit mode and no
                transaction is open.
            DuplicateConflict: The dedupe key belongs to another topic or payload.
            SchemaMismatch: The connection's database has no outbox tables.
            StoreUnavailable: The database cannot be reached, or refuses (without a connection).

        Example:
            >>> import anabranch as ab
            >>> outbox = ab.Outbox.memory()
            >>> outbox.enqueue("mail", {"to": "ada"}, dedupe_key="welcome-ada")
            1
            >>> outbox.enqueue("mail", {"to": "ada"}, dedupe_key="welcome-ada")
            1
        """
        if len(given) not in (2, 3):
            raise TypeError(
                f"enqueue() takes (conn, topic, payload) or (topic, payload), got {len(given)} "
                "positional arguments"
            )
        draft = Draft(given[-2], given[-1], **options)
        rows = [draft.written(self._max_payload)]
        if len(given) == 2:  # noqa: PLR2004 - no connection
            written = self._store.write(rows)[0]
            self._tell()
            return written
        return _first(self._write_over(given[0], rows))

    @overload
    def enqueue_many(
        self, conn: Awaited | Asyncpg, drafts: Iterable[Draft], /
    ) -> Coroutine[Any, Any, list[int]]: ...
    @overload
    def enqueue_many(
        self, conn: Blocking | Transaction, drafts: Iterable[Draft], /
    ) -> list[int]: ...
    @overload
    def enqueue_many(self, drafts: Iterable[Draft], /) -> list[int]: ...
    def enqueue_many(self, *given: Any) -> Any:
        """Write many messages at once; all of them, or none.

        Args:
            given: A connection, if wanted, as for `enqueue`. Then the drafts.

        Returns:
            Their ids, in the order of the drafts.

        Raises:
            ConfigError: As for `enqueue`; nothing is written then.
            DuplicateConflict: As for `enqueue`. Over a connection, roll back.
            SchemaMismatch: As for `enqueue`.
            StoreUnavailable: As for `enqueue`.

        Example:
            >>> import anabranch as ab
            >>> outbox = ab.Outbox.memory()
            >>> outbox.enqueue_many(ab.Draft("mail", {"to": to}) for to in ("ada", "bob"))
            [1, 2]
        """
        if len(given) not in (1, 2):
            raise TypeError(
                f"enqueue_many() takes (conn, drafts) or (drafts), got {len(given)} "
                "positional arguments"
            )
        drafts = list(given[-1])
        for draft in drafts:
            if not isinstance(draft, Draft):
                raise refused("drafts", draft, "of ab.Draft, all of them", subject="enqueue_many")
        rows = [draft.written(self._max_payload) for draft in drafts]
        if len(given) == 1:
            written = self._store.write(rows) if rows else []
            self._tell()
            return written
        return self._write_over(given[0], rows)

    def _listen(self, heard: Callable[[], object]) -> Callable[[], object]:
        """Call `heard` when something may have been enqueued; return what ends that."""
        stop = self._store.listen(heard)
        self._listeners.append(heard)

        def end() -> None:
            self._listeners.remove(heard)
            stop()

        return end

    def _tell(self) -> None:
        for heard in self._listeners:
            heard()

    def _write_over(self, connection: object, rows: list[dict[str, Any]]) -> object:
        if not isinstance(self._here, MemoryStore):
            return self._here.write_over(connection, rows)
        return self._own_transaction(connection).write(rows)

    def _own_transaction(self, transaction: object) -> Transaction:
        if not isinstance(transaction, Transaction) or not transaction.is_of(self._store):
            allowed = "a transaction of this outbox, from outbox.transaction()"
            raise refused("conn", transaction, allowed, subject="enqueue")
        return transaction

    def transaction(self) -> Transaction:
        """Begin a transaction of an outbox in memory.

        Raises:
            ConfigError: The outbox is in a database: use a connection of your own.
        """
        if isinstance(self._here, MemoryStore):
            return Transaction(self._here)
        raise ConfigError(
            f"outbox {self._store.label}: only an outbox in memory has transactions of its own: "
            "enqueue over your own connection"
        )

    @overload
    def retract(self, conn: Awaited | Asyncpg, message: int, /) -> Coroutine[Any, Any, bool]: ...
    @overload
    def retract(self, conn: Blocking | Transaction, message: int, /) -> bool: ...
    @overload
    def retract(self, message: int, /) -> bool: ...
    def retract(self, *given: Any) -> Any:
        """Take a message back, if nobody has begun with it.

        It is the undo of `enqueue`: `ctx.compensate(outbox.retract, id)`.

        Args:
            given: A connection, if wanted, as for `enqueue`: then it is taken back when you commit.
                A transaction in memory takes back what it has itself enqueued. Then the id.

        Returns:
            True if the message is gone. False if it is being handled, has ended, or is unknown:
            then enqueue a message that compensates it.

        Raises:
            ConfigError: An argument is not allowed.
            SchemaMismatch: As for `enqueue`.
            StoreUnavailable: As for `enqueue`.

        Example:
            >>> import anabranch as ab
            >>> outbox = ab.Outbox.memory()
            >>> message_id = outbox.enqueue("mail", {"to": "ada"})
            >>> outbox.retract(message_id), outbox.retract(message_id)
            (True, False)
        """
        if len(given) not in (1, 2):
            raise TypeError("retract() takes (conn, id) or (id)")
        message = given[-1]
        if type(message) is not int:
            raise refused("message", message, "a message's id, an int", subject="retract")
        if len(given) == 1:
            return self._store.retract(message)
        if not isinstance(self._here, MemoryStore):
            return self._here.retract_over(given[0], message)
        return self._own_transaction(given[0]).retract(message)

    # -- the queue

    def claim(self, limit: int = 100, *, lease: Seconds = 60.0) -> list[Message]:
        """Take messages to handle them: nobody else gets them while the lease lasts.

        They come by priority, then by due time, then in the order they were enqueued in. Of an
        ordering key only the first one comes. A message whose lease is over can be claimed again.

        Args:
            limit: How many at most.
            lease: For how many seconds.

        Raises:
            ConfigError: An argument is not allowed.
            SchemaMismatch: The tables are missing, or of another version.
            StoreUnavailable: The database cannot be reached, or refuses.

        Example:
            >>> import anabranch as ab
            >>> outbox = ab.Outbox.memory()
            >>> _ = outbox.enqueue("mail", "hello")
            >>> outbox.claim(), outbox.claim()
            ([Message(1, 'mail', status='leased', attempt=1)], [])
        """
        _check_limit(limit, "claim")
        length = milliseconds("lease", lease, subject="claim", positive=True)
        if self._owner is None:
            self._owner = self._store.owner()
        claimed = self._store.claim(self._owner, limit, length)
        return [Message(row, self._store.label) for row in claimed.rows]

    def peek(self, limit: int = 100) -> list[Message]:
        """Tell what `claim` would take now, and leave it.

        Raises:
            ConfigError: An argument is not allowed.
            SchemaMismatch: The tables are missing, or of another version.
            StoreUnavailable: The database cannot be reached, or refuses.
        """
        _check_limit(limit, "peek")
        return [Message(row, self._store.label) for row in self._store.peek(limit)]

    def ack(self, messages: Message | Collection[Message], /) -> int:
        """Say that messages are handled.

        Args:
            messages: Those that were claimed. Of several, those that are not yours any more are
                left alone.

        Returns:
            How many were ended so.

        Raises:
            LeaseLost: The one message is not yours any more: the lease is over, or it has ended.
            SchemaMismatch: The tables are missing, or of another version.
            StoreUnavailable: The database cannot be reached, or refuses; ack again then.
        """
        return self._changed(messages, self._store.ack(_receipts(messages, "ack")))

    def abandon(
        self,
        messages: Message | Collection[Message],
        /,
        *,
        error: BaseException | str | None = None,
        delay: Seconds | None = None,
    ) -> int:
        """Say that an attempt has failed, and another one is wanted.

        Args:
            messages: Those that were claimed; see `ack`.
            error: What happened; it is kept with the message.
            delay: Seconds until the next attempt. None: anything up to one second, doubled with
                each attempt, two hours at most.

        Returns:
            How many will be tried again.

        Raises:
            ConfigError: An argument is not allowed.
            LeaseLost: As for `ack`, and so are the others.
        """
        wait = None if delay is None else milliseconds("delay", delay, subject="abandon")
        text = None if error is None else described(error)
        receipts = _receipts(messages, "abandon")
        attempts = {message.id: message.attempt for message in _several(messages)}
        given = [
            (*receipt, self._back_off(attempts[receipt[0]]) if wait is None else wait, text)
            for receipt in receipts
        ]
        return self._changed(messages, self._store.abandon(given))

    def _back_off(self, attempt: int) -> int:
        return round(_core.outbox_back_off(attempt, self._random.random()) * 1000)

    def fail(self, messages: Message | Collection[Message], /, error: BaseException | str) -> int:
        """Say that messages have failed for good: they are dead until somebody requeues them.

        Args:
            messages: Those that were claimed; see `ack`.
            error: What happened; it is kept with the message.

        Returns:
            How many are dead now.

        Raises:
            LeaseLost: As for `ack`, and so are the others.

        Example:
            >>> import anabranch as ab
            >>> outbox = ab.Outbox.memory()
            >>> _ = outbox.enqueue("mail", {"to": "nobody"})
            >>> [message] = outbox.claim()
            >>> outbox.fail(message, ValueError("no such address"))
            1
            >>> [dead] = outbox.messages(status="dead")
            >>> dead.errors[-1].error
            'ValueError: no such address'
        """
        text = described(error)
        given = [(*receipt, text) for receipt in _receipts(messages, "fail")]
        return self._changed(messages, self._store.fail(given))

    def release(self, messages: Message | Collection[Message], /) -> int:
        """Give messages back that were not begun: they are ready, and the attempt does not count.

        Raises:
            LeaseLost: As for `ack`, and so are the others.
        """
        return self._changed(messages, self._store.release(_receipts(messages, "release")))

    def extend(self, messages: Message | Collection[Message], /, *, lease: Seconds = 60.0) -> int:
        """Hold messages for longer: for `lease` seconds from now on.

        Raises:
            ConfigError: An argument is not allowed.
            LeaseLost: As for `ack`, and so are the others.
        """
        length = milliseconds("lease", lease, subject="extend", positive=True)
        return self._changed(messages, self._store.extend(_receipts(messages, "extend"), length))

    def _changed(self, messages: Message | Collection[Message], changed: list[int]) -> int:
        if isinstance(messages, Message) and not changed:
            raise LeaseLost(
                f"outbox {self._store.label}: message {messages.id} is not yours any more: its "
                "lease is over, or it has ended; leave it to its next claimer",
                store=self._store.label,
                id=messages.id,
            )
        return len(changed)

    def reap(self) -> Reaped:
        """End what is over: leases, messages with a `ttl`, dedupe keys.

        `claim` takes messages whose lease is over by itself; this is for those who count them.

        Raises:
            SchemaMismatch: The tables are missing, or of another version.
            StoreUnavailable: The database cannot be reached, or refuses.
        """
        return self._store.reap()

    # -- operations

    def messages(
        self,
        *,
        status: Status | None = None,
        topic: str | None = None,
        after: int = 0,
        limit: int = 100,
    ) -> list[Message]:
        """List messages in the order of their ids.

        Args:
            status: Only those of this status.
            topic: Only those of this topic.
            after: Only those with a higher id: the last one of the page before.
            limit: How many at most.

        Raises:
            ConfigError: An argument is not allowed.
            SchemaMismatch: The tables are missing, or of another version.
            StoreUnavailable: The database cannot be reached, or refuses.
        """
        _check_limit(limit, "messages")
        if status is not None and status not in _STATUSES:
            raise refused("status", status, f"one of {_STATUSES}", subject="messages")
        rows = self._store.rows(status=status, topic=topic, after=after, limit=limit)
        return [Message(row, self._store.label) for row in rows]

    def subscriptions(self) -> list[Subscription]:
        """List who hears of what, as workers have told: each subscriber's topics.

        Raises:
            SchemaMismatch: The tables are missing, or of another version.
            StoreUnavailable: The database cannot be reached, or refuses.
        """
        return [Subscription(*row) for row in self._store.subscriptions()[1]]

    def unsubscribe(self, subscriber: str, /) -> bool:
        """Forget a subscriber that is no more: no message waits for it any longer.

        A worker that still has a handler of that name subscribes again when it starts.

        Returns:
            Whether there was one.

        Raises:
            SchemaMismatch: The tables are missing, or of another version.
            StoreUnavailable: The database cannot be reached, or refuses.
        """
        return self._store.unsubscribe(subscriber)

    def counts(self) -> dict[str, dict[Status, int]]:
        """Tell how many messages there are, by topic and status.

        Those that are done are counted for ever, whether they are archived or not. Ready ones
        count as "parked" if there are subscribers, and none hears of their topic.

        Raises:
            SchemaMismatch: The tables are missing, or of another version.
            StoreUnavailable: The database cannot be reached, or refuses.
        """
        counts: dict[str, dict[Any, int]] = {}
        patterns = {it[1] for it in self._store.subscriptions()[1]}
        for topic, status, count in self._store.counts():
            heard = not patterns or any(matches(pattern, topic) for pattern in patterns)
            known = "parked" if status == "ready" and not heard else status
            counts.setdefault(topic, {})[known] = count
        return counts

    def requeue(
        self, messages: Iterable[int | Message] | None = None, /, *, topic: str | None = None
    ) -> int:
        """Make dead messages ready again, as if they had never been tried; their errors are kept.

        Args:
            messages: Those, or their ids; None: all that are dead.
            topic: Only those of this topic.

        Returns:
            How many are ready now.

        Raises:
            SchemaMismatch: The tables are missing, or of another version.
            StoreUnavailable: The database cannot be reached, or refuses.
        """
        return self._store.requeue(ids=_ids(messages), topic=topic)

    def purge(
        self,
        status: Literal["dead", "done"],
        messages: Iterable[int | Message] | None = None,
        /,
        *,
        topic: str | None = None,
        older_than: Seconds = 0.0,
    ) -> int:
        """Remove messages that have ended, a thousand per transaction.

        Args:
            status: "dead", or "done" where those are archived.
            messages: Those, or their ids; None: all of that status.
            topic: Only those of this topic.
            older_than: Only those that ended so many seconds ago.

        Returns:
            How many are gone.

        Raises:
            ConfigError: An argument is not allowed.
            SchemaMismatch: The tables are missing, or of another version.
            StoreUnavailable: The database cannot be reached, or refuses.
        """
        if status not in ("dead", "done"):
            raise refused("status", status, "'dead' or 'done'", subject="purge")
        age = milliseconds("older_than", older_than, subject="purge")
        ids = _ids(messages)
        gone = 0
        while True:
            chunk = self._store.purge(
                status=status, ids=ids, topic=topic, older_than=age, limit=_CHUNK
            )
            gone += chunk
            if chunk < _CHUNK:
                return gone


def _settings(
    prefix: object, ordering: object, archive: object, dedupe_for: object, max_payload: object
) -> Settings:
    if ordering not in ("block", "skip"):
        raise refused("ordering", ordering, "'block' or 'skip'", subject="Outbox")
    if not isinstance(archive, bool):
        raise refused("archive", archive, "a bool", subject="Outbox")
    if type(max_payload) is not int or max_payload < 1:
        raise refused("max_payload", max_payload, "an int from 1, in bytes", subject="Outbox")
    keep = milliseconds("dedupe_for", dedupe_for, subject="Outbox", positive=True)
    return Settings(check_prefix(prefix), ordering == "skip", archive, keep)


def _store(url: object, settings: Settings) -> SqliteStore | PostgresStore:
    if isinstance(url, str) and url.startswith(("postgresql://", "postgres://")):
        from anabranch._outbox_postgres import PostgresStore

        return PostgresStore(url, settings)
    return SqliteStore(_sqlite_path(url), settings)


def _sqlite_path(url: object) -> str:
    # What is refused is not shown: a URL may hold a password.
    allowed = "postgresql://…, sqlite:///relative.db or sqlite:////absolute/path.db"
    shown = f"a {type(url).__name__}"
    if isinstance(url, str):
        scheme, colon, rest = url.partition("://")
        shown = f"a URL that begins with {scheme!r}" if colon else "a str that is no URL"
        if scheme == "sqlite" and rest.startswith("/"):
            path = rest[1:]
            if path and path != ":memory:" and not set(path) & set("?#\0"):
                return path
            shown = f"sqlite:///{path}"
            allowed += ", without ? and #; in memory there is Outbox.memory()"
    raise refused("url", None, allowed, subject="Outbox", shown=shown)


def _check_limit(limit: object, subject: str) -> None:
    if type(limit) is not int or not 1 <= limit <= _MOST_AT_ONCE:
        raise refused("limit", limit, f"an int from 1 to {_MOST_AT_ONCE:_}", subject=subject)


def _ids(messages: Iterable[int | Message] | None) -> list[int] | None:
    if messages is None:
        return None
    return [one.id if isinstance(one, Message) else one for one in messages]


def _several(messages: Message | Collection[Message]) -> list[Message]:
    return [messages] if isinstance(messages, Message) else list(messages)


def _receipts(messages: Message | Collection[Message], subject: str) -> list[Receipt]:
    several = _several(messages)
    for message in cast("list[object]", several):
        if not isinstance(message, Message):
            raise refused("messages", message, "a Message or several", subject=subject)
    # In the order of their ids: two who change the same messages do not wait for each other in a
    # circle. One that nobody holds has no receipt.
    receipts = (message._receipt() for message in several)  # noqa: SLF001 - the queue's own
    return sorted(receipt for receipt in receipts if receipt is not None)


def _first(ids: object) -> object:
    if isinstance(ids, list):
        return cast("list[int]", ids)[0]

    async def first() -> int:
        written = await cast("Awaitable[list[int]]", ids)
        return written[0]

    return first()
