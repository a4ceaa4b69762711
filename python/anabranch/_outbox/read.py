"""What operators are told of a store, and what they may do to its dead letters."""

from __future__ import annotations

import json
import logging
import math
import time
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from anabranch._outbox.message import Message
from anabranch._outbox.store import DEAD, Which, in_chunks
from anabranch.errors import AnabranchError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from anabranch import _core
    from anabranch._outbox.shown import Shown
    from anabranch._outbox.store import Store

# Dead letters that are told of one by one: of a store, and of all of them.
_LETTERS: Final = 100
_ALL_LETTERS: Final = 500
# Of more stores than this none keeps the connection it is read over.
_CONNECTED: Final = 16
# Reads that one which did not answer is left alone for, at most.
_LONGEST_REST: Final = 30
# Messages that are read at once: each comes with its payload.
_PAGE: Final = 10
# Every so many reads dead letters are listed though there are as many as before.
_LISTED_EVERY: Final = 20
# Paused topics that are told of.
_PAUSES: Final = 16
# Leases that are looked at for the one that is over first.
_LEASES: Final = 100
# Characters of an error, and of a payload, that are shown.
_MOST_ERROR: Final = 160
_MOST_PAYLOAD: Final = 4000
# Dead letters that are made ready again in a second, unless it is said how many.
PER_SECOND: Final = 200.0

_logger = logging.getLogger("anabranch")


