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


@contextmanager
def steering(target: Stoppable, *, interrupts: bool) -> Generator[None]:
    """Let signals steer `target`: the first drains, the second aborts, the third leaves.

    Handlers are only replaced where Python's own, or none, are installed, only on the main
    thread, and are put back at the end.

    Args:
        target: The run.
        interrupts: Whether Ctrl-C counts; under asyncio it cancels the main task instead.

    Raises:
        KeyboardInterrupt: At the third signal, out of whatever runs then.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    seen = 0
    # Weak: the handler outlives a run whose loop was closed, and forgotten, under it.
    steered = weakref.ref(target)

    def steer(_number: int, _frame: FrameType | None) -> None:
        nonlocal seen
        seen += 1
        run = steered()
        if run is None:
            raise KeyboardInterrupt
        if seen == 1:
            run.drain()
        elif seen == 2:  # noqa: PLR2004 - the second signal
            run.abort()
        else:
            run.leave()
            raise KeyboardInterrupt

    replaced: dict[signal.Signals, Any] = {}
    if interrupts and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        replaced[signal.SIGINT] = signal.signal(signal.SIGINT, steer)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        replaced[signal.SIGTERM] = signal.signal(signal.SIGTERM, steer)
    try:
        yield
    finally:
        # On another thread only if the collector ends a forgotten run there: it cannot put back.
        if threading.current_thread() is threading.main_thread():
            for number, handler in replaced.items():
                signal.signal(number, handler)
