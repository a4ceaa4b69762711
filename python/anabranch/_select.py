"""`select`: whatever is ready first."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Generic, Never, TypeVar, cast, overload

from anabranch import _core
from anabranch._calls import (
    Act,
    act,
    attempt,
    attempt_alone,
    begun,
    check_context,
    check_seconds,
    conduct,
    conduct_blocking,
)
from anabranch._readers import NOTHING
from anabranch._record import note
from anabranch._selected import After, Case, Selected, drained, named, overran
from anabranch._waiting import TaskWaiter, ThreadWaiter
from anabranch._watch import check
from anabranch.channel import Channel
from anabranch.errors import refused

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from datetime import timedelta

    from anabranch.context import Context

T = TypeVar("T")
U = TypeVar("U")
V = TypeVar("V")

# A thread looks so often whether a pipeline that it is part of is aborted.
_LOOK = 0.25
# By its `__new__` a named tuple is made in two thirds of the time.
_TUPLE: Any = tuple


class Select(Generic[T]):
    """Cases, of which one is taken: made by `ab.select`, completed by its methods.

    It can be run as often as wanted, by `await` or by its methods; each run begins anew.
    """

    def __init__(
        self,
        cases: tuple[Case, ...],
        *,
        fair: bool,
        default: tuple[Act | None] | None = None,
        after: After | None = None,
    ) -> None:
        self._cases = cases
        self._fair = fair
        self._default = default
        self._after = after
        # In the order they are looked at in: those of equal priority as they were given.
        order = sorted(range(len(cases)), key=lambda at: cases[at].priority)
        self._order = order
        self._first = 0
        # Kept from one run to the next; None while a run waits with it.
        self._core: _core.Readers | None = None
        handlers = [it.handler for it in (*cases, after) if it is not None]
        self._plain = not any((*handlers, *(default or ())))
        self._idle = self._plain and default is None and after is None and bool(cases)

    def on(
        self, reader: Channel[U], handler: Callable[..., object] | None = None, *, priority: int = 0
    ) -> Select[T | U]:
        """Add a case: receive from a channel.

        Args:
            reader: The channel.
            handler: Called with the item, and `ctx` if it takes that; `def` or `async def`.
            priority: Of the cases that are ready, one with the lowest number is taken.

        Raises:
            ConfigError: An argument is not allowed.
        """
        if self._fair and priority != 0:
            raise refused("priority", priority, "0 where fair=True", subject="select")
        if type(priority) is not int:
            raise refused("priority", priority, "an int", subject="select")
        case = Case(_reader(reader, "reader"), _handler(handler, (None,), "an item"), priority)
        return cast("Select[T | U]", self._with(cases=(*self._cases, case)))

    def after(
        self, seconds: float | timedelta, handler: Callable[..., object] | None = None
    ) -> Select[T]:
        """Add the case that is taken when no other has become ready in time.

        It is not taken where no other can become ready any more: that is a SelectDrained. In a
        select without channels it is a timer.

        Args:
            seconds: How long each run waits.
            handler: Takes nothing, or `ctx`.

        Raises:
            ConfigError: An argument is not allowed.
        """
        limit = check_seconds(seconds, "seconds", "select")
        return self._with(after=After(limit, _handler(handler, (), "nothing")))

    def default(self, handler: Callable[..., object] | None = None) -> Select[T]:
        """Add the case that is taken when no other is ready: the select does not wait.

        Args:
            handler: Takes nothing, or `ctx`.

        Raises:
            ConfigError: It cannot be called.
        """
        return self._with(default=(_handler(handler, (), "nothing"),))

    def _with(
        self,
        *,
        cases: tuple[Case, ...] | None = None,
        default: tuple[Act | None] | None = None,
        after: After | None = None,
    ) -> Select[T]:
        return Select(
            self._cases if cases is None else cases,
            fair=self._fair,
            default=default or self._default,
            after=after or self._after,
        )

    def __await__(self) -> Generator[Any, None, Selected[T]]:
        return (self._any() if self._idle else self.run()).__await__()

    async def run(
        self,
        *,
        timeout: float | timedelta | None = None,  # noqa: ASYNC109 - its outcome is a failure of ours
        ctx: Context | None = None,
    ) -> Selected[T]:
        """Wait until a case is ready, take it, and run its handler.

        What the handler did is undone if it fails; the item is taken all the same.

        Args:
            timeout: Seconds until it is given up; 0 or less is over before it begins.
            ctx: What the call is a part of.

        Raises:
            ConfigError: An argument is not allowed.
            Cancelled: `ctx` was cancelled.
            HandlerTimeout: Nothing was ready in time; nothing was taken.
            SelectDrained: All channels are closed and empty, and there is no default.
            Exception: The error that a channel was closed with, or of the handler.
        """
        limit = None if timeout is None else check_seconds(timeout, "timeout", "select", least=-1e9)
        if ctx is not None:
            check_context(ctx, "select")
        elif self._plain:
            # There is nothing to undo, and nobody but the task itself to be cancelled by.
            found = self._at_once(None, limit) or await self._wait(None, limit)
            return found[1]

        async def body(call: Context) -> Selected[T]:
            handler, chosen = self._at_once(call, limit) or await self._wait(call, limit)
            if handler is None:
                return chosen
            return chosen._replace(value=await attempt(_given(handler, chosen), call))

        return await conduct(begun(ctx, "select"), body, "select")

    def run_blocking(
        self, *, timeout: float | timedelta | None = None, ctx: Context | None = None
    ) -> Selected[T]:
        """Do the same in this thread; the handlers are `def`.

        Raises:
            RuntimeError: It would block a running event loop.
            Exception: As for `run`.
        """
        limit = None if timeout is None else check_seconds(timeout, "timeout", "select", least=-1e9)
        check_context(ctx, "select")

        def body(call: Context) -> Selected[T]:
            handler, chosen = self._at_once(call, limit) or self._wait_blocking(call, limit)
            if handler is None:
                return chosen
            if handler.is_async:
                raise refused("handler", handler.fn, "a def in a thread", subject="select")
            return chosen._replace(value=attempt_alone(_given(handler, chosen), call))

        selected: Selected[T] = conduct_blocking(begun(ctx, "select"), body, "select")
        return selected

    def _at_once(
        self, call: Context | None, limit: float | None
    ) -> tuple[Act | None, Selected[T]] | None:
        """Take a case that is ready now, or the default."""
        if call is not None:
            check(call)
        if limit is not None and limit <= 0:
            raise overran(named(call), limit)
        if self._cases:
            if self._core is None:
                self._core = self._readers()
            found = self._core.poll(self._first)
            if found is not None:
                return self._taken(*found)
        if self._default is not None:
            handler = self._default[0]
            return handler, Selected(case="default", reader=None, item=None, value=None)
        return None

    async def _any(self) -> Selected[T]:
        """Take what is ready first: with no time to look at, nor a context, nor a handler."""
        found = self._at_once(None, None)
        if found is not None:
            return found[1]
        left = len(self._cases)
        readers = self._core or self._readers()
        self._core = None
        try:
            while left:
                event = readers.take(NOTHING)
                if event is None:
                    waiter = TaskWaiter()
                    if readers.sleep(waiter.wake):
                        await waiter.woken
                elif event[1] is not NOTHING:
                    return self._taken(event[0], event[1])[1]
                else:
                    self._ended(event, None)
                    left -= 1
        finally:
            readers.leave()
            self._core = readers
        raise drained(None)

    async def _wait(
        self, call: Context | None, limit: float | None
    ) -> tuple[Act | None, Selected[T]]:
        # Who does not ask for the time does not pay for it.
        timed = limit is not None or self._after is not None
        clock = asyncio.get_running_loop().time if timed else None
        waits = _Waits(self, call, limit, clock() if clock else 0.0)
        try:
            while (found := waits.look(clock() if clock else 0.0)) is None:
                waiter = TaskWaiter()
                if waits.readers.sleep(waiter.wake):
                    if clock:
                        await waiter.sleep(waits.left(clock()))
                    else:
                        await waiter.woken
        finally:
            waits.leave()
        return found

    def _wait_blocking(self, call: Context, limit: float | None) -> tuple[Act | None, Selected[T]]:
        waiter = ThreadWaiter()
        tokens = call._tokens()
        waits = _Waits(self, call, limit, time.monotonic())
        for token in tokens:
            token._attach(waiter, waiter.wake)
        try:
            while (found := waits.look(time.monotonic())) is None:
                check(call)
                if waits.readers.sleep(waiter.wake):
                    left = waits.left(time.monotonic())
                    waiter.sleep(_LOOK if left is None else min(left, _LOOK))
        finally:
            for token in tokens:
                token._detach(waiter)
            waits.leave()
        return found

    def _readers(self) -> _core.Readers:
        channels = [self._cases[at].reader._core for at in self._order]
        return _core.Readers(channels, "drain_first")

    def _taken(self, at: int, item: T) -> tuple[Act | None, Selected[T]]:
        if self._fair:
            self._first = (at + 1) % len(self._cases)
        number = self._order[at]
        case = self._cases[number]
        fields = (number, case.reader, item, item)
        chosen: Selected[T] = _TUPLE.__new__(Selected, fields)
        return case.handler, chosen

    def _ended(self, event: tuple[int, Any, Exception | None, bool], call: Context | None) -> None:
        """Raise the error that a channel has ended with, if there is one."""
        at, _, error, _ = event
        if error is not None:
            name = self._cases[self._order[at]].reader.name
            note(error, f"in channel {name!r} of {named(call)!r}")
            raise error


class _Waits(Generic[T]):
    """One run of a select that has to wait."""

    __slots__ = ("_after", "_call", "_late", "_limit", "_open", "_select", "_until", "readers")

    def __init__(
        self, select: Select[T], call: Context | None, limit: float | None, now: float
    ) -> None:
        self._select = select
        self._call = call
        self._limit = limit
        self._after = select._after
        self._until = None if limit is None else now + limit
        self._late = None if self._after is None else now + self._after.seconds
        self._open = len(select._cases)
        self.readers = select._core or select._readers()
        select._core = None

    def look(self, now: float) -> tuple[Act | None, Selected[T]] | None:
        """Take what is ready."""
        while (event := self.readers.take(NOTHING)) is not None:
            if event[1] is not NOTHING:
                return self._select._taken(event[0], event[1])
            self._select._ended(event, self._call)
            self._open -= 1
        # A deadline first: it is what a caller counts on.
        if self._until is not None and now >= self._until:
            raise overran(named(self._call), cast("float", self._limit))
        # Nothing will come that `after` could wait for, unless it was given alone.
        alone = self._after is not None and not self._select._cases
        if self._open == 0 and not alone:
            raise drained(self._call)
        if self._after is not None and self._late is not None and now >= self._late:
            nothing: Selected[T] = Selected(case="after", reader=None, item=None, value=None)
            return self._after.handler, nothing
        return None

    def leave(self) -> None:
        """Give up what was asked for."""
        self.readers.leave()
        self._select._core = self.readers

    def left(self, now: float) -> float | None:
        """Return how long to wait at most."""
        ends = [end for end in (self._until, self._late) if end is not None]
        return min(ends) - now if ends else None


@overload
def select(*, fair: bool = ...) -> Select[Never]: ...
@overload
def select(*readers: Channel[T], fair: bool = ...) -> Select[T]: ...
@overload
def select(first: Channel[T], second: Channel[U], /, *, fair: bool = ...) -> Select[T | U]: ...
@overload
def select(
    first: Channel[T], second: Channel[U], third: Channel[V], /, *, fair: bool = ...
) -> Select[T | U | V]: ...
def select(*readers: Channel[Any], fair: bool = False) -> Select[Any]:
    """Receive from whichever of some channels has something first.

    One item is taken, from one channel; the others keep theirs. Of several that are ready it is
    the first in the order they were given in, unless priorities or `fair` say otherwise.

    Args:
        readers: Channels to receive from; more, with handlers, by `on`.
        fair: Whether of several that are ready it is the one after the one that was taken last.

    Returns:
        A `Select`, to be awaited, or run, as often as wanted.

    Raises:
        ConfigError: An argument is not allowed.

    Example:
        >>> import asyncio
        >>> import anabranch as ab
        >>> async def main() -> None:
        ...     orders, alarms = ab.Channel(10), ab.Channel(10)
        ...     either = ab.select(orders).on(alarms, priority=-1).after(5.0)
        ...     await orders.send("book")
        ...     await alarms.send("fire")
        ...     print((await either).item, (await either).item, (await either).case)
        >>> ab.testing.run(main())
        fire book after
    """
    if not isinstance(cast("object", fair), bool):
        raise refused("fair", fair, "True or False", subject="select")
    cases = tuple(
        Case(_reader(reader, f"readers[{at}]"), None, 0) for at, reader in enumerate(readers)
    )
    return Select(cases, fair=fair)


def _reader(reader: Any, argument: str) -> Channel[Any]:  # noqa: ANN401 - checked here
    if not isinstance(cast("object", reader), Channel):
        raise refused(argument, reader, "a Channel", subject="select")
    channel: Channel[Any] = reader
    return channel


def _handler(fn: object, args: tuple[object, ...], gives: str) -> Act | None:
    if fn is None:
        return None
    return act(fn, "select", argument="handler", args=args, gives=gives)


def _given(handler: Act, selected: Selected[Any]) -> Act:
    args = () if selected.reader is None else (selected.item,)
    return Act(handler.fn, handler.name, args, awaits=handler.is_async, ctx=handler.takes_ctx)
