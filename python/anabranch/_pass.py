"""Generated passes: the synchronous callables in front of a leg, fused into one Python loop.

A call from one Python function to another inside a generated loop costs less than a call out of
Rust, so the loop over a chunk is Python, made once per pipeline, and everything else is Rust. The
rules it is written by:

- one source line per stage, so that the line of an exception names its stage, and tracebacks show
  it (the source is registered with `linecache`);
- the iterator is held by the caller: after an exception the loop goes on with the next item;
- what is behind a `flat_map` has a `try` of its own: a failing child does not cost its siblings;
- the `tracked` form also says which input each output came from, at some 30 ns per item: it is
  made only where somebody asks;
- the `guarded` form asks of each key whether its branch refuses what comes, before the stages
  behind the fan-out are called. It is used only while some branch does;
- each is written twice: `blind`, and, the same line for line, with a look at each value that may
  be a Result (see `anabranch._landing`);
- a `counted` pass also notes what a stage behind the fan-out took out, once something has failed:
  for a branch's streak of failures that is a success.
"""

from __future__ import annotations

import keyword
import linecache
import re
import zlib
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from anabranch import _landing
from anabranch.keys import AttrKey, ItemKey

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FunctionType

    from anabranch._stages import Stage

    class Made(Protocol):
        """What is written: a loop, or a woven pass."""

        @property
        def function(self) -> Callable[..., Any]: ...


Form = TypeVar("Form", bound="Made")

