"""`Draft`: a message that is not written yet; all its checks, and what a store is given of it."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypedDict, cast, overload

from anabranch.errors import refused

if TYPE_CHECKING:
    from typing import Unpack

BYTES: Final = 0
TEXT: Final = 1
JSON: Final = 2

LONGEST_NAME: Final = 255
# A hundred years, in seconds.
_FOREVER = 100 * 366 * 86_400.0
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_SUBJECT = "enqueue"
_USUAL: Final = 5
_AT_ONCE: Final = 0.0
# How much there is to a draft that has a topic and a payload alone.
_LEAST: Final = 2
# How many bytes of payloads are sent as one.
_MOST_AT_ONCE: Final = 64 * 1024 * 1024
# Made once: `json.dumps` would make one for each payload.
_to_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


class Options(TypedDict, total=False):
    """What else can be said of a message; see `Draft`."""

    headers: Mapping[str, str] | None
    correlation_id: str | None
    traceparent: str | None
    ordering_key: str | None
    dedupe_key: str | None
    priority: int
    delay: float | timedelta
    due: datetime | None
    ttl: float | timedelta | None
    join: int | None
    tenant: str | None


@dataclass(frozen=True, init=False)
class Draft:
    """A message that is not written yet, for `Outbox.enqueue_many`.

    Args:
        topic: What it is about, up to 255 characters; handlers are chosen by it.
        payload: What it says: bytes, a str, or anything JSON can hold except None. An empty one is
            allowed.
        headers: Texts that go along.
        correlation_id: What it belongs to, over all services.
        traceparent: The W3C trace context it was written in.
        ordering_key: Messages with one such key are handled one after another, in the order they
            were enqueued in; other keys go on meanwhile.
        dedupe_key: Messages with one such key are one message, for as long as the outbox remembers
            (`dedupe_for`).
        priority: From 0 to 9; higher ones are handled first.
        delay: Seconds until it may be handled.
        due: When it may be handled, instead of `delay`; with a time zone.
        ttl: Seconds after which nobody wants it any more; None: never.
        join: The join it is a member of; see `Outbox.join`.
        tenant: Whose it is, where one table holds the messages of many; see `Outbox.tenant`.

    Raises:
        ConfigError: One of them is not allowed.

    Example:
        >>> import anabranch as ab
        >>> outbox = ab.Outbox.memory()
        >>> outbox.enqueue_many([ab.Draft("mail", {"to": name}) for name in ("ada", "bob")])
        [1, 2]
    """

    topic: str
    payload: Any
    headers: Mapping[str, str] | None = None
    correlation_id: str | None = None
    traceparent: str | None = None
    ordering_key: str | None = None
    dedupe_key: str | None = None
    priority: int = _USUAL
    delay: float | timedelta = _AT_ONCE
    due: datetime | None = None
    ttl: float | timedelta | None = None
    join: int | None = None
    tenant: str | None = None

    def __init__(self, topic: str, payload: Any, **options: Unpack[Options]) -> None:  # noqa: ANN401 - what JSON can hold
        # What was not said is left to the class: most messages say no more, and to say no to each
        # of the rest takes longer than all else here.
        said = self.__dict__
        said["topic"] = topic
        said["payload"] = payload
        if type(topic) is not str or not 0 < len(topic) <= LONGEST_NAME or "*" in topic:
            check_topic(topic, subject=_SUBJECT)
        if payload is None:
            allowed = "bytes, a str or what JSON can hold, not None"
            raise refused("payload", None, allowed, subject=_SUBJECT)
        if options:
            unknown = options.keys() - Options.__optional_keys__
            if unknown:
                raise TypeError(f"Draft() got an unexpected keyword argument {min(unknown)!r}")
            said.update(options)
            self._check_more()

    @property
    def is_plain(self) -> bool:
        """Whether it has a topic and a payload, and says no more."""
        return len(self.__dict__) == _LEAST

    def _check_more(self) -> None:
        for name in ("correlation_id", "ordering_key", "dedupe_key", "tenant"):
            value = getattr(self, name)
            if value is not None:
                _check_text(name, value, "a str of 1 to 255 characters or None")
        if self.traceparent is not None:
            allowed = "a W3C traceparent, as in '00-<32 hex>-<16 hex>-01', or None"
            _check_text("traceparent", self.traceparent, allowed)
            if not _TRACEPARENT.fullmatch(self.traceparent):
                raise refused("traceparent", self.traceparent, allowed, subject=_SUBJECT)
        if type(self.priority) is not int or not 0 <= self.priority <= 9:  # noqa: PLR2004 - one digit
            raise refused("priority", self.priority, "an int from 0 to 9", subject=_SUBJECT)
        if self.headers is not None:
            _check_headers(self.headers)
        milliseconds("delay", self.delay, subject=_SUBJECT)
        if self.ttl is not None:
            milliseconds("ttl", self.ttl, subject=_SUBJECT, positive=True)
        if self.due is not None:
            _check_due(self.due, self.delay)
        if self.join is not None and (type(self.join) is not int or self.join < 1):
            allowed = "a join's id, from outbox.join(), or None"
            raise refused("join", self.join, allowed, subject=_SUBJECT)

    def written(self, most: int) -> dict[str, Any]:
        """Make what a store is given; `most` is how many bytes a payload may have."""
        body, encoding = _encoded(self.payload)
        if len(body) > most:
            allowed = f"{most:_} bytes at most (`max_payload` of the outbox)"
            shown = f"{len(body):_} bytes"
            raise refused("payload", self.payload, allowed, subject=_SUBJECT, shown=shown)
        row = {**_PLAIN, "topic": self.topic, "body": body, "format": encoding}
        if not self.is_plain:
            row |= self._written_more()
        return row

    def _written_more(self) -> dict[str, Any]:
        headers, due, ttl = self.headers, self.due, self.ttl
        return {
            "plain": False,
            "headers": json.dumps(dict(headers), ensure_ascii=False) if headers else None,
            "correlation_id": self.correlation_id,
            "traceparent": self.traceparent,
            "ordering_key": self.ordering_key,
            "dedupe_key": self.dedupe_key,
            "priority": self.priority,
            "tenant": self.tenant,
            "due": None if due is None else round(due.timestamp() * 1000),
            "delay": milliseconds("delay", self.delay, subject=_SUBJECT) if self.delay else 0,
            "join": self.join,
            "ttl": None
            if ttl is None
            else milliseconds("ttl", ttl, subject=_SUBJECT, positive=True),
        }


# What a draft has written that has a topic and a payload alone.
_PLAIN: Final[dict[str, Any]] = {
    "topic": "",
    "body": b"",
    "format": BYTES,
    "headers": None,
    "correlation_id": None,
    "traceparent": None,
    "ordering_key": None,
    "dedupe_key": None,
    "priority": _USUAL,
    "tenant": None,
    "due": None,
    "delay": 0,
    "join": None,
    "ttl": None,
    "plain": True,
}


class Alike(Sequence[dict[str, Any]]):
    """What is written of plain drafts that differ by their payload alone: the rest is said once.

    Args:
        common: What is written of each, but for its body.
        bodies: Their payloads.
    """

    def __init__(self, common: dict[str, Any], bodies: list[bytes]) -> None:
        self.common = common
        self.bodies = bodies

    def __len__(self) -> int:
        return len(self.bodies)

    @overload
    def __getitem__(self, at: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, at: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, at: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(at, slice):
            return [{**self.common, "body": body} for body in self.bodies[at]]
        return {**self.common, "body": self.bodies[at]}


def alike(drafts: Sequence[Draft], most: int) -> Alike | None:
    """Say once what is the same in all of many drafts, if that is all but their payloads."""
    if len(drafts) < _LEAST:
        return None
    topic = drafts[0].topic
    bodies: list[bytes] = []
    encodings: set[int] = set()
    for draft in drafts:
        if not draft.is_plain or draft.topic != topic:
            return None
        body, encoding = _encoded(draft.payload)
        bodies.append(body)
        encodings.add(encoding)
    sizes = list(map(len, bodies))
    if len(encodings) > 1 or max(sizes) > most or sum(sizes) > _MOST_AT_ONCE:
        return None
    return Alike({**_PLAIN, "topic": topic, "format": encodings.pop()}, bodies)


def digest(row: Mapping[str, Any]) -> bytes:
    """Tell what a message says, in short: its topic and its payload."""
    head = f"{row['format']}\0{row['topic']}\0".encode()
    return hashlib.sha256(head + row["body"]).digest()


def check_topic(topic: object, *, subject: str) -> None:
    """Refuse what is no topic. With `*` a handler says which it means, so none has one in it."""
    if not isinstance(topic, str) or not 0 < len(topic) <= LONGEST_NAME or "*" in topic:
        allowed = "a str of 1 to 255 characters, none of them a *"
        raise refused("topic", topic, allowed, subject=subject)


def milliseconds(argument: str, value: object, *, subject: str, positive: bool = False) -> int:
    """Make whole milliseconds of seconds, or raise a ConfigError.

    Args:
        argument: The argument's name.
        value: Seconds, or a timedelta.
        subject: What is being called.
        positive: Whether zero is refused; then the least is a millisecond.
    """
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    allowed = f"seconds (a number or a timedelta) {'above' if positive else 'from'} 0"
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise refused(argument, value, allowed, subject=subject)
    if math.isnan(seconds) or not 0 <= seconds <= _FOREVER or (positive and seconds == 0):
        raise refused(argument, value, allowed, subject=subject)
    return max(round(seconds * 1000), 1 if positive else 0)


def _check_text(argument: str, value: object, allowed: str) -> None:
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_NAME:
        raise refused(argument, value, allowed, subject=_SUBJECT)


def _check_headers(headers: object) -> None:
    given = cast("Mapping[object, object]", headers)
    if not isinstance(headers, Mapping) or not all(
        isinstance(name, str) and isinstance(text, str) for name, text in given.items()
    ):
        raise refused("headers", given, "a dict of str to str", subject=_SUBJECT)


def _check_due(due: object, delay: object) -> None:
    if not isinstance(due, datetime) or due.utcoffset() is None:
        allowed = "a datetime with a time zone, as datetime.now(UTC)"
        raise refused("due", due, allowed, subject=_SUBJECT)
    if delay:
        raise refused("due", due, "given without delay", subject=_SUBJECT)


def _encoded(payload: object) -> tuple[bytes, int]:
    if type(payload) is bytes:
        return payload, BYTES
    if isinstance(payload, (bytes, bytearray, memoryview)):
        return bytes(cast("bytes | bytearray | memoryview[int]", payload)), BYTES
    try:
        if isinstance(payload, str):
            return payload.encode(), TEXT
        return _to_json(payload).encode(), JSON
    except (TypeError, ValueError, RecursionError) as error:
        allowed = f"bytes, a str or what JSON can hold ({error})"
        raise refused("payload", payload, allowed, subject=_SUBJECT) from error
