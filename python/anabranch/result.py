"""`Result`: what became of a call, as a value: `Ok` or `Err`.

Longer than others: two thirds are overloads and examples of methods that belong together.
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, Never, TypeGuard, TypeVar, cast, overload

from anabranch import _core
from anabranch._calls import act, begun, check_context, has_ended
from anabranch._failures import code_of, mapped
from anabranch._landing import loaded
from anabranch._watch import Watch, check, is_stepped, stepped
from anabranch.codes import CODES, is_code
from anabranch.context import Context, child_of
from anabranch.errors import Cancelled, ClosedError, EnsureError, ResultError, check_name, refused
from anabranch.failure import Failure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator
    from typing import Self, TypeAlias

    from anabranch._callables import WithCtx
    from anabranch._calls import Act

    Takes: TypeAlias = Callable[["T"], "U"] | WithCtx["T", "U"]

T = TypeVar("T")
U = TypeVar("U")
T_co = TypeVar("T_co", covariant=True)


class Result(Generic[T_co]):
    """What became of a call, as a value: an `Ok` with what it returned, or an `Err`.

    For those who prefer values to exceptions, and for `match`. The methods go on from it: each
    takes a `def`, and returns a Result, or an `async def`, and is awaited. What a callable raises
    becomes an `Err`, and so does an `Err` it returns; programs that end (KeyboardInterrupt) and
    cancellations go on.

    A callable with a parameter `ctx` is given a Context. An `Ok` carries what the callables so far
    have registered there. When a later one fails, all of it is undone, before anything else is
    called; `unwrap` and `commit` release it, or hand it on to the `ctx` that `try_` was given. What
    a callable returns that is a Result brings with it what it carries.

    What an `Ok` carries that is neither unwrapped nor committed, as after `match`, ends with the
    `ctx` that `try_` was given: undone if that fails, released if it ends well. Without one, or
    with that of a pipeline's callable, nothing else ends it: `unwrap` or `commit` it. When that
    `ctx` is cancelled, the next call, or the one that is awaited, raises `Cancelled`, and what the
    Result carries is undone.

    In a pipeline an `Err` that a callable returns is a failure of its item, and an `Ok` goes on as
    its value, unwrapped.

    Awaited, a Result is itself.

    Example:
        >>> import anabranch as ab
        >>> def half(n: int) -> ab.Result[int]:
        ...     return ab.Ok(n // 2) if n % 2 == 0 else ab.Err("odd", f"{n} is odd")
        >>> for text in ("12", "6", "x"):
        ...     match ab.Result.try_(int, text).then(half).then(half):
        ...         case ab.Ok(number):
        ...             print(number)
        ...         case ab.Err(failure):
        ...             print(failure.code)
        3
        odd
        ValueError
    """

    __slots__ = ("_ctx", "_outer")

    # What its undo actions are registered with, and what that is a part of.
    _ctx: Context | None
    _outer: Context | None

    # By hand: an ABC would make every `isinstance(value, Result)` cost four times as much.
    def __init__(self) -> None:
        raise TypeError("a Result is made as an ab.Ok or an ab.Err, or by ab.Result.try_")

    @staticmethod
    @overload
    def try_(
        fn: Callable[..., Result[T]], /, *args: object, ctx: Context | None = None
    ) -> Result[T]: ...
    @staticmethod
    @overload
    def try_(fn: Callable[..., T], /, *args: object, ctx: Context | None = None) -> Result[T]: ...
    @staticmethod
    def try_(fn: Callable[..., Any], /, *args: object, ctx: Context | None = None) -> Result[Any]:
        """Call a `def`; what it raises is an `Err`.

        Args:
            fn: What to call.
            args: What with; keywords go through `functools.partial`.
            ctx: What the call is a part of.

        Raises:
            ConfigError: `fn` is no `def`, or `ctx` no Context.
            ClosedError: The work of `ctx` has ended.
            Cancelled: `ctx` was cancelled.

        Example:
            >>> import anabranch as ab
            >>> ab.Result.try_(int, "7")
            Ok(7)
            >>> ab.Result.try_(int, "x").unwrap_or(0)
            0
        """
        part = act(fn, "Result.try_", args=args)
        check_context(ctx, "Result.try_")
        if part.is_async:
            raise refused("fn", fn, "a def (for an async def use try_async)", subject="Result.try_")
        result = _begin(ctx)._call(part, _wrapped)
        if inspect.iscoroutine(result):
            result.close()
            allowed = "a def that returns no coroutine (use try_async)"
            raise refused("fn", fn, allowed, subject="Result.try_")
        return cast("Result[Any]", result)

    @staticmethod
    @overload
    async def try_async(
        fn: Callable[..., Coroutine[Any, Any, Result[T]]],
        /,
        *args: object,
        ctx: Context | None = None,
    ) -> Result[T]: ...
    @staticmethod
    @overload
    async def try_async(
        fn: Callable[..., Coroutine[Any, Any, T]], /, *args: object, ctx: Context | None = None
    ) -> Result[T]: ...
    @staticmethod
    async def try_async(
        fn: Callable[..., Any], /, *args: object, ctx: Context | None = None
    ) -> Result[Any]:
        """Call and await an `async def`; what it raises is an `Err`.

        The arguments and errors are those of `try_`.

        Example:
            >>> import asyncio
            >>> import anabranch as ab
            >>> async def fetch(url: str) -> str:
            ...     raise ConnectionError(url)
            >>> asyncio.run(ab.Result.try_async(fetch, "//shop")).error.code
            'ConnectionError'
        """
        part = act(fn, "Result.try_async", args=args)
        check_context(ctx, "Result.try_async")
        result = _begin(ctx)._call(part, _wrapped)
        return cast("Result[Any]", await result)

    @property
    def ok(self) -> bool:
        """Whether it is an `Ok`."""
        return isinstance(self, Ok)

    @overload
    def map(  # type: ignore[overload-overlap]  # pyright: ignore[reportOverlappingOverload] - told first
        self, fn: Takes[T_co, Coroutine[Any, Any, U]]
    ) -> Coroutine[Any, Any, Result[U]]: ...
    @overload
    def map(self, fn: Takes[T_co, U]) -> Result[U]: ...
    def map(self, fn: Callable[..., Any]) -> Any:
        """Go on with what `fn` makes of the value; an `Err` stays as it is.

        Example:
            >>> import anabranch as ab
            >>> ab.Ok(20).map(lambda n: n + 1)
            Ok(21)
        """
        return self._with_value("map", fn, _wrapped)

    @overload
    def then(
        self, fn: Takes[T_co, Coroutine[Any, Any, Result[U]]]
    ) -> Coroutine[Any, Any, Result[U]]: ...
    @overload
    def then(self, fn: Takes[T_co, Result[U]]) -> Result[U]: ...
    def then(self, fn: Callable[..., Any]) -> Any:
        """Go on with the Result that `fn` makes of the value; an `Err` stays as it is.

        Example:
            >>> import anabranch as ab
            >>> ab.Ok("7").then(lambda text: ab.Result.try_(int, text))
            Ok(7)
        """
        return self._with_value("then", fn, _wrapped)

    @overload
    def recover(  # type: ignore[overload-overlap]  # pyright: ignore[reportOverlappingOverload] - told first
        self, fn: Takes[Failure, Coroutine[Any, Any, Result[U] | U]]
    ) -> Coroutine[Any, Any, Result[T_co | U]]: ...
    @overload
    def recover(self, fn: Takes[Failure, Result[U]]) -> Result[T_co | U]: ...
    @overload
    def recover(self, fn: Takes[Failure, U]) -> Result[T_co | U]: ...
    def recover(self, fn: Callable[..., Any]) -> Any:
        """Go on with what `fn` makes of the failure, a value or a Result; an `Ok` stays as it is.

        What failed has been undone before.

        Example:
            >>> import anabranch as ab
            >>> ab.Err("stock.empty").recover(lambda failure: 0)
            Ok(0)
        """
        return self._with_failure("recover", fn, _wrapped)

    @overload
    def ensure(
        self,
        predicate: Takes[T_co, Coroutine[Any, Any, bool]],
        *,
        code: str = ...,
        message: str | None = ...,
    ) -> Coroutine[Any, Any, Result[T_co]]: ...
    @overload
    def ensure(
        self, predicate: Takes[T_co, bool], *, code: str = ..., message: str | None = ...
    ) -> Result[T_co]: ...
    def ensure(
        self,
        predicate: Callable[..., Any],
        *,
        code: str = "ensure.failed",
        message: str | None = None,
    ) -> Any:
        """Make it an `Err` unless `predicate` is true for the value.

        Args:
            predicate: Takes the value.
            code: The code of the `Err`.
            message: Its message.

        Raises:
            ConfigError: The code is one of the library's own.

        Example:
            >>> import anabranch as ab
            >>> ab.Ok(3).ensure(lambda n: n > 5, code="too.small").error.code
            'too.small'
        """
        _check_code(code, "Result.ensure", but="ensure.failed")
        if message is not None:
            check_name(message, "Result.ensure", argument="message")

        def decide(holds: object) -> Result[Any]:
            if holds:
                return self
            text = f"the predicate was false for {value_of(self)!r}" if message is None else message
            return Err(EnsureError(text, code=code))

        return self._with_value("ensure", predicate, decide, argument="predicate")

    @overload
    def tap(  # type: ignore[overload-overlap]  # pyright: ignore[reportOverlappingOverload] - told first
        self, fn: Takes[T_co, Coroutine[Any, Any, object]]
    ) -> Coroutine[Any, Any, Result[T_co]]: ...
    @overload
    def tap(self, fn: Takes[T_co, object]) -> Result[T_co]: ...
    def tap(self, fn: Callable[..., Any]) -> Any:
        """Show `fn` the value, and go on with the same one; if it raises, it is an `Err`.

        Example:
            >>> import anabranch as ab
            >>> ab.Ok(1).tap(print)
            1
            Ok(1)
        """
        return self._with_value("tap", fn, self._same)

    @overload
    def tap_error(  # type: ignore[overload-overlap]  # pyright: ignore[reportOverlappingOverload] - told first
        self, fn: Takes[Failure, Coroutine[Any, Any, object]]
    ) -> Coroutine[Any, Any, Result[T_co]]: ...
    @overload
    def tap_error(self, fn: Takes[Failure, object]) -> Result[T_co]: ...
    def tap_error(self, fn: Callable[..., Any]) -> Any:
        """Show `fn` the failure, and go on with the same one; if it raises, with that one.

        Example:
            >>> import anabranch as ab
            >>> ab.Err("stock.empty").tap_error(lambda failure: print(failure.code)).ok
            stock.empty
            False
        """
        return self._with_failure("tap_error", fn, self._same)

    @overload
    def map_error(
        self, fn: Takes[Failure, Coroutine[Any, Any, Failure | Exception]]
    ) -> Coroutine[Any, Any, Result[T_co]]: ...
    @overload
    def map_error(self, fn: Takes[Failure, Failure | Exception]) -> Result[T_co]: ...
    def map_error(self, fn: Callable[..., Any]) -> Any:
        """Replace the failure by what `fn` makes of it: a Failure or an exception.

        Example:
            >>> import anabranch as ab
            >>> failed = ab.Result.try_(int, "x")
            >>> failed.map_error(lambda failure: failure.replace(code="no.number")).error.code
            'no.number'
        """

        def replace(made: object) -> Result[Any]:
            assert isinstance(self, Err)  # noqa: S101 - for the type
            return Err(mapped(self.error, made))

        return self._with_failure("map_error", fn, replace)

    @abstractmethod
    def unwrap(self) -> T_co:
        """Return the value; what it carries is released, or handed on, as by `commit_blocking`.

        Raises:
            Exception: That of the `Err`; a ResultError if its code is not the exception's own.

        Example:
            >>> import anabranch as ab
            >>> ab.Ok(7).unwrap()
            7
        """

    def unwrap_or(self, default: U) -> T_co | U:
        """Return the value, as `unwrap`, or `default` for an `Err`.

        Example:
            >>> import anabranch as ab
            >>> ab.Err("stock.empty").unwrap_or(0)
            0
        """
        return self.unwrap() if isinstance(self, Ok) else default

    async def commit(self) -> Self:
        """Release what it carries, or hand it on, in the running loop; return itself.

        Finalizers run now, unless `ctx` takes them over. An `Err` carries nothing: what failed has
        been undone.
        """
        if self._ctx is not None:
            await self._ctx._keep()
        return self

    def commit_blocking(self) -> Self:
        """Release what it carries, or hand it on, in this thread; return itself."""
        if self._ctx is not None:
            self._ctx._keep_blocking()
        return self

    if not TYPE_CHECKING:  # they would want every Result to be awaited
        # A `def` may turn out to return a coroutine: `await result.map(...)` is right for an `Err`,
        # too, for which it is not called.
        def __await__(self) -> Generator[Any, None, Self]:
            """Return itself."""
            yield from ()
            return self

    # For the package.

    @abstractmethod
    def _land(self, ctx: Context) -> Any:  # noqa: ANN401 - a value
        """Return the value, or raise: where a call of the library's has got it."""

    def _with_value(
        self,
        verb: str,
        fn: Callable[..., Any],
        made: Callable[[Any], Result[Any]],
        *,
        argument: str = "fn",
    ) -> Any:  # noqa: ANN401 - a Result, or a coroutine that gives one
        value = value_of(self) if isinstance(self, Ok) else None
        part = act(fn, f"Result.{verb}", argument=argument, args=(value,), gives="the value")
        if isinstance(self, Ok):
            lost = self._lost()
            if lost is None:
                return self._call(part, made)
            return _itself(Err(lost)) if part.is_async else Err(lost)
        return _itself(self) if part.is_async else self

    def _lost(self) -> ClosedError | None:
        """Return what is to be told of an `Ok` whose effects were undone meanwhile."""
        if self._ctx is None or self._ctx._scope is None or not self._ctx._scope._undone:
            return None
        return ClosedError(
            f"what {self!r} stands on was undone: another call that went on from the same Result "
            "has failed; begin again with ab.Result.try_"
        )

    def _with_failure(
        self, verb: str, fn: Callable[..., Any], made: Callable[[Any], Result[Any]]
    ) -> Any:  # noqa: ANN401 - as above
        failure = self.error if isinstance(self, Err) else None
        part = act(fn, f"Result.{verb}", args=(failure,), gives="the failure")
        if isinstance(self, Err):
            return self._call(part, made)
        return _itself(self) if part.is_async else self

    def _same(self, _: object) -> Result[T_co]:
        return self

    def _call(self, part: Act, made: Callable[[Any], Result[Any]]) -> Any:  # noqa: ANN401 - as above
        """Call, and return the Result that is made of what it returns; or a coroutine for it."""
        ctx = self._so_far(part.name)
        one = child_of(ctx, part.name)
        if part.is_async:
            return self._awaited(part(one), ctx, one, made)
        if self._outer is not None:
            try:
                check(one)
            except Cancelled as cancelled:
                ctx._undo_blocking(cancelled)
                raise
        try:
            value = part(one)
            if inspect.isawaitable(value) and not isinstance(value, Result):
                return self._awaited(value, ctx, one, made)
            result = made(value)
            failed = result if isinstance(result, Err) else None
        except Exception as error:  # noqa: BLE001 - that is what an Err is
            result = failed = Err(error)
        except BaseException as error:
            one._undo_blocking(error)
            ctx._undo_blocking(error)
            raise
        if failed is None:
            return self._passed(result, ctx, one)
        one._undo_blocking(failed.error.error)
        ctx._undo_blocking(failed.error.error)
        return self._failed(failed)

    async def _awaited(
        self, value: Awaitable[Any], ctx: Context, one: Context, made: Callable[[Any], Result[Any]]
    ) -> Result[Any]:
        me = stepped()
        try:
            if self._outer is None:
                result = await _outcome(value, made)
            else:
                result = await _watched(value, made, one)
        except BaseException as error:
            if not isinstance(error, GeneratorExit) or is_stepped(me):
                await one._undo(error)
                await ctx._undo(error)
            raise
        if not isinstance(result, Err):
            return self._passed(result, ctx, one)
        await one._undo(result.error.error)
        await ctx._undo(result.error.error)
        return self._failed(result)

    def _so_far(self, name: str) -> Context:
        """Return the context of the calls so far, or of the first one of those to come."""
        ctx, outer = self._ctx, self._outer
        if ctx is None or ctx._ended or (outer is not None and has_ended(outer)):
            return begun(outer, name)
        return ctx

    def _passed(self, result: Result[Any], ctx: Context, one: Context) -> Result[Any]:
        one._hand_over()
        brought = result._ctx
        if brought is not None and brought is not ctx and brought._scope is not None:
            ctx._take(brought._scope)
        outer = self._outer
        if ctx._scope is not None and outer is not None and not isinstance(outer, _core.Context):
            outer._carry(ctx._scope)
        passed = Ok(value_of(result))
        passed._ctx, passed._outer = ctx, self._outer
        return passed

    def _failed(self, result: Err) -> Err:
        failed = Err(result.error)
        failed._outer = self._outer
        return failed


class Ok(Result[T_co]):
    """A call that succeeded, and what it returned.

    Args:
        value: What it returned.

    Example:
        >>> import anabranch as ab
        >>> ab.Ok(7).value
        7
    """

    __slots__ = ("_value",)
    __match_args__ = ("value",)

    def __init__(self, value: T_co) -> None:
        self._ctx = None
        self._outer = None
        self._value = value

    @property
    def value(self) -> T_co:
        """What the call returned."""
        return self._value

    def unwrap(self) -> T_co:
        """Return the value; what it carries is released, or handed on."""
        lost = self._lost()
        if lost is not None:
            raise lost
        if self._ctx is not None:
            self._ctx._keep_blocking()
        return self._value

    def _land(self, ctx: Context) -> T_co:
        if self._ctx is not None and self._ctx._scope is not None:
            ctx._take(self._ctx._scope)
        return self._value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ok) and bool(self._value == cast("Ok[object]", other)._value)

    def __hash__(self) -> int:
        return hash((Ok, cast("object", self._value)))

    def __repr__(self) -> str:
        return f"Ok({self._value!r})"


