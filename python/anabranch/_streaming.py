"""`Stream`: a pipeline whose outcomes are read as they come, each as a Result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Self, TypeVar

from anabranch.channel import Channel
from anabranch.errors import ClosedError
from anabranch.result import Err, Ok, Result

if TYPE_CHECKING:
    from types import TracebackType

    from anabranch._running import Running
    from anabranch.failure import Failure
    from anabranch.pipeline import Pipeline
    from anabranch.report import Report

T = TypeVar("T")


class Stream(Generic[T]):
    """What becomes of each item of a pipeline, as it comes; made by `Pipeline.results`.

    An async context manager, which runs the pipeline while its block lasts, and gives itself.
    Iterate over it by `async for`: an item that has come to the end is an `Ok`, a failure that no
    stage has taken an `Err`. The iteration ends with the run; if that was aborted, or has failed as
    a whole, it raises PipelineFailed behind the last Result. A block that is left before its end
    aborts the run.
    """

    def __init__(self, pipeline: Pipeline[T], capacity: int) -> None:
        self._name = pipeline.name
        results: Channel[Result[T]] = Channel(capacity, name="results")

        async def keep(item: T) -> None:
            await results.send(Ok(item))

        async def note(failure: Failure) -> None:
            await results.send(Err(failure))

        ended = pipeline._called(  # noqa: SLF001 - as `for_each` does
            "for_each",
            keep,
            "results",
            None,
            live={"closes": results},
            concurrency=1,
            inline=False,
            timeout=None,
            on_error=None,
        )
        self._results = results
        self._pipeline: Pipeline[T] = ended.tap_error(note, name="errors")
        self._running: Running[T] | None = None

    async def __aenter__(self) -> Self:
        """Begin to run the pipeline."""
        running = self._pipeline.start()
        await running.__aenter__()
        self._running = running
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the run: nobody reads what would come."""
        running = self._begun()
        if running.report is None:
            running.abort()
        await running.__aexit__(kind, error, traceback)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Result[T]:
        """Wait for what becomes of the next item.

        Raises:
            PipelineFailed: The run was aborted, or has failed as a whole.
        """
        self._begun()
        return await anext(self._results)

    @property
    def report(self) -> Report[T] | None:
        """The report; None before the end of the run."""
        return None if self._running is None else self._running.report

    def _begun(self) -> Running[T]:
        if self._running is None:
            raise ClosedError(
                f"the results of pipeline {self._name!r} are read inside `async with`, which runs "
                "it: async with pipeline.results() as results"
            )
        return self._running
