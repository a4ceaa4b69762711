"""What an outbox asks of its store, and what they have in common."""

from __future__ import annotations

import json
import re
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeAlias

from anabranch.errors import DuplicateConflict, SchemaMismatch, refused
from anabranch.failure import text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from anabranch._outbox.line import Line

# A message as a store gives it: the columns of the SQL's fragment `row`, in its order.
Row: TypeAlias = tuple[Any, ...]
# Which message, whose, and the how manieth claim of it that was.
Receipt: TypeAlias = tuple[int, int, int]
# A draft as every store is given it; see `Draft.written`.
Written: TypeAlias = "Mapping[str, Any]"

# What a draft has written of it.
COLUMNS: Final = (
    "topic",
    "body",
    "format",
    "headers",
    "correlation_id",
    "traceparent",
    "ordering_key",
    "dedupe_key",
    "priority",
    "tenant",
    "due",
    "delay",
    "ttl",
)

# Up to how many messages that are ready are counted.
MOST_READY: Final = 10_000
LONGEST: Final = 255
_MOST_ERROR = 8 * 1024
_CUT: Final = " … (truncated)"


class Reaped(NamedTuple):
    """What `Outbox.reap` has ended.

    Attributes:
        leases: Messages whose lease was over.
        expired: Messages that nobody handled within their `ttl`; they are dead now.
    """

    leases: int
    expired: int


class Wanted(NamedTuple):
    """Which messages a worker wants.

    Attributes:
        without: Topics it has no room for, or no handler.
        by: Its subscribers: a message that waits for none of them is left to others. None: all.
    """

    without: Sequence[str] = ()
    by: Sequence[str] | None = None

    def columns(self) -> dict[str, str | None]:
        """Return them as statements take them."""
        return {
            "without": json.dumps(list(self.without)) if self.without else None,
            "by": None if self.by is None else json.dumps(list(self.by)),
        }


ANY: Final = Wanted()


# The number of a status in a table.
READY: Final = 0
DEAD: Final = 1
DONE: Final = 2


class Which(NamedTuple):
    """Which messages of a state something is done to: of those in state 0, such as nobody holds.

    Attributes:
        ids: Those. None: all.
        topic: Those of this topic. None: of any.
        older_than: Those that ended so many milliseconds ago.
    """

    ids: Sequence[int] | None = None
    topic: str | None = None
    older_than: int = 0

    def given(self, state: int, limit: int = 0) -> dict[str, Any]:
        """Return what a statement is given."""
        return {
            "state": state,
            "ids": None if self.ids is None else json.dumps(list(self.ids)),
            "topic": self.topic,
            "older_than": self.older_than,
            "limit": limit,
        }


class Ages(NamedTuple):
    """How long messages have waited, in seconds; None: there is none.

    Attributes:
        ready: Since the one was due that was due first, of those that could be handled.
        held: Since the one was claimed that is held longest, its lease renewed again and again.
    """

    ready: float | None
    held: float | None


class Snapshot(NamedTuple):
    """A transaction that keeps a snapshot open: what is deleted since then stays in the pages.

    Attributes:
        pid: The process of the database that has it.
        application: What its client calls itself.
        state: What it does now.
        seconds: How long it is open.
    """

    pid: int
    application: str
    state: str
    seconds: float


class Inspected(NamedTuple):
    """What a database tells of itself.

    Attributes:
        snapshot: The oldest one that somebody keeps open, if any.
        rows: How many live and dead rows the table of messages has, as the database guesses.
        journal: How a file keeps its journal.
    """

    snapshot: Snapshot | None = None
    rows: tuple[int, int] = (0, 0)
    journal: str | None = None


def ages(ready: int | None, held: int | None, now: int) -> Ages:
    """Make ages of times."""

    def since(then: int | None) -> float | None:
        return None if then is None else max(0, now - then) / 1000

    return Ages(since(ready), since(held))


# How many messages one transaction changes for an operator: other writers come in between.
CHUNK: Final = 1000


def in_chunks(change: Callable[[int], int]) -> Iterator[int]:
    """Change up to so many messages, again and again until there are no more; tell each count."""
    while True:
        changed = change(CHUNK)
        yield changed
        if changed < CHUNK:
            return


class Claimed(NamedTuple):
    """Messages that were claimed, and which subscriptions there were at that moment."""

    version: int
    rows: list[Row]


class Subscription(NamedTuple):
    """Who hears of what.

    Attributes:
        subscriber: Its name.
        pattern: A topic, or the beginning of topics and `*`.
        since: The last message there was before it.
    """

    subscriber: str
    pattern: str
    since: int


def matches(pattern: str, topic: str) -> bool:
    """Whether a pattern, a topic or the beginning of topics and `*`, means a topic."""
    return topic.startswith(pattern[:-1]) if pattern.endswith("*") else topic == pattern


