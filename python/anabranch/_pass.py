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
  be a Result (see `anabranch._landing`); in both, the first item of a chunk has a loop of its own,
  which looks at what the callables give;
- a `counted` pass also notes what a stage behind the fan-out took out, once something has failed:
  for a branch's streak of failures that is a success.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from anabranch._writer import PARAMETERS, Writer, compiled, function_name, seeing
from anabranch.keys import AttrKey, ItemKey

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anabranch._stages import Stage


@dataclass(frozen=True, slots=True)
class Loop:
    """One form of a generated pass.

    Attributes:
        function: The loop; called with the parameters in the order of `PARAMETERS`.
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


def _written(
    pipeline: str, stages: Sequence[tuple[int, Stage]], writer: Writer, *, keyed: bool
) -> Loop:
    tracked = writer.tracked
    writer.line(0, f"def {function_name(pipeline)}({', '.join(PARAMETERS)}):")
    writer.line(1, f"{' = '.join(('key', *writer.values))} = None")
    counters = sum(1 for _, stage in stages if stage.kind == "flat_map")
    for number in range(counters):
        writer.line(1, f"n{number} = 0")
    writer.line(1, "while True:")
    writer.line(2, "try:")
    entries: list[int] = []
    for first in (True, False):
        writer.begin(first=first)
        writer.line(3, f"for {'index, v' if tracked else 'v'} in chunk:")
        entries.append(writer.land(4, "v"))
        _body(writer, stages, "v", 4, keyed=keyed)
        if first:
            writer.line(4, "break")
    writer.line(3, "return")
    writer.line(2, "except Exception as error:")
    _caught(writer, 3, open_counter=0 if counters else None)
    source = "\n".join(writer.lines) + "\n"
    function = compiled(pipeline, source, writer.names)
    # Last: whoever asks where a pass is, without a line, means its first stage.
    before = stages[0][0] - 1
    writer.inputs.append((before, 0))
    lines = [*writer.stages, *((entry, before) for entry in entries)]
    return Loop(function=function, lines=lines, source=source)


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
        call = writer.landed(call, "true" if stage.kind in ("filter", "ensure") else "plain")
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
    return writer.landed(call, "true")
