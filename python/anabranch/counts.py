"""What became of the items, in numbers: of a branch, of a stage's errors, of the whole run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast, overload

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anabranch.failure import Failure


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
