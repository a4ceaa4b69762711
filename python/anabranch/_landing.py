"""Results among what callables give: an `Ok` goes on as its value, an `Err` is a failure.

To look at each value between two callables would cost a generated pass 5 to 9 % of its
instructions. So there are two forms of each, the same line for line: one that looks, and a blind
one for as long as no code that is loaded can make a Result. Once `anabranch.result` is loaded, the
blind ones are given the code of the others, from their next chunk on. Inside a blind pass it is
not loaded by name: what came of that could not be seen.

A coroutine that a `def` returns, because a decorator or a lambda hides an `async def`, is looked
for in the same places: nothing would await it, the item would be gone, and a filter would keep all.
A `def` that does so does it always, or nearly: so blind forms look at the first item of each chunk,
and at the first one behind each failure. All that such a `def` is given fails.
"""

from __future__ import annotations

import importlib
import linecache
import re
import sys
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final, cast
from weakref import WeakKeyDictionary, WeakSet

from anabranch import _core
from anabranch.errors import ConfigError, NotAwaited

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import CodeType, FunctionType

RESULTS: Final[set[type]] = set()
"""The types of Results; empty as long as there can be none."""

UNPLAIN: Final[set[type[Any]]] = {CoroutineType}
"""The types of what is not yet what a callable gives: Results, and what it does not await."""

UNTRUE: Final[set[type[Any]]] = {CoroutineType}
"""The same where only its truth, or its equality, counts: a Future is true whatever comes of it.

Those of asyncio join with the first pass that is written: importing the package must not load it.
"""

_MENTIONS: Final = re.compile(r"\b(?:Ok|Err|Result)\b")
# What writes the other form of each blind pass.
_dormant: WeakKeyDictionary[FunctionType, Callable[[], CodeType]] = WeakKeyDictionary()
_blind: WeakSet[CodeType] = WeakSet()
# Modules that do not mention Results.
_known: set[str] = set()


def land(value: Any) -> Any:  # noqa: ANN401 - any value
    """Return the value of an `Ok`, which is unwrapped; raise the exception of an `Err`."""
    while type(value) in RESULTS:
        value = value.unwrap()
    return value


def plain(value: object, unplain: set[type[Any]] = UNPLAIN) -> Any:  # noqa: ANN401 - any value
    """Return what `land` does; raise NotAwaited for what only awaiting makes a value of."""
    kind = type(value)
    if kind not in unplain:
        return value
    if kind in RESULTS:
        return plain(land(value), unplain)
    name = getattr(value, "__qualname__", kind.__name__)
    if isinstance(value, CoroutineType):
        # Or Python would complain, too.
        value.close()
    raise NotAwaited(
        f"the callable is a def, and has returned an awaitable ({name}) that nothing here awaits: "
        "pass the async def itself, or wrap it: async def call(item): return await fn(item)"
    )


def true(value: Any) -> Any:  # noqa: ANN401 - any value
    """Return what `plain` does, where only the truth or the equality of the value counts."""
    return plain(value, UNTRUE)


def expected(functions: Iterable[object]) -> bool:
    """Return whether Results may come of these callables, or of what they call.

    That is, whether a module that is loaded mentions them: then they are loaded, too.
    """
    if not RESULTS and any(map(_mentions, _suspects(functions))):
        importlib.import_module("anabranch.result")
    return bool(RESULTS)


def attend(function: FunctionType, seeing: Callable[[], CodeType]) -> None:
    """Give a blind pass what `seeing` makes as soon as there can be Results."""
    _blind.add(function.__code__)
    _dormant[function] = seeing
    if RESULTS:  # loaded meanwhile, by another thread
        _awaken()


def loaded(*types: type) -> None:
    """There can be Results from now on: of these types."""
    _core.results(types, land)
    for known in (RESULTS, UNPLAIN, UNTRUE):
        known.update(types)
    _awaken()


def admit(name: str) -> None:
    """Raise if `name` of the package is asked for inside a pass that does not look for Results."""
    frame = sys._getframe(1) if _blind else None  # noqa: SLF001 - the one way to see who asks
    while frame is not None:
        if frame.f_code in _blind:
            raise ConfigError(
                f"anabranch.{name} is asked for inside a callable of a pipeline that began when no "
                f"loaded module mentioned it: write `from anabranch import {name}` where the "
                "module begins"
            )
        frame = frame.f_back


def _awaken() -> None:
    while _dormant:
        function, seeing = _dormant.popitem()
        function.__code__ = seeing()


def _suspects(functions: Iterable[object]) -> Iterator[tuple[str | None, dict[str, Any]]]:
    """Return the names and the globals of what may make Results."""
    for function in functions:
        code = _function_of(function)
        if code is not None:
            yield None, code.__globals__
    package = sys.modules["anabranch"]
    for name in sys.modules.keys() - _known:
        module = sys.modules.get(name)
        names: dict[str, Any] = getattr(module, "__dict__", {})
        its = name.split(".", 1)[0] == "anabranch"
        if not its and (names.get("ab") is package or names.get("anabranch") is package):
            yield name, names
        elif name != "__main__":
            _known.add(name)


def _function_of(function: Any) -> Callable[..., Any] | None:  # noqa: ANN401 - any callable
    while not hasattr(function, "__globals__"):
        for inner in ("func", "__func__", "__wrapped__"):
            if hasattr(function, inner):
                function = getattr(function, inner)
                break
        else:
            call = getattr(cast("object", type(function)), "__call__", None)  # noqa: B004 - itself
            return call if hasattr(call, "__globals__") else None
    found: Callable[..., Any] = function
    return found


def _mentions(suspect: tuple[str | None, dict[str, Any]]) -> bool:
    name, names = suspect
    own = names.get("__name__")
    if isinstance(own, str) and (own in _known or own.split(".", 1)[0] == "anabranch"):
        return False
    file = names.get("__file__")
    lines = linecache.getlines(file) if isinstance(file, str) else []
    # Without a source anything may come.
    if not lines or any(map(_MENTIONS.search, lines)):
        return True
    if name is not None and name != "__main__":
        _known.add(name)
    return False
