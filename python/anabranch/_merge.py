"""`merge`: many readers, read as one, in the order a strategy says."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Generic, Self, TypeVar, cast

from anabranch._calls import (
    begun,
    check_context,
    check_seconds,
    conduct,
    conduct_blocking,
    imposed,
)
from anabranch._destination import check_destination, ending
from anabranch._moment import moment
from anabranch._readers import NOTHING, OnFault, Readers
from anabranch._waiting import TaskWaiter, ThreadWaiter
from anabranch._watch import check
from anabranch.errors import ChannelClosed, ChannelEmpty, ClosedError
from anabranch.result import Err

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime, timedelta
    from types import TracebackType

    from anabranch._readable import Readable
    from anabranch.channel import Channel
    from anabranch.context import Context
    from anabranch.strategy import Chooser, Strategy

T = TypeVar("T")

# After so many items that did not have to be waited for, others have their turn.
_STRETCH = 256


class Merge(Generic[T]):
    """Many readers read as one; made by `ab.merge`.

    It has no buffer and no task: each item is chosen, and taken from its channel, when somebody
    asks for it. It has one reader, which may be a task or a thread.

    From one item to the next it keeps its place in the line of each source, so that idle sources
    cost nothing: what comes meanwhile may be promised to it, an item of each, and is kept from
    others who read the same channel until it is received here, or the merge is closed. Close it,
    by its block or `close`, when you read no more. A receive that ends without an item gives up
    what was promised.
    """

    def __init__(self, readers: Iterable[object], strategy: object, on_fault: object) -> None:
        self._readers = Readers(readers, strategy, on_fault, "merge")
        self._began = False
        self._closed = False
        self._since: datetime | None = None
        self._waiting = False
        # The source of the item that was given last: it may be read again with the next one.
        self._last: int | None = None

    @property
    def received(self) -> dict[str, int]:
        """How many items came from each source, by its name."""
        counts: dict[str, int] = {}
        for source, count in zip(self._readers.sources, self._readers.read, strict=True):
            counts[source.name] = counts.get(source.name, 0) + count
        return counts

    @property
    def faults(self) -> Mapping[str, Exception]:
        """The errors that sources were closed with, by their names."""
        return dict(self._readers.faults)

    async def receive(self, *, timeout: float | timedelta | None = None) -> T:  # noqa: ASYNC109 - as a channel's
        """Take the next item; wait for one if need be.

        Args:
            timeout: Seconds to wait at most; with 0 or less it does not wait.

        Raises:
            ChannelClosed: All sources have ended, or the merge was closed.
            Exception: The error of a source, as `on_fault` has it, or of the strategy.
            TimeoutError: Nothing came in time.
        """
        seconds = self._seconds(timeout)
        item = self._take()
        if item is not NOTHING:
            return cast("T", item)
        loop = asyncio.get_running_loop()
        until = None if seconds is None else loop.time() + seconds
        self._wait()
        try:
            while item is NOTHING:
                left = None if until is None else until - loop.time()
                if left is not None and left <= 0:
                    raise self._too_late(seconds)
                waiter = TaskWaiter()
                if self._readers.core.sleep(waiter.wake):
                    await waiter.sleep(left)
                item = self._take()
        finally:
            self._waiting = False
            self._rest(item)
        return cast("T", item)

    def receive_blocking(self, *, timeout: float | timedelta | None = None) -> T:
        """Take the next item; block this thread until there is one.

        Args:
            timeout: Seconds to wait at most; with 0 or less it does not wait.

        Raises:
            ChannelClosed: All sources have ended, or the merge was closed.
            Exception: The error of a source, as `on_fault` has it, or of the strategy.
            TimeoutError: Nothing came in time.
            RuntimeError: It would block a running event loop.
        """
        seconds = self._seconds(timeout)
        item = self._take()
        if item is not NOTHING:
            return cast("T", item)
        until = None if seconds is None else time.monotonic() + seconds
        self._wait()
        try:
            while item is NOTHING:
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0:
                    raise self._too_late(seconds)
                waiter = ThreadWaiter()
                if self._readers.core.sleep(waiter.wake):
                    waiter.sleep(left)
                item = self._take()
        finally:
            self._waiting = False
            self._rest(item)
        return cast("T", item)

    def receive_nowait(self) -> T:
        """Take the next item at once.

        Raises:
            ChannelEmpty: Nothing is ready now.
            ChannelClosed: All sources have ended, or the merge was closed.
            Exception: The error of a source, as `on_fault` has it, or of the strategy.
        """
        item = self._take()
        if item is NOTHING:
            if not self._waiting:
                self._readers.leave()
            raise ChannelEmpty("merge: no source has an item to be received now")
        return cast("T", item)

    async def into(
        self,
        destination: Channel[T],
        *,
        close_destination: bool = True,
        ctx: Context | None = None,
    ) -> int:
        """Send all items into a channel, until the sources have ended.

        An item is taken only when it can be sent; one that finds the destination closed is put
        back.

        Args:
            destination: The channel. When the sources have ended it is closed; when they fail, or
                the strategy does, or this is cancelled, it is closed with the error.
            close_destination: False: leave it open, however this ends.
            ctx: What the call is a part of.

        Returns:
            How many items were sent.

        Raises:
            ConfigError: An argument is not allowed, or the destination is one of the sources.
            ChannelClosed: The destination was closed by somebody else.
            Cancelled: `ctx` was cancelled.
            Exception: The error of a source, as `on_fault` has it, or of the strategy.
        """
        check_destination(destination, close_destination, "merge")
        self._readers.check_not_read(destination)
        check_context(ctx, "merge")
        sent = 0

        async def pour(_: Context) -> None:
            nonlocal sent
            async for item in self:
                try:
                    await destination.send(item)
                except BaseException:
                    self._return(item)
                    raise
                sent += 1
                if sent % _STRETCH == 0:
                    await asyncio.sleep(0)

        try:
            await conduct(begun(ctx, "merge"), pour, "merge")
        except BaseException as error:
            self.close()
            if close_destination:
                destination.close(ending(error, "merge"))
            raise
        if close_destination:
            destination.close()
        return sent

    def into_blocking(
        self,
        destination: Channel[T],
        *,
        close_destination: bool = True,
        ctx: Context | None = None,
    ) -> int:
        """Do what `into` does, in this thread; `ctx` is looked at between items.

        Raises:
            RuntimeError: It would block a running event loop.
        """
        check_destination(destination, close_destination, "merge")
        self._readers.check_not_read(destination)
        check_context(ctx, "merge")
        sent = 0

        def pour(call: Context) -> None:
            nonlocal sent
            for item in self:
                try:
                    check(call)
                    destination.send_blocking(item)
                except BaseException:
                    self._return(item)
                    raise
                sent += 1

        try:
            conduct_blocking(begun(ctx, "merge"), pour, "merge")
        except BaseException as error:
            self.close()
            if close_destination:
                destination.close(ending(error, "merge"))
            raise
        if close_destination:
            destination.close()
        return sent

    def close(self) -> None:
        """Read no more; what is in the channels stays there. Closing again changes nothing."""
        if not self._closed:
            self._since = moment()
        self._closed = True
        self._readers.leave()

    async def aclose(self) -> None:
        """Do the same: what iterates over it closes it by this."""
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        try:
            return await self.receive()
        except ChannelClosed:
            if self._readers.error is not None:
                raise
            raise StopAsyncIteration from None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        try:
            return self.receive_blocking()
        except ChannelClosed:
            if self._readers.error is not None:
                raise
            raise StopIteration from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # What was promised to it would be lost to the channels' other readers.
        if getattr(self, "_began", False) and not self._closed:
            self._readers.leave()

    def __repr__(self) -> str:
        left, all_of = self._readers.left, len(self._readers.sources)
        state = "closed" if self._closed else f"{left} of {all_of} sources open"
        return f"<Merge: {state}>"

    def _take(self) -> object:
        """Take an item; NOTHING if there is none now."""
        readers = self._readers
        if self._closed:
            readers.conclude()
            raise ChannelClosed("the merge was closed", since=self._since)
        if not self._began:
            clock = imposed()
            readers.begin(None if clock is None else clock._time)
            self._began = True
        try:
            taken = readers.take(self._last)
        except Exception:
            self.close()
            raise
        self._last = None
        if taken is not None:
            self._last = taken[0]
            return taken[1]
        if readers.over:
            self.close()
            readers.conclude()
            message = "merge: all sources are closed, and nothing is left in them"
            raise ChannelClosed(message, since=self._since)
        return NOTHING

    def _wait(self) -> None:
        if self._waiting:
            raise ClosedError("the merge has one reader, and somebody else waits for its next item")
        self._waiting = True

    def _rest(self, item: object) -> None:
        """Sleep no more; who goes without an item keeps no promise of one.

        With an item it stays in line: to ask all again for each would cost more the more sources
        there are.
        """
        if item is NOTHING:
            self._readers.leave()
        else:
            self._readers.core.awake()

    def _return(self, item: T) -> None:
        """Put back the item that was given last."""
        if self._last is not None:
            self._readers.put_back(self._last, item)

    def _seconds(self, timeout: object) -> float | None:
        if timeout is None:
            return None
        return check_seconds(timeout, "timeout", "merge", least=-1e9)

    def _too_late(self, seconds: float | None) -> TimeoutError:
        return TimeoutError(f"merge: no item within {seconds} s")


def merge(
    readers: Iterable[Readable[T]],
    *,
    strategy: str | Strategy | Chooser = "round_robin",
    on_fault: OnFault = "fail_fast",
) -> Merge[T]:
    """Read many channels as one.

    Args:
        readers: The channels, each once. What is not read stays in them.
        strategy: Which of those that have something is read next: see `ab.Strategy`.
        on_fault: What the error of a source, once its items are read, does: "fail_fast" raises it
            at once, "drain" when all others have ended, "quarantine" keeps it in `faults`.

    Returns:
        A reader with `receive`, `receive_blocking`, `receive_nowait` and iteration, like a
        channel's, and `into`, which sends everything into one.

    Raises:
        ConfigError: An argument is not allowed.

    Example:
        >>> import anabranch as ab
        >>> slow, fast = ab.Channel(10), ab.Channel(10)
        >>> slow.send_many_nowait(["a", "b"])
        >>> fast.send_many_nowait([1, 2, 3, 4])
        >>> slow.close()
        >>> fast.close()
        >>> list(ab.merge([slow, fast], strategy=ab.Strategy.weighted([1, 2])))
        ['a', 1, 2, 'b', 3, 4]
    """
    return Merge(readers, strategy, on_fault)


class MergedSource(Merge[T]):
    """A merge that is the source of a pipeline: what is set aside is a failure of the run."""

    def _take(self) -> object:
        aside = self._readers.quarantined
        if not aside:
            try:
                item = super()._take()
            except ChannelClosed:
                if not aside:
                    raise
            else:
                if item is not NOTHING or not aside:
                    return item
        return Err(aside.popleft())