_PARAMETERS = (
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
# Globals of every pass, and a variable, for Results.
LANDING = {"results": _landing.RESULTS, "land": _landing.land, "type": type}
# What `Writer.landed` makes.
_LANDED = re.compile(r"\(land\(given\) if type\(given := (.*)\) in results else given\)")
# Sources kept for tracebacks: those of the latest pipelines, however many a process makes.
_MOST_SOURCES = 256
_sources: OrderedDict[str, None] = OrderedDict()
_LOCALS = frozenset({*_PARAMETERS, *LANDING, "given", "error", "index", "key", "filtered", "len"})


@dataclass(frozen=True, slots=True)
class Loop:
    """One form of a generated pass.

    Attributes:
        function: The loop; called with the parameters in the order of `_PARAMETERS`.
        lines: The stage number behind each line of the source.
        source: The source, for people.
    """

    function: Callable[..., None]
    lines: list[tuple[int, int]]
    source: str


@dataclass(frozen=True, slots=True)
class Pass:
    """A generated pass, as the extension takes it.

    Attributes:
        loop: What runs.
        guarded: What runs instead while some branch refuses what comes: it lists such items among
            the failures, with None as their error. None where no stage stands behind the fan-out.
        tracked: Whether it fills `at` with the input of each output; it is then given an
            `enumerate` of the chunk.
        keyed: Whether it fills `keys` with the key of each output.
        grows: Whether it counts the items made beyond one for one: in `tally[0]`, or, tracked, as
            a list of (input, count).
        counted: Whether it fills `taken` with what its stages behind the fan-out took out: the
            number of failures before it, its key and its input. It does so from the first failure
            on, and from the start if it is `watched`.
        routed_from: The first stage number behind the fan-out.
        inputs: Which of the values listed with a failure each stage was given.
    """

    loop: Loop
    guarded: Loop | None
    tracked: bool
    keyed: bool
    grows: bool
    counted: bool
    routed_from: int
    inputs: list[tuple[int, int]]


@dataclass(slots=True)
class Writer:
    """Writes a generated function line by line.

    Attributes:
        names: What its source may refer to.
        tracked: Whether it is the tracked form.
        lines: The lines so far.
        stages: The stage number behind each line of a stage.
        routed: Whether the key has been found.
        values: The variables that hold what stages were given.
        inputs: Which of them each stage was given.
        depth: How many `flat_map`s enclose the next line.
        behind: Whether the fan-out comes before these stages.
        guards: Whether it is the guarded form.
        counts: Whether it notes what stages take out.
        sees: Whether it looks for Results.
    """

    names: dict[str, object]
    tracked: bool
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

    def landed(self, expression: str) -> str:
        """Return an expression for what is given, or for its value if it is an `Ok`."""
        if not self.sees:
            return expression
        return f"(land(given) if type(given := {expression}) in results else given)"

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
        while unique in self.names:
            unique, number = f"{base}_{number}", number + 1
        self.names[unique] = value
        return unique


def generate(
    pipeline: str,
    stages: Sequence[tuple[int, Stage]],
    *,
    tracked: bool,
    last_stage: int,
    natively: bool = True,
    counted: bool = False,
    behind: bool = False,
) -> Pass | None:
    """Generate the pass for these stages; None if there is nothing to call.

    Args:
        pipeline: The pipeline's name, for tracebacks.
        stages: Synchronous stages with their numbers, perhaps one `fan_out` among them.
        tracked: Whether outputs must know their inputs.
        last_stage: The number of the stage the pass leads to.
        natively: Whether keys that need no Python are left to the extension, where they can be.
        counted: Whether branches count their failures.
        behind: Whether the fan-out comes before these stages.
    """
    position = next((at for at, (_, it) in enumerate(stages) if it.kind == "fan_out"), None)
    routed_from = last_stage + 1 if position is None else stages[position][0] + 1
    native = natively and position == len(stages) - 1 and stages[-1][1].fn is None
    if native:
        stages = stages[:-1]
    if not stages:
        return None
    keyed = position is not None and not native
    follows = position is not None and position < len(stages) - 1
    counted = counted and (behind or follows)

    def loop(*, guards: bool) -> tuple[Loop, Writer]:
        # What makes a value gives it a variable of its own: a failure lists them all.
        made = [f"v{number}" for number, stage in stages if stage.kind in ("map", "flat_map")]

        def written(*, sees: bool) -> tuple[Loop, Writer]:
            writer = Writer(
                dict(LANDING),
                tracked,
                values=("v", *made),
                behind=behind,
                guards=guards,
                counts=counted,
                sees=sees,
            )
            return _written(pipeline, stages, writer, keyed=keyed), writer

        return seeing(written, [stage.fn for _, stage in stages])

    plain, writer = loop(guards=False)
    return Pass(
        loop=plain,
        guarded=loop(guards=True)[0] if follows else None,
        tracked=tracked,
        keyed=keyed,
        grows=any(stage.kind == "flat_map" for _, stage in stages),
        counted=counted,
        routed_from=routed_from,
        inputs=writer.inputs,
    )


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


def _written(
    pipeline: str, stages: Sequence[tuple[int, Stage]], writer: Writer, *, keyed: bool
) -> Loop:
    tracked = writer.tracked
    writer.line(0, f"def {function_name(pipeline)}({', '.join(_PARAMETERS)}):")
    writer.line(1, f"{' = '.join(('key', *writer.values))} = None")
    counters = sum(1 for _, stage in stages if stage.kind == "flat_map")
    for number in range(counters):
        writer.line(1, f"n{number} = 0")
    writer.line(1, "while True:")
    writer.line(2, "try:")
    writer.line(3, f"for {'index, v' if tracked else 'v'} in chunk:")
    entry = writer.land(4, "v")
    _body(writer, stages, "v", 4, keyed=keyed)
    writer.line(3, "return")
    writer.line(2, "except Exception as error:")
    _caught(writer, 3, open_counter=0 if counters else None)
    source = "\n".join(writer.lines) + "\n"
    function = compiled(pipeline, source, writer.names)
    # Last: whoever asks where a pass is, without a line, means its first stage.
    before = stages[0][0] - 1
    writer.inputs.append((before, 0))
    return Loop(function=function, lines=[*writer.stages, (entry, before)], source=source)


def _body(
    writer: Writer, stages: Sequence[tuple[int, Stage]], value: str, indent: int, *, keyed: bool
) -> None:
    for at, (number, stage) in enumerate(stages):
        writer.inputs.append((number, writer.values.index(value)))
        if stage.kind == "fan_out":
            writer.line(indent, f"key = {_key(writer, stage, value, number)}", number)
            writer.routed = True
            if writer.guards:
                refused = _fail(writer, "None")
                writer.line(indent, f"if key in refusing: {refused}; continue", number)
            continue
        call = f"{writer.bind(stage.fn, stage.name)}({value}{_context(writer, stage, number)})"
        call = writer.landed(call)
        if stage.kind == "map":
            value = f"v{number}"
            writer.line(indent, f"{value} = {call}", number)
        elif stage.kind == "filter":
            if _notes(writer):
                writer.line(indent, f"if not {call}:", number)
                _note(writer, indent + 1)
                writer.line(indent + 1, "continue")
            else:
                writer.line(indent, f"if not {call}: continue", number)
        elif stage.kind == "tap":
            writer.line(indent, call, number)
        elif stage.kind == "ensure":
            refusal = writer.bind(stage.options["refusal"], f"refused_by_{stage.name}")
            writer.line(indent, f"if not {call}: raise {refusal}({value})", number)
        else:
            counter = f"n{writer.depth}"
            writer.depth += 1
            value = f"v{number}"
            writer.line(indent, f"for {value} in {call}:", number)
            writer.line(indent + 1, f"{counter} += 1")
            noted = _notes(writer)
            _children(writer, (number, stages[at + 1 :]), value, indent + 1, keyed=keyed)
            if noted:
                writer.line(indent, f"if not {counter}:")
                _note(writer, indent + 1)
            _grow(writer, indent, counter, f"({counter} or 1) - 1")
            return
    _emit(writer, value, indent, keyed=keyed)


def _children(
    writer: Writer,
    behind: tuple[int, Sequence[tuple[int, Stage]]],
    value: str,
    indent: int,
    *,
    keyed: bool,
) -> None:
    number, stages = behind
    inner = writer.depth if any(stage.kind == "flat_map" for _, stage in stages) else None
    writer.line(indent, "try:")
    writer.stages.append((writer.land(indent + 1, value), number))
    _body(writer, stages, value, indent + 1, keyed=keyed)
    writer.line(indent, "except Exception as error:")
    _caught(writer, indent + 1, open_counter=inner)


def _caught(writer: Writer, indent: int, *, open_counter: int | None) -> None:
    writer.line(indent, _fail(writer, "error"))
    if open_counter is not None:
        # The children that came before the exception are items without a parent.
        _grow(writer, indent, f"n{open_counter}", f"n{open_counter}")


def _index(writer: Writer) -> str:
    return "index" if writer.tracked else "None"


def _fail(writer: Writer, error: str) -> str:
    """Return what lists an item among the failures, with what came out before it."""
    values = f"({', '.join(writer.values)},)"
    return f"failed.append(({error}, key, {_index(writer)}, {values}, len(out)))"


def _notes(writer: Writer) -> bool:
    """Return whether what a stage takes out here is a branch's success."""
    return writer.counts and (writer.routed or writer.behind)


def _note(writer: Writer, indent: int) -> None:
    note = f"taken.append((len(failed), key, {_index(writer)}))"
    writer.line(indent, f"if failed or watched: {note}")


def _grow(writer: Writer, indent: int, counter: str, made: str) -> None:
    """Count the items made beyond one for one, and begin to count anew."""
    tally = f"tally.append((index, {made}))" if writer.tracked else f"tally[0] += {made}"
    writer.line(indent, f"{tally}; {counter} = 0")


def _emit(writer: Writer, value: str, indent: int, *, keyed: bool) -> None:
    writer.line(indent, f"out.append({value})")
    if writer.tracked:
        writer.line(indent, "at.append(index)")
    if keyed:
        writer.line(indent, "keys.append(key)")


def _context(writer: Writer, stage: Stage, number: int) -> str:
    if not stage.takes_ctx:
        return ""
    return f", ctx=context(index, {number}{', key' if writer.routed else ''})"


def _key(writer: Writer, stage: Stage, value: str, number: int) -> str:
    by = stage.options["by"]
    if isinstance(by, AttrKey):
        return f"{value}.{by.name}"
    if isinstance(by, str):
        return f"{value}[{by!r}]"
    if isinstance(by, ItemKey):
        return f"{value}[{by.key!r}]"
    call = f"{writer.bind(stage.fn, stage.name)}({value}{_context(writer, stage, number)})"
    return writer.landed(call)


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
