"""`Outbox`: messages that are written in the caller's own transaction, and handled afterwards."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, cast, overload
from uuid import UUID

from anabranch._outbox.draft import LONGEST_NAME, Alike, Draft, Options, alike
from anabranch._outbox.inbox import Inbox
from anabranch._outbox.joins import Join, Joining
from anabranch._outbox.memory import MemoryStore, Transaction
from anabranch._outbox.message import FailedAttempt, Message, Status
from anabranch._outbox.operations import Paused
from anabranch._outbox.queue import Queue
from anabranch._outbox.shown import hide, show
from anabranch._outbox.store import Ages, Reaped, Subscription
from anabranch._outbox.upkeep import AtWork, Tidied
from anabranch._outbox.url import settings_of, store_of
from anabranch.errors import ConfigError, refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
    from datetime import timedelta
    from types import TracebackType
    from typing import Unpack

    from anabranch._outbox.connections import Asyncpg, Awaited, Blocking
    from anabranch._outbox.postgres import PostgresStore
    from anabranch._outbox.sqlite import SqliteStore

    Seconds: TypeAlias = float | timedelta

__all__ = [
    "Ages",
    "AtWork",
    "Draft",
    "FailedAttempt",
    "Join",
    "Message",
    "Outbox",
    "Paused",
    "Reaped",
    "Status",
    "Subscription",
    "Tidied",
    "Transaction",
]


class Outbox(Queue, Inbox, Joining):
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
        schema: The schema of PostgreSQL its tables are in; `migrate` makes it if there is none.
            None: the first one of the connection's search path.
        ordering: What the other messages of an ordering key do while the first one waits for its
            next attempt or its due time: "block": they wait, too; "skip": the next one that is due
            goes first. A dead message holds up nobody.
        archive: Whether messages that are done are kept. They are deleted otherwise, and counted.
        dedupe_for: For how many seconds a dedupe key is remembered.
        keep_done: For how many seconds archived messages are kept; None: for ever. Workers remove
            older ones now and then, and so does `tidy`.
        keep_dead: The same of dead ones.
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
        2
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
        schema: str | None = None,
        ordering: Literal["block", "skip"] = "block",
        archive: bool = False,
        dedupe_for: Seconds = 86_400.0,
        keep_done: Seconds | None = None,
        keep_dead: Seconds | None = None,
        max_payload: int = 8 * 1024 * 1024,
        expose_payloads: bool = False,
    ) -> None:
        settings = settings_of(
            prefix,
            ordering,
            archive,
            dedupe_for,
            max_payload,
            schema=schema,
            keep_done=keep_done,
            keep_dead=keep_dead,
        )
        self._begin(store_of(url, settings), max_payload, expose_payloads)

    @classmethod
    def memory(
        cls,
        *,
        ordering: Literal["block", "skip"] = "block",
        archive: bool = False,
        dedupe_for: Seconds = 86_400.0,
        keep_done: Seconds | None = None,
        keep_dead: Seconds | None = None,
        max_payload: int = 8 * 1024 * 1024,
        expose_payloads: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """Make an outbox that lives as long as the process: for tests, and for trying things out.

        Args:
            ordering: As for any outbox, and so are the others.
            archive: Whether messages that are done are kept.
            dedupe_for: For how many seconds a dedupe key is remembered.
            keep_done: For how many seconds archived messages are kept.
            keep_dead: The same of dead ones.
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
        settings = settings_of(
            "outbox_",
            ordering,
            archive,
            dedupe_for,
            max_payload,
            keep_done=keep_done,
            keep_dead=keep_dead,
        )
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
        self._shows = expose_payloads
        # By tenant, None being all: who waits for it is told that something was enqueued, perhaps.
        self._listeners: dict[str | None, list[Callable[[], object]]] = {}
        self._tenants: dict[str, Outbox] = {}
        # Whose it is alone, and the outbox that this one is a part of.
        self._tenant: str | None = None
        self._whole = self
        self._work_on(store)

    def _work_on(self, store: SqliteStore | PostgresStore | MemoryStore) -> None:
        self._here = store
        self._store = store
        self._begin_queue()
        show(self, store, payloads=self._shows)

    def tenant(self, key: str | UUID, /) -> Outbox:
        """Give the outbox of one tenant, where one table holds the messages of many.

        What it writes, claims, lists, counts, pauses and ends are that tenant's messages alone;
        ordering keys, dedupe keys, plans and what was `seen` are the tenant's own, too. Who
        subscribes, and who works, is known for the table as a whole. It needs no connection of its
        own, and is closed with this outbox.

        So `ab.OutboxRouter(outbox.tenant, tenants=outbox.tenants, refresh=1.0)` gives each tenant
        its turns. A worker of this outbox itself takes all messages as they come, and a message
        tells whose it is. An outbox of all can name a tenant for each message, too:
        `outbox.enqueue(conn, topic, payload, tenant="acme")`.

        Args:
            key: Whose: 1 to 255 characters. A UUID, and what it is written as, are one tenant.

        Returns:
            The same one each time.

        Raises:
            ConfigError: The key is not allowed, or this outbox is a tenant's already.

        Example:
            >>> import anabranch as ab
            >>> outbox = ab.Outbox.memory()
            >>> for tenant in ("acme", "globex"):
            ...     _ = outbox.tenant(tenant).enqueue("order.created", {"id": 7})
            >>> outbox.tenant("acme").pause()
            >>> [(message.tenant, message.payload) for message in outbox.claim()]
            [('globex', {'id': 7})]
            >>> outbox.tenant("acme").counts(), outbox.tenants()
            ({'order.created': {'paused': 1}}, ['acme', 'globex'])
        """
        name = str(key) if isinstance(key, UUID) else key
        if not isinstance(cast("object", name), str) or not 0 < len(name) <= LONGEST_NAME:
            raise refused("key", key, "a UUID, or a str of 1 to 255 characters", subject="tenant")
        if self._tenant is not None:
            allowed = f"asked of the outbox of all tenants: this one is that of {self._tenant!r}"
            raise refused("key", key, allowed, subject="tenant")
        part = self._tenants.get(name)
        if part is None:
            part = copy.copy(self)
            part._tenant = name  # noqa: SLF001 - its own
            part._work_on(self._here.of(name))  # noqa: SLF001 - as above
            # Of two threads, both get what the first has made.
            part = self._tenants.setdefault(name, part)
        return part

    def tenants(self) -> list[str]:
        """List the tenants that have messages in this outbox's table, or had some that are done.

        Raises:
            SchemaMismatch: The tables are missing, or of another version.
            StoreUnavailable: The database cannot be reached, or refuses.
        """
        return [self._tenant] if self._tenant is not None else self._store.tenants()

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
        """Close the outbox's own connection. What was claimed stays so until its lease is over.

        That of a tenant has none of its own: it is closed with the outbox it is a part of.
        """
        hide(self)
        if self._whole is self:
            for part in tuple(self._tenants.values()):
                part.close()
        self._store.close()

    def _share(self, lines: dict[str, Any]) -> None:
        """Work over the connection that other outboxes in its database have, or let them do so."""
        if not isinstance(self._here, MemoryStore):
            self._here.share(lines)

    def _retire(self) -> None:
        """Nobody is to need its connection any more: it is opened again for whoever does."""
        hide(self)
        self._store.rest()

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
        rows = [self._written(draft)]
        if len(given) == 2:  # noqa: PLR2004 - no connection
            written = self._store.write(rows)[0]
            self._tell(rows)
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
        allowed = "an iterable of ab.Draft"
        if not isinstance(given[-1], Iterable) or isinstance(given[-1], (str, bytes)):
            raise refused("drafts", given[-1], allowed, subject="enqueue_many")
        drafts: list[Draft] = []
        for draft in cast("Iterable[object]", given[-1]):
            if not isinstance(draft, Draft):
                raise refused("drafts", draft, allowed, subject="enqueue_many")
            drafts.append(draft)
        rows = self._written_many(drafts)
        if len(given) == 1:
            written = self._store.write(rows) if rows else []
            self._tell(rows)
            return written
        return self._write_over(given[0], rows)

    def _listen(self, heard: Callable[[], object]) -> Callable[[], object]:
        """Call `heard` when something may have been enqueued here; return what ends that."""
        listeners = self._listeners.setdefault(self._tenant, [])
        listeners.append(heard)
        return lambda: listeners.remove(heard)

    def _tell(self, rows: Sequence[Mapping[str, Any]]) -> None:
        told = [rows.common] if isinstance(rows, Alike) else rows
        for tenant in {None, *(row["tenant"] for row in told)}:
            for heard in tuple(self._listeners.get(tenant, ())):
                heard()

    def _written_many(self, drafts: Sequence[Draft]) -> Sequence[dict[str, Any]]:
        rows = alike(drafts, self._max_payload)
        if rows is None:
            return [self._written(draft) for draft in drafts]
        rows.common["tenant"] = self._tenant
        return rows

    def _written(self, draft: Draft) -> dict[str, Any]:
        """Make what a store is given of a draft."""
        row = draft.written(self._max_payload)
        if self._tenant is not None:
            if row["tenant"] not in (None, self._tenant):
                allowed = f"None or {self._tenant!r}, whose outbox this is"
                raise refused("tenant", row["tenant"], allowed, subject="enqueue")
            row["tenant"] = self._tenant
        return row

    def _write_over(self, connection: object, rows: Sequence[dict[str, Any]]) -> object:
        if not isinstance(self._here, MemoryStore):
            return self._here.write_over(connection, rows)
        return self._here.check_own(connection, "enqueue").write(rows)

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
        return self._here.check_own(given[0], "retract").retract(message)


def _first(ids: object) -> object:
    if isinstance(ids, list):
        return cast("list[int]", ids)[0]

    async def first() -> int:
        written = await cast("Awaitable[list[int]]", ids)
        return written[0]

    return first()
