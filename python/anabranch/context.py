"""`Context`: what a callable is told about the work it is part of, and where it registers undos.

Longer than others by the documentation of the one type that pipelines and calls by hand share.
"""

from __future__ import annotations

from abc import ABCMeta
from typing import TYPE_CHECKING, Any, Literal, Self, cast

from anabranch import _core
from anabranch.cancel import Cancel
from anabranch.errors import ClosedError, check_name, refused

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from datetime import timedelta
    from types import TracebackType

    from anabranch._core import WindowInfo
    from anabranch._virtual import VirtualClock
    from anabranch.scope import CompensationScope, Policy

_LEVELS = ("unit", "branch", "pipeline")


class Context(metaclass=ABCMeta):  # noqa: B024 - nothing is missing; the engine's own is registered
    """What a callable is told about the work it is part of, and where it registers undo actions.

    A callable with a parameter named `ctx` is given one: in a pipeline that of its unit's attempt,
    in a call by hand (`ab.retry`, `ab.race`, a group, a saga, ...) one of its own. It is valid
    during the call. Calls take theirs as `ctx=`, and what they did is then part of it: names,
    clock and cancellation come from it, and when the call has succeeded, its undo actions go to
    it. What a call did that has failed is undone before its error is raised.

    One made by hand is the beginning of it. As a context manager, plain or `async`, it commits
    when the block ends well and undoes everything when it raises.

    Args:
        name: What errors and the names of children begin with.
        scope: Where undo actions go, which then is not ended here; one of its own if None.
        clock: A VirtualClock to go by; None: the event loop's, or the machine's.
        cancel: What cancels the calls that are given this context.
        tenant: The key to tell callables.
        rollback: How undo actions follow each other; see `CompensationScope.rollback`.
        rollback_deadline: Seconds until what has not run is given up; None for no limit.

    Raises:
        ConfigError: An argument is not allowed.

    Example:
        >>> import anabranch as ab
        >>> stock = {"book": 3}
        >>> def restock(title: str) -> None:
        ...     stock[title] += 1
        >>> def reserve(ctx: ab.Context) -> None:
        ...     ctx.compensate(restock, "book")  # runs only if something fails later
        ...     stock["book"] -= 1
        >>> try:
        ...     with ab.Context("order") as ctx:
        ...         ab.retry(reserve, ab.Retry.fixed(0.1), ctx=ctx)
        ...         print(stock)
        ...         raise OSError("no connection")
        ... except OSError:
        ...     print(stock)
        {'book': 2}
        {'book': 3}
    """

    # The parts of a child are filled in by `_child`, which is on the hot path of groups.
    __slots__ = (
        "__weakref__",
        "_attempt",
        "_cancel",
        "_clock",
        "_deadline",
        "_ended",
        "_label",
        "_left",
        "_owns_scope",
        "_parent",
        "_policy",
        "_rollback_deadline",
        "_scope",
        "_stopped",
        "_tenant",
    )

    def __init__(
        self,
        name: str,
        *,
        scope: CompensationScope | None = None,
        clock: VirtualClock | None = None,
        cancel: Cancel | None = None,
        tenant: object = None,
        rollback: Literal["sequential", "parallel", "none"] | Policy = "sequential",
        rollback_deadline: float | timedelta | None = 30.0,
    ) -> None:
        # Here: they import asyncio, which a program that only builds does not need.
        from anabranch import scope as scopes
        from anabranch._playback import seconds

        check_name(name, "Context")
        if scope is not None and not isinstance(cast("object", scope), scopes.CompensationScope):
            raise refused("scope", scope, "a CompensationScope or None", subject="Context")
        if clock is not None and not isinstance(getattr(clock, "_time", None), _core.VirtualTime):
            raise refused("clock", clock, "a VirtualClock or None", subject="Context")
        if cancel is not None and not isinstance(cast("object", cancel), Cancel):
            raise refused("cancel", cancel, "a Cancel or None", subject="Context")
        scopes.check_policy(rollback, subject="Context", argument="rollback")
        # None in an attempt, which has the name of its call.
        self._label: str | None = name
        self._parent: Context | None = None
        self._owns_scope = scope is None
        self._scope: CompensationScope | None = scope
        self._clock = clock
        self._cancel = cancel
        self._tenant = tenant
        self._attempt = 1
        self._deadline: float | None = None
        self._policy: Any = rollback
        self._rollback_deadline = seconds(rollback_deadline, "Context")
        self._ended = False
        self._stopped = False
        # Losers of races that are being undone; None outside of `async with`.
        self._left: set[asyncio.Task[None]] | None = None

    @property
    def name(self) -> str:
        """The name of the work: in a pipeline its name and the stage's, of a child `parent.child`.

        Parts are joined by dots.
        """
        label, parent = self._label, self._parent
        if parent is None:
            return label or ""
        return parent.name if label is None else f"{parent.name}.{label}"

    @property
    def tenant(self) -> Any:  # noqa: ANN401 - a key can be anything hashable
        """The key of the branch; None before `fan_out`."""
        return self._tenant

    @property
    def pipeline(self) -> str:
        """The pipeline's name; by hand that of the outermost context."""
        context: Context = self
        while context._parent is not None:
            context = context._parent
            if isinstance(context, _core.Context):
                return context.pipeline
        return context._label or ""

    @property
    def stage(self) -> str:
        """The stage's name; by hand the last part of the name."""
        if self._label is None and self._parent is not None:
            return self._parent.stage
        return self._label or ""

    @property
    def attempt(self) -> int:
        """The number of the attempt, from 1."""
        return self._attempt

    @property
    def deadline(self) -> float | None:
        """When the call must have ended; None: never.

        In a pipeline seconds since the start of the run, by hand seconds of the event loop's clock.
        """
        return self._deadline

    @property
    def remaining(self) -> float | None:
        """Seconds left until the deadline, never less than 0; None: there is no deadline."""
        from anabranch._calls import now_of

        return None if self._deadline is None else max(0.0, self._deadline - now_of(self))

    @property
    def cancelled(self) -> bool:
        """Whether the work was cancelled, or has ended, e.g. because its time was up.

        A long `def` looks at it now and then.
        """
        context: Context | None = self
        while context is not None:
            if isinstance(context, _core.Context):
                return context.cancelled
            if context._ended or context._stopped:
                return True
            if context._cancel is not None and context._cancel.cancelled:
                return True
            context = context._parent
        return False

    @property
    def window(self) -> WindowInfo | None:
        """The window, if the unit is one."""
        return None

    def compensate(
        self,
        fn: Callable[..., object],
        /,
        *args: object,
        level: Literal["unit", "branch", "pipeline"] = "unit",
        when: bool = True,
        name: str | None = None,
        retries: int = 0,
        timeout: float | None = 30.0,
    ) -> None:
        """Register how to undo what the callable did, or is about to do.

        If it fails, or something later that it is part of, or it is cut short, the undo actions
        run in strict reverse order of registration, those of each failed attempt before the next
        one. If all succeeds they are released. Register before the effect: an undo of something
        that did not happen is usually harmless, a missing one is not.

        In a pipeline, what a unit with several outputs registered belongs to all of them: it runs
        once all have ended, if one of them has failed, and after what they registered themselves.

        Args:
            fn: The undo action, `def` or `async def`. In a pipeline a `def` runs where the handler
                runs: on the pool, or inline. One with a parameter `ctx` is given somewhere to
                register, and what its tries register there, failed ones included, runs in a next
                pass (at most 16).
            args: What to call it with; keywords go through `functools.partial`.
            level: "unit". In a pipeline also "branch": it stays when the unit has ended, and runs
                if the branch fails, or the run fails or is aborted (before `fan_out`: the run);
                "pipeline": if the run fails or is aborted. By hand these belong to the outermost
                context.
            when: False: check the arguments, and register nothing.
            name: What reports call it; the callable's name by default.
            retries: Further tries if it raises.
            timeout: Seconds each try of an `async def` may take, None for no limit; a `def`
                cannot be stopped. One that is still running at the rollback's deadline is stuck:
                on the pool its thread is left behind, and the run goes on; inline it holds the
                run up.

        Raises:
            ConfigError: An argument is not allowed.
            ClosedError: The callable has returned.
        """
        scope = self._registering("compensate", level)
        scope.compensate(fn, *args, when=when, name=name, retries=retries, timeout=timeout)

    def finalize(
        self,
        fn: Callable[..., object],
        /,
        *args: object,
        level: Literal["unit", "branch", "pipeline"] = "unit",
        when: bool = True,
        name: str | None = None,
        retries: int = 0,
        timeout: float | None = 30.0,
    ) -> None:
        """Register what closes or releases something when the work has ended, however it ends.

        Finalizers run after the undo actions, which may still need what they close; the last one
        registered runs first. Those of a failed attempt run before the next one. With
        `commit="end"`, too, those of a unit run when it has ended: what its undo actions still need
        at the end of the run is closed at `level="pipeline"`.

        The arguments and errors are those of `compensate`.

        Example:
            >>> import anabranch as ab
            >>> log = []
            >>> def store(n: int, ctx: ab.Context) -> None:
            ...     ctx.finalize(log.append, "closed")
            ...     ctx.compensate(log.append, "undone")
            ...     raise ValueError(n)
            >>> report = ab.Pipeline("p").source([1]).for_each(store, inline=True).run_blocking()
            >>> log, report.compensated, report.finalized
            (['undone', 'closed'], 1, 1)
        """
        scope = self._registering("finalize", level)
        scope.finalize(fn, *args, when=when, name=name, retries=retries, timeout=timeout)

    def __enter__(self) -> Self:
        """Begin the block."""
        if self._ended:
            raise ClosedError(f"context {self.name!r}: its block has been left; make a new one")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Commit, or undo everything if the block has raised."""
        if error is None:
            self._keep_blocking()
        else:
            self._undo_blocking(error)

    async def __aenter__(self) -> Self:
        """Begin the block."""
        self._left = set()
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Commit, or undo everything if the block has raised.

        Losers of races in the block, which are still being undone, are waited for.
        """
        from anabranch._watch import joined

        left, self._left = self._left, None
        cancelled = await joined(left or ())
        if error is None:
            await self._keep()
        else:
            await self._undo(error)
        if cancelled is not None:
            raise cancelled

    def __repr__(self) -> str:
        return f"Context(name={self.name!r}, tenant={self._tenant!r}, attempt={self._attempt})"

    # For the package.

    def _own_clock(self) -> VirtualClock | None:
        """Return the clock it, or one it is a part of, was given."""
        context: Context | None = self
        while context is not None and not isinstance(context, _core.Context):
            if context._clock is not None:
                return context._clock
            context = context._parent
        return None

    def _engines(self) -> _core.Context | None:
        """Return the context of the pipeline's handler that it is a part of, if it is of one."""
        context: Context | None = self
        while context is not None and not isinstance(context, _core.Context):
            context = context._parent
        return context

    def _tokens(self) -> list[Cancel]:
        """Return what can cancel it."""
        tokens: list[Cancel] = []
        context: Context | None = self
        while context is not None and not isinstance(context, _core.Context):
            if context._cancel is not None:
                tokens.append(context._cancel)
            context = context._parent
        return tokens

    def _check(self) -> None:
        """Raise if it is cancelled."""
        for token in self._tokens():
            token._check(self.name)

    def _registering(self, verb: str, level: str) -> CompensationScope:
        if level not in _LEVELS:
            allowed = "'unit', 'branch' or 'pipeline'"
            raise refused("level", level, allowed, subject=f"context {self.name!r}: {verb}")
        context: Context = self
        while level != "unit" and context._parent is not None:
            if isinstance(context._parent, _core.Context):
                break
            context = context._parent
        if context._ended:
            raise ClosedError(
                f"context {self.name!r}: {verb}() was called after its work had ended; "
                "register before the callable returns"
            )
        return context._scoped()

    def _scoped(self) -> CompensationScope:
        if self._scope is None:
            from anabranch.scope import CompensationScope

            self._scope = CompensationScope()
        return self._scope

    def _take(self, scope: CompensationScope) -> None:
        """Take over what a part of the work, which has succeeded, has registered."""
        if self._ended:
            raise ClosedError(
                f"context {self.name!r}: what was done under it ended after it had ended itself"
            )
        self._scoped().absorb(scope)

    def _carry(self, scope: CompensationScope) -> None:
        """Have `scope` end with this work, unless it is settled before."""
        if not self._ended:
            self._scoped()._carry(scope)

    def _hand_over(self) -> bool:
        """The work has succeeded: hand its actions to whom it is a part of, if it is of any."""
        scope, parent = self._scope, self._parent
        if scope is None or not scope.has_actions:
            self._ended = True
            return True
        if parent is None:
            self._ended = True
            return not self._owns_scope
        if isinstance(parent, _core.Context):
            parent._absorb(scope._whole())
        else:
            parent._take(scope)
        self._ended = True
        return True

    async def _commit(self) -> None:
        """The work has succeeded, and is settled by itself, whatever it is a part of."""
        self._ended = True
        if self._scope is not None and self._scope.has_actions:
            await self._scope.commit()

    def _commit_blocking(self) -> None:
        self._ended = True
        if self._scope is not None and self._scope.has_actions:
            self._scope.commit_blocking()

    async def _keep(self) -> None:
        if not self._hand_over():
            await self._scoped().commit()

    def _keep_blocking(self) -> None:
        if not self._hand_over():
            self._scoped().commit_blocking()

    async def _undo(self, error: BaseException) -> None:
        """The work has failed: undo it; shielded from cancellations meanwhile."""
        from anabranch.scope import tell, warn_stuck

        self._ended = True
        scope = self._scope
        if scope is None or not scope.has_actions or not self._owns_scope:
            return
        try:
            await scope.rollback(policy=self._policy, deadline=self._rollback_deadline)
        finally:
            tell(error, scope.report)
            warn_stuck(self.name, scope.report)

    def _undo_blocking(self, error: BaseException) -> None:
        from anabranch.scope import tell, warn_stuck

        self._ended = True
        scope = self._scope
        if scope is None or not scope.has_actions or not self._owns_scope:
            return
        try:
            scope.rollback_blocking(policy=self._policy, deadline=self._rollback_deadline)
        finally:
            tell(error, scope.report)
            warn_stuck(self.name, scope.report)


Context.register(_core.Context)


def child_of(
    parent: Context, label: str | None, *, attempt: int = 1, cancel: Cancel | None = None
) -> Context:
    """Make the context of a part of the work of `parent`; of an attempt without a label."""
    child = Context.__new__(Context)
    child._label = label
    child._parent = parent
    child._owns_scope = True
    child._scope = None
    child._cancel = cancel
    child._attempt = attempt
    child._ended = child._stopped = False
    child._left = None
    child._tenant = parent.tenant
    child._clock = None
    if isinstance(parent, _core.Context):
        from anabranch._calls import now_of

        remaining = parent.remaining
        child._deadline = None if remaining is None else now_of(parent) + remaining
        child._policy = "sequential"
        child._rollback_deadline = 30.0
    else:
        child._deadline = parent._deadline
        child._policy = parent._policy
        child._rollback_deadline = parent._rollback_deadline
    return child
