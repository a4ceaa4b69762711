"""Where a worker writes what became of a store's messages."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, TypeVar

from anabranch._outbox.outcomes import Outcomes, by_id
from anabranch.errors import AnabranchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from anabranch._outbox.metrics import Meter
    from anabranch._outbox.office import Office
    from anabranch._outbox.store import Store

T = TypeVar("T")


class Desk:
    """Outcomes on their way to one store; everything in the event loop's thread.

    While claim follows claim, they are written over a second connection: a database takes nearly
    as long to delete messages as to hand them out, and does both at once.

    Args:
        store: The store.
        office: Who gives connections.
        meter: Told of what was written.
    """

    def __init__(self, store: Store, office: Office, meter: Meter) -> None:
        self.outcomes = Outcomes()
        self._store = store
        self._office = office
        self._meter = meter
        self._loop = asyncio.get_running_loop()
        self._beside: Store | None = None
        # A store that gives no second connection is not asked for one again.
        self._may = not store.is_quick

    def stores(self) -> Iterator[Store]:
        """Return those that it has connections of."""
        yield self._store
        if self._beside is not None:
            yield self._beside

    @property
    def has_another(self) -> bool:
        """Whether there may be a connection for it alone."""
        return self._may and self._office.is_roomy

    def ack_and(self, claim: Callable[[], T]) -> T:
        """Ack in the transaction of a claim, in a store that is quick: a commit waits for the disk.

        Raises:
            AnabranchError: The store does not work; neither was done.
        """
        acks = sorted(self.outcomes.acks)
        if not acks:
            return claim()
        with self._store.together():
            begun = self._loop.time()
            self._store.ack(acks)
            taken = self._loop.time() - begun
            claimed = claim()
        self._meter.write("done", len(acks), taken)
        self.outcomes.acks.clear()
        return claimed

    async def write(self, *, beside: bool = False, acks: bool = True) -> None:
        """Write all there is.

        Args:
            beside: Whether over a connection of its own.
            acks: Whether to write those, too.

        Raises:
            AnabranchError: The store does not work; what was not written stays here.
        """
        if not beside:
            await self._write(self._store, acks=acks)
            return
        if self._beside is None:
            self._beside = self._store.beside("to write back")
        try:
            await self._write(self._beside, acks=acks)
        except AnabranchError:
            self._may = False
            raise

    async def _write(self, store: Store, *, acks: bool) -> None:
        outcomes = self.outcomes
        if acks:
            await self._end(store, "done", outcomes.acks, store.ack)
        await self._end(store, "again", outcomes.again, store.abandon)
        await self._end(store, "dead", outcomes.dead, store.fail)
        await self._end(store, "divided", outcomes.divided, store.divide)
        await self._end(store, "released", outcomes.releases, store.release)

    async def _end(
        self, store: Store, outcome: str, given: list[T], write: Callable[[Sequence[T]], object]
    ) -> None:
        if not given:
            return
        now = sorted(given, key=by_id)
        begun = self._loop.time()
        await self._office.call(store, functools.partial(write, now))
        self._meter.write(outcome, len(now), self._loop.time() - begun)
        # Meanwhile others may have come, behind these.
        del given[: len(now)]
