"""The numbers of outboxes and of workers as metrics, and the text that Prometheus reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from anabranch._metrics import METRICS, Metric, full_name, line, series_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from anabranch._metrics import Sample
    from anabranch._outbox.operations import Operations
    from anabranch._outbox.store import Ages
    from anabranch._rows import PipelineRow


class Meter:
    """What a worker does with one store, in numbers since it began; of one event loop."""

    def __init__(self) -> None:
        self.claims = 0
        self.claim_seconds = 0.0
        self.claimed = 0
        self.writes = 0
        self.write_seconds = 0.0
        self.outcomes: dict[str, int] = {}

    def claim(self, count: int, seconds: float) -> None:
        """A claim has brought so many messages."""
        self.claims += 1
        self.claimed += count
        self.claim_seconds += seconds

    def write(self, outcome: str, count: int, seconds: float) -> None:
        """What became of so many messages was written."""
        self.writes += 1
        self.write_seconds += seconds
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + count


class OutboxRow:
    """What a store tells of itself; it is asked for each number when that is read."""

    def __init__(self, label: str, outbox: Operations) -> None:
        self.label = label
        self._outbox = outbox

    @property
    def counts(self) -> dict[str, dict[Any, int]]:
        """Messages by topic and status."""
        return dict(self._outbox.counts())

    @property
    def ages(self) -> Ages:
        """How long the first messages have waited."""
        return self._outbox.ages()

    @property
    def workers(self) -> int:
        """How many are at work."""
        return len(self._outbox.workers())

    @property
    def paused(self) -> Sequence[str]:
        """The topics that are paused."""
        return [it.topic for it in self._outbox.paused()]


@dataclass(slots=True)
class PostRow:
    """What a worker tells of one of its stores."""

    label: str
    tenant: object
    in_hand: int
    resting: bool
    meter: Meter = field(default_factory=Meter)


def _messages(row: OutboxRow) -> Iterator[Sample]:
    for topic, counts in row.counts.items():
        for status, count in counts.items():
            if status != "done":
                yield {"topic": topic, "status": status}, count


def _done(row: OutboxRow) -> Iterator[Sample]:
    for topic, counts in row.counts.items():
        if "done" in counts:
            yield {"topic": topic}, counts["done"]


def _one(read: Callable[[Any], float | None]) -> Callable[[Any], Iterator[Sample]]:
    def sample(row: Any) -> Iterator[Sample]:  # noqa: ANN401 - of either kind
        value = read(row)
        if value is not None:
            yield {}, value

    return sample


def _paused(row: OutboxRow) -> Iterator[Sample]:
    for topic in row.paused:
        yield {"topic": topic}, 1


def _outcomes(row: PostRow) -> Iterator[Sample]:
    for outcome, count in row.meter.outcomes.items():
        yield {"outcome": outcome}, count


OUTBOX: Final = (
    Metric("outbox_messages", "gauge", "", "Messages, by topic and status.", _messages),
    Metric("outbox_done", "counter", "", "Messages that are handled.", _done),
    Metric(
        "outbox_oldest_ready",
        "gauge",
        "seconds",
        "How long the message has been due that waits longest, of those that could be handled.",
        _one(lambda row: row.ages.ready or 0.0),
    ),
    Metric(
        "outbox_longest_held",
        "gauge",
        "seconds",
        "How long the message is held that is held longest.",
        _one(lambda row: row.ages.held or 0.0),
    ),
    Metric("outbox_paused", "gauge", "", "Topics that are paused.", _paused),
    Metric("outbox_workers", "gauge", "", "Workers at work.", _one(lambda row: row.workers)),
)
"""Of each outbox."""

WORKER: Final = (
    Metric("outbox_claims", "counter", "", "Claims.", _one(lambda row: row.meter.claims)),
    Metric(
        "outbox_claimed", "counter", "", "Messages claimed.", _one(lambda row: row.meter.claimed)
    ),
    Metric(
        "outbox_claim",
        "counter",
        "seconds",
        "Time that claims took.",
        _one(lambda row: row.meter.claim_seconds),
    ),
    Metric(
        "outbox_writes", "counter", "", "Acks and the like.", _one(lambda row: row.meter.writes)
    ),
    Metric(
        "outbox_write",
        "counter",
        "seconds",
        "Time that acks and the like took.",
        _one(lambda row: row.meter.write_seconds),
    ),
    Metric("outbox_outcomes", "counter", "", "What became of claimed messages.", _outcomes),
    Metric("outbox_in_hand", "gauge", "", "Messages held.", _one(lambda row: row.in_hand)),
    Metric(
        "outbox_resting",
        "gauge",
        "",
        "Whether the store does not work and is left alone for a while.",
        _one(lambda row: int(row.resting)),
    ),
)
"""Of each store of a worker."""


def reading(outbox: Operations) -> OutboxRow:
    """Return what there is to tell of an outbox; over a connection of its own."""
    return OutboxRow(outbox._store.label, outbox)  # noqa: SLF001 - the package's


def outbox_text(row: OutboxRow) -> str:
    """Return the text that Prometheus reads, of an outbox."""
    return "\n".join(_lines(OUTBOX, [({"outbox": row.label}, row)])) + "\n"


def worker_text(name: str, posts: Sequence[PostRow], pipelines: Sequence[PipelineRow]) -> str:
    """Return the text that Prometheus reads, of a worker: its stores, then its pipelines."""
    rows = [(labels_of(name, row), row) for row in posts]
    lines = list(_lines(WORKER, rows))
    lines += series_lines(METRICS, pipelines)
    return "\n".join(lines) + "\n"


def labels_of(worker: str, row: PostRow) -> dict[str, str]:
    """Return what a worker's numbers of a store are told apart by."""
    tenant = {} if row.tenant is None else {"tenant": str(row.tenant)}
    return {"worker": worker, "outbox": row.label} | tenant


def _lines(metrics: Sequence[Metric], rows: Sequence[tuple[dict[str, str], Any]]) -> Iterator[str]:
    for metric in metrics:
        name = full_name(metric)
        yield f"# HELP {name} {metric.help}"
        yield f"# TYPE {name} {metric.kind}"
        for labels, row in rows:
            for more, value in metric.read(row):
                yield line(name, labels | dict(more), value)
