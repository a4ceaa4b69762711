"""One run of a worker: its lanes and its posts, from their beginning to their end."""

from __future__ import annotations

import asyncio
import signal
import threading
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anabranch._outbox_inline import InlinePost
    from anabranch._outbox_lane import Lane
    from anabranch._outbox_post import Post
    from anabranch.outbox import Outbox
    from anabranch.report import Report

# Seconds that stores have to take what became of messages, once nobody is at work any more.
_PATIENCE: Final = 5.0


class Run:
    """One run of a worker."""

    def __init__(
        self,
        ended: Callable[[], object],
        posts: Sequence[Post | InlinePost],
        lanes: dict[str, Lane],
        outboxes: list[Outbox],
    ) -> None:
        self._ended = ended
        self._posts = posts
        self._lanes = lanes
        self._outboxes = outboxes
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped = False
        self.task: asyncio.Task[Any] | None = None

    @property
    def claimed(self) -> int:
        return sum(post.claimed for post in self._posts)

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
        for post in self._posts:
            post.stop()

    async def run(self) -> dict[str, Report[Any]]:
        loop = asyncio.get_running_loop()
        closers: list[Callable[[], object]] = []
        courses: list[asyncio.Task[Any]] = []
        feeds: list[asyncio.Task[None]] = []
        try:
            for post in self._posts:
                post.begin()
            for post, outbox in zip(self._posts, self._outboxes, strict=True):
                closers.append(outbox._listen(post.heard))  # noqa: SLF001 - as above
            self._loop = loop
            closers.append(self._heed(loop, courses))
            courses += [loop.create_task(lane.pipeline.run()) for lane in self._lanes.values()]
            feeds += [loop.create_task(post.run()) for post in self._posts]
            if self._stopped:
                self._stop()
            await self._until_over(courses, feeds)
        finally:
            for close in closers:
                close()
            await self._close(courses, feeds)
        for course in courses:
            course.result()
        for feed in feeds:
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
        self, courses: list[asyncio.Task[Any]], feeds: list[asyncio.Task[None]]
    ) -> None:
        """Wait until all that was claimed has ended; a pipeline that ends by itself stops all."""
        working: set[asyncio.Task[Any]] = {*courses, *feeds}
        while any(feed in working for feed in feeds):
            done, working = await asyncio.wait(working, return_when=asyncio.FIRST_COMPLETED)
            if any(course in done for course in courses):
                # Drained by a signal, or ended by what a handler has raised.
                self._stop()
                if all(course.done() for course in courses):
                    for post in self._posts:
                        post.give_back()
                    await asyncio.wait(feeds, timeout=_PATIENCE)
                    return
            if any(feed in done and feed.exception() for feed in feeds):
                self._stop()
                return

    async def _close(
        self, courses: list[asyncio.Task[Any]], feeds: list[asyncio.Task[None]]
    ) -> None:
        self._stop()
        cut = asyncio.current_task()
        if cut is not None and cut.cancelling():
            for course in courses:
                course.cancel()
        if courses:
            await asyncio.wait(courses)
        # Where nothing is wrong they have ended; what they would still wait for will not come.
        for feed in feeds:
            feed.cancel()
        if feeds:
            await asyncio.wait(feeds)
        for post in self._posts:
            await post.close()
        self._loop = None
        self._ended()
