"""What all calls by hand have in common: a context of their own, its end, and being cut short.

A call gets a context below the one it was given. If it succeeds, what it registered goes to that
one; if it was given none, it is released. If it fails, or is cut short, it is undone first.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from anabranch import _core
from anabranch._callables import examine_undo, is_async, name_of, why_not, yields
from anabranch._threaded import Threaded
from anabranch._watch import Watch, check, is_stepped, stepped
from anabranch.context import Context, child_of
from anabranch.errors import NotAwaited, refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from anabranch._virtual import VirtualClock

T = TypeVar("T")

_NANO: Final = 1_000_000_000
# How often a wait in a thread looks whether the pipeline it is part of is aborted.
_LOOK: Final = 0.05


if TYPE_CHECKING:
    # One that takes nothing, or `ctx`. Said more closely, as a union with a protocol, mypy infers
    # Never for T in some of the overloads.
    Part: TypeAlias = Callable[..., T]


class Act:
    """A callable of the user's, and how to call it."""

    __slots__ = ("args", "fn", "is_async", "name", "takes_ctx")

    def __init__(
        self, fn: Callable[..., Any], name: str, args: tuple[Any, ...], *, awaits: bool, ctx: bool
    ) -> None:
        self.name: str = name
        self.is_async: bool = awaits
        self.fn: Callable[..., Any] = fn
        self.args: tuple[Any, ...] = args
        self.takes_ctx: bool = ctx

    def __call__(self, ctx: Context) -> Any:  # noqa: ANN401 - whatever it returns
        """Call it."""
        if self.takes_ctx:
            return self.fn(*self.args, ctx=ctx)
        return self.fn(*self.args)


def act(
    fn: object,
    subject: str,
    *,
    argument: str = "fn",
    args: tuple[Any, ...] = (),
    gives: str = "nothing",
    binds: bool = True,
) -> Act:
    """Find out how to call `fn`.

    Args:
        fn: What the user passed.
        subject: To what, for the error.
        argument: The argument's name, for the error.
        args: What it is to be called with.
        gives: What that is, for the error.
        binds: Whether to see if it can be called with that; this takes ten microseconds.

    Raises:
        ConfigError: It cannot be called.
    """
    if not callable(fn):
        hint = ""
        if inspect.iscoroutine(fn):
            fn.close()
            name = fn.__name__
            hint = f" (pass {name}, not {name}(); functools.partial takes its arguments)"
        raise refused(argument, fn, f"a callable{hint}", subject=subject)
    if yields(fn):
        allowed = "a def or async def that returns: nothing would begin a generator"
        raise refused(argument, fn, allowed, subject=subject, shown=name_of(fn))
    name, awaits, takes_ctx = examine_undo(fn)
    if binds and (why := why_not(fn, *args, takes_ctx=takes_ctx)):
        allowed = f"a callable that takes {gives}, and perhaps ctx ({why})"
        raise refused(argument, fn, allowed, subject=subject, shown=name)
    return Act(fn, name, args, awaits=awaits or _passes_on(fn), ctx=takes_ctx)


def check_def(
    fn: object, argument: str, subject: str, *, args: tuple[Any, ...], gives: str
) -> None:
    """Raise a ConfigError unless `fn` is a `def` that can be called with `args`."""
    if act(fn, subject, argument=argument, args=args, gives=gives).is_async:
        raise refused(argument, fn, "a def: it is called in between", subject=subject)


def by_kind(fn: Callable[..., Any]) -> None:
    """Mark a function that returns a coroutine if one of its callables does."""
    _BY_KIND.add(fn)


_BY_KIND: set[Callable[..., Any]] = set()


def _passes_on(fn: object) -> bool:
    """Return whether `fn` is, say, a partial of `retry` with an `async def`."""
    if not isinstance(fn, functools.partial) or fn.func not in _BY_KIND:
        return False
    return any(is_async(part) or _passes_on(part) for part in fn.args)


def check_context(ctx: object, subject: str) -> None:
    """Raise a ConfigError unless `ctx` is a Context or None."""
    if ctx is not None and not isinstance(ctx, Context):
        raise refused("ctx", ctx, "a Context or None", subject=subject)


