"""`PriorityChannel`: a channel with lanes, of which the most urgent is received first.

Longer than it does by what editors and `help` show, like `Channel`.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from anabranch import _core
from anabranch.channel import Channel
from anabranch.errors import refused

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import timedelta

    from anabranch._virtual import VirtualClock
    from anabranch.context import Context

T = TypeVar("T")

_MOST_LANES = 256


class PriorityChannel(Channel[T]):
    """A channel with lanes: what is most urgent is received first.

    Lane 0 is the most urgent. Which item is received is decided when it is: the oldest of the
    first lane that has one. So a lane waits as long as those before it have something; with
    `aging` no longer than that: an item is received as if it had come `aging` seconds later for
    each lane before its own.

    Each lane has a capacity of its own: a full one holds up those who send into it, and nobody
    else. What is put back is the next of its own lane, and as old as it was. Everything else is as
    with `Channel`, whose place it can take anywhere.

    Args:
        capacity: How many items each lane may hold; at least 1.
        lanes: How many lanes there are, from 1 to 256.
        aging: Seconds by which a lane comes after the one before it; None: it waits as long as
            that one has something.
        on_full: What happens to an item that finds its lane full; see `Channel`.
        name: What errors and pipelines call it.
        clock: A VirtualClock to age by; None: the running event loop's, or the machine's.

    Raises:
        ConfigError: An argument is not allowed.

    Example:
        >>> import anabranch as ab
        >>> jobs: ab.PriorityChannel[str] = ab.PriorityChannel(100, lanes=3)
        >>> jobs.send_nowait("report")  # without a priority: the last lane
        >>> jobs.send_nowait("payment", priority=0)
        >>> jobs.send_nowait("letter", priority=1)
        >>> jobs.receive_many_nowait()
        ['payment', 'letter', 'report']
    """

    __slots__ = ("_aging", "_lanes")

    def __init__(
        self,
        capacity: int = 1000,
        *,
        lanes: int = 3,
        aging: float | timedelta | None = None,
        on_full: Literal["wait", "drop_newest", "drop_oldest", "fail"] = "wait",
        name: str = "channel",
        clock: VirtualClock | None = None,
    ) -> None:
        options: dict[str, Any] = _core.check_channel(
            {"name": name, "capacity": capacity, "on_full": on_full}
        )
        if type(lanes) is not int or not 1 <= lanes <= _MOST_LANES:
            allowed = f"an int from 1 to {_MOST_LANES}"
            raise refused("lanes", lanes, allowed, subject=f"channel {name!r}")
        self._lanes: int = lanes
        self._aging: float | None = None
        if aging is not None:
            from anabranch._calls import check_seconds

            self._aging = check_seconds(aging, "aging", f"channel {name!r}", exclusive=True)
        self._core = _core.Channel(
            **options, lanes=lanes, aging=self._aging, time=_time(clock, name)
        )

    @property
    def lanes(self) -> int:
        """How many lanes there are."""
        return self._lanes

    @property
    def aging(self) -> float | None:
        """Seconds by which a lane comes after the one before it; None: any time."""
        return self._aging

    @property
    def depths(self) -> tuple[int, ...]:
        """How many items are inside each lane, the most urgent first."""
        return tuple(self._core.depths)

    async def send(
        self,
        item: T,
        *,
        priority: int | None = None,
        timeout: float | timedelta | None = None,
        ctx: Context | None = None,
    ) -> None:
        """Send one item; wait for room in its lane if need be.

        Args:
            item: Anything, None included.
            priority: Its lane, 0 being the most urgent; None is the last one.
            timeout: Seconds to wait at most; with 0 or less it does not wait.
            ctx: What ends the call, if it is cancelled.

        Raises:
            ConfigError: There is no such lane.
            ChannelClosed: The channel is closed; the item was not sent.
            ChannelFull: There is no room, and `on_full` is "fail".
            TimeoutError: There was no room in time; the item was not sent.
            Cancelled: `ctx` was cancelled; the item was not sent.
        """
        lane = self._lane(priority)
        seconds = None if timeout is None else self._seconds(timeout)
        if ctx is not None:
            self._begin(ctx)
        if not self._core.send(item, None, lane) and not await self._in_turn(
            lambda ticket, wake: self._core.join_senders(ticket, 1, wake, lane),
            lambda ticket: self._core.send(item, ticket, lane),
            seconds,
            ctx,
        ):
            raise self._too_late("no room for an item", seconds)

    def send_blocking(
        self,
        item: T,
        *,
        priority: int | None = None,
        timeout: float | timedelta | None = None,
        ctx: Context | None = None,
    ) -> None:
        """Send one item; block this thread until there is room in its lane.

        Args:
            item: Anything, None included.
            priority: Its lane, 0 being the most urgent; None is the last one.
            timeout: Seconds to wait at most; with 0 or less it does not wait.
            ctx: What ends the call, if it is cancelled.

        Raises:
            ConfigError: There is no such lane.
            ChannelClosed: The channel is closed; the item was not sent.
            ChannelFull: There is no room, and `on_full` is "fail".
            TimeoutError: There was no room in time; the item was not sent.
            Cancelled: `ctx` was cancelled; the item was not sent.
            RuntimeError: It would block a running event loop.
        """
        lane = self._lane(priority)
        seconds = None if timeout is None else self._seconds(timeout)
        if ctx is not None:
            self._begin(ctx)
        if not self._core.send(item, None, lane) and not self._in_turn_blocking(
            lambda ticket, wake: self._core.join_senders(ticket, 1, wake, lane),
            lambda ticket: self._core.send(item, ticket, lane),
            seconds,
            ctx,
        ):
            raise self._too_late("no room for an item", seconds)

    def send_nowait(self, item: T, *, priority: int | None = None) -> None:
        """Send one item at once; from any thread.

        Args:
            item: Anything, None included.
            priority: Its lane, 0 being the most urgent; None is the last one.

        Raises:
            ConfigError: There is no such lane.
            ChannelClosed: The channel is closed.
            ChannelFull: There is no room, or others wait for it. Not if `on_full` drops.
        """
        if not self._core.send(item, None, self._lane(priority)):
            raise self._full(1)

    async def send_many(
        self,
        items: Iterable[T],
        *,
        priority: int | None = None,
        timeout: float | timedelta | None = None,
        ctx: Context | None = None,
    ) -> None:
        """Send a batch into one lane; wait for room if need be.

        The batch goes in whole, and nothing between its items; or, if this raises, not at all.

        Args:
            items: Unless `on_full` drops, at most `capacity` of them.
            priority: Their lane, 0 being the most urgent; None is the last one.
            timeout: Seconds to wait at most; with 0 or less it does not wait.
            ctx: What ends the call, if it is cancelled.

        Raises:
            ConfigError: There is no such lane, or there are more items than it can hold.
            ChannelClosed: The channel is closed; nothing was sent.
            ChannelFull: There is no room for all, and `on_full` is "fail".
            TimeoutError: There was no room in time; nothing was sent.
            Cancelled: `ctx` was cancelled; nothing was sent.
        """
        lane, batch = self._lane(priority), self._batch(items)
        seconds = None if timeout is None else self._seconds(timeout)
        if ctx is not None:
            self._begin(ctx)
        if (
            batch
            and not self._core.send_many(batch, None, lane)
            and not await self._in_turn(
                lambda ticket, wake: self._core.join_senders(ticket, len(batch), wake, lane),
                lambda ticket: self._core.send_many(batch, ticket, lane),
                seconds,
                ctx,
            )
        ):
            raise self._too_late(f"no room for {len(batch)} items", seconds)

    def send_many_blocking(
        self,
        items: Iterable[T],
        *,
        priority: int | None = None,
        timeout: float | timedelta | None = None,
        ctx: Context | None = None,
    ) -> None:
        """Send a batch into one lane; block this thread until there is room.

        The batch goes in whole, and nothing between its items; or, if this raises, not at all.

        Args:
            items: Unless `on_full` drops, at most `capacity` of them.
            priority: Their lane, 0 being the most urgent; None is the last one.
            timeout: Seconds to wait at most; with 0 or less it does not wait.
            ctx: What ends the call, if it is cancelled.

        Raises:
            ConfigError: There is no such lane, or there are more items than it can hold.
            ChannelClosed: The channel is closed; nothing was sent.
            ChannelFull: There is no room for all, and `on_full` is "fail".
            TimeoutError: There was no room in time; nothing was sent.
            Cancelled: `ctx` was cancelled; nothing was sent.
            RuntimeError: It would block a running event loop.
        """
        lane, batch = self._lane(priority), self._batch(items)
        seconds = None if timeout is None else self._seconds(timeout)
        if ctx is not None:
            self._begin(ctx)
        if (
            batch
            and not self._core.send_many(batch, None, lane)
            and not self._in_turn_blocking(
                lambda ticket, wake: self._core.join_senders(ticket, len(batch), wake, lane),
                lambda ticket: self._core.send_many(batch, ticket, lane),
                seconds,
                ctx,
            )
        ):
            raise self._too_late(f"no room for {len(batch)} items", seconds)

    def send_many_nowait(self, items: Iterable[T], *, priority: int | None = None) -> None:
        """Send a batch into one lane at once, in whole; from any thread.

        Args:
            items: Unless `on_full` drops, at most `capacity` of them.
            priority: Their lane, 0 being the most urgent; None is the last one.

        Raises:
            ConfigError: There is no such lane, or there are more items than it can hold.
            ChannelClosed: The channel is closed.
            ChannelFull: There is no room for all, or others wait for it. Not if `on_full` drops.
        """
        lane, batch = self._lane(priority), self._batch(items)
        if batch and not self._core.send_many(batch, None, lane):
            raise self._full(len(batch))

    def _lane(self, priority: object) -> int:
        if priority is None:
            return self._lanes - 1
        if type(priority) is not int or not 0 <= priority < self._lanes:
            allowed = f"None or an int from 0 to {self._lanes - 1}, the number of a lane"
            raise self._refused("priority", priority, allowed)
        return priority


def _time(clock: VirtualClock | None, name: str) -> _core.VirtualTime | None:
    """Return the virtual time to go by, if there is one."""
    if clock is not None:
        time = getattr(clock, "_time", None)
        if not isinstance(time, _core.VirtualTime):
            raise refused("clock", clock, "a VirtualClock or None", subject=f"channel {name!r}")
        return time
    # A program that has not imported asyncio has no loop.
    if "asyncio" not in sys.modules:
        return None
    from anabranch._calls import imposed

    own = imposed()
    return None if own is None else own._time
