"""The numbers of pipelines as OpenTelemetry metrics: `pip install anabranch[otel]`.

Nothing of OpenTelemetry is imported before `export` is called.

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
from anabranch.errors import AttachError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from anabranch._rows import PipelineRow
    from anabranch._running import Running


@contextmanager
def export(
    running: Running[Any], *, meter_provider: object = None, branches: bool = False
) -> Generator[None]:
    """Offer the numbers of a pipeline to the readers of a meter provider, while inside the block.

    They are read when a reader asks for them, on its thread, and hold up nothing. After the block,
    or once the process has forgotten the pipeline, nothing is observed of it.

    Args:
        running: The pipeline.
        meter_provider: Yours; the global one by default.
        branches: Whether each tenant has numbers of its own, too: with many of them it is much.

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

    def numbers() -> PipelineRow | None:
        try:
            return running.snapshot(branches=branches) if open_[0] else None
        except AttachError:
            return None

    def observe(metric: Metric) -> Callable[[Any], Iterable[Any]]:
        def observed(_options: object) -> Iterable[Any]:
            row = numbers()
            if row is None:
                return
            for labels, value in metric.read(row):
                yield metrics.Observation(value, {"pipeline": row.name, **labels})

        return observed

    for metric in METRICS + (BRANCHES if branches else ()):
        make = (
            meter.create_observable_counter
            if metric.kind == "counter"
            else meter.create_observable_gauge
        )
        unit = {"seconds": "s"}.get(metric.unit, metric.unit)
        name = f"anabranch.{metric.name}"
        make(name, [observe(metric)], unit=unit, description=metric.help)
    try:
        yield
    finally:
        open_[0] = False
