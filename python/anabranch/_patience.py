"""How long the callables of a run have to end once it is aborted, before they are left behind."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from anabranch import _core
    from anabranch._clock import RunClock
    from anabranch._pool import InlinePool, Pool
    from anabranch._tasks import Tasks

# Seconds.
_GRACE: Final = 5.0


class Patience:
    """Counts from the abort of one run.

    Args:
        clock: The run's clock.

    Attributes:
        due: When what does not end is left behind; None before the abort.
    """

    def __init__(self, clock: RunClock) -> None:
        self._clock = clock
        self.due: float | None = None
        self._aborted: float | None = None
        # How often it was due.
        self._times = 0
        # Whether the process ends: then it is due at once.
        self._hurried = False
        # What threads were at then; what they have begun since has as much time.
        self._stuck: list[_core.Job] = []

    def begin(self, pool: Pool | InlinePool | None) -> None:
        """Count from now, unless that has begun."""
        if self.due is None:
            self._aborted = self._clock.now()
            self.due = self._aborted + _GRACE
            self._stuck = [] if pool is None else pool.busy()

    def check(self, run: _core.Run, pool: Pool | InlinePool | None, crews: Tasks | None) -> None:
        """Leave behind what has had its time.

        What has begun since the abort, a flushed window for instance, is asked to end first.
        """
        if self.due is None or (self._clock.now() < self.due and not self._hurried):
            return
        self._hurried = False
        self.due = math.inf
        self._times += 1
        seconds = _GRACE * self._times
        error = _left_behind(seconds)
        later: list[_core.Job] = []
        if pool is not None:
            busy = pool.busy()
            later = [job for job in busy if job not in self._stuck]
            stuck = [job for job in busy if job in self._stuck]
            run.forsake(stuck, error, seconds, undo=False)
        others = crews is not None and crews.forsake(error, seconds, undo=False)
        if others or later:
            self._stuck = later
            self.due = self._clock.now() + _GRACE

    def hurry(self) -> None:
        """Leave behind soon what does not end, however long it has had; from any thread."""
        self._hurried = True

    def leave_handlers(self, run: _core.Run, pool: Pool | InlinePool | None) -> None:
        """Leave the handlers behind that threads are at."""
        seconds = self._passed()
        busy = [] if pool is None else pool.busy()
        run.forsake(busy, _left_behind(seconds), seconds, undo=False)

    def end(self, run: _core.Run, pool: Pool | InlinePool | None, crews: Tasks | None) -> None:
        """Leave behind all that has not ended, undo actions included."""
        seconds = self._passed()
        error = _left_behind(seconds)
        run.forsake([] if pool is None else pool.busy(), error, seconds, undo=True)
        if crews is not None:
            crews.forsake(error, seconds, undo=True)

    def _passed(self) -> float:
        """Return the seconds since the abort."""
        passed = 0.0 if self._aborted is None else self._clock.now() - self._aborted
        return round(passed, 2)


def _left_behind(seconds: float) -> asyncio.CancelledError:
    return asyncio.CancelledError(
        f"it had not ended {seconds:g} s after the run was aborted, and was left behind"
    )
