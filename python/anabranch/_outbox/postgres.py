"""The store in PostgreSQL, over a connection of psycopg 3 that is not the caller's."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit, urlunsplit

from anabranch import _core
from anabranch._outbox.line import Common
from anabranch._outbox.postgres_line import PostgresLine, psycopg_of
from anabranch._outbox.postgres_over import PostgresWriting, by_percent, run
from anabranch._outbox.store import (
    ANY,
    DEAD,
    MOST_READY,
    READY,
    Ages,
    Claimed,
    Inspected,
    Reaped,
    Snapshot,
    Wanted,
    Which,
    ages,
    mismatched,
    urgent_first,
    whole,
)
from anabranch.errors import ClosedError, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from anabranch._outbox.members import NewJoin
    from anabranch._outbox.postgres_over import Steps
    from anabranch._outbox.store import Division, Keep, Receipt, Row, Settings, Written

T = TypeVar("T")

# Messages of paused topics that one transaction sets aside, or brings back.
_ASIDE: Final = 10_000
# How many more than it claims a claim looks through for them.
_BEHIND: Final = 1000


class PostgresStore(PostgresWriting):
    """The messages in one database, or those of a tenant; one statement at a time."""

    def __init__(
        self, url: str, settings: Settings, common: Common[PostgresLine] | None = None
    ) -> None:
        self.label = without_password(url)
        if settings.schema is not None:
            self.label += f"#{settings.schema}"
        # Its methods wait for the network, and must not hold up an event loop.
        self.is_quick = False
        self.costs = True
        if settings.tenant is not None:
            self.label += f"?tenant={settings.tenant}"
        self._settings = settings
        self.keep: Keep = settings.keep
        self._migrations, self._sql = _core.outbox_sql(
            "postgres", settings.prefix, settings.schema, settings.tenant is not None
        )
        self._needed = self._migrations[-1][0]
        self._common = common or Common(PostgresLine(url))

    @property
    def line(self) -> PostgresLine:
        """The connection, which others may have in common with it."""
        return self._common.line

    def of(self, tenant: str) -> PostgresStore:
        """Give a tenant's messages, over the same connection."""
        settings = self._settings._replace(tenant=tenant)
        return PostgresStore(self.line.url, settings, self._common)

    def share(self, lines: dict[str, PostgresLine]) -> None:
        """Work over the connection that others have to the same database."""
        self._common.share(lines.setdefault(self.line.url, self.line))

    def beside(self, use: str) -> PostgresStore:
        common = self._common.beside(use, lambda: PostgresLine(self.line.url))
        return PostgresStore(self.line.url, self._settings, common)

    # -- its connection

    @contextlib.contextmanager
    def _own(self, *, checked: bool = True) -> Generator[Any]:
        """Give a cursor; each statement is a transaction, unless one is begun."""
        psycopg = psycopg_of()
        with self.line.lock:
            try:
                connection = self._opened(checked=checked)
                # To write numbers in words, and to read them, takes longer than to copy them.
                with connection.cursor(binary=True) as cursor:
                    yield cursor
            except psycopg.Error as error:
                raise self._unavailable(error) from error

    @contextlib.contextmanager
    def _transaction(self, *, checked: bool = True) -> Generator[Any]:
        with self._own(checked=checked) as cursor, cursor.connection.transaction():
            yield cursor

    def _opened(self, *, checked: bool) -> Any:  # noqa: ANN401 - it may be missing
        if self._common.closed:
            raise ClosedError(f"outbox {self.label} is closed: make another")
        connection = self.line.opened(self.label)
        if checked and not self._common.checked:
            found = self._version(connection)
            if found != self._needed:
                raise mismatched(self.label, found, self._needed)
            self._common.checked = True
        return connection

    def _version(self, connection: Any) -> int | None:  # noqa: ANN401 - as above
        if not connection.execute(self._sql["has_meta"]).fetchall():
            return 0
        found = connection.execute(self._sql["version"]).fetchone()
        return None if found is None else int(found[0])

    def _unavailable(self, error: Exception) -> StoreUnavailable:
        state: str | None = getattr(error, "sqlstate", None)
        if state is None or state.startswith(("08", "57")):
            reason, advice = "unreachable", "see that the server runs, and that the URL is right"
        elif state.startswith("28"):
            advice = "see that the user may log in, and that the password is right"
            reason = "denied"
        elif state == "3D000":
            reason, advice = "missing", "create the database, or mend the URL"
        elif state == "42501":
            reason, advice = "denied", "grant the user what the outbox's tables need"
        else:
            reason, advice = "failed", "nothing of this call was written"
        text = " ".join(str(error).split())
        message = f"outbox {self.label}: {text}; {advice}"
        return StoreUnavailable(message, store=self.label, reason=reason)

    def _all(self, name: str, given: Mapping[str, Any]) -> list[Any]:
        with self._own() as cursor:
            sql = by_percent(self._sql[name])
            rows: list[Any] = cursor.execute(sql, self._given(given)).fetchall()
            return rows

    def _count(self, name: str, given: Mapping[str, Any]) -> int:
        with self._own() as cursor:
            count: int = cursor.execute(by_percent(self._sql[name]), self._given(given)).rowcount
            return count

    def _given(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        tenant = self._settings.tenant
        return given if tenant is None else {**given, "tenant": tenant}

    def _ids(self, name: str, receipts: Sequence[Sequence[Any]], **given: object) -> list[int]:
        rows = self._all(name, {"given": json.dumps(receipts), **given})
        return sorted(row[0] for row in rows)

    def migrate(self) -> int:
        with self._transaction(checked=False) as cursor:
            cursor.execute(self._sql["migrating"])
            found = self._version(cursor.connection)
            if found is None or found > self._needed:
                raise mismatched(self.label, found, self._needed)
            self._make_schema(cursor)
            for version, statements in self._migrations:
                if version > found:
                    for statement in statements:
                        cursor.execute(statement)
                    cursor.execute(by_percent(self._sql["set_version"]), {"version": version})
            return self._needed - found

    def _make_schema(self, cursor: Any) -> None:  # noqa: ANN401 - psycopg's
        # "if not exists" would ask for the right to make it even where it exists.
        given = {"schema": self._settings.schema}
        if self._settings.schema is None:
            return
        if not cursor.execute(by_percent(self._sql["has_schema"]), given).fetchall():
            cursor.execute(self._sql["make_schema"])

    # -- the queue

    @property
    def statements(self) -> Mapping[str, str]:
        """The SQL, by name."""
        return self._sql

    def _run(self, cursor: Any, steps: Steps[T]) -> T:  # noqa: ANN401 - psycopg's
        return run(cursor, self.of_tenant(steps))

    def do(self, steps: Steps[T]) -> T:
        """Run statements in a transaction of their own."""
        with self._transaction() as cursor:
            return self._run(cursor, steps)

    def write_steps(self, rows: Sequence[Written]) -> Steps[list[int]]:
        """Return what writes messages."""
        return self._write(rows)

    def write(self, rows: Sequence[Written]) -> list[int]:
        with self._transaction() as cursor:
            return self._run(cursor, self._write(rows))

    def retract(self, message: int) -> bool:
        with self._transaction() as cursor:
            return self._run(cursor, self._retract(message))

    def join(self, join: NewJoin) -> int:
        with self._transaction() as cursor:
            return self._run(cursor, self._join(join))

    def attach(self, join: int, messages: list[int]) -> None:
        with self._transaction() as cursor:
            self._run(cursor, self._attach(join, messages))

    def cancel_join(self, join: int) -> bool:
        with self._transaction() as cursor:
            return self._run(cursor, self._cancel_join(join))

    def joins(self, after: int, limit: int) -> list[Row]:
        return self._all("joins", {"after": after, "limit": limit})

    def together(self) -> AbstractContextManager[object]:
        # Two that count the same topics would wait for each other.
        return contextlib.nullcontext()

    def owner(self) -> int:
        number: int = self._all("owner", {})[0][0]
        return number

    def claim(self, owner: int, limit: int, lease: int, wanted: Wanted = ANY) -> Claimed:
        given: dict[str, Any] = {
            "owner": owner,
            "limit": limit,
            "lease": lease,
            "skip": int(self._settings.skip),
            "tenant": self._settings.tenant,
            **wanted.columns(),
        }
        with self._own() as cursor:
            rows = cursor.execute(by_percent(self._sql["claim"]), given).fetchall()
            # Whoever has come since then hears only of what was enqueued since then.
            version, overdue, paused = cursor.execute(self._sql["subscribers_version"]).fetchone()
            if overdue:
                cursor.execute(self._sql["join_overdue"])
                given["limit"] = limit - len(rows)
                rows += cursor.execute(by_percent(self._sql["claim"]), given).fetchall()
            if paused:
                with cursor.connection.transaction():
                    aside = self._given({"limit": limit + _BEHIND})
                    self._set_aside(cursor, "set_aside", aside)
        return Claimed(version, whole(rows, owner, lease))

    def peek(self, limit: int) -> list[Row]:
        return urgent_first(self._all("peek", {"limit": limit, "skip": int(self._settings.skip)}))

    def ack(self, receipts: Sequence[Receipt]) -> list[int]:
        ended: list[int] = []
        # Not in one transaction: two that count the same topics would wait for each other.
        for name, given in self.ending(receipts):
            ended += [row[0] for row in self._all(name, given)]
        return sorted(ended)

    def abandon(self, given: Sequence[tuple[int, int, int, int, str | None]]) -> list[int]:
        return self._ids("abandon", given)

    def fail(self, given: Sequence[tuple[int, int, int, str]]) -> list[int]:
        return self._ids("fail", given)

    def divide(self, given: Sequence[Division]) -> list[int]:
        return self._ids("divide", [(*one[:7], int(one[7])) for one in given])

    def release(self, receipts: Sequence[Receipt]) -> list[int]:
        return self._ids("release", receipts)

    def extend(self, receipts: Sequence[Receipt], lease: int) -> list[int]:
        return self._ids("extend", receipts, lease=lease)

    def reap(self, *, leases: bool = True) -> Reaped:
        over = self._count("reap_leases", {}) if leases else 0
        expired = self._count("reap_expired", {})
        self._all("join_overdue", {})
        for name in ("dedupes", "inbox", "joins", "workers"):
            self._count(f"reap_{name}", {})
        # One that somebody held while its topic was resumed.
        self._all("bring_back", {"limit": _ASIDE})
        return Reaped(over, expired)

    # -- subscribers

    def subscribe(self, subscriber: str, patterns: list[str]) -> None:
        given = {"subscriber": subscriber, "patterns": json.dumps(patterns)}
        with self._transaction() as cursor:
            less = cursor.execute(by_percent(self._sql["subscribe_less"]), given).rowcount
            more = cursor.execute(by_percent(self._sql["subscribe"]), given).rowcount
            if less or more:
                cursor.execute(self._sql["subscribers_changed"])

    def unsubscribe(self, subscriber: str) -> bool:
        given = {"subscriber": subscriber}
        with self._transaction() as cursor:
            gone: int = cursor.execute(by_percent(self._sql["unsubscribe"]), given).rowcount
            if gone:
                cursor.execute(self._sql["subscribers_changed"])
            cursor.execute(by_percent(self._sql["wait_no_more"]), given)
            return gone > 0

    def subscriptions(self) -> tuple[int, list[tuple[str, str, int]]]:
        with self._own() as cursor:
            version = cursor.execute(self._sql["subscribers_version"]).fetchone()
            return version[0], cursor.execute(self._sql["subscriptions"]).fetchall()

    def next_in(self) -> int | None:
        at, now = self._all("next", {})[0]
        return None if at is None else at - now

    def listen(self, heard: Callable[[], object]) -> Callable[[], object]:
        return self.line.listen(self._sql["channel"], self._settings.tenant, heard)

    # -- operations

    def backlog(self) -> tuple[int, int | None]:
        [(count, waited)] = self._all("backlog", {"most": MOST_READY})
        return count, waited

    def rows(self, *, status: str | None, topic: str | None, after: int, limit: int) -> list[Row]:
        given = {"status": status, "topic": topic, "after": after, "limit": limit}
        return self._all("list", given)

    def counts(self) -> list[tuple[str, str, int]]:
        return self._all("counts", {})

    def ages(self) -> Ages:
        return ages(*self._all("ages", {})[0])

    def chosen(self, state: int, which: Which) -> int:
        name = "count_ended" if state else "count_open"
        count: int = self._all(name, which.given(state))[0][0]
        return count

    def requeue(self, which: Which, limit: int) -> int:
        return self._count("requeue", which.given(DEAD, limit))

    def cancel(self, which: Which, error: str, limit: int) -> int:
        return len(self._all("cancel", {**which.given(READY, limit), "error": error}))

    def purge(self, state: int, which: Which, limit: int) -> int:
        return self._count("purge", which.given(state, limit))

    def pause(self, pattern: str) -> None:
        self._count("pause", {"pattern": pattern})
        moved: list[Any] = [(0,)]
        while moved:
            given = self._given({"after": max(row[0] for row in moved), "limit": _ASIDE})
            with self._transaction() as cursor:
                moved = self._set_aside(cursor, "set_aside_all", given)

    def _set_aside(self, cursor: Any, name: str, given: Mapping[str, Any]) -> list[Any]:  # noqa: ANN401 - psycopg's
        cursor.execute(self._sql["setting_aside"])
        moved: list[Any] = cursor.execute(by_percent(self._sql[name]), given).fetchall()
        return moved

    def resume(self, pattern: str) -> bool:
        with self._transaction() as cursor:
            cursor.execute(self._sql["resuming"])
            given = self._given({"pattern": pattern})
            gone = cursor.execute(by_percent(self._sql["resume"]), given).rowcount
        while self._all("bring_back", {"limit": _ASIDE}):
            pass
        self._all("resumed", {})
        return bool(gone)

    def tenants(self) -> list[str]:
        return [row[0] for row in self._all("tenants", {})]

    def pauses(self) -> list[tuple[str, int]]:
        return self._all("pauses", {})

    def beat(self, owner: int, told: str, lasts: int) -> None:
        self._count("beat", {"id": owner, "told": told, "lasts": lasts})

    def inspect(self) -> Inspected:
        snapshots = self._all("oldest_snapshot", {})
        rows = self._all("dead_rows", {})
        return Inspected(
            Snapshot(*snapshots[0]) if snapshots else None, tuple(rows[0]) if rows else (0, 0)
        )

    def leave(self, owner: int) -> None:
        self._count("leave", {"id": owner})

    def workers(self) -> list[tuple[int, str, int, int, int]]:
        return self._all("workers", {})

    def rest(self) -> None:
        self.line.rest()

    def close(self) -> None:
        if self._settings.tenant is None:
            self._common.close()


def without_password(url: str) -> str:
    """Return a URL that may be shown: its user and place, and nothing that may be secret."""
    parts = urlsplit(url)
    place = parts.hostname or ""
    if ":" in place:
        place = f"[{place}]"
    if parts.port is not None:
        place = f"{place}:{parts.port}"
    user = f"{parts.username}@" if parts.username else ""
    return urlunsplit(("postgresql", user + place, parts.path, "", ""))
