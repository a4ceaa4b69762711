"""The numbers of a pipeline as metrics: their names, and the text that Prometheus reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from anabranch._rows import PipelineRow

Kind = Literal["counter", "gauge"]
Sample = tuple["Mapping[str, str]", float]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: its name, and how it is read from a pipeline."""

    name: str
    kind: Kind
    unit: str
    help: str
    read: Callable[[Any], Iterator[Sample]]


def _sum(name: str) -> Callable[[PipelineRow], Iterator[Sample]]:
    def read(row: PipelineRow) -> Iterator[Sample]:
        yield {}, getattr(row, name)

    return read


def _stages(name: str) -> Callable[[PipelineRow], Iterator[Sample]]:
    def read(row: PipelineRow) -> Iterator[Sample]:
        for stage in row.stages:
            yield {"stage": stage.name}, getattr(stage, name)

    return read


def _branches(name: str) -> Callable[[PipelineRow], Iterator[Sample]]:
    def read(row: PipelineRow) -> Iterator[Sample]:
        for branch in row.branches:
            if branch.tenant is not None:
                yield {"tenant": branch.tenant}, getattr(branch, name)

    return read


def _codes(row: PipelineRow) -> Iterator[Sample]:
    for error in row.errors:
        yield {"code": error.code}, error.items


def _states(row: PipelineRow) -> Iterator[Sample]:
    for state, count in row.states.items():
        yield {"state": state}, count


METRICS: Final = (
    Metric("received", "counter", "", "Items taken from the source.", _sum("received")),
    Metric("committed", "counter", "", "Items handled to the end.", _sum("committed")),
    Metric("failed", "counter", "", "Items failed for good.", _sum("failed")),
    Metric("dropped", "counter", "", "Items given up, or filtered out.", _sum("dropped")),
    Metric("dead_lettered", "counter", "", "Items dead-lettered.", _sum("dead_lettered")),
    Metric("retried", "counter", "", "Attempts after the first, in units.", _sum("retried")),
    Metric("windows", "counter", "", "Windows that have left.", _sum("windows")),
    Metric("compensated", "counter", "", "Undo actions that have run.", _sum("compensated")),
    Metric("pending_undos", "gauge", "", "Undo actions that have not run.", _sum("pending")),
    Metric("stuck_undos", "gauge", "", "Undo actions that wait for an operator.", _sum("stuck")),
    Metric("queued", "gauge", "", "Items inside.", _sum("queued")),
    Metric("in_flight", "gauge", "", "Units with a handler.", _sum("in_flight")),
    Metric("late_windows", "gauge", "", "Windows older than they may be.", _sum("late_windows")),
    Metric("blocked", "counter", "seconds", "Time the source was held up.", _sum("blocked")),
    Metric("branches", "gauge", "", "Branches, by state.", _states),
    Metric("errors", "counter", "", "Items failed for good, by code.", _codes),
    Metric("stage_passed", "counter", "", "Items that left a stage.", _stages("passed")),
    Metric("stage_failed", "counter", "", "Items that failed at a stage.", _stages("failed")),
    Metric("stage_queued", "gauge", "", "Items that wait at a stage.", _stages("queued")),
)
"""Of each pipeline."""

BRANCHES: Final = (
    Metric("branch_received", "counter", "", "Items that came to a branch.", _branches("received")),
    Metric("branch_committed", "counter", "", "Items it has handled.", _branches("committed")),
    Metric("branch_failed", "counter", "", "Items that failed in it.", _branches("failed")),
    Metric("branch_queued", "gauge", "", "Items that wait in it.", _branches("queued")),
)
"""Of each branch."""


def exposition(row: PipelineRow, *, branches: bool) -> str:
    """Return the text that Prometheus reads."""
    return "\n".join(series_lines(METRICS + (BRANCHES if branches else ()), [row])) + "\n"


def series_lines(metrics: Sequence[Metric], rows: Sequence[PipelineRow]) -> Iterator[str]:
    """Return the lines of that text, of several pipelines: each metric stands there once."""
    for metric in metrics:
        name = full_name(metric)
        yield f"# HELP {name} {metric.help}"
        yield f"# TYPE {name} {metric.kind}"
        for row in rows:
            for labels, value in metric.read(row):
                yield line(name, {"pipeline": row.name} | dict(labels), value)
    yield from _durations(rows)


def _durations(rows: Sequence[PipelineRow]) -> Iterator[str]:
    name = "anabranch_attempt_duration_seconds"
    yield f"# HELP {name} How long attempts at the handler of a stage took."
    yield f"# TYPE {name} histogram"
    for row in rows:
        for stage in row.stages:
            labels = {"pipeline": row.name, "stage": stage.name}
            count = 0
            for bucket, attempts in enumerate(stage.durations):
                count += attempts
                # What took less than 2^n microseconds.
                bound = {"le": f"{2**bucket / 1e6:g}"}
                yield line(f"{name}_bucket", labels | bound, count)
            if stage.durations:
                yield line(f"{name}_bucket", labels | {"le": "+Inf"}, count)
                yield line(f"{name}_count", labels, count)


def line(name: str, labels: Mapping[str, str], value: float) -> str:
    """Return a line of that text."""
    return f"{name}{_labels(labels)} {_number(value)}"


def full_name(metric: Metric) -> str:
    """Return what Prometheus knows a metric as."""
    unit = f"_{metric.unit}" if metric.unit else ""
    return f"anabranch_{metric.name}{unit}{'_total' if metric.kind == 'counter' else ''}"


def _labels(labels: Mapping[str, str]) -> str:
    return "{" + ",".join(f'{key}="{_escaped(value)}"' for key, value in labels.items()) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"
