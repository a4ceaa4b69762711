"""What a monitor tells, typed: a picture of a process, made of the lines of its protocol.

Times are seconds since 1970 where they are points, and seconds where they are spans.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

RowT = TypeVar("RowT")

# What is in a callable for so long does not tell anything soon, in milliseconds.
_STUCK: Final = 250
_MILLI: Final = 1e-3
_MICRO: Final = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessInfo:
    """A process with pipelines: what it says about itself."""

    name: str
    pid: int
    version: str
    started: float
    host: str
    cwd: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BranchRow:
    """One branch of a pipeline; the tenant of the trunk, the course before the fan-out, is None.

    Attributes:
        window: Items in its open window; None where there are no windows.
        window_age: How old the first of them is.
        blocked: How long it has held up what feeds it.
        in_flight: Units with a handler, in back-off, or being undone.
        pending: Undo actions that have not run.
        compensated: Undo actions that have.
        p50: Half of its units took no longer; only while somebody looks at the branch.
        p99: 99 of 100 took no longer; the same.
    """

    tenant: str | None
    number: int
    generation: int
    state: str
    received: int
    committed: int
    failed: int
    dropped: int
    dead_lettered: int
    queued: int
    capacity: int
    in_flight: int
    retried: int
    pending: int
    compensated: int
    windows: int
    window: int | None
    window_size: int | None
    window_age: float | None
    window_max_age: float | None
    blocked: float
    last_error: str | None
    last_error_at: float | None
    since: float
    p50: float | None
    p99: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRow:
    """One stage, over all branches.

    Attributes:
        durations: How many attempts took how long: less than 1 us, less than 2, less than 4, and so
            on.
    """

    name: str
    received: int
    passed: int
    failed: int
    dropped: int
    retried: int
    compensated: int
    queued: int
    in_flight: int
    blocked: float
    last_error: str | None
    durations: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorRow:
    """How often an error came up, in items; each is counted once, where it arose.

    Attributes:
        tenants: Those whose last error it is, the last first; at most 8.
        sample: One of them and its causes, the outermost first.
    """

    code: str
    items: int
    last_minute: int
    last_5_minutes: int
    last_hour: int
    first_seen: float
    last_seen: float
    stage: str
    tenants: tuple[str | None, ...]
    sample: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class UndoRow:
    """One undo action or finalizer of a rollback.

    Attributes:
        state: `pending`, `running`, `done`, `failed` and `unrun` (both are stuck), or `skipped`.
        took: Seconds, once it has run.
    """

    number: int
    name: str
    stage: str
    state: str
    finalizer: bool
    registered: float | None
    took: float | None
    attempt: int
    attempts: int
    error: str | None

    @property
    def stuck(self) -> bool:
        """Whether it waits for an operator."""
        return self.state in ("failed", "unrun")


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackRow:
    """What is undone together: the actions in the order they run.

    Attributes:
        level: What is undone: that of a `unit`, a `branch` or the `pipeline`.
        cause: The stage and the code of what has failed.
        took: Seconds; None while it is under way.
    """

    number: int
    tenant: str | None
    level: str
    cause: str
    policy: str
    started: float
    took: float | None
    actions: tuple[UndoRow, ...]

    @property
    def stuck(self) -> int:
        """How many of its actions wait for an operator."""
        return sum(action.stuck for action in self.actions)


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowRow:
    """An open window.

    Attributes:
        left: Why the one before it left: `size`, `age`, `idle`, `bytes` or `close`.
    """

    tenant: str | None
    items: int
    max_items: int | None
    age: float
    max_age: float | None
    left: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRow:
    """One entry of the log: something that has happened, or, of kind `audit`, was done."""

    number: int
    at: float
    kind: str
    level: str
    pipeline: str | None
    tenant: str | None
    message: str
    operation: str | None
    worked: bool | None
    by: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineRow:
    """One pipeline: its sums, and what there is of branches, rollbacks, errors and windows.

    Attributes:
        number: Its number in the process.
        phase: `run`, `drain`, `abort` or `end`.
        control: Whether it may be steered.
        told: When it told its numbers last. While a callable holds it up, they stand still.
        inside: The stage whose callable its thread is in, if it is in one.
        states: How many branches are in each state.
    """

    name: str
    number: int
    phase: str
    started: float
    control: bool
    told: float
    inside: str | None
    received: int
    committed: int
    failed: int
    dropped: int
    dead_lettered: int
    retried: int
    pending: int
    compensated: int
    stuck: int
    queued: int
    in_flight: int
    windows: int
    late_windows: int
    blocked: float
    p50: float | None
    p99: float | None
    states: Mapping[str, int]
    stages: tuple[StageRow, ...]
    branches: tuple[BranchRow, ...]
    rollbacks: tuple[RollbackRow, ...]
    errors: tuple[ErrorRow, ...]
    open_windows: tuple[WindowRow, ...]

    def branch(self, tenant: str) -> BranchRow:
        """Return the row of a tenant, by its name as it is shown.

        Raises:
            KeyError: There is none.
        """
        for row in self.branches:
            if row.tenant == tenant:
                return row
        raise KeyError(tenant)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What a process has told of its pipelines by a point in time.

    Attributes:
        memory: Bytes of the process; 0 if it cannot be told.
        lost: Entries of the log that were lost because there were too many.
    """

    process: ProcessInfo
    at: float
    memory: int
    pipelines: tuple[PipelineRow, ...]
    log: tuple[LogRow, ...]
    lost: int

    def pipeline(self, name: str | None = None) -> PipelineRow:
        """Return the pipeline of a name, or the only one.

        Raises:
            KeyError: There is none, or more than one.
        """
        found = [it for it in self.pipelines if name in (None, it.name)]
        if len(found) != 1:
            raise KeyError(name)
        return found[0]