class Err(Result[Never]):
    """A call that failed, and how.

    Two that were made of a code, without a cause, are equal if code, message and metadata are;
    others if they are of the same failure.

    Args:
        error: The failure; or an Exception; or a code of your own.
        message: What happened, for a code.
        metadata: What is known besides, for a code.
        cause: The exception it came from, for a code.

    Raises:
        ConfigError: An argument is not allowed, e.g. a code of the library's own.

    Example:
        >>> import anabranch as ab
        >>> err = ab.Err("stock.empty", "no book left", metadata={"title": "Emma"})
        >>> err.error.code, err.error.message, dict(err.error.metadata)
        ('stock.empty', 'no book left', {'title': 'Emma'})
    """

    __slots__ = ("_error",)
    __match_args__ = ("error",)

    def __init__(
        self,
        error: Failure | Exception | str,
        message: str = "",
        *,
        metadata: Mapping[str, object] | None = None,
        cause: BaseException | None = None,
    ) -> None:
        self._ctx = None
        self._outer = None
        if isinstance(error, str):
            _check_code(error, "Err")
            _check_details(message, metadata, cause)
            made = ResultError(message or error, code=error, metadata=metadata or {})
            made.__cause__ = cause
            error = made
        elif message or metadata is not None or cause is not None:
            raise refused("error", error, "a code where there is a message", subject="Err")
        if isinstance(error, Exception):
            error = Failure.of(error)
        if not isinstance(cast("object", error), Failure):
            raise refused("error", error, "a Failure, an Exception or a code", subject="Err")
        self._error = error

    @property
    def error(self) -> Failure:
        """How the call failed."""
        return self._error

    def unwrap(self) -> Never:
        """Raise the exception."""
        raise self._exception()

    def _land(self, ctx: Context) -> Never:  # noqa: ARG002 - as its base
        raise self._exception()

    def _exception(self) -> BaseException:
        failure = self._error
        if code_of(failure.error) == failure.code:
            return failure.error
        # `map_error` has given it another code.
        error = ResultError(failure.message, code=failure.code, metadata=failure.metadata)
        error.__cause__ = failure.error
        return error

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Err):
            return False
        mine, its = self._error, other._error
        if not (_is_of_code(mine) and _is_of_code(its)):
            return mine == its
        said = (mine.code, mine.message, mine.metadata)
        return bool(said == (its.code, its.message, its.metadata))

    def __hash__(self) -> int:
        return hash((Err, self._error.code, self._error.message))

    def __repr__(self) -> str:
        return f"Err({self._error.code!r}, {self._error.message!r})"


