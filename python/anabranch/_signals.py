"""Ctrl-C and SIGTERM while a pipeline runs on the main thread."""

from __future__ import annotations

import signal
import threading
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import FrameType


class Stoppable(Protocol):
    """What signals steer."""

    def drain(self) -> None:
        """Stop intake, finish what is inside."""

    def abort(self) -> None:
        """Roll back at once."""

    def leave(self) -> None:
        """Wait for nothing any more."""


class _Steered:
    """One run, and how many signals it has had."""

    __slots__ = ("_seen", "_target")

    def __init__(self, target: Stoppable) -> None:
        # Weak: the handler outlives a run whose loop was closed, and forgotten, under it.
        self._target = weakref.ref(target)
        self._seen = 0

    def is_forgotten(self) -> bool:
        return self._target() is None

    def steer(self) -> bool:
        """Take one more signal; return whether it is the one to leave at."""
        self._seen += 1
        run = self._target()
        if run is None:
            return False
        if self._seen == 1:
            run.drain()
        elif self._seen == 2:  # noqa: PLR2004 - the second signal
            run.abort()
        else:
            run.leave()
        return self._seen > 2  # noqa: PLR2004 - the third


# The runs of the main thread, by the signals that steer them, and the handlers that were there
# before. One handler serves them all: that of one run would hide the signals from the others.
_steered: dict[int, list[_Steered]] = {signal.SIGINT: [], signal.SIGTERM: []}
_before: dict[int, Any] = {}


def _steer(number: int, _frame: FrameType | None) -> None:
    steered = _steered[number]
    steered[:] = [one for one in steered if not one.is_forgotten()]
    leaving = [one.steer() for one in tuple(steered)]
    # With nobody left to steer it is what it would be without us.
    if any(leaving) or not leaving:
        raise KeyboardInterrupt


@contextmanager
def steering(target: Stoppable, *, interrupts: bool) -> Generator[None]:
    """Let signals steer `target`: the first drains, the second aborts, the third leaves.

    All runs that are steered at the time take a signal, each as its own first, second or third.
    Handlers are only replaced where Python's own, or none, are installed, only on the main
    thread, and are put back when the last of these runs has ended.

    Args:
        target: The run.
        interrupts: Whether Ctrl-C counts; under asyncio it cancels the main task instead.

    Raises:
        KeyboardInterrupt: At the third signal, out of whatever runs then.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    one = _Steered(target)
    numbers = [
        number
        for number, default in (
            (signal.SIGINT, signal.default_int_handler),
            (signal.SIGTERM, signal.SIG_DFL),
        )
        if (interrupts or number != signal.SIGINT) and _take_over(number, default)
    ]
    for number in numbers:
        _steered[number].append(one)
    try:
        yield
    finally:
        for number in numbers:
            _let_go(number, one)


def _take_over(number: signal.Signals, default: object) -> bool:
    """Install the handler where the default is; return whether it is ours that is there."""
    there = signal.getsignal(number)
    if there is default:
        _before[number] = signal.signal(number, _steer)
        return True
    return there is _steer


def _let_go(number: signal.Signals, one: _Steered) -> None:
    steered = _steered[number]
    if one in steered:
        steered.remove(one)
    # On another thread only if the collector ends a forgotten run there: it cannot put back.
    here = threading.current_thread() is threading.main_thread()
    if here and not steered and signal.getsignal(number) is _steer:
        signal.signal(number, _before[number])
