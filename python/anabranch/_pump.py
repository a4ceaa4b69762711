"""Pumping: the items of an async source into a run, by a task of its own."""

from __future__ import annotations

import asyncio
import inspect
import logging
from typing import TYPE_CHECKING, Any, Final

from anabranch._watch import is_stepped
from anabranch._workers import owned

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Callable

    from anabranch import _core

_logger = logging.getLogger("anabranch")
_CLOSING: Final = "pipeline %r, stage %r: closing the source raised"


class Pump:
    """The task that takes items from an async iterable.

    Args:
        loop: The running loop.
        run: The run.
        source: The user's async iterable.
        pipeline: The pipeline's name.
        stage: The name of the source.
        kick: Tells the driver that there may be something to do.
        interrupted: Told of a KeyboardInterrupt or SystemExit the source raised.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        run: _core.Run,
        source: AsyncIterable[Any],
        *,
        pipeline: str,
        stage: str,
        kick: Callable[[], None],
        interrupted: Callable[[BaseException], None],
    ) -> None:
        self._loop = loop
        self._run = run
        self._pipeline = pipeline
        self._stage = stage
        self._kick = kick
        self._interrupted = interrupted
        # What the task waits for while there is no room.
        self._room: asyncio.Future[None] | None = None
        self.task: asyncio.Task[None] = owned(loop.create_task(self._work(source)))
        # A task that is cancelled before its first step never comes to its own last lines.
        self.task.add_done_callback(self._ended)

    def tend(self) -> None:
        """Stop with the run, and go on when there is room again."""
        if self._run.stopping:
            self.cancel()
        if self._room is not None and not self._room.done() and self._run.has_room():
            self._room.set_result(None)

    def _ended(self, _task: asyncio.Task[None]) -> None:
        self._run.source_ended(None)
        self._kick()

    def cancel(self) -> None:
        """Stop, once: a second cancellation would cut short what the source does to end well."""
        if not self.task.done() and not self.task.cancelling():
            self.task.cancel()

    def end_without_loop(self) -> None:
        """End the task of a loop that was closed, and the source as far as that needs no loop."""
        coroutine = self.task.get_coro()
        if (
            not inspect.iscoroutine(coroutine)
            or inspect.getcoroutinestate(coroutine) == "CORO_CLOSED"
        ):
            return
        try:
            # Up to CPython 3.12 `close()` leaves an async generator that awaits as it is.
            coroutine.throw(asyncio.CancelledError())
        except (StopIteration, asyncio.CancelledError):
            return
        # It awaits something in order to end: nobody is there for it.
        coroutine.close()

    async def _work(self, source: AsyncIterable[Any]) -> None:
        run = self._run
        error: BaseException | None = None
        iterator: AsyncIterator[Any] | None = None
        try:
            iterator = aiter(source)
            async for item in iterator:
                told = run.push(item)
                if told and await self._heed(told):
                    break
        except asyncio.CancelledError:
            # The driver's, when the run is to stop; or the source's own, which is an end, too.
            if not run.stopping:
                error = asyncio.CancelledError("the source was cancelled")
        except (KeyboardInterrupt, SystemExit) as fatal:
            self._interrupted(fatal)
        except BaseException as failure:
            if isinstance(failure, GeneratorExit) and not is_stepped(self.task):
                # The loop was closed under the run, which says so itself.
                raise
            if run.stopping and self.task.cancelling():
                # Nothing more is wanted of it: this comes of closing it, and fails no run.
                _logger.exception(_CLOSING, self._pipeline, self._stage)
            else:
                error = failure
        finally:
            if is_stepped(self.task):
                await self._aclose(iterator)
            else:
                self._close_without_loop(iterator)
            run.source_ended(error)
            self._kick()

    async def _heed(self, told: int) -> bool:
        """Tell the driver, and wait while there is no room; return whether to end."""
        self._kick()
        while told > 1 and not self._run.has_room():
            self._room = self._loop.create_future()
            try:
                await self._room
            finally:
                self._room = None
        # It has swallowed its cancellation, and goes on.
        return self._run.stopping

    async def _aclose(self, iterator: object) -> None:
        aclose = getattr(iterator, "aclose", None)
        if aclose is None:
            return
        try:
            await aclose()
        except asyncio.CancelledError:
            raise
        except (KeyboardInterrupt, SystemExit) as fatal:
            self._interrupted(fatal)
        except BaseException as failure:
            if isinstance(failure, GeneratorExit) and not is_stepped(self.task):
                # The loop was closed under the run, which says so itself.
                raise
            _logger.exception(_CLOSING, self._pipeline, self._stage)

    def _close_without_loop(self, iterator: object) -> None:
        """Close the source as far as it comes without awaiting anything."""
        aclose = getattr(iterator, "aclose", None)
        if aclose is None or getattr(iterator, "ag_running", False):
            # Python has closed this task by itself, which ends no generator that awaits: see above.
            return
        try:
            closing = aclose().__await__()
            next(closing)
            closing.throw(RuntimeError("there is no event loop any more"))
        except StopIteration:
            pass
        except (KeyboardInterrupt, SystemExit) as fatal:
            self._interrupted(fatal)
        except BaseException:
            _logger.exception(_CLOSING, self._pipeline, self._stage)
