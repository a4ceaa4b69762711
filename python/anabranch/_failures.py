"""What becomes of an exception when it is a failure: its code, notes on it, what operators get."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from anabranch._callables import examine_action
from anabranch.codes import CODES
from anabranch.errors import AnabranchError, HandlerTimeout
from anabranch.failure import Failure, own_code, text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anabranch.failure import GaveUp

# An exception object that is raised again and again (`raise self.error`) must not grow for ever.
_MOST_NOTES = 8


def describe(
    error: BaseException, pipeline: str, stage: str, tenant: object, attempt: int | None
) -> str:
    """Note on `error` where it arose, and return the code it is counted under.

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
    return code_of(error)


def code_of(error: BaseException) -> str:
    """Return the code of an exception.

    The name of its type; an error of ours that has a code keeps it, and a cancellation is
    `cancelled`. No other type's name, and no code of a type derived from ours, is taken for one of
    these.
    """
    if isinstance(error, asyncio.CancelledError):
        return "cancelled"
    kind = type(error)
    code: object = kind.__name__
    if isinstance(error, AnabranchError):
        code = getattr(error, "code", None) or code
        if kind.__module__ == AnabranchError.__module__:
            return code if isinstance(code, str) else kind.__name__
    if not isinstance(code, str) or code in CODES:
        return _full_name(kind)
    return code


def _full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


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


def tell(  # noqa: PLR0917 - called by the extension
    error: BaseException,
    code: str,
    stage: str,
    tenant: object,
    items: int,
    attempts: int,
    delay: float,
    gave_up: GaveUp,
    history: Sequence[BaseException],
    item: object,
) -> Failure:
    """Make what operators are given of a failure, and what the report keeps."""
    return Failure(
        code=code,
        stage=stage,
        tenant=tenant,
        items=items,
        attempts=attempts,
        delay=delay,
        error=error,
        history=history,
        gave_up=gave_up,
        item=item,
    )


def mapped(failure: Failure, result: object) -> Failure:
    """Return the failure that a `map_error` has made of `failure`.

    Raises:
        TypeError: It has returned something else than a Failure or an exception.
        ValueError: The code of the Failure is one of the library's own.
    """
    if isinstance(result, Failure):
        # Where it arose, and what failed with it, is not the callable's to say.
        code = own_code(result.code, failure.code)
        return replace(failure, code=code, message=result.message, metadata=result.metadata)
    if not isinstance(result, Exception):
        message = f"map_error must return a Failure or an exception, got {type(result).__name__}"
        raise TypeError(message)
    if result.__cause__ is None and result is not failure.error:
        result.__cause__ = failure.error
    code = code_of(result)
    if code in CODES and code != failure.code:
        code = _full_name(type(result))
    fresh = Failure(code=code, stage=failure.stage, error=result)
    return replace(
        failure,
        code=fresh.code,
        message=text(result),
        error=result,
        metadata=fresh.metadata,
        children=fresh.children,
    )


@dataclass(frozen=True, slots=True)
class Callbacks:
    """What the extension calls back."""

    inspect: Callable[..., tuple[str, bool, bool, int, int]] = examine_action
    describe: Callable[..., str] = describe
    timed_out: Callable[..., BaseException] = timed_out
    undo_timed_out: Callable[..., BaseException] = undo_timed_out
    tell: Callable[..., Failure] = tell
    mapped: Callable[..., Failure] = mapped
