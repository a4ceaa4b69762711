"""Compensation scopes by themselves: what a block of code did is undone if the block fails.

Longer than others by the documentation and the examples of one type.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self, TypeAlias, cast

from anabranch._callables import check_def
from anabranch._core import UndoAction
from anabranch._moment import moment
from anabranch._playback import Played, arranging, new_scope, play, play_blocking, seconds
from anabranch._record import note, record, record_of
from anabranch.compensation import Compensation, compensation_of
from anabranch.errors import ClosedError, refused

if TYPE_CHECKING:
    from datetime import datetime, timedelta
    from types import TracebackType

    from anabranch import _core

Policy: TypeAlias = Callable[[Sequence[UndoAction]], Iterable[UndoAction]]
"""A rollback policy of one's own: called once per rollback with its undo actions, the last
registered first; returns those to run, in the order to run them in."""

_POLICIES = ("sequential", "parallel", "none")

_logger = logging.getLogger("anabranch")


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackReport:
    """What a rollback, or a commit with finalizers, did.

    Attributes:
        actions: What ran, in order, then what did not.
    """

    actions: tuple[Compensation, ...] = ()

    @staticmethod
    def of(error: BaseException) -> RollbackReport:
        """Return what was undone because of `error`, by all scopes and calls it has passed.

        Example:
            >>> import anabranch as ab
            >>> def store(ctx: ab.Context) -> None:
            ...     ctx.compensate(print, "undone", name="remove")
            ...     raise OSError("disk full")
            >>> try:
            ...     ab.retry(store, ab.Retry.fixed(0.0, attempts=1))
            ... except OSError as error:
            ...     print([action.name for action in ab.RollbackReport.of(error).actions])
            undone
            ['remove']
        """
        return RollbackReport(actions=record_of(error).undone)

    @property
    def ok(self) -> bool:
        """Whether no action is stuck."""
        return self.stuck == 0

    @property
    def done(self) -> int:
        """How many undo actions and finalizers ran to the end."""
        return sum(action.outcome == "done" for action in self.actions)

    @property
    def stuck(self) -> int:
        """How many failed, or had no turn before the deadline."""
        return sum(action.outcome == "failed" for action in self.actions)

    @property
    def skipped(self) -> int:
        """How many the policy left out."""
        return sum(action.outcome == "skipped" for action in self.actions)


class CompensationScope:
    """Collects undo actions, and runs them, the last registered first, unless it is committed.

    As a context manager, plain or `async`, it commits when the block ends well and rolls back
    when it raises; the exception goes on, and `report` tells what was undone. The rollback is
    shielded: a cancellation that caused it, or comes meanwhile, goes on when it has ended.

    Used plainly, a scope has no pool: a `def` runs where `rollback` is called. An `async def` needs
    a loop: the plain block opens one, but where a loop runs already nothing may block it, so the
    action is stuck, in the report and in a note on the exception: use `async with` there.

    Example:
        >>> import anabranch as ab
        >>> rows = []
        >>> try:
        ...     with ab.CompensationScope() as scope:
        ...         scope.compensate(rows.remove, "a")
        ...         rows.append("a")
        ...         raise ValueError("no")
        ... except ValueError:
        ...     print(rows, scope.report.done)
        [] 1
    """

    def __init__(self) -> None:
        self._core = new_scope()
        self._closed = False
        self._since: datetime | None = None
        self._report: RollbackReport | None = None
        # Whether undo actions have run, or were skipped: what they are of is no more.
        self._undone = False
        # What ends with it unless it is settled before: what Results carry. All of these have
        # actions; None until there is one.
        self._carried: set[CompensationScope] | None = None
        # Those of another scope that it is one of.
        self._among: set[CompensationScope] | None = None

    @property
    def has_actions(self) -> bool:
        """Whether an undo action or a finalizer is pending."""
        return bool(self._carried) or self._core.pending() != (0, 0)

    @property
    def pending(self) -> int:
        """How many undo actions and finalizers are pending."""
        return sum(self._core.pending()) + sum(it.pending for it in self._carried or ())

    @property
    def report(self) -> RollbackReport | None:
        """What the latest commit or rollback did; None before the first."""
        return self._report

    def compensate(
        self,
        fn: Callable[..., object],
        /,
        *args: object,
        when: bool = True,
        name: str | None = None,
        retries: int = 0,
        timeout: float | None = 30.0,
    ) -> None:
        """Register how to undo an effect: run by `rollback`, released by `commit`.

        Args:
            fn: The undo action, `def` or `async def`. One with a parameter `ctx` is given a
                CompensationScope, and what it registers there runs in a next pass (at most 16).
            args: What to call it with; keywords go through `functools.partial`.
            when: False: check the arguments, and register nothing.
            name: What reports call it; the callable's name by default.
            retries: Further tries if it raises.
            timeout: Seconds each try of an `async def` may take, None for no limit.

        Raises:
            ConfigError: An argument is not allowed.
            ClosedError: The scope's block has been left.

        Example:
            >>> import anabranch as ab
            >>> scope = ab.CompensationScope()
            >>> scope.compensate(print, "undone")
            >>> scope.compensate(print, "never", when=False)
            >>> scope.pending
            1
        """
        self._register(
            fn, args, finalizer=False, when=when, name=name, retries=retries, timeout=timeout
        )

    def finalize(
        self,
        fn: Callable[..., object],
        /,
        *args: object,
        when: bool = True,
        name: str | None = None,
        retries: int = 0,
        timeout: float | None = 30.0,
    ) -> None:
        """Register what is run when the scope ends, however it ends, after the undo actions.

        The arguments and errors are those of `compensate`.

        Example:
            >>> import anabranch as ab
            >>> with ab.CompensationScope() as scope:
            ...     scope.finalize(print, "closed")
            ...     scope.compensate(print, "undone")
            closed
        """
        self._register(
            fn, args, finalizer=True, when=when, name=name, retries=retries, timeout=timeout
        )

    def absorb(self, other: CompensationScope) -> None:
        """Take over what `other` holds; the order of registration stays, over all scopes.

        A scope that absorbs itself stays as it is.

        Raises:
            ConfigError: `other` is no CompensationScope.
            ClosedError: The scope's block has been left.
        """
        self._check_open()
        if not isinstance(cast("object", other), CompensationScope):
            raise refused("other", other, "a CompensationScope", subject="absorb")
        if other is not self:
            self._core.absorb(other._whole())

    async def commit(self) -> RollbackReport:
        """Release the undo actions, and run the finalizers, in the running loop."""
        return await self._play(self._end())

    def commit_blocking(self) -> RollbackReport:
        """Release the undo actions, and run the finalizers, in this thread.

        Example:
            >>> import anabranch as ab
            >>> scope = ab.CompensationScope()
            >>> scope.compensate(print, "undone")
            >>> scope.commit_blocking().ok, scope.has_actions
            (True, False)
        """
        return self._told(*play_blocking(self._end(), child=CompensationScope))

    async def rollback(
        self,
        *,
        policy: Literal["sequential", "parallel", "none"] | Policy = "sequential",
        deadline: float | timedelta | None = 30.0,
    ) -> RollbackReport:
        """Run the undo actions, then the finalizers, in the running loop.

        Whatever an action raises does not stop the others; the report tells of all. A cancellation
        waits until the rollback has ended, or its deadline has come, and then goes on; so does a
        SystemExit of an action, and a Ctrl-C that comes in the middle of one, which is stuck then.

        Args:
            policy: "sequential": one after the other, the last registered first; "parallel": all
                at once; "none": no undo action runs, finalizers do; or a function that is called
                once with the actions, the last registered first, and returns those to run, in
                order.
            deadline: Seconds until what has not run is given up, and stuck; None for no limit.

        Raises:
            ConfigError: An argument is not allowed.
        """
        limit = seconds(deadline, "rollback")
        playback, skipped, parallel, fatal = self._begin(policy)
        return await self._play(playback, skipped, fatal, parallel=parallel, deadline=limit)

    def rollback_blocking(
        self,
        *,
        policy: Literal["sequential", "parallel", "none"] | Policy = "sequential",
        deadline: float | timedelta | None = 30.0,
    ) -> RollbackReport:
        """Run the undo actions, then the finalizers, in this thread, one at a time.

        The arguments and errors are those of `rollback`; "parallel" is "sequential" here. An
        `async def` gets an event loop of its own: where one is running, use `rollback`. A second
        Ctrl-C gives up what has not run.

        Example:
            >>> import anabranch as ab
            >>> scope = ab.CompensationScope()
            >>> for name in "abc":
            ...     scope.compensate(print, name)
            >>> scope.rollback_blocking().done
            c
            b
            a
            3
        """
        limit = seconds(deadline, "rollback")
        playback, skipped, _, fatal = self._begin(policy)
        played, leaving = play_blocking(playback, deadline=limit, child=CompensationScope)
        return self._told(played, fatal or leaving, skipped)

    def __enter__(self) -> Self:
        """Begin the block."""
        self._check_open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Commit, or roll back if the block has raised."""
        self._closed = True
        self._since = moment()
        if error is None:
            self.commit_blocking()
        else:
            try:
                self.rollback_blocking()
            finally:
                tell(error, self._report)

    async def __aenter__(self) -> Self:
        """Begin the block."""
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Commit, or roll back if the block has raised."""
        self._closed = True
        self._since = moment()
        if error is None:
            await self.commit()
        else:
            try:
                await self.rollback()
            finally:
                tell(error, self._report)

    def _register(
        self,
        fn: Callable[..., object],
        args: tuple[object, ...],
        *,
        finalizer: bool,
        when: bool,
        name: str | None,
        retries: int,
        timeout: float | None,
    ) -> None:
        self._check_open()
        self._core.register(
            fn, args, finalizer=finalizer, when=when, name=name, retries=retries, timeout=timeout
        )

    def _check_open(self) -> None:
        if self._closed:
            message = "the scope was used after its block had been left"
            raise ClosedError(message, since=self._since)

    def _carry(self, other: CompensationScope) -> None:
        """Have `other` end with this one, unless it is settled before."""
        if self._closed or not other.has_actions:
            return
        if self._carried is None:
            self._carried = set()
        self._carried.add(other)
        other._among = self._carried

    def _whole(self) -> _core.Scope:
        """Return all that it holds, which is about to be settled, or to go to another scope."""
        if self._among is not None:
            self._among.discard(self)
            self._among = None
        for other in tuple(self._carried or ()):
            self._core.absorb(other._whole())
        return self._core

    def _begin(
        self, policy: object
    ) -> tuple[_core.Playback, list[Played], bool, BaseException | None]:
        fatal: BaseException | None = None
        check_policy(policy, subject="rollback")
        self._undone = self._undone or self.has_actions
        if callable(policy):
            playback = self._whole().end(False, "custom")  # noqa: FBT003 - private
            actions = playback.unarranged()
            chosen = actions
            try:
                chosen = arranging(cast("Policy", policy))(tuple(actions)) if actions else []
            except (KeyboardInterrupt, SystemExit) as error:
                fatal = error  # as one of an action: it goes on when all have run
            playback.arranged(chosen)
            skipped = [action for action in actions if action.pending]
        else:
            playback = self._whole().end(False, str(policy))  # noqa: FBT003 - private
            skipped = playback.abandoned()
        played = [Played(action, "skipped", 0.0, None) for action in skipped]
        return playback, played, policy == "parallel", fatal

    def _end(self) -> _core.Playback:
        return self._whole().end(True, "sequential")  # noqa: FBT003 - private

    async def _play(
        self,
        playback: _core.Playback,
        skipped: Sequence[Played] = (),
        fatal: BaseException | None = None,
        *,
        parallel: bool = False,
        deadline: float | None = None,
    ) -> RollbackReport:
        played, leaving = await play(
            playback, parallel=parallel, deadline=deadline, child=CompensationScope
        )
        return self._told(played, fatal or leaving, skipped)

    def _told(
        self,
        played: list[Played],
        leaving: BaseException | None,
        skipped: Sequence[Played] = (),
    ) -> RollbackReport:
        """Keep the report, and return it, or raise what waited for it."""
        actions = [compensation_of(it) for it in (*played, *skipped)]
        self._report = RollbackReport(actions=tuple(actions))
        if leaving is not None:
            raise leaving
        return self._report


def tell(error: BaseException, report: RollbackReport | None) -> None:
    """Tell on `error` what was undone because of it."""
    if report is None or not report.actions:
        return
    record(error, undone=(*record_of(error).undone, *report.actions))
    if report.stuck:
        note(error, f"undo actions are stuck: {_stuck(report)}")


def warn_stuck(context: str, report: RollbackReport | None) -> None:
    """Log which actions of a part of the work are stuck.

    Whoever gets the error need not hear of it: a loser's, an earlier attempt's and that of a child
    that was cancelled go no further.
    """
    if report is not None and report.stuck:
        errors = ", ".join(
            f"{it.name} ({it.error!r})" for it in report.actions if it.outcome == "failed"
        )
        _logger.warning("%s: undo actions are stuck: %s", context, errors)


def _stuck(report: RollbackReport) -> str:
    return ", ".join(it.name for it in report.actions if it.outcome == "failed")


def check_policy(policy: object, *, subject: str, argument: str = "policy") -> None:
    """Raise a ConfigError unless `policy` tells how undo actions follow each other."""
    if callable(policy) or policy not in _POLICIES:
        allowed = "'sequential', 'parallel', 'none' or a def that takes the undo actions"
        check_def(policy, (), argument=argument, allowed=allowed, subject=subject)
