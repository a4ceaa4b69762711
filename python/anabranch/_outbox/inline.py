"""One store at work in transactions of the user's own driver: claim, handlers and ack in each.

The effects of a handler over that connection are exactly-once: they are committed with the ack, or
neither is. What `_outbox.post` does with leases is done here with the rows' locks, so nothing is
renewed, and nothing is lost by a crash but the attempt's number.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import logging
import sqlite3
import threading
from typing import TYPE_CHECKING, Any, Final, TypeVar

from anabranch._outbox.delivery import BACK, DONE, Delivery, Share, Verdict
from anabranch._outbox.memory import MemoryStore
from anabranch._outbox.metrics import Meter, PostRow
from anabranch._outbox.outcomes import Outcomes
from anabranch._outbox.routes import Routes, waited_for
from anabranch._outbox.schedule import Turn
from anabranch._outbox.store import Wanted
from anabranch._outbox.upkeep import Upkeep
from anabranch.errors import ConfigError, OutboxError, refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from anabranch._outbox.office import Office
    from anabranch._outbox.postgres import PostgresStore
    from anabranch._outbox.providers import Place
    from anabranch._outbox.sqlite import SqliteStore
    from anabranch._outbox.store import Row, Store
    from anabranch._outbox.taker import Taker

T = TypeVar("T")

_logger = logging.getLogger("anabranch")

# How many messages are claimed at first; it doubles as long as all goes well.
_FIRST: Final = 64


def check_inline(
    ack: object, connect: object, places: Iterable[Place]
) -> Callable[..., Any] | None:
    """Return what makes connections, if a worker is to ack in their transactions.

    Raises:
        ConfigError: An argument is not allowed.
    """
    if ack not in ("lease", "inline"):
        raise refused("ack", ack, "'lease' or 'inline'", subject="OutboxWorker")
    if ack == "lease":
        if connect is not None:
            raise refused("connect", connect, "given with ack='inline'", subject="OutboxWorker")
        return None
    if not callable(connect):
        allowed = "a callable that makes a connection to the outbox's database"
        raise refused("connect", connect, allowed, subject="OutboxWorker")
    for place in places:
        store_with_driver(place)
    return connect


def store_with_driver(place: Place) -> PostgresStore | SqliteStore:
    """Return the store of a tenant.

    Raises:
        ConfigError: It has no driver.
    """
    store = place.outbox._here  # noqa: SLF001 - the worker is the package's
    if isinstance(store, MemoryStore):
        allowed = "'lease' for an outbox in memory: it has no driver"
        raise refused("ack", "inline", allowed, subject="OutboxWorker")
    return store


class InlinePost:
    """What a worker does with one store, over one connection of the user's.

    Each turn it is given is a transaction, or several if one of its messages has failed. Between
    its turns nothing of it runs.

    Args:
        store: The store.
        connect: Makes a connection to its database.
        tenant: The key it is known by; None: there is but one.
        lanes: Those who handle, by the name of their subscriber.
        office: Who gives it turns.
        batch: How many messages are claimed at once at most.
        once: Whether to claim once only.
        sounding: Whether to tell how much is ready.
    """

    _owner: int

    def __init__(
        self,
        store: SqliteStore | PostgresStore,
        connect: Callable[[], Any],
        tenant: object,
        lanes: Mapping[str, Taker],
        office: Office,
        *,
        batch: int,
        once: bool,
        sounding: bool,
    ) -> None:
        self.label = store.label
        self.tenant = tenant
        self.branch = store.label if tenant is None else tenant
        self.claimed = 0
        self.store = store
        self.retired = False
        self.running = False
        self.stopping = False
        # Whether the office is going to hear of what was enqueued; what tells it so.
        self.told = False
        self.heard: Callable[[], None] = self.hear
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._connect = connect
        self._connection: Any = None
        # The one that is open, of a driver whose connections do not begin them by themselves.
        self._transaction: Any = None
        self._lanes = lanes
        self._office = office
        self._batch = batch
        self._size = min(batch, _FIRST)
        self._once = once
        self._sounding = sounding
        self._granted = False
        self._subscribed = False
        self._is_idle = False
        self.meter = Meter()
        self._upkeep = Upkeep(office.name, list(lanes))
        self._routes = Routes(store.label)
        self._faults = 0
        # What handlers are at work on, what became of it, and who waits for all of that.
        self._open: set[Delivery] = set()
        self._verdicts: dict[Delivery, Verdict] = {}
        self._over_with: asyncio.Future[None] | None = None

    # -- what the lanes and the run call

    def settled(self, delivery: Delivery, verdict: Verdict) -> None:
        """Note what became of a message; from any thread. Only the first word counts."""
        if threading.get_ident() == self._thread:
            self._settle(delivery, verdict)
        else:
            self._loop.call_soon_threadsafe(self._settle, delivery, verdict)

    def _settle(self, delivery: Delivery, verdict: Verdict) -> None:
        if delivery not in self._open:
            return
        self._open.remove(delivery)
        self._verdicts[delivery] = verdict
        if verdict is not DONE:
            # All of it is rolled back: what has not begun need not.
            for other in self._open:
                other.lost = True
        if not self._open and self._over_with is not None and not self._over_with.done():
            self._over_with.set_result(None)

    def hear(self) -> None:
        """Something was enqueued, perhaps: a turn claims without a look anyway."""

    def grant(self) -> None:
        """It has a turn."""
        self._granted = True
        if not self.running:
            self.running = True
            self._office.awake(self)

    def stop(self) -> None:
        """Claim nothing more, and end when what was claimed has ended."""
        self.stopping = True

    def give_back(self) -> None:
        """Nobody is at work any more: what is in hand is rolled back."""
        for delivery in list(self._open):
            self._settle(delivery, BACK)
        self.stop()

    def retire(self) -> None:
        """Its store is worked on no more: end as soon as what was begun has ended."""
        self.retired = True
        self.stop()

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.stopping and not self.running

    async def close(self) -> None:
        """Let the connection go, with what was not committed."""
        self.give_back()
        await self._let_go()
        if self._subscribed and not self._faults:
            with contextlib.suppress(OutboxError):
                await self._do(self._store.leave, self._owner)

    # -- at work

    async def run(self) -> None:
        """Work until it has no turn.

        Raises:
            ConfigError: The connection cannot be used so.
            OutboxError: The only outbox does not work from the beginning on.
        """
        try:
            while self._granted and not self.stopping:
                self._granted = False
                await self._turn()
        finally:
            self.running = False

    async def _turn(self) -> None:
        try:
            async with self._office.writing(self._store):
                found = await self._round()
            depth, oldest = await self._sounded()
            # To know that all that is due is looked at: not while there is more to claim.
            due = None if found else await self._do(self._store.next_in)
        except ConfigError:
            raise
        except Exception as error:
            if self.tenant is None and not self._subscribed and isinstance(error, OutboxError):
                raise
            await self._rest(error)
            return
        if self._faults:
            self._faults = 0
            _logger.warning("outbox %s works again", self.label)
        if self._office.is_crowded:
            # Others need theirs.
            await self._let_go()
        self.stopping |= self._once
        # What is there was not looked at, but after the latest commit.
        turn = Turn("full" if found else "none", None if due is None else due / 1000, depth, oldest)
        self._office.ended(self, turn)

    async def _sounded(self) -> tuple[int | None, float | None]:
        """Tell how much is ready, if somebody wants to know."""
        if not self._sounding:
            return None, None
        depth, waited = await self._do(self._store.backlog)
        return depth, None if waited is None else waited / 1000

    async def _round(self) -> bool:
        """Claim and handle once; return whether there was anything."""
        await self._attend()
        wanted = Wanted(self._routes.without(set()), tuple(self._lanes))
        begun = self._loop.time()
        version, ended, rows = await self._over(self._store.take(self._size, wanted))
        self.meter.claim(len(rows), self._loop.time() - begun)
        if version != self._routes.version:
            self._routes.learn(*await self._do(self._store.subscriptions))
        self._is_idle = not rows
        if not rows:
            await self._end(commit=ended)
            return bool(ended)
        whole, parts = self._sorted(rows)
        if len(rows) == 1:
            # Alone, it need not be redone to learn whose failure it is.
            whole, parts = [], whole + parts
        if await self._handle_all(whole):
            if len(rows) == self._size:
                self._size = min(self._batch, self._size * 2)
        else:
            self._size = _FIRST
            parts = whole + parts
        for row in parts:
            claims: int | None = row[20]
            while claims is not None and not self.stopping:
                claims = await self._handle_one(row[0], claims)
        return True

    async def _attend(self) -> None:
        """Tell the store who hears of what, and now and then that it is worked on."""
        if not self._subscribed:
            for lane in self._lanes.values():
                await self._do(self._store.subscribe, lane.name, [lane.handler.pattern])
            self._owner = await self._do(self._store.owner)
            self._subscribed = True
        if self._upkeep.is_due(self._loop.time(), idle=self._is_idle):
            await self._do(self._keep_up)

    @property
    def stores(self) -> Iterable[Store]:
        """Those whose connections it may have."""
        return (self.store,)

    def row(self) -> PostRow:
        """Tell how it is."""
        return PostRow(self.label, self.tenant, len(self._open), self._faults > 0, self.meter)

    def _keep_up(self) -> None:
        now, idle = self._loop.time(), self._is_idle
        self._upkeep.do(
            self.store, self._owner, now, in_hand=len(self._open), handled=self.claimed, idle=idle
        )

    def _sorted(self, rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
        """Tell messages that can be ended as they are from those of which others want a part."""
        whole: list[Row] = []
        parts: list[Row] = []
        topic = ""
        alone: tuple[str, ...] = ()
        for row in rows:
            if row[1] != topic:
                topic = row[1]
                alone = self._alone(topic)
            if alone and row[21] is None and row[22] is None:
                whole.append(row)
                continue
            waiting = waited_for(row, self._routes.to(topic))
            here = [name for name in waiting if name in self._lanes]
            if len(here) == len(waiting) and (here or row[21] is not None) and row[22] is None:
                whole.append(row)
            elif here or row[21] is not None:
                parts.append(row)
            else:
                self._routes.shun(row[1], parked=not waiting)
        return whole, parts

    def _alone(self, topic: str) -> tuple[str, ...]:
        """Return the only subscriber of a topic, if it is ours: most topics have no other."""
        route = self._routes.to(topic)
        return (route[0][0],) if len(route) == 1 and route[0][0] in self._lanes else ()

    async def _handle_all(self, rows: Sequence[Row]) -> bool:
        """Handle what was claimed, and commit; False: something has failed, so nothing is done."""
        gifts: dict[str, list[Delivery]] = {}
        topic = ""
        alone: tuple[str, ...] = ()
        for row in rows:
            if row[1] != topic:
                topic = row[1]
                alone = self._alone(topic)
            is_plain = alone and row[21] is None
            for name in alone if is_plain else waited_for(row, self._routes.to(topic)):
                lane = self._lanes[name]
                delivery = Delivery(row, self, lane, row[15] + 1, self._connection)
                gifts.setdefault(name, []).append(delivery)
        for name, deliveries in gifts.items():
            if not await self._give(name, deliveries):
                await self._end(commit=False)
                return False
        done = [row[0] for row in rows]
        if done and len(await self._over(self._store.finish(done))) < len(done):
            raise self._cut_short()
        await self._end(commit=True)
        self.claimed += len(done)
        return True

    async def _handle_one(self, id_: int, claims: int) -> int | None:
        """Handle a message for one of its subscribers; return its claims if there are others."""
        row = await self._over(self._store.hold(id_, claims, self._owner))
        if row is None:
            await self._end(commit=False)
            return None
        route = self._routes.to(row[1])
        waiting = waited_for(row, route)
        share = None if len(route) == 1 and row[21] is None else Share(row, list(waiting))
        if not waiting and row[21] is None:
            # Its subscriber is gone since it was claimed: it is parked.
            await self._end(commit=False)
            return None
        due = [it for it in waiting if it in self._lanes and (share is None or share.is_due(it))]
        outcomes = Outcomes()
        if not due:
            if share is not None and waiting:
                outcomes.divided.append(share.postponed())
            else:
                outcomes.acks.append((row[0], row[17], row[20]))
            await self._put(outcomes)
            return None
        lane = self._lanes[due[0]]
        attempt = row[15] if share is None else share.attempt(due[0])
        delivery = Delivery(row, self, lane, attempt, self._connection)
        begun = self._loop.time()
        well = await self._give(lane.name, [delivery])
        verdict = self._verdicts[delivery]
        if share is None:
            outcomes.take(delivery, verdict)
        else:
            share.parts[lane.name] = delivery
            share.settle(lane.name, verdict)
            outcomes.add(share, round((self._loop.time() - begun) * 1000))
        self.claimed += len(due) == 1
        if not well:
            await self._end(commit=False)
            # It was not begun, or somebody else has it now.
            if verdict is BACK or not await self._over(self._store.hold(id_, claims, self._owner)):
                await self._end(commit=False)
                return None
        await self._put(outcomes)
        return row[20] if len(due) > 1 else None

    async def _give(self, name: str, deliveries: list[Delivery]) -> bool:
        """Let messages be handled; return whether all went well."""
        self._verdicts = {}
        if self.stopping:
            self._verdicts = dict.fromkeys(deliveries, BACK)
            return False
        self._open = set(deliveries)
        self._over_with = self._loop.create_future()
        self._lanes[name].give(deliveries)
        await self._over_with
        return all(verdict is DONE for verdict in self._verdicts.values())

    async def _put(self, outcomes: Outcomes) -> None:
        """Write what became of a message that is held, and commit."""
        if not await self._over(self._store.put(outcomes)):
            raise self._cut_short()
        await self._end(commit=True)

    def _cut_short(self) -> OutboxError:
        return OutboxError(
            f"outbox {self.label}: a handler has ended the transaction it was given, so what it "
            "did is not undone: leave commit and rollback to the worker",
            store=self.label,
        )

    # -- the connection

    async def _over(self, steps: Any) -> Any:  # noqa: ANN401 - what the steps come to
        if self._connection is None:
            made = self._connect()
            self._connection = await made if inspect.isawaitable(made) else made
            await self._check_connection()
        if self._transaction is None and _is_asyncpg(self._connection):
            self._transaction = self._connection.transaction()
            await self._transaction.start()
        return await self._call(self._store.over, self._connection, steps)

    async def _end(self, *, commit: bool) -> None:
        ends, self._transaction = self._transaction or self._connection, None
        await self._call(ends.commit if commit else ends.rollback)

    async def _call(self, call: Callable[..., Any], *args: object) -> Any:  # noqa: ANN401 - as above
        result = await self._do(call, *args)
        return await result if inspect.isawaitable(result) else result

    async def _do(self, call: Callable[..., T], *args: object) -> T:
        if self._store.is_quick:
            return call(*args)
        return await self._office.aside(functools.partial(call, *args))

    async def _check_connection(self) -> None:
        connection = self._connection
        if _is_asyncpg(connection):
            return
        plain = isinstance(connection, sqlite3.Connection)
        by_itself = getattr(connection, "autocommit", False) is True or (
            plain and connection.isolation_level is None and not connection.in_transaction
        )
        if by_itself or not hasattr(connection, "commit") or not hasattr(connection, "rollback"):
            allowed = (
                "a callable that makes a connection with commit and rollback, of psycopg, sqlite3, "
                "asyncpg, aiosqlite or SQLAlchemy, that is not in autocommit mode"
            )
            raise refused("connect", connection, allowed, subject="OutboxWorker")
        if plain:
            try:
                await self._loop.run_in_executor(None, lambda: connection.cursor().close())
            except sqlite3.ProgrammingError as error:
                allowed = (
                    "a callable that makes a connection any thread may use: handlers run in "
                    "threads, so sqlite3.connect(…, check_same_thread=False)"
                )
                raise refused("connect", connection, allowed, subject="OutboxWorker") from error

    async def _rest(self, error: Exception) -> None:
        """It does not work: begin with another connection after a while; the others go on."""
        self._faults += 1
        if self._faults == 1:
            _logger.warning("outbox %s: %s; its messages wait", self.label, error)
        await self._let_go()
        self.stopping |= self._once
        self._office.failed(self)

    async def _let_go(self) -> None:
        connection, self._connection, self._transaction = self._connection, None, None
        if connection is None:
            return
        try:
            await self._call(connection.close)
        except Exception as error:  # noqa: BLE001 - of whatever driver
            _logger.warning("outbox %s: %s", self.label, error)


def _is_asyncpg(connection: object) -> bool:
    return any(kind.__module__.split(".")[0] == "asyncpg" for kind in type(connection).__mro__)