def check_pattern(topic: object, subject: str) -> None:
    """Refuse what is neither a topic nor the beginning of topics and `*`."""
    allowed = "a topic of 1 to 255 characters; * may stand at its end alone"
    if not isinstance(topic, str) or not 0 < len(topic) <= LONGEST or "*" in topic[:-1]:
        raise refused("topic", topic, allowed, subject=subject)


# A receipt; milliseconds until it is due again, or None if it is dead; the subscribers it waits
# for, or is dead for; how far each has come; what went wrong; whether the attempt counts.
Division: TypeAlias = (
    "tuple[int, int, int, int | None, list[str] | None, str | None, str | None, bool]"
)


class Store(Protocol):
    """One database's messages. Times are milliseconds, by the database's own clock.

    Only what is held as its receipt says is changed: by that owner, for that claim, with a lease
    that is not over. Whoever changes messages is told the ids of those that were. What was given
    twice, or is unknown, changes nothing. Every method may be called from any thread.
    """

    @property
    def label(self) -> str:
        """The store for people: never with a password."""
        ...

    @property
    def is_quick(self) -> bool:
        """Whether its methods return at once: then they need no thread of their own."""
        ...

    @property
    def costs(self) -> bool:
        """Whether it holds a connection, and another one to be listened to."""
        ...

    @property
    def line(self) -> Line:
        """What holds the connection, which several stores may have in common."""
        ...

    @property
    def keep(self) -> Keep:
        """For how long what has ended is kept."""
        ...

    def beside(self, use: str) -> Store:
        """Give the same messages over another connection, if it holds one.

        Those who share this one's share that one, too, as far as they use it for the same.
        """
        ...

    def together(self) -> AbstractContextManager[object]:
        """Do what follows in one transaction, if that is quicker."""
        ...

    def migrate(self) -> int: ...
    def write(self, rows: Sequence[Written]) -> list[int]: ...
    def retract(self, message: int) -> bool: ...
    def owner(self) -> int: ...
    def claim(self, owner: int, limit: int, lease: int, wanted: Wanted = ANY) -> Claimed: ...
    def peek(self, limit: int) -> list[Row]: ...
    def ack(self, receipts: Sequence[Receipt]) -> list[int]: ...
    def abandon(self, given: Sequence[tuple[int, int, int, int, str | None]]) -> list[int]: ...
    def fail(self, given: Sequence[tuple[int, int, int, str]]) -> list[int]: ...
    def divide(self, given: Sequence[Division]) -> list[int]: ...
    def release(self, receipts: Sequence[Receipt]) -> list[int]: ...
    def extend(self, receipts: Sequence[Receipt], lease: int) -> list[int]: ...
    def reap(self, *, leases: bool = True) -> Reaped:
        """End what is over; for leases all that is due is looked at, and claims do without."""
        ...

    def subscribe(self, subscriber: str, patterns: list[str]) -> None: ...
    def unsubscribe(self, subscriber: str) -> bool: ...
    def subscriptions(self) -> tuple[int, list[tuple[str, str, int]]]: ...
    def next_in(self) -> int | None: ...
    def backlog(self) -> tuple[int, int | None]:
        """Tell how many messages are ready, up to 10 000, and how long one of them at most."""
        ...

    def rows(
        self, *, status: str | None, topic: str | None, after: int, limit: int
    ) -> list[Row]: ...
    def counts(self) -> list[tuple[str, str, int]]: ...
    def ages(self) -> Ages: ...
    def chosen(self, state: int, which: Which) -> int:
        """Count messages that something may be done to; see `Which`."""
        ...

    def requeue(self, which: Which, limit: int) -> int: ...
    def cancel(self, which: Which, error: str, limit: int) -> int: ...
    def purge(self, state: int, which: Which, limit: int) -> int: ...
    def pause(self, pattern: str) -> None: ...
    def resume(self, pattern: str) -> bool: ...
    def pauses(self) -> list[tuple[str, int]]: ...
    def tenants(self) -> list[str]: ...
    def beat(self, owner: int, told: str, lasts: int) -> None:
        """Note that an owner is at work; that is believed for so many milliseconds."""
        ...

    def leave(self, owner: int) -> None: ...
    def inspect(self) -> Inspected: ...
    def workers(self) -> list[tuple[int, str, int, int, int]]:
        """List who is at work: owner, what it told, since when, when it was seen, and the time."""
        ...

    def listen(self, heard: Callable[[], object]) -> Callable[[], object]:
        """Call `heard`, in whatever thread, when others may have enqueued something.

        Told too often, or not at all, it costs time only. Called in the thread of an event loop;
        returns what ends it.
        """
        ...

    def rest(self) -> None:
        """Close its connection, until it is needed again."""
        ...

    def close(self) -> None: ...


