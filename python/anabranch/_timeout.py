"""`timeout`: a call with a deadline."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, TypeVar, overload

from anabranch._calls import (
    Act,
    act,
    attempt,
    begun,
    check_context,
    check_seconds,
    conduct,
    now_of,
)
from anabranch._watch import joined
from anabranch.errors import HandlerTimeout

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from datetime import timedelta

    from anabranch._calls import Part
    from anabranch.context import Context
    from anabranch.result import Result

T = TypeVar("T")

_logger = logging.getLogger("anabranch")
# What did not end within its grace: kept until it does.
_abandoned: set[asyncio.Task[Any]] = set()


@overload
async def timeout(
    fn: Part[Awaitable[Result[T]] | Result[T]],
    seconds: float | timedelta,
    *,
    grace: float | timedelta = 5.0,
    ctx: Context | None = None,
) -> T: ...
@overload
async def timeout(
    fn: Part[Awaitable[T]],
    seconds: float | timedelta,
    *,
    grace: float | timedelta = 5.0,
    ctx: Context | None = None,
) -> T: ...
@overload
async def timeout(
    fn: Part[T],
    seconds: float | timedelta,
    *,
    grace: float | timedelta = 5.0,
    ctx: Context | None = None,
) -> T: ...
async def timeout(
    fn: Part[Any],
    seconds: float | timedelta,
    *,
    grace: float | timedelta = 5.0,
    ctx: Context | None = None,
) -> Any:
    """Call something that may take only so long.

    When its time is up it is cancelled, and what it did undone. A `def` runs in a thread, which
    nothing can stop: `ctx.cancelled` tells it. `ctx.deadline` is known to what it calls.

    Args:
        fn: Takes nothing, or `ctx`; for arguments use `functools.partial`.
        seconds: How long; 0 or less is over before it begins, and `fn` is not called.
        grace: How many seconds more to wait for it to end and to be undone. Then it is left
            behind, with `abandoned` set on the error: what it did until then is undone, and it can
            register nothing more.
        ctx: What the call is a part of.

    Returns:
        What `fn` returns, an `ab.Ok` unwrapped.

    Raises:
        ConfigError: An argument is not allowed.
        HandlerTimeout: Its time was up; `late` on it is what `fn` raised after that.
        Cancelled: `ctx` was cancelled.
        Exception: What `fn` raises.

    Example:
        >>> import asyncio
        >>> import anabranch as ab
        >>> async def main() -> None:
        ...     try:
        ...         await ab.timeout(lambda: asyncio.sleep(3600.0), 0.5)
        ...     except ab.HandlerTimeout as error:
        ...         print(error.code, error.timeout)
        >>> ab.testing.run(main())
        timeout 0.5
    """
    part = act(fn, "timeout")
    given = check_seconds(seconds, "seconds", "timeout", least=-1e9)
    patience = check_seconds(grace, "grace", "timeout")
    check_context(ctx, "timeout")
    call = begun(ctx, part.name)
    return await conduct(call, lambda call: _limited(part, given, patience, call), "timeout")


async def _limited(part: Act, given: float, grace: float, call: Context) -> Any:  # noqa: ANN401 - what it returns
    deadline = now_of(call) + given
    call._deadline = deadline if call._deadline is None else min(deadline, call._deadline)
    if given <= 0:
        raise _overran(call, given)
    # In a task of its own: one that does not end when it is cancelled can be left behind.
    task = asyncio.get_running_loop().create_task(attempt(part, call, threaded=True))
    try:
        await asyncio.wait([task], timeout=given)
    except asyncio.CancelledError:
        call._stopped = True
        task.cancel()
        await joined([task])
        _heard(task)
        raise
    if task.done():
        return task.result()
    call._stopped = True
    task.cancel()
    error = _overran(call, given)
    cancelled: asyncio.CancelledError | None = None
    try:
        await asyncio.wait([task], timeout=grace)
    except asyncio.CancelledError as other:
        cancelled = other
        await joined([task])
    if not task.done():
        error.abandoned = True
        _abandoned.add(task)
        task.add_done_callback(_forget)
        _logger.error(
            "%s: it had not ended %g s after its timeout, and was left behind", call.name, grace
        )
    else:
        error.late = _heard(task)
    if cancelled is not None:
        raise cancelled
    raise error from error.late


def _heard(task: asyncio.Task[Any]) -> BaseException | None:
    with contextlib.suppress(asyncio.CancelledError):
        return task.exception()
    return None


def _forget(task: asyncio.Task[Any]) -> None:
    _abandoned.discard(task)
    _heard(task)


def _overran(call: Context, given: float) -> HandlerTimeout:
    return HandlerTimeout(
        f"{call.name!r} took longer than its timeout of {given:g} s", timeout=given
    )
