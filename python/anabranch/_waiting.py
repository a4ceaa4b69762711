"""How one who waits at a channel sleeps, and is woken from any thread."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from anabranch._watch import check

if TYPE_CHECKING:
    from collections.abc import Generator

    from anabranch.context import Context

# How long the main thread sleeps at a stretch: signal handlers run in between.
_LONGEST_SLEEP: Final = 0.25
# None where there is none, with no exception to be caught at each waking.
_loop_of_this_thread: Final = asyncio._get_running_loop


class TaskWaiter:
    """A task of the running loop, asleep.

    Attributes:
        woken: What is done once it is woken; awaited itself, it costs no coroutine.
    """

    __slots__ = ("_loop", "woken")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.woken: asyncio.Future[None] = self._loop.create_future()

    def wake(self) -> None:
        """Wake the task, from any thread.

        Raises:
            RuntimeError: Its loop is closed.
        """
        if _loop_of_this_thread() is self._loop:
            self._rise()
        else:
            self._loop.call_soon_threadsafe(self._rise)

    async def sleep(self, seconds: float | None) -> None:
        """Sleep until woken, at most so long; a timer of ours costs less than `asyncio.timeout`."""
        timer = None if seconds is None else self._loop.call_later(seconds, self._rise)
        try:
            await self.woken
        finally:
            if timer is not None:
                timer.cancel()

    def _rise(self) -> None:
        if not self.woken.done():
            self.woken.set_result(None)


class ThreadWaiter:
    """A thread, asleep: with Python's frames only, and open to signals."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def wake(self) -> None:
        """Wake the thread, from any other."""
        if self._lock.locked():
            self._lock.release()

    def sleep(self, seconds: float | None) -> None:
        """Sleep until woken, at most so long; with 0 seconds or less not at all.

        Raises:
            RuntimeError: An event loop runs in this thread.
        """
        if seconds is None or seconds > 0:
            check_may_block("await send(), receive() or their like")
        if threading.current_thread() is threading.main_thread():
            self._sleep_lightly(math.inf if seconds is None else seconds)
        elif seconds is None:
            self._lock.acquire()
        else:
            self._lock.acquire(timeout=min(max(seconds, 0.0), threading.TIMEOUT_MAX))

    def _sleep_lightly(self, seconds: float) -> None:
        # A signal that comes just before the lock goes to sleep does not wake it.
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self._lock.acquire(timeout=min(left, _LONGEST_SLEEP)):
                return


def check_may_block(instead: str) -> None:
    """Raise a RuntimeError, which tells what to do instead, where an event loop runs."""
    if _loop_of_this_thread() is not None:
        raise RuntimeError(
            f"waiting here would block the event loop that runs in this thread; {instead} instead"
        )


@contextmanager
def roused(waiter: TaskWaiter | ThreadWaiter, ctx: Context) -> Generator[None]:
    """Wake a waiter when its context is cancelled, and then raise.

    Raises:
        Cancelled: It is cancelled.
    """

    def wake() -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody is left to be woken
            waiter.wake()

    tokens = ctx._tokens()
    try:
        for token in tokens:
            token._attach(waiter, wake)
        yield
    finally:
        for token in tokens:
            token._detach(waiter)
    check(ctx)
