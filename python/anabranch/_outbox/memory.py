"""The store in memory, and its transactions: what the other stores must be like."""

from __future__ import annotations

import contextlib
import copy
import threading
from typing import TYPE_CHECKING, Any, Self

from anabranch import _core
from anabranch._outbox.draft import digest
from anabranch._outbox.members import check_members, members_of, sorted_members
from anabranch._outbox.store import (
    ANY,
    MOST_READY,
    READY,
    Ages,
    Claimed,
    Inspected,
    Reaped,
    Wanted,
    Which,
    ages,
    check_duplicate,
)
from anabranch.errors import ClosedError, refused

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from types import TracebackType

    from anabranch._outbox.members import NewJoin
    from anabranch._outbox.store import Division, Keep, Receipt, Row, Settings, Written


class MemoryStore:
    """All messages of one outbox, for as long as the process lives."""

    label: str = "memory"
    is_quick: bool = True
    costs: bool = False
    users: int = 1

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self.keep: Keep = settings.keep
        self._core = _core.OutboxMemory()
        # By tenant; None: whosever it is.
        self._listeners: dict[str | None, list[Callable[[], object]]] = {}
        # By owner: what it told, since when, when it was seen, and until when that is believed.
        self._workers: dict[int, tuple[str, int, int, int]] = {}
        # One writes at a time, as in SQLite: so nobody comes between the look at a dedupe key and
        # the message. Claims do not wait for it.
        self.writing: AbstractContextManager[object] = threading.RLock()

        # By tenant and name; see `_outbox.plans`.
        self.plans: dict[tuple[str | None, str], Any] = {}

    @property
    def tenant(self) -> str | None:
        """The only one whose messages it is about; None: all."""
        return self._settings.tenant

    @property
    def line(self) -> Self:
        return self

    def of(self, tenant: str) -> MemoryStore:
        """Give a tenant's messages."""
        part = copy.copy(self)
        part.label = f"{self.label}?tenant={tenant}"
        part._settings = self._settings._replace(tenant=tenant)  # noqa: SLF001 - its own
        part._core = self._core.of(tenant)  # noqa: SLF001 - as above
        return part

    def now(self) -> int:
        """Return the time, in milliseconds since 1970."""
        return self._now()

    def _now(self) -> int:
        return round(self._clock() * 1000)

    def beside(self, use: str) -> MemoryStore:  # noqa: ARG002 - it has no connection
        return self

    def migrate(self) -> int:
        return 0

    def write(self, rows: Sequence[Written]) -> list[int]:
        with Transaction(self) as transaction:
            return transaction.write(rows)

    def remembered(self, key: str, tenant: str | None) -> tuple[int, bytes] | None:
        return self._core.dedupe(key, tenant, self._now())

    def reserve(self) -> int:
        return self._core.reserve()

    def insert(self, rows: Sequence[tuple[int, Written, bytes | None]]) -> None:
        keep = self._settings.dedupe_for
        given = [(id_, row, None if said is None else (said, keep)) for id_, row, said in rows]
        self._core.insert(given, self._now())

    def retract(self, message: int) -> bool:
        with self.writing, self._told():
            return self._core.retract(message, self._now())

    def join(self, join: NewJoin) -> int:
        with Transaction(self) as transaction:
            return transaction.join(join)

    def attach(self, join: int, messages: list[int]) -> None:
        with Transaction(self) as transaction:
            transaction.attach(join, messages)

    def cancel_join(self, join: int) -> bool:
        with self.writing:
            return self._core.cancel_join(join, self._now())

    def joins(self, after: int, limit: int) -> list[Row]:
        return self._core.joins(after, limit, self._now())

    def reserve_join(self) -> int:
        return self._core.reserve_join()

    def known_join(self, join: int) -> tuple[int, int] | None:
        """Return how many members a join expects, and how many it has."""
        return self._core.join_known(join)

    def last(self) -> int:
        """Return the id of the last message."""
        return self._core.last()

    def join_states(self, messages: list[int]) -> list[tuple[int, int, int | None]]:
        return self._core.join_states(messages)

    def new_members(self, join: int, messages: list[int]) -> list[int]:
        return self._core.join_new(join, messages)

    def settle(
        self,
        joins: Mapping[int, tuple[MemoryStore, NewJoin]],
        members: Mapping[int, list[int]],
        retracted: list[int],
        cancelled: list[int],
    ) -> None:
        """Write what a transaction has done to joins."""
        now = self._now()
        for id_, (store, join) in joins.items():
            store.insert_join(id_, join)
        for id_, messages in members.items():
            self._core.attach(id_, messages, retracted, now)
        for id_ in cancelled:
            self._core.cancel_join(id_, now)

    def has_seen(self, key: str) -> bool:
        return self._core.has_seen(key, self._now())

    def see(self, key: str, keep: int) -> None:
        """Note what was handled, and for how long that is known."""
        self._core.see(key, self._now() + keep)

    def insert_join(self, id_: int, join: NewJoin) -> None:
        """Write a join."""
        self._core.insert_join(id_, *join, self._now())

    def owner(self) -> int:
        return self._core.owner()

    def together(self) -> AbstractContextManager[object]:
        return contextlib.nullcontext()

    def claim(self, owner: int, limit: int, lease: int, wanted: Wanted = ANY) -> Claimed:
        by = None if wanted.by is None else list(wanted.by)
        without = list(wanted.without)
        skip = self._settings.skip
        return Claimed(*self._core.claim(owner, limit, lease, skip, without, by, self._now()))

    def peek(self, limit: int) -> list[Row]:
        return self._core.peek(limit, self._settings.skip, self._now())

    def ack(self, receipts: Sequence[Receipt]) -> list[int]:
        with self._told():
            return self._core.ack(receipts, self._settings.archive, self._now())

    def abandon(self, given: Sequence[tuple[int, int, int, int, str | None]]) -> list[int]:
        return self._core.abandon(given, self._now())

    def fail(self, given: Sequence[tuple[int, int, int, str]]) -> list[int]:
        with self._told():
            return self._core.fail(given, self._now())

    def divide(self, given: Sequence[Division]) -> list[int]:
        with self._told():
            return self._core.divide(given, self._now())

    def release(self, receipts: Sequence[Receipt]) -> list[int]:
        return self._core.release(receipts, self._now())

    def extend(self, receipts: Sequence[Receipt], lease: int) -> list[int]:
        return self._core.extend(receipts, lease, self._now())

    def reap(self, *, leases: bool = True) -> Reaped:  # noqa: ARG002 - it looks at all anyway
        with self._told():
            return Reaped(*self._core.reap(self._now()))

    def subscribe(self, subscriber: str, patterns: list[str]) -> None:
        self._core.subscribe(subscriber, patterns)

    def unsubscribe(self, subscriber: str) -> bool:
        return self._core.unsubscribe(subscriber, self._now())

    def subscriptions(self) -> tuple[int, list[tuple[str, str, int]]]:
        return self._core.subscriptions()

    def next_in(self) -> int | None:
        now = self._now()
        at = self._core.next(now)
        return None if at is None else at - now

    def rows(self, *, status: str | None, topic: str | None, after: int, limit: int) -> list[Row]:
        return self._core.rows(status, topic, after, limit, self._now())

    def counts(self) -> list[tuple[str, str, int]]:
        return self._core.counts(self._now())

    def ages(self) -> Ages:
        now = self._now()
        return ages(*self._core.ages(now), now)

    def chosen(self, state: int, which: Which) -> int:
        now = self._now()
        ended_by = now - which.older_than if state != READY else None
        return self._core.chosen(state, _listed(which.ids), which.topic, ended_by, now)

    def requeue(self, which: Which, limit: int) -> int:
        return self._core.requeue(_listed(which.ids), which.topic, limit, self._now())

    def cancel(self, which: Which, error: str, limit: int) -> int:
        return self._core.cancel(_listed(which.ids), which.topic, error, limit, self._now())

    def purge(self, state: int, which: Which, limit: int) -> int:
        now = self._now()
        ended_by = now - which.older_than
        return self._core.purge(state, _listed(which.ids), which.topic, ended_by, limit, now)

    def pause(self, pattern: str) -> None:
        self._core.pause(pattern, self._now())

    def resume(self, pattern: str) -> bool:
        was = self._core.resume(pattern)
        self.tell()
        return was

    def tenants(self) -> list[str]:
        return self._core.tenants()

    def pauses(self) -> list[tuple[str, int]]:
        return self._core.pauses()

    def beat(self, owner: int, told: str, lasts: int) -> None:
        now = self._now()
        known = self._workers.get(owner)
        self._workers[owner] = (told, known[1] if known else now, now, now + lasts)

    def inspect(self) -> Inspected:
        return Inspected()

    def leave(self, owner: int) -> None:
        self._workers.pop(owner, None)

    def workers(self) -> list[tuple[int, str, int, int, int]]:
        now = self._now()
        rows = sorted(self._workers.items(), reverse=True)
        return [(owner, *row[:3], now) for owner, row in rows if row[3] > now]

    def listen(self, heard: Callable[[], object]) -> Callable[[], object]:
        listeners = self._listeners.setdefault(self._settings.tenant, [])
        listeners.append(heard)
        return lambda: listeners.remove(heard)

    @contextlib.contextmanager
    def _told(self) -> Generator[None]:
        """Tell of the messages that follow when members of a join end."""
        before = self._core.last()
        yield
        if self._core.last() > before:
            self.tell()

    def tell(self) -> None:
        """There may be new messages."""
        for listeners in tuple(self._listeners.values()):
            for heard in tuple(listeners):
                heard()

    def check_own(self, transaction: object, subject: str) -> Transaction:
        """Return a transaction of this store, or raise a ConfigError."""
        if not isinstance(transaction, Transaction) or not transaction.is_of(self):
            allowed = "a transaction of this outbox, from outbox.transaction()"
            raise refused("conn", transaction, allowed, subject=subject)
        return transaction.seen_by(self)

    def backlog(self) -> tuple[int, int | None]:
        rows = self.rows(status="ready", topic=None, after=0, limit=MOST_READY)
        return len(rows), max((row[19] - row[12] for row in rows), default=None)

    def rest(self) -> None:
        """Nothing to let go of."""

    def close(self) -> None:
        """Nothing to let go of."""


