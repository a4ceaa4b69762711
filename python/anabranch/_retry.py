"""`retry`: a policy for one call by hand."""

from __future__ import annotations

import asyncio
import functools
import random
from typing import TYPE_CHECKING, Any, TypeVar, overload

from anabranch import _core
from anabranch._calls import (
    Act,
    Rest,
    act,
    attempt,
    attempt_blocking,
    begun,
    by_kind,
    check_context,
    conduct,
    conduct_blocking,
    now_of,
    pause_blocking,
    virtual_of,
    wall_of,
)
from anabranch._legs import retry_policy
from anabranch._record import note, record
from anabranch.context import child_of
from anabranch.errors import refused
from anabranch.policy import Retry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine

    from anabranch._calls import Part
    from anabranch.context import Context
    from anabranch.result import Result

T = TypeVar("T")

# As reports keep: the first error and the latest.
_MOST_ERRORS = 33


@overload
def retry(fn: Part[Result[T]], policy: Retry, *, ctx: Context | None = None) -> T: ...
@overload
def retry(
    fn: Part[Awaitable[Result[T]]], policy: Retry, *, ctx: Context | None = None
) -> Coroutine[Any, Any, T]: ...
@overload
def retry(
    fn: Part[Awaitable[T]], policy: Retry, *, ctx: Context | None = None
) -> Coroutine[Any, Any, T]: ...
@overload
def retry(fn: Part[T], policy: Retry, *, ctx: Context | None = None) -> T: ...
def retry(fn: Part[Any], policy: Retry, *, ctx: Context | None = None) -> Any:
    """Call something until it succeeds, or its policy gives up.

    A `def` is called here and now, and waited between in this thread; for an `async def` a
    coroutine is returned. What a failed attempt registered is undone before the next attempt.

    What is raised in the end is the last attempt's exception, as it is; a note on it tells of the
    attempts, and `ab.Failure.of(error)` keeps them: their number, the delays, each one's error.

    Args:
        fn: Takes nothing, or `ctx`; for arguments use `functools.partial`.
        policy: How often, after what delay, and for which errors.
        ctx: What the call is a part of.

    Returns:
        What `fn` returns, an `ab.Ok` unwrapped. An `ab.Err` is a failed attempt.

    Raises:
        ConfigError: An argument is not allowed.
        Cancelled: `ctx` was cancelled; what the attempts did is undone.
        Exception: What the last attempt raised.

    Example:
        >>> import anabranch as ab
        >>> answers = iter([OSError("busy"), OSError("busy"), "done"])
        >>> def ask(ctx: ab.Context) -> str:
        ...     print("attempt", ctx.attempt)
        ...     answer = next(answers)
        ...     if isinstance(answer, OSError):
        ...         raise answer
        ...     return answer
        >>> ab.retry(ask, ab.Retry.fixed(0.001, attempts=3))
        attempt 1
        attempt 2
        attempt 3
        'done'
    """
    part = act(fn, "retry")
    check_policy(policy, "retry")
    check_context(ctx, "retry")
    tries = Tries(part, policy)
    call = begun(ctx, part.name)
    if part.is_async:
        return conduct(call, tries.run, "retry")
    return conduct_blocking(call, tries.run_blocking, "retry")


by_kind(retry)


def check_policy(policy: object, subject: str) -> None:
    """Raise a ConfigError unless `policy` is one."""
    if not isinstance(policy, Retry):
        allowed = "a Retry, e.g. ab.Retry.exponential(attempts=3)"
        raise refused("policy", policy, allowed, subject=subject)


class Tries:
    """The attempts at one call: the core's policy, fed with this clock's times."""

    def __init__(self, part: Act, policy: Retry) -> None:
        self._part = part
        self._policy = policy
        self._number = 0
        self._errors: list[BaseException] = []

    async def run(self, call: Context) -> Any:  # noqa: ANN401 - what the callable returns
        """Try in the event loop; each attempt has a context below that of the call."""
        self._begin(call)
        return await self._go_on(self._next(), self._part)

    async def _go_on(self, one: Context, part: Act, _call: Context | None = None) -> Any:  # noqa: ANN401 - as above
        while True:
            try:
                value = await attempt(part, one)
                await one._keep()
            except Exception as error:
                delay = self._failed(error)
                if delay is None:
                    raise
            else:
                return value
            await asyncio.sleep(delay)
            one, part = self._next(), self._part

    def run_blocking(self, call: Context) -> Any:  # noqa: ANN401 - as above
        """Try in this thread."""
        self._begin(call)
        while True:
            one = self._next()
            try:
                value = attempt_blocking(self._part, one)
                if isinstance(value, Rest):
                    return Rest(value.part, functools.partial(self._go_on, one, value.part))
                one._keep_blocking()
            except Exception as error:
                delay = self._failed(error)
                if delay is None:
                    raise
            else:
                return value
            pause_blocking(call, delay)

    def _begin(self, call: Context) -> None:
        seed = self._policy.seed
        if seed is None:
            virtual = virtual_of(call)
            # In a test the same run repeats itself.
            seed = random.getrandbits(64) if virtual is None else virtual.nanos
        self._core = _core.Attempts(retry_policy(self._policy), seed & (1 << 64) - 1)
        self._call = call
        self._began = now_of(call)

    def _next(self) -> Context:
        self._number += 1
        return child_of(self._call, None, attempt=self._number)

    def _failed(self, error: Exception) -> float | None:
        """Return the delay before the next attempt, None if there is none."""
        number = self._number
        note(error, f"in {self._call.name!r}, attempt {number}")
        delay, gave_up = self._judged(error)
        if gave_up is None:
            self._errors.append(error)
            if len(self._errors) > _MOST_ERRORS:
                del self._errors[1]
            return delay
        record(
            error,
            attempts=number,
            delay=self._core.delay,
            earlier=tuple(self._errors),
            gave_up=gave_up,
        )
        return None

    def _judged(self, error: Exception) -> tuple[float | None, str | None]:
        policy, number = self._policy, self._number
        if not policy.retryable(error):
            return None, "error"
        asked: float | None = None
        if policy.delay is not None and number < policy.attempts:
            asked = policy.seconds_after(number, error)
            if asked is None:
                return None, "error"
        since_first = now_of(self._call) - self._began
        return self._core.failed(since_first, wall_of(self._call), asked)
