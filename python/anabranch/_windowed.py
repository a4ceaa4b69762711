"""`window` by hand: the items of a reader in lists."""

from __future__ import annotations

import asyncio
import operator
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, SupportsIndex, TypeVar, cast

from anabranch import _core
from anabranch._calls import act, check_context
from anabranch._record import audible, note
from anabranch.channel import Channel
from anabranch.errors import ChannelClosed, refused

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta
    from types import TracebackType

    from anabranch.context import Context

T = TypeVar("T")

# The most bytes that are counted of one item, as in a pipeline.
_LARGEST = 0xFFFF_FFFF
# How many items are taken at once where nothing else says.
_MOST = 1000


class Windowed(Generic[T]):
    """The windows of a reader; made by `ab.window`. Iterate over it, with `async for` or `for`."""

    def __init__(
        self,
        reader: Channel[T],
        options: dict[str, Any],
        size_of: Callable[[T], int] | None,
        ctx: Context | None,
    ) -> None:
        self._reader = reader
        self._ctx = ctx
        self._most: int | None = options["max_items"]
        self._sized = options["max_bytes"] is not None
        self._size_of = size_of or cast("Callable[[T], int]", len)
        self._core = _core.Window(**options)
        # Where each item of the window that has not left was taken from, if there are lanes.
        self._places: list[tuple[int, int]] = []
        self._reason: Literal["size", "age", "idle", "bytes", "close"] | None = None
        self._age = 0.0
        self._end: Exception | None = None

    @property
    def reason(self) -> Literal["size", "age", "idle", "bytes", "close"] | None:
        """Why the last window left; None before the first."""
        return self._reason

    @property
    def age(self) -> float:
        """Seconds from the last window's first item to its leaving."""
        return self._age

    @property
    def filled(self) -> int:
        """How many items are in the window that has not left yet."""
        return len(self._core)

    def close(self) -> None:
        """Put the items of the window that has not left back into the reader."""
        if len(self._core):
            items, _, _ = self._core.cut(0.0)
            while items:
                self._return(items.pop())

    async def aclose(self) -> None:
        """Do the same: a pipeline whose source it is closes it by this."""
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[T]:
        """Wait for the next window.

        Raises:
            Cancelled: The context was cancelled; what has been taken stays, see `close`.
            ConfigError: `size_of` returned no size; its item is in the reader again.
            Exception: The error the reader was closed with, after the last window; or what
                `size_of` raised, whose item is in the reader again.
        """
        loop = asyncio.get_running_loop()
        reader, ctx = self._reader, self._ctx
        if ctx is not None:
            reader._begin(ctx)
        while (found := self._gather(loop.time())) is None:
            take = partial(reader._core.receive_many, self._room(), places=self._places)
            left = self._left(loop.time())
            try:
                items = await reader._in_turn(reader._core.join_receivers, take, left, ctx)
            except Exception as error:  # noqa: BLE001 - it is the reader's end,
                if ctx is not None:
                    reader._begin(ctx)  # unless this raises: then it was the context's
                self._end = error
            else:
                self._fill(items, loop.time())
        if not found:
            raise StopAsyncIteration
        return found

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> list[T]:
        """Block this thread until the next window.

        Raises:
            Cancelled: The context was cancelled; what has been taken stays, see `close`.
            ConfigError: `size_of` returned no size; its item is in the reader again.
            Exception: The error the reader was closed with, after the last window; or what
                `size_of` raised, whose item is in the reader again.
        """
        reader, ctx = self._reader, self._ctx
        if ctx is not None:
            reader._begin(ctx)
        while (found := self._gather(time.monotonic())) is None:
            take = partial(reader._core.receive_many, self._room(), places=self._places)
            left = self._left(time.monotonic())
            try:
                items = reader._in_turn_blocking(reader._core.join_receivers, take, left, ctx)
            except Exception as error:  # noqa: BLE001 - it is the reader's end,
                if ctx is not None:
                    reader._begin(ctx)  # unless this raises: then it was the context's
                self._end = error
            else:
                self._fill(items, time.monotonic())
        if not found:
            raise StopIteration
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # What it has gathered would be lost to the channel's other readers.
        if hasattr(self, "_core"):
            self.close()

    def __repr__(self) -> str:
        return f"<Windowed: {self.filled} items of {self._reader.name!r}>"

    def _gather(self, now: float) -> list[T] | None:
        """Take what is there; return a window that must leave, [] at the end, None before it.

        Raises:
            Exception: The error the reader was closed with.
        """
        if self._core.due(now):
            return self._cut(now)
        if self._end is None:
            try:
                items = self._reader._core.receive_many(self._room(), None, self._places)
            except Exception as error:  # noqa: BLE001 - it is the reader's end
                self._end = error
            else:
                self._fill(items, now)
        if self._core.due(now) or (self._end is not None and len(self._core)):
            return self._cut(now)
        if self._end is None:
            return None
        if self._reader._core.failed or not isinstance(self._end, ChannelClosed):
            if isinstance(self._end, StopIteration | StopAsyncIteration):
                raise audible(self._end)
            raise self._end
        return []

    def _fill(self, items: list[T], now: float) -> None:
        for item in items:
            try:
                self._core.push(item, self._size(item) if self._sized else 0, now)
            except BaseException as error:
                # What cannot be weighed was not taken: it came alone, so nothing is behind it.
                self._return(item)
                note(error, f"size_of of a window of {self._reader.name!r}")
                if isinstance(error, StopIteration | StopAsyncIteration):
                    raise audible(error) from error
                raise

    def _size(self, item: T) -> int:
        size = cast("object", self._size_of(item))
        if isinstance(size, SupportsIndex) and (number := operator.index(size)) >= 0:
            return min(number, _LARGEST)
        raise refused(
            "what size_of returns", size, "a number of bytes, an int >= 0", subject="window"
        )

    def _return(self, item: T) -> None:
        self._reader._core.put_back(item, self._places.pop() if self._places else None)

    def _room(self) -> int:
        """Return how many items may be taken with nothing to decide in between."""
        if self._sized:
            return 1
        return _MOST if self._most is None else self._most - len(self._core)

    def _left(self, now: float) -> float | None:
        until = self._core.deadline()
        return None if until is None else max(0.0, until - now)

    def _cut(self, now: float) -> list[T]:
        items, reason, self._age = self._core.cut(now)
        self._places.clear()
        self._reason = cast("Any", reason)
        return items