def _listed(ids: Sequence[int] | None) -> list[int] | None:
    return None if ids is None else list(ids)


class Transaction:
    """A transaction of an outbox in memory: what it enqueues is there when its block ends well.

    Made by `Outbox.transaction`. Others that enqueue wait for it.
    """

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._forget()
        self._open = False

    def _forget(self) -> None:
        self._rows: list[tuple[int, Written, bytes | None]] = []
        self._dedupes: dict[tuple[str, str | None], tuple[int, bytes]] = {}
        # With the stores of whose they are.
        self._seen: dict[tuple[str | None, str], tuple[MemoryStore, int]] = {}
        self._joins: dict[int, tuple[MemoryStore, NewJoin]] = {}
        self._members: dict[int, list[int]] = {}
        self._cancelled: list[int] = []
        self._retracted: list[int] = []

    def __enter__(self) -> Self:
        self._store.writing.__enter__()
        self._open = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open = False
        try:
            if kind is None:
                self._store.insert(self._rows)
                self._store.settle(self._joins, self._members, self._retracted, self._cancelled)
                for (_, key), (store, keep) in self._seen.items():
                    store.see(key, keep)
        finally:
            self._forget()
            self._store.writing.__exit__(kind, error, trace)
        if kind is None:
            self._store.tell()

    def seen_by(self, store: MemoryStore) -> Transaction:
        """Give the same transaction to the store of a tenant, or of all."""
        mine = copy.copy(self)
        mine._store = store  # noqa: SLF001 - its own
        return mine

    def is_of(self, store: object) -> bool:
        return isinstance(store, MemoryStore) and self._store.writing is store.writing

    def write(self, rows: Sequence[Written]) -> list[int]:
        self._check_open()
        ids = [self._write(row) for row in rows]
        for join, members in members_of(rows, ids).items():
            self.attach(join, members)
        return ids

    def _write(self, row: Written) -> int:
        key = row["dedupe_key"]
        said = None
        if key is not None:
            said = digest(row)
            tenant = row["tenant"]
            found = self._dedupes.get((key, tenant)) or self._store.remembered(key, tenant)
            if found is not None:
                check_duplicate(self._store.label, key, found[0], same=found[1] == said)
                return found[0]
        message = self._store.reserve()
        if key is not None and said is not None:
            self._dedupes[key, row["tenant"]] = (message, said)
        self._rows.append((message, row, said))
        return message

    def join(self, join: NewJoin) -> int:
        self._check_open()
        id_ = self._store.reserve_join()
        self._joins[id_] = (self._store, join)
        return id_

    def attach(self, join: int, messages: list[int]) -> None:
        self._check_open()
        mine = self._members.get(join, [])
        made = self._joins.get(join)
        found = self._store.known_join(join) if made is None else (made[1].expected, 0)
        known = [] if found is None else [(found[0], found[1] + len(mine), self._store.last())]
        states = self._store.join_states(messages)
        for other, members in self._members.items():
            states += [(message, 0, other) for message in messages if message in members]
        check_members(self._store.label, join, known, messages, states)
        new = [it for it in self._store.new_members(join, messages) if it not in mine]
        sorted_members(self._store.label, join, known, new, states)
        self._members[join] = mine + new

    def cancel_join(self, join: int) -> bool:
        self._check_open()
        if join in self._cancelled or (join not in self._joins and not self._is_open(join)):
            return False
        self._cancelled.append(join)
        return True

    def _is_open(self, join: int) -> bool:
        found = self._store.joins(join - 1, 1)
        return bool(found) and found[0][0] == join and found[0][7] == 0

    def seen(self, key: str, keep: int) -> bool:
        """Note that something is handled: whether it was before."""
        self._check_open()
        whose = (self._store.tenant, key)
        if whose in self._seen or self._store.has_seen(key):
            return True
        self._seen[whose] = (self._store, keep)
        return False

    def _check_open(self) -> None:
        if not self._open:
            raise ClosedError("this transaction of an outbox in memory is over: begin another")

    def retract(self, message: int) -> bool:
        self._check_open()
        kept = [row for row in self._rows if row[0] != message]
        self._retracted.append(message)
        if len(kept) == len(self._rows):
            allowed = "a message of this transaction; take others back with outbox.retract(id)"
            raise refused("message", message, allowed, subject="retract")
        self._rows[:] = kept
        for key in [key for key, to in self._dedupes.items() if to[0] == message]:
            del self._dedupes[key]
        return True
