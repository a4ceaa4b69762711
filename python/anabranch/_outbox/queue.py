"""What `Outbox` has of the queue itself: claim, and what can become of what was claimed."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeAlias, cast

from anabranch import _core
from anabranch._outbox.draft import milliseconds
from anabranch._outbox.message import Message
from anabranch._outbox.operations import Operations, check_limit
from anabranch._outbox.store import Reaped, described
from anabranch.errors import LeaseLost, refused

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import timedelta

    from anabranch._outbox.store import Receipt

    Seconds: TypeAlias = float | timedelta


class Queue(Operations):
    """The queue of an outbox, over a connection of its own; from any thread."""

    _owner: int | None
    _random: random.Random

    def _begin_queue(self) -> None:
        self._owner = None
        self._random = random.Random()  # noqa: S311 - it spreads delays

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
        check_limit(limit, "claim")
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
        check_limit(limit, "peek")
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
        several = _several(messages)
        receipts = _receipts(several, "abandon")
        attempts = {message.id: message.attempt for message in several}
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


def _several(messages: Message | Collection[Message]) -> list[Message]:
    # What is no collection is refused with what else is no message.
    if not isinstance(cast("object", messages), Iterable):
        return [cast("Message", messages)]
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