def _is_of_code(failure: Failure) -> bool:
    """Return whether a failure was made of a code: there is nothing behind its exception."""
    return type(failure.error) is ResultError and failure.error.__cause__ is None


def is_result(value: object) -> TypeGuard[Result[Any]]:
    """Return whether `value` is a Result."""
    return isinstance(value, Result)


def value_of(result: Result[T]) -> T:
    """Return the value of an `Ok`."""
    assert isinstance(result, Ok)  # noqa: S101 - for the type
    value: T = result.value
    return value


def _begin(ctx: Context | None) -> Result[Any]:
    first = Ok(None)
    first._outer = ctx
    return first


async def _outcome(value: Awaitable[Any], made: Callable[[Any], Result[Any]]) -> Result[Any]:
    try:
        return made(await value)
    except Exception as error:  # noqa: BLE001 - that is what an Err is
        return Err(error)


async def _watched(
    value: Awaitable[Any], made: Callable[[Any], Result[Any]], ctx: Context
) -> Result[Any]:
    try:
        async with Watch(ctx):
            return await _outcome(value, made)
    finally:
        if inspect.iscoroutine(value):
            value.close()  # it has not begun if `ctx` was cancelled before
    raise AssertionError(ctx)  # a Watch swallows nothing


def _wrapped(value: object) -> Result[Any]:
    return value if is_result(value) else Ok(value)


async def _itself(result: Result[T]) -> Result[T]:
    return result


def _check_details(message: object, metadata: object, cause: object) -> None:
    if not isinstance(message, str):
        raise refused("message", message, "a str", subject="Err")
    if metadata is not None and not isinstance(metadata, Mapping):
        raise refused("metadata", metadata, "a mapping or None", subject="Err")
    if cause is not None and not isinstance(cause, BaseException):
        raise refused("cause", cause, "an exception or None", subject="Err")


def _check_code(code: object, subject: str, *, but: str | None = None) -> None:
    if not is_code(code) or (code in CODES and code != but):
        allowed = "a code of your own: a str that is not one of ab.CODES"
        raise refused("code", code, allowed, subject=subject)


# There can be none before: generated passes look for them from here on.
loaded(Ok, Err)
