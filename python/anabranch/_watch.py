"""Being cut short: by the cancellation of a context, while others wait for what must end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

from anabranch.errors import Cancelled

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from anabranch.context import Context


def check(ctx: Context) -> None:
    """Raise a Cancelled if `ctx` is cancelled."""
    ctx._check()
    if ctx.cancelled:
        raise Cancelled(f"{ctx.name!r} was cancelled", reason="it was cancelled")


def stepped() -> asyncio.Task[Any] | None:
    """Return the task that is stepped now; None outside a loop."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def is_stepped(task: asyncio.Task[Any] | None) -> bool:
    """Return whether its loop runs a task now, and not somebody who closes its coroutine.

    A GeneratorExit comes of closing it, under a loop that is gone, and is not to be swallowed; one
    that the loop has stepped into was raised by a callable, and is an error like any other.
    """
    return task is not None and stepped() is task


class Watch:
    """Cuts its block short, by cancelling the task it runs in, when its context is cancelled.

    The context's cancellation then ends the block with `Cancelled`. A cancellation of the task by
    somebody else stays what it is, and comes first.
    """

    __slots__ = ("_before", "_ctx", "_loop", "_task", "_tokens", "fired", "over")

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._tokens = ctx._tokens()
        self.fired = False
        self.over = False

    async def __aenter__(self) -> Self:
        """Begin to look out.

        Raises:
            Cancelled: It is cancelled already.
        """
        self.begin()
        return self

    def begin(self) -> None:
        """Begin to look out, as `async with` does."""
        check(self._ctx)
        task = asyncio.current_task()
        if task is None:
            message = f"{self._ctx.name!r} must run in a task, e.g. by asyncio.run"
            raise RuntimeError(message)
        self._task = task
        self._before = task.cancelling()
        self._loop = asyncio.get_running_loop()
        for token in self._tokens:
            token._attach(self, self._wake)

    def _wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self.interrupt)
        except RuntimeError:  # the loop is closed: nothing is left to be cut short
            return

    def interrupt(self) -> None:
        """Cut the block short, if it has not ended; in the loop's thread."""
        if not (self.fired or self.over):
            self.fired = True
            self._task.cancel()

    def end(self) -> bool:
        """Take back the own cancellation; return whether there is another one."""
        self.over = True
        for token in self._tokens:
            token._detach(self)
        if self.fired:
            self._task.uncancel()
        return self._task.cancelling() > self._before

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Turn the own cancellation into a Cancelled."""
        other = self.end()
        if self.fired and not other and isinstance(error, asyncio.CancelledError):
            try:
                check(self._ctx)
            except Cancelled as cancelled:
                raise cancelled from error


async def joined(tasks: Iterable[asyncio.Future[Any]]) -> asyncio.CancelledError | None:
    """Wait for all, whatever happens meanwhile; return the cancellation that is to go on."""
    cancelled: asyncio.CancelledError | None = None
    while pending := [task for task in tasks if not task.done()]:
        try:
            await asyncio.wait(pending)
        except asyncio.CancelledError as error:
            cancelled = error
    return cancelled
