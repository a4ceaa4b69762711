"""Writing a generated function: its lines, the names in it, and how it meets Results.

It is compiled from source that tracebacks can show; `anabranch._pass` and `anabranch._weave` tell
what is written, and why it is.
"""

from __future__ import annotations

import asyncio
import keyword
import linecache
import re
import zlib
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias, TypeVar, cast

from anabranch import _landing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FunctionType

    class Made(Protocol):
        """What is written: a loop, or a woven pass."""

        @property
        def function(self) -> Callable[..., Any]: ...


Form = TypeVar("Form", bound="Made")
# What a generated loop is called with.
PARAMETERS = (
    "chunk",
    "out",
    "at",
    "keys",
    "failed",
    "tally",
    "context",
    "refusing",
    "taken",
    "watched",
)
_landing.UNTRUE.update((asyncio.Future, asyncio.Task))
# Globals of every pass, and a variable, for Results and what is not awaited.
_LANDING: Final[dict[str, object]] = {
    "results": _landing.RESULTS,
    "land": _landing.land,
    "unplain": _landing.UNPLAIN,
    "plain": _landing.plain,
    "untrue": _landing.UNTRUE,
    "true": _landing.true,
    "type": type,
}
# What looks at a value, and for which types.
Look: TypeAlias = Literal["land", "plain", "true"]
_LOOKS: Final[dict[Look, str]] = {"land": "results", "plain": "unplain", "true": "untrue"}
# What `Writer.landed` makes.
_LANDED = re.compile(
    r"\((?:land|plain|true)\(given\) if type\(given := (.*)\) in (?:results|unplain|untrue) "
    r"else given\)"
)
# Sources kept for tracebacks: those of the latest pipelines, however many a process makes.
_MOST_SOURCES = 256
_sources: OrderedDict[str, None] = OrderedDict()
_LOCALS = frozenset({*PARAMETERS, *_LANDING, "given", "error", "index", "key", "filtered", "len"})


@dataclass(slots=True)
class Writer:
    """Writes a generated function line by line.

    Attributes:
        tracked: Whether it is the tracked form.
        names: What its source may refer to.
        lines: The lines so far.
        stages: The stage number behind each line of a stage.
        routed: Whether the key has been found.
        values: The variables that hold what stages were given.
        inputs: Which of them each stage was given.
        depth: How many `flat_map`s enclose the next line.
        behind: Whether the fan-out comes before these stages.
        guards: Whether it is the guarded form.
        counts: Whether it notes what stages take out.
        sees: Whether it looks for Results, and what is not awaited, at each item.
        first: Whether the lines are those for the first item, at which it always does.
    """

    tracked: bool
    names: dict[str, object] = field(default_factory=lambda: dict(_LANDING))
    lines: list[str] = field(default_factory=list[str])
    stages: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    values: Sequence[str] = ("v",)
    inputs: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    routed: bool = False
    depth: int = 0
    behind: bool = False
    guards: bool = False
    counts: bool = False
    sees: bool = False
    first: bool = False

    def begin(self, *, first: bool) -> None:
        """Begin the lines for the first item, or those for the others."""
        self.first = first
        self.inputs.clear()
        self.routed = False
        self.depth = 0

    def landed(self, expression: str, look: Look = "plain") -> str:
        """Return an expression for what is given, or for its value if it is an `Ok`.

        Args:
            expression: A call.
            look: "plain"; "true" where only the truth or the equality of the value counts; "land"
                for what was awaited.
        """
        if not self.sees and (look == "land" or not self.first):
            return expression
        return f"({look}(given) if type(given := {expression}) in {_LOOKS[look]} else given)"

    def land(self, indent: int, value: str) -> int:
        """Add a line that unwraps what is in a variable; return its number."""
        landing = f"if type({value}) in results: {value} = land({value})"
        self.line(indent, landing if self.sees else "# may be a Result")
        return len(self.lines)

    def line(self, indent: int, text: str, stage: int | None = None) -> None:
        """Add a line, which may be a stage's."""
        self.lines.append("    " * indent + text)
        if stage is not None:
            self.stages.append((len(self.lines), stage))

    def bind(self, value: object, name: str) -> str:
        """Give `value` a name of its own in the source, close to `name`."""
        base = re.sub(r"\W", "_", name) or "stage"
        if base[0].isdigit() or keyword.iskeyword(base) or base in _LOCALS or base[:1] == "v":
            base = f"stage_{base}"
        unique, number = base, 2
        while self.names.get(unique, value) is not value:
            unique, number = f"{base}_{number}", number + 1
        self.names[unique] = value
        return unique


def seeing(
    written: Callable[..., tuple[Form, Writer]], functions: Sequence[object]
) -> tuple[Form, Writer]:
    """Write a pass so that it looks for Results as soon as there can be any.

    Args:
        written: Writes it; told by `sees` whether it looks for them.
        functions: The callables in it.
    """
    if _landing.expected(functions):
        return written(sees=True)
    blind = written(sees=False)
    function = cast("FunctionType", blind[0].function)
    _landing.attend(function, lambda: written(sees=True)[0].function.__code__)
    return blind


def function_name(pipeline: str) -> str:
    """Return what a generated function of `pipeline` is called."""
    name = re.sub(r"\W", "_", pipeline)
    return f"pass_of_{name}"


def compiled(pipeline: str, source: str, names: dict[str, Any]) -> FunctionType:
    """Compile a generated function, and let tracebacks show its source."""
    # The same source has the same name, so that running a pipeline again and again adds nothing.
    checksum = zlib.crc32(source.encode())
    filename = f"<anabranch: generated for pipeline {pipeline!r}, {checksum:08x}>"
    namespace = dict(names)
    exec(compile(source, filename, "exec"), namespace)  # noqa: S102 - our own source
    # Without an entry here tracebacks through the pass would show no source line.
    # It shows what people have written, not what is wrapped around it.
    shown = _LANDED.sub(r"\1", source)
    linecache.cache[filename] = (len(shown), None, shown.splitlines(keepends=True), filename)
    function: FunctionType = namespace[function_name(pipeline)]
    _sources[filename] = None
    _sources.move_to_end(filename)
    if len(_sources) > _MOST_SOURCES:
        linecache.cache.pop(_sources.popitem(last=False)[0], None)
    return function
