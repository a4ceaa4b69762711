"""When a plan is due: at the instants of a calendar, or every so many seconds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from anabranch import _core
from anabranch._legs import retry_policy
from anabranch._outbox.draft import milliseconds
from anabranch.errors import refused
from anabranch.policy import Retry

if TYPE_CHECKING:
    from datetime import timedelta

    Seconds: TypeAlias = float | timedelta

# Instants that were missed and are made up for, at once.
_MOST_MISSED = 1000


class Cadence(NamedTuple):
    """The instants of a plan, in milliseconds since 1970.

    Attributes:
        cron: A calendar, and the time zone it is about.
        every: Milliseconds between two instants.
        all: Whether those that were missed are made up for.
        jitter: Milliseconds that the messages of an instant are spread over.
    """

    cron: tuple[str, str | None] | None
    every: int | None
    all: bool
    jitter: int

    def after(self, at: int) -> int:
        """Return the first instant that is later."""
        if self.every is not None:
            return (at // self.every + 1) * self.every
        assert self.cron is not None  # noqa: S101 - one of the two is given
        expression, zone = self.cron
        policy = retry_policy(Retry.cron(expression, attempts=2, tz=zone))
        delay, _ = _core.Attempts(policy, 0).failed(0.0, at / 1000, None)
        assert delay is not None  # noqa: S101 - an expression that has no instant is refused
        return max(at + 1, round(at / 1000 + delay) * 1000)

    def due(self, first: int, now: int) -> tuple[list[int], int]:
        """Return the instants to plan now, of those from `first` on, and the next one after now."""
        following = self.after(max(first, now))
        if not self.all:
            # The latest: the others were missed. A calendar is asked from the first one on.
            return [self._latest(first, now)], following
        instants = [first]
        while len(instants) < _MOST_MISSED and (at := self.after(instants[-1])) <= now:
            instants.append(at)
        return instants, following

    def _latest(self, first: int, now: int) -> int:
        if self.every is not None:
            return max(first, now // self.every * self.every)
        for _ in range(_MOST_MISSED):
            at = self.after(first)
            if at > now:
                break
            first = at
        return first

    def text(self) -> str:
        """Return it as it is remembered: a plan whose cadence has changed begins anew."""
        return json.dumps([self.cron, self.every])


def cadence(
    cron: object, every: object, tz: object, missed: object, jitter: object, *, subject: str
) -> Cadence:
    """Check when a plan is due.

    Raises:
        ConfigError: An argument is not allowed.
    """
    if (cron is None) == (every is None):
        raise refused("cron", cron, "given, or every=, and not both", subject=subject)
    if missed not in ("skip", "all"):
        raise refused("missed", missed, "'skip' or 'all'", subject=subject)
    spread = milliseconds("jitter", jitter, subject=subject)
    if every is not None:
        if tz is not None:
            raise refused("tz", tz, "given with cron=", subject=subject)
        period = milliseconds("every", every, subject=subject, positive=True)
        return Cadence(None, period, missed == "all", spread)
    # It checks both, and tells what is wrong with them.
    Retry.cron(cron, attempts=2, tz=tz)  # type: ignore[arg-type]
    return Cadence((str(cron), None if tz is None else str(tz)), None, missed == "all", spread)
