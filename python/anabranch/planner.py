"""`OutboxPlanner`: messages that are enqueued by the calendar, one planner at a time."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, TypeAlias, TypeVar, cast
from weakref import WeakKeyDictionary

from anabranch._outbox.cadence import Cadence, cadence
from anabranch._outbox.draft import Draft, milliseconds
from anabranch._outbox.plans import plans_of
from anabranch._threaded import in_thread
from anabranch.errors import ClosedError, OutboxError, refused
from anabranch.outbox import Outbox
from anabranch.router import OutboxRouter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import timedelta
    from types import TracebackType

    from anabranch._outbox.memory import MemoryStore
    from anabranch._outbox.plans import Claimed, MemoryPlans, SqlPlans
    from anabranch._outbox.postgres import PostgresStore
    from anabranch._outbox.sqlite import SqliteStore

    Seconds: TypeAlias = float | timedelta

__all__ = ["OutboxPlanner", "Plan"]

F = TypeVar("F", bound="Callable[..., Any]")
T = TypeVar("T")

_logger = logging.getLogger("anabranch")

_LONGEST_NAME = 255
# Seconds until a store that does not work is asked again, and the longest sleep.
_REST = 1.0
_LONGEST_SLEEP = 3600.0


@dataclass(slots=True)
class Plan:
    """What a planner is called with.

    Attributes:
        name: The plan's name.
        at: The instant it is called for.
        cursor: What the planner has left here the last time; what it leaves now is remembered
            together with what it enqueues.
        tenant: The key of the outbox, where there are several.
    """

    name: str
    at: datetime
    cursor: str | None = None
    tenant: Any = None


class _Planned(NamedTuple):
    cadence: Cadence
    planner: Callable[[Plan], Any]


class OutboxPlanner:
    """Enqueues messages by the calendar: those of one instant together, and once.

    Many processes may have the same plans: for each instant one of them plans, which holds the plan
    by a lease meanwhile. What it returns is enqueued in one transaction, with which the cursor and
    the next instant are remembered, too; that one is always in the future. If it fails or dies,
    another one plans when the lease is over.

    Args:
        outboxes: An outbox; or a mapping of keys to outboxes, or an `OutboxRouter`, each of whose
            outboxes has all the plans. It plans for tenants that come while it runs, and no more
            for those that are gone.
        lease: Seconds that planning may take.

    Raises:
        ConfigError: An argument is not allowed.

    Example:
        >>> import anabranch as ab
        >>> now = 1_750_000_000.0
        >>> outbox = ab.Outbox.memory(clock=lambda: now)
        >>> planner = ab.OutboxPlanner(outbox)
        >>> @planner.plan("rebuild", every=3600.0)
        ... def rebuild(plan: ab.Plan) -> list[ab.Draft]:
        ...     shard = int(plan.cursor or 0)
        ...     plan.cursor = str((shard + 2) % 8)
        ...     return [ab.Draft("rebuild", {"shard": n}) for n in (shard, shard + 1)]
        >>> planner.schedule("report", ab.Draft("report", "daily"), cron="0 6 * * *")
        >>> planner.run_once_blocking()
        0
        >>> now += 3600.0
        >>> planner.run_once_blocking()
        2
        >>> [message.payload for message in outbox.claim()]
        [{'shard': 0}, {'shard': 1}]
    """

    def __init__(
        self, outboxes: Outbox | Mapping[Any, Outbox] | OutboxRouter, *, lease: Seconds = 60.0
    ) -> None:
        self._outboxes: list[tuple[Any, Outbox]] = []
        self._router = outboxes if isinstance(outboxes, OutboxRouter) else None
        if self._router is None:
            self._outboxes = _outboxes(outboxes)
        self._lease = milliseconds("lease", lease, subject="OutboxPlanner", positive=True)
        self._plans: dict[str, _Planned] = {}
        # Weak: an outbox that is gone takes its number along.
        self._owners: WeakKeyDictionary[Outbox, int] = WeakKeyDictionary()
        self._random = random.Random()  # noqa: S311 - it spreads messages
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped: asyncio.Event | None = None
        self._task: asyncio.Task[None] | None = None

    def plan(
        self,
        name: str,
        *,
        cron: str | None = None,
        tz: str | None = None,
        every: Seconds | None = None,
        missed: Literal["skip", "all"] = "skip",
        jitter: Seconds = 0.0,
    ) -> Callable[[F], F]:
        """Make what is decorated, a `def` or an `async def`, the planner of a plan.

        It is called with a `Plan`, and returns the drafts to enqueue, or None.

        Args:
            name: What the plan is remembered by.
            cron: The calendar of its instants; see `Retry.cron`.
            tz: The time zone of that; None: UTC.
            every: Seconds between two instants, instead; they are counted from 1970 on, so that it
                does not matter when a process begins.
            missed: What becomes of instants at which nobody was there: "skip": only the latest one
                is planned; "all": each of them, up to 1000, as far as it was not planned.
            jitter: Seconds over which the messages of an instant are spread.

        Raises:
            ConfigError: An argument is not allowed, or there is such a plan already.
            ClosedError: The planner runs.
        """
        when = cadence(cron, every, tz, missed, jitter, subject="plan")
        if not isinstance(cast("object", name), str) or not 0 < len(name) <= _LONGEST_NAME:
            raise refused("name", name, "a str of 1 to 255 characters", subject="plan")
        if name in self._plans:
            raise refused("name", name, "another name than that of a plan there is", subject="plan")
        if self._loop is not None:
            raise ClosedError("the planner runs: add plans before it does")

        def decorate(planner: F) -> F:
            if not callable(planner):
                raise refused("planner", planner, "a callable that takes a Plan", subject="plan")
            self._plans[name] = _Planned(when, planner)
            return planner

        return decorate

    def schedule(
        self,
        name: str,
        draft: Draft,
        *,
        cron: str | None = None,
        tz: str | None = None,
        every: Seconds | None = None,
        missed: Literal["skip", "all"] = "skip",
        jitter: Seconds = 0.0,
    ) -> None:
        """Enqueue the same message at each instant; see `plan`.

        Raises:
            ConfigError: As for `plan`.
            ClosedError: As for `plan`.
        """
        if not isinstance(cast("object", draft), Draft):
            raise refused("draft", draft, "an ab.Draft", subject="schedule")
        made = self.plan(name, cron=cron, tz=tz, every=every, missed=missed, jitter=jitter)

        def planned(_plan: Plan) -> list[Draft]:
            return [draft]

        made(planned)

    # -- at work

    async def run(self) -> None:
        """Plan until `stop` is called.

        Raises:
            ConfigError: There is no plan.
            ClosedError: It runs already.
            OutboxError: The only outbox does not work from the beginning on.
        """
        stopped = self._begin()
        try:
            while not stopped.is_set():
                await self._look()
                waits = [await self._attended(*each) for each in self._outboxes]
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stopped.wait(), min(waits, default=self._refresh))
        finally:
            self._loop = None

    async def run_once(self) -> int:
        """Plan what is due now; return how many messages were enqueued.

        Raises:
            ConfigError: As for `run`, and so are the others.
            ClosedError: It runs already.
            OutboxError: An outbox does not work.
        """
        self._begin()
        try:
            await self._look()
            return sum([await self._round(*each) for each in self._outboxes])
        finally:
            self._loop = None

    def run_blocking(self) -> None:
        """Plan in this thread, until `stop` is called or it is interrupted."""
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(self.run())

    def run_once_blocking(self) -> int:
        """Plan what is due now, in this thread."""
        return asyncio.run(self.run_once())

    def stop(self) -> None:
        """Plan nothing more; from any thread."""
        loop, stopped = self._loop, self._stopped
        if loop is not None and stopped is not None:
            loop.call_soon_threadsafe(stopped.set)

    async def __aenter__(self) -> Self:
        """Begin to plan beside what follows."""
        self._task = asyncio.get_running_loop().create_task(self.run())
        await asyncio.sleep(0)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop, and wait for the end."""
        if self._task is not None:
            self.stop()
            await self._task

    def _begin(self) -> asyncio.Event:
        if not self._plans:
            raise refused("plans", None, "added by @planner.plan(name)", subject="OutboxPlanner")
        if self._loop is not None:
            raise ClosedError("the planner runs already")
        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        return self._stopped

    async def _look(self) -> None:
        """Find out which outboxes there are now."""
        if self._router is None:
            return
        try:
            await asyncio.to_thread(self._router._discover)  # noqa: SLF001 - the package's
        except Exception as error:  # noqa: BLE001 - whatever the provider has raised
            _logger.warning(
                "the stores of %r could not be found out, those known go on: %s: %s",
                self._router,
                type(error).__name__,
                error,
            )
        present = self._router._present()  # noqa: SLF001 - as above
        self._outboxes = [(it.tenant, it.outbox) for it in present.values()]

    @property
    def _refresh(self) -> float:
        """Seconds until others are to be looked for, at the latest."""
        return _LONGEST_SLEEP if self._router is None else self._router.refresh_every

    async def _attended(self, tenant: object, outbox: Outbox) -> float:
        """Plan what is due, and return the seconds until something is again."""
        plans = _plans_of(outbox)
        known = outbox in self._owners
        try:
            await self._round(tenant, outbox)
            due = await _call(outbox, plans.next_in, list(self._plans))
        except OutboxError as error:
            if self._router is None and len(self._outboxes) == 1 and not known:
                raise
            _logger.warning("%s; its plans wait", error)
            return _REST
        return self._refresh if due is None else min(self._refresh, max(0.0, due / 1000))

    async def _round(self, tenant: object, outbox: Outbox) -> int:
        """Plan what is due; return how many messages that were."""
        plans = _plans_of(outbox)
        owner = self._owners.get(outbox)
        if owner is None:
            owner = await _call(outbox, _store(outbox).owner)
            now = await _call(outbox, plans.now)
            for name, (when, _) in self._plans.items():
                await _call(outbox, plans.make, name, when.text(), when.after(now))
            self._owners[outbox] = owner
        count = 0
        for claimed in await _call(outbox, plans.claim, owner, list(self._plans), self._lease):
            try:
                count += await self._planned(tenant, outbox, owner, claimed)
            except OutboxError:
                raise
            except Exception:
                _logger.exception(
                    "outbox %s: plan %r has failed: it is tried again when its lease is over",
                    _store(outbox).label,
                    claimed.name,
                )
        return count

    async def _planned(self, tenant: object, outbox: Outbox, owner: int, claimed: Claimed) -> int:
        when, planner = self._plans[claimed.name]
        instants, following = when.due(claimed.at, claimed.now)
        plan = Plan(claimed.name, _time(claimed.at), claimed.cursor, tenant)
        rows: list[Any] = []
        for instant in instants:
            plan.at = _time(instant)
            if inspect.iscoroutinefunction(planner):
                drafts = await planner(plan)
            else:
                drafts = await in_thread(planner, plan)
            for draft in cast("Iterable[object]", drafts or ()):
                if not isinstance(draft, Draft):
                    raise refused("drafts", draft, "of ab.Draft, all of them", subject=plan.name)
                row = outbox._written(draft)  # noqa: SLF001 - the planner is the package's
                row["delay"] += round(when.jitter * self._random.random())
                rows.append(row)
        cursor = None if plan.cursor is None else str(plan.cursor)
        plans = _plans_of(outbox)
        if not await _call(outbox, plans.done, owner, claimed.name, following, cursor, rows):
            _logger.warning(
                "outbox %s: plan %r took longer than its lease: another planner has it now",
                _store(outbox).label,
                claimed.name,
            )
            return 0
        outbox._tell(rows)  # noqa: SLF001 - as above
        return len(rows)


