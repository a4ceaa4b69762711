"""`all_of`: several things at once, and the results of all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from anabranch._calls import check_context
from anabranch._group import check_most
from anabranch._race import parts_of
from anabranch.errors import refused
from anabranch.group import ErrGroup, WaitGroup

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from anabranch._calls import Part
    from anabranch.context import Context
    from anabranch.result import Result

T = TypeVar("T")


@overload
async def all_of(
    *fns: Part[Awaitable[Result[T]] | Result[T]],
    on_error: Literal["fail_fast"] = "fail_fast",
    max_concurrency: int | None = None,
    ctx: Context | None = None,
) -> list[T]: ...
@overload
async def all_of(
    *fns: Part[Awaitable[T]],
    on_error: Literal["fail_fast"] = "fail_fast",
    max_concurrency: int | None = None,
    ctx: Context | None = None,
) -> list[T]: ...
@overload
async def all_of(
    *fns: Part[T],
    on_error: Literal["fail_fast"] = "fail_fast",
    max_concurrency: int | None = None,
    ctx: Context | None = None,
) -> list[T]: ...
@overload
async def all_of(
    *fns: Part[Awaitable[Result[T]] | Result[T]],
    on_error: Literal["collect"],
    max_concurrency: int | None = None,
    ctx: Context | None = None,
) -> list[Result[T]]: ...
@overload
async def all_of(
    *fns: Part[Awaitable[T]],
    on_error: Literal["collect"],
    max_concurrency: int | None = None,
    ctx: Context | None = None,
) -> list[Result[T]]: ...
@overload
async def all_of(
    *fns: Part[T],
    on_error: Literal["collect"],
    max_concurrency: int | None = None,
    ctx: Context | None = None,
) -> list[Result[T]]: ...
async def all_of(
    *fns: Part[Any],
    on_error: Literal["fail_fast", "collect"] = "fail_fast",
    max_concurrency: int | None = None,
    ctx: Context | None = None,
) -> list[Any]:
    """Call several things at once, and return their results, in the order of the arguments.

    Args:
        fns: Each takes nothing, or `ctx`; for arguments use `functools.partial`. A `def` runs in a
            thread. Without any the result is empty.
        on_error: "fail_fast": the first error cancels the others, all that was done is undone, and
            the error is raised. "collect": all end, what failed is undone, and the results are
            `ab.Ok`s and `ab.Err`s.
        max_concurrency: How many run at once; None for all.
        ctx: What the call is a part of.

    Raises:
        ConfigError: An argument is not allowed.
        Cancelled: `ctx` was cancelled; all is undone.
        Exception: The first error, where one ends it all.

    Example:
        >>> import asyncio
        >>> import anabranch as ab
        >>> async def length(text: str) -> int:
        ...     return len(text)
        >>> asyncio.run(ab.all_of(lambda: length("a"), lambda: length("abc")))
        [1, 3]
    """
    parts = parts_of(fns, "all_of") if fns else []
    if on_error not in ("fail_fast", "collect"):
        raise refused("on_error", on_error, "'fail_fast' or 'collect'", subject="all_of")
    check_most(max_concurrency, "all_of")
    check_context(ctx, "all_of")
    kind = ErrGroup if on_error == "fail_fast" else _Collecting
    group = kind("all_of", max_concurrency=max_concurrency, commit="group", ctx=ctx)
    async with group:
        children = [group._begin(part, ()) for part in parts]
    results = [child.result for child in children]
    return results if on_error == "collect" else [it.unwrap() for it in results if it is not None]


class _Collecting(WaitGroup):
    """A WaitGroup whose children's failures are results."""

    def _sum(self) -> None:
        return None
