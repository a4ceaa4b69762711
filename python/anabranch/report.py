"""What a run did: every item accounted for, the failures sampled, the undo actions listed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from anabranch import _core
from anabranch._report_text import COUNTS, described, lines, many, more, place, telling
from anabranch.compensation import Compensation, compensation, compensation_of
from anabranch.counts import Abandonment, BranchReport, BranchReports, Counts, ErrorSummary
from anabranch.errors import (
    AnabranchError,
    CompensationError,
    EnsureError,
    HandlerError,
    HandlerTimeout,
    PipelineFailed,
)
from anabranch.failure import Failure, by_now, plain_key, text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anabranch._playback import Played

T = TypeVar("T")


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
            message = f"{many(self.stuck, 'undo action')} failed{more(self.stuck, len(stuck))}"
            errors.append(CompensationError(message, stuck))
        message = f"pipeline {self.pipeline!r} {self.outcome}"
        if self.failed:
            listed = sum(failure.items for failure in self.failures)
            message += f", {many(self.failed, 'item')} failed{more(self.failed, listed)}"
        if self.left:
            message += f", {many(self.left, 'item')} left"
        if self.outcome == "failed" and not self.codes:
            # Whatever else ends a run as failed has a code.
            lost = f"{many(self.dropped, 'item')} dropped" if self.dropped else "a branch failed"
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
            "counts": {name: getattr(self, name) for name in COUNTS},
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
        counts = ", ".join(f"{name}={getattr(self, name)}" for name in telling(self))
        return f"<Report of pipeline {self.pipeline!r}: {self.outcome}, {counts}>"

    def __str__(self) -> str:
        return "\n".join(lines(self))

    def _handler_error(self, failure: Failure) -> Exception:
        # An error of ours says where it is from: that of a source names the client.
        if isinstance(failure.error, AnabranchError) and not isinstance(
            failure.error, HandlerTimeout | EnsureError
        ):
            return failure.error
        tried = f" after {failure.attempts} attempts" if failure.attempts > 1 else ""
        lost = f" ({failure.items:,} items)" if failure.items > 1 else ""
        error = HandlerError(
            f"{place(failure)}: {described(failure.error)}{tried}{lost}",
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
            f"{place(action)}: undo {action.name!r}: {described(action.error)}",
            code=type(action.error).__name__,
            stage=action.stage or "",
            tenant=action.tenant,
        )
        error.__cause__ = action.error
        return error


def _plain(record: BranchReport | Compensation | Abandonment) -> dict[str, Any]:
    # Not `asdict`: it would copy tenants and exceptions.
    names = [name for name in record.__dataclass_fields__ if name != "action"]
    return {name: _json(getattr(record, name)) for name in names}


def _json(value: object) -> object:
    if isinstance(value, BaseException):
        return {"type": type(value).__name__, "message": text(value)}
    return plain_key(value)
