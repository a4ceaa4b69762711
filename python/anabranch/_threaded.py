"""Calls in a thread of the event loop's executor."""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Threaded:
    """A call in a thread of the loop's executor."""

    def __init__(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._fn = fn
        self._args = args
        self._context = contextvars.copy_context()
        # Whose it is: the thread's that makes the call, or the loop's, which makes sure that it is
        # not made. Appending is one step: whoever comes first has it.
        self._claims: list[str] = []
        self._ended: StopIteration | None = None

    def __call__(self) -> Any:  # noqa: ANN401 - what the callable returns
        """Make the call, unless it was cut short before."""
        if not self._claim("thread"):
            return None
        try:
            return self._context.run(self._fn, *self._args)
        except StopIteration as error:
            # No future takes one: who waits would wait for ever.
            self._ended = error
            return None

    def cut_short(self) -> bool:
        """Return whether it has not begun, and so never will."""
        return self._claim("loop")

    def conclude(self) -> None:
        """Raise what the future could not; it gets out of a coroutine as a RuntimeError."""
        if self._ended is not None:
            raise self._ended

    def _claim(self, who: str) -> bool:
        self._claims.append(who)
        return self._claims[0] == who


async def in_thread(fn: Callable[..., T], *args: object) -> T:
    """Do as `asyncio.to_thread`, also with what may raise StopIteration."""
    call = Threaded(fn, args)
    value = await asyncio.get_running_loop().run_in_executor(None, call)
    call.conclude()
    return cast("T", value)
