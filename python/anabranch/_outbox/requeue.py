"""Dead letters that operators want handled again: all of a store, some of them each second.

Each was given up on. If what they failed of is still there, all of them at once would fail once
more before anybody could stop them, and hold up what has come since.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from anabranch._outbox.read import (
    PER_SECOND,
    RefusedError,
    check_seen,
    count_dead,
    log,
    said,
)
from anabranch._outbox.store import Which
from anabranch.errors import AnabranchError

if TYPE_CHECKING:
    from anabranch import _core
    from anabranch._outbox.read import Request
    from anabranch._outbox.shown import Shown

# Seconds between two parts.
_EVERY: Final = 0.1
# Letters that are read at once: each comes with its payload.
_PAGE: Final = 100


def is_long(request: Request) -> bool:
    """Whether a request may take long: it is about all dead letters of a store."""
    _, operation, _, ids, _, _, dry, _ = request
    return operation == "dl.requeue" and not ids and not dry


class Requeue:
    """An order to make all dead letters of a store ready again, that is being carried out.

    It goes through those there were when it was given, by their ids: one that dies again meanwhile
    is not made ready once more.
    """

    def __init__(
        self, outboxes: _core.Outboxes, request: Request, shown: Shown, now: float
    ) -> None:
        self._outboxes = outboxes
        self._request = request
        self.shown = shown
        self._rate = PER_SECOND if request[5] is None else request[5]
        self._all: int | None = None
        self._after = self._passed = self._done = 0
        self._begun = self.due = now

    def go_on(self, now: float) -> bool:
        """Make those ready again whose turn it is; return whether the order is over."""
        if now < self.due:
            return False
        self.due = now + _EVERY
        try:
            if self._all is None:
                self._all = self._count()
            over = self._part(self._all, now)
        except RefusedError as error:
            self._refuse(error.code, str(error))
            return True
        except AnabranchError as error:
            self.leave("failed", str(error))
            return True
        if over:
            message = self._so_far()
            self._outboxes.answer(self._request[0], self._done, message)
            log(self._request, message, worked=True)
        else:
            self._outboxes.progress(self._request[0], self._all - self._passed)
        return over

    def _count(self) -> int:
        there, seen = count_dead(self.shown.store), self._request[4]
        check_seen(there, seen, self.shown.name)
        return there

    def _part(self, all_: int, now: float) -> bool:
        store = self.shown.store
        # The first second's at once.
        allowed = int(self._rate * (1.0 + now - self._begun)) - self._passed
        while allowed > 0 and self._passed < all_:
            limit = min(allowed, _PAGE, all_ - self._passed)
            rows = store.rows(status="dead", topic=None, after=self._after, limit=limit)
            if not rows:
                return True
            ids = [row[0] for row in rows]
            self._done += store.requeue(Which(ids), len(ids))
            self._after = ids[-1]
            self._passed += len(ids)
            allowed -= len(ids)
        return self._passed >= all_

    def leave(self, code: str, why: str) -> None:
        """Make no more of them ready, and tell why, and how many were."""
        self._refuse(code, f"{why}; {self._so_far()}")

    def _so_far(self) -> str:
        return said(self._done, self.shown.name, "ready again", [])

    def _refuse(self, code: str, message: str) -> None:
        self._outboxes.refuse(self._request[0], code, message)
        log(self._request, message, worked=False)
