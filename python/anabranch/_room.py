"""Room in a channel, promised before what is to be sent is taken from anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from anabranch._waiting import TaskWaiter

if TYPE_CHECKING:
    from types import TracebackType

    from anabranch.channel import Channel


class Room:
    """Room for so many items: waited for, used once, or given back at the end of the block.

    What is sent into it goes in at once: so nobody can be cut short with an item in hand.
    """

    __slots__ = ("_core", "_items", "_ticket", "_waiter", "_waits")

    def __init__(self, channel: Channel[Any], items: int) -> None:
        self._core = channel._core
        self._items = items
        # A channel that drops, or fails, has an answer for whatever comes.
        self._waits = self._core.waits
        self._ticket: int | None = None

    def __enter__(self) -> Self:
        """Stand in line."""
        if self._waits:
            self._waiter = TaskWaiter()
            self._ticket = self._core.ticket()
            self._core.join_senders(self._ticket, self._items, self._waiter.wake)
        return self

    async def wait(self) -> None:
        """Wait for the room; there is some, too, where the channel is closed."""
        if self._ticket is not None and not self._core.called(self._ticket):
            await self._waiter.sleep(None)

    def send(self, items: list[Any]) -> None:
        """Use it.

        Raises:
            ChannelClosed: The channel is closed; nothing was sent.
            ChannelFull: There is no room, and the channel's `on_full` is "fail".
        """
        self._core.send_many(items, self._ticket)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give back what was not used."""
        if self._ticket is not None:
            self._core.leave(self._ticket)
