"""The inbox: what was handled is noted in the transaction of what the handler does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeAlias, overload

from anabranch._outbox.draft import milliseconds
from anabranch._outbox.memory import MemoryStore, Transaction
from anabranch._outbox.message import Message
from anabranch.errors import refused

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from datetime import timedelta

    from anabranch._outbox.connections import Asyncpg, Awaited, Blocking
    from anabranch._outbox.postgres import PostgresStore
    from anabranch._outbox.sqlite import SqliteStore

    Seconds: TypeAlias = float | timedelta

_LONGEST_KEY = 255
_A_WEEK = 7 * 86_400.0


class Inbox:
    """The part of an outbox that makes effects exactly-once."""

    _here: SqliteStore | PostgresStore | MemoryStore

    @overload
    def seen(
        self, conn: Awaited | Asyncpg, message: Message | str, /, *, keep: Seconds = _A_WEEK
    ) -> Coroutine[Any, Any, bool]: ...
    @overload
    def seen(
        self, conn: Blocking | Transaction, message: Message | str, /, *, keep: Seconds = _A_WEEK
    ) -> bool: ...
    def seen(self, conn: Any, message: Message | str, /, *, keep: Seconds = _A_WEEK) -> Any:
        """Note in your transaction that a message is handled; tell whether it was before.

        A message can come twice: its handler was cut off after the commit and before the ack, or
        outlived its lease. What is noted in the transaction of the effect makes the effect happen
        exactly once in that database, whose tables may be another outbox's than the message's:
        return if this is true, and commit the effect together with the note if it is not.

        Args:
            conn: The connection of the effect, with its transaction: as for `enqueue`. Over one
                that is awaited, await the result.
            message: The message. It is known by its subscriber, its tenant and its id. Or a key of
                your own, up to 255 characters.
            keep: For how many seconds that is remembered: longer than the message may come again.
                `reap` forgets it afterwards.

        Returns:
            True if it was noted before, and that was committed. False if it is noted now.

        Raises:
            RetryLater: Another transaction is at work on it: the worker tries again in a moment,
                and does not count that. In SQLite and in memory one writes at a time: this waits.
            ConfigError: An argument is not allowed, or the connection is in autocommit mode and no
                transaction is open.
            SchemaMismatch: The connection's database has no outbox tables.

        Example:
            >>> import sqlite3
            >>> import anabranch as ab
            >>> path = getfixture("tmp_path") / "shop.db"
            >>> outbox = ab.Outbox(f"sqlite:///{path}")
            >>> _ = outbox.migrate()
            >>> conn = sqlite3.connect(path)
            >>> _ = conn.execute("create table paid (amount integer)")
            >>> def pay(message: ab.Message) -> None:
            ...     with conn:  # the note and the effect, or neither
            ...         if not outbox.seen(conn, message):
            ...             _ = conn.execute("insert into paid values (7)")
            >>> _ = outbox.enqueue("order.paid", {"amount": 7})
            >>> [message] = outbox.claim()
            >>> pay(message)
            >>> pay(message)  # it came again
            >>> conn.execute("select count(*) from paid").fetchone()
            (1,)
            >>> outbox.close(); conn.close()
        """
        key = _key(message)
        length = milliseconds("keep", keep, subject="seen", positive=True)
        if not isinstance(self._here, MemoryStore):
            return self._here.seen_over(conn, key, length)
        return self._here.check_own(conn, "seen").seen(key, length)


def _key(message: object) -> str:
    """Return what a message is known by: an id alone may be that of another outbox's message."""
    if isinstance(message, Message):
        whose = None if message.tenant is None else str(message.tenant)
        # A table that was made anew counts from 1 again.
        at = round(message.enqueued_at.timestamp() * 1000)
        known_by = [message.subscriber, whose, message.id, at]
        return f"message {json.dumps(known_by, ensure_ascii=False)}"
    if isinstance(message, str) and 0 < len(message) <= _LONGEST_KEY:
        return message
    raise refused("message", message, "a Message, or a str of 1 to 255 characters", subject="seen")