def check_seconds(
    value: object, argument: str, subject: str, *, least: float = 0.0, exclusive: bool = False
) -> float:
    """Return a time in seconds.

    Raises:
        ConfigError: It is none.
    """
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if (
        isinstance(seconds, bool)
        or not isinstance(seconds, int | float)
        or not least <= seconds <= 1e9  # noqa: PLR2004 - as in the plan
        or (exclusive and seconds == least)
    ):
        low = "" if least < 0 else f" {'>' if exclusive else '>='} {least:g}"
        raise refused(argument, value, f"a number of seconds{low}", subject=subject)
    return float(seconds)


# Time.


def now_of(ctx: Context) -> float:
    """Return the time of the clock that `ctx` goes by, in seconds."""
    nanos = virtual_of(ctx)
    return time.monotonic() if nanos is None else nanos.nanos / _NANO


def wall_of(ctx: Context) -> float:
    """Return the time of the calendar, in seconds since 1970, which is when virtual time begins."""
    nanos = virtual_of(ctx)
    return time.time() if nanos is None else nanos.nanos / _NANO


def virtual_of(ctx: Context) -> _core.VirtualTime | None:
    """Return the time of the test that `ctx` goes by, if it does."""
    engines = ctx if isinstance(ctx, _core.Context) else ctx._engines()
    if engines is not None:
        return engines._time
    own = ctx._own_clock() or imposed()
    return None if own is None else own._time


def imposed() -> VirtualClock | None:
    """Return the clock of the running loop, if it is one of a test."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return None
    return getattr(loop, "virtual_clock", None)


def pause_blocking(ctx: Context, seconds: float) -> None:
    """Wait in this thread.

    Raises:
        Cancelled: `ctx` was cancelled before or meanwhile.
    """
    ctx._check()
    virtual = virtual_of(ctx)
    if virtual is not None:
        virtual.reach(virtual.nanos + round(seconds * _NANO))
    else:
        woken = threading.Event()
        tokens = ctx._tokens()
        for token in tokens:
            token._attach(woken, woken.set)
        until = time.monotonic() + seconds
        try:
            while (left := until - time.monotonic()) > 0 and not ctx.cancelled:
                woken.wait(min(left, _LOOK))
        finally:
            for token in tokens:
                token._detach(woken)
    check(ctx)


# A call and its end.


def begun(ctx: Context | None, label: str) -> Context:
    """Make the context of a call."""
    if ctx is None:
        return Context(label)
    if has_ended(ctx):
        from anabranch.errors import ClosedError

        raise ClosedError(f"context {ctx.name!r} was used after its work had ended")
    return child_of(ctx, label)


def has_ended(ctx: Context) -> bool:
    """Return whether its work is settled; of a pipeline's own, the pipeline sees to it."""
    return not isinstance(ctx, _core.Context) and ctx._ended


async def conduct(call: Context, body: Callable[[Context], Awaitable[T]], subject: str) -> T:
    """Run the body of a call in the event loop, and end the call's context."""
    adopt(call, subject)
    me = stepped()
    try:
        async with Watch(call):
            value = await body(call)
        await call._keep()
    except BaseException as error:
        if not isinstance(error, GeneratorExit) or is_stepped(me):
            await call._undo(error)
        raise
    return value


class Rest:
    """What of a call begun in this thread must be awaited: a `def` has returned a coroutine."""

    __slots__ = ("part", "run")

    def __init__(self, part: Act, run: Callable[[Context], Awaitable[Any]] | None = None) -> None:
        self.part = part
        self.run = run

    def close(self) -> None:
        """End the coroutine that nobody is going to await."""
        close = getattr(self.part.fn(), "close", None)
        if close is not None:
            close()


def conduct_blocking(call: Context, body: Callable[[Context], Any], subject: str) -> Any:  # noqa: ANN401 - what it returns
    """Run the body of a call in this thread, and end the call's context.

    Returns:
        What the body returns; of a Rest, the coroutine that does it.
    """
    try:
        check(call)
        value = body(call)
        if isinstance(value, Rest) and value.run is not None:
            return conduct(call, value.run, subject)
        call._keep_blocking()
    except BaseException as error:
        call._undo_blocking(error)
        raise
    return value


