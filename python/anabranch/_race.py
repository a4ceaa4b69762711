"""`race` and `hedge`: several attempts at once, of which the first success counts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar, overload

from anabranch import _core
from anabranch._calls import (
    Act,
    act,
    attempt,
    begun,
    check_context,
    check_seconds,
    conduct,
)
from anabranch._record import note
from anabranch._watch import joined
from anabranch.context import child_of
from anabranch.errors import AllFailed, Cancelled, refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence
    from datetime import timedelta

    from anabranch._calls import Part
    from anabranch.context import Context
    from anabranch.result import Result

T = TypeVar("T")


@overload
async def race(
    *fns: Part[Awaitable[Result[T]] | Result[T]],
    ctx: Context | None = None,
) -> T: ...
@overload
async def race(
    *fns: Part[Awaitable[T]],
    ctx: Context | None = None,
) -> T: ...
@overload
async def race(
    *fns: Part[T],
    ctx: Context | None = None,
) -> T: ...
async def race(*fns: Part[Any], ctx: Context | None = None) -> Any:
    """Call several things at once, and return the result of the first that succeeds.

    The others are cancelled, and what they did is undone. Inside `async with ab.Context(...) as
    ctx`, and with `ctx=ctx`, the winner is returned at once, and the end of the block waits for
    the losers; otherwise the race itself does. A `def` runs in a thread, which nothing can stop:
    `ctx.cancelled` tells it that it has lost.

    Args:
        fns: Each takes nothing, or `ctx`; for arguments use `functools.partial`.
        ctx: What the call is a part of.

    Returns:
        What the winner returns, an `ab.Ok` unwrapped. An `ab.Err` is a failure.

    Raises:
        ConfigError: An argument is not allowed.
        AllFailed: None succeeded: it holds the error of each.
        Cancelled: `ctx` was cancelled; all is undone.

    Example:
        >>> import asyncio
        >>> import anabranch as ab
        >>> async def ask(server: str, seconds: float) -> str:
        ...     await asyncio.sleep(seconds)
        ...     return server
        >>> async def main() -> str:
        ...     return await ab.race(lambda: ask("far", 9.0), lambda: ask("near", 1.0))
        >>> ab.testing.run(main())
        'near'
    """
    parts = parts_of(fns, "race")
    check_context(ctx, "race")
    call = begun(ctx, "race")
    return await conduct(call, lambda call: _compete(parts, 0.0, call, ctx), "race")


@overload
async def hedge(
    fn: Part[Awaitable[Result[T]] | Result[T]],
    after: float | timedelta,
    *,
    attempts: int = 2,
    ctx: Context | None = None,
) -> T: ...
@overload
async def hedge(
    fn: Part[Awaitable[T]],
    after: float | timedelta,
    *,
    attempts: int = 2,
    ctx: Context | None = None,
) -> T: ...
@overload
async def hedge(
    fn: Part[T],
    after: float | timedelta,
    *,
    attempts: int = 2,
    ctx: Context | None = None,
) -> T: ...
async def hedge(
    fn: Part[Any],
    after: float | timedelta,
    *,
    attempts: int = 2,
    ctx: Context | None = None,
) -> Any:
    """Call something, and call it once more if it takes long; the first success counts.

    Against slow answers of a service with many servers. An attempt that fails brings the next one
    forward. The attempts that are not needed are cancelled and undone, as for `race`.

    Args:
        fn: Takes nothing, or `ctx`, whose `attempt` tells the attempts apart.
        after: Seconds from the beginning of one attempt to that of the next.
        attempts: How many there are at most, the first included; at least 2.
        ctx: What the call is a part of.

    Returns:
        What the first attempt to succeed returns.

    Raises:
        ConfigError: An argument is not allowed.
        AllFailed: All attempts failed: it holds the error of each.
        Cancelled: `ctx` was cancelled; all is undone.

    Example:
        >>> import asyncio
        >>> import anabranch as ab
        >>> async def ask(ctx: ab.Context) -> str:
        ...     await asyncio.sleep(60.0 if ctx.attempt == 1 else 1.0)
        ...     return f"answer {ctx.attempt}"
        >>> ab.testing.run(ab.hedge(ask, after=0.5))
        'answer 2'
    """
    part = act(fn, "hedge")
    delay = check_seconds(after, "after", "hedge", exclusive=True)
    if type(attempts) is not int or attempts < 2:  # noqa: PLR2004 - fewer are no hedge
        raise refused("attempts", attempts, "an int >= 2", subject="hedge")
    check_context(ctx, "hedge")
    call = begun(ctx, part.name)
    parts = [part] * attempts
    return await conduct(call, lambda call: _compete(parts, delay, call, ctx), "hedge")


def parts_of(fns: Sequence[object], subject: str) -> list[Act]:
    """Find out how to call each of `fns`.

    Raises:
        ConfigError: One cannot be called, or there is none.
    """
    if not fns:
        raise refused("fns", fns, "one callable or more", subject=subject)
    return [act(fn, subject, argument=f"fns[{at}]") for at, fn in enumerate(fns)]


async def _compete(parts: list[Act], after: float, call: Context, outer: Context | None) -> Any:  # noqa: ANN401 - what the winner returns
    contest = _Contest(call)
    hedged = after > 0
    # What a hedge begins later: all but the first.
    later = parts[:0:-1] if hedged else []
    try:
        for part in parts[:1] if hedged else parts:
            contest.begin(part, hedged=hedged)
        while contest.running and contest.winner is None:
            limit = after if later else None
            first = asyncio.FIRST_COMPLETED
            await asyncio.wait(contest.running, timeout=limit, return_when=first)
            contest.gather()
            if later and contest.winner is None:
                contest.begin(later.pop(), hedged=True)
    except BaseException as error:
        contest.over = True
        cancelled = await joined(contest.dismiss())
        if contest.winner is not None:
            await contest.winner._undo(error)
        if cancelled is not None:
            raise cancelled from error
        raise
    if contest.winner is None:
        errors = contest.errors()
        raise AllFailed(f"{call.name!r}: all {len(errors)} attempts failed", errors)
    await contest.winner._keep()
    await _part(contest.dismiss(), outer)
    return contest.value


class _Contest:
    """Attempts at once, of which one wins."""

    def __init__(self, call: Context) -> None:
        self._call = call
        self._entered: list[Context] = []
        self._failed: dict[Context, Exception] = {}
        self.running: dict[asyncio.Task[None], Context] = {}
        self.winner: Context | None = None
        self.value: Any = None
        self.over = False

    def begin(self, part: Act, *, hedged: bool) -> None:
        number = len(self._entered) + 1
        if hedged:
            one = child_of(self._call, None, attempt=number)
        else:
            one = child_of(self._call, part.name)
        self._entered.append(one)
        self.running[asyncio.get_running_loop().create_task(self._enter(part, one))] = one

    async def _enter(self, part: Act, one: Context) -> None:
        value = await attempt(part, one, threaded=True)
        if self.over:
            # Too late, or it would not be cancelled: it has lost all the same.
            await one._undo(asyncio.CancelledError())
            return
        self.over, self.winner, self.value = True, one, value

    def gather(self) -> None:
        """Take the errors of those that have ended."""
        for task in [task for task in self.running if task.done()]:
            one = self.running.pop(task)
            if task.cancelled():
                name = one.name
                error: BaseException | None = Cancelled(
                    f"{name!r} cancelled itself", reason="itself"
                )
            else:
                error = task.exception()
            if isinstance(error, Exception):
                note(error, f"in {one.name!r}, attempt {one.attempt}")
                self._failed[one] = error
            elif error is not None:
                raise error

    def errors(self) -> list[Exception]:
        return [self._failed[one] for one in self._entered]

    def dismiss(self) -> list[asyncio.Task[None]]:
        """Cancel those that still run."""
        for task, one in self.running.items():
            one._stopped = True
            task.cancel()
            task.add_done_callback(_heard)
        return list(self.running)


async def _part(losers: list[asyncio.Task[None]], outer: Context | None) -> None:
    """Have the losers waited for: by the block that the race is in, or here."""
    owner = outer
    while owner is not None and not isinstance(owner, _core.Context):
        if owner._left is not None:
            for task in losers:
                owner._left.add(task)
                task.add_done_callback(owner._left.discard)
            return
        owner = owner._parent
    cancelled = await joined(losers)
    if cancelled is not None:
        raise cancelled


def _heard(task: asyncio.Task[None]) -> None:
    """Take the error of a loser: it is no matter any more."""
    if not task.cancelled():
        task.exception()