# Where on the wire a field is, and what one of it is in ours; a field that is not here has its own
# name there, and its own unit.
_Wire = dict[str, tuple[str, float | None]]

_COMMON: Final[_Wire] = {
    "received": ("in", None),
    "committed": ("out", None),
    "failed": ("err", None),
    "dropped": ("drop", None),
    "dead_lettered": ("dl", None),
    "queued": ("q", None),
    "in_flight": ("run", None),
    "retried": ("retry", None),
    "pending": ("comp", None),
    "compensated": ("undone", None),
    "windows": ("wins", None),
    "blocked": ("blk", _MILLI),
    "p50": ("p50", _MICRO),
    "p99": ("p99", _MICRO),
    "last_error": ("lerr", None),
}
_BRANCH: Final[_Wire] = _COMMON | {
    "number": ("id", None),
    "generation": ("gen", None),
    "state": ("st", None),
    "capacity": ("qcap", None),
    "window": ("win", None),
    "window_size": ("wcap", None),
    "window_age": ("wage", _MILLI),
    "window_max_age": ("wint", _MILLI),
    "last_error_at": ("lat", _MILLI),
    "since": ("since", _MILLI),
}
_STAGE: Final[_Wire] = _COMMON | {"passed": ("out", None)}
_ERROR: Final[_Wire] = {
    "items": ("n", None),
    "last_minute": ("n1", None),
    "last_5_minutes": ("n5", None),
    "last_hour": ("n60", None),
    "first_seen": ("first", _MILLI),
    "last_seen": ("last", _MILLI),
}
_UNDO: Final[_Wire] = {
    "number": ("n", None),
    "state": ("st", None),
    "registered": ("at", _MILLI),
    "took": ("took_ms", _MILLI),
    "attempts": ("of", None),
}
_ROLLBACK: Final[_Wire] = {
    "number": ("id", None),
    "cause": ("what", None),
    "started": ("start", _MILLI),
    "took": ("took_ms", _MILLI),
}
_WINDOW: Final[_Wire] = {
    "items": ("n", None),
    "max_items": ("max", None),
    "age": ("age_ms", _MILLI),
    "max_age": ("max_age_ms", _MILLI),
    "left": ("last", None),
}
_LOG: Final[_Wire] = {
    "number": ("n", None),
    "at": ("at", _MILLI),
    "level": ("lvl", None),
    "message": ("msg", None),
    "operation": ("op", None),
    "worked": ("ok", None),
}
_TOTALS: Final[_Wire] = _COMMON | {"late_windows": ("late", None), "told": ("at", _MILLI)}


def _row(kind: type[RowT], told: Mapping[str, Any], wire: _Wire, **more: object) -> RowT:
    """Make a row of what was told; a count that was not is 0, anything else None."""
    values = dict(more)
    for field in fields(kind):  # type: ignore[arg-type]  # they are dataclasses
        if field.name in values:
            continue
        key, unit = wire.get(field.name, (field.name, None))
        value = told.get(key)
        if value is not None:
            values[field.name] = value if unit is None else value * unit
        elif "None" in str(field.type):
            values[field.name] = None
        else:
            values[field.name] = "" if field.type == "str" else 0
    return kind(**values)


