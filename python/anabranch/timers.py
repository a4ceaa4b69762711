"""Timers: `delay`, `after`, and the `Ticker`, on the clock of their context."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from anabranch._calls import (
    act,
    attempt,
    begun,
    check_context,
    check_seconds,
    conduct,
    now_of,
    pause_blocking,
)
from anabranch._moment import moment
from anabranch._waiting import check_may_block
from anabranch.errors import ClosedError

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from datetime import datetime, timedelta
    from types import TracebackType

    from anabranch._calls import Part
    from anabranch.context import Context
    from anabranch.result import Result

T = TypeVar("T")


async def delay(seconds: float | timedelta, *, ctx: Context | None = None) -> None:
    """Wait.

    Args:
        seconds: How long; 0 lets others go first.
        ctx: What cuts it short, if it is cancelled.

    Raises:
        ConfigError: `seconds` is no number, or negative.
        Cancelled: `ctx` was cancelled.

    Example:
        >>> import anabranch as ab
        >>> ab.testing.run(ab.delay(3600.0))
    """
    limit = check_seconds(seconds, "seconds", "delay")
    check_context(ctx, "delay")
    await conduct(begun(ctx, "delay"), lambda _: asyncio.sleep(limit), "delay")


@overload
async def after(
    seconds: float | timedelta,
    fn: Part[Awaitable[Result[T]] | Result[T]],
    *,
    ctx: Context | None = None,
) -> T: ...
@overload
async def after(
    seconds: float | timedelta,
    fn: Part[Awaitable[T]],
    *,
    ctx: Context | None = None,
) -> T: ...
@overload
async def after(
    seconds: float | timedelta,
    fn: Part[T],
    *,
    ctx: Context | None = None,
) -> T: ...
async def after(
    seconds: float | timedelta,
    fn: Part[Any],
    *,
    ctx: Context | None = None,
) -> Any:
    """Wait, then call something, and return its result.

    To have it happen beside other things, make it a child of a group:
    `group.go(ab.after, 5.0, remind)`.

    Args:
        seconds: How long to wait.
        fn: Takes nothing, or `ctx`; for arguments use `functools.partial`. A `def` is called in
            the event loop's thread.
        ctx: What the call is a part of; if it is cancelled while waiting, `fn` is not called.

    Raises:
        ConfigError: An argument is not allowed.
        Cancelled: `ctx` was cancelled.
        Exception: What `fn` raises; what it did is undone.

    Example:
        >>> import anabranch as ab
        >>> ab.testing.run(ab.after(3600.0, lambda: "an hour later"))
        'an hour later'
    """
    limit = check_seconds(seconds, "seconds", "after")
    part = act(fn, "after")
    check_context(ctx, "after")

    async def body(call: Context) -> Any:  # noqa: ANN401 - what fn returns
        await asyncio.sleep(limit)
        return await attempt(part, call)

    return await conduct(begun(ctx, part.name), body, "after")


@dataclass(frozen=True, slots=True)
class Tick:
    """One tick.

    Attributes:
        number: Its number: it was due `number` periods after the ticker's beginning.
        at: When it was due, in seconds of the clock.
        missed: How many ticks were due since the one read before and were not read.
    """

    number: int
    at: float
    missed: int


class Ticker:
    """Ticks at the multiples of a period; made by `ab.ticker`.

    Iterate over it by `async for`, or, in a thread, by `for`; or give it to `Pipeline.source`. As a
    context manager it is stopped where its block is left, however that happens.
    """

    def __init__(self, period: float, ctx: Context | None) -> None:
        self._period = period
        self._call = begun(ctx, "ticker")
        self._began: float | None = None
        self._number = 0
        self._reading = False
        self._asked = False
        self._stopped = False
        self._since: datetime | None = None

    @property
    def period(self) -> float:
        """Seconds from one tick to the next."""
        return self._period

    def stop(self) -> None:
        """End it: who iterates comes to the end after the tick that is waited for."""
        if not self._stopped:
            self._since = moment()
        self._stopped = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def __aiter__(self) -> Self:
        """Begin; ticks are counted from here.

        Raises:
            ClosedError: It is read already, or was stopped.
        """
        return self.__iter__()

    async def __anext__(self) -> Tick:
        """Wait for the next tick.

        Raises:
            Cancelled: The context was cancelled.
        """
        number, wait = self._next(StopAsyncIteration)
        self._reading = True
        try:
            from anabranch._watch import Watch

            async with Watch(self._call):
                await asyncio.sleep(wait)
        finally:
            self._reading = False
        return self._read(number, StopAsyncIteration)

    def __iter__(self) -> Self:
        """Begin; ticks are counted from here.

        Raises:
            ClosedError: It is read already, or was stopped.
        """
        if self._stopped:
            raise ClosedError("the ticker was stopped: make a new one", since=self._since)
        # Who is given an iterator asks it for its iterator again: that reads nothing.
        if self._asked:
            raise ClosedError("the ticker has one reader, and has been read: make a new one")
        self._began = now_of(self._call)
        return self

    def __next__(self) -> Tick:
        """Wait for the next tick in this thread.

        Raises:
            Cancelled: The context was cancelled.
            RuntimeError: It would block a running event loop.
        """
        check_may_block("iterate by `async for`")
        number, wait = self._next(StopIteration)
        pause_blocking(self._call, wait)
        return self._read(number, StopIteration)

    def _next(self, end: type[Exception]) -> tuple[int, float]:
        if self._reading:
            raise ClosedError(
                "the ticker has one reader, and somebody else waits for its next tick"
            )
        if self._stopped:
            raise end
        self._asked = True
        if self._began is None:
            self._began = now_of(self._call)
        # Counted, not added up: however many there are, they stay on the multiples.
        number = self._number + 1
        late = self._due()
        number = max(number, late)
        return number, max(0.0, self._began + number * self._period - now_of(self._call))

    def _due(self) -> int:
        """Return the number of the latest tick that is due."""
        assert self._began is not None  # noqa: S101 - for the type
        number = int((now_of(self._call) - self._began) / self._period)
        # The quotient of floats may be off by one.
        while self._began + (number + 1) * self._period <= now_of(self._call):
            number += 1
        while number > 0 and self._began + number * self._period > now_of(self._call):
            number -= 1
        return number

    def _read(self, number: int, end: type[Exception]) -> Tick:
        if self._stopped:
            raise end
        assert self._began is not None  # noqa: S101 - for the type
        number = max(number, self._due())
        missed = number - self._number - 1
        self._number = number
        return Tick(number, self._began + number * self._period, missed)


def ticker(period: float | timedelta, *, ctx: Context | None = None) -> Ticker:
    """Tick at the multiples of a period, counted from the beginning of the iteration.

    It does not drift: a reader that is slow reads the latest tick, and how many it has missed.

    Args:
        period: Seconds from one tick to the next, more than 0.
        ctx: What ends it, if it is cancelled, and whose clock it goes by.

    Raises:
        ConfigError: An argument is not allowed.

    Example:
        >>> import asyncio
        >>> import anabranch as ab
        >>> async def main() -> None:
        ...     async for tick in ab.ticker(10.0):
        ...         print(tick.number, tick.at, tick.missed)
        ...         await asyncio.sleep(25.0 if tick.number == 1 else 1.0)
        ...         if tick.number == 4:
        ...             break
        >>> ab.testing.run(main())
        1 10.0 0
        3 30.0 1
        4 40.0 0
    """
    seconds = check_seconds(period, "period", "ticker", exclusive=True)
    check_context(ctx, "ticker")
    return Ticker(seconds, ctx)