def _store(outbox: Outbox) -> MemoryStore | SqliteStore | PostgresStore:
    return outbox._here  # noqa: SLF001 - the planner is the package's


def _plans_of(outbox: Outbox) -> MemoryPlans | SqlPlans:
    return plans_of(_store(outbox))


async def _call(outbox: Outbox, call: Callable[..., T], *args: object) -> T:
    if _store(outbox).is_quick:
        return call(*args)
    return await asyncio.to_thread(call, *args)


def _time(at: int) -> datetime:
    return datetime.fromtimestamp(at / 1000, tz=UTC)


def _outboxes(given: object) -> list[tuple[Any, Outbox]]:
    if isinstance(given, Outbox):
        return [(None, given)]
    allowed = "an Outbox, a mapping of keys to Outboxes, or an OutboxRouter"
    kind = type(given).__name__
    pairs = dict(cast("Mapping[Any, object]", given)) if isinstance(given, Mapping) else {}
    if not pairs:
        shown = f"a {kind} that is empty" if isinstance(given, Mapping) else f"a {kind}"
        raise refused("outboxes", None, allowed, subject="OutboxPlanner", shown=shown)
    for outbox in pairs.values():
        if not isinstance(outbox, Outbox):
            raise refused("outboxes", outbox, allowed, subject="OutboxPlanner")
    return list(cast("dict[Any, Outbox]", pairs).items())
