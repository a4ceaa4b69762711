"""What is noted on an exception when it becomes a failure."""

from __future__ import annotations

import asyncio
import contextlib

from anabranch.errors import AnabranchError, HandlerTimeout

# An exception object that is raised again and again (`raise self.error`) must not grow for ever.
_MOST_NOTES = 8


def describe(
    error: BaseException, pipeline: str, stage: str, tenant: object, attempt: int | None
) -> str:
    """Note on `error` where it arose, and return the code it is counted under.

    The code is the name of the exception's type; an error of our own that has a code keeps it,
    and a cancellation is `cancelled`.

    Args:
        error: The exception; its type and traceback stay as they are.
        pipeline: The pipeline's name.
        stage: The stage's name.
        tenant: The branch's key; None before the fan-out.
        attempt: The number of the attempt, where there may be several.
    """
    note = f"anabranch: in pipeline {pipeline!r}, stage {stage!r}"
    if tenant is not None:
        note += f", tenant {tenant!r}"
    if attempt is not None:
        note += f", attempt {attempt}"
    # Whatever the exception's own methods do, it stays the failure that is told.
    with contextlib.suppress(Exception):
        notes = getattr(error, "__notes__", ())
        if note not in notes and len(notes) < _MOST_NOTES:
            error.add_note(note)
    if isinstance(error, asyncio.CancelledError):
        return "cancelled"
    code = getattr(error, "code", None) if isinstance(error, AnabranchError) else None
    return code if isinstance(code, str) else type(error).__name__


def timed_out(pipeline: str, stage: str, timeout: float) -> HandlerTimeout:
    """Make the error of an attempt that took too long."""
    return HandlerTimeout(
        f"pipeline {pipeline!r}, stage {stage!r}: the attempt took longer than its timeout of "
        f"{timeout:g} s",
        timeout=timeout,
    )


def undo_timed_out(
    name: str,
    given: float,
    by_deadline: bool,  # noqa: FBT001 - called from the core, by position
    pipeline: str | None = None,
    stage: str | None = None,
) -> HandlerTimeout:
    """Make the error of an undo action that took longer than it may.

    Args:
        name: The action's name.
        given: The seconds it had.
        by_deadline: Whether its rollback's deadline has cut it short, not its own timeout.
        pipeline: The pipeline's name; None for a scope by itself.
        stage: The name of the stage that registered it.
    """
    place = "scope" if pipeline is None else f"pipeline {pipeline!r}, stage {stage!r}"
    if by_deadline:
        what = f"had not ended after {given:g} s, when the deadline of its rollback came"
        longer = "a later deadline for the rollback"
    else:
        what = f"took longer than its timeout of {given:g} s"
        longer = "a longer `timeout` where it is registered"
    retry = "" if pipeline is None else ", or run it again with `report.retry_stuck()`"
    return HandlerTimeout(
        f"{place}: undo {name!r} {what}; see whether its effect is undone{retry}. "
        f"If it needs the time, give it {longer}",
        timeout=given,
    )
