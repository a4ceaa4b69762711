"""A subscriber of messages, and what it says of those that it could not handle."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from anabranch import _core
from anabranch._legs import retry_policy
from anabranch._outbox.delivery import BACK, Delivery, Verdict
from anabranch._outbox.store import described
from anabranch.errors import Reject, RetryLater

if TYPE_CHECKING:
    from anabranch.policy import Retry


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscribed:
    """Who hears of what, and how often it tries."""

    subscriber: str
    pattern: str
    retry: Retry


class Taker(ABC):
    """A subscriber at work; subclasses say what becomes of what it is given.

    Args:
        handler: What was asked for.
        seed: Of the jitter; None draws one.
    """

    def __init__(self, handler: Subscribed, seed: int | None) -> None:
        self.handler = handler
        self.name = handler.subscriber
        self.attempts = handler.retry.attempts
        self.stopping = False
        self._seed = seed
        self._policy = retry_policy(handler.retry)

    @abstractmethod
    def give(self, deliveries: list[Delivery]) -> None:
        """Hand over what was claimed."""

    def begin(self, delivery: Delivery) -> bool:
        """Return whether a message is to be handled; if not, it goes back."""
        if self.stopping or delivery.lost or delivery.post.retired:
            delivery.post.settled(delivery, BACK)
            return False
        delivery.begun = True
        return True

    def verdict(self, delivery: Delivery, error: BaseException) -> Verdict:
        """Decide what follows an error."""
        if isinstance(error, RetryLater):
            return Verdict("back", error.delay)
        if isinstance(error, Reject):
            return Verdict("dead", error=described(error))
        delay = self._delay(delivery, error)
        if delay is None:
            return Verdict("dead", error=described(error))
        return Verdict("again", delay, described(error))

    def _delay(self, delivery: Delivery, error: BaseException) -> float | None:
        """Return the seconds until the next attempt; None: there is none."""
        retry = self.handler.retry
        if delivery.attempt >= retry.attempts or not retry.retryable(error):
            return None
        # The policy remembers what it has said; the message remembers only how often it failed.
        seed = hash((self._seed, delivery.id, delivery.attempt)) & (2**64 - 1)
        attempts = _core.Attempts(self._policy, seed)
        age = max(0.0, delivery.age)
        wall = time.time()
        delay: float | None = None
        for number in range(1, delivery.attempt + 1):
            asked = None
            if number == delivery.attempt and retry.delay is not None:
                asked = retry.seconds_after(number, cast("Exception", error))
                if asked is None:
                    return None
            since = age if number == delivery.attempt else 0.0
            delay, _ = attempts.failed(since, wall, asked)
            if delay is None:
                return None
        return delay
