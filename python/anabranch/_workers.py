"""The persistent tasks in which `async def` handlers run.

Each leg with an asynchronous handler has a crew. Its workers draw single units from the leg's
feed, so a handler that never suspends costs one `await` and no task; another worker is roused only
when those at work have suspended.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from anabranch import _core
from anabranch._landing import land
from anabranch._watch import is_stepped

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from anabranch._weave import Woven

T = TypeVar("T")


def owned(task: asyncio.Task[T]) -> asyncio.Task[T]:
    """Let asyncio say nothing of a task whose loop was closed under it: its run tells of that."""
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001 - as asyncio.gather does
    return task


# Workers roused at once, at most: enough to fill any crew within a few turns of the loop.
_MOST_AT_ONCE = 64


class Crew:
    """The workers of one leg.

    Args:
        run: The run.
        leg: The leg's number.
        port: The leg's port.
        role: The stage's kind.
        handler: The user's callable.
        woven: The handler with the stages in front of it, if they are one function.
        takes_ctx: Whether it takes `ctx`.
        sequential: Whether each branch has one unit in flight at a time.
        most: How many workers there may be.
        kick: Tells the driver that there may be something to do.
        interrupted: Told of a KeyboardInterrupt or SystemExit a handler raised.
    """

    def __init__(
        self,
        run: _core.Run,
        *,
        leg: int,
        port: int,
        role: str,
        handler: Callable[..., Awaitable[Any]],
        woven: Woven | None,
        takes_ctx: bool,
        sequential: bool,
        most: int,
        kick: Callable[[], None],
        interrupted: Callable[[BaseException], None],
    ) -> None:
        self._run = run
        self._leg = leg
        self._port = port
        self._role = role
        self._handler = handler
        self._woven = woven
        self._takes_ctx = takes_ctx
        self._sequential = sequential
        self._most = most
        self._kick = kick
        self._interrupted = interrupted
        self._tasks: set[asyncio.Task[None]] = set()
        self._feeds: dict[asyncio.Task[None], _core.Feed] = {}
        # Workers whose handler did not end after its timeout. They count as workers still: a
        # handler that is always stuck must not make ever more of them.
        self._abandoned: set[asyncio.Task[None]] = set()
        self._resting: list[tuple[asyncio.Future[None], asyncio.Task[None]]] = []
        # Workers that have been roused, or have yielded, and have not looked at the feed since.
        # Tasks, not a number: one that is cancelled meanwhile leaves with its end.
        self._awake: set[asyncio.Task[None]] = set()
        # How many to rouse: more each time those at work have all suspended, one again as soon as
        # somebody finds the feed empty.
        self._next = 1

    def rouse(self) -> bool:
        """Rouse workers if units wait and all who are awake have suspended.

        Returns:
            Whether units wait that someone is about to take.
        """
        if not self._run.waiting(self._port):
            return False
        if self._awake:
            return True
        for _ in range(self._next):
            if self._resting:
                future, task = self._resting.pop()
                if future.done():  # its worker has just been cancelled
                    continue
                future.set_result(None)
            elif len(self._tasks) + len(self._abandoned) < self._most:
                task = owned(asyncio.get_running_loop().create_task(self._work()))
                self._tasks.add(task)
                task.add_done_callback(self._ended)
            else:
                break
            self._awake.add(task)
        self._next = min(self._next * 2, _MOST_AT_ONCE)
        return bool(self._awake)

    def copied(self) -> None:
        """This process is a fork: the workers' batches are the parent's."""
        for feed in tuple(self._feeds.values()):
            feed.copied()

    @property
    def leg(self) -> int:
        """The number of the leg."""
        return self._leg

    def time_out(self, attempt: int, *, abandoned: bool) -> bool:
        """Cancel the worker whose attempt is overdue, or leave it behind.

        Args:
            attempt: The number of the attempt.
            abandoned: Whether its grace is over, too.

        Returns:
            Whether it is one of this crew's.
        """
        for task, feed in self._feeds.items():
            if not abandoned and feed.expire(attempt):
                task.cancel()
                return True
            if abandoned and feed.abandon(attempt):
                self._tasks.discard(task)
                self._awake.discard(task)
                self._abandoned.add(task)
                return True
        return False

    def forsake(self, error: BaseException, seconds: float) -> bool:
        """Leave the workers behind that do not end though they have been cancelled.

        Args:
            error: What their units fail with.
            seconds: How long ago the run was aborted.

        Returns:
            Whether there are others, begun since then: these are cancelled now.
        """
        others = False
        for task, feed in tuple(self._feeds.items()):
            if task not in self._tasks:
                continue
            if not task.cancelling():
                task.cancel()
                others = True
            elif feed.forsake(error, seconds):
                self._tasks.discard(task)
                self._awake.discard(task)
                self._abandoned.add(task)
        return others

    def cancel(self) -> None:
        """Cancel all workers; what they have in hand fails as cancelled."""
        for task in (*self._tasks, *self._abandoned):
            task.cancel()

    @property
    def tasks(self) -> frozenset[asyncio.Task[None]]:
        """The workers that can be waited for."""
        return frozenset(self._tasks)

    @property
    def abandoned(self) -> frozenset[asyncio.Task[None]]:
        """The workers that were left behind."""
        return frozenset(self._abandoned)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._awake.discard(task)
        self._abandoned.discard(task)
        self._feeds.pop(task, None)

    async def _work(self) -> None:
        me = asyncio.current_task()
        assert me is not None  # noqa: S101 - for the type: a coroutine of a task
        feed = _core.Feed(self._run, self._leg, woven=self._woven is not None)
        self._feeds[me] = feed
        handler, serve = self._handler, self._way()
        try:
            while True:
                self._awake.discard(me)
                try:
                    if serve is None:
                        # Here: a coroutine in between would cost at each resumption.
                        for unit in feed:
                            if (given := await handler(unit)) is not None:
                                land(given)
                    else:
                        await serve(feed, handler)
                except (KeyboardInterrupt, SystemExit) as error:
                    feed.failed(error)
                    self._interrupted(error)
                    return
                except BaseException as error:
                    if isinstance(error, GeneratorExit) and not is_stepped(me):
                        feed.failed(asyncio.CancelledError("the event loop was closed"))
                        raise
                    if not self._fail(feed, me, error):
                        return
                    continue
                if not await self._rest(feed, me):
                    return
        finally:
            # A signal handler may have raised between two of our own lines.
            feed.failed(asyncio.CancelledError())
            self._kick()

    def _way(self) -> Callable[..., Awaitable[None]] | None:
        """Return what takes the units of a feed to the handler; None where nothing need."""
        if self._woven is not None:
            return self._serve_woven
        if self._role == "for_each" and not self._takes_ctx:
            return _serve_batches if self._sequential else None
        return self._serve

    def _failed(self, feed: _core.Feed, error: BaseException) -> bool:
        if self._woven is None:
            return feed.failed(error)
        cause = error.__cause__
        if isinstance(cause, StopIteration) and self._woven.stage_of(cause) is not None:
            # A stage has raised it, and Python wrapped it: a coroutine may not.
            error = cause
        return feed.failed(error, self._woven.stage_of(error))

    async def _serve_woven(self, feed: _core.Feed, _handler: Callable[..., Awaitable[Any]]) -> None:
        filtered = feed.filtered
        assert self._woven is not None and filtered is not None  # noqa: S101, PT018 - for the types
        while (batch := feed.batch()) is not None:
            await self._woven.function(batch, filtered)

    def _fail(self, feed: _core.Feed, me: asyncio.Task[None], error: BaseException) -> bool:
        """Give back what is in hand; return whether to go on."""
        # Our own cancellation, at a timeout, is taken back. If there is another one, that comes
        # first.
        if feed.was_cancelled() and me.uncancel():
            feed.acquit()
        in_hand = self._failed(feed, error)
        if feed.abandoned():
            return False
        if isinstance(error, asyncio.CancelledError) and me.cancelling():
            return False
        if not in_hand:  # no handler's error: going on would go round for ever
            self._interrupted(error)
            return False
        return True

    async def _serve(self, feed: _core.Feed, handler: Callable[..., Awaitable[Any]]) -> None:
        if self._takes_ctx:
            for unit in feed:
                feed.done(await handler(unit, ctx=feed.context()))
        else:
            for unit in feed:
                feed.done(await handler(unit))

    async def _rest(self, feed: _core.Feed, me: asyncio.Task[None]) -> bool:
        """Wait until there is something in the feed; return whether to go on."""
        if feed.was_cancelled():
            # The attempt had timed out, and its handler has returned all the same.
            return not (me.uncancel() or feed.abandoned())
        try:
            if feed.yielded():
                self._awake.add(me)
                await asyncio.sleep(0)
            else:
                self._next = 1
                future = asyncio.get_running_loop().create_future()
                self._resting.append((future, me))
                self._kick()
                await future
        except asyncio.CancelledError:
            return False
        return True


async def _serve_batches(feed: _core.Feed, handler: Callable[..., Awaitable[Any]]) -> None:
    while True:
        while (batch := feed.batch()) is not None:
            for unit in batch:
                if (given := await handler(unit)) is not None:
                    land(given)
        # What comes alone: a further attempt, an item with a history.
        for unit in feed:
            land(await handler(unit))
            break
        else:
            return