def adopt(ctx: Context, subject: str) -> None:
    """Make sure that `ctx` goes by the clock of the running loop.

    Raises:
        ConfigError: It was given another one.
    """
    own, loops = ctx._own_clock(), imposed()
    if own is None:
        ctx._clock = loops
    elif own is not loops:
        allowed = "the event loop's: run it inside ab.testing.run(main(), clock=clock)"
        raise refused("clock", own, allowed, subject=f"{subject} {ctx.name!r}")


async def attempt(
    fn: Act,
    ctx: Context,
    *,
    threaded: bool = False,
    undo: Callable[[BaseException], Awaitable[None]] | None = None,
) -> Any:  # noqa: ANN401 - what it returns
    """Call `fn` as a part of the work; if it fails, what it did is undone before it is told.

    Args:
        fn: What to call.
        ctx: The part's own context.
        threaded: Whether a `def` runs in a thread.
        undo: What sees to it that what it did is undone; `ctx` by default.
    """
    me = stepped()
    try:
        value = await (_in_thread(fn, ctx) if threaded and not fn.is_async else _here(fn, ctx))
    except BaseException as error:
        if not isinstance(error, GeneratorExit) or is_stepped(me):
            await (undo or ctx._undo)(error)
        raise
    return value


def attempt_blocking(fn: Act, ctx: Context) -> Any:  # noqa: ANN401 - as above
    """Do the same in this thread; a Rest tells what is still to be awaited."""
    try:
        value = fn(ctx)
        if inspect.iscoroutine(value):
            return Rest(Act(_giving(value), fn.name, (), awaits=True, ctx=False))
        return landed(value, ctx)
    except BaseException as error:
        ctx._undo_blocking(error)
        raise


def attempt_alone(fn: Act, ctx: Context) -> Any:  # noqa: ANN401 - as above
    """Do the same where nothing is awaited.

    Raises:
        NotAwaited: It has returned a coroutine; what it did is undone.
    """
    value = attempt_blocking(fn, ctx)
    if isinstance(value, Rest):
        value.close()
        error = _not_awaited(fn)
        ctx._undo_blocking(error)
        raise error
    return value


def call_alone(fn: Act, *args: object) -> None:
    """Call what is only to be told something, where nothing is awaited.

    Raises:
        NotAwaited: It has returned a coroutine.
    """
    value = fn.fn(*args)
    if inspect.iscoroutine(value):
        value.close()
        raise _not_awaited(fn)


def _not_awaited(fn: Act) -> NotAwaited:
    return NotAwaited(
        f"{fn.name!r} has returned a coroutine, and nothing in this thread awaits it: pass a def "
        "that does the work itself, or await the call that it was given to"
    )


def _giving(awaitable: Awaitable[T]) -> Callable[[], Awaitable[T]]:
    return lambda: awaitable


async def _here(fn: Act, ctx: Context) -> Any:  # noqa: ANN401 - as above
    value = fn(ctx)
    if inspect.isawaitable(value):
        value = await value
    return landed(value, ctx)


async def _in_thread(fn: Act, ctx: Context) -> Any:  # noqa: ANN401 - as above
    call = Threaded(fn, (ctx,))
    future = asyncio.get_running_loop().run_in_executor(None, call)
    cancelled: asyncio.CancelledError | None = None
    # A thread cannot be stopped: it is told, by its context.
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancelled = error
            ctx._stopped = True
            if call.cut_short():
                # It still waited for a thread: others may keep them all for long.
                raise
    value = future.result()
    call.conclude()
    if cancelled is not None:
        if inspect.iscoroutine(value):
            value.close()  # nobody is going to await it
        raise cancelled
    if inspect.isawaitable(value):
        value = await value
    return landed(value, ctx)


def landed(value: Any, ctx: Context) -> Any:  # noqa: ANN401 - as above
    """Return what a callable has returned: an `Ok` is unwrapped, an `Err` raised."""
    from anabranch.result import Result

    return value._land(ctx) if isinstance(value, Result) else value
