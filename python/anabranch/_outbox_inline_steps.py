"""What a worker does over the user's own connection: the statements, for both databases."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from anabranch._outbox_store import urgent_first

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from anabranch._outbox_outcomes import Outcomes
    from anabranch._outbox_store import Settings, Wanted

    Steps = Generator[tuple[str, Any], list[Any], Any]

# Milliseconds that a message is held for within a transaction: longer than that should last.
LEASE: Final = 86_400_000


class PostgresInline:
    """The part of a store in PostgreSQL that claims and ends within a caller's transaction."""

    _settings: Settings
    _sql: Mapping[str, str]

    def take(self, limit: int, wanted: Wanted) -> Steps:
        """Lock the next messages: the version of subscriptions, whether joins ended, the rows."""
        given = {"limit": limit, "skip": int(self._settings.skip), **wanted.columns()}
        rows = yield self._sql["inline_claim"], given
        [(version, overdue, _)] = yield self._sql["subscribers_version"], {}
        if overdue:
            yield self._sql["join_overdue"], {}
        keys = [row[7] for row in rows if row[7] is not None]
        if keys:
            free = yield self._sql["inline_keys"], {"keys": json.dumps(keys)}
            ours = {None, *(row[0] for row in free)}
            rows = [row for row in rows if row[7] in ours]
        return version, overdue, urgent_first(rows)

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

    def put(self, outcomes: Outcomes) -> Steps:
        """Write what became of what is held; send back how many messages that were."""
        acked = "ack_archive" if self._settings.archive else "ack_delete"
        count = 0
        for name, each in (
            (acked, outcomes.acks),
            ("abandon", outcomes.again),
            ("fail", outcomes.dead),
            ("divide", [(*one[:7], int(one[7])) for one in outcomes.divided]),
            ("release", outcomes.releases),
        ):
            if each:
                changed = yield self._sql[name], {"given": json.dumps(each)}
                count += len(changed)
        return count
