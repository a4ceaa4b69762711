"""How many connections a worker has open: those of stores that are idle make room for others."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from anabranch._outbox.line import Line
    from anabranch._outbox.store import Store

# Seconds without a message after which a store need not be listened to any more, if another one is
# to be: it is asked now and then, as all are.
_COLD: Final = 10.0


class Places:
    """Connections that may be open, so many at once; of one event loop. Stores may share them.

    Who needs one and finds none free closes that which was needed longest ago, or
    waits until one is not in use. Those that are to be kept are closed only if there is no other:
    the polls of hundreds of idle stores close each other's, and not that of one at work.

    Args:
        most: How many there are.
        aside: Runs what waits for a database in a thread.
        keeps: Whether one is to be kept.
    """

    def __init__(
        self,
        most: int,
        aside: Callable[..., Awaitable[Any]],
        keeps: Callable[[Line], bool] = lambda _: False,
    ) -> None:
        self.most = most
        self._keeps = keeps
        self._aside = aside
        # By how many calls each is used; the one that was used longest ago stands first.
        self._used: OrderedDict[Line, int] = OrderedDict()
        self._closing = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def taken(self) -> int:
        """How many connections are open, or are just being opened or closed."""
        return len(self._used) + self._closing

    def of(self, line: Line) -> _Place:
        """Have this connection for what follows."""
        return _Place(self, line)

    async def take(self, line: Line) -> None:
        """Have a connection, which must be given back."""
        while line not in self._used and self.taken >= self.most:
            unused = [it for it, uses in self._used.items() if not uses]
            idle = next((it for it in unused if not self._keeps(it)), unused[0] if unused else None)
            if idle is None:
                await self._wait()
            else:
                await self._close(idle)
        self._used[line] = self._used.get(line, 0) + 1
        self._used.move_to_end(line)

    def give_back(self, line: Line) -> None:
        """Need a connection no more."""
        self._used[line] -= 1
        self._let_go()

    async def leave(self, line: Line) -> None:
        """No store of it is worked on any more: it is closed."""
        if self._used.get(line) == 0:
            await self._close(line)

    async def _close(self, line: Line) -> None:
        del self._used[line]
        self._closing += 1
        try:
            await self._aside(line.rest)
        finally:
            self._closing -= 1
            self._let_go()

    async def _wait(self) -> None:
        free: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(free)
        try:
            await free
        except asyncio.CancelledError:
            # It may have been told of one that is free: then another one is to be.
            self._let_go()
            raise

    def _let_go(self) -> None:
        while self._waiting:
            free = self._waiting.popleft()
            if not free.done():
                free.set_result(None)
                return


class _Place:
    """A connection while it is needed.

    No generator: it would not stop where a loop that was interrupted leaves its caller behind.
    """

    __slots__ = ("_line", "_places")

    def __init__(self, places: Places, line: Line) -> None:
        self._places = places
        self._line = line

    async def __aenter__(self) -> None:
        await self._places.take(self._line)

    async def __aexit__(self, *_: object) -> None:
        self._places.give_back(self._line)


class Ears:
    """Which stores are listened to: those that had messages last, over so many connections at once.

    Args:
        most: How many.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        # When each had something last; the one for which that is longest ago stands first.
        self._warm: OrderedDict[Line, float] = OrderedDict()
        self._ends: dict[Store, Callable[[], object]] = {}

    def __contains__(self, line: object) -> bool:
        return line in self._warm

    def warm(self, store: Store, now: float, heard: Callable[[], object]) -> None:
        """Something came from a store: listen to it, if there is room among those that are warm."""
        line = store.line
        if store not in self._ends:
            if store.costs and line not in self._warm and len(self._warm) >= self._most:
                coldest, at = next(iter(self._warm.items()))
                if now - at < _COLD:
                    return
                for other in [it for it in self._ends if it.line is coldest]:
                    self.leave(other)
            self._ends[store] = store.listen(heard)
        if store.costs:
            self._warm[line] = max(now, self._warm.get(line, now))
            self._warm.move_to_end(line)

    def leave(self, store: Store) -> None:
        """Listen to a store no more."""
        end = self._ends.pop(store, None)
        if end is not None:
            end()
            if all(it.line is not store.line for it in self._ends):
                self._warm.pop(store.line, None)

    def close(self) -> None:
        """Listen to nothing more."""
        for store in list(self._ends):
            self.leave(store)