class View:
    """What was told so far, by one monitor; it is told by line."""

    def __init__(self) -> None:
        self.process: dict[str, Any] = {}
        self.rights: tuple[str, ...] = ()
        self.tick: dict[str, Any] = {}
        # Whether all branches were told of.
        self.whole = False
        self._columns: list[str] = []
        self._pipes: dict[int, dict[str, Any]] = {}
        self._totals: dict[int, dict[str, Any]] = {}
        self._names: dict[tuple[int, int], str] = {}
        self._rows: dict[int, dict[int, dict[str, Any]]] = {}
        self._stages: dict[tuple[int, int], dict[str, Any]] = {}
        self._tables: dict[str, list[dict[str, Any]]] = {"wins": [], "comp": [], "errors": []}
        self._log: list[dict[str, Any]] = []

    def hear(self, line: bytes) -> dict[str, Any]:
        """Take in a line; return what it says."""
        told: dict[str, Any] = json.loads(line)
        match told.get("t"):
            case "welcome":
                self.process = told["server"]
                self.rights = tuple(told["caps"])
                self._columns = told["cols"]
            case "pipe":
                self._pipes[told["p"]] = told
            case "names":
                self._names.update({(p, branch): name for p, branch, name in told["r"]})
            case "rows":
                self._hear_rows(told["r"])
                self.whole |= not told.get("more", False)
            case "tick":
                self.tick = told
                self._totals.update({it["p"]: it for it in told["tot"]})
                self._hear_rows(told["r"])
            case "stages":
                self._stages.update({(it["p"], it["s"]): it for it in told["r"]})
            case "wins" | "comp" | "errors" as kind:
                self._tables[kind] = told["r"]
            case "log":
                self._log += told["r"]
            case _:
                pass
        return told

    def _hear_rows(self, rows: list[list[Any]]) -> None:
        for row in rows:
            told = dict(zip(self._columns, row, strict=False))
            self._rows.setdefault(told["p"], {})[told["id"]] = told

    def hear_all(self, lines: bytes) -> None:
        """Take in what a process tells of itself without a session."""
        for line in lines.splitlines():
            self.hear(line)

    def sweeps(self) -> dict[int, int]:
        """Return how often each pipeline that can still tell has told of all of it."""
        now = self.tick["ts"]

        def can_tell(told: dict[str, Any]) -> bool:
            call = told.get("call")
            return told["st"] != "end" and not (call and now - call["since"] > _STUCK)

        return {
            number: told.get("sweep", 0) for number, told in self._totals.items() if can_tell(told)
        }

    def snapshot(self, only: int | None = None) -> Snapshot:
        """Return what is known; of one pipeline, if a number is given."""
        process = self.process
        numbers = [it for it in sorted(self._totals) if it in self._pipes and only in (None, it)]
        return Snapshot(
            process=_row(ProcessInfo, process, {"started": ("start", _MILLI)}),
            at=self.tick.get("ts", 0) * _MILLI,
            memory=self.tick.get("rss", 0),
            pipelines=tuple(self._pipeline(it) for it in numbers),
            log=tuple(self._entry(it) for it in self._log if only in (None, it.get("p"))),
            lost=self.tick.get("lost", {}).get("log", 0),
        )

    def _tenant(self, pipeline: int, branch: int) -> str | None:
        return self._names.get((pipeline, branch))

    def _pipeline(self, number: int) -> PipelineRow:
        pipe, totals = self._pipes[number], self._totals[number]
        call = totals.get("call")
        return _row(
            PipelineRow,
            totals,
            _TOTALS,
            name=pipe["name"],
            number=number,
            phase=totals["st"],
            started=pipe.get("start", 0) * _MILLI,
            control=pipe.get("control", False),
            inside=call["stage"] if call else None,
            states={key: count for key, count in totals["states"].items() if key != "all"},
            stages=tuple(
                _row(
                    StageRow,
                    told := self._stages.get((number, place), {}),
                    _STAGE,
                    name=name,
                    durations=tuple(told.get("hist", ())),
                )
                for place, name in enumerate(pipe["stages"])
            ),
            branches=tuple(
                _row(BranchRow, told, _BRANCH, tenant=self._tenant(number, branch))
                for branch, told in sorted(self._rows.get(number, {}).items())
            ),
            rollbacks=tuple(
                self._rollback(it) for it in self._tables["comp"] if it["b"][0] == number
            ),
            errors=tuple(self._error(it) for it in self._tables["errors"] if it["p"] == number),
            open_windows=tuple(
                _row(WindowRow, it, _WINDOW, tenant=self._tenant(*it["b"]))
                for it in self._tables["wins"]
                if it["b"][0] == number
            ),
        )

    def _rollback(self, told: dict[str, Any]) -> RollbackRow:
        actions = tuple(_row(UndoRow, it, _UNDO) for it in told["actions"])
        tenant = self._tenant(*told["b"])
        return _row(RollbackRow, told, _ROLLBACK, tenant=tenant, actions=actions)

    def _error(self, told: dict[str, Any]) -> ErrorRow:
        tenants = tuple(self._tenant(told["p"], it) for it in told["branches"])
        return _row(ErrorRow, told, _ERROR, tenants=tenants, sample=tuple(told["sample"]))

    def _entry(self, told: dict[str, Any]) -> LogRow:
        pipeline, branch = told.get("p"), told.get("b")
        pipe = None if pipeline is None else self._pipes.get(pipeline)
        tenant = None
        if pipeline is not None and branch is not None:
            tenant = self._tenant(pipeline, branch)
        return _row(
            LogRow,
            told,
            _LOG,
            pipeline=pipe["name"] if pipe else None,
            tenant=tenant,
            by=told["peer"]["client"] if told.get("peer") else None,
        )
