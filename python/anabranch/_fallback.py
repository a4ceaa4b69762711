"""`fallback`: one thing after the other, until one succeeds."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeVar, overload

from anabranch._calls import (
    Act,
    Rest,
    attempt,
    attempt_blocking,
    begun,
    by_kind,
    check_context,
    conduct,
    conduct_blocking,
)
from anabranch._race import parts_of
from anabranch._record import note
from anabranch._watch import check
from anabranch.context import child_of
from anabranch.errors import AllFailed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine

    from anabranch._calls import Part
    from anabranch.context import Context
    from anabranch.result import Result

T = TypeVar("T")


@overload
def fallback(*fns: Part[Result[T]], ctx: Context | None = None) -> T: ...
@overload
def fallback(
    *fns: Part[Awaitable[Result[T]]], ctx: Context | None = None
) -> Coroutine[Any, Any, T]: ...
@overload
def fallback(*fns: Part[Awaitable[T]], ctx: Context | None = None) -> Coroutine[Any, Any, T]: ...
@overload
def fallback(*fns: Part[T], ctx: Context | None = None) -> T: ...
def fallback(*fns: Part[Any], ctx: Context | None = None) -> Any:
    """Call the first; if it fails, the second; and so on, until one succeeds.

    What a tier did that has failed is undone before the next one. If all are `def`s they are called
    here and now; if one is an `async def`, a coroutine is returned.

    Args:
        fns: The tiers, the best first. Each takes nothing, or `ctx`, whose `attempt` is the number
            of the tier; for arguments use `functools.partial`.
        ctx: What the call is a part of.

    Returns:
        What the first tier to succeed returns, an `ab.Ok` unwrapped. An `ab.Err` is a failure.

    Raises:
        ConfigError: An argument is not allowed.
        AllFailed: All tiers failed: it holds the error of each, with a note that names the tier.
        Cancelled: `ctx` was cancelled; all is undone.

    Example:
        >>> import anabranch as ab
        >>> def from_cache() -> str:
        ...     raise KeyError("price")
        >>> ab.fallback(from_cache, lambda: "19.99")
        '19.99'
    """
    tiers = _Tiers(parts_of(fns, "fallback"))
    check_context(ctx, "fallback")
    call = begun(ctx, "fallback")
    if any(part.is_async for part in tiers.parts):
        return conduct(call, tiers.run, "fallback")
    return conduct_blocking(call, tiers.run_blocking, "fallback")


by_kind(fallback)


class _Tiers:
    """The tiers of one call, and the errors of those that failed."""

    def __init__(self, parts: list[Act]) -> None:
        self.parts = parts
        self._errors: list[Exception] = []

    async def run(self, call: Context, begun: tuple[Act, Context] | None = None) -> Any:  # noqa: ANN401 - what a tier returns
        """Try in the event loop; `begun` is a tier that has been called already."""
        while (tier := begun or self._next(call)) is not None:
            begun = None
            part, one = tier
            try:
                value = await attempt(part, one)
                await one._keep()
            except Exception as error:  # noqa: BLE001 - the next tier is for it
                self._failed(error, one)
            else:
                return value
        raise self._all_failed(call)

    def run_blocking(self, call: Context) -> Any:  # noqa: ANN401 - as above
        """Try in this thread."""
        while (tier := self._next(call)) is not None:
            part, one = tier
            try:
                value = attempt_blocking(part, one)
                if isinstance(value, Rest):
                    return Rest(value.part, functools.partial(self.run, begun=(value.part, one)))
                one._keep_blocking()
            except Exception as error:  # noqa: BLE001 - as above
                self._failed(error, one)
            else:
                return value
        raise self._all_failed(call)

    def _next(self, call: Context) -> tuple[Act, Context] | None:
        number = len(self._errors)
        if number == len(self.parts):
            return None
        check(call)
        part = self.parts[number]
        return part, child_of(call, part.name, attempt=number + 1)

    def _failed(self, error: Exception, one: Context) -> None:
        note(error, f"in {one.name!r}, tier {one.attempt} of {len(self.parts)}")
        self._errors.append(error)

    def _all_failed(self, call: Context) -> AllFailed:
        return AllFailed(f"{call.name!r}: all {len(self.parts)} tiers failed", self._errors)
