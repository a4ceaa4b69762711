"""What a monitor tells, as rows: one class for each thing that is told of.

Times are seconds since 1970 where they are points, and seconds where they are spans.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


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
        stuck: Undo actions that could not be done, and wait for an operator.
        since: When anything here has changed last.
        entered: When it came into its state.
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
    stuck: int
    windows: int
    window: int | None
    window_size: int | None
    window_age: float | None
    window_max_age: float | None
    blocked: float
    last_error: str | None
    last_error_at: float | None
    since: float
    entered: float
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
class LetterRow:
    """A dead letter of an outbox; what it holds is not told here, but in answer to `dl.peek`.

    Attributes:
        error: What its last attempt has raised.
        at: When it died.
    """

    id: int
    topic: str
    attempts: int
    error: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxRow:
    """An outbox of a process, as it was read a second ago at most.

    Attributes:
        tenant: Its key, if it is one of several that a worker serves.
        state: `up`, `down` if its database cannot be read, `new` if that was not tried yet.
        scheduled: Messages that are due later, or tried again later.
        lag: Seconds that the oldest ready message has waited; None if there is none.
        lease_expires: When the next lease is over; None if there is none.
        read: When these numbers were read; None if they were not.
        workers: Workers at work on it, wherever they run; None if it was not read.
        paused: Topics that are paused, as they were named; `*` is all of them.
        resting: Whether the worker of the process leaves it alone for a while, because it does not
            work.
        letters: Its dead letters, those with the lowest ids first; 100 at most.
    """

    name: str
    tenant: str | None
    state: str
    ready: int
    leased: int
    scheduled: int
    dead: int
    lag: float | None
    lease_expires: float | None
    read: float | None
    workers: int | None
    paused: tuple[str, ...]
    resting: bool
    letters: tuple[LetterRow, ...]


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
        log: The last entries of its log: 4096 at most.
        lost: Entries of the log that were lost because there were too many.
    """

    process: ProcessInfo
    at: float
    memory: int
    pipelines: tuple[PipelineRow, ...]
    outboxes: tuple[OutboxRow, ...]
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

    def outbox(self, name: str | None = None) -> OutboxRow:
        """Return the outbox of a name, or the only one.

        Raises:
            KeyError: There is none, or more than one.
        """
        found = [it for it in self.outboxes if name in (None, it.name)]
        if len(found) != 1:
            raise KeyError(name)
        return found[0]
