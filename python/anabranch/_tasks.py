"""The tasks of a run in an event loop: its crews, single jobs, and the pump of its source."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import inspect
import logging
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from anabranch._pump import Pump
from anabranch._watch import is_stepped
from anabranch._workers import Crew, owned

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Iterable, Sequence

    from anabranch import _core
    from anabranch._legs import Leg

_logger = logging.getLogger("anabranch")

# Seconds that closing waits for coroutines which were left behind.
_LAST_CHANCE: Final = 0.5
# The same where nothing is to be waited for: turns enough for those that heed their cancellation.
_LEAVING: Final = 0.05


class Tasks:
    """All tasks of one run but the driver's own.

    Args:
        loop: The running loop.
        run: The run.
        legs: Its legs.
        pipeline: The pipeline's name.
        stages: The names of its stages.
        source: The user's async iterable, if that is the source.
        most: How many workers a crew may have.
        kick: Tells the driver that there may be something to do.
        interrupted: Told of a KeyboardInterrupt or SystemExit user code raised.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        run: _core.Run,
        legs: Sequence[Leg],
        *,
        pipeline: str,
        stages: Sequence[str],
        source: AsyncIterable[Any] | None,
        most: int,
        kick: Callable[[], None],
        interrupted: Callable[[BaseException], None],
    ) -> None:
        self._loop = loop
        self._run = run
        self._legs = legs
        self._pipeline = pipeline
        self._stages = stages
        self._kick = kick
        self._interrupted = interrupted
        self._cancelled = False
        # Coroutines that `def` callables have returned; and undo actions, which are not cancelled.
        self._jobs: dict[asyncio.Task[None], _core.Job] = {}
        self._undoing: dict[asyncio.Task[None], _core.Job] = {}
        # Of the former, those that did not end after their timeout.
        self._abandoned: set[asyncio.Task[None]] = set()
        # Whether it has been said what was left behind.
        self._said = False
        ports = run.ports()
        self._crews = [
            Crew(
                run,
                leg=number,
                port=ports[number],
                role=leg.role,
                handler=leg.handler,
                woven=leg.woven,
                takes_ctx=leg.takes_ctx,
                sequential=leg.concurrency == 1 and leg.timeout is None,
                most=most,
                kick=kick,
                interrupted=interrupted,
            )
            for number, leg in enumerate(legs)
            if leg.runs == "tasks" and leg.handler is not None
        ]
        self._pump: Pump | None = None
        # Whether the source has been left behind.
        self._source_left = False
        if source is not None:
            self._pump = Pump(
                loop,
                run,
                source,
                pipeline=pipeline,
                stage=stages[0],
                kick=kick,
                interrupted=interrupted,
            )

    @property
    def at_work(self) -> bool:
        """Whether a job is under way."""
        return bool(self._jobs or self._undoing)

    @property
    def closing(self) -> bool:
        """Whether the source has not come to its end, and has not been left behind."""
        return self._pump is not None and not self._pump.task.done() and not self._source_left

    def turn(self) -> bool:
        """Begin what waits, and cancel what an abort does not wait for.

        Returns:
            Whether units wait that a worker is about to take.
        """
        run = self._run
        while (job := run.next_job()) is not None:
            tasks = self._undoing if job.undo else self._jobs
            task = owned(self._loop.create_task(self._await(job)))
            if job.undo:
                # Whoever shuts the loop down cancels what it knows of; the driver ends these.
                _hide(task)
            tasks[task] = job
            task.add_done_callback(functools.partial(_forget, tasks))
        for leg, attempt, abandoned in run.take_overdue():
            self._time_out(leg, attempt, abandoned=abandoned)
        if run.aborting and not self._cancelled:
            self._cancelled = True
            self._cancel_crews()
            for task in self._jobs:
                task.cancel()
            self.hide()
        if self._pump is not None:
            self._pump.tend()
        busy = False
        for crew in self._crews:
            busy |= crew.rouse()
        return busy

    async def dismiss(self, *, leaving: bool) -> None:
        """Cancel all tasks and wait for them, whatever happens to the caller meanwhile.

        Args:
            leaving: Whether a third signal has come, and the next one would end the loop.
        """
        chance = _LEAVING if leaving else _LAST_CHANCE
        self._cancel_crews()
        tasks = {task for crew in self._crews for task in crew.tasks}
        # There are some only if nobody wanted to wait for them.
        for task in (*self._jobs, *self._undoing):
            task.cancel()
            tasks.add(task)
        if self._pump is not None:
            self._pump.cancel()
            tasks.add(self._pump.task)
        # All are idle, unless nobody wanted to wait for the handlers.
        until = self._loop.time() + chance
        while pending := {task for task in tasks if not task.done()}:
            left = until - self._loop.time()
            if left <= 0:
                self._abandoned |= pending
                break
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait(pending, timeout=left)
        await self._leave_behind(chance)

    async def _leave_behind(self, chance: float) -> None:
        """Give the abandoned a last, short chance: nothing else could be done about them."""
        tasks = {task for crew in self._crews for task in crew.abandoned} | self._abandoned
        for task in self._abandoned:
            task.cancel()
        if tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait(tasks, timeout=chance)
            stuck = [task for task in tasks if not task.done()]
            for task in stuck:
                _hide(task)
                _forget_generators(self._loop, task)
            if stuck and not self._said:
                # Once: a handler of the log may end the process, and this be called again.
                self._said = True
                _logger.error(
                    "pipeline %r: tasks are still busy and were left behind: %s",
                    self._pipeline,
                    ", ".join(f"{number} of {of}" for of, number in self._whose(stuck).items()),
                )

    def _whose(self, tasks: Iterable[asyncio.Task[None]]) -> Counter[str]:
        """Return how many of the tasks are whose."""
        stages = {
            task: f"stage {self._stages[self._legs[crew.leg].stage]!r}"
            for crew in self._crews
            for task in (*crew.tasks, *crew.abandoned)
        }
        if self._pump is not None:
            stages[self._pump.task] = f"stage {self._stages[0]!r}"
        return Counter(stages.get(task, "other coroutines") for task in tasks)

    def _time_out(self, leg: int | None, attempt: int, *, abandoned: bool) -> None:
        for crew in self._crews:
            if crew.leg == leg and crew.time_out(attempt, abandoned=abandoned):
                return
        for tasks in (self._jobs, self._undoing):
            for task, job in tasks.items():
                if not abandoned and job.expire(attempt):
                    task.cancel()
                    return
                if abandoned and job.abandon(attempt):
                    self._abandon(tasks, task)
                    return
        if not abandoned:
            self._run.in_time(attempt)

    def _abandon(
        self, tasks: dict[asyncio.Task[None], _core.Job], task: asyncio.Task[None]
    ) -> None:
        del tasks[task]
        self._abandoned.add(task)
        task.add_done_callback(self._abandoned.discard)

    def forsake(self, error: BaseException, seconds: float, *, undo: bool) -> bool:
        """Leave the coroutines behind that do not end though they have been cancelled.

        Args:
            error: What their units fail with.
            seconds: How long ago the run was aborted.
            undo: Whether undo actions are left behind, too.

        Returns:
            Whether there are others, begun since then: these are cancelled now.
        """
        others = False
        for crew in self._crews:
            others |= crew.forsake(error, seconds)
        for tasks in (self._jobs, self._undoing) if undo else (self._jobs,):
            for task, job in tuple(tasks.items()):
                if not task.cancelling():
                    task.cancel()
                    others = True
                elif job.forsake(error, seconds):
                    self._abandon(tasks, task)
        if self._pump is not None and self.closing:
            self._source_left = True
            self._run.forsake_source(seconds)
            self._abandoned.add(self._pump.task)
            self._pump.task.add_done_callback(self._abandoned.discard)
        return others

    def hide(self) -> None:
        """Let whoever shuts the loop down wait for the driver only, which waits for the others.

        `asyncio.run` would wait for ever for a coroutine that swallows its cancellation.
        """
        for crew in self._crews:
            for task in (*crew.tasks, *crew.abandoned):
                _hide(task)
        for task in (*self._jobs, *self._undoing, *self._abandoned):
            _hide(task)
        if self._pump is not None:
            _hide(self._pump.task)

    def copied(self) -> None:
        """This process is a fork: what the workers have in hand is the parent's."""
        for crew in self._crews:
            crew.copied()

    def end_without_loop(self) -> None:
        """End all tasks of a loop that was closed: their coroutines, where they stand."""
        tasks = {task for crew in self._crews for task in (*crew.tasks, *crew.abandoned)}
        tasks |= {*self._jobs, *self._undoing, *self._abandoned}
        ends = [_closing(task) for task in tasks]
        if self._pump is not None:
            ends.append(self._pump.end_without_loop)
        for end in ends:
            try:
                end()
            except RuntimeError:
                # The user's coroutine awaits something in order to end: nobody is there for it.
                _logger.exception("a coroutine could not be ended in a closed event loop")

    def _cancel_crews(self) -> None:
        for crew in self._crews:
            crew.cancel()

    async def _await(self, job: _core.Job) -> None:
        me = asyncio.current_task()
        assert me is not None  # noqa: S101 - for the type: a coroutine of a task
        limit = asyncio.timeout(job.timeout)
        try:
            awaitable = job.awaitable()
            async with limit:
                result = await awaitable if awaitable is not None else None
        except (KeyboardInterrupt, SystemExit) as error:
            job.failed(error)
            self._interrupted(error)
        except BaseException as error:
            if isinstance(error, GeneratorExit) and not is_stepped(me):
                job.failed(asyncio.CancelledError("the event loop was closed"))
                raise
            # Of our own cancellation; if there is another one, that comes first.
            if job.was_cancelled() and me.uncancel():
                job.acquit()
            overran = job.overran() if limit.expired() else None
            if overran is None:
                job.failed(error)
            else:
                overran.__cause__ = error
                job.failed(overran)
        else:
            job.done(result)


def _closing(task: asyncio.Task[None]) -> Callable[[], None]:
    coroutine = task.get_coro()
    return coroutine.close if inspect.iscoroutine(coroutine) else lambda: None


def _hide(task: asyncio.Task[None]) -> None:
    """Let the loop end without a task, which the driver ends or leaves behind."""
    asyncio._unregister_task(task)  # noqa: SLF001 - documented, in spite of its name


def _forget_generators(loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> None:
    """Let the loop end without the async generators in which a task stands that does not end.

    It would try to close them, and complain that they are running.
    """
    known = getattr(loop, "_asyncgens", None)
    awaited: Any = task.get_coro()
    while known is not None and awaited is not None:
        if inspect.isasyncgen(awaited):
            known.discard(awaited)
        inner = getattr(awaited, "cr_await", None) or getattr(awaited, "ag_await", None)
        if inner is None:
            # What `anext()` returns names its generator to nobody but the collector.
            inner = next(filter(inspect.isasyncgen, gc.get_referents(awaited)), None)
        awaited = inner


def _forget(tasks: dict[asyncio.Task[None], _core.Job], task: asyncio.Task[None]) -> None:
    tasks.pop(task, None)
