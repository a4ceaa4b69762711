"""One store at work for a worker: claims go out to the lanes, and verdicts are written back.

A little longer than a file should be: one loop, and what it does in turn.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections import deque
from typing import TYPE_CHECKING, Final, TypeVar

from anabranch._outbox_delivery import BACK, Delivery, Share, Verdict
from anabranch._outbox_outcomes import (
    Outcomes,
    by_id,
    parts_of,
    receipt_of,
)
from anabranch._outbox_routes import Routes, waited_for
from anabranch._outbox_store import Wanted
from anabranch.errors import OutboxError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anabranch._outbox_lane import Lane
    from anabranch._outbox_store import Row, Store, Subscription

T = TypeVar("T")

_logger = logging.getLogger("anabranch")

# Seconds that what became of messages is gathered before it is written.
_LINGER: Final = 0.01
# How many messages are claimed at first; it doubles as long as they are handled quickly.
_FIRST: Final = 64
_QUICKLY: Final = 0.5
_LONGEST_REST: Final = 30.0


class Post:
    """What a worker does with one store; everything but `settled` in the event loop's thread.

    Args:
        store: The store.
        tenant: The key it is known by; None: there is but one.
        lanes: Those who handle, by the name of their subscriber.
        batch: How many messages are claimed at once at most, and each lane may have in hand.
        lease: Seconds that a claim holds.
        poll: Seconds until an idle store is asked again, at first and at most.
        once: Whether to claim once only.
    """

    _loop: asyncio.AbstractEventLoop
    _timer: asyncio.TimerHandle | None
    _asleep: asyncio.Future[None] | None
    _owner: int

    def __init__(
        self,
        store: Store,
        tenant: object,
        lanes: dict[str, Lane],
        *,
        batch: int,
        lease: float,
        poll: tuple[float, float],
        once: bool,
    ) -> None:
        self.label = store.label
        self.tenant = tenant
        self.branch = store.label if tenant is None else tenant
        self.claimed = 0
        self._store = store
        self._lanes = lanes
        self._batch = batch
        self._size = min(batch, _FIRST)
        self._lease = lease
        self._poll = poll
        self._idle = poll[0]
        self._once = once
        self._stopping = False
        self._open: dict[int, Delivery | Share] = {}
        self._in_hand = dict.fromkeys(lanes, 0)
        self._settled: deque[tuple[Delivery, Verdict]] = deque()
        # Whether somebody was told that there is something to write.
        self._armed = False
        self._subscribed = False
        self._routes = Routes(store.label)
        self._outcomes = Outcomes()
        self._faults = 0
        self._random = random.Random()  # noqa: S311 - it spreads the polls

    # -- what became of messages

    def settled(self, delivery: Delivery, verdict: Verdict) -> None:
        """Note what became of a message; from any thread. Only the first word counts."""
        self._settled.append((delivery, verdict))
        if not self._armed:
            self._armed = True
            if threading.get_ident() == self._thread:
                self._loop.call_soon(self._ring)
            else:
                self._loop.call_soon_threadsafe(self._ring)

    def _ring(self) -> None:
        self._armed = False
        if len(self._settled) >= max(1, len(self._open) // 2):
            self.wake()
        elif self._timer is None:
            self._timer = self._loop.call_later(_LINGER, self.wake)

    def wake(self) -> None:
        """There may be something to do."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._woken = True
        if self._asleep is not None and not self._asleep.done():
            self._asleep.set_result(None)

    def heard(self) -> None:
        """Something was enqueued, perhaps; from any thread."""
        self._next_claim = 0.0
        self._idle = self._poll[0]
        if threading.get_ident() == self._thread:
            self.wake()
        else:
            self._loop.call_soon_threadsafe(self.wake)

    def stop(self) -> None:
        """Claim nothing more, and end when what was claimed has ended."""
        self._stopping = True
        self.wake()

    async def _sleep(self, seconds: float) -> None:
        if self._woken:
            self._woken = False
            return
        self._asleep = self._loop.create_future()
        timer = self._loop.call_later(seconds, self.wake)
        try:
            await self._asleep
        finally:
            timer.cancel()
            self._asleep = None
            self._woken = False

    # -- at work

    def begin(self) -> None:
        """Belong to the running loop."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._timer = None
        self._asleep = None
        self._woken = False
        self._next_claim = 0.0
        # The lanes that had no room at the latest claim; when that was, and when the one before
        # began if it was a full one.
        self._blocked: set[str] = set()
        self._at = 0.0
        self._dispatched = 0
        self._began: float | None = None
        self._next_beat = self._loop.time() + self._lease / 3

    async def _subscribe(self) -> None:
        """Tell the store who hears of what."""
        for lane in self._lanes.values():
            pattern = lane.handler.pattern
            await self._do(self._store.subscribe, lane.name, [pattern])
        self._owner = await self._do(self._store.owner)
        self._subscribed = True

    async def run(self) -> None:
        """Claim and end messages until told to stop, and nothing is left in hand.

        Raises:
            OutboxError: The only outbox does not work from the beginning on.
        """
        while True:
            try:
                if not self._subscribed and not self._stopping:
                    await self._subscribe()
                await self._flush()
                if self._stopping and not self._open:
                    return
                now = self._loop.time()
                if now >= self._next_beat:
                    await self._beat(now)
                if now >= self._next_claim and not self._stopping:
                    came = await self._claim()
                    self._stopping |= self._once and came
                    # The lanes have their turn.
                    await asyncio.sleep(0)
                    continue
                self._recovered()
            except OutboxError as error:
                if self.tenant is None and not self._subscribed:
                    raise
                self._rest(error)
                self._stopping |= self._once
                if self._stopping and self._faults > 1:
                    # What could not be written stays with its lease.
                    return
            until = self._next_beat
            if not self._stopping:
                until = min(until, self._next_claim)
            await self._sleep(max(0.0, until - self._loop.time()))

    def give_back(self) -> None:
        """Nobody is at work any more: what is in hand ends, or is as if it was never claimed."""
        for entry in list(self._open.values()):
            for delivery in parts_of(entry):
                cut = Verdict("again", error="Stopped: the worker stopped while it was handled")
                self._settled.append((delivery, cut if delivery.begun else BACK))
        self.stop()

    async def close(self) -> None:
        """Write what could not be written yet."""
        self.give_back()
        try:
            await self._flush()
        except OutboxError as error:
            _logger.warning("%s", error)

    async def _do(self, call: Callable[..., T], *args: object) -> T:
        if self._store.is_quick:
            return call(*args)
        return await self._loop.run_in_executor(None, call, *args)

    def _rest(self, error: OutboxError) -> None:
        """The store does not work: leave it alone for a while; the others go on."""
        self._faults += 1
        if self._faults == 1:
            _logger.warning("%s; its messages wait", error)
        longest = min(_LONGEST_REST, 0.1 * 2 ** min(self._faults, 20))
        rest = longest * (0.5 + self._random.random() / 2)
        self._next_claim = max(self._next_claim, self._loop.time() + rest)
        self._next_beat = max(self._next_beat, self._loop.time() + min(rest, self._lease / 6))

    def _recovered(self) -> None:
        if self._faults:
            self._faults = 0
            _logger.warning("outbox %s works again", self.label)

    # -- claiming

    async def _claim(self) -> bool:
        """Claim once; return whether there was anything to handle, or nothing at all."""
        full = {name for name, count in self._in_hand.items() if count >= self._batch}
        self._blocked = full
        wanted = Wanted(self._routes.without(full), tuple(self._lanes))
        begun = self._loop.time()
        claimed = await self._do(
            self._store.claim, self._owner, self._size, round(self._lease * 1000), wanted
        )
        if claimed.version != self._routes.version:
            self._routes.learn(*await self._do(self._store.subscriptions))
        self._at = begun
        self._dispatch(claimed.rows)
        if len(claimed.rows) == self._size:
            self._idle = self._poll[0]
            if self._began is not None and begun - self._began < _QUICKLY:
                self._size = min(self._batch, self._size * 2)
            self._began = begun
            return self._dispatched > 0
        self._began = None
        if claimed.rows:
            self._idle = self._poll[0]
        wait = self._idle * (0.9 + 0.1 * self._random.random())
        if not full:
            self._idle = min(self._poll[1], self._idle * 2)
        due = await self._do(self._store.next_in)
        if due is not None:
            wait = min(wait, due / 1000)
        # Of what was only given back the next claim knows.
        idle = self._dispatched > 0 or not claimed.rows
        self._next_claim = begun + wait if idle else 0.0
        return idle

    def _dispatch(self, rows: Sequence[Row]) -> None:
        gifts: dict[str, list[Delivery]] = {}
        before = self.claimed
        for row in rows:
            route = self._routes.to(row[1])
            if len(route) == 1 and row[21] is None and (lane := self._lanes.get(route[0][0])):
                delivery = Delivery(row, self, lane, row[15])
                self._open[row[0]] = delivery
                self.claimed += 1
                self._add(gifts, delivery)
            else:
                self._divide(row, route, gifts)
        for name, deliveries in gifts.items():
            self._in_hand[name] += len(deliveries)
            self._lanes[name].give(deliveries)
        self._dispatched = self.claimed - before

    def _divide(
        self, row: Row, route: list[Subscription], gifts: dict[str, list[Delivery]]
    ) -> None:
        """Give a message to those of several subscribers that are here and wait for it."""
        waiting = waited_for(row, route)
        here = [name for name in waiting if name in self._lanes]
        receipt = (row[0], row[17], row[20])
        if not waiting and row[21] is not None:
            self._outcomes.acks.append(receipt)
            self._woken = True
            return
        if not here:
            self._routes.shun(row[1], parked=not waiting)
            self._outcomes.releases.append(receipt)
            self._woken = True
            return
        share = Share(row, waiting)
        for name in here:
            if share.is_due(name):
                delivery = Delivery(row, self, self._lanes[name], share.attempt(name))
                delivery.share = share
                share.parts[name] = delivery
        if not share.parts:
            self._outcomes.divided.append(share.postponed())
            self._woken = True
            return
        self._open[row[0]] = share
        self.claimed += 1
        for delivery in share.parts.values():
            self._add(gifts, delivery)

    def _add(self, gifts: dict[str, list[Delivery]], delivery: Delivery) -> None:
        lane = delivery.lane
        if delivery.attempt > lane.handler.retry.attempts:
            # The attempts before were cut off each time, with those who made them.
            error = f"Poison: {delivery.attempt - 1} attempts, the last of them without an end"
            self._in_hand[lane.name] += 1
            self._settled.append((delivery, Verdict("dead", error=error)))
            self._woken = True
            return
        gifts.setdefault(lane.name, []).append(delivery)

    # -- writing back

    async def _flush(self) -> None:
        self._sort()
        outcomes = self._outcomes
        store = self._store
        for given, write in (
            (outcomes.acks, store.ack),
            (outcomes.again, store.abandon),
            (outcomes.dead, store.fail),
            (outcomes.divided, store.divide),
            (outcomes.releases, store.release),
        ):
            if given:
                now = sorted(given, key=by_id)
                await self._do(write, now)
                del given[: len(now)]

    def _sort(self) -> None:
        while self._settled:
            delivery, verdict = self._settled.popleft()
            entry = self._open.get(delivery.id)
            share = delivery.share
            if entry is None or entry is not (share or delivery):
                continue
            if share is None:
                self._in_hand[delivery.lane.name] -= 1
                del self._open[delivery.id]
                self._outcomes.take(delivery, verdict)
            elif not share.settled(delivery.lane.name):
                self._in_hand[delivery.lane.name] -= 1
                if share.settle(delivery.lane.name, verdict):
                    del self._open[delivery.id]
                    elapsed = round((self._loop.time() - self._at) * 1000)
                    division = share.divided(elapsed)
                    if division is None:
                        self._outcomes.acks.append((share.row[0], share.row[17], share.row[20]))
                    else:
                        self._outcomes.divided.append(division)
                        self._due_in(division[3])

        if any(self._in_hand[name] <= self._batch // 2 for name in self._blocked):
            self._blocked = set()
            self._next_claim = 0.0

    def _due_in(self, delay: int | None) -> None:
        if delay is not None:
            self._next_claim = min(self._next_claim, self._loop.time() + delay / 1000)

    async def _beat(self, now: float) -> None:
        """Hold what is in hand for longer; what is held no more is taken from its handler."""
        self._next_beat = now + self._lease / 3
        if not self._open:
            return
        receipts = {id_: receipt_of(entry) for id_, entry in self._open.items()}
        held = await self._do(
            self._store.extend, sorted(receipts.values()), round(self._lease * 1000)
        )
        for id_ in receipts.keys() - set(held):
            entry = self._open.pop(id_, None)
            if entry is None or receipt_of(entry) != receipts[id_]:
                continue
            for delivery in parts_of(entry):
                self._in_hand[delivery.lane.name] -= 1
                delivery.lost = True
                if delivery.task is not None:
                    delivery.task.cancel()
