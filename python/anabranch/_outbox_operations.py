"""What `Outbox` has for those who operate it: lists, counts, and what is done with the dead."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast

from anabranch._outbox_draft import check_topic, milliseconds
from anabranch._outbox_message import Message, Status
from anabranch._outbox_store import Subscription, matches
from anabranch.errors import refused

if TYPE_CHECKING:
    from datetime import timedelta

    from anabranch._outbox_store import Store

    Seconds: TypeAlias = float | timedelta

_STATUSES: Final = ("ready", "scheduled", "leased", "dead", "done")
# How many messages one transaction purges: other writers come in between.
_CHUNK: Final = 1000
_MOST_AT_ONCE: Final = 100_000


class Operations:
    """What operators do with an outbox, over a connection of its own; from any thread."""

    _store: Store

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
        check_limit(limit, "messages")
        _check_about(topic, "messages")
        if type(after) is not int or after < 0:
            raise refused("after", after, "a message's id, an int", subject="messages")
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
        if not isinstance(cast("object", subscriber), str) or not subscriber:
            raise refused("subscriber", subscriber, "a subscriber's name", subject="unsubscribe")
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
        _check_about(topic, "requeue")
        return self._store.requeue(ids=_ids(messages, "requeue"), topic=topic)

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
        ids = _ids(messages, "purge")
        _check_about(topic, "purge")
        gone = 0
        while True:
            chunk = self._store.purge(
                status=status, ids=ids, topic=topic, older_than=age, limit=_CHUNK
            )
            gone += chunk
            if chunk < _CHUNK:
                return gone


def check_limit(limit: object, subject: str) -> None:
    """Refuse a number of messages that is none."""
    if type(limit) is not int or not 1 <= limit <= _MOST_AT_ONCE:
        raise refused("limit", limit, f"an int from 1 to {_MOST_AT_ONCE:_}", subject=subject)


def _check_about(topic: object, subject: str) -> None:
    if topic is not None:
        check_topic(topic, subject=subject)


def _ids(messages: Iterable[int | Message] | None, subject: str) -> list[int] | None:
    if messages is None:
        return None
    allowed = "None, or an iterable of messages or their ids"
    if isinstance(messages, (str, bytes)) or not isinstance(cast("object", messages), Iterable):
        raise refused("messages", messages, allowed, subject=subject)
    ids: list[int] = []
    for one in messages:
        id_: object = one.id if isinstance(one, Message) else one
        if type(id_) is not int:
            raise refused("messages", one, allowed, subject=subject)
        ids.append(id_)
    return ids
