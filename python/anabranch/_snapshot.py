"""From the lines of a monitor to rows: a picture of a process, made of what was told so far."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final, TypeVar

from anabranch._rows import (
    BranchRow,
    ErrorRow,
    LetterRow,
    LogRow,
    OutboxRow,
    PipelineRow,
    ProcessInfo,
    RollbackRow,
    Snapshot,
    StageRow,
    UndoRow,
    WindowRow,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

RowT = TypeVar("RowT")

# What is in a callable for so long does not tell anything soon, in milliseconds.
_STUCK: Final = 250
# Entries of the log that are kept: as many as the process keeps.
_ENTRIES: Final = 4096
_MILLI: Final = 1e-3
_MICRO: Final = 1e-6


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
    "entered": ("ent", _MILLI),
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
_OUTBOX: Final[_Wire] = {
    "name": ("store", None),
    "state": ("st", None),
    "scheduled": ("retry", None),
    "lag": ("lag_ms", _MILLI),
    "lease_expires": ("expires", _MILLI),
    "read": ("polled", _MILLI),
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
        self._log: deque[dict[str, Any]] = deque(maxlen=_ENTRIES)
        self._stores: list[dict[str, Any]] = []
        self._letters: dict[str, list[dict[str, Any]]] = {}
        # What is told in pieces, as far as it was.
        self._pieces: list[dict[str, Any]] = []
        # What the dead letter holds that was asked for.
        self.payload: str | None = None

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
            case "outbox" | "dead" as kind:
                self._hear_outbox(kind, told)
            case _:
                pass
        return told

    def _hear_rows(self, rows: list[list[Any]]) -> None:
        for row in rows:
            told = dict(zip(self._columns, row, strict=False))
            self._rows.setdefault(told["p"], {})[told["id"]] = told

    def _hear_outbox(self, kind: str, told: dict[str, Any]) -> None:
        for row in told["r"]:
            if (payload := row.get("payload")) is not None:
                self.payload = payload
                return
        self._pieces += told["r"]
        if told.get("more"):
            return
        whole, self._pieces = self._pieces, []
        if kind == "outbox":
            self._stores = whole
        else:
            self._letters[told.get("store", "")] = whole

    def has_read_since(self, then: int) -> bool:
        """Whether all outboxes were read after a time, in milliseconds since 1970."""
        return all(it.get("polled", 0) >= then or it["st"] == "down" for it in self._stores)

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
            outboxes=tuple(self._outbox(it) for it in self._stores),
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

    def _outbox(self, told: dict[str, Any]) -> OutboxRow:
        letters = self._letters.get(told["store"], ()) if told.get("dead") else ()
        rows = (
            _row(LetterRow, it, {"at": ("at", _MILLI)}, id=int(it["id"]))
            for it in sorted(letters, key=lambda it: int(it["id"]))
        )
        tenant = told.get("tenant") or None
        more = {"paused": tuple(told.get("paused", ())), "resting": told.get("resting", False)}
        return _row(OutboxRow, told, _OUTBOX, tenant=tenant, letters=tuple(rows), **more)

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