class Keep(NamedTuple):
    """For how many milliseconds messages are kept that have ended; None: for ever."""

    done: int | None = None
    dead: int | None = None


class Settings(NamedTuple):
    """What an outbox was made with.

    Attributes:
        schema: One of PostgreSQL's; None: where its path leads.
        tenant: The only one whose messages it is about; None: all.
    """

    prefix: str
    skip: bool
    archive: bool
    dedupe_for: int
    schema: str | None = None
    keep: Keep = Keep()
    tenant: str | None = None


def check_prefix(prefix: object) -> str:
    """Give the prefix back, if it can stand in front of a table's name."""
    if not isinstance(prefix, str) or not re.fullmatch(r"[a-z_][a-z0-9_]{0,30}", prefix):
        allowed = "lower-case letters, digits and _, not a digit first, 31 characters at most"
        raise refused("prefix", prefix, allowed, subject="Outbox")
    return prefix


def check_schema(schema: object) -> str | None:
    """Give a schema's name back, if there is one and it can be: it is quoted wherever it stands."""
    if schema is None:
        return None
    if (
        not isinstance(schema, str)
        or not re.fullmatch(r"[A-Za-z0-9_-]{1,63}", schema)
        or schema.startswith("pg_")
    ):
        allowed = "letters, digits, _ and -, 63 characters at most, not beginning with pg_, or None"
        raise refused("schema", schema, allowed, subject="Outbox")
    return schema


def described(error: object) -> str:
    """Put an error into words, its type first, within 8 KiB."""
    if isinstance(error, BaseException):
        name = type(error).__qualname__
        words = text(error)
        whole = f"{name}: {words}" if words else name
    else:
        whole = text(error)
    body = whole.encode(errors="replace")
    if len(body) <= _MOST_ERROR:
        return body.decode()
    kept = body[: _MOST_ERROR - len(_CUT.encode())]
    return kept.decode(errors="ignore") + _CUT


def mismatched(store: str, found: int | None, needed: int) -> SchemaMismatch:
    """Say that a store's tables are missing, or of another version than this one works with."""
    if found is not None and found < needed:
        what = "there are no outbox tables" if found == 0 else f"the tables are version {found}"
        advice = f"this anabranch needs version {needed}: call outbox.migrate() once"
    else:
        what = f"the tables are version {'unknown' if found is None else found}"
        advice = f"this anabranch knows version {needed}: install the later anabranch"
    message = f"outbox {store}: {what}; {advice}"
    return SchemaMismatch(message, store=store, found=found, needed=needed)


def check_duplicate(store: str, key: str, message: int, *, same: bool) -> None:
    """Raise a DuplicateConflict unless both say the same."""
    if not same:
        raise DuplicateConflict(
            f"outbox {store}: dedupe_key {key!r} belongs to message {message}, which has another "
            "topic or payload: use another key for another message",
            store=store,
            dedupe_key=key,
            id=message,
        )


def held_alike(receipts: Sequence[Receipt]) -> list[tuple[int, int, list[int]]]:
    """Tell receipts apart by owner and claim, which are nearly always the same in all."""
    alike: dict[tuple[int, int], list[int]] = {}
    for id_, owner, claims in receipts:
        alike.setdefault((owner, claims), []).append(id_)
    return [(*held, ids) for held, ids in alike.items()]


def whole(found: Sequence[Row], owner: int | None = None, lease: int = 0) -> list[Row]:
    """Make rows of what the SQL's fragment `brief` tells, with who has claimed them and how long.

    Most urgent first: `returning` has no order of its own.
    """
    rows: list[Row] = []
    none = None
    for id_, topic, body, kind, priority, at, due, attempt, claims, key, tenant, now, more in found:
        headers = correlation = trace = dedupe = expires = errors = waiting = progress = join = none
        if more is not None:
            headers, correlation, trace, dedupe, expires, *rest = json.loads(more)
            errors, waiting, progress, join = rest
        until = none if owner is none else now + lease
        # fmt: off
        rows.append((
            id_, topic, body, kind, headers, correlation, trace, key, dedupe, priority, 0, at, due,
            expires, none, attempt, errors, owner, until, now, claims, waiting, progress, join, now,
            tenant,
        ))
        # fmt: on
    return urgent_first(rows)


def urgent_first(rows: list[Row]) -> list[Row]:
    """Sort by priority, due time and id."""
    # One after the other: what is in order already is only looked at, and no keys are made.
    rows.sort(key=itemgetter(0))
    rows.sort(key=itemgetter(12))
    rows.sort(key=itemgetter(9), reverse=True)
    return rows
