"""The store in memory, and its transactions: what the other stores must be like."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

from anabranch import _core
from anabranch._outbox_draft import digest
from anabranch._outbox_store import ANY, Claimed, Reaped, Wanted, check_duplicate
from anabranch.errors import ClosedError, refused

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from types import TracebackType

    from anabranch._outbox_store import Division, Receipt, Row, Settings, Written


class MemoryStore:
    """All messages of one outbox, for as long as the process lives."""

    label: str = "memory"
    is_quick: bool = True

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._core = _core.OutboxMemory()
        self._listeners: list[Callable[[], object]] = []
        # One writes at a time, as in SQLite: so nobody comes between the look at a dedupe key and
        # the message. Claims do not wait for it.
        self.writing: AbstractContextManager[object] = threading.RLock()

    def _now(self) -> int:
        return round(self._clock() * 1000)

    def migrate(self) -> int:
        return 0

    def write(self, rows: Sequence[Written]) -> list[int]:
        with Transaction(self) as transaction:
            return transaction.write(rows)

    def remembered(self, key: str) -> tuple[int, bytes] | None:
        return self._core.dedupe(key, self._now())

    def reserve(self) -> int:
        return self._core.reserve()

    def insert(self, rows: Sequence[tuple[int, Written, bytes | None]]) -> None:
        keep = self._settings.dedupe_for
        given = [(id_, row, None if said is None else (said, keep)) for id_, row, said in rows]
        self._core.insert(given, self._now())

    def retract(self, message: int) -> bool:
        with self.writing:
            return self._core.retract(message, self._now())

    def owner(self) -> int:
        return self._core.owner()

    def claim(self, owner: int, limit: int, lease: int, wanted: Wanted = ANY) -> Claimed:
        by = None if wanted.by is None else list(wanted.by)
        without = list(wanted.without)
        skip = self._settings.skip
        return Claimed(*self._core.claim(owner, limit, lease, skip, without, by, self._now()))

    def peek(self, limit: int) -> list[Row]:
        return self._core.peek(limit, self._settings.skip, self._now())

    def ack(self, receipts: Sequence[Receipt]) -> list[int]:
        return self._core.ack(receipts, self._settings.archive, self._now())

    def abandon(self, given: Sequence[tuple[int, int, int, int, str | None]]) -> list[int]:
        return self._core.abandon(given, self._now())

    def fail(self, given: Sequence[tuple[int, int, int, str]]) -> list[int]:
        return self._core.fail(given, self._now())

    def divide(self, given: Sequence[Division]) -> list[int]:
        return self._core.divide(given, self._now())

    def release(self, receipts: Sequence[Receipt]) -> list[int]:
        return self._core.release(receipts, self._now())

    def extend(self, receipts: Sequence[Receipt], lease: int) -> list[int]:
        return self._core.extend(receipts, lease, self._now())

    def reap(self) -> Reaped:
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

    def requeue(self, *, ids: list[int] | None, topic: str | None) -> int:
        return self._core.requeue(ids, topic, self._now())

    def purge(
        self, *, status: str, ids: list[int] | None, topic: str | None, older_than: int, limit: int
    ) -> int:
        now = self._now()
        return self._core.purge(status, ids, topic, now - older_than, limit, now)

    def listen(self, heard: Callable[[], object]) -> Callable[[], object]:
        self._listeners.append(heard)
        return lambda: self._listeners.remove(heard)

    def tell(self) -> None:
        """A transaction was committed."""
        for heard in self._listeners:
            heard()

    def close(self) -> None:
        """Nothing to let go of."""


class Transaction:
    """A transaction of an outbox in memory: what it enqueues is there when its block ends well.

    Made by `Outbox.transaction`. Others that enqueue wait for it.
    """

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._rows: list[tuple[int, Written, bytes | None]] = []
        self._dedupes: dict[str, tuple[int, bytes]] = {}
        self._open = False

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
        finally:
            self._rows, self._dedupes = [], {}
            self._store.writing.__exit__(kind, error, trace)
        if kind is None:
            self._store.tell()

    def is_of(self, store: object) -> bool:
        return self._store is store

    def write(self, rows: Sequence[Written]) -> list[int]:
        if not self._open:
            raise ClosedError("this transaction of an outbox in memory is over: begin another")
        return [self._write(row) for row in rows]

    def _write(self, row: Written) -> int:
        key = row["dedupe_key"]
        said = None
        if key is not None:
            said = digest(row)
            found = self._dedupes.get(key) or self._store.remembered(key)
            if found is not None:
                check_duplicate(self._store.label, key, found[0], same=found[1] == said)
                return found[0]
        message = self._store.reserve()
        if key is not None and said is not None:
            self._dedupes[key] = (message, said)
        self._rows.append((message, row, said))
        return message

    def retract(self, message: int) -> bool:
        if not self._open:
            raise ClosedError("this transaction of an outbox in memory is over: begin another")
        kept = [row for row in self._rows if row[0] != message]
        if len(kept) == len(self._rows):
            allowed = "a message of this transaction; take others back with outbox.retract(id)"
            raise refused("message", message, allowed, subject="retract")
        self._rows = kept
        self._dedupes = {key: to for key, to in self._dedupes.items() if to[0] != message}
        return True
