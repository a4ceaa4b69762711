"""`Channel`: a bounded queue between threads, event loops and pipelines.

One class, and longer than a file should be: more than half of it is what editors and `help` show.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from anabranch import _core
from anabranch._moment import moment
from anabranch._readable import Readable
from anabranch._record import audible
from anabranch.errors import ChannelClosed, ChannelEmpty, ChannelFull, refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from anabranch.context import Context

T = TypeVar("T")
R = TypeVar("R")

# What the extension gives where there is nothing; an item can be anything else.
_NOTHING: Final = object()
# Seconds, as in the plan.
_LONGEST: Final = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelStats:
    """What happened in a channel so far; `sent == received + dropped + depth`, always.

    Attributes:
        depth: Items inside now.
        capacity: The most items it holds.
        sent: Items accepted from senders.
        received: Items given to receivers.
        dropped: Items dropped because there was no room, as `on_full` has it.
        blocked: Seconds in which at least one sender waited for room.
        senders: How many wait for room now.
        receivers: How many wait for an item now.
    """

    depth: int
    capacity: int
    sent: int
    received: int
    dropped: int
    blocked: float
    senders: int
    receivers: int


class Channel(Readable[T]):
    """A bounded first-in-first-out queue that can be closed.

    Any number of threads, event loops and pipelines may send and receive at once. Each operation
    has three forms: `send` is awaited, `send_blocking` blocks its thread, `send_nowait` does not
    wait. Items come out in the order they went in, each once. Those who wait are served in the
    order they came.

    Iterating, with `for` or `async for`, receives until the channel is closed and empty. To have a
    `ctx` end it, call `receive(ctx=...)` in a loop, or read it by `ab.window`.

    A call that is cancelled, times out or is interrupted has done nothing: what it would have sent
    is not inside, and what it would have received is still there for the next receiver. A call
    that need not wait does not give way to the event loop.

    What a fan-in, a merge, a window or a relay has taken and cannot pass on it puts back, in front
    of what is inside, though others have filled the channel meanwhile, or closed it: until it is
    received again there may be more inside than `capacity`.

    `Pipeline.source` takes items from a channel, and `Pipeline.to_channel` sends them into one.

    Args:
        capacity: How many items it may hold; at least 1.
        on_full: What happens to an item that finds it full: "wait" lets its sender wait,
            "drop_newest" drops that item, "drop_oldest" drops the oldest inside to make room,
            "fail" raises ChannelFull. What is dropped is counted.
        name: What errors and pipelines call it.

    Raises:
        ConfigError: An argument is not allowed.

    Example:
        >>> import asyncio
        >>> import anabranch as ab
        >>> async def main() -> list[int]:
        ...     numbers: ab.Channel[int] = ab.Channel(2)
        ...     async def count() -> None:
        ...         for number in range(5):
        ...             await numbers.send(number)  # waits while two are inside
        ...         numbers.close()
        ...     async with asyncio.TaskGroup() as group:
        ...         group.create_task(count())
        ...         return [number async for number in numbers]
        >>> asyncio.run(main())
        [0, 1, 2, 3, 4]
    """

    __slots__ = ("__weakref__", "_core")

    _core: _core.Channel

    def __init__(
        self,
        capacity: int = 1000,
        *,
        on_full: Literal["wait", "drop_newest", "drop_oldest", "fail"] = "wait",
        name: str = "channel",
    ) -> None:
        options: dict[str, Any] = _core.check_channel(
            {"name": name, "capacity": capacity, "on_full": on_full}
        )
        self._core = _core.Channel(**options)

    @property
    def name(self) -> str:
        """What errors and pipelines call it."""
        return self._core.name

    @property
    def capacity(self) -> int:
        """The most items it holds."""
        return self._core.capacity

    @property
    def closed(self) -> bool:
        """Whether it was closed: nothing more can be sent, though items may still be inside."""
        return self._core.closed

    @property
    def depth(self) -> int:
        """How many items are inside."""
        return self._core.depth

    @property
    def blocked(self) -> float:
        """Seconds in which at least one sender waited for room."""
        return self._core.blocked

    def stats(self) -> ChannelStats:
        """Return what happened so far.

        Example:
            >>> import anabranch as ab
            >>> latest: ab.Channel[int] = ab.Channel(2, on_full="drop_oldest")
            >>> for number in range(5):
            ...     latest.send_nowait(number)
            >>> stats = latest.stats()
            >>> stats.depth, stats.sent, stats.dropped
            (2, 5, 3)
        """
        return ChannelStats(**self._core.stats())

    def close(self, error: Exception | None = None) -> None:
        """Let nothing more in; receivers get what is inside, and then the end.

        Those who wait for room are told at once. Closing again changes nothing.

        Args:
            error: Why it ends. Receivers get this very exception raised instead of an end, so that
                a failure is never mistaken for one; senders find it as the cause of their
                ChannelClosed.

        Raises:
            ConfigError: `error` is no Exception.

        Example:
            >>> import anabranch as ab
            >>> lines: ab.Channel[str] = ab.Channel(10)
            >>> lines.send_nowait("one")
            >>> lines.close(ConnectionResetError("the peer is gone"))
            >>> lines.receive_nowait()
            'one'
            >>> lines.receive_nowait()
            Traceback (most recent call last):
            ConnectionResetError: the peer is gone
        """
        self._core.close(self._reason(error), moment())

    # Sending.

    async def send(
        self, item: T, *, timeout: float | timedelta | None = None, ctx: Context | None = None
    ) -> None:
        """Send one item; wait for room if need be.

        Args:
            item: Anything, None included.
            timeout: Seconds to wait at most; with 0 or less it does not wait.
            ctx: What ends the call, if it is cancelled.

        Raises:
            ChannelClosed: The channel is closed; the item was not sent.
            ChannelFull: There is no room, and `on_full` is "fail".
            TimeoutError: There was no room in time; the item was not sent.
            Cancelled: `ctx` was cancelled; the item was not sent.
        """
        seconds = None if timeout is None else self._seconds(timeout)
        if ctx is not None:
            self._begin(ctx)
        if not self._core.send(item) and not await self._in_turn(
            partial(self._join_senders, 1), partial(self._core.send, item), seconds, ctx
        ):
            raise self._too_late("no room for an item", seconds)

    def send_blocking(
        self, item: T, *, timeout: float | timedelta | None = None, ctx: Context | None = None
    ) -> None:
        """Send one item; block this thread until there is room.

        Args:
            item: Anything, None included.
            timeout: Seconds to wait at most; with 0 or less it does not wait.
            ctx: What ends the call, if it is cancelled.

        Raises:
            ChannelClosed: The channel is closed; the item was not sent.
            ChannelFull: There is no room, and `on_full` is "fail".
            TimeoutError: There was no room in time; the item was not sent.
            Cancelled: `ctx` was cancelled; the item was not sent.
            RuntimeError: It would block a running event loop.
        """
        seconds = None if timeout is None else self._seconds(timeout)
        if ctx is not None:
            self._begin(ctx)
        if not self._core.send(item) and not self._in_turn_blocking(
            partial(self._join_senders, 1), partial(self._core.send, item), seconds, ctx
        ):
            raise self._too_late("no room for an item", seconds)

    def send_nowait(self, item: T) -> None:
        """Send one item at once; from any thread.

        Args:
            item: Anything, None included.

        Raises:
            ChannelClosed: The channel is closed.
            ChannelFull: There is no room, or others wait for it. Not if `on_full` drops.
        """
        if not self._core.send(item):
            raise self._full(1)

    async def send_many(
        self,
        items: Iterable[T],
        *,
        timeout: float | timedelta | None = None,
        ctx: Context | None = None,
    ) -> None:
        """Send a batch; wait for room if need be.

        The batch goes in whole, and nothing between its items; or, if this raises, not at all.

        Args:
            items: Unless `on_full` drops, at most `capacity` of them. If there are none, nothing is
                done, whatever the channel's state.
            timeout: Seconds to wait at most; with 0 or less it does not wait.
            ctx: What ends the call, if it is cancelled.

        Raises:
            ConfigError: There are more items than the channel can hold.
            ChannelClosed: The channel is closed; nothing was sent.
            ChannelFull: There is no room for all, and `on_full` is "fail".
            TimeoutError: There was no room in time; nothing was sent.
            Cancelled: `ctx` was cancelled; nothing was sent.
        """
        batch = self._batch(items)
        seconds = None if timeout is None else self._seconds(timeout)
        if ctx is not None:
            self._begin(ctx)
        if (
            batch
            and not self._core.send_many(batch)
            and not await self._in_turn(
                partial(self._join_senders, len(batch)),
                partial(self._core.send_many, batch),
                seconds,
                ctx,
            )
        ):
            raise self._too_late(f"no room for {len(batch)} items", seconds)

    def send_many_blocking(
        self,
        items: Iterable[T],
        *,
        timeout: float | timedelta | None = None,
        ctx: Context | None = None,
    ) -> None:
        """Send a batch; block this thread until there is room.

        The batch goes in whole, and nothing between its items; or, if this raises, not at all.

        Args:
            items: Unless `on_full` drops, at most `capacity` of them. If there are none, nothing is
                done, whatever the channel's state.
            timeout: Seconds to wait at most; with 0 or less it does not wait.
            ctx: What ends the call, if it is cancelled.

        Raises:
            ConfigError: There are more items than the channel can hold.
            ChannelClosed: The channel is closed; nothing was sent.
            ChannelFull: There is no room for all, and `on_full` is "fail".
            TimeoutError: There was no room in time; nothing was sent.
            Cancelled: `ctx` was cancelled; nothing was sent.
            RuntimeError: It would block a running event loop.
        """
        batch = self._batch(items)
        seconds = None if timeout is None else self._seconds(timeout)
        if ctx is not None:
            self._begin(ctx)
        if (
            batch
            and not self._core.send_many(batch)
            and not self._in_turn_blocking(
                partial(self._join_senders, len(batch)),
                partial(self._core.send_many, batch),
                seconds,
                ctx,
            )
        ):
            raise self._too_late(f"no room for {len(batch)} items", seconds)

    def send_many_nowait(self, items: Iterable[T]) -> None:
        """Send a batch at once, in whole; from any thread.

        Args:
            items: Unless `on_full` drops, at most `capacity` of them. If there are none, nothing is
                done, whatever the channel's state.

        Raises:
            ConfigError: There are more items than the channel can hold.
            ChannelClosed: The channel is closed.
            ChannelFull: There is no room for all, or others wait for it. Not if `on_full` drops.
        """
        batch = self._batch(items)
        if batch and not self._core.send_many(batch):
            raise self._full(len(batch))

    # Receiving.

    async def receive(
        self, *, timeout: float | timedelta | None = None, ctx: Context | None = None
    ) -> T:
        """Take the oldest item; wait for one if need be.

        Args:
            timeout: Seconds to wait at most; with 0 or less it does not wait.
            ctx: What ends the call, if it is cancelled.

        Raises:
            ChannelClosed: The channel is closed, and empty.
            Exception: The error it was closed with, once it is empty.
            TimeoutError: Nothing came in time.
            Cancelled: `ctx` was cancelled.
        """
        seconds = None if timeout is None else self._seconds(timeout)
        if ctx is not None:
            self._begin(ctx)
        item: Any = self._core.receive(_NOTHING)
        if item is _NOTHING:
            take = partial(self._core.receive, _NOTHING)
            item = await self._in_turn(self._core.join_receivers, take, seconds, ctx)
            if item is _NOTHING:
                raise self._too_late("no item", seconds)
        return item  # type: ignore[no-any-return]  # only a T was ever sent

    def receive_blocking(
        self, *, timeout: float | timedelta | None = None, ctx: Context | None = None
    ) -> T:
        """Take the oldest item; block this thread until there is one.

        Args:
            timeout: Seconds to wait at most; with 0 or less it does not wait.
            ctx: What ends the call, if it is cancelled.

        Raises:
            ChannelClosed: The channel is closed, and empty.
            Exception: The error it was closed with, once it is empty.
            TimeoutError: Nothing came in time.
            Cancelled: `ctx` was cancelled.
            RuntimeError: It would block a running event loop.
        """
        seconds = None if timeout is None else self._seconds(timeout)
        if ctx is not None:
            self._begin(ctx)
        item: Any = self._core.receive(_NOTHING)
        if item is _NOTHING:
            take = partial(self._core.receive, _NOTHING)
            item = self._in_turn_blocking(self._core.join_receivers, take, seconds, ctx)
            if item is _NOTHING:
                raise self._too_late("no item", seconds)
        return item  # type: ignore[no-any-return]  # only a T was ever sent

    def receive_nowait(self) -> T:
        """Take the oldest item at once; from any thread.

        Raises:
            ChannelEmpty: Nothing is there that was not promised to others who wait.
            ChannelClosed: The channel is closed, and empty.
            Exception: The error it was closed with, once it is empty.
        """
        item: Any = self._core.receive(_NOTHING)
        if item is _NOTHING:
            raise self._empty()
        return item  # type: ignore[no-any-return]  # only a T was ever sent

    async def receive_many(
        self,
        max_items: int | None = None,
        *,
        timeout: float | timedelta | None = None,
        ctx: Context | None = None,
    ) -> list[T]:
        """Take the oldest items, as many as are there; wait for one if need be.

        Args:
            max_items: How many at most; None takes all.
            timeout: Seconds to wait at most; with 0 or less it does not wait.
            ctx: What ends the call, if it is cancelled.

        Returns:
            The items, at least one.

        Raises:
            ConfigError: `max_items` is less than 1.
            ChannelClosed: The channel is closed, and empty.
            Exception: The error it was closed with, once it is empty.
            TimeoutError: Nothing came in time.
            Cancelled: `ctx` was cancelled.
        """
        most = self._most(max_items)
        seconds = None if timeout is None else self._seconds(timeout)
        if ctx is not None:
            self._begin(ctx)
        items = self._core.receive_many(most)
        if not items:
            take = partial(self._core.receive_many, most)
            items = await self._in_turn(self._core.join_receivers, take, seconds, ctx)
            if not items:
                raise self._too_late("no item", seconds)
        return items

    def receive_many_blocking(
        self,
        max_items: int | None = None,
        *,
        timeout: float | timedelta | None = None,
        ctx: Context | None = None,
    ) -> list[T]:
        """Take the oldest items, as many as are there; block this thread until there is one.

        Args:
            max_items: How many at most; None takes all.
            timeout: Seconds to wait at most; with 0 or less it does not wait.
            ctx: What ends the call, if it is cancelled.

        Returns:
            The items, at least one.

        Raises:
            ConfigError: `max_items` is less than 1.
            ChannelClosed: The channel is closed, and empty.
            Exception: The error it was closed with, once it is empty.
            TimeoutError: Nothing came in time.
            Cancelled: `ctx` was cancelled.
            RuntimeError: It would block a running event loop.
        """
        most = self._most(max_items)
        seconds = None if timeout is None else self._seconds(timeout)
        if ctx is not None:
            self._begin(ctx)
        items = self._core.receive_many(most)
        if not items:
            take = partial(self._core.receive_many, most)
            items = self._in_turn_blocking(self._core.join_receivers, take, seconds, ctx)
            if not items:
                raise self._too_late("no item", seconds)
        return items

    def receive_many_nowait(self, max_items: int | None = None) -> list[T]:
        """Take the oldest items at once, as many as are there; from any thread.

        Args:
            max_items: How many at most; None takes all.

        Returns:
            The items, at least one.

        Raises:
            ConfigError: `max_items` is less than 1.
            ChannelEmpty: Nothing is there that was not promised to others who wait.
            ChannelClosed: The channel is closed, and empty.
            Exception: The error it was closed with, once it is empty.
        """
        items = self._core.receive_many(self._most(max_items))
        if not items:
            raise self._empty()
        return items

    # Iterating.

    def __aiter__(self) -> Channel[T]:
        return self

    async def __anext__(self) -> T:
        try:
            # Here, too: a second coroutine would cost as much again.
            item: Any = self._core.receive(_NOTHING)
            if item is not _NOTHING:
                return item  # type: ignore[no-any-return]  # only a T was ever sent
            return await self.receive()
        except ChannelClosed:
            # The error it was closed with may be of the same type: of another channel.
            if self._core.failed:
                raise
            raise StopAsyncIteration from None
        except StopAsyncIteration as error:
            raise audible(error) from error

    def __iter__(self) -> Channel[T]:
        return self

    def __next__(self) -> T:
        try:
            return self.receive_blocking()
        except ChannelClosed:
            if self._core.failed:
                raise
            raise StopIteration from None
        except StopIteration as error:
            raise audible(error) from error

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        stats = self.stats()
        kind = type(self).__name__
        return f"<{kind} {self.name!r}: {stats.depth} of {stats.capacity} items, {state}>"

    # Waiting. What holds a place in line gives it up on every way out: a ticket that was used is
    # no matter. So a signal handler may raise between any two lines.

    async def _in_turn(
        self,
        join: Callable[[int, Callable[[], None]], None],
        act: Callable[[int], R],
        seconds: float | None,
        ctx: Context | None = None,
    ) -> R:
        # Here, not above: it needs asyncio, which a program that never waits does not.
        from anabranch._waiting import TaskWaiter, roused

        waiter = TaskWaiter()
        ticket = self._core.ticket()
        try:
            join(ticket, waiter.wake)
            if ctx is None:
                await waiter.sleep(seconds)
            else:
                with roused(waiter, ctx):
                    await waiter.sleep(seconds)
            return act(ticket)
        finally:
            self._core.leave(ticket)

    def _in_turn_blocking(
        self,
        join: Callable[[int, Callable[[], None]], None],
        act: Callable[[int], R],
        seconds: float | None,
        ctx: Context | None = None,
    ) -> R:
        from anabranch._waiting import ThreadWaiter, roused

        waiter = ThreadWaiter()
        ticket = self._core.ticket()
        try:
            join(ticket, waiter.wake)
            if ctx is None:
                waiter.sleep(seconds)
            else:
                with roused(waiter, ctx):
                    waiter.sleep(seconds)
            return act(ticket)
        finally:
            self._core.leave(ticket)

    def _join_senders(self, items: int, ticket: int, wake: Callable[[], None]) -> None:
        self._core.join_senders(ticket, items, wake)

    # Arguments and errors.

    def _begin(self, ctx: Context) -> None:
        from anabranch._calls import check_context
        from anabranch._watch import check

        check_context(ctx, f"channel {self.name!r}")
        check(ctx)

    def _batch(self, items: Iterable[T]) -> list[T]:
        if not hasattr(type(items), "__iter__") and not hasattr(type(items), "__getitem__"):
            raise self._refused("items", items, "an iterable of items")
        batch = list(items)
        if len(batch) > self._core.capacity and self._core.whole:
            allowed = f"at most {self._core.capacity} items, for they go in together"
            raise self._refused("items", items, allowed, shown=f"{len(batch)} items")
        return batch

    def _seconds(self, timeout: object) -> float:
        seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        # A bool is a number, and surely a mistake. A NaN is within no bounds.
        if (
            isinstance(seconds, bool)
            or not isinstance(seconds, int | float)
            or not abs(seconds) <= _LONGEST
        ):
            allowed = f"a number of seconds up to {_LONGEST:.0f}, a timedelta or None"
            raise self._refused("timeout", timeout, allowed)
        return seconds

    def _most(self, max_items: object) -> int | None:
        if max_items is None:
            return None
        if type(max_items) is not int or max_items < 1:
            raise self._refused("max_items", max_items, "an int >= 1 or None")
        return min(max_items, sys.maxsize)

    def _reason(self, error: object) -> Exception | None:
        if error is not None and not isinstance(error, Exception):
            raise self._refused("error", error, "an Exception or None")
        return error

    def _refused(
        self, argument: str, value: object, allowed: str, *, shown: str | None = None
    ) -> Exception:
        subject = f"channel {self.name!r}"
        return refused(argument, value, allowed, subject=subject, shown=shown)

    def _full(self, items: int) -> ChannelFull:
        stats = self.stats()
        waiting = f", and {stats.senders} wait for room" if stats.senders else ""
        many = "an item" if items == 1 else f"{items} items"
        return ChannelFull(
            f"channel {self.name!r} has no room for {many}: {stats.depth} of {stats.capacity} are "
            f"inside{waiting}"
        )

    def _empty(self) -> ChannelEmpty:
        return ChannelEmpty(f"channel {self.name!r} has no item to be received now")

    def _too_late(self, what: str, seconds: float | None) -> TimeoutError:
        return TimeoutError(f"channel {self.name!r}: {what} within {seconds} s")
