"""What users hand to the builder, found out once: callables, and what can be a source."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias, TypeVar

from anabranch.channel import Channel
from anabranch.errors import refused
from anabranch.sources import TcpLines

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from anabranch.context import Context

    How: TypeAlias = Literal["sequence", "iterable", "async", "channel", "native"]

ItemT = TypeVar("ItemT", contravariant=True)  # noqa: PLC0105 - the names are shown by editors
ResultT = TypeVar("ResultT", covariant=True)  # noqa: PLC0105 - as above


class WithCtx(Protocol[ItemT, ResultT]):
    """A callable that takes the item and, by the name `ctx`, the Context."""

    def __call__(self, item: ItemT, /, *, ctx: Context) -> ResultT: ...


@dataclass(frozen=True, slots=True)
class Call:
    """A callable, and how to call it: `fn(item)`, or `fn(item, ctx=ctx)` if `takes_ctx`."""

    fn: Callable[..., Any]
    is_async: bool
    takes_ctx: bool


def examine(
    fn: object,
    *,
    pipeline: str,
    stage: str,
    argument: str = "fn",
    generates: bool = False,
    takes: str = "the item",
) -> Call:
    """Find out how `fn` is to be called.

    Args:
        fn: What the user passed.
        pipeline: The pipeline's name, for the error.
        stage: The stage's name, for the error.
        argument: The argument's name, for the error.
        generates: Whether it may be a generator function: one call, any number of results.
        takes: What it is called with, for the error.

    Raises:
        ConfigError: It cannot be called with one item, and perhaps `ctx`; or it is a generator
            function where the generator would be of no use.
    """
    refuse = functools.partial(refused, argument, fn, pipeline=pipeline, stage=stage)
    if not callable(fn):
        raise refuse(f"a callable that takes {takes}")
    if not generates and (_is(inspect.isgeneratorfunction, fn) or is_async_generator(fn)):
        allowed = "a function that returns (only flat_map takes one that yields)"
        raise refuse(allowed, shown=_shown(fn))
    try:
        takes_ctx = _takes_ctx(fn)
    except TypeError as error:
        allowed = f"a callable that takes {takes}, then perhaps ctx ({error})"
        raise refuse(allowed, shown=_shown(fn)) from None
    call = _by_position(fn) if takes_ctx and not _binds(fn, ctx=None) else fn
    if is_async_generator(fn):
        call = _gathered(call)
    return Call(call, is_async(fn) or is_async_generator(fn), takes_ctx)


def is_async(fn: object) -> bool:
    """Return whether calling `fn` gives a coroutine.

    An `async def`, a bound method of that kind, a `functools.partial` of one, an object whose
    `__call__` is one.
    """
    return _is(inspect.iscoroutinefunction, fn)


def is_async_generator(fn: object) -> bool:
    """Return whether calling `fn` gives an async generator; the same forms as for `is_async`."""
    return _is(inspect.isasyncgenfunction, fn)


# What is not looked into. A tuple: a union would be made anew at each call.
_OPAQUE: Final = (types.BuiltinFunctionType, types.MethodWrapperType, type)


def examine_undo(fn: Callable[..., Any]) -> tuple[str, bool, bool]:
    """Return an undo action's name, whether it is async, and whether it takes `ctx`.

    Called once per registration, so a plain function, or a method, is only looked at.
    """
    if isinstance(fn, _OPAQUE):
        return fn.__name__, False, False
    if isinstance(fn, functools.partial):
        label, awaits, takes_ctx = examine_undo(fn.func)
        return label, awaits, takes_ctx and "ctx" not in fn.keywords
    plain = getattr(fn, "__func__", fn)
    code = getattr(plain, "__code__", None)
    if code is None or hasattr(plain, "__wrapped__"):
        named = _signature(fn)
        ctx = None if named is None else named.parameters.get("ctx")
        by_name = ctx is not None and ctx.kind in (ctx.POSITIONAL_OR_KEYWORD, ctx.KEYWORD_ONLY)
        return name_of(fn), is_async(fn), by_name and not _has_own(fn)
    first, last = code.co_posonlyargcount, code.co_argcount + code.co_kwonlyargcount
    takes_ctx = first < last and "ctx" in code.co_varnames[first:last]
    return name_of(plain), bool(code.co_flags & inspect.CO_COROUTINE), takes_ctx


def name_of(fn: object, *, otherwise: str | None = None) -> str:
    """Return what to call a callable, a source or a target: its own name, or its type's.

    Args:
        fn: The callable or source.
        otherwise: What to call something that cannot be called, if not by its type's name.
    """
    if otherwise is not None and not callable(fn):
        return otherwise
    while isinstance(fn, functools.partial):
        fn = fn.func
    name = getattr(fn, "name" if issubclass(type(fn), Channel) else "__name__", None)
    if not isinstance(name, str):
        name = type(fn).__name__
    return "lambda" if name == "<lambda>" else name


def source_kind(source: object, *, pipeline: str, stage: str) -> How:
    """Find out how to take items from `source`.

    Raises:
        ConfigError: It gives no items; or it would give parts of what surely was meant to be one.
    """
    if isinstance(source, TcpLines):
        return "native"
    if isinstance(source, Channel):
        return "channel"
    hint = _mistaken(source)
    if hint is not None:
        allowed = f"an iterable or async iterable of items ({hint})"
        raise refused("src", source, allowed, pipeline=pipeline, stage=stage)
    kind = type(source)
    # A subclass may iterate in a way of its own: then its items are not its slots.
    if getattr(kind, "__iter__", None) in (vars(list)["__iter__"], vars(tuple)["__iter__"]):
        return "sequence"
    if hasattr(kind, "__aiter__"):
        return "async"
    return "iterable"


def check_target(target: object, *, pipeline: str, stage: str) -> None:
    """Find out whether units can be sent to `target`.

    Raises:
        ConfigError: It is no channel.
    """
    if not isinstance(target, Channel):
        raise refused("channel", target, "a Channel", pipeline=pipeline, stage=stage)


def _mistaken(source: object) -> str | None:
    """Return what to do about something that cannot, or should not, be a source."""
    if isinstance(source, str | bytes | bytearray | memoryview):
        return "for its lines pass text.splitlines(), for a file an open file, for one item [item]"
    if isinstance(source, Mapping):
        return "a mapping gives only its keys: pass d.values(), d.items() or list(d)"
    kind = type(source)
    if any(hasattr(kind, name) for name in ("__aiter__", "__iter__", "__getitem__")):
        return None
    if inspect.isawaitable(source):
        return "await it first"
    if callable(source):
        return f"call it: {name_of(source)}()"
    return "or ab.tcp_lines(...)"


def _is(test: Callable[[object], bool], fn: object) -> bool:
    while isinstance(fn, functools.partial):
        fn = fn.func
    # The type's: what an instance has under this name is not what a call runs.
    return test(fn) or test(getattr(type(fn), "__call__", None))  # noqa: B004 - not asking whether


def _takes_ctx(fn: Callable[..., Any]) -> bool:
    """Return whether to pass `ctx`.

    Raises:
        TypeError: `fn` cannot be called with one item; the message tells why.
    """
    named = _signature(fn)
    if named is None:  # a builtin
        return False
    ctx = named.parameters.get("ctx")
    if ctx is not None and (ctx.kind in (ctx.VAR_POSITIONAL, ctx.VAR_KEYWORD) or _has_own(fn)):
        ctx = None
    if ctx is not None and ctx.kind is not ctx.KEYWORD_ONLY:
        place = list(named.parameters).index("ctx")
        if place == 0:
            message = "its first parameter, ctx, would get the item"
            raise TypeError(message)
        if place == 1 and ctx.kind is ctx.POSITIONAL_ONLY and _binds(fn, None):
            return True
    if ctx is not None and _binds(fn, ctx=None):
        return True
    # A decorator may hide ctx, and pass its own.
    outside = _signature(fn, follow_wrapped=False)
    if outside is not None:
        outside.bind(None)
    return False


def _has_own(fn: object) -> bool:
    """Return whether the user has passed a `ctx` of their own."""
    return isinstance(fn, functools.partial) and "ctx" in fn.keywords


def _binds(fn: Callable[..., Any], *more: object, **named: object) -> bool:
    """Return whether `fn(item, *more, **named)` is a possible call."""
    # As it can be called from outside, whatever it wraps.
    signature = _signature(fn, follow_wrapped=False)
    if signature is None:
        return False
    try:
        signature.bind(None, *more, **named)
    except TypeError:
        return False
    return True


def _signature(fn: Callable[..., Any], *, follow_wrapped: bool = True) -> inspect.Signature | None:
    try:
        return inspect.signature(fn, follow_wrapped=follow_wrapped)
    except (TypeError, ValueError):
        return None


def _by_position(fn: Callable[..., Any]) -> Callable[..., Any]:
    def call(item: object, *, ctx: Context) -> object:
        return fn(item, ctx)

    return call


def _gathered(fn: Callable[..., Any]) -> Callable[..., Awaitable[list[Any]]]:
    """Make an async generator function one that returns a list: all of its results, or none."""

    async def call(item: object, **ctx: Context) -> list[Any]:
        return [result async for result in fn(item, **ctx)]

    return call


def _shown(fn: Callable[..., Any]) -> str:
    return f"{name_of(fn)}{_signature(fn) or '(...)'}"