class Reading:
    """What was last told of each store."""

    def __init__(self, outboxes: _core.Outboxes) -> None:
        self._outboxes = outboxes
        self._told: dict[str, dict[str, Any]] = {}
        self._reads = 0
        # Of those that did not answer: the round they are asked at again, and after how many.
        self._rounds = 0
        self._rests: dict[str, tuple[int, int]] = {}

    def forget(self) -> None:
        """List the dead letters anew, though their number may be the same."""
        self._reads = 0

    def name(self, all_shown: Iterable[Shown]) -> None:
        """Tell of outboxes that were not read yet."""
        told = [self._told.get(it.name) or {"store": it.name, "st": "new"} for it in all_shown]
        self._outboxes.tell(json.dumps(told), "[]")

    def read(self, all_shown: Sequence[Shown]) -> None:
        """Read all stores, and tell of them."""
        told: dict[str, dict[str, Any]] = {}
        letters: list[dict[str, Any]] = []
        most = max(_PAGE, min(_LETTERS, _ALL_LETTERS // max(1, len(all_shown))))
        for shown in all_shown:
            before = self._told.get(shown.name, {})
            if self._rests.get(shown.name, (0, 0))[0] > self._rounds:
                # It did not answer: it is asked less often, and holds up the others no more.
                told[shown.name] = before
                continue
            polled = round(time.time() * 1000)
            try:
                row = {"store": shown.name, "st": "up", "polled": polled, **_depths(shown.store)}
                row |= {"selection": shown.selection, "tenant": shown.tenant}
                row |= {"resting": shown.resting, "workers": len(shown.store.workers())}
                row["paused"] = [topic for topic, _ in shown.store.pauses()][:_PAUSES]
                # Each comes with its payload: they are not listed again for nothing.
                if self._reads % _LISTED_EVERY == 0 or row["dead"] != before.get("dead"):
                    listed = _letters(shown, most) if row["dead"] else []
                    letters.append({"store": shown.name, "all": row["dead"], "r": listed})
            except AnabranchError:
                # Whoever works with it is told why; those who look see that it is so.
                row = {**before, "store": shown.name, "st": "down", "resting": shown.resting}
                rounds = min(_LONGEST_REST, 2 * self._rests.get(shown.name, (0, 0))[1] + 1)
                self._rests[shown.name] = (self._rounds + rounds, rounds)
            else:
                self._rests.pop(shown.name, None)
            if len(all_shown) > _CONNECTED:
                shown.rest()
            told[shown.name] = row
        self._reads += 1
        self._rounds += 1
        self._told = told
        self._outboxes.tell(json.dumps(list(told.values())), json.dumps(letters))


def _depths(store: Store) -> dict[str, Any]:
    """Tell how many messages there are, and how long the first of them have waited."""
    depths: Counter[str] = Counter()
    for _, status, count in store.counts():
        depths[status] += count
    lag = expires = None
    # The lowest id has waited longest, but for what came back: a look at all would cost more.
    for row in store.rows(status="ready", topic=None, after=0, limit=1) if depths["ready"] else ():
        lag = max(0, row[19] - row[12])
    if depths["leased"]:
        leased = store.rows(status="leased", topic=None, after=0, limit=_LEASES)
        expires = min((row[18] for row in leased), default=None)
    told = {
        "ready": depths["ready"],
        "leased": depths["leased"],
        "retry": depths["scheduled"],
        "dead": depths["dead"],
        "lag_ms": lag,
        "expires": expires,
    }
    return {name: value for name, value in told.items() if value is not None}


def _dead(store: Store, most: int | None) -> Iterable[Message]:
    after = listed = 0
    while most is None or listed < most:
        limit = _PAGE if most is None else min(_PAGE, most - listed)
        rows = store.rows(status="dead", topic=None, after=after, limit=limit)
        yield from (Message(row, store.label) for row in rows)
        if len(rows) < limit:
            return
        after = rows[-1][0]
        listed += len(rows)


def _letter(message: Message, tenant: str) -> dict[str, Any]:
    ended = message.ended_at or message.enqueued_at
    error = message.errors[-1].error if message.errors else ""
    return {
        "id": str(message.id),
        "topic": message.topic[:_MOST_ERROR],
        "tenant": tenant,
        "attempts": message.attempt,
        "error": error[:_MOST_ERROR],
        "at": round(ended.timestamp() * 1000),
    }


def _letters(shown: Shown, most: int) -> list[dict[str, Any]]:
    return [_letter(message, shown.tenant) for message in _dead(shown.store, most)]


def _found(store: Store, ids: Sequence[int]) -> list[Message]:
    """Return those of these messages that are dead."""
    found: list[Message] = []
    for id_ in ids:
        rows = store.rows(status="dead", topic=None, after=id_ - 1, limit=1)
        found += [Message(row, store.label) for row in rows if row[0] == id_]
    return found


# Number, operation, outbox, ids (all, if none), how many there must be then, how many a second,
# whether dry, by whom.
Request: TypeAlias = tuple[int, str, str, list[int], int | None, float | None, bool, str]


class RefusedError(Exception):
    """It is not done, and why in a word."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(why)
        self.code = code


def carry_out(outboxes: _core.Outboxes, request: Request, shown: Shown | None) -> None:
    """Carry out what an operator asks for, and answer."""
    number = request[0]
    worked = True
    try:
        count, message, letters = _act(request, shown)
    except (RefusedError, AnabranchError) as error:
        worked, message = False, str(error)
        code = error.code if isinstance(error, RefusedError) else "failed"
        outboxes.refuse(number, code, message)
    else:
        outboxes.answer(number, count, message, letters)
    log(request, message, worked=worked)


def log(request: Request, message: str, *, worked: bool) -> None:
    """Log what became of an order; nothing is logged of a question."""
    _, operation, name, _, _, _, dry, who = request
    if not dry:
        level = logging.INFO if worked else logging.WARNING
        # What those who look are told of by itself: see _observe.
        told = {"anabranch_audit": True}
        _logger.log(level, "outbox %r: %s by %s: %s", name, operation, who, message, extra=told)


def _act(request: Request, shown: Shown | None) -> tuple[int, str, str | None]:
    """Return how many letters it was, what became of them, and those that are to be shown."""
    _, operation, name, ids, seen, rate, dry, _ = request
    if shown is None:
        raise RefusedError("not_found", f"outbox '{name}' was closed")
    if operation == "dl.peek":
        return _peek(shown, ids[0])
    if dry:
        return *_foretell(shown, operation, ids, rate), None
    if not ids and seen is not None:
        check_seen(count_dead(shown.store), seen, name)
    if operation == "dl.requeue":
        count = _requeue(shown.store, Which(ids))
        return count, said(count, name, "ready again", ids), None
    count = _discard(shown.store, Which(ids or None))
    return count, said(count, name, "gone", ids), None


def _foretell(shown: Shown, operation: str, ids: list[int], rate: float | None) -> tuple[int, str]:
    done = "ready again" if operation == "dl.requeue" else "gone"
    if ids:
        dead = _found(shown.store, ids)
        count = len(dead)
    else:
        count = count_dead(shown.store)
        dead = list(_dead(shown.store, 1)) if count else []
    since = ""
    rate = PER_SECOND if rate is None else rate
    if operation == "dl.requeue" and not ids and count > rate:
        since = f", {rate:,.0f} a second, in about {math.ceil(count / rate):,} s"
    if dead and (ended := dead[0].ended_at) is not None:
        since += f"; the first died {_ago(ended)} ago"
    return count, f"{said(count, shown.name, done, ids, would=True)}{since}"


def count_dead(store: Store) -> int:
    """Count the dead letters of a store."""
    return sum(count for _, status, count in store.counts() if status == "dead")


def check_seen(there: int, seen: int | None, name: str) -> None:
    """Refuse what was decided while there were others.

    Raises:
        RefusedError: There are more, or fewer, than its giver saw.
    """
    if seen is not None and there != seen:
        raise RefusedError("conflict", f"{there:,} letters of {name} are dead now, not {seen:,}")


def said(count: int, name: str, done: str, ids: list[int], *, would: bool = False) -> str:
    """Tell what became of dead letters, or would."""
    letters = "dead letter" if count == 1 else "dead letters"
    verb = "would be" if would else "is" if count == 1 else "are"
    text = f"{count:,} {letters} of {name} {verb} {done}"
    left = len(set(ids)) - count
    return f"{text}; {left:,} not dead any more" if ids and left > 0 else text


def _ago(then: datetime) -> str:
    seconds = max(0, round((datetime.now(UTC) - then).total_seconds()))
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _requeue(store: Store, which: Which) -> int:
    return sum(in_chunks(lambda limit: store.requeue(which, limit)))


def _discard(store: Store, which: Which) -> int:
    return sum(in_chunks(lambda limit: store.purge(DEAD, which, limit)))


def _peek(shown: Shown, id_: int) -> tuple[int, str, str]:
    if not shown.payloads:
        why = f"outbox '{shown.name}' does not show what its messages hold: see expose_payloads"
        raise RefusedError("readonly", why)
    found = _found(shown.store, [id_])
    if not found:
        raise RefusedError("not_found", f"message {id_} of {shown.name} is not dead any more")
    message = found[0]
    payload = message.payload
    if isinstance(payload, bytes):
        text = payload[:_MOST_PAYLOAD].hex(" ")
    else:
        text = message.body.decode(errors="replace")
    if len(text) > _MOST_PAYLOAD:
        text = text[:_MOST_PAYLOAD] + " …"
    letter = {**_letter(message, shown.tenant), "payload": text}
    told = {"store": shown.name, "all": 1, "r": [letter]}
    size = len(message.body)
    return 1, f"message {id_} of {shown.name} holds {size:,} bytes", json.dumps(told)
