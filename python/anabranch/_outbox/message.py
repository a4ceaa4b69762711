"""`Message`: what an outbox hands out."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from anabranch._outbox.draft import JSON, TEXT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anabranch._outbox.store import Receipt, Row

Status: TypeAlias = Literal["ready", "scheduled", "leased", "dead", "done", "parked", "paused"]


class FailedAttempt(NamedTuple):
    """One failed attempt at a message.

    Attributes:
        attempt: Its number; the first is 1. 0: the message ended before it had one.
        at: When.
        error: What happened, its type first.
    """

    attempt: int
    at: datetime
    error: str


class Message:
    """A message of an outbox, as it was when it was read.

    Made by `Outbox.claim`, `Outbox.peek` and `Outbox.messages`. All times are in UTC, by the
    store's own clock.

    Example:
        >>> import anabranch as ab
        >>> outbox = ab.Outbox.memory()
        >>> outbox.enqueue("order.created", {"id": 7}, headers={"source": "shop"})
        1
        >>> [message] = outbox.claim()
        >>> message
        Message(1, 'order.created', status='leased', attempt=1)
        >>> message.payload, message.headers["source"]
        ({'id': 7}, 'shop')
    """

    __slots__ = ("_row", "_store", "_tenant")

    def __init__(self, row: Row, store: str, tenant: object = None) -> None:
        self._row = row
        self._store = store
        self._tenant = row[25] if tenant is None else tenant

    @property
    def tenant(self) -> Any:  # noqa: ANN401 - a key can be anything hashable
        """Whose it is: the key its outbox is known by, where a worker works on several.

        Otherwise the one it was enqueued for, if it was for one; see `Outbox.tenant`.
        """
        return self._tenant

    @property
    def subscriber(self) -> str | None:
        """Whose it is to handle; None: it was claimed without a worker."""
        return None

    @property
    def connection(self) -> Any:  # noqa: ANN401 - of whatever driver
        """The connection of its transaction, of a worker with `ack="inline"`; None otherwise."""
        return None

    @property
    def store(self) -> str:
        """The outbox it is from: its URL without the password, or "memory"."""
        return self._store

    @property
    def id(self) -> int:
        """Its number; higher ones were enqueued later."""
        return int(self._row[0])

    @property
    def topic(self) -> str:
        """What it is about."""
        return str(self._row[1])

    @property
    def body(self) -> bytes:
        """The payload's bytes, as they are stored."""
        return bytes(self._row[2])

    @property
    def payload(self) -> Any:  # noqa: ANN401 - what was enqueued
        """What was enqueued: bytes, a str, or what JSON makes of it; decoded each time."""
        if self._row[3] == JSON:
            return json.loads(self._row[2])
        return self.body.decode() if self._row[3] == TEXT else self.body

    @property
    def headers(self) -> Mapping[str, str]:
        """The texts that go along."""
        headers: dict[str, str] = json.loads(self._row[4]) if self._row[4] else {}
        return headers

    @property
    def correlation_id(self) -> str | None:
        """What it belongs to, over all services."""
        return _text(self._row[5])

    @property
    def traceparent(self) -> str | None:
        """The W3C trace context it was written in."""
        return _text(self._row[6])

    @property
    def ordering_key(self) -> str | None:
        """Messages with one such key are handled one after another."""
        return _text(self._row[7])

    @property
    def dedupe_key(self) -> str | None:
        """Messages with one such key are one message."""
        return _text(self._row[8])

    @property
    def priority(self) -> int:
        """From 0 to 9; higher ones are handled first."""
        return int(self._row[9])

    @property
    def status(self) -> Status:
        """Where it was in its life: "ready", "scheduled", "leased", "dead" or "done"."""
        if self._row[10]:
            return "dead" if self._row[10] == 1 else "done"
        now = self._row[19]
        if self._row[18] is not None and self._row[18] > now:
            return "leased"
        return "scheduled" if self._row[12] > now else "ready"

    @property
    def enqueued_at(self) -> datetime:
        """When it was enqueued."""
        return utc(self._row[11])

    @property
    def due_at(self) -> datetime:
        """When it may be claimed at the earliest."""
        return utc(self._row[12])

    @property
    def expires_at(self) -> datetime | None:
        """When nobody wants it any more; None: never."""
        return None if self._row[13] is None else utc(self._row[13])

    @property
    def ended_at(self) -> datetime | None:
        """When it was done or died; None: it has not ended."""
        return None if self._row[14] is None else utc(self._row[14])

    @property
    def attempt(self) -> int:
        """The number of this attempt, or the latest; what was released is not counted."""
        return int(self._row[15])

    @property
    def errors(self) -> tuple[FailedAttempt, ...]:
        """The latest failed attempts, ten at most, oldest first."""
        errors = json.loads(self._row[16]) if self._row[16] else ()
        return tuple(FailedAttempt(attempt, utc(at), error) for attempt, at, error in errors)

    @property
    def join(self) -> int | None:
        """The join that waits for it; see `Outbox.join`."""
        return None if self._row[23] is None else int(self._row[23])

    @property
    def leased_until(self) -> datetime | None:
        """When its claimer's lease ends; None: nobody holds it."""
        return None if self._row[18] is None else utc(self._row[18])

    def _receipt(self) -> Receipt | None:
        return None if self._row[17] is None else (self._row[0], self._row[17], self._row[20])

    def __repr__(self) -> str:
        return f"Message({self.id}, {self.topic!r}, status={self.status!r}, attempt={self.attempt})"


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def utc(milliseconds: int) -> datetime:
    """Make a time of milliseconds since 1970."""
    return datetime.fromtimestamp(milliseconds / 1000, tz=UTC)
