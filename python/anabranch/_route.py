"""`fan_out` by hand: one branch per key, in a mapping that lives as long as its block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, cast

from anabranch._calls import check_def, check_seconds
from anabranch._idle import Idle
from anabranch._landing import plain, true
from anabranch._moment import moment
from anabranch._record import note
from anabranch._relay import Relay, check_branch
from anabranch._room import Room
from anabranch.channel import Channel
from anabranch.errors import BranchError, BranchRefused, ChannelClosed, ClosedError, refused
from anabranch.keys import AttrKey, ItemKey

if TYPE_CHECKING:
    from datetime import timedelta
    from types import TracebackType

    from anabranch.context import Context

T = TypeVar("T")

OnFull: TypeAlias = Literal["wait", "drop_newest", "drop_oldest", "fail"]
"""What happens to an item that its branch has no room for."""


class Branches(Relay[T], Mapping[Any, Channel[T]]):
    """The branches of a reader, by their keys; made by `ab.fan_out`.

    It is a mapping of the branches that are open, and changes as keys come and go.
    """

    def __init__(  # noqa: PLR0917 - for `fan_out` alone
        self,
        reader: object,
        by: Callable[[Any], Any],
        capacity: int | Callable[[Any], int],
        on_full: OnFull | Callable[[Any], OnFull],
        max_branches: int,
        on_new_branch: Callable[[Any, Channel[T]], object] | None,
        on_branch_closed: Callable[[Any], object] | None,
        idle_ttl: float | None,
        **options: object,
    ) -> None:
        super().__init__(reader, subject="fan_out", **options)
        self._by = by
        self._capacity = capacity
        self._on_full = on_full
        self._most = max_branches
        self._on_new = on_new_branch
        self._on_closed = on_branch_closed
        self._open: dict[Any, Channel[T]] = {}
        self._idle = None if idle_ttl is None else Idle(idle_ttl, self._evict)
        self._removed: set[Any] = set()
        self._refused = 0
        self._left = False

    # The mapping.

    def __getitem__(self, tenant: object) -> Channel[T]:
        return self._open[tenant]

    def __iter__(self) -> Iterator[Any]:
        return iter(tuple(self._open))

    def __len__(self) -> int:
        return len(self._open)

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    @property
    def refused(self) -> int:
        """How many items were for a branch that was removed."""
        return self._refused

    def add(self, tenant: object) -> Channel[T]:
        """Open a branch before its first item comes, or one that was drained or removed.

        Raises:
            BranchError: It is open.
            BranchRefused: There are `max_branches` already.
            ClosedError: The block has not begun, or has been left.
            ConfigError: `capacity` or `on_full` gave what is not allowed.
        """
        if self._task is None:
            raise self._not_begun()
        if self._left:
            message = f"fan_out: its block has been left: no branch {tenant!r} is opened"
            raise ClosedError(message, since=self._since)
        if tenant in self._open:
            message = f"fan_out: the branch {tenant!r} is open already"
            raise BranchError(message, tenant=tenant, state="open")
        self._removed.discard(tenant)
        return self._new(tenant)

    def drain(self, tenant: object) -> None:
        """Close a branch after the items it holds; the next item opens it again.

        Raises:
            BranchError: There is no such branch.
        """
        self._shut(tenant)

    def remove(self, tenant: object) -> None:
        """Close a branch after the items it holds, for good, until `add`.

        What comes for it from now on is dropped, and counted as `refused`.

        Raises:
            BranchError: There is no such branch.
        """
        self._shut(tenant)
        self._removed.add(tenant)

    async def __aenter__(self) -> Branches[T]:
        """Begin to route."""
        await self._begin()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop; what is wrong with what it was given is raised."""
        if self._idle is not None:
            self._idle.stop()
        self._left = True
        self._since = moment()
        await super().__aexit__(kind, error, traceback)

    def __repr__(self) -> str:
        return f"<Branches: {len(self._open)} open>"

    def _shut(self, tenant: object) -> None:
        channel = self._open.pop(tenant, None)
        if channel is None:
            message = f"fan_out: there is no branch {tenant!r}"
            raise BranchError(message, tenant=tenant)
        channel.close()
        if self._on_closed is not None:
            plain(self._on_closed(tenant))

    def _evict(self, tenant: object) -> bool:
        """Close a branch that has been idle; return whether it is over."""
        channel = self._open.get(tenant)
        if channel is not None and channel.depth:
            return False
        try:
            if channel is not None:
                self._shut(tenant)
        except Exception as error:  # noqa: BLE001 - told when the block is left, as any hook's
            self._give_up(error)
        return True

    def _new(self, tenant: object) -> Channel[T]:
        if len(self._open) >= self._most:
            message = f"fan_out: {tenant!r} would be one branch more than the {self._most} allowed"
            raise BranchRefused(message, code="branch.limit")
        capacity = self._capacity(tenant) if callable(self._capacity) else self._capacity
        mode: Any = self._on_full
        on_full: Any = mode(tenant) if callable(mode) else mode
        channel: Channel[T] = Channel(capacity, on_full=on_full, name=str(tenant) or "''")
        self._open[tenant] = channel
        if self._idle is not None:
            self._idle.touch(tenant)
        if self._on_new is not None:
            plain(self._on_new(tenant, channel))
        return channel

    # The routing.

    def _targets(self) -> list[Channel[T]]:
        return list(self._open.values())

    async def _pass_on(self, items: list[T]) -> None:
        # By branch: whoever waits for one with room does not wait for the others first.
        waiting: dict[Any, list[T]] = {}
        try:
            for item in items:
                waiting.setdefault(self._key(item), []).append(item)
        except BaseException:
            self._put_back(items)
            raise
        try:
            for tenant in tuple(waiting):
                if self._at_once(tenant, waiting[tenant]):
                    del waiting[tenant]
            for tenant in tuple(waiting):
                await self._in_time(tenant, waiting[tenant])
                del waiting[tenant]
        except BaseException:
            self._put_back([item for rest in waiting.values() for item in rest])
            raise

    def _key(self, item: T) -> Any:  # noqa: ANN401 - a key can be anything hashable
        try:
            tenant = true(self._by(item))
            hash(tenant)
        except Exception as error:
            note(error, "in the key of fan_out")
            raise
        return tenant

    def _at_once(self, tenant: object, items: list[T]) -> bool:
        """Send what there is room for now; say whether nothing is left."""
        channel = self._branch(tenant, items)
        if channel is None:
            return True
        core = channel._core
        if len(items) <= core.capacity or not core.whole:
            try:
                return core.send_many(items)
            except ChannelClosed:
                return False
        return False

    async def _in_time(self, tenant: object, items: list[T]) -> None:
        """Send these as there is room."""
        while items and (channel := self._branch(tenant, items)) is not None:
            many = min(len(items), max(1, channel.capacity // 2))
            with Room(channel, many) as room:
                await room.wait()
                try:
                    room.send(items[:many])
                except ChannelClosed:
                    # It was drained, or who read it has left: it comes back for its next item.
                    if self._open.get(tenant) is channel:
                        self._shut(tenant)
                    continue
                del items[:many]

    def _branch(self, tenant: object, items: list[T]) -> Channel[T] | None:
        """Return the branch of a key; None, with the items counted, if it was removed."""
        if tenant in self._removed:
            self._refused += len(items)
            items.clear()
            return None
        channel = self._open.get(tenant)
        if channel is not None and channel.closed:
            self._shut(tenant)
            channel = None
        if channel is not None and self._idle is not None:
            self._idle.touch(tenant)
        return self._new(tenant) if channel is None else channel


def fan_out(
    reader: Channel[T],
    by: str | Callable[[T], object] | ItemKey | AttrKey,
    *,
    capacity: int | Callable[[Any], int] = 1000,
    on_full: OnFull | Callable[[Any], OnFull] = "wait",
    max_branches: int = 1_000_000,
    on_new_branch: Callable[[Any, Channel[T]], object] | None = None,
    on_branch_closed: Callable[[Any], object] | None = None,
    idle_ttl: float | timedelta | None = None,
    close_branches: bool = True,
    ctx: Context | None = None,
) -> Branches[T]:
    """Give each key of a reader's items a channel of its own, opened for its first item.

    The order of the items of a key holds. A full branch with `on_full="wait"` holds up the others
    once what is in hand for them is sent; a pipeline's `fan_out` isolates them further.

    Args:
        reader: The channel.
        by: The key: a name, as for `Pipeline.fan_out`, or a `def` that is given an item.
        capacity: How many items each branch may hold; or a function of the key.
        on_full: What happens to an item that its branch has no room for; or a function of the key.
        max_branches: The most that are open at once; one more is an error.
        on_new_branch: Called with the key and the channel of each branch that opens, at once: the
            place to begin what reads it, e.g. by `group.go`.
        on_branch_closed: Called with the key of each branch that was drained or removed, idle, or
            closed by who reads it.
        idle_ttl: After so many seconds in which nothing came for a branch, and with nothing left
            in it, it is closed; its next item opens it again. By the event loop's clock. None:
            never.
        close_branches: False: leave the branches open when the reader has ended.
        ctx: What ends it, if it is cancelled.

    Returns:
        An async context manager that gives a live mapping from keys to channels, with `add`,
        `drain` and `remove`. What the key, or a callable of a branch, raises ends it, and is
        raised when the block is left.

    Raises:
        ConfigError: An argument is not allowed.

    Example:
        >>> import asyncio
        >>> import anabranch as ab
        >>> async def main() -> None:
        ...     events = ab.Channel(10)
        ...     stored = []
        ...     async def store(tenant: str, events: ab.Channel) -> None:
        ...         stored.append((tenant, [event["n"] async for event in events]))
        ...     await events.send_many({"tenant": t, "n": n} for n, t in enumerate("aba"))
        ...     events.close()
        ...     async with ab.WaitGroup() as group:
        ...         opened = lambda tenant, channel: group.go(store, tenant, channel)
        ...         async with ab.fan_out(events, by="tenant", on_new_branch=opened) as branches:
        ...             await branches.finished()
        ...     print(sorted(stored))
        >>> asyncio.run(main())
        [('a', [0, 2]), ('b', [1])]
    """
    key = _key_of(by)
    if type(max_branches) is not int or max_branches < 1:
        raise refused("max_branches", max_branches, "an int >= 1", subject="fan_out")
    for argument, hook in (
        ("on_new_branch", on_new_branch),
        ("on_branch_closed", on_branch_closed),
    ):
        if hook is not None and not callable(hook):
            raise refused(argument, hook, "a callable or None", subject="fan_out")
    if idle_ttl is not None:
        idle_ttl = check_seconds(idle_ttl, "idle_ttl", "fan_out", exclusive=True)
    # Refused here, not at the first item.
    of_each = {"capacity": capacity, "on_full": on_full}
    for argument, given in of_each.items():
        if callable(given):
            check_def(given, argument, "fan_out", args=(None,), gives="a key")
    check_branch(
        1 if callable(capacity) else capacity, "wait" if callable(on_full) else on_full, "fan_out"
    )
    return Branches(
        reader,
        key,
        capacity,
        on_full,
        max_branches,
        on_new_branch,
        on_branch_closed,
        idle_ttl,
        close_branches=close_branches,
        ctx=ctx,
    )


def _key_of(by: Any) -> Callable[[Any], Any]:  # noqa: ANN401 - checked here
    if isinstance(by, str) and by:
        return ItemKey(by)
    if not callable(cast("object", by)):
        allowed = "a name, ab.item(...), ab.attr(...) or a def that is given an item"
        raise refused("by", by, allowed, subject="fan_out")
    check_def(by, "by", "fan_out", args=(None,), gives="an item")
    return cast("Callable[[Any], Any]", by)
