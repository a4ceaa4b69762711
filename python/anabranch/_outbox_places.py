"""How many connections a worker has open: those of stores that are idle make room for others."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from anabranch._outbox_store import Store

# Seconds without a message after which a store need not be listened to any more, if another one is
# to be: it is asked now and then, as all are.
_COLD: Final = 10.0


class Places:
    """Connections that stores may have open, so many at once; of one event loop.

    Who needs one and finds none free closes that of the store that needed its own longest ago, or
    waits until one is not in use. Those that are to be kept are closed only if there is no other:
    the polls of hundreds of idle stores close each other's, and not that of one at work.

    Args:
        most: How many there are.
        aside: Runs what waits for a database in a thread.
        keeps: Whether that of a store is to be kept.
    """

    def __init__(
        self,
        most: int,
        aside: Callable[..., Awaitable[Any]],
        keeps: Callable[[Store], bool] = lambda _: False,
    ) -> None:
        self._most = most
        self._keeps = keeps
        self._aside = aside
        # By how many calls each is used; the one that was used longest ago stands first.
        self._used: OrderedDict[Store, int] = OrderedDict()
        self._closing = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def taken(self) -> int:
        """How many connections are open, or are just being opened or closed."""
        return len(self._used) + self._closing

    @contextlib.asynccontextmanager
    async def of(self, store: Store) -> AsyncGenerator[None]:
        """Have a connection of this store's for what follows."""
        while store not in self._used and self.taken >= self._most:
            unused = [it for it, uses in self._used.items() if not uses]
            idle = next((it for it in unused if not self._keeps(it)), unused[0] if unused else None)
            if idle is None:
                await self._wait()
            else:
                await self._close(idle)
        self._used[store] = self._used.get(store, 0) + 1
        self._used.move_to_end(store)
        try:
            yield
        finally:
            self._used[store] -= 1
            self._let_go()

    async def leave(self, store: Store) -> None:
        """A store is worked on no more: its connection is closed."""
        if self._used.get(store) == 0:
            await self._close(store)

    async def _close(self, store: Store) -> None:
        del self._used[store]
        self._closing += 1
        try:
            await self._aside(store.rest)
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


class Ears:
    """Which stores are listened to: those that had messages last, so many at once.

    Args:
        most: How many.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        # When each had something last; the one for which that is longest ago stands first.
        self._warm: OrderedDict[Store, float] = OrderedDict()
        self._ends: dict[Store, Callable[[], object]] = {}

    def __contains__(self, store: object) -> bool:
        return store in self._ends

    def warm(self, store: Store, now: float, heard: Callable[[], object]) -> None:
        """Something came from a store: listen to it, if there is room among those that are warm."""
        if store not in self._ends:
            if store.costs and len(self._warm) >= self._most:
                coldest, at = next(iter(self._warm.items()))
                if now - at < _COLD:
                    return
                self.leave(coldest)
            self._ends[store] = store.listen(heard)
        if store.costs:
            self._warm[store] = now
            self._warm.move_to_end(store)

    def leave(self, store: Store) -> None:
        """Listen to a store no more."""
        self._warm.pop(store, None)
        end = self._ends.pop(store, None)
        if end is not None:
            end()

    def close(self) -> None:
        """Listen to nothing more."""
        for store in list(self._ends):
            self.leave(store)
