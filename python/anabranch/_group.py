"""What both kinds of groups share: how children begin, are cut short, and end with the block."""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, overload

from anabranch._calls import Act, act, adopt, attempt, begun, check_context
from anabranch._moment import moment
from anabranch._record import note
from anabranch._watch import Watch, check, is_stepped
from anabranch.child import Child
from anabranch.context import child_of
from anabranch.errors import Cancelled, ClosedError, check_name, refused
from anabranch.failure import Failure
from anabranch.result import Result

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime
    from types import TracebackType

    from anabranch.context import Context

T = TypeVar("T")

# What a task hands on to who runs its loop.
_ENDS_THE_LOOP = (KeyboardInterrupt, SystemExit)


class Group(ABC):
    """Children that run at once, of which none outlives the block."""

    _stops_at_error = False

    def __init__(
        self,
        name: str = "group",
        *,
        max_concurrency: int | None = None,
        commit: Literal["child", "group"] = "child",
        ctx: Context | None = None,
    ) -> None:
        kind = type(self).__name__
        check_name(name, kind)
        check_most(max_concurrency, kind)
        if commit not in ("child", "group"):
            raise refused("commit", commit, "'child' or 'group'", subject=kind)
        check_context(ctx, kind)
        self._label = name
        self._most = max_concurrency
        self._whole = commit == "group"
        self._outer = ctx
        self._state: Literal["new", "open", "over"] = "new"
        self._since: datetime | None = None
        self._running: set[Child[Any]] = set()
        self._waiting: deque[Child[Any]] = deque()
        self._failed: list[tuple[Child[Any], Exception]] = []
        self._fatal: BaseException | None = None
        self._aborted = False
        self._latest = _NONE
        self._idle: asyncio.Future[None] | None = None

    @property
    def name(self) -> str:
        """Its name: that of `ctx`, if it was given one, and its own."""
        return self._label if self._outer is None else f"{self._outer.name}.{self._label}"

    @property
    def running(self) -> int:
        """How many children have not ended, those that wait for their turn included."""
        return len(self._running) + len(self._waiting)

    @property
    def failures(self) -> tuple[Failure, ...]:
        """The failures of children, in the order they happened in."""
        return tuple(
            Failure.of(error, stage=child.name, tenant=self._tenant)
            for child, error in self._failed
        )

    @overload
    def go(
        self,
        fn: Callable[..., Awaitable[Result[T]] | Result[T]],
        /,
        *args: object,
        name: str | None = None,
    ) -> Child[T]: ...
    @overload
    def go(
        self, fn: Callable[..., Awaitable[T]], /, *args: object, name: str | None = None
    ) -> Child[T]: ...
    @overload
    def go(self, fn: Callable[..., T], /, *args: object, name: str | None = None) -> Child[T]: ...
    def go(self, fn: Callable[..., Any], /, *args: object, name: str | None = None) -> Child[Any]:
        """Begin a child; it ends before the block does.

        With `max_concurrency` it may have to wait for its turn: the group keeps it until then. For
        a stream without an end use a pipeline, which holds back its source.

        Args:
            fn: `async def`, or `def`, which runs in a thread. One with a parameter `ctx` is given
                the child's context, whose name is the child's.
            args: What to call it with.
            name: The last part of the child's name; the callable's name by default.

        Raises:
            ConfigError: An argument is not allowed.
            ClosedError: The group's block has not begun, or has been left.
        """
        if self._state != "open":
            raise self._refusal()
        if name is not None:
            check_name(name, self.name)
        # Mostly it is the same one again and again.
        if fn is not self._latest.fn:
            self._latest = act(fn, self._label, binds=False)
        return self._begin(self._latest, args, name)

    def _begin(self, part: Act, args: tuple[Any, ...], name: str | None = None) -> Child[Any]:
        child: Child[Any] = Child(self, part, args, name)
        if self._aborted:
            self._end_cancelled(child)
        elif self._most is not None and len(self._running) >= self._most:
            self._waiting.append(child)
        else:
            self._start(child)
        return child

    async def __aenter__(self) -> Self:
        """Begin the block.

        Raises:
            ClosedError: It has begun before: a group is used once.
            Cancelled: `ctx` is cancelled.
        """
        if self._state != "new":
            raise self._refusal()
        self._ctx = begun(self._outer, self._label)
        self._tenant = self._ctx.tenant
        adopt(self._ctx, type(self).__name__)
        self._watch = Watch(self._ctx)
        self._watch.begin()
        self._loop = asyncio.get_running_loop()
        self._state = "open"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Wait for all children, whatever happens meanwhile; then commit, or undo."""
        cancelled = error if isinstance(error, asyncio.CancelledError) else None
        if error is not None or self._watch.fired:
            self._abort()
        while self._running:
            self._idle = self._loop.create_future()
            try:
                await self._idle
            except asyncio.CancelledError as another:
                cancelled = another
                self._abort()
        self._state = "over"
        self._since = moment()
        other = self._watch.end()
        fatal = self._fatal
        if other and isinstance(fatal, _ENDS_THE_LOOP):
            fatal = None  # the loop has told it already, and is being tidied up
        verdict = fatal or (cancelled if other else None) or self._verdict(error)
        if verdict is None:
            try:
                await self._ctx._keep()
            except BaseException as late:
                await self._ctx._undo(late)
                raise
            return
        await self._ctx._undo(verdict)
        if verdict is not error:
            # What it was raised in the course of is its own, not the end of this block.
            context = verdict.__context__
            try:
                raise verdict
            finally:
                verdict.__context__ = context

    def _verdict(self, error: BaseException | None) -> BaseException | None:
        """Return what the block ends with where nobody else has cancelled it."""
        if self._watch.fired:
            try:
                check(self._ctx)
            except Cancelled as cancelled:
                return cancelled
            if isinstance(error, asyncio.CancelledError):
                return self._sum()
        if error is None:
            return self._sum()
        # It is raised, and their failures would be told nowhere.
        for child, failed in self._failed:
            if failed is not error:
                note(error, f"and the child {child.name!r} raised {failed!r}")
        return error

    @abstractmethod
    def _sum(self) -> Exception | None:
        """Return what the children's failures come to."""

    def _refusal(self) -> ClosedError:
        kind = type(self).__name__
        if self._state == "new":
            return ClosedError(f"{kind} {self.name!r} has not begun: use it by `async with`")
        what = "is over" if self._state == "over" else "is in use"
        return ClosedError(
            f"{kind} {self.name!r} {what}, and is used once: make a new one for other children",
            since=self._since,
        )

    def _start(self, child: Child[Any]) -> None:
        self._running.add(child)
        child._task = self._loop.create_task(self._run(child))

    async def _run(self, child: Child[Any]) -> None:
        child._started = True
        call = child._act
        try:
            if call.is_async and not call.takes_ctx:
                # It has no context: there is nothing to undo, or to tell it.
                value = await call.fn(*child._args)
                if isinstance(value, Result):
                    value = await self._attempted(child, _giving(value), ())
            else:
                value = await self._attempted(child, call, child._args)
            child._value = value
        except Exception as error:  # noqa: BLE001 - it is a failure
            self._fail(child, error)
        except asyncio.CancelledError:
            self._end_cancelled(child)
        except BaseException as error:
            if isinstance(error, GeneratorExit) and not is_stepped(child._task):
                # Its loop was closed: there is nobody to be told, and nothing to be begun.
                self._idle = None
                while self._waiting:
                    self._end_cancelled(self._waiting.popleft())
                raise
            self._fatal = self._fatal or error
            child._failure = Failure.of(error, stage=child.name, tenant=self._tenant)
            self._end_block()
            if isinstance(error, _ENDS_THE_LOOP):
                # The task keeps it, too, and nobody asks the task.
                assert child._task is not None  # noqa: S101 - for the type: it runs in it
                child._task.add_done_callback(_heard)
                raise
        finally:
            self._running.discard(child)
            if self._waiting or not self._running:
                self._go_on()

    async def _attempted(self, child: Child[Any], call: Act, args: tuple[Any, ...]) -> Any:  # noqa: ANN401 - what it returns
        ctx = child._ctx = child_of(self._ctx, child._given or child._act.name)
        ctx._cancel = child._cancel
        given = Act(call.fn, call.name, args, awaits=call.is_async, ctx=call.takes_ctx)
        if not self._whole:
            value = await attempt(given, ctx, threaded=True)
            # It is committed before a cancellation goes on, and this is the task's last step.
            with contextlib.suppress(asyncio.CancelledError):
                await ctx._commit()
            return value

        async def undo(error: BaseException) -> None:
            if self._dooms(error):
                ctx._hand_over()
            else:
                await ctx._undo(error)

        value = await attempt(given, ctx, threaded=True, undo=undo)
        ctx._hand_over()
        return value

    def _dooms(self, error: BaseException) -> bool:
        """Return whether a child that ends with `error` is undone with all the others."""
        return self._aborted or (self._stops_at_error and isinstance(error, Exception))

    def _fail(self, child: Child[Any], error: Exception) -> None:
        note(error, f"in {child.name!r}")
        child._failure = Failure.of(error, stage=child.name, tenant=self._tenant)
        self._failed.append((child, error))
        if self._stops_at_error and not self._aborted:
            self._end_block()

    def _end_block(self) -> None:
        """Cancel all children, and cut short what is still in front of the block's end."""
        self._abort()
        if self._idle is None:
            self._watch.interrupt()

    def _go_on(self) -> None:
        """A child has ended: begin those that wait for their turn, and tell who waits for all."""
        while self._waiting and (self._most is None or len(self._running) < self._most):
            self._start(self._waiting.popleft())
        if not self._running and self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def _cut(self, child: Child[Any]) -> None:
        """Cancel one child."""
        if child._ctx is not None:
            child._ctx._stopped = True
        if child._task is None:
            self._waiting.remove(child)
            self._end_cancelled(child)
            return
        child._task.cancel()
        if not child._started:
            # Its coroutine will not run at all.
            self._end_cancelled(child)
            self._running.discard(child)
            self._go_on()

    def _abort(self) -> None:
        """Cancel all children."""
        if self._aborted:
            return
        self._aborted = True
        while self._waiting:
            self._end_cancelled(self._waiting.popleft())
        for child in tuple(self._running):
            self._cut(child)

    def _end_cancelled(self, child: Child[Any]) -> None:
        error = self._cancelled(child)
        child._failure = Failure.of(error, stage=child.name, tenant=self._tenant)

    def _cancelled(self, child: Child[Any]) -> Cancelled:
        reason = "its group ended"
        if not self._aborted:
            outside = child._task is not None and child._task.cancelling()
            reason = "its task was cancelled" if outside else "a CancelledError came out of it"
        if child._cancel is not None and child._cancel.reason is not None:
            reason = child._cancel.reason
        return Cancelled(f"{child.name!r} was cancelled: {reason}", reason=reason)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}: {self._state}, {self.running} running>"


def check_most(value: object, subject: str) -> None:
    """Raise a ConfigError unless `value` tells how many children may run at once."""
    if value is not None and (type(value) is not int or value < 1):
        raise refused("max_concurrency", value, "an int >= 1 or None", subject=subject)


def _heard(task: asyncio.Task[None]) -> None:
    task.exception()


# What the first callable is compared with.
_NONE = Act(object, "", (), awaits=False, ctx=False)


def _giving(value: Any) -> Act:  # noqa: ANN401 - a Result
    return Act(lambda: value, "result", (), awaits=False, ctx=False)
