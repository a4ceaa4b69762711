"""One store at work for a worker: claims go out to the lanes, and verdicts are written back."""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
from typing import TYPE_CHECKING, Final, Literal, TypeVar

from anabranch._outbox.desk import Desk
from anabranch._outbox.hand import Hand
from anabranch._outbox.metrics import Meter, PostRow
from anabranch._outbox.routes import Routes
from anabranch._outbox.schedule import Turn
from anabranch._outbox.store import Wanted
from anabranch._outbox.upkeep import Upkeep
from anabranch.errors import AnabranchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from anabranch._outbox.delivery import Delivery, Verdict
    from anabranch._outbox.office import Office
    from anabranch._outbox.store import Claimed, Store
    from anabranch._outbox.taker import Taker

T = TypeVar("T")

_logger = logging.getLogger("anabranch")

# Seconds until a store that has failed is tried for the last time when the worker stops.
_LAST_REST: Final = 0.2
# Seconds that what became of messages is gathered before it is written.
_LINGER: Final = 0.01
# How many messages are claimed at first; it doubles as long as they are handled quickly.
_FIRST: Final = 64
_QUICKLY: Final = 0.5
# Steps of the event loop until a lane that was idle has called its handler.
_STEPS: Final = 4


class Post:
    """What a worker does with one store; everything but `settled` in the event loop's thread.

    It claims when it is given a turn, and writes what became of messages when that is known. As
    long as there is nothing to do, nothing of it runs.

    Args:
        store: The store.
        tenant: The key it is known by; None: there is but one.
        lanes: Those who handle, by the name of their subscriber.
        office: Who gives it turns.
        batch: How many messages are claimed at once at most, and each lane may have in hand.
        lease: Seconds that a claim holds.
        once: Whether to claim once only.
        sounding: Whether to tell how much is ready.
    """

    _timer: asyncio.TimerHandle | None
    _asleep: asyncio.Future[None] | None
    _owner: int

    def __init__(
        self,
        store: Store,
        tenant: object,
        lanes: Mapping[str, Taker],
        office: Office,
        *,
        batch: int,
        lease: float,
        once: bool,
        sounding: bool,
    ) -> None:
        self.label = store.label
        self.tenant = tenant
        self.branch = store.label if tenant is None else tenant
        self.store = store
        self.stopping = False
        # What it has in hand and nobody has begun goes back.
        self.retired = False
        self.running = False
        # Whether the office is going to hear of what was enqueued; what tells it so.
        self.told = False
        self.heard: Callable[[], None] = self.hear
        self._lanes = lanes
        self._office = office
        self._batch = batch
        self._size = min(batch, _FIRST)
        self._lease = lease
        self._once = once
        self._sounding = sounding
        # Whether somebody was told that there is something to write.
        self._armed = False
        self._subscribed = False
        self._routes = Routes(store.label)
        # How often in a row the store did not work, and until when it is left alone.
        self._faults = 0
        self._resting = 0.0
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        # Whether what became of messages is to be written now; if not, by when.
        self._pressing = False
        self._timer = None
        self._asleep = None
        self._woken = False
        self._granted = False
        # Whether nothing was there the last time: then the next turn looks before it claims.
        self._idle = False
        # The lanes that had no room at the latest claim; when that was, and when the one before
        # began if it was a full one.
        self._blocked: set[str] = set()
        self._at = 0.0
        self._dispatched = 0
        self._began: float | None = None
        self._next_beat = self._loop.time() + self._lease / 3
        self.meter = Meter()
        self._desk = Desk(store, office, self.meter)
        self._outcomes = self._desk.outcomes
        self._hand = Hand(self, lanes, self._routes, self._outcomes, most=batch)
        self._upkeep = Upkeep(office.name, list(lanes))

    @property
    def claimed(self) -> int:
        """How many messages were claimed to be handled."""
        return self._hand.claimed

    # -- what became of messages

    def settled(self, delivery: Delivery, verdict: Verdict) -> None:
        """Note what became of a message; from any thread. Only the first word counts."""
        self._hand.settled.append((delivery, verdict))
        if not self._armed:
            self._armed = True
            if threading.get_ident() == self._thread:
                self._loop.call_soon(self._ring)
            else:
                self._loop.call_soon_threadsafe(self._ring)

    def _ring(self) -> None:
        self._armed = False
        known = len(self._hand.settled) + len(self._outcomes)
        # All there is, or as many as a claim brings: each write costs the database a commit.
        if known >= min(len(self._hand) + len(self._outcomes), self._size):
            self._press()
        else:
            self._linger()

    def _linger(self) -> None:
        """Write soon what became of messages, unless a claim takes it along before."""
        if self._timer is None:
            self._timer = self._loop.call_later(_LINGER, self._press)

    def _press(self) -> None:
        """Write what became of messages."""
        self._pressing = True
        self.wake()

    def _relax(self) -> None:
        """It is about to be written."""
        self._pressing = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def wake(self) -> None:
        """There may be something to do."""
        self._woken = True
        if self._asleep is not None:
            if not self._asleep.done():
                self._asleep.set_result(None)
        elif not self.running:
            self.running = True
            self._office.awake(self)

    def hear(self) -> None:
        """Something was enqueued, perhaps: the next turn claims without a look."""
        self._idle = False

    def grant(self) -> None:
        """It has a turn."""
        self._granted = True
        self.wake()

    def stop(self) -> None:
        """Claim nothing more, and end when what was claimed has ended."""
        self.stopping = True
        self.wake()

    def retire(self) -> None:
        """Its store is worked on no more: end as soon as what was begun has ended."""
        self.retired = True
        self.stop()

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.stopping and not self.running

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

    async def run(self) -> None:
        """Work until there is nothing in hand, and no turn.

        Raises:
            AnabranchError: The only outbox does not work from the beginning on.
        """
        try:
            while await self._work():
                pass
        finally:
            self.running = False

    async def _work(self) -> bool:
        """Do what is to be done now, and wait for what comes; return whether there may be more."""
        if self.stopping or self._loop.time() >= self._resting:
            try:
                if await self._act():
                    return True
            except AnabranchError as error:
                if self.tenant is None and not self._subscribed:
                    raise
                self._rest(error)
                if self.stopping and self._faults > 1:
                    # What could not be written stays with its lease.
                    return False
        if self.stopping:
            self._granted = False
        if not (self._granted or self._hand or self._hand.settled or self._outcomes):
            self._woken = False
            return False
        until = self._resting if self._faults else self._next_beat
        await self._sleep(max(0.0, until - self._loop.time()))
        return True

    async def _act(self) -> bool:
        """Do what is to be done now; return whether that was a turn."""
        if self._granted and not self._subscribed and not self.stopping:
            await self._subscribe()
        if self._loop.time() >= self._next_beat:
            await self._beat(self._loop.time())
        self._sort()
        if self._granted and not self.stopping:
            await self._flush_and_claim()
            self._recovered()
            # The lanes have theirs.
            await asyncio.sleep(0)
            return True
        if self._pressing or self.stopping:
            await self._flush()
        elif self._outcomes:
            self._linger()
        return False

    async def _subscribe(self) -> None:
        """Tell the store who hears of what."""
        for lane in self._lanes.values():
            pattern = lane.handler.pattern
            await self._do(self.store.subscribe, lane.name, [pattern])
        self._owner = await self._do(self.store.owner)
        self._subscribed = True

    def give_back(self) -> None:
        """Nobody is at work any more: what is in hand ends, or is as if it was never claimed."""
        self._hand.give_back()
        self.stop()

    async def close(self) -> None:
        """Write what could not be written yet."""
        self.stopping = self.running = True
        self.give_back()
        try:
            await self._flush()
            # Otherwise it is forgotten by and by: that is no reason to connect once more.
            if self._subscribed and not self._faults and not self._office.is_crowded:
                await self._do(self.store.leave, self._owner)
        except AnabranchError as error:
            _logger.warning("%s", error)

    async def _do(self, call: Callable[..., T], *args: object) -> T:
        return await self._office.call(self.store, functools.partial(call, *args))

    def _rest(self, error: AnabranchError) -> None:
        """The store does not work: leave it alone for a while; the others go on."""
        self._faults += 1
        if self._faults == 1:
            _logger.warning("%s; its messages wait", error)
        self._granted = False
        self._pressing = True
        rest = self._office.failed(self)
        if self._hand:
            # There are leases to be kept.
            rest = min(rest, self._lease / 6)
        self.stopping |= self._once
        if self.stopping:
            # It has only to write what became of messages, and somebody waits for its end.
            rest = min(rest, _LAST_REST)
        self._resting = self._loop.time() + rest

    def _recovered(self) -> None:
        if self._faults:
            self._faults = 0
            _logger.warning("outbox %s works again", self.label)

    # -- claiming

    async def _flush_and_claim(self) -> None:
        """Write what became of messages; where claim follows claim, while the next one is made."""
        if self._began is None or not self._desk.has_another:
            await self._flush(acks=not self.store.is_quick)
            await self._turn()
            if not self._outcomes.acks:
                self._freed_key()
            return
        self._relax()
        writing = self._loop.create_task(self._desk.write(beside=True))
        try:
            await self._turn()
        except asyncio.CancelledError:
            writing.cancel()
            raise
        finally:
            await asyncio.wait([writing])
            failed = None if writing.cancelled() else writing.exception()
        if failed is not None:
            raise failed
        self._freed_key()

    async def _turn(self) -> None:
        if self._upkeep.is_due(self._loop.time(), idle=self._idle):
            await self._do(self._keep_up)
        if self._idle:
            found, due = await self._do(self._look)
            if not found:
                self._granted = False
                self.stopping |= self._once
                depth = 0 if self._sounding else None
                self._office.ended(self, Turn("none", due, depth))
                return
        turn = await self._claim()
        self._granted = False
        self._idle = turn.found == "none"
        # Of what was only given back the next claim knows.
        self.stopping |= self._once and (self._dispatched > 0 or turn.found != "full")
        self._office.ended(self, turn)

    @property
    def stores(self) -> Iterable[Store]:
        """Those whose connections it may have."""
        return self._desk.stores()

    def row(self) -> PostRow:
        """Tell how it is."""
        return PostRow(self.label, self.tenant, len(self._hand), self._faults > 0, self.meter)

    def _keep_up(self) -> None:
        now, idle = self._loop.time(), self._idle
        self._upkeep.do(
            self.store, self._owner, now, in_hand=len(self._hand), handled=self.claimed, idle=idle
        )

    def _look(self) -> tuple[bool, float | None]:
        """Tell whether there is something to claim, and when there will be; it changes nothing."""
        # The server's counts of what was written to each database would spare most looks, but a
        # session that commits and goes on in another transaction is not counted until it ends.
        # In this order: what becomes due in between is seen.
        due = self.store.next_in()
        if self.store.peek(1):
            return True, None
        # A join whose time is over is ended by a claim.
        return due is not None and due <= 0, None if due is None else due / 1000

    async def _claim(self) -> Turn:
        """Claim once."""
        full = self._hand.full()
        self._blocked = full
        if len(full) == len(self._lanes):
            # Whatever there is, nobody has room for it: no database need look.
            return Turn("blocked")
        wanted = Wanted(self._routes.without(full), tuple(self._lanes))
        begun = self._loop.time()
        claimed = await self._do(self._take, wanted)
        self.meter.claim(len(claimed.rows), self._loop.time() - begun)
        if claimed.version != self._routes.version:
            self._routes.learn(*await self._do(self.store.subscriptions))
        self._at = begun
        self._dispatched = self._hand.deal(claimed.rows)
        depth = oldest = None
        if self._sounding:
            depth, waited = await self._do(self.store.backlog)
            oldest = None if waited is None else waited / 1000
        if len(claimed.rows) == self._size:
            if self._began is not None and begun - self._began < _QUICKLY:
                self._size = min(self._batch, self._size * 2)
            self._began = begun
            return Turn("full", None, depth, oldest)
        self._began = None
        if claimed.rows and not self._dispatched:
            return Turn("full", None, depth, oldest)
        for _ in range(_STEPS if self._dispatched else 0):
            # Handlers first: a thread that asks the store holds the interpreter for a while.
            await asyncio.sleep(0)
        due = await self._do(self.store.next_in)
        found: Literal["some", "blocked", "none"] = "blocked" if full else "none"
        if claimed.rows:
            found = "some"
        return Turn(found, None if due is None else due / 1000, depth, oldest)

    def _take(self, wanted: Wanted) -> Claimed:
        lease = round(self._lease * 1000)
        claim = functools.partial(self.store.claim, self._owner, self._size, lease, wanted)
        return self._desk.ack_and(claim) if self.store.is_quick else claim()

    # -- writing back

    async def _flush(self, *, acks: bool = True) -> None:
        """Write what became of messages; a claim that follows may take the acks along."""
        self._relax()
        self._sort()
        wrote = bool(self._outcomes)
        await self._desk.write(acks=acks)
        if wrote:
            self._recovered()
        if acks:
            self._freed_key()

    def _freed_key(self) -> None:
        """The next message of an ordering key can be claimed once the one before it has ended."""
        if self._hand.keyed:
            self._hand.keyed = False
            self._office.hint(self, self._loop.time())

    def _sort(self) -> None:
        """Find out what there is to write, and whom there is room for."""
        now = self._loop.time()
        for delay in self._hand.sort(round((now - self._at) * 1000)):
            self._office.hint(self, now + delay / 1000)
        if self._blocked - self._hand.full():
            self._blocked = set()
            self._office.hint(self, now)

    async def _beat(self, now: float) -> None:
        """Hold what is in hand for longer; what is held no more is taken from its handler."""
        self._next_beat = now + self._lease / 3
        if not self._hand:
            return
        receipts = self._hand.receipts()
        held = await self._do(
            self.store.extend, sorted(receipts.values()), round(self._lease * 1000)
        )
        self._hand.lose({id_: receipts[id_] for id_ in receipts.keys() - set(held)})
