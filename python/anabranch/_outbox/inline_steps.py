"""What a worker does over the user's own connection: the statements, for both databases."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, cast

from anabranch._outbox.store import held_alike, whole

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence

    from anabranch._outbox.outcomes import Outcomes
    from anabranch._outbox.store import Receipt, Row, Settings, Wanted

    T = TypeVar("T")
    StepsTo: TypeAlias = Generator[tuple[str, Any], list[Any], T]
    Steps: TypeAlias = StepsTo[Any]

# Milliseconds that a message is held for within a transaction: longer than that should last.
LEASE: Final = 86_400_000


class OfTenant:
    """The part of a store that knows whose messages it is about."""

    _settings: Settings

    def of_tenant(self, steps: StepsTo[T]) -> StepsTo[T]:
        """Return statements with the tenant's name for a parameter, if it is one's store."""
        return steps if self._settings.tenant is None else _named(steps, self._settings.tenant)


def _named(steps: StepsTo[T], tenant: str) -> StepsTo[T]:
    try:
        sql, given = next(steps)
        while True:
            if isinstance(given, dict):
                given = {"tenant": tenant, **cast("dict[str, Any]", given)}
            rows = yield sql, given
            sql, given = steps.send(rows)
    except StopIteration as end:
        result: T = end.value
        return result


class PostgresInline(OfTenant):
    """The part of a store in PostgreSQL that claims and ends within a caller's transaction."""

    _settings: Settings
    _sql: Mapping[str, str]

    def take(self, limit: int, wanted: Wanted) -> Steps:
        """Lock the next messages: the version of subscriptions, whether joins ended, the rows."""
        given = {"limit": limit, "skip": int(self._settings.skip), **wanted.columns()}
        [(jit, sort, *_)] = yield self._sql["plan_simply"], {}
        rows = yield self._sql["inline_claim"], given
        yield self._sql["plan_again"], {"jit": jit, "sort": sort}
        [(version, overdue, _)] = yield self._sql["subscribers_version"], {}
        if overdue:
            yield self._sql["join_overdue"], {}
        rows = whole(rows)
        keys = [ordered_by(row) for row in rows if row[7] is not None]
        if keys:
            free = yield self._sql["inline_keys"], {"keys": json.dumps(keys)}
            ours = {row[0] for row in free}
            rows = [row for row in rows if row[7] is None or ordered_by(row) in ours]
        return version, overdue, rows

    def finish(self, ids: Sequence[int]) -> Steps:
        """End messages that are locked; send back their ids."""
        name = "inline_archive" if self._settings.archive else "inline_delete"
        gone = yield self._sql[name], {"ids": sorted(ids)}
        return [row[0] for row in gone]

    def hold(self, message: int, claims: int, owner: int) -> Steps:
        """Claim one message, if nobody has since; send back its row."""
        given = {"id": message, "claims": claims, "owner": owner, "lease": LEASE}
        rows = yield self._sql["inline_hold"], given
        return rows[0] if rows else None

    def ending(self, receipts: Sequence[Receipt]) -> Iterator[tuple[str, dict[str, object]]]:
        """Return the statements that end messages, and what each is given."""
        name = "ack_archive" if self._settings.archive else "ack_delete"
        for owner, claims, ids in held_alike(receipts):
            written = "{" + ",".join(map(str, ids)) + "}"
            yield name, {"owner": owner, "claims": claims, "ids": written}

    def put(self, outcomes: Outcomes) -> Steps:
        """Write what became of what is held; send back how many messages that were."""
        count = 0
        for acked, given in self.ending(outcomes.acks):
            count += len((yield self._sql[acked], given))
        for name, each in (
            ("abandon", outcomes.again),
            ("fail", outcomes.dead),
            ("divide", [(*one[:7], int(one[7])) for one in outcomes.divided]),
            ("release", outcomes.releases),
        ):
            if each:
                changed = yield self._sql[name], {"given": json.dumps(each)}
                count += len(changed)
        return count


def ordered_by(row: Row) -> str:
    """Return what a message is ordered by: one tenant's keys are not another's."""
    return f"{row[25] or ''} {row[7]}"
