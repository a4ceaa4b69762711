"""What moves the items of a reader on while a block lasts: the base of `broadcast` and its like."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from anabranch._calls import check_context
from anabranch._moment import moment
from anabranch._watch import check, joined
from anabranch.channel import Channel
from anabranch.errors import Cancelled, ChannelClosed, ClosedError, refused

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime
    from types import TracebackType

    from anabranch.cancel import Cancel
    from anabranch.context import Context

T = TypeVar("T")

# How many items are in hand at most.
MOST = 256
# What a branch may do when it is full.
_MODES = ("wait", "drop_newest", "drop_oldest", "fail")


class Relay(ABC, Generic[T]):
    """Moves the items of a reader on to other channels while its block lasts.

    The task that does so is the block's own. When the reader ends, so do the channels, after the
    items they hold; the reader's error reaches all of them, and so does a cancellation. When the
    block is left it stops: what it has not passed on stays in the reader, and who still waits for
    more is told so.
    """

    def __init__(
        self,
        reader: object,
        *,
        close_branches: object,
        ctx: object,
        subject: str,
    ) -> None:
        if not isinstance(reader, Channel):
            raise refused("reader", reader, "a Channel", subject=subject)
        if not isinstance(close_branches, bool):
            raise refused("close_branches", close_branches, "True or False", subject=subject)
        check_context(ctx, subject)
        self._subject = subject
        self._reader: Channel[T] = cast("Channel[T]", reader)
        self._close_branches = close_branches
        self._ctx = cast("Context | None", ctx)
        self._tokens: list[Cancel] = [] if self._ctx is None else self._ctx._tokens()
        self._task: asyncio.Task[None] | None = None
        # When its block began, and, for who wants another branch, when it was left.
        self._since: datetime | None = None
        # What is neither the reader's nor a cancellation: a key that raised.
        self._error: Exception | None = None
        # Why it has ended before its reader, where nothing has failed.
        self._short: Exception | None = None
        # Where the items in hand were taken from, by their identity, if the reader has lanes.
        self._places: dict[int, list[tuple[int, int]]] = {}

    @abstractmethod
    def _targets(self) -> Iterable[Channel[T]]:
        """Return the channels that it leads to."""

    @abstractmethod
    async def _pass_on(self, items: list[T]) -> None:
        """Send these on; whatever happens, what could not be sent is put back."""

    async def _begin(self) -> None:
        if self._task is not None:
            message = f"{self._subject} is used once: make a new one for another block"
            raise ClosedError(message, since=self._since)
        self._since = moment()
        if self._ctx is not None:
            check(self._ctx)
        loop = asyncio.get_running_loop()
        self._task = task = loop.create_task(self._run())

        def stop() -> None:
            loop.call_soon_threadsafe(task.cancel)

        for token in self._tokens:
            token._attach(self, stop)

    async def finished(self) -> None:
        """Wait until the reader has ended, and all of its items were sent on.

        What the reader was closed with is its branches' to raise.

        Raises:
            ClosedError: Its block has not begun, or was left before; or all branches were closed
                by those who read them while there was still something for them.
            Cancelled: `ctx` was cancelled before.
            Exception: What a callable that it was given has raised.
        """
        if self._task is None:
            raise self._not_begun()
        await asyncio.wait([self._task])
        if self._task.cancelled():
            self._short = self._why()
        if (error := self._error or self._short) is not None:
            raise error

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop; what is wrong with what it was given is raised."""
        assert self._task is not None  # noqa: S101 - for the type
        self._task.cancel()
        cancelled = await joined([self._task])
        for token in self._tokens:
            token._detach(self)
        # A task that is cancelled before its first step never gets to say so, and a branch may
        # have been added behind the end: nobody is left waiting.
        self._end(self._why())
        if not self._task.cancelled() and (fatal := self._task.exception()) is not None:
            raise fatal
        if cancelled is not None:
            raise cancelled
        if error is None and self._error is not None:
            raise self._error

    async def _run(self) -> None:
        try:
            while True:
                try:
                    items = await self._receive()
                except Exception as error:  # noqa: BLE001 - it is the reader's
                    ended = isinstance(error, ChannelClosed) and not self._reader._core.failed
                    self._end(None if ended else error)
                    return
                await self._pass_on(items)
                await asyncio.sleep(0)
        except NobodyLeft:
            message = f"{self._subject}: all branches were closed before their reader had ended"
            self._short = ClosedError(message, since=moment())
            self._end(None)
        except asyncio.CancelledError:
            self._short = self._why()
            self._end(self._short)
        except Exception as error:  # noqa: BLE001 - it is told when the block is left
            self._error = error
            self._end(error)

    def _why(self) -> Exception | None:
        """Return what those who still read are told when it is cut short."""
        if self._ctx is not None:
            try:
                check(self._ctx)
            except Cancelled as error:
                return error
        if self._reader.closed and self._reader.depth == 0 and not self._reader._core.failed:
            return None
        message = f"{self._subject}: its block was left before its reader had ended"
        return ClosedError(message, since=moment())

    def _not_begun(self) -> ClosedError:
        return ClosedError(f"{self._subject} has not begun: use it by `async with`")

    def _give_up(self, error: Exception) -> None:
        """End it with an error that did not arise in its task."""
        self._error = error
        self._end(error)
        if self._task is not None:
            self._task.cancel()

    def _end(self, error: Exception | None) -> None:
        if self._close_branches:
            for channel in self._targets():
                channel.close(error)

    async def _receive(self) -> list[T]:
        core, places = self._reader._core, list[tuple[int, int]]()
        items: list[T] = core.receive_many(MOST, None, places)
        if not items:
            take = partial(core.receive_many, MOST, places=places)
            items = await self._reader._in_turn(core.join_receivers, take, None)
        self._places.clear()
        for item, place in zip(items, places, strict=False):
            self._places.setdefault(id(item), []).append(place)
        return items

    def _put_back(self, items: Sequence[T]) -> None:
        for item in reversed(items):
            place = self._places[id(item)].pop() if self._places else None
            self._reader._core.put_back(item, place)


def check_branch(capacity: object, on_full: object, subject: str) -> None:
    """Raise a ConfigError, which names the subject, unless branches can be opened with these."""
    if type(capacity) is not int or capacity < 1:
        raise refused("capacity", capacity, "an int >= 1", subject=subject)
    if on_full not in _MODES:
        *first, last = map(repr, _MODES)
        allowed = f"{', '.join(first)} or {last}"
        raise refused("on_full", on_full, allowed, subject=subject)


class NobodyLeft(Exception):
    """All channels it leads to were closed by those who read them."""
