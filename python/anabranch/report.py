"""What a run did: every item accounted for, the failures sampled, the undo actions listed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast, overload

from anabranch import _core
from anabranch.compensation import Compensation, compensation, compensation_of
from anabranch.errors import (
    AnabranchError,
    CompensationError,
    EnsureError,
    HandlerError,
    HandlerTimeout,
    PipelineFailed,
)
from anabranch.failure import Failure, by_now, plain_key
from anabranch.failure import text as _text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from anabranch._playback import Played

T = TypeVar("T")

# How many codes, branches and undo actions the text names; the report itself has them all.
_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Counts:
    """What became of the items, of a branch or of the whole pipeline.

    Attributes:
        received: Items taken from the source; for a branch: routed to it.
        produced: Items that stages made beyond those they took (`flat_map`).
        committed: Items handled to the end. They stay committed if what they registered with
            `level="branch"` or `"pipeline"` is undone later, with their branch or the run: items
            count as they ended, and `Report.compensations` tells of the undo actions. So do those
            of a run with `commit="end"` that was undone: its outcome is "failed" or "aborted".
        filtered: Items taken out by a stage on purpose.
        failed: Items failed for good, and taken by no operator.
        dropped: Items given up by policy: a partial window when the pipeline is aborted.
        dead_lettered: Items handed to a dead-letter target.
        returned: Items given back to a source that takes them back; none of a pipeline's does so
            far, so it is 0: what was taken and not begun is `left`.
        left: Items still inside when the pipeline ended.
        recovered: Items that had failed, and that `recover` made an item of again: they went on,
            and count where they ended.
        retried: Attempts after the first, in units.
        windows: Windows that left, in windows.
    """

    received: int = 0
    produced: int = 0
    committed: int = 0
    filtered: int = 0
    failed: int = 0
    dropped: int = 0
    dead_lettered: int = 0
    returned: int = 0
    left: int = 0
    recovered: int = 0
    retried: int = 0
    windows: int = 0

    @property
    def balanced(self) -> bool:
        """Whether every item is accounted for.

        `received + produced == committed + filtered + failed + dropped + dead_lettered + returned
        + left`. It always holds for a whole report.
        """
        ended = self.committed + self.filtered + self.failed + self.dropped
        ended += self.dead_lettered + self.returned + self.left
        return self.received + self.produced == ended


@dataclass(frozen=True, slots=True, kw_only=True)
class BranchReport(Counts):
    """What became of one tenant's items.

    `received` is reckoned from what came of them: the sum is a check of the whole report only.

    Attributes:
        tenant: The branch's key.
        state: What it was doing at the end of the run, or is doing; see `Branch.state`.
        generation: How often it was opened.
        blocked: Seconds it held the source back because it was full, in all.
    """

    tenant: object
    state: Literal["open", "paused", "draining", "restarting", "failed", "evicted", "removed"] = (
        "open"
    )
    generation: int = 1
    blocked: float = 0.0


class BranchReports(Sequence[BranchReport]):
    """The reports of all branches, each made when it is asked for.

    A run with a hundred thousand tenants would spend half of its time on making them at its end.
    """

    __slots__ = ("_columns", "_rows")

    def __init__(self, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
        self._columns = columns
        self._rows = rows

    def _made(self, row: tuple[Any, ...]) -> BranchReport:
        return BranchReport(**dict(zip(self._columns, row, strict=True)))

    def of(self, tenant: object) -> BranchReport:
        """Return the report of one tenant.

        Raises:
            KeyError: There is none.
        """
        for row in self._rows:
            if row[0] == tenant:
                return self._made(row)
        raise KeyError(tenant)

    @overload
    def __getitem__(self, index: int) -> BranchReport: ...
    @overload
    def __getitem__(self, index: slice) -> BranchReports: ...
    def __getitem__(self, index: int | slice) -> BranchReport | BranchReports:
        if isinstance(index, slice):
            return BranchReports(self._columns, self._rows[index])
        return self._made(self._rows[index])

    def __len__(self) -> int:
        return len(self._rows)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Sequence):
            return tuple(self) == tuple(cast("Sequence[object]", other))
        return NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(tuple(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorSummary:
    """What a `collect_errors` has seen, in a period or in the whole run.

    Attributes:
        pipeline: The pipeline's name.
        stage: The `collect_errors`.
        codes: How many items failed, by code; exact, also where the failures were taken by an
            operator behind it.
        failures: The first failures; at most as many as the stage keeps.
        began: When the period began, in seconds from the start of the run.
        ended: When it ended.
    """

    pipeline: str
    stage: str
    codes: Mapping[str, int]
    failures: tuple[Failure, ...]
    began: float
    ended: float

    @property
    def items(self) -> int:
        """How many items failed."""
        return sum(self.codes.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Abandonment:
    """One call that did not end when it should have, and was left behind.

    It had run into its timeout, or the run was aborted.

    Attributes:
        stage: The stage whose callable it is.
        tenant: The branch's key; None before `fan_out`.
        attempt: The number of the attempt, from 1.
        seconds: How long it had been running by then; since the run was aborted, if that is why.

    An async source that does not end is one, too.
    """

    stage: str
    tenant: object
    attempt: int
    seconds: float


@dataclass(slots=True)
class _Retries:
    """What came of stuck undo actions later: shared by all reports of one run.

    Attributes:
        first: The report of the run itself, once there is another.
        tried: What became of each, by its place in the order of registration, and whether it is a
            finalizer; with those that a try has registered.
    """

    first: Report[Any] | None = None
    tried: dict[int, tuple[Compensation, bool]] = field(
        default_factory=dict[int, "tuple[Compensation, bool]"]
    )

    def ended(self, played: Played) -> None:
        """Take down how a try has ended; in the order they did."""
        order = played.action.order
        self.tried.pop(order, None)
        self.tried[order] = (compensation_of(played), played.action.finalizer)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class Report(Counts, Generic[T]):
    """What a run did.

    `str(report)` is a summary for people, `to_dict()` one for programs. `Report[T]` is typed by
    what leaves the last stage: the report of `collect()` has `items: list[T]`; that of `for_each`
    is a `Report[None]`, and its `items` is empty.

    Attributes:
        pipeline: The pipeline's name.
        outcome: "completed": the source ended; "drained": it was told to stop, and what was
            inside went on to the end; "aborted": what was inside was undone; "failed": the
            source failed, `on_error="stop"` met a failure, or by `commit="end"` all was undone.
        seconds: How long the run took.
        blocked: Seconds the source was held back because a branch, or what is in front of the
            branches, was full.
        branches: The counts of each tenant's branch, in the order they opened.
        codes: How many items failed, by code; exact. What failed and was no item counts as 0, as
            `source.failed` does.
        failures: The first failures that nobody took; a sample where there are many.
        errors: What each `collect_errors` has seen in the whole run, by the stage's name.
        compensated: How many undo actions were run and succeeded: those of units, of branches and
            of the run as a whole.
        stuck: How many undo actions and finalizers failed, or had no turn before the rollback's
            deadline; see `retry_stuck`.
        skipped: How many undo actions the rollback policy left out.
        finalized: How many finalizers were run and succeeded.
        compensations: The first undo actions; a sample where there are many. Those that are stuck
            are all there, up to 10,000.
        abandoned: How many calls did not end when they should have, and were left behind.
        abandonments: The first of these; a sample where there are many.
        late: How many calls gave a result after their timeout, which was dropped.
        items: What `collect()` collected, in order.

    Example:
        >>> import anabranch as ab
        >>> pipeline = ab.Pipeline("halves").source([4, 0, 2]).map(lambda n: 8 // n).collect()
        >>> report = pipeline.run_blocking()
        >>> report.items, report.received, report.failed, report.codes
        ([2, 4], 3, 1, {'ZeroDivisionError': 1})
    """

    pipeline: str
    outcome: Literal["completed", "drained", "aborted", "failed"]
    seconds: float
    blocked: float = 0.0
    branches: Sequence[BranchReport] = ()
    codes: dict[str, int] = field(default_factory=dict[str, int])
    failures: tuple[Failure, ...] = ()
    errors: Mapping[str, ErrorSummary] = field(default_factory=dict[str, "ErrorSummary"])
    compensated: int = 0
    stuck: int = 0
    skipped: int = 0
    finalized: int = 0
    compensations: tuple[Compensation, ...] = ()
    abandoned: int = 0
    abandonments: tuple[Abandonment, ...] = ()
    late: int = 0
    items: list[T] = field(default_factory=list[T])
    _retries: _Retries = field(default_factory=_Retries)

    @classmethod
    def from_core(cls, data: Mapping[str, Any]) -> Report[Any]:
        """Make the report from what the engine counted."""
        undone = data["compensations"]
        timeouts = data["timeouts"]
        return cls(
            pipeline=data["pipeline"],
            outcome=data["outcome"],
            seconds=data["seconds"],
            blocked=data["blocked"],
            **data["counts"],
            branches=BranchReports(data["columns"], data["branches"]),
            codes=dict(data["codes"]),
            failures=tuple(map(by_now, data["failures"])),
            errors=data.get("errors", {}),
            compensated=undone["done"],
            stuck=undone["failed"],
            skipped=undone["skipped"],
            finalized=undone["finalized"],
            compensations=tuple(compensation(**action) for action in undone["actions"]),
            abandoned=timeouts["abandoned"],
            abandonments=tuple(Abandonment(**row) for row in timeouts["calls"]),
            late=timeouts["late"],
            items=data["items"],
        )

    @property
    def ok(self) -> bool:
        """Whether the run came to its end, no item failed and no undo action got stuck.

        Items filtered, dropped or dead-lettered by policy do not count against it. A drain that
        ran out of time has not come to its end.
        """
        return self.outcome in ("completed", "drained") and self.failed == 0 and self.stuck == 0

    @property
    def rate(self) -> float:
        """Items received per second."""
        return self.received / self.seconds if self.seconds > 0 else 0.0

    def branch(self, tenant: object) -> BranchReport:
        """Return the counts of one tenant.

        Args:
            tenant: The branch's key.

        Raises:
            KeyError: There is no such branch.
        """
        branches = self.branches
        if isinstance(branches, BranchReports):
            return branches.of(tenant)
        for branch in branches:
            if branch.tenant == tenant:
                return branch
        raise KeyError(tenant)

    def raise_for_failure(self) -> None:
        """Raise unless the report is `ok`.

        Raises:
            PipelineFailed: A group with a HandlerError for each failure in `failures`, its cause
                the exception itself, and a CompensationError with those of stuck undo actions.

        Example:
            >>> import anabranch as ab
            >>> report = ab.Pipeline("halves").source([0]).map(lambda n: 8 // n).collect()
            >>> report.run_blocking().raise_for_failure()
            Traceback (most recent call last):
            anabranch.errors.PipelineFailed: pipeline 'halves' completed, 1 item failed (1 sub-exception)
        """  # noqa: E501 - a message is one line
        if not self.ok:
            raise self.as_error()

    def as_error(self) -> PipelineFailed:
        """Return what `raise_for_failure` would raise; also for a run cut short without failure."""
        errors: list[Exception] = [self._handler_error(failure) for failure in self.failures]
        stuck = [self._undo_error(action) for action in self.compensations if action.error]
        if stuck:
            message = f"{_many(self.stuck, 'undo action')} failed{_more(self.stuck, len(stuck))}"
            errors.append(CompensationError(message, stuck))
        message = f"pipeline {self.pipeline!r} {self.outcome}"
        if self.failed:
            listed = sum(failure.items for failure in self.failures)
            message += f", {_many(self.failed, 'item')} failed{_more(self.failed, listed)}"
        if self.left:
            message += f", {_many(self.left, 'item')} left"
        if self.outcome == "failed" and not self.codes:
            # Whatever else ends a run as failed has a code.
            lost = f"{_many(self.dropped, 'item')} dropped" if self.dropped else "a branch failed"
            message += f': {lost}, so by commit="end" all was undone'
        return PipelineFailed(message, errors or [AnabranchError(message)])

    async def retry_stuck(self, *, deadline: float | None = 30.0) -> Report[T]:
        """Try the stuck undo actions again, the last registered first, in the running loop.

        Each action that is stuck is tried again once by whoever asks first; those that fail again
        can be retried from the report that is returned. Whichever report of the run is asked, the
        one returned tells of all tries that have ended; what another call is at is stuck so far.

        Args:
            deadline: Seconds until what has not run is given up; None for no limit.

        Returns:
            A report of the run in which those that worked are done.

        Example:
            >>> import asyncio
            >>> import anabranch as ab
            >>> disk = ["full"]
            >>> def restore() -> None:
            ...     if disk:
            ...         raise OSError("disk full")
            >>> def store(n: int, ctx: ab.Context) -> None:
            ...     ctx.compensate(restore)
            ...     raise ValueError(n)
            >>> report = ab.Pipeline("p").source([1]).for_each(store, inline=True).run_blocking()
            >>> report.stuck
            1
            >>> disk.clear()
            >>> report = asyncio.run(report.retry_stuck())
            >>> report.stuck, report.compensated
            (0, 1)
        """
        # Here, for it imports asyncio.
        from anabranch._playback import play, seconds

        limit = seconds(deadline, "retry_stuck")
        stuck = self._stuck()
        playback = _core.Playback.of([it.action for it in stuck if it.action is not None])
        played, leaving = await play(playback, deadline=limit)
        report = self._retried(played)
        if leaving is not None:
            raise leaving
        return report

    def retry_stuck_blocking(self, *, deadline: float | None = 30.0) -> Report[T]:
        """Try the stuck undo actions again, in this thread; see `retry_stuck`."""
        # Here, for it imports asyncio.
        from anabranch._playback import play_blocking, seconds

        limit = seconds(deadline, "retry_stuck_blocking")
        stuck = self._stuck()
        playback = _core.Playback.of([it.action for it in stuck if it.action is not None])
        played, leaving = play_blocking(playback, deadline=limit)
        report = self._retried(played)
        if leaving is not None:
            raise leaving
        return report

    def _stuck(self) -> list[Compensation]:
        actions = self.compensations
        return [it for it in actions if it.action is not None and it.action.pending]

    def _retried(self, played: list[Played]) -> Report[T]:
        retries = self._retries
        for it in played:
            retries.ended(it)
        # Counted from what the run itself has reported: others may have retried meanwhile.
        first = retries.first = retries.first or self
        tried = list(retries.tried.values())
        others = [
            it
            for it in first.compensations
            if it.action is None or it.action.order not in retries.tried
        ]
        done = [finalizer for it, finalizer in tried if it.outcome == "done"]
        return replace(
            first,
            compensations=(*others, *(it for it, _ in tried)),
            compensated=first.compensated + done.count(False),
            finalized=first.finalized + done.count(True),
            stuck=first.stuck - (len(first.compensations) - len(others)) + len(tried) - len(done),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all but the items, in types that JSON has.

        Tenants that are no str, number or None become their `str`; an exception becomes
        `{"type", "message"}`, that of a failure with its traceback.
        """
        return {
            "pipeline": self.pipeline,
            "outcome": self.outcome,
            "seconds": self.seconds,
            "blocked": self.blocked,
            "counts": {name: getattr(self, name) for name in _COUNTS},
            "branches": [_plain(branch) for branch in self.branches],
            "codes": dict(self.codes),
            "failures": [failure.to_dict() for failure in self.failures],
            "errors": {
                stage: {"codes": dict(it.codes), "began": it.began, "ended": it.ended}
                for stage, it in self.errors.items()
            },
            "compensations": {
                "done": self.compensated,
                "failed": self.stuck,
                "skipped": self.skipped,
                "finalized": self.finalized,
                "actions": [_plain(action) for action in self.compensations],
            },
            "timeouts": {
                "abandoned": self.abandoned,
                "late": self.late,
                "calls": [_plain(row) for row in self.abandonments],
            },
        }

    def __repr__(self) -> str:
        counts = ", ".join(f"{name}={getattr(self, name)}" for name in self._telling())
        return f"<Report of pipeline {self.pipeline!r}: {self.outcome}, {counts}>"

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _telling(self) -> list[str]:
        always = ("received", "committed", "failed")
        return [name for name in _COUNTS if name in always or getattr(self, name)]

    def _lines(self) -> Iterator[str]:
        rate = f"{self.rate:,.0f} items/s"
        yield f"pipeline {self.pipeline!r}: {self.outcome} in {self.seconds:.3g} s, {rate}"
        rows = [(name, getattr(self, name)) for name in self._telling()]
        rows += [("branches", len(self.branches))] if self.branches else []
        yield from _table(rows)
        if not self.balanced:
            yield "  these do not add up: please report it as a bug of anabranch"
        if self.codes:
            yield "failed items by code"
            yield from _table(_most(list(self.codes.items())))
        worst = [(_text(branch.tenant), branch.failed) for branch in self.branches if branch.failed]
        if worst:
            yield f"failed items by branch, in {len(worst):,} of {len(self.branches):,}"
            yield from _table(_most(worst))
        if self.compensated or self.stuck:
            yield f"undo actions: {self.compensated:,} done, {self.stuck:,} stuck"
            stuck = [action for action in self.compensations if action.error is not None]
            for action in stuck[:_SHOWN]:
                yield f"  {_place(action)}: {action.name}: {_described(action.error)}"
        if self.abandoned:
            yield f"calls left behind because they did not end: {self.abandoned:,}"
            for row in self.abandonments[:_SHOWN]:
                yield f"  {_place(row)}: attempt {row.attempt}, after {row.seconds:.3g} s"

    def _handler_error(self, failure: Failure) -> Exception:
        # An error of ours says where it is from: that of a source names the client.
        if isinstance(failure.error, AnabranchError) and not isinstance(
            failure.error, HandlerTimeout | EnsureError
        ):
            return failure.error
        tried = f" after {failure.attempts} attempts" if failure.attempts > 1 else ""
        lost = f" ({failure.items:,} items)" if failure.items > 1 else ""
        error = HandlerError(
            f"{_place(failure)}: {_described(failure.error)}{tried}{lost}",
            code=failure.code,
            stage=failure.stage,
            tenant=failure.tenant,
            attempts=failure.attempts,
            delay=failure.delay,
            history=failure.history,
            gave_up=failure.gave_up,
        )
        error.__cause__ = failure.error
        return error

    def _undo_error(self, action: Compensation) -> Exception:
        error = HandlerError(
            f"{_place(action)}: undo {action.name!r}: {_described(action.error)}",
            code=type(action.error).__name__,
            stage=action.stage or "",
            tenant=action.tenant,
        )
        error.__cause__ = action.error
        return error


_COUNTS = tuple(Counts.__dataclass_fields__)


def _plain(record: BranchReport | Compensation | Abandonment) -> dict[str, Any]:
    # Not `asdict`: it would copy tenants and exceptions.
    names = [name for name in record.__dataclass_fields__ if name != "action"]
    return {name: _json(getattr(record, name)) for name in names}


def _json(value: object) -> object:
    if isinstance(value, BaseException):
        return {"type": type(value).__name__, "message": _text(value)}
    return plain_key(value)


def _described(error: BaseException | None) -> str:
    text = _text(error)
    name = type(error).__name__
    return f"{name}: {text}" if text else name


def _place(of: Failure | Compensation | Abandonment) -> str:
    tenant = "" if of.tenant is None else f", tenant {_text(of.tenant)!r}"
    return f"stage {of.stage!r}{tenant}"


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _more(count: int, listed: int) -> str:
    return f", {count - listed:,} more than listed here" if count > listed else ""


def _most(rows: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """Return the rows with the largest counts, and one for the sum of the others."""
    rows = sorted(rows, key=lambda row: -row[1])
    others = rows[_SHOWN:]
    rest = [(f"{len(others):,} others", sum(count for _, count in others))] if others else []
    return rows[:_SHOWN] + rest


def _table(rows: list[tuple[str, int]]) -> Iterator[str]:
    width = max(len(name) for name, _ in rows)
    digits = max(len(f"{count:,}") for _, count in rows)
    for name, count in rows:
        yield f"  {name:<{width}}  {count:>{digits},}"
