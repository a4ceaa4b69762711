"""Ctrl-C and SIGTERM while a pipeline runs on the main thread."""

from __future__ import annotations

import signal
import threading
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Generator
    from contextlib import AbstractContextManager
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
    """One run, how many signals it has had, and with which one it begins to raise them."""

    __slots__ = ("_raised", "_seen", "_target")

    def __init__(self, target: Stoppable, *, seen: int = 0, raised: int = 3) -> None:
        # Weak: the handler outlives a run whose loop was closed, and forgotten, under it.
        self._target = weakref.ref(target)
        self._seen = seen
        self._raised = raised

    def is_forgotten(self) -> bool:
        return self._target() is None

    def steer(self) -> bool:
        """Take one more signal; return whether it is to be raised."""
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
        return self._seen >= self._raised


# The runs of the main thread, by the signals that steer them, and the handlers that were there
# before. One handler serves them all: that of one run would hide the signals from the others.
_steered: dict[int, list[_Steered]] = {signal.SIGINT: [], signal.SIGTERM: []}
_before: dict[int, Any] = {}
_DEFAULTS: Final = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


def _steer(number: int, _frame: FrameType | None) -> None:
    steered = _steered[number]
    steered[:] = [one for one in steered if not one.is_forgotten()]
    raised = [one.steer() for one in tuple(steered)]
    # With nobody left to steer it is what it would be without us.
    if any(raised) or not raised:
        raise KeyboardInterrupt


def steering(target: Stoppable, *, interrupts: bool) -> AbstractContextManager[None]:
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
    wanted = [signal.SIGINT, signal.SIGTERM] if interrupts else [signal.SIGTERM]
    return _listening(_Steered(target), wanted)


def leaving(target: Stoppable) -> AbstractContextManager[None]:
    """Let Ctrl-C leave `target` where its event loop shuts down: asyncio has taken the first two.

    Raised out of the loop it would cut the shutdown short, and the report be lost; that is for the
    one after it, which may be meant for a callable that keeps the thread.

    Raises:
        KeyboardInterrupt: At the second Ctrl-C from here on, out of whatever runs then.
    """
    return _listening(_Steered(target, seen=2, raised=4), [signal.SIGINT])


@contextmanager
def _listening(one: _Steered, wanted: list[signal.Signals]) -> Generator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [number for number in wanted if _take_over(number)]
    for number in numbers:
        _steered[number].append(one)
    try:
        yield
    finally:
        for number in numbers:
            _let_go(number, one)


def _take_over(number: signal.Signals) -> bool:
    """Install the handler where the default is; return whether it is ours that is there."""
    there = signal.getsignal(number)
    if there is _DEFAULTS[number]:
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
