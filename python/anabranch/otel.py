"""The numbers of pipelines, outboxes and workers as OpenTelemetry metrics.

`pip install anabranch[otel]`. Nothing of OpenTelemetry is imported before `export` is called.

Example:
    ```python
    from opentelemetry.sdk.metrics import MeterProvider
    from anabranch import otel

    with otel.export(running, meter_provider=MeterProvider(metric_readers=[reader])):
        await running.wait()
    ```
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from anabranch import __version__
from anabranch._metrics import BRANCHES, METRICS, Metric
from anabranch._outbox.metrics import OUTBOX, WORKER, labels_of, reading
from anabranch.errors import AttachError, OutboxError
from anabranch.outbox import Outbox
from anabranch.worker import OutboxWorker

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
    from typing import TypeAlias

    from anabranch._running import Running

    # Metrics, and what they are read from now, with its labels.
    Row: TypeAlias = tuple[dict[str, str], Any]
    Series: TypeAlias = tuple[Sequence[Metric], Callable[[], Iterable[Row]]]


@contextmanager
def export(
    *subjects: Running[Any] | Outbox | OutboxWorker,
    meter_provider: object = None,
    branches: bool = False,
) -> Generator[None]:
    """Offer numbers to the readers of a meter provider, while inside the block.

    They are read when a reader asks for them, on its thread. Those of a pipeline or a worker hold
    up nothing; those of an outbox ask its database, and are left out while that does not answer.
    After the block, or once the process has forgotten a pipeline, nothing is observed any more.

    Args:
        subjects: Pipelines that run; outboxes, or tenants' parts of them; workers, with their
            subscribers' pipelines. All that one provider is to have, in one call: of a metric that
            it has already OpenTelemetry takes no other one.
        meter_provider: Yours; the global one by default.
        branches: Whether each tenant of a pipeline has numbers of its own, too: with many of them
            it is much.

    Raises:
        ImportError: OpenTelemetry is not installed.
    """
    try:
        from opentelemetry import metrics
    except ImportError as error:
        message = "OpenTelemetry is not installed: pip install anabranch[otel]"
        raise ImportError(message, name=error.name) from error
    provider: Any = meter_provider or metrics.get_meter_provider()
    meter = provider.get_meter("anabranch", __version__)
    open_ = [True]

    callbacks: dict[Metric, list[Callable[[Any], Iterable[Any]]]] = {}
    for subject in subjects:
        for family, rows in _series(subject, branches=branches):
            for metric in family:
                callbacks.setdefault(metric, []).append(
                    _observer(metrics.Observation, metric, rows, open_)
                )
    for metric, each in callbacks.items():
        _offer(meter, metric, each)
    try:
        yield
    finally:
        open_[0] = False


def _observer(
    made: Callable[..., Any], metric: Metric, rows: Callable[[], Iterable[Row]], open_: list[bool]
) -> Callable[[Any], Iterable[Any]]:
    """Return what a reader calls for a metric of a subject, as long as the block is open."""

    def observed(_options: object) -> Iterable[Any]:
        try:
            for labels, row in rows() if open_[0] else ():
                for more, value in metric.read(row):
                    yield made(value, {**labels, **more})
        except (AttachError, OutboxError):
            return

    return observed


def _offer(meter: Any, metric: Metric, callbacks: Sequence[Callable[[Any], Iterable[Any]]]) -> None:  # noqa: ANN401 - OpenTelemetry's
    counts = metric.kind == "counter"
    make = meter.create_observable_counter if counts else meter.create_observable_gauge
    unit = {"seconds": "s"}.get(metric.unit, metric.unit)
    make(f"anabranch.{metric.name}", callbacks, unit=unit, description=metric.help)


def _series(subject: Running[Any] | Outbox | OutboxWorker, *, branches: bool) -> Iterator[Series]:
    pipelines = METRICS + (BRANCHES if branches else ())
    if isinstance(subject, Outbox):
        row = reading(subject)
        yield OUTBOX, lambda: [({"outbox": row.label}, row)]
    elif isinstance(subject, OutboxWorker):
        name = subject.name

        def posts() -> Iterator[Row]:
            for post in subject._rows()[0]:  # noqa: SLF001 - the package's
                yield labels_of(name, post), post

        def lanes() -> Iterator[Row]:
            for lane in subject._rows()[1]:  # noqa: SLF001 - as above
                yield {"pipeline": lane.name}, lane

        yield WORKER, posts
        # Of their branches nothing is read: a worker's are its tenants, which have numbers above.
        yield METRICS, lanes
    else:

        def running() -> Iterator[Row]:
            numbers = subject.snapshot(branches=branches)
            yield {"pipeline": numbers.name}, numbers

        yield pipelines, running
