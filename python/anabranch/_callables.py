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
from anabranch.tailing import Tail

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
    alone: bool = False,
) -> Call:
    """Find out how `fn` is to be called.

    Args:
        fn: What the user passed.
        pipeline: The pipeline's name, for the error.
        stage: The stage's name, for the error.
        argument: The argument's name, for the error.
        generates: Whether it may be a generator function: one call, any number of results.
        takes: What it is called with, for the error.
        alone: Whether it is given no `ctx`.

    Raises:
        ConfigError: It cannot be called with one item, and perhaps `ctx`; or it is a generator
            function where the generator would be of no use.
    """
    refuse = functools.partial(refused, argument, fn, pipeline=pipeline, stage=stage)
    if not callable(fn):
        raise refuse(f"a callable that takes {takes}")
    if not generates and yields(fn):
        allowed = "a function that returns (only flat_map takes one that yields)"
        raise refuse(allowed, shown=_shown(fn))
    try:
        takes_ctx = _takes_ctx(fn)
    except TypeError as error:
        allowed = f"a callable that takes {takes}{'' if alone else ', then perhaps ctx'} ({error})"
        raise refuse(allowed, shown=_shown(fn)) from None
    if takes_ctx and alone:
        raise refuse(f"a callable that takes {takes} alone, without ctx", shown=_shown(fn))
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


def yields(fn: Callable[..., Any]) -> bool:
    """Return whether calling `fn` gives a generator, of either kind, which nothing begins."""
    code = getattr(getattr(fn, "__func__", fn), "__code__", None)
    if code is not None:
        return bool(code.co_flags & (inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR))
    return _is(inspect.isgeneratorfunction, fn) or is_async_generator(fn)


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


# More arguments than anybody passes: for a callable that takes any number.
_ANY: Final = 1 << 31


def examine_action(fn: Callable[..., Any]) -> tuple[str, bool, bool, int, int]:
    """Return what `examine_undo` does, and how many arguments must and may be passed by position.

    `ctx` is not counted. More must be than may where it cannot be called by position at all.
    """
    if yields(fn):
        allowed = "a def or async def: nothing would begin a generator"
        raise refused("fn", fn, allowed, subject="compensate", shown=name_of(fn))
    label, awaits, takes_ctx = examine_undo(fn)
    return label, awaits, takes_ctx, *_takes(fn, takes_ctx=takes_ctx)


def _takes(fn: Callable[..., Any], *, takes_ctx: bool) -> tuple[int, int]:
    if isinstance(fn, _OPAQUE):
        return 0, _ANY
    if isinstance(fn, functools.partial):
        inner = _takes(fn.func, takes_ctx=takes_ctx)
        return _takes_still(inner, len(fn.args), len(fn.keywords))
    plain = getattr(fn, "__func__", fn)
    if type(plain) is not types.FunctionType or hasattr(plain, "__wrapped__"):
        return _takes_by_signature(fn, takes_ctx=takes_ctx)
    code = plain.__code__
    count = code.co_argcount
    last = count + code.co_kwonlyargcount
    needed = count - len(plain.__defaults__ or ())
    named = code.co_varnames[count:last]
    optional = plain.__kwdefaults__ or {}
    if any(name not in optional and not (takes_ctx and name == "ctx") for name in named):
        return _ANY, 0
    if takes_ctx and "ctx" in code.co_varnames[:count]:
        # By name: what stands behind it cannot be passed by position.
        place = code.co_varnames.index("ctx")
        if needed > place + 1:
            return _ANY, 0
        count, needed = place, min(needed, place)
    elif code.co_flags & inspect.CO_VARARGS:
        count = _ANY
    own = int(plain is not fn)
    return max(0, needed - own), count if count == _ANY else count - own


def _takes_still(inner: tuple[int, int], passed: int, named: int) -> tuple[int, int]:
    """Return what is left of what a function takes when a partial passes some of it."""
    least, most = inner
    if named:
        # They may stand for what is needed; too many are too many all the same.
        least, most = (0, _ANY) if least > most else (least - named, most)
    if passed > most:
        return _ANY, 0
    return max(0, least - passed), most if most == _ANY else most - passed


def _takes_by_signature(fn: Callable[..., Any], *, takes_ctx: bool) -> tuple[int, int]:
    signature = _signature(fn, follow_wrapped=False)
    if signature is None:
        return 0, _ANY
    least = most = 0
    for one in signature.parameters.values():
        if one.kind is one.VAR_POSITIONAL:
            most = _ANY
        elif one.kind is one.VAR_KEYWORD or (takes_ctx and one.name == "ctx"):
            continue
        elif one.kind is one.KEYWORD_ONLY:
            if one.default is one.empty:
                return _ANY, 0
        else:
            most += 1
            least += one.default is one.empty
    return least, min(most, _ANY)


def why_not(fn: Callable[..., Any], *args: object, takes_ctx: bool = False) -> str | None:
    """Return why `fn` cannot be called so; None if it can, or if nobody knows."""
    signature = _signature(fn, follow_wrapped=False)
    if signature is None:  # a builtin
        return None
    try:
        signature.bind(*args, **({"ctx": None} if takes_ctx else {}))
    except TypeError as error:
        return str(error)
    return None


def check_def(
    fn: object,
    *args: object,
    argument: str,
    allowed: str,
    pipeline: str | None = None,
    stage: str | None = None,
    subject: str = "pipeline",
) -> None:
    """See that `fn` is a `def` that can be called with `args`.

    Args:
        fn: What the user passed.
        args: As many as it will be given.
        argument: The argument's name, for the error.
        allowed: What may be passed, for the error.
        pipeline: The pipeline's name, for the error.
        stage: The stage's name, for the error.
        subject: What is being configured where there is no pipeline.

    Raises:
        ConfigError: It is none.
    """
    shown = why = None
    if callable(fn):
        shown, why = _shown(fn), why_not(fn, *args)
        if is_async(fn) or is_async_generator(fn):
            why = "it is an async def"
        elif _is(inspect.isgeneratorfunction, fn):
            why = "it yields"
        if why is None:
            return
    because = "" if why is None else f" ({why})"
    place = {"pipeline": pipeline, "stage": stage, "subject": subject}
    raise refused(argument, fn, allowed + because, shown=shown, **place)  # type: ignore[arg-type]  # as declared


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
    # Here: its policy needs this module.
    from anabranch.tcp import TcpClient

    if isinstance(source, TcpLines | TcpClient | Tail):
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
