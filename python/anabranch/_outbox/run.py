"""One run of a worker: its lanes and its office, from their beginning to their end."""

from __future__ import annotations

import asyncio
import signal
import threading
from typing import TYPE_CHECKING, Any, Final, cast

from anabranch._outbox.office import Office

if TYPE_CHECKING:
    from collections.abc import Callable

    from anabranch._outbox.lane import Lane
    from anabranch._outbox.metrics import PostRow
    from anabranch._outbox.terms import Terms
    from anabranch._rows import PipelineRow
    from anabranch.report import Report
    from anabranch.router import OutboxRouter

# Seconds that stores have to take what became of messages, once nobody is at work any more.
_PATIENCE: Final = 5.0


class Run:
    """One run of a worker."""

    def __init__(
        self,
        ended: Callable[[], object],
        router: OutboxRouter,
        lanes: dict[str, Lane],
        terms: Terms,
    ) -> None:
        self._ended = ended
        self._router = router
        self._lanes = lanes
        self._terms = terms
        self._office: Office | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped = False
        self.task: asyncio.Task[Any] | None = None

    @property
    def claimed(self) -> int:
        return 0 if self._office is None else self._office.claimed

    def rows(self) -> tuple[list[PostRow], list[PipelineRow]]:
        """Tell the numbers of its stores and of its pipelines; from any thread."""
        posts = [] if self._office is None else self._office.rows()
        rows = [lane.row() for lane in self._lanes.values()]
        return posts, [row for row in rows if row is not None]

    def stop(self) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop)
        else:
            self._stopped = True

    def _stop(self) -> None:
        if self._stopped and self._loop is None:
            return
        self._stopped = True
        for lane in self._lanes.values():
            lane.stop()
        if self._office is not None:
            self._office.stop()

    async def run(self) -> dict[str, Report[Any]]:
        loop = asyncio.get_running_loop()
        office = self._office = Office(self._router, self._lanes, self._terms)
        courses = [loop.create_task(lane.run()) for lane in self._lanes.values()]
        feed = loop.create_task(office.run())
        self._loop = loop
        unheed = self._heed(loop, courses)
        try:
            if self._stopped:
                self._stop()
            await self._until_over(office, courses, feed)
        finally:
            unheed()
            await self._close(office, courses, feed)
        for course in courses:
            course.result()
        if not feed.cancelled():
            feed.result()
        return {
            name: cast("Report[Any]", lane.pipeline.last_report)
            for name, lane in self._lanes.items()
        }

    def _heed(
        self, loop: asyncio.AbstractEventLoop, courses: list[asyncio.Task[Any]]
    ) -> Callable[[], object]:
        """Stop at SIGTERM, at once at the second one; return what ends that.

        The pipelines would drain, and handle all that was claimed; so it is taken from them.
        """

        def told() -> None:
            if self._stopped:
                for course in courses:
                    course.cancel()
            self._stop()

        mine = threading.current_thread() is threading.main_thread()
        if not mine or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
            return lambda: None
        loop.add_signal_handler(signal.SIGTERM, told)
        return lambda: loop.remove_signal_handler(signal.SIGTERM)

    async def _until_over(
        self, office: Office, courses: list[asyncio.Task[Any]], feed: asyncio.Task[None]
    ) -> None:
        """Wait until all that was claimed has ended; a pipeline that ends by itself stops all."""
        working: set[asyncio.Task[Any]] = {*courses, feed}
        while feed in working:
            done, working = await asyncio.wait(working, return_when=asyncio.FIRST_COMPLETED)
            if any(course in done for course in courses):
                # Drained by a signal, or ended by what a handler has raised.
                self._stop()
                if all(course.done() for course in courses):
                    office.give_back()
                    await asyncio.wait([feed], timeout=_PATIENCE)
                    return
        self._stop()

    async def _close(
        self, office: Office, courses: list[asyncio.Task[Any]], feed: asyncio.Task[None]
    ) -> None:
        self._stop()
        cut = asyncio.current_task()
        if cut is not None and cut.cancelling():
            for course in courses:
                course.cancel()
        await asyncio.wait(courses)
        # Where nothing is wrong it has ended; what it would still wait for will not come.
        feed.cancel()
        await asyncio.wait([feed])
        await office.close()
        self._loop = None
        self._ended()
