"""Driving a run: in a thread of its own choosing, or in an event loop.

Both drivers call `Run.step()`, which works for some hundred microseconds, until it says that the
run is over; between two steps the blocking one waits for something to happen, and the asyncio one
lets the loop go on. `run_blocking` becomes the asyncio one as soon as something must be awaited.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import threading
from contextlib import ExitStack
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from anabranch import _branches, _build, _core, _process, _undriven
from anabranch._clock import RunClock
from anabranch._moment import moment
from anabranch._patience import Patience
from anabranch._signals import leaving, steering
from anabranch._stateful import fresh
from anabranch._tasks import Tasks
from anabranch._watch import is_stepped
from anabranch._workers import owned
from anabranch.errors import BranchError, ClosedError, ConfigError, ForkedProcessError
from anabranch.report import Report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from anabranch._collecting import ErrorCollector
    from anabranch._pool import InlinePool, Pool
    from anabranch.pipeline import Pipeline

T = TypeVar("T")

_logger = logging.getLogger("anabranch")

_IDLE: Final = 0
_FINISHED: Final = 2
# How long closing waits for a `def` handler that is still at work.
_POOL_CLOSE: Final = 2.0


class Session(Generic[T]):
    """One run of one pipeline."""

    def __init__(self, pipeline: Pipeline[T]) -> None:
        self._pipeline = pipeline
        self._settings = pipeline._settings  # noqa: SLF001 - the session is the pipeline's
        self._run: _core.Run | None = None
        # How many items were wanted before there was a run.
        self._wanted: list[int] = []
        self._stages = fresh(pipeline._stages, self._want)  # noqa: SLF001 - as above
        self._process = os.getpid()
        # The run, which may be looked at after its end for a while, and by whom.
        self._seen: tuple[_core.Run | None, _core.Monitor | None] = (None, None)
        self._clock = RunClock(self._settings.clock, self._settings.name)
        self._pool: Pool | InlinePool | None = None
        self._spec: _build.Spec | None = None
        self._address: tuple[str, int] | None = None
        self._iterator: Any = None
        # Those whose branches are open at the end, until they were told that these have closed.
        self._open_tenants: Iterator[Any] | None = None
        # When what is inside must be out, once a drain has been asked for.
        self._deadline: float | None = None
        # Whether the run is known to drain.
        self._draining = False
        self._patience = Patience(self._clock)
        # What was asked for before there was a run, by a signal for instance.
        self._asked: Callable[[_core.Run], None] | None = None
        self._crews: Tasks | None = None
        self._fatal: BaseException | None = None
        self._asleep: asyncio.Future[None] | None = None
        self._kicked = False
        # Whether a third signal has come: nothing is waited for any more.
        self._leaving = False
        # Whether the process ends, and does not wait for this run.
        self._exiting = False
        self._collectors: list[ErrorCollector] = []
        self._ended: datetime | None = None
        # The one that drives the run, and the loop it does so in.
        self._thread: int | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return self._settings.name

    def watched(self) -> tuple[_core.Run | None, _core.Monitor | None]:
        """Return the run, and where it can be looked at."""
        return self._seen

    @property
    def address(self) -> tuple[str, int] | None:
        """Where the native source listens."""
        return self._address

    def drain(self) -> None:
        """Stop intake and finish what is inside, within the pipeline's grace."""
        if self._deadline is None:
            self._deadline = self._clock.now() + self._settings.grace
        if self._run is not None:
            self._run.drain()
        else:
            self._asked = _core.Run.drain

    def _want(self, items: int) -> None:
        """Bound how many more items are taken from the source; the least bound counts."""
        if self._run is None:
            self._wanted.append(items)
        else:
            self._run.want(items)

    def abort(self) -> None:
        """Give up what was not begun, and roll back what is under way."""
        if self._run is not None:
            self._run.abort()
        else:
            self._asked = _core.Run.abort

    @property
    def fans_out(self) -> bool:
        """Whether the pipeline has branches."""
        return any(stage.kind == "fan_out" for stage in self._pipeline.stages)

    def leave(self) -> None:
        """End as it stands: wait neither for handlers nor for the rollback."""
        self._leaving = True
        self.abort()
        self._hide()

    def _hide(self) -> None:
        """Let the end of the loop, which may come next, wait for nobody but the driver."""
        if self._crews is not None:
            self._crews.hide()

    def ask(self, what: str, tenant: object, argument: object = None) -> Any:  # noqa: ANN401 - an answer of any kind
        """Ask something of a branch, or command it; from any thread.

        Raises:
            BranchError: It does not fit.
            ClosedError: The run has not begun, or is over.
            ForkedProcessError: In a fork of the process that runs the pipeline.
        """
        self.check_reach()
        run = self._run
        if run is None:
            over = self._pipeline.last_report is not None
            what = "has ended: its report tells of its branches" if over else "does not run yet"
            raise ClosedError(f"pipeline {self.name!r} {what}", since=self._ended)
        here = threading.get_ident() == self._thread
        if here and not run.attend():
            if what in ("look", "blocking"):
                raise BranchError(
                    f"pipeline {self.name!r}: a callable that runs in its own thread cannot look "
                    "at branches; do so from a task or another thread",
                    tenant=tenant,
                )
            # In the middle of a step, which goes on when the callable that asks has returned.
            run.ask(what, tenant, argument, _log_misfit)
            return None
        answers: SimpleQueue[tuple[bool, Any]] = SimpleQueue()

        def answered(worked: bool, answer: object) -> None:  # noqa: FBT001 - as the extension calls it
            answers.put((worked, answer))

        run.ask(what, tenant, argument, answered)
        if here:
            run.attend()
        worked, answer = answers.get()
        if not worked:
            raise answer
        return answer

    def copied(self) -> None:
        """This process is a fork: the run is its parent's."""
        if self._run is not None:
            self._run.copied()
        if self._crews is not None:
            self._crews.copied()

    @property
    def forked(self) -> bool:
        """Whether this is a fork of the process that began the run."""
        return os.getpid() != self._process

    def check_process(self) -> None:
        """Raise ForkedProcessError in a process forked from the one that began the run."""
        if self.forked:
            raise ForkedProcessError(
                f"pipeline {self._settings.name!r} was started in process {self._process} and "
                f"cannot be used in its fork {os.getpid()}: start one after the fork, "
                "or use the start method 'spawn'"
            )

    def check_reach(self) -> None:
        """Raise unless there is a driver, in this process, that can still be told something.

        Raises:
            ClosedError: Its event loop was closed.
            ForkedProcessError: In a fork of the process that runs the pipeline.
        """
        self.check_process()
        if self._run is not None and self._loop is not None and self._loop.is_closed():
            raise ClosedError(
                f"pipeline {self.name!r} cannot be told anything: its event loop was closed while "
                "it ran; it is aborted when it is let go of, or the process ends"
            )

    # The blocking driver.

    def run_blocking(self) -> Report[T]:
        """Run to the end in this thread."""
        if self._needs_loop():
            with steering(self, interrupts=True), self._clock.runner() as runner:
                return runner.run(self._run_in_loop())
        with _process.driving(self), steering(self, interrupts=True):
            run = self._open()
            try:
                with self._clock.driven():
                    ended = self._drive_blocking(run)
                if not ended:
                    # A coroutine has appeared: the same run goes on in a loop.
                    with self._clock.runner() as runner:
                        return runner.run(self._run_in_loop())
            finally:
                report = self._end(run)
            return self._told(report)

    def _drive_blocking(self, run: _core.Run) -> bool:
        """Drive until the end, or until there is something to await; return whether it ended."""
        while True:
            try:
                if _process.late(self):
                    _process.park(self)
                state = self._step(run, in_loop=False)
                if run.has_job():
                    return False
                if state == _FINISHED:
                    return True
                if state == _IDLE:
                    self._clock.wait(run, self._until_due(run))
                self._check_deadlines(run)
            except BaseException as error:
                # Of a callable, or of a signal handler that came in between. What is inside is
                # rolled back before it goes on; a second one does not wait for that.
                if self._fatal is not None or self._leaving:
                    raise
                self._fatal = error
                run.abort()

    # The asyncio driver.

    async def run(self) -> Report[T]:
        """Run to the end in the running loop."""
        with steering(self, interrupts=False):
            return await self._run_in_loop()

    async def _run_in_loop(self) -> Report[T]:
        task = self.spawn()
        cancelled: asyncio.CancelledError | None = None
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                # The rollback is shielded: it ends before the cancellation goes on.
                cancelled = error
                self.abort()
                self._hide()
                self._kick()
        report = self.outcome(task)
        if cancelled is not None:
            raise cancelled
        return report

    def spawn(self) -> asyncio.Task[Report[T]]:
        """Start the driver as a task of the running loop."""
        loop = asyncio.get_running_loop()
        try:
            self._clock.adopt(loop)
        except ConfigError:
            # Nothing has begun: the pipeline can still be run as the message says.
            self._pipeline._turn.release()  # noqa: SLF001 - the session is the pipeline's
            raise
        if self._deadline is not None:
            # Asked to drain before there was a run: by another clock, perhaps.
            self._deadline = self._clock.now() + self._settings.grace
        run = self._open()
        name = f"anabranch {self._settings.name}"
        self._loop = loop
        return owned(loop.create_task(self._drive(loop, run), name=name))

    async def _drive(self, loop: asyncio.AbstractEventLoop, run: _core.Run) -> Report[T]:
        with _process.driving(self), ExitStack() as signals:
            return await self._drive_in_loop(loop, run, signals)

    async def _drive_in_loop(
        self, loop: asyncio.AbstractEventLoop, run: _core.Run, signals: ExitStack
    ) -> Report[T]:
        me = asyncio.current_task()
        assert me is not None  # noqa: S101 - for the type: a coroutine of a task
        self._crews = tasks = self._tasks(loop, run)
        loop.add_reader(run.fileno(), self._on_wake)
        self._clock.attend(loop, run)
        shut: asyncio.CancelledError | None = None
        try:
            over = False
            while not over:
                try:
                    over = await self._turn(loop, run, tasks)
                except asyncio.CancelledError as error:
                    # The loop is shutting down: the rollback is shielded from it.
                    if shut is None:
                        signals.enter_context(leaving(self))
                    shut = error
                    run.abort()
                    over = self.forked
                except (KeyboardInterrupt, SystemExit) as error:
                    # Of a callable, or of a signal handler that came in between.
                    self._interrupted(error)
                except BaseException as error:
                    closed = isinstance(error, GeneratorExit) and not is_stepped(me)
                    if closed or self._fatal is not None:
                        raise
                    self._interrupted(error)
                over |= self._leaving
        finally:
            report = await self._finish(loop, run, tasks, me)
        if shut is not None:
            raise shut
        return report

    async def _turn(self, loop: asyncio.AbstractEventLoop, run: _core.Run, tasks: Tasks) -> bool:
        """Step once, and let the loop go on; return whether the run is over."""
        if _process.late(self):
            await _process.rest(self, loop)
        state = self._step(run, in_loop=True)
        resting = state == _IDLE
        if state == _FINISHED and not tasks.at_work:
            if not tasks.closing:
                return True
            # The source has something to close.
            resting = True
        busy = tasks.turn()
        if busy or not resting:
            await asyncio.sleep(0)
        else:
            await self._pause(loop, self._until_due(run))
        self._check_deadlines(run, loop)
        return False

    async def _finish(
        self,
        loop: asyncio.AbstractEventLoop,
        run: _core.Run,
        tasks: Tasks,
        me: asyncio.Task[Any],
    ) -> Report[T]:
        ended = self._pipeline.last_report
        if self._run is None and ended is not None:
            # The process ends, and has not waited for this.
            return ended
        why = ""
        while True:
            try:
                if not self.forked and not is_stepped(me):
                    why = self._end_without_loop(loop, run, tasks)
                elif not self.forked:
                    loop.remove_reader(run.fileno())
                    await tasks.dismiss(leaving=self._leaving)
                    for collector in self._collectors:
                        await collector.finish(self._kick, self._interrupted)
            except asyncio.CancelledError:
                # The loop is shutting down, and cancels who is being told, too.
                continue
            except (KeyboardInterrupt, SystemExit) as error:
                # An impatient Ctrl-C does not cost the report.
                self._interrupted(error)
            else:
                report = self._end(run)
                if why:
                    self._warn(why)
                return report

    def _end_without_loop(
        self, loop: asyncio.AbstractEventLoop, run: _core.Run, tasks: Tasks
    ) -> str:
        """Wind the run up; return why nothing drives it."""
        how = "closed" if loop.is_closed() else "stopped"
        if how == "stopped":
            loop.remove_reader(run.fileno())
        _undriven.wind_up(run, tasks, self._pool, self._patience)
        return f"its event loop was {how} while it ran"

    def _warn(self, why: str) -> None:
        # Last: it may have been made an error.
        _undriven.warn(self._pipeline, self._settings.name, why)

    # The end of the process.

    def hurry(self) -> None:
        """Leave handlers behind that do not end now; from any thread."""
        self._exiting = True
        self._patience.hurry()
        self.abort()

    def end_with_process(self) -> None:
        """Roll back what can be without an event loop: nothing will drive the run any more."""
        run = self._run
        if run is None or self.forked:
            return
        self._exiting = True
        _undriven.wind_up(run, self._crews, self._pool, self._patience)
        self._end(run)
        self._warn("the process ended while it ran")

    def tell_owed(self) -> None:
        """Say what will not be undone: its driver is stuck, and the process ends."""
        run = self._run
        if run is not None and not self.forked:
            _undriven.tell_owed(run, pipeline=self._settings.name)

    def outcome(self, task: asyncio.Task[Report[T]]) -> Report[T]:
        """Return the report, or raise what asked for the process to end.

        Raised by whoever waits, not by the driver: out of a task of its own it would end the loop
        before the caller's `finally` blocks.
        """
        return self._told(task.result())

    def _interrupted(self, error: BaseException) -> None:
        """A callable has asked for the process to end: roll back first."""
        if self._fatal is None:
            self._fatal = error
        self.abort()
        self._kick()

    async def _pause(self, loop: asyncio.AbstractEventLoop, longest: float | None) -> None:
        if self._kicked:
            self._kicked = False
            await asyncio.sleep(0)
            return
        self._asleep = loop.create_future()
        timer = None if longest is None else loop.call_later(longest, self._kick)
        try:
            await self._asleep
        finally:
            self._asleep = None
            self._kicked = False
            if timer is not None:
                timer.cancel()

    def _kick(self) -> None:
        self._kicked = True
        asleep = self._asleep
        if asleep is not None and not asleep.done() and not asleep.get_loop().is_closed():
            asleep.set_result(None)

    def _on_wake(self) -> None:
        if self._run is not None:
            self._run.awake()
        self._kick()

    def _tasks(self, loop: asyncio.AbstractEventLoop, run: _core.Run) -> Tasks:
        options = self._stages[0].options
        return Tasks(
            loop,
            run,
            () if self._spec is None else self._spec.legs,
            pipeline=self._settings.name,
            stages=() if self._spec is None else self._spec.stages,
            source=options["source"] if options["how"] == "async" else None,
            most=self._settings.max_in_flight,
            kick=self._kick,
            interrupted=self._interrupted,
        )

    # Both.

    def _step(self, run: _core.Run, *, in_loop: bool) -> int:
        state = run.step(in_loop=in_loop)
        if run.aborting:
            self._patience.begin(self._pool)
        return state

    def _until_due(self, run: _core.Run) -> float | None:
        """Return the seconds until a timer, or the end of a grace, is due; None for never."""
        timeout = run.timeout()
        due = min((it.due for it in self._collectors), default=math.inf)
        for until in (self._deadline, self._patience.due):
            due = due if until is None else min(due, until)
        if due == math.inf:
            return timeout
        left = max(0.0, due - self._clock.now())
        return left if timeout is None else min(timeout, left)

    def _needs_loop(self) -> bool:
        letters = self._settings.letters
        if letters is not None and letters.is_async:
            return True
        return any(stage.is_async or stage.options.get("how") == "async" for stage in self._stages)

    def _open(self) -> _core.Run:
        if self._run is None:
            try:
                self._begin()
            except Exception as error:
                # Whoever receives from its target would wait for ever.
                self._close_targets(error)
                for file in () if self._spec is None else self._spec.letters:
                    file.close()
                raise
        assert self._run is not None  # noqa: S101 - for the type: just begun
        return self._run

    def _begin(self) -> None:
        self._thread = threading.get_ident()
        source, self._iterator = _build.open_source(self._stages[0])
        pool = self._pool
        if pool is None:
            pool = self._pool = self._clock.pool(self._settings.threads)
        self._spec = _build.build(
            self._settings,
            self._stages,
            source=source,
            grow=pool.grow,
            put=pool.put,
            abandon=pool.abandon,
            own_threads=pool.started,
            clock=self._clock.virtual,
            now=self._clock.now,
        )
        self._collectors = self._spec.collectors
        self._run = _core.Run(self._spec)
        for items in self._wanted:
            self._run.want(items)
        self._seen = (self._run, self._spec.monitor)
        self._address = self._run.address
        if self._asked is not None:
            self._asked(self._run)
        undoes = any(stage.takes_ctx for stage in self._stages)
        if undoes or any(leg.runs == "pool" for leg in self._spec.legs):
            # Now: at interpreter exit no thread could be started for the rollback.
            pool.grow()

    def _close_targets(self, error: Exception | None) -> None:
        for stage in self._stages:
            if stage.kind == "to_channel" and stage.options["close"]:
                stage.options["channel"].close(error)
            if "closes" in stage.options:
                stage.options["closes"].close(error)

    def _check_deadlines(
        self, run: _core.Run, loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        for collector in self._collectors:
            if self._clock.now() >= collector.due:
                collector.tell(loop, self._kick, self._interrupted)
        if run.draining and not run.aborting and not self._draining:
            # Asked for by an operator, perhaps: the grace is the same.
            self._draining = True
            if self._deadline is None:
                self._deadline = self._clock.now() + self._settings.grace
        if self._deadline is not None and self._clock.now() >= self._deadline:
            self._deadline = None
            run.abort()
        self._patience.check(run, self._pool, self._crews)

    def _told(self, report: Report[T]) -> Report[T]:
        """Return the report, or raise what asked for the process to end."""
        if self._fatal is not None:
            raise self._fatal
        return report

    def _end(self, run: _core.Run) -> Report[T]:
        """Make the report, and close what is open.

        What a callable asks for meanwhile, or an impatient Ctrl-C, costs neither of them.
        """
        while True:
            try:
                report = self._pipeline.last_report or self._report(run)
                self._close(run)
            except (KeyboardInterrupt, SystemExit) as error:
                if self._fatal is None:
                    self._fatal = error
            else:
                return report

    def _report(self, run: _core.Run) -> Report[T]:
        if self._leaving and not self.forked:
            self._patience.end(run, self._pool, self._crews)
        run.abandon()
        for collector in self._collectors:
            collector.end()
        errors = {it.stage: it for it in (each.whole() for each in self._collectors)}
        report: Report[T] = Report.from_core({**run.report(), "errors": errors})
        self._ended = moment()
        self._pipeline._last_report = report  # noqa: SLF001 - the session is the pipeline's
        whole = report.outcome in ("completed", "drained")
        self._close_targets(None if whole else report.as_error())
        # Last: a handler of the log may end the process.
        failures = report.failed and report.outcome != "aborted"
        if (failures or report.outcome == "failed") and not self.forked:
            _undriven.tell_failed(report)
        if not self.forked:
            _undriven.tell_stuck(report)
        return report

    def _close(self, run: _core.Run) -> None:
        if self._spec is None or self.forked:
            # In a fork sockets, descriptors and the source are the parent's.
            return
        # The user's callables once each, whatever they raise: this is called again then.
        iterator, self._iterator = self._iterator, None
        if iterator is not None:
            _close(iterator, self._settings.name, self._stages[0].name)
        if self._open_tenants is None:
            self._open_tenants = iter(run.tenants())
        _branches.close_all(self._settings.name, self._stages, self._open_tenants)
        letters = self._spec.letters
        patience = 0.0 if self._leaving or self._exiting else _POOL_CLOSE
        stuck = 0 if self._pool is None else self._pool.close(patience)
        self._pool = None
        # The end of the process leaves all threads behind.
        if stuck and not self._exiting:
            _logger.error(
                "pipeline %r: %s, and left behind",
                self._settings.name,
                "1 thread is still busy in its handler"
                if stuck == 1
                else f"{stuck} threads are still busy in their handlers",
            )
        for file in letters:
            file.close()
        run.close()
        self._spec = None
        self._open_tenants = None
        self._crews = None
        self._run = None


def _log_misfit(worked: bool, answer: object) -> None:  # noqa: FBT001 - as the extension calls it
    if not worked:
        _logger.error("a command from within a callable was not carried out: %s", answer)


def in_a_loop() -> bool:
    """Return whether an event loop runs in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _close(iterator: object, pipeline: str, stage: str) -> None:
    close = getattr(iterator, "close", None)
    if close is None:
        return
    try:
        close()
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:
        _logger.exception("pipeline %r, stage %r: closing the source raised", pipeline, stage)
