"""A message on its way to one subscriber, and what became of it there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from anabranch._outbox.message import Message

if TYPE_CHECKING:
    import asyncio

    from anabranch._outbox.inline import InlinePost
    from anabranch._outbox.post import Post
    from anabranch._outbox.store import Division, Row
    from anabranch._outbox.taker import Taker


# Milliseconds that the worker's clock and the store's may differ by within one claim.
_SKEW: Final = 100
_A_MOMENT: Final = 1000


class Verdict(NamedTuple):
    """What became of a message at one subscriber.

    Attributes:
        kind: "done"; "again": it failed, and is to be tried again; "dead"; "back": it was not
            begun, or the attempt does not count.
        delay: Seconds until the next attempt.
        error: What happened.
    """

    kind: Literal["done", "again", "dead", "back"]
    delay: float = 0.0
    error: str | None = None


DONE: Final = Verdict("done")
BACK: Final = Verdict("back")


class Delivery(Message):
    """A message as one subscriber gets it.

    Attributes:
        post: Where it was claimed, and is to be ended.
        lane: Whose it is.
        share: The message as a whole, if it has several subscribers.
        begun: Whether its handler was called.
        lost: Whether the lease is over: what becomes of it now is not ours to say.
        task: The task its handler runs in, if it is an `async def`.
    """

    __slots__ = (
        "_attempt",
        "_connection",
        "begun",
        "branch",
        "lane",
        "lost",
        "post",
        "share",
        "task",
    )

    def __init__(
        self,
        row: Row,
        post: Post | InlinePost,
        lane: Taker,
        attempt: int,
        connection: object = None,
    ) -> None:
        # Not by way of its base: a worker makes one for each message.
        self._row = row
        self._store = post.label
        tenant = post.tenant
        self._tenant = row[25] if tenant is None else tenant
        self.post = post
        # One table may hold the messages of many tenants.
        self.branch = post.branch if row[25] is None or tenant is not None else row[25]
        self.lane = lane
        self._attempt = attempt
        self._connection = connection
        self.share: Share | None = None
        self.begun = False
        self.lost = False
        self.task: asyncio.Task[Any] | None = None

    @property
    def connection(self) -> Any:  # noqa: ANN401 - of whatever driver
        """The connection of its transaction, of a worker with `ack="inline"`; None otherwise."""
        return self._connection

    @property
    def subscriber(self) -> str:
        """Whose it is to handle."""
        return self.lane.name

    @property
    def attempt(self) -> int:
        """The number of this attempt at this subscriber."""
        return self._attempt

    @property
    def age(self) -> float:
        """Seconds between its enqueuing and its claim."""
        return (int(self._row[19]) - int(self._row[11])) / 1000


class Share:
    """A message that has several subscribers, or waits for some of them.

    How far each has come stands with the message, so that one who fails does not make the others
    handle it again.

    Args:
        row: The message.
        waiting: The subscribers it waits for.
    """

    def __init__(self, row: Row, waiting: list[str]) -> None:
        self.row = row
        self.parts: dict[str, Delivery] = {}
        self._verdicts: dict[str, Verdict] = {}
        self._waiting = waiting
        progress: dict[str, Any] = json.loads(row[22]) if row[22] else {}
        # Of each: how often it failed, and when it is due again; and of those that gave up, why.
        self._failed: dict[str, int] = progress.get("failed", {})
        self._due: dict[str, int] = progress.get("due", {})
        self._dead: dict[str, str] = progress.get("dead", {})
        # The message's attempt when all that was written: those after it were cut off.
        self._base: int = progress.get("attempt", 0)

    def is_due(self, subscriber: str) -> bool:
        """Whether a subscriber is to get the message now."""
        due: int = self._due.get(subscriber, 0)
        now: int = self.row[19]
        return due <= now + _SKEW

    def postponed(self) -> Division:
        """Return what is to be written if nobody here is to get it now."""
        now = int(self.row[19])
        # One that others are to get now is left to them for a moment.
        delay = max(_A_MOMENT, min(self._due.get(it, 0) for it in self._waiting) - now)
        receipt = (self.row[0], self.row[17], self.row[20])
        return (*receipt, delay, self._waiting, self.row[22], None, False)

    def attempt(self, subscriber: str) -> int:
        """The number of a subscriber's attempt that this claim is."""
        failed: int = self._failed.get(subscriber, 0)
        return failed + int(self.row[15]) - self._base

    def settle(self, subscriber: str, verdict: Verdict) -> bool:
        """Note what became of a part, once; return whether that was the last one."""
        self._verdicts.setdefault(subscriber, verdict)
        return len(self._verdicts) == len(self.parts)

    def settled(self, subscriber: str) -> bool:
        """Whether it is known what became of a part."""
        return subscriber in self._verdicts

    def divided(self, elapsed: int) -> Division | None:
        """Return what is to be written; None: everyone is done, and the message, too.

        Args:
            elapsed: Milliseconds since it was claimed.
        """
        now = int(self.row[19]) + elapsed
        errors: list[str] = []
        for subscriber, verdict in self._verdicts.items():
            attempt = self.attempt(subscriber)
            if verdict.error is not None:
                errors.append(f"{subscriber}: {verdict.error}")
            if verdict.kind in ("again", "back"):
                self._failed[subscriber] = attempt - (verdict.kind == "back")
                self._due.pop(subscriber, None)
                if verdict.delay:
                    self._due[subscriber] = now + round(verdict.delay * 1000)
                continue
            self._waiting.remove(subscriber)
            self._failed.pop(subscriber, None)
            self._due.pop(subscriber, None)
            if verdict.kind == "dead":
                self._dead[subscriber] = (verdict.error or "")[:200]
        progress = {
            "attempt": self.row[15],
            "failed": self._failed,
            "due": self._due,
            "dead": self._dead,
        }
        text = json.dumps(progress, ensure_ascii=False)
        receipt = (self.row[0], self.row[17], self.row[20])
        error = "\n".join(errors) or None
        if self._waiting:
            delay = min(max(0, self._due.get(it, 0) - now) for it in self._waiting)
            return (*receipt, delay, self._waiting, text, error, True)
        if self._dead:
            return (*receipt, None, list(self._dead), text, error, True)
        return None
