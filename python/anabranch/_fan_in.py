"""`fan_in`: many readers, and one handler for all their items."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast

from anabranch._calls import (
    Act,
    act,
    attempt,
    check_context,
    check_seconds,
    now_of,
    virtual_of,
)
from anabranch._fan_in_told import cancelled_by_itself, is_cancelled, outcome_of, told
from anabranch._readers import Readers
from anabranch._record import note
from anabranch._watch import is_stepped, joined, stepped
from anabranch.context import child_of
from anabranch.errors import HandlerTimeout, refused
from anabranch.group import ErrGroup
from anabranch.result import Result

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping
    from datetime import timedelta

    from anabranch._readable import Readable
    from anabranch._readers import OnFault
    from anabranch.context import Context
    from anabranch.strategy import Chooser, Strategy

T = TypeVar("T")
U = TypeVar("U")

_MOST_AT_ONCE = 64
# After so many items that did not have to be waited for, others have their turn.
_STRETCH = 64
# What waits until a finished item is settled.
_WAITS = (asyncio.CancelledError, KeyboardInterrupt, SystemExit)


@dataclass(frozen=True, slots=True, kw_only=True)
class FanInReport:
    """What a fan-in did.

    Attributes:
        handled: How many items were handled and committed, by the name of their source.
        faults: The errors that sources were closed with and that were set aside, by their names.
    """

    handled: Mapping[str, int]
    faults: Mapping[str, Exception] = field(default_factory=dict[str, Exception])

    @property
    def total(self) -> int:
        """How many items were handled and committed."""
        return sum(self.handled.values())


async def fan_in(
    readers: Iterable[Readable[T]],
    handler: Callable[..., object],
    *,
    strategy: str | Strategy | Chooser = "round_robin",
    concurrency: int | None = None,
    on_fault: OnFault = "fail_fast",
    timeout: float | timedelta | None = None,  # noqa: ASYNC109 - its outcome is a failure of ours
    ctx: Context | None = None,
) -> FanInReport:
    """Handle the items of many readers, until all have ended.

    Of each source one item at a time is being handled, so that its order holds; items of different
    sources overlap. What a handler did is committed when it succeeds, and undone when it fails or
    is cut short. An item is taken only when a handler is free for it.

    The first error of a handler ends the fan-in: the other handlers are cancelled, and undone.
    Their items are nacked, or put back into their channels. An item whose handler has succeeded is
    not: its commit and its `ack` are waited for, whatever cuts the fan-in short, its timeout
    included.

    Args:
        readers: The channels, each once, bare or as `ab.Source`s with `ack`, `nack` and `close`.
            Without any it succeeds at once.
        handler: Called with an item, and `ctx` if it has such a parameter. A `def` runs in a
            thread: cut short it is waited for, undone, and its item put back though it has ended.
        strategy: Which of the sources that have something is read next: see `ab.Strategy`.
        concurrency: How many handlers run at once; by default one per source, at most 64.
        on_fault: What the error of a source, once its items are handled, does: "fail_fast" ends
            the fan-in, "drain" is raised when all others have ended, "quarantine" goes to the
            report.
        timeout: Seconds for all of it, by its clock; 0 or less is over before it begins.
        ctx: What it is a part of.

    Raises:
        ConfigError: An argument is not allowed.
        HandlerTimeout: Its time was up.
        Cancelled: `ctx` was cancelled.
        Exception: The first error of a handler, of `ack`, of a source, or of the strategy.

    Example:
        >>> import asyncio
        >>> import anabranch as ab
        >>> async def main() -> None:
        ...     mail, web = ab.Channel(10, name="mail"), ab.Channel(10, name="web")
        ...     await mail.send_many(["a", "b"])
        ...     await web.send("c")
        ...     mail.close()
        ...     web.close()
        ...     async def store(order: str) -> None:
        ...         print("stored", order)
        ...     report = await ab.fan_in([mail, web], store)
        ...     print(report.handled)
        >>> asyncio.run(main())
        stored a
        stored c
        stored b
        {'mail': 2, 'web': 1}
    """
    many = Readers(readers, strategy, on_fault, "fan_in")
    part = act(handler, "fan_in", argument="handler", args=(None,), gives="an item")
    if concurrency is not None and (type(concurrency) is not int or concurrency < 1):
        raise refused("concurrency", concurrency, "an int >= 1 or None", subject="fan_in")
    limit = None if timeout is None else check_seconds(timeout, "timeout", "fan_in", least=-1e9)
    check_context(ctx, "fan_in")
    most = min(concurrency or _MOST_AT_ONCE, len(many.sources))
    return await _FanIn(many, part, most).run(limit, ctx)


class _FanIn:
    """A fan-in at work."""

    def __init__(self, many: Readers, handler: Act, most: int) -> None:
        self._many = many
        self._handler = handler
        self._most = most
        self._handled = [0] * len(many.sources)
        # What acks have raised, and of which sources: only one of all errors is raised.
        self._unacked: list[tuple[str, BaseException]] = []
        # And what handlers have raised.
        self._unhandled: list[tuple[str, Exception]] = []
        self._workers = 0
        # Those who wait for an item, in order; the bell wakes the first, and each one the next.
        self._idle: deque[asyncio.Future[None]] = deque()
        self._listening = False

    async def run(self, limit: float | None, ctx: Context | None) -> FanInReport:
        self._loop = asyncio.get_running_loop()
        self._group = ErrGroup("fan_in", ctx=ctx)
        try:
            await self._within(limit)
            self._many.conclude()
        except BaseException as error:
            for name, late in self._unacked:
                if late is not error:
                    note(error, f"and the ack of source {name!r} raised {late!r}")
            for name, late in self._unhandled:
                if late is not error:
                    note(error, f"and an item of source {name!r} failed with {late!r}")
            await self._close(error)
            raise
        await self._close(None)
        return report_of(self._many, self._handled)

    async def _within(self, limit: float | None) -> None:
        deadline = asyncio.timeout(limit)
        try:
            async with deadline, self._group as group:
                self._ctx = group._ctx
                if limit is not None:
                    own = self._ctx._deadline
                    until = now_of(self._ctx) + limit
                    self._ctx._deadline = until if own is None else min(own, until)
                    if limit <= 0:
                        raise overran(self._ctx, limit)
                self._many.begin(virtual_of(self._ctx))
                self._hire()
        except TimeoutError as error:
            if deadline.expired() and limit is not None and not isinstance(error, HandlerTimeout):
                raise overran(self._ctx, limit) from error
            raise

    def _hire(self) -> None:
        if self._workers < self._most:
            self._workers += 1
            self._group._begin(Act(self._work, "work", (), awaits=True, ctx=False), ())

    async def _work(self) -> None:
        me = stepped()
        done: int | None = None
        stretch = 0
        # A handler may ignore that it was cancelled: it is given no other item.
        while not self._group._aborted:
            taken = self._take(done) or await self._next()
            if taken is None:
                return
            await self._handle(*taken, me)
            done = taken[0]
            stretch += 1
            if stretch == _STRETCH:
                stretch = 0
                await asyncio.sleep(0)

    def _take(self, done: int | None) -> tuple[int, Any] | None:
        """Take the next item; None if there is none now."""
        taken = self._many.take(done)
        if taken is None:
            return None
        number, item, more = taken
        if not self._idle:
            # Somebody has to hear the bell while this one is at work.
            self._hire()
        elif more:
            self._rise()
        return number, item

    async def _next(self) -> tuple[int, Any] | None:
        """Wait for the next item; None at the end."""
        while not self._many.over:
            await self._wait()
            taken = self._take(None)
            if taken is not None:
                return taken
        self._wake_all()
        return None

    async def _wait(self) -> None:
        future = self._loop.create_future()
        self._idle.append(future)
        try:
            if not self._listening:
                self._listening = self._many.core.sleep(self._ring)
                if not self._listening:
                    return
            await future
        finally:
            if not future.done() or future.cancelled():
                self._idle.remove(future)

    def _ring(self) -> None:
        """Something has happened, in whatever thread."""
        try:
            here = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            here = False
        if here:
            self._heard()
        else:
            self._loop.call_soon_threadsafe(self._heard)

    def _heard(self) -> None:
        self._listening = False
        self._rise()

    def _rise(self) -> None:
        while self._idle:
            future = self._idle.popleft()
            if not future.done():
                future.set_result(None)
                return

    def _wake_all(self) -> None:
        while self._idle:
            self._rise()

    async def _handle(self, number: int, item: Any, me: asyncio.Task[Any] | None) -> None:  # noqa: ANN401 - an item
        source = self._many.sources[number]
        call = self._handler
        one: Context | None = None
        try:
            if call.is_async and not call.takes_ctx:
                # It has no context: there is nothing to undo, or to tell it.
                value: Any = await call.fn(item)
                if isinstance(cast("object", value), Result):
                    one = await self._attempted(source.name, _giving(value))
            else:
                given = Act(call.fn, call.name, (item,), awaits=call.is_async, ctx=call.takes_ctx)
                one = await self._attempted(source.name, given)
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and not is_cancelled():
                failed = cancelled_by_itself(call.name, error)
                await self._failed(number, item, failed)
                raise failed from error
            if not isinstance(error, GeneratorExit) or is_stepped(me):
                await self._failed(number, item, error)
            elif source._nack is None:
                # The loop was closed under it: there is nobody to wait for.
                self._many.put_back(number, item)
            raise
        if one is None and source._ack is None:
            self._handled[number] += 1
        else:
            await self._settle(number, item, one)

    async def _attempted(self, name: str, given: Act) -> Context:
        one = child_of(self._ctx, name)
        await attempt(given, one, threaded=True)
        return one

    async def _settle(self, number: int, item: object, one: Context | None) -> None:
        """Commit what was done for an item, which is not put back, and tell where it came from.

        Whatever cuts this short waits until both are done.
        """
        source = self._many.sources[number]
        cut: BaseException | None = None
        if one is not None:
            try:
                await one._commit()
            except _WAITS as error:
                cut = error
        self._handled[number] += 1
        if source._ack is not None:
            late, cancelled = await self._acknowledge(source._ack, item)
            cut = cut or cancelled
            if late is not None:
                self._unacked.append((source.name, late))
                if isinstance(late, Exception):
                    note(late, f"in the ack of source {source.name!r} in {self._ctx.name!r}")
                if cut is None or isinstance(cut, asyncio.CancelledError):
                    raise late
        if cut is not None:
            raise cut

    async def _acknowledge(
        self, ack: Act, item: object
    ) -> tuple[BaseException | None, asyncio.CancelledError | None]:
        """Tell a source of an item; return what that raises, and what cuts it short meanwhile."""
        try:
            value = ack.fn(item)
        except BaseException as error:  # noqa: BLE001 - raised when the item is settled
            return error, None
        if not inspect.isawaitable(value):
            return None, None
        acked = self._begun(outcome_of(value, ack.name))
        cancelled = await joined([acked])
        return acked.result(), cancelled

    def _begun(self, awaited: Coroutine[Any, Any, U]) -> asyncio.Task[U]:
        """Begin a task: one that need not wait is over, which costs a fifth."""
        if sys.version_info >= (3, 12):
            return asyncio.Task(awaited, loop=self._loop, eager_start=True)
        return self._loop.create_task(awaited)

    async def _failed(self, number: int, item: object, error: BaseException) -> None:
        """Tell where the item came from that what was done for it is undone."""
        source = self._many.sources[number]
        first = False
        if isinstance(error, Exception):
            note(error, f"with an item of source {source.name!r} in {self._ctx.name!r}")
            self._unhandled.append((source.name, error))
            # One that fails as it is cut short ends nothing, and was not handled.
            first = not self._group._aborted and not is_cancelled()
        if source._nack is not None:
            # Not to be cut short by what has cut the handler short.
            nacked = self._loop.create_task(told(source._nack, item, error))
            cancelled = await joined([nacked])
            if not nacked.cancelled() and (late := nacked.exception()) is not None:
                note(error, f"and the nack of source {source.name!r} raised {late!r}")
            if cancelled is not None and isinstance(error, Exception):
                raise cancelled
        elif not first:
            self._many.put_back(number, item)

    async def _close(self, error: BaseException | None) -> None:
        """Read no more of anything, and tell so, whatever happens meanwhile."""
        self._many.leave()
        closes = [source._close for source in self._many.sources if source._close is not None]
        tasks = [self._loop.create_task(told(close)) for close in closes]
        cancelled = await joined(tasks)
        for task in tasks:
            late = asyncio.CancelledError() if task.cancelled() else task.exception()
            if late is None:
                continue
            if error is None:
                raise late
            note(error, f"and a close() of {self._group.name!r} raised {late!r}")
        if cancelled is not None:
            raise cancelled


def _giving(value: Any) -> Act:  # noqa: ANN401 - a Result
    return Act(lambda: value, "result", (), awaits=False, ctx=False)


def overran(call: Context, limit: float) -> HandlerTimeout:
    """Return what a fan-in whose time was up ends with."""
    return HandlerTimeout(
        f"{call.name!r} took longer than its timeout of {limit:g} s", timeout=limit
    )


def report_of(many: Readers, handled: list[int]) -> FanInReport:
    """Return what was done."""
    counts: dict[str, int] = {}
    for source, count in zip(many.sources, handled, strict=True):
        counts[source.name] = counts.get(source.name, 0) + count
    return FanInReport(handled=counts, faults=dict(many.faults))
