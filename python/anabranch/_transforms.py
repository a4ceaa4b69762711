"""The builder's stages that call something per item: map, filter, flat_map, tap, ensure."""

from __future__ import annotations

import reprlib
from typing import TYPE_CHECKING, Any, TypeVar, overload

from anabranch._builder import Builder
from anabranch._callables import name_of
from anabranch.codes import CODES, is_code
from anabranch.errors import EnsureError, refused

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
    from datetime import timedelta
    from typing import TypeGuard, Unpack

    from anabranch._callables import WithCtx
    from anabranch._stages import CallOptions, EnsureOptions, OnError
    from anabranch.pipeline import Pipeline
    from anabranch.policy import Retry
    from anabranch.result import Result

T = TypeVar("T")
U = TypeVar("U")


class Transforms(Builder[T]):
    """The stages that call something per item."""

    __slots__ = ()

    @overload
    def map(
        self,
        fn: Callable[[T], Awaitable[Result[U]] | Result[U]],
        **options: Unpack[CallOptions],
    ) -> Pipeline[U]: ...
    @overload
    def map(
        self,
        fn: WithCtx[T, Awaitable[Result[U]] | Result[U]],
        **options: Unpack[CallOptions],
    ) -> Pipeline[U]: ...
    @overload
    def map(
        self, fn: Callable[[T], Awaitable[U]], **options: Unpack[CallOptions]
    ) -> Pipeline[U]: ...
    @overload
    def map(self, fn: WithCtx[T, Awaitable[U]], **options: Unpack[CallOptions]) -> Pipeline[U]: ...
    @overload
    def map(self, fn: Callable[[T], U], **options: Unpack[CallOptions]) -> Pipeline[U]: ...
    @overload
    def map(self, fn: WithCtx[T, U], **options: Unpack[CallOptions]) -> Pipeline[U]: ...
    def map(
        self,
        fn: Callable[..., Any],
        *,
        name: str | None = None,
        concurrency: int = 1,
        ordered: bool = True,
        retry: Retry | None = None,
        timeout: float | timedelta | None = None,
        on_error: OnError | None = None,
    ) -> Pipeline[Any]:
        """Replace each item by what `fn(item)` returns.

        Args:
            fn: A `def`, which runs in the pipeline's own thread and should be quick, or an
                `async def`. An `async def` that a lambda or a decorator hides is none: what it is
                given fails with `NotAwaited`.
            name: The stage's name; the callable's by default.
            concurrency: How many calls of an `async def` may be under way at once, per branch.
            ordered: Whether items leave in the order they came. If not, each leaves when it is
                ready, and one that waits for another attempt is overtaken.
            retry: When and how often a failed call is tried again; None never.
            timeout: Seconds that one call of an `async def` may take; see `for_each`. Not for a
                `def`, which runs inline.
            on_error: What becomes of a failure that arises here and that no stage behind takes:
                "continue" counts it, "stop" ends the run, too, and "dead_letter" hands it to the
                pipeline's `dead_letter`. None: as the pipeline says.

        Raises:
            ConfigError: An argument is not allowed, or the stage cannot stand here.

        Example:
            >>> import anabranch as ab
            >>> async def double(n: int) -> int:
            ...     return n * 2
            >>> doubles = ab.Pipeline("doubles").source([1, 2]).map(double, concurrency=8).collect()
            >>> doubles.run_blocking().items
            [2, 4]
        """
        options = _options(concurrency, ordered, timeout, on_error)
        return self._called("map", fn, name, retry, **options)

    @overload
    def filter(
        self, fn: Callable[[T], TypeGuard[U]], **options: Unpack[CallOptions]
    ) -> Pipeline[U]: ...
    @overload
    def filter(self, fn: Callable[[T], object], **options: Unpack[CallOptions]) -> Pipeline[T]: ...
    @overload
    def filter(self, fn: WithCtx[T, object], **options: Unpack[CallOptions]) -> Pipeline[T]: ...
    def filter(
        self,
        fn: Callable[..., Any],
        *,
        name: str | None = None,
        concurrency: int = 1,
        ordered: bool = True,
        retry: Retry | None = None,
        timeout: float | timedelta | None = None,
        on_error: OnError | None = None,
    ) -> Pipeline[Any]:
        """Keep the items for which `fn(item)` is true; the others are counted as filtered.

        Arguments and errors are those of `map`.

        Example:
            >>> import anabranch as ab
            >>> odd = ab.Pipeline("odd").source(range(5)).filter(lambda n: n % 2).collect()
            >>> report = odd.run_blocking()
            >>> report.items, report.filtered
            ([1, 3], 3)
        """
        options = _options(concurrency, ordered, timeout, on_error)
        return self._called("filter", fn, name, retry, **options)

    @overload
    def flat_map(
        self, fn: Callable[[T], Awaitable[Iterable[U]]], **options: Unpack[CallOptions]
    ) -> Pipeline[U]: ...
    @overload
    def flat_map(
        self, fn: WithCtx[T, Awaitable[Iterable[U]]], **options: Unpack[CallOptions]
    ) -> Pipeline[U]: ...
    @overload
    def flat_map(
        self,
        fn: Callable[[T], Iterable[U] | AsyncIterable[U]],
        **options: Unpack[CallOptions],
    ) -> Pipeline[U]: ...
    @overload
    def flat_map(
        self,
        fn: WithCtx[T, Iterable[U] | AsyncIterable[U]],
        **options: Unpack[CallOptions],
    ) -> Pipeline[U]: ...
    def flat_map(
        self,
        fn: Callable[..., Any],
        *,
        name: str | None = None,
        concurrency: int = 1,
        ordered: bool = True,
        retry: Retry | None = None,
        timeout: float | timedelta | None = None,
        on_error: OnError | None = None,
    ) -> Pipeline[Any]:
        """Replace each item by the items of the iterable that `fn(item)` returns.

        Generator functions, `async` or not, are fine, too. Of an async generator, all items of
        one call are gathered before the first goes on. An empty iterable takes the item out: it
        is counted as filtered. Arguments and errors are those of `map`.

        Example:
            >>> import anabranch as ab
            >>> words = ab.Pipeline("words").source(["a b", "c"]).flat_map(str.split).collect()
            >>> report = words.run_blocking()
            >>> report.items, report.received, report.produced
            (['a', 'b', 'c'], 2, 1)
        """
        options = _options(concurrency, ordered, timeout, on_error)
        return self._called("flat_map", fn, name, retry, **options)

    @overload
    def tap(self, fn: Callable[[T], object], **options: Unpack[CallOptions]) -> Pipeline[T]: ...
    @overload
    def tap(self, fn: WithCtx[T, object], **options: Unpack[CallOptions]) -> Pipeline[T]: ...
    def tap(
        self,
        fn: Callable[..., Any],
        *,
        name: str | None = None,
        concurrency: int = 1,
        ordered: bool = True,
        retry: Retry | None = None,
        timeout: float | timedelta | None = None,
        on_error: OnError | None = None,
    ) -> Pipeline[T]:
        """Call `fn(item)` and pass the item on; what it returns is ignored.

        An item at which it raises becomes a failure and goes no further. Arguments and errors
        are those of `map`.

        Example:
            >>> import anabranch as ab
            >>> seen = ab.Pipeline("seen").source(["a", "b"]).tap(print).collect()
            >>> _ = seen.run_blocking()
            a
            b
        """
        options = _options(concurrency, ordered, timeout, on_error)
        return self._called("tap", fn, name, retry, **options)

    @overload
    def ensure(
        self, predicate: Callable[[T], object], **options: Unpack[EnsureOptions]
    ) -> Pipeline[T]: ...
    @overload
    def ensure(
        self, predicate: WithCtx[T, object], **options: Unpack[EnsureOptions]
    ) -> Pipeline[T]: ...
    def ensure(
        self,
        predicate: Callable[..., Any],
        *,
        code: str = "ensure.failed",
        message: str | None = None,
        name: str | None = None,
        concurrency: int = 1,
        ordered: bool = True,
        retry: Retry | None = None,
        timeout: float | timedelta | None = None,
        on_error: OnError | None = None,
    ) -> Pipeline[T]:
        """Make a failure of each item for which `predicate(item)` is false; the others pass.

        Args:
            predicate: A `def` or an `async def` that takes the item.
            code: The failure's code.
            message: Its message; by default one with the predicate's name and the item.
            name: The stage's name; the predicate's by default.
            concurrency: As for `map`.
            ordered: As for `map`.
            retry: As for `map`: for a predicate that raises, or that may come true.
            timeout: As for `map`.
            on_error: As for `map`.

        Raises:
            ConfigError: An argument is not allowed, or the stage cannot stand here; or the code
                is one of the library's own, all of which are in `ab.CODES`.

        Example:
            >>> import anabranch as ab
            >>> pipeline = ab.Pipeline("p").source([3, -1]).ensure(
            ...     lambda n: n > 0, code="number.negative", message="it must be positive"
            ... )
            >>> report = pipeline.collect().run_blocking()
            >>> report.items, report.codes
            ([3], {'number.negative': 1})
        """
        label = name_of(predicate, otherwise="ensure") if name is None else name
        # Any other value is refused below.
        if is_code(code) and code != "ensure.failed" and code in CODES:
            allowed = "a code that is none of the library's own (see ab.CODES)"
            raise refused("code", code, allowed, pipeline=self.name, stage=label)

        def refusal(item: object) -> EnsureError:
            told = f"{label} is not true of {reprlib.repr(item)}" if message is None else message
            return EnsureError(told, code=code)

        options = _options(concurrency, ordered, timeout, on_error)
        options |= {"code": code, "message": message}
        live = {"refusal": refusal}
        return self._called(
            "ensure", predicate, name, retry, argument="predicate", live=live, **options
        )


def _options(
    concurrency: int, ordered: object, timeout: object, on_error: str | None
) -> dict[str, Any]:
    return {
        "concurrency": concurrency,
        "ordered": ordered,
        "timeout": timeout,
        "on_error": on_error,
    }
