"""What a store remembers of plans: when each is due, who is at it, and how far it has come."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from anabranch._outbox.memory import MemoryStore, Transaction

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from anabranch._outbox.postgres import PostgresStore
    from anabranch._outbox.sqlite import SqliteStore
    from anabranch._outbox.store import Written

    Steps = Generator[tuple[str, Any], list[Any], Any]


class Claimed(NamedTuple):
    """A plan that is due, and held. Times are milliseconds, by the store's clock."""

    name: str
    at: int
    cursor: str | None
    now: int


class SqlPlans:
    """The plans of a store in a database."""

    def __init__(self, store: SqliteStore | PostgresStore) -> None:
        self._store = store
        self._sql = store.statements

    def _do(self, statement: str, **given: object) -> list[Any]:
        rows: list[Any] = self._store.do(self._one(statement, given))
        return rows

    def _one(self, statement: str, given: Mapping[str, object]) -> Steps:
        # The clock of SQLite is that of the process; PostgreSQL asks its own.
        rows = yield self._sql[statement], {**given, "now": round(time.time() * 1000)}
        return rows

    def now(self) -> int:
        now: int = self._do("plan_now")[0][0]
        return now

    def make(self, name: str, cadence: str, first: int) -> None:
        """Remember a plan; one that is known goes on, unless its cadence has changed."""
        self._do("plan_make", name=name, cadence=cadence, first=first)

    def claim(self, owner: int, names: Sequence[str], lease: int) -> list[Claimed]:
        """Hold those of these plans that are due, and that nobody holds."""
        rows = self._do("plan_claim", owner=owner, names=json.dumps(names), lease=lease)
        return [Claimed(*row) for row in rows]

    def next_in(self, names: Sequence[str]) -> int | None:
        """Return in how many milliseconds one of these may be claimed."""
        wait: int | None = self._do("plan_next", names=json.dumps(names))[0][0]
        return wait

    def done(
        self, owner: int, name: str, following: int, cursor: str | None, rows: Sequence[Written]
    ) -> bool:
        """Enqueue what was planned, and let go of the plan; False: others hold it by now."""
        given = {"owner": owner, "name": name, "next": following, "cursor": cursor}
        done: bool = self._store.do(self._done(given, rows))
        return done

    def _done(self, given: Mapping[str, object], rows: Sequence[Written]) -> Steps:
        held = yield from self._one("plan_done", given)
        if held and rows:
            yield from self._store.write_steps(rows)
        return bool(held)

    def forget(self, name: str) -> bool:
        """Remember a plan no longer."""
        return bool(self._do("plan_forget", name=name))


class _Known(NamedTuple):
    cadence: str
    at: int
    cursor: str | None = None
    owner: int | None = None
    until: int = 0


class MemoryPlans:
    """The plans of a store in memory: kept with it, and changed by one at a time."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._all: dict[tuple[str | None, str], _Known] = store.plans

    def _key(self, name: str) -> tuple[str | None, str]:
        return self._store.tenant, name

    def now(self) -> int:
        return self._store.now()

    def make(self, name: str, cadence: str, first: int) -> None:
        with self._store.writing:
            known = self._all.get(self._key(name))
            if known is None:
                self._all[self._key(name)] = _Known(cadence, first)
            elif known.cadence != cadence:
                self._all[self._key(name)] = known._replace(cadence=cadence, at=first)

    def claim(self, owner: int, names: Sequence[str], lease: int) -> list[Claimed]:
        now = self._store.now()
        claimed: list[Claimed] = []
        with self._store.writing:
            for name in names:
                known = self._all.get(self._key(name))
                if known is not None and known.at <= now and known.until <= now:
                    self._all[self._key(name)] = known._replace(owner=owner, until=now + lease)
                    claimed.append(Claimed(name, known.at, known.cursor, now))
        return claimed

    def next_in(self, names: Sequence[str]) -> int | None:
        now = self._store.now()
        known = [it for name in names if (it := self._all.get(self._key(name)))]
        return min((max(it.at, it.until) - now for it in known), default=None)

    def done(
        self, owner: int, name: str, following: int, cursor: str | None, rows: Sequence[Written]
    ) -> bool:
        with Transaction(self._store) as transaction:
            known = self._all.get(self._key(name))
            if known is None or known.owner != owner or known.until <= self._store.now():
                return False
            transaction.write(rows)
            self._all[self._key(name)] = _Known(known.cadence, following, cursor)
        return True

    def forget(self, name: str) -> bool:
        with self._store.writing:
            return self._all.pop(self._key(name), None) is not None


def plans_of(store: MemoryStore | SqliteStore | PostgresStore) -> MemoryPlans | SqlPlans:
    """Return the plans of a store."""
    return MemoryPlans(store) if isinstance(store, MemoryStore) else SqlPlans(store)
