"""What `collect_errors` keeps while a run goes on, and whom it tells."""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from anabranch._watch import is_stepped
from anabranch._workers import owned
from anabranch.counts import ErrorSummary

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from anabranch._stages import Stage
    from anabranch.failure import Failure

_logger = logging.getLogger("anabranch")
_RAISED: Final = "pipeline %r, stage %r: who is told of the errors raised"


class ErrorCollector:
    """The failures one `collect_errors` has seen: counts that are exact, and a few samples.

    Periods are counted from the start of the run. One in which nothing failed is not told of, so
    a run without failures sets no timer.

    Args:
        pipeline: The pipeline's name.
        stage: The stage.
        now: Tells the time of the run's clock, in seconds.
    """

    def __init__(self, pipeline: str, stage: Stage, now: Callable[[], float]) -> None:
        self._pipeline = pipeline
        self._stage = stage
        self._now = now
        self._start = now()
        self._every: float | None = stage.options["every"]
        self._most: int = stage.options["samples"]
        self._told: Callable[[ErrorSummary], Any] | None = stage.options["told"]
        self._whole: tuple[Counter[str], list[Failure]] = (Counter(), [])
        self._period: tuple[Counter[str], list[Failure]] = (Counter(), [])
        self._began = 0.0
        self._due = math.inf
        self._telling: asyncio.Task[None] | None = None

    def __call__(self, failure: Failure) -> None:
        """Count a failure."""
        for codes, samples in (self._whole, self._period):
            codes[failure.code] += failure.items
            if len(samples) < self._most:
                samples.append(failure)
        if self._every is not None and self._due == math.inf:
            since = self._now() - self._start
            self._due = self._start + (since // self._every + 1) * self._every

    @property
    def due(self) -> float:
        """When somebody is to be told next, by the run's clock; infinity for not yet."""
        return math.inf if self._telling is not None else self._due

    def whole(self) -> ErrorSummary:
        """Return what was seen in the whole run."""
        codes, samples = self._whole
        return self._summary(codes, samples, 0.0)

    def tell(
        self,
        loop: asyncio.AbstractEventLoop | None,
        kick: Callable[[], None],
        interrupted: Callable[[BaseException], None],
    ) -> None:
        """Tell of the period that is over.

        Args:
            loop: The running loop, if there is one.
            kick: Tells the driver that it has been told of.
            interrupted: Told of a KeyboardInterrupt or SystemExit that was raised meanwhile.
        """
        pending = self._call()
        if pending is None:
            return
        if loop is None:
            _refuse(pending)
            return
        self._telling = owned(loop.create_task(self._wait(pending, interrupted)))

        def done(_: asyncio.Task[None]) -> None:
            self._telling = None
            kick()

        self._telling.add_done_callback(done)

    def end(self) -> None:
        """Tell of the last period where nothing can be awaited."""
        if self._period[0] and (pending := self._call()) is not None:
            _refuse(pending)

    async def finish(
        self, kick: Callable[[], None], interrupted: Callable[[BaseException], None]
    ) -> None:
        """Wait for who is being told, and tell of the last period; the arguments are `tell`'s."""
        if self._telling is not None:
            await asyncio.wait([self._telling])
        if self._period[0]:
            self.tell(asyncio.get_running_loop(), kick, interrupted)
        if self._telling is not None:
            await asyncio.wait([self._telling])

    def _call(self) -> Awaitable[Any] | None:
        codes, samples = self._period
        summary = self._summary(codes, samples, self._began)
        self._period = (Counter(), [])
        self._began = summary.ended
        self._due = math.inf
        if self._told is None:
            return None
        try:
            result = self._told(summary)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:
            _logger.exception(_RAISED, self._pipeline, self._stage.name)
            return None
        return result if inspect.isawaitable(result) else None

    async def _wait(
        self, pending: Awaitable[Any], interrupted: Callable[[BaseException], None]
    ) -> None:
        me = asyncio.current_task()
        assert me is not None  # noqa: S101 - for the type: a coroutine of a task
        try:
            await pending
        except (KeyboardInterrupt, SystemExit) as error:
            interrupted(error)
        except BaseException as error:
            cancelled = isinstance(error, asyncio.CancelledError) and me.cancelling()
            if cancelled or (isinstance(error, GeneratorExit) and not is_stepped(me)):
                # The loop shuts down, or was closed under the run, which says so itself.
                raise
            _logger.exception(_RAISED, self._pipeline, self._stage.name)

    def _summary(
        self, codes: Counter[str], samples: Sequence[Failure], began: float
    ) -> ErrorSummary:
        return ErrorSummary(
            pipeline=self._pipeline,
            stage=self._stage.name,
            codes=dict(codes),
            failures=tuple(samples),
            began=began,
            ended=self._now() - self._start,
        )


def _refuse(pending: Awaitable[Any]) -> None:
    """Nobody can await it: a `def` has returned it in a run without an event loop."""
    if inspect.iscoroutine(pending):
        pending.close()
    _logger.error("collect_errors: to must be an `async def` for its result to be awaited")
