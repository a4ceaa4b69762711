"""Runs that nothing drives any more: their event loop was closed, or stopped, or the process ends.

Nothing can be awaited there: what is in hand is given up, what can be undone without a loop is
undone, and what is not undone is told of. Nothing is lost silently.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from anabranch import _core
    from anabranch._patience import Patience
    from anabranch._pool import InlinePool, Pool
    from anabranch._tasks import Tasks
    from anabranch.report import Report

_logger = logging.getLogger("anabranch")

_FINISHED: Final = 2
# Seconds for `def` handlers to end, and then for undo actions.
_HANDLERS: Final = 0.5
_UNDOING: Final = 1.5
# How many codes, or undo actions, a line of the log names.
_SHOWN: Final = 5


def wind_up(
    run: _core.Run,
    tasks: Tasks | None,
    pool: Pool | InlinePool | None,
    patience: Patience,
) -> None:
    """Abort a run and drive it to its end, as far as it goes.

    Args:
        run: The run.
        tasks: Its tasks, whose coroutines are ended where they stand.
        pool: Its threads.
        patience: What leaves handlers behind.
    """
    run.abort()
    # Before anything fails: what handlers did is then undone with all the rest, in one order.
    run.step(in_loop=False)
    if tasks is not None:
        tasks.end_without_loop()
    if not _driven(run, _HANDLERS):
        patience.leave_handlers(run, pool)
        _driven(run, _UNDOING)


def _driven(run: _core.Run, seconds: float) -> bool:
    """Drive a run for so long; return whether it has ended."""
    until = time.monotonic() + seconds
    while run.step(in_loop=False) != _FINISHED:
        while (job := run.next_job()) is not None:
            job.failed(RuntimeError("there is no event loop any more"))
        left = until - time.monotonic()
        if left <= 0:
            return False
        longest = run.timeout()
        run.wait(left if longest is None else min(longest, left))
    return True


def warn(pipeline: object, name: str, why: str) -> None:
    """Warn that nobody has ended a run, as Python does of a file that nobody has closed.

    In the log, too, if somebody has configured it: a warning of this kind is shown to nobody who
    has not asked for it, and a log that is not configured writes to stderr, at the end of a program
    that may have ended well.

    Args:
        pipeline: The pipeline; with `tracemalloc`, Python tells where it was made.
        name: Its name.
        why: Why nothing drove it, to follow the name.

    Raises:
        ResourceWarning: If Python was told to make errors of them.
    """
    message = f"pipeline {name!r}: {why}; it was aborted"
    if _logger.hasHandlers():
        _logger.warning("%s", message)
    warnings.warn(message, ResourceWarning, stacklevel=2, source=pipeline)


def tell_failed(report: Report[Any]) -> None:
    """Log the codes of what has failed in a run."""
    if not report.codes:
        _logger.warning("%s", report.as_error().message)
        return
    # Whoever makes codes of what is in the items has very many.
    codes = sorted(report.codes.items(), key=lambda row: -row[1])
    shown = [f"{code} x{count}" if count else code for code, count in codes[:_SHOWN]]
    more = len(codes) - len(shown)
    _logger.warning(
        "pipeline %r %s with failures: %s",
        report.pipeline,
        report.outcome,
        ", ".join([*shown, f"{more} other codes"] if more else shown),
    )


def tell_stuck(report: Report[Any]) -> None:
    """Log the undo actions that are stuck at the end of a run."""
    if not report.stuck:
        return
    rows = Counter(
        f"{it.name!r} of stage {it.stage!r}" for it in report.compensations if it.action is not None
    )
    _logger.warning(
        "pipeline %r: %s again: %s",
        report.pipeline,
        "1 undo action is stuck, `report.retry_stuck()` tries it"
        if report.stuck == 1
        else f"{report.stuck} undo actions are stuck, `report.retry_stuck()` tries them",
        _listed(rows),
    )


def tell_owed(run: _core.Run, *, pipeline: str) -> None:
    """Log the undo actions that will not run, because the process ends before their run does."""
    rows = Counter({f"stage {stage!r}": owed for stage, owed in run.owed()})
    if rows:
        _logger.error(
            "pipeline %r: the process ends before its run does, and %s not run: %s",
            pipeline,
            "1 undo action or finalizer has"
            if rows.total() == 1
            else f"{rows.total()} undo actions and finalizers have",
            _listed(rows),
        )


def _listed(rows: Counter[str]) -> str:
    shown = [f"{count} x {row}" for row, count in rows.most_common(_SHOWN)]
    more = len(rows) - len(shown)
    return ", ".join([*shown, f"{more} others"] if more else shown)
