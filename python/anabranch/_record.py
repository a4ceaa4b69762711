"""What is told on an exception besides: notes, its attempts, and what was undone because of it.

A call by hand raises the exception of its callable as it is, so that `except OSError` stays what
it was; what the library knows of it travels on it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anabranch.compensation import Compensation
    from anabranch.failure import GaveUp

_NAME = "__anabranch__"
# An exception object that is raised again and again (`raise self.error`) must not grow for ever.
_MOST_NOTES = 8
_MOST_UNDONE = 1000


def audible(error: StopIteration | StopAsyncIteration) -> RuntimeError:
    """Return what is raised in place of what would end an iteration without a word (PEP 479)."""
    told = RuntimeError(f"{error!r} was raised, which an iteration takes for its end")
    told.__cause__ = error
    return told


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is known of an exception.

    Attributes:
        attempts: How often it was tried.
        delay: Seconds waited between the attempts, in all.
        earlier: The exceptions of the attempts before the last.
        gave_up: Why there was no further attempt.
        undone: What was undone because of it.
    """

    attempts: int = 1
    delay: float = 0.0
    earlier: tuple[BaseException, ...] = ()
    gave_up: GaveUp = "attempts"
    undone: tuple[Compensation, ...] = ()


_NOTHING = Record()


def record_of(error: BaseException) -> Record:
    """Return what is known of `error`."""
    try:
        found = vars(error).get(_NAME)
    except TypeError:  # one without attributes
        return _NOTHING
    return found if isinstance(found, Record) else _NOTHING


def record(error: BaseException, **known: Any) -> None:  # noqa: ANN401 - fields
    """Keep what is known of `error` with it."""
    if "undone" in known:
        known["undone"] = known["undone"][-_MOST_UNDONE:]
    # Whatever the exception's own methods do, it stays the error that is told.
    with contextlib.suppress(Exception):
        vars(error)[_NAME] = replace(record_of(error), **known)


def note(error: BaseException, text: str) -> None:
    """Note on `error` where it has come from, once."""
    line = f"anabranch: {text}"
    with contextlib.suppress(Exception):
        notes = getattr(error, "__notes__", ())
        if line not in notes and len(notes) < _MOST_NOTES:
            error.add_note(line)
