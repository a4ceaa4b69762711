"""`broadcast` and `balance`: one reader becomes several, each with all items, or with its share."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, cast

from anabranch._relay import MOST, NobodyLeft, Relay, check_branch
from anabranch._room import Room
from anabranch._waiting import TaskWaiter
from anabranch.channel import Channel
from anabranch.errors import ChannelClosed, check_name, refused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anabranch.context import Context

T = TypeVar("T")

OnFull: TypeAlias = Literal["wait", "drop_newest", "drop_oldest", "fail"]


class Broadcast(Relay[T]):
    """Copies of a reader, as channels; made by `ab.broadcast`."""

    def __init__(self, reader: object, branches: list[Channel[T]], **options: object) -> None:
        super().__init__(reader, subject="broadcast", **options)
        self._branches = branches
        self._batch = min(MOST, *(branch.capacity for branch in branches))

    async def __aenter__(self) -> tuple[Channel[T], ...]:
        """Begin to copy."""
        await self._begin()
        return tuple(self._branches)

    def _targets(self) -> list[Channel[T]]:
        return self._branches

    async def _pass_on(self, items: list[T]) -> None:
        while items:
            batch = items[: self._batch]
            try:
                await self._copy(batch)
            except BaseException:
                self._put_back(items)
                raise
            del items[: self._batch]

    async def _copy(self, batch: list[T]) -> None:
        """Send the same to all, at once: nobody is cut short between two of them."""
        with ExitStack() as stack:
            rooms = [stack.enter_context(Room(branch, len(batch))) for branch in self._branches]
            for room in rooms:
                await room.wait()
            sent = 0
            failed: Exception | None = None
            for room in rooms:
                try:
                    room.send(batch)
                    sent += 1
                except ChannelClosed:
                    # Who read it has left; the others go on.
                    continue
                except Exception as error:  # noqa: BLE001 - it is full, and fails
                    failed = error
        if failed is not None:
            # The others have it: it is not put back.
            batch.clear()
            raise failed
        if not sent:
            raise NobodyLeft


class Balance(Relay[T]):
    """Shares of a reader, as channels; made by `ab.balance`."""

    def __init__(self, reader: object, branches: list[Channel[T]], **options: object) -> None:
        super().__init__(reader, subject="balance", **options)
        self._branches = branches

    async def __aenter__(self) -> tuple[Channel[T], ...]:
        """Begin to share."""
        await self._begin()
        return tuple(self._branches)

    def _targets(self) -> list[Channel[T]]:
        return self._branches

    async def _pass_on(self, items: list[T]) -> None:
        at = 0
        try:
            while at < len(items):
                if not self._send(items[at]):
                    await self._wait_for_room()
                    continue
                at += 1
        except BaseException:
            self._put_back(items[at:])
            raise

    def _send(self, item: T) -> bool:
        """Send it to whoever has least to do, if anybody has room."""
        live = [branch for branch in self._branches if not branch.closed]
        if not live:
            raise NobodyLeft
        for branch in sorted(live, key=lambda it: it.depth):
            try:
                if branch._core.send(item):
                    return True
            except ChannelClosed:
                continue
        return False

    async def _wait_for_room(self) -> None:
        """Wait until somebody has room, or has left."""
        waiter = TaskWaiter()
        # Of one that was closed there is nothing to wait for, and no end of being told so.
        live = [branch._core for branch in self._branches if not branch.closed]
        tickets = [(core, core.ticket()) for core in live]
        try:
            for core, ticket in tickets:
                core.join_senders(ticket, 1, waiter.wake)
            await waiter.sleep(None)
        finally:
            for core, ticket in tickets:
                core.leave(ticket)


def broadcast(
    reader: Channel[T],
    branches: int | Sequence[str],
    *,
    capacity: int = 1000,
    on_full: OnFull = "wait",
    close_branches: bool = True,
    ctx: Context | None = None,
) -> Broadcast[T]:
    """Give several readers all the items of one, in the same order.

    Args:
        reader: The channel.
        branches: How many readers there are, or their names.
        capacity: How many items each may be behind.
        on_full: What happens to an item that a branch has no room for: with "wait" all wait for
            the slowest; see `Channel` for the others.
        close_branches: False: leave the branches open when the reader has ended.
        ctx: What ends it, if it is cancelled.

    Returns:
        An async context manager that gives a tuple of channels. A branch that is closed by who
        reads it is left out from then on.

    Raises:
        ConfigError: An argument is not allowed.

    Example:
        >>> import asyncio
        >>> import anabranch as ab
        >>> async def main() -> None:
        ...     orders = ab.Channel(10)
        ...     await orders.send_many(["book", "pen"])
        ...     orders.close()
        ...     async with ab.broadcast(orders, ["store", "audit"]) as (store, audit):
        ...         print([order async for order in store], [order async for order in audit])
        >>> asyncio.run(main())
        ['book', 'pen'] ['book', 'pen']
    """
    channels: list[Channel[T]] = _branches(branches, capacity, on_full, "broadcast")
    return Broadcast(reader, channels, close_branches=close_branches, ctx=ctx)


def balance(
    reader: Channel[T],
    branches: int | Sequence[str],
    *,
    capacity: int = 1,
    close_branches: bool = True,
    ctx: Context | None = None,
) -> Balance[T]:
    """Share the items of one reader out among several, each item to one of them.

    Each goes to the reader that has least to do; when all are full, it waits for the first to have
    room.

    Args:
        reader: The channel.
        branches: How many readers there are, or their names.
        capacity: How many items may wait for each; few, so that a slow one keeps few.
        close_branches: False: leave the branches open when the reader has ended.
        ctx: What ends it, if it is cancelled.

    Returns:
        An async context manager that gives a tuple of channels. A branch that is closed by who
        reads it is left out from then on.

    Raises:
        ConfigError: An argument is not allowed.

    Example:
        >>> import asyncio
        >>> import anabranch as ab
        >>> async def main() -> None:
        ...     jobs = ab.Channel(10)
        ...     await jobs.send_many(range(4))
        ...     jobs.close()
        ...     async with ab.balance(jobs, 2) as (one, other):
        ...         print([await one.receive(), await other.receive()])
        ...         print([await one.receive(), await other.receive()])
        >>> asyncio.run(main())
        [0, 1]
        [2, 3]
    """
    channels: list[Channel[T]] = _branches(branches, capacity, "wait", "balance")
    return Balance(reader, channels, close_branches=close_branches, ctx=ctx)


def _branches(
    branches: Any,  # noqa: ANN401 - checked here
    capacity: int,
    on_full: OnFull,
    subject: str,
) -> list[Channel[Any]]:
    given = cast("object", branches)
    names: list[str]
    if type(given) is int and 1 <= given <= MOST:
        names = [f"{subject}[{at}]" for at in range(given)]
    elif isinstance(given, list | tuple) and branches:
        names = list(branches)
        for at, name in enumerate(names):
            check_name(name, subject, argument=f"branches[{at}]")
        if len(set(names)) < len(names):
            raise refused("branches", branches, "names that differ", subject=subject)
    else:
        allowed = f"an int from 1 to {MOST}, or a list of names"
        raise refused("branches", branches, allowed, subject=subject)
    check_branch(capacity, on_full, subject)
    return [Channel(capacity, on_full=on_full, name=name) for name in names]