def window(
    reader: Channel[T],
    *,
    max_items: int | None = None,
    max_age: float | timedelta | None = None,
    idle: float | timedelta | None = None,
    max_bytes: int | None = None,
    size_of: Callable[[T], int] | None = None,
    ctx: Context | None = None,
) -> Windowed[T]:
    """Read a channel in lists.

    A window leaves at whichever comes first, and when the reader has ended; it is never empty, and
    keeps the order. Items are taken when somebody asks for the next window; so a slow consumer
    holds back those who send.

    Args:
        reader: The channel.
        max_items: Leave with this many items.
        max_age: Leave this many seconds after the first item was taken, however fast others
            follow; 0 leaves with whatever is there.
        idle: Leave when nothing has come for this many seconds.
        max_bytes: Leave with this many bytes or more.
        size_of: Returns the bytes of one item; by default `len`. An item for which it raises stays
            in the reader.
        ctx: What ends the waiting for the next window, if it is cancelled.

    Returns:
        What to iterate over, with `async for` or `for`; its `reason` tells why the last window
        left, and `close` puts back what is in the one that has not.

    Raises:
        ConfigError: An argument is not allowed, or nothing would ever make a window leave.

    Example:
        >>> import anabranch as ab
        >>> lines: ab.Channel[str] = ab.Channel(10)
        >>> lines.send_many_nowait("abcde")
        >>> lines.close()
        >>> windows = ab.window(lines, max_items=2)
        >>> [(lines, windows.reason) for lines in windows]
        [(['a', 'b'], 'size'), (['c', 'd'], 'size'), (['e'], 'close')]
    """
    if not isinstance(cast("object", reader), Channel):
        raise refused("reader", reader, "a Channel", subject="window")
    options: dict[str, Any] = _core.check_window(
        {"max_items": max_items, "max_age": max_age, "idle": idle, "max_bytes": max_bytes}
    )
    options.pop("on_cancel", None)
    if size_of is not None:
        call = act(size_of, "window", argument="size_of", args=(None,), gives="an item")
        if call.is_async or max_bytes is None:
            allowed = "a def that is given an item, beside max_bytes"
            raise refused("size_of", size_of, allowed, subject="window", shown=call.name)
    check_context(ctx, "window")
    return Windowed(reader, options, size_of, ctx)
