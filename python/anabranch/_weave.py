"""Woven passes: the synchronous callables in front of an `async def` sink, fused with it.

Where items neither part by tenant nor gather in windows before a sink that takes one at a time,
nothing is gained by mapping a chunk first and handling it later: what the callables made would
leave the cache in between. The worker runs one generated coroutine over each batch instead, which
does what a loop written by hand does, line for line; the first line that raises ends it, and the
rest of the batch goes back to its queue.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from anabranch import _writer

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from anabranch._stages import Stage

_WOVEN = frozenset({"map", "filter", "tap"})


@dataclass(frozen=True, slots=True)
class Woven:
    """A woven pass.

    Attributes:
        function: A coroutine function, called with the items and with a list of one number, to
            which it adds the items that a filter took out.
        lines: The stage number behind each line of its source.
    """

    function: Callable[..., Coroutine[Any, Any, None]]
    lines: dict[int, int]

    def stage_of(self, error: BaseException) -> int | None:
        """Return the number of the stage whose line raised; None if none of its lines did."""
        code = self.function.__code__
        traceback = error.__traceback__
        while traceback is not None:
            if traceback.tb_frame.f_code is code:
                return self.lines.get(traceback.tb_lineno)
            traceback = traceback.tb_next
        return None


def weave(
    pipeline: str, stages: Sequence[tuple[int, Stage]], sink: tuple[int, Stage]
) -> Woven | None:
    """Fuse `stages` with the sink behind them; None if they are not all of a kind that can be.

    Args:
        pipeline: The pipeline's name, for tracebacks.
        stages: Synchronous stages with their numbers.
        sink: The number and the stage of the `async def` sink.
    """
    if any(stage.kind not in _WOVEN or stage.takes_ctx for _, stage in stages):
        return None
    functions = [stage.fn for _, stage in (*stages, sink)]
    return _writer.seeing(partial(_woven, pipeline, stages, sink), functions)[0]


def _woven(
    pipeline: str, stages: Sequence[tuple[int, Stage]], sink: tuple[int, Stage], *, sees: bool
) -> tuple[Woven, _writer.Writer]:
    writer = _writer.Writer(tracked=False, sees=sees)
    writer.line(0, f"async def {_writer.function_name(pipeline)}(chunk, filtered):")
    entries: list[int] = []
    for first in (True, False):
        writer.begin(first=first)
        writer.line(1, "for v in chunk:")
        entries.append(writer.land(2, "v"))
        _line_by_line(writer, stages, sink)
        if first:
            writer.line(2, "break")
    source = "\n".join(writer.lines) + "\n"
    function = _writer.compiled(pipeline, source, writer.names)
    lines = dict([*writer.stages, *((entry, 0) for entry in entries)])
    return Woven(function=function, lines=lines), writer


def _line_by_line(
    writer: _writer.Writer, stages: Sequence[tuple[int, Stage]], sink: tuple[int, Stage]
) -> None:
    value = "v"
    for number, stage in stages:
        call = f"{writer.bind(stage.fn, stage.name)}({value})"
        call = writer.landed(call, "true" if stage.kind == "filter" else "plain")
        if stage.kind == "map":
            value = f"v{number}"
            writer.line(2, f"{value} = {call}", number)
        elif stage.kind == "filter":
            writer.line(2, f"if not {call}: filtered[0] += 1; continue", number)
        else:
            writer.line(2, call, number)
    number, stage = sink
    last = f"await {writer.bind(stage.fn, stage.name)}({value})"
    writer.line(2, writer.landed(last, "land"), number)
