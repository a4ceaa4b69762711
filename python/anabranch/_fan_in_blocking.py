"""`fan_in_blocking`: many readers, and one handler for all their items, in this thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from anabranch._calls import (
    Act,
    act,
    attempt_alone,
    begun,
    call_alone,
    check_context,
    check_seconds,
    conduct_blocking,
    now_of,
    virtual_of,
)
from anabranch._fan_in import overran, report_of
from anabranch._readers import Readers
from anabranch._record import note
from anabranch._waiting import ThreadWaiter
from anabranch._watch import check
from anabranch.context import child_of
from anabranch.errors import refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import timedelta

    from anabranch._fan_in import FanInReport
    from anabranch._readable import Readable
    from anabranch._readers import OnFault
    from anabranch.context import Context
    from anabranch.strategy import Chooser, Strategy

T = TypeVar("T")

# A thread looks so often whether a pipeline that it is part of is aborted.
_LOOK = 0.25


def fan_in_blocking(
    readers: Iterable[Readable[T]],
    handler: Callable[..., object],
    *,
    strategy: str | Strategy | Chooser = "round_robin",
    on_fault: OnFault = "fail_fast",
    timeout: float | timedelta | None = None,
    ctx: Context | None = None,
) -> FanInReport:
    """Handle the items of many readers in this thread, one after the other.

    It is `fan_in` with a concurrency of 1, for a `def`; what cancels it, or its timeout, does so
    between items.

    Raises:
        ConfigError: An argument is not allowed, or a callable is an `async def`.
        RuntimeError: It would block a running event loop.
        HandlerTimeout: Its time was up.
        Cancelled: `ctx` was cancelled.
        Exception: The first error of a handler, of `ack`, of a source, or of the strategy.
    """
    many = Readers(readers, strategy, on_fault, "fan_in")
    part = act(handler, "fan_in", argument="handler", args=(None,), gives="an item")
    given = {f"{verb} of {it.name!r}": act for it in many.sources for verb, act in it._callables()}
    for argument, it in {"handler": part, **given}.items():
        if it.is_async:
            allowed = "no async def: await fan_in"
            raise refused(argument, it.fn, allowed, subject="fan_in", shown=it.name)
    limit = None if timeout is None else check_seconds(timeout, "timeout", "fan_in", least=-1e9)
    check_context(ctx, "fan_in")
    call = begun(ctx, "fan_in")
    done: FanInReport = conduct_blocking(call, _Blocking(many, part, limit).run, "fan_in")
    return done


class _Blocking:
    """A fan-in at work in a thread, one item after the other."""

    def __init__(self, many: Readers, handler: Act, limit: float | None) -> None:
        self._many = many
        self._handler = handler
        self._limit = limit
        self._handled = [0] * len(many.sources)

    def run(self, call: Context) -> FanInReport:
        waiter = ThreadWaiter()
        tokens = call._tokens()
        self._until = None
        if self._limit is not None:
            self._until = now_of(call) + self._limit
            own = call._deadline
            call._deadline = self._until if own is None else min(own, self._until)
        try:
            for token in tokens:
                token._attach(waiter, waiter.wake)
            self._many.begin(virtual_of(call))
            self._work(call, waiter)
            self._many.conclude()
        except BaseException as error:
            self._close(error)
            raise
        finally:
            for token in tokens:
                token._detach(waiter)
        self._close(None)
        return report_of(self._many, self._handled)

    def _work(self, call: Context, waiter: ThreadWaiter) -> None:
        done: int | None = None
        while True:
            check(call)
            left = None if self._until is None else self._until - now_of(call)
            if left is not None and left <= 0:
                raise overran(call, self._limit or 0.0)
            taken = self._many.take(done)
            done = None
            if taken is not None:
                done = taken[0]
                self._handle(call, done, taken[1])
            elif self._many.over:
                return
            elif self._many.core.sleep(waiter.wake):
                waiter.sleep(left if left is None else min(left, _LOOK))

    def _handle(self, call: Context, number: int, item: object) -> None:
        source, handler = self._many.sources[number], self._handler
        one = child_of(call, source.name)
        given = Act(handler.fn, handler.name, (item,), awaits=False, ctx=handler.takes_ctx)
        try:
            attempt_alone(given, one)
        except BaseException as error:
            if isinstance(error, Exception):
                note(error, f"with an item of source {source.name!r} in {call.name!r}")
            if source._nack is not None:
                try:
                    call_alone(source._nack, item, error)
                except Exception as late:  # noqa: BLE001 - the handler's error comes first
                    note(error, f"and the nack of source {source.name!r} raised {late!r}")
            elif not isinstance(error, Exception):
                self._many.put_back(number, item)
            raise
        self._settle(call, number, item, one)

    def _settle(self, call: Context, number: int, item: object, one: Context) -> None:
        """Commit what was done for an item and tell where it came from, as in a loop."""
        source = self._many.sources[number]
        cut: BaseException | None = None
        try:
            one._commit_blocking()
        except (KeyboardInterrupt, SystemExit) as error:
            cut = error
        self._handled[number] += 1
        if source._ack is not None:
            try:
                call_alone(source._ack, item)
            except Exception as late:
                note(late, f"in the ack of source {source.name!r} in {call.name!r}")
                if cut is None:
                    raise
                note(cut, f"and the ack of source {source.name!r} raised {late!r}")
        if cut is not None:
            raise cut

    def _close(self, error: BaseException | None) -> None:
        self._many.leave()
        for source in self._many.sources:
            if source._close is None:
                continue
            try:
                call_alone(source._close)
            except Exception as late:
                if error is None:
                    raise
                note(error, f"and a close() raised {late!r}")
