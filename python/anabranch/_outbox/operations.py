"""What `Outbox` has for those who operate it: lists, counts, and what is done with the dead."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias, cast

from anabranch._outbox.draft import check_topic, milliseconds
from anabranch._outbox.message import Message, Status, utc
from anabranch._outbox.metrics import outbox_text, reading
from anabranch._outbox.store import (
    DEAD,
    DONE,
    Ages,
    Subscription,
    Which,
    check_pattern,
    described,
    in_chunks,
    matches,
)
from anabranch._outbox.upkeep import AtWork, Tidied, at_work, tidy
from anabranch.errors import refused

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime, timedelta

    from anabranch._outbox.store import Store

    Seconds: TypeAlias = float | timedelta

_STATUSES: Final = ("ready", "scheduled", "leased", "dead", "done")
_MOST_AT_ONCE: Final = 100_000


class Paused(NamedTuple):
    """Topics whose messages nobody claims.

    Attributes:
        topic: A topic, or the beginning of topics and `*`.
        since: When they were paused.
    """

    topic: str
    since: datetime


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
        count as "paused" if their topic is, and as "parked" if there are subscribers, and none
        hears of their topic.

        Raises:
            SchemaMismatch: The tables are missing, or of another version.
            StoreUnavailable: The database cannot be reached, or refuses.
        """
        counts: dict[str, dict[Any, int]] = {}
        patterns = {it[1] for it in self._store.subscriptions()[1]}
        for topic, status, count in self._store.counts():
            known = status
            if status == "ready" and patterns:
                known = "ready" if any(matches(it, topic) for it in patterns) else "parked"
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
        return sum(self._requeued(Which(_ids(messages, "requeue"), topic)))

    def _requeued(self, which: Which) -> Iterator[int]:
        return in_chunks(lambda limit: self._store.requeue(which, limit))

    def cancel(
        self,
        messages: Iterable[int | Message] | None = None,
        /,
        *,
        topic: str | None = None,
        reason: str = "by an operator",
    ) -> int:
        """Make messages dead that nobody has begun with; they can be requeued.

        Args:
            messages: Those, or their ids.
            topic: Those of this topic; of the ones given, if there are any.
            reason: What is kept with them as their error.

        Returns:
            How many are dead now. Those that are being handled, or have ended, are left alone.

        Raises:
            ConfigError: Neither messages nor a topic was given.
            SchemaMismatch: The tables are missing, or of another version.
            StoreUnavailable: The database cannot be reached, or refuses.

        Example:
            >>> import anabranch as ab
            >>> outbox = ab.Outbox.memory()
            >>> message_id = outbox.enqueue("mail", {"to": "ada"}, delay=60.0)
            >>> outbox.cancel([message_id], reason="she has left")
            1
            >>> outbox.messages(status="dead")[0].errors[0].error
            'Cancelled: she has left'
        """
        if messages is None and topic is None:
            raise refused("messages", None, "given, or a topic", subject="cancel")
        _check_about(topic, "cancel")
        return sum(self._cancelled(Which(_ids(messages, "cancel"), topic), reason))

    def _cancelled(self, which: Which, reason: str) -> Iterator[int]:
        error = described(f"Cancelled: {reason}")
        return in_chunks(lambda limit: self._store.cancel(which, error, limit))

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
        _check_about(topic, "purge")
        state = DEAD if status == "dead" else DONE
        return sum(self._purged(state, Which(_ids(messages, "purge"), topic, age)))

    def _purged(self, state: int, which: Which) -> Iterator[int]:
        return in_chunks(lambda limit: self._store.purge(state, which, limit))

    def tidy(self) -> Tidied:
        """End what is over, and remove what was kept long enough, a thousand per transaction.

        Workers do so now and then, a part at a time. `keep_done` and `keep_dead` of the outbox tell
        how long is long enough; dedupe keys and leases that are over go in any case.

        Raises:
            SchemaMismatch: The tables are missing, or of another version.
            StoreUnavailable: The database cannot be reached, or refuses.

        Example:
            >>> import anabranch as ab
            >>> outbox = ab.Outbox.memory(keep_dead=7 * 86_400.0)
            >>> outbox.tidy()
            Tidied(leases=0, expired=0, done=0, dead=0)
        """
        parts = zip(*tidy(self._store), strict=True)
        return Tidied(*(sum(part) for part in parts))

    # -- pauses

    def pause(self, topic: str = "*", /) -> None:
        """Let no worker claim messages of a topic any more, wherever it runs.

        What is being handled goes on, and new messages may be enqueued.

        Args:
            topic: The topic; `"order.*"` means all that begin with `order.`, `"*"` all: so a
                tenant is paused as a whole, by its own outbox or by `outbox.tenant(key)`.

        Raises:
            ConfigError: The topic is not allowed.
            SchemaMismatch: The tables are missing, or of another version.
            StoreUnavailable: The database cannot be reached, or refuses.

        Example:
            >>> import anabranch as ab
            >>> outbox = ab.Outbox.memory()
            >>> _ = outbox.enqueue("mail", {"to": "ada"})
            >>> outbox.pause("mail")
            >>> outbox.claim(), outbox.counts()
            ([], {'mail': {'paused': 1}})
            >>> outbox.resume("mail")
            True
            >>> len(outbox.claim())
            1
        """
        check_pattern(topic, "pause")
        self._store.pause(topic)

    def resume(self, topic: str = "*", /) -> bool:
        """Let workers claim them again.

        Args:
            topic: As it was paused: to resume "order.*" does not resume "order.created".

        Returns:
            Whether it was paused.

        Raises:
            ConfigError: The topic is not allowed.
            SchemaMismatch: The tables are missing, or of another version.
            StoreUnavailable: The database cannot be reached, or refuses.
        """
        check_pattern(topic, "resume")
        return self._store.resume(topic)

    def paused(self) -> list[Paused]:
        """List what is paused; of a tenant's outbox, what is so for it or for all.

        Raises:
            SchemaMismatch: The tables are missing, or of another version.
            StoreUnavailable: The database cannot be reached, or refuses.
        """
        return [Paused(pattern, utc(since)) for pattern, since in self._store.pauses()]

    def workers(self) -> list[AtWork]:
        """List who works on this outbox; one that has died is listed for some minutes more.

        Raises:
            SchemaMismatch: The tables are missing, or of another version.
            StoreUnavailable: The database cannot be reached, or refuses.
        """
        return at_work(self._store.workers())

    def metrics(self) -> str:
        """Return the numbers of this outbox as text that Prometheus reads: it asks the database.

        Messages by topic and status, how long the first one waits and the longest lease lasts, what
        is paused, and how many workers there are.

        Raises:
            SchemaMismatch: The tables are missing, or of another version.
            StoreUnavailable: The database cannot be reached, or refuses.

        Example:
            >>> import anabranch as ab
            >>> outbox = ab.Outbox.memory()
            >>> _ = outbox.enqueue("mail", {"to": "ada"})
            >>> print(outbox.metrics().splitlines()[2])
            anabranch_outbox_messages{outbox="memory",topic="mail",status="ready"} 1
        """
        return outbox_text(reading(self))

    def ages(self) -> Ages:
        """Tell how long the messages have waited that have waited longest.

        Raises:
            SchemaMismatch: The tables are missing, or of another version.
            StoreUnavailable: The database cannot be reached, or refuses.
        """
        return self._store.ages()


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
