"""Playing a rollback outside a run: a scope by itself, and actions of a run that got stuck.

What comes next is the core's to say; here the actions are called, one at a time or at once.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from anabranch import _core
from anabranch._callables import examine_action
from anabranch._failures import undo_timed_out
from anabranch._watch import is_stepped, stepped
from anabranch.errors import AnabranchError, refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from anabranch._core import UndoAction
    from anabranch.errors import HandlerTimeout
    from anabranch.scope import Policy

_logger = logging.getLogger("anabranch")
# Seconds, as in the plan.
_LONGEST = 1e9
# What asks for the process to end: not tried again, and raised when all have had their turn.
_FATAL = (KeyboardInterrupt, SystemExit)


class Played:
    """What became of one action; `error` tells why it is stuck, if it is."""

    __slots__ = ("action", "error", "outcome", "seconds")

    def __init__(
        self, action: UndoAction, outcome: str, seconds: float, error: BaseException | None
    ) -> None:
        self.action: UndoAction = action
        self.outcome: str = outcome
        self.seconds: float = seconds
        self.error: BaseException | None = error


async def play(
    playback: _core.Playback,
    *,
    parallel: bool = False,
    deadline: float | None = None,
    child: Callable[[], Any] | None = None,
) -> tuple[list[Played], BaseException | None]:
    """Play to the end, or to the deadline in seconds; what wants to end more than that waits.

    Args:
        playback: What to play.
        parallel: Whether to run all of a pass at once.
        deadline: Seconds until what has not run is given up.
        child: Makes what an action with a parameter `ctx` is given where it has no Context.

    Returns:
        What was played, and the cancellation, or what asked for the process to end, that is to go
        on now.
    """
    task = asyncio.ensure_future(_play(playback, parallel=parallel, deadline=deadline, child=child))
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    played = task.result()
    return played, _fatal(played) or cancelled


async def _play(
    playback: _core.Playback,
    *,
    parallel: bool,
    deadline: float | None,
    child: Callable[[], Any] | None,
) -> list[Played]:
    until = None if deadline is None else _now() + deadline
    played: list[Played] = []
    while not playback.over:
        if _is_over(until):
            playback.give_up()
        actions: list[UndoAction] = []
        while (action := playback.next()) is not None:
            actions.append(action)
            if not parallel:
                break
        coroutines = [_run(playback, action, until, child) for action in actions]
        if len(coroutines) == 1:
            played.append(await coroutines[0])
        else:
            played += await asyncio.gather(*coroutines)
    return played + _given_up(playback)


async def _run(
    playback: _core.Playback,
    action: UndoAction,
    until: float | None,
    child: Callable[[], Any] | None,
) -> Played:
    me = stepped()
    began = _now()
    tried = 0
    contexts: list[Any] = []
    while True:
        contexts.append(context := _context(action, tried + 1, child))
        error: BaseException | None = None
        patience, by_deadline = _patience(action, until)
        limit = asyncio.timeout(patience)
        try:
            result = _called(action, context)
            if inspect.isawaitable(result):
                async with limit:
                    await result
        except _FATAL as failure:
            error = failure
            break
        except BaseException as failure:
            if isinstance(failure, GeneratorExit) and not is_stepped(me):
                raise
            error = failure
            if limit.expired() and patience is not None:
                error = _overran(action, patience, failure, by_deadline=by_deadline)
        if error is None or tried >= action.retries or _is_over(until):
            break
        tried += 1
    playback.ran(_registered(contexts))
    return _ended(action, began, error)


def play_blocking(
    playback: _core.Playback,
    *,
    deadline: float | None = None,
    child: Callable[[], Any] | None = None,
) -> tuple[list[Played], BaseException | None]:
    """Play in this thread; an action that must be awaited gets a loop of its own.

    A Ctrl-C ends the action that it finds, and the others have their turn; a second one gives them
    up.

    Returns:
        What was played, and what asked for the process to end, which is to go on now.
    """
    until = None if deadline is None else _now() + deadline
    played: list[Played] = []
    fatal: BaseException | None = None
    while not playback.over:
        if _is_over(until):
            playback.give_up()
        while (action := playback.next()) is not None:
            played.append(_run_blocking(playback, action, until, child))
            # Of this one alone: to look at all each time would make a long rollback too slow.
            if (asked := _fatal(played[-1:])) is not None:
                if fatal is not None:
                    playback.give_up()
                fatal = asked if fatal is None else fatal
            if _is_over(until):
                break
    return played + _given_up(playback), fatal


def _fatal(played: list[Played]) -> BaseException | None:
    """Return what asked for the process to end while an action ran."""
    errors = (it.error for it in played)
    return next((it for it in errors if isinstance(it, _FATAL)), None)


def _run_blocking(
    playback: _core.Playback,
    action: UndoAction,
    until: float | None,
    child: Callable[[], Any] | None,
) -> Played:
    began = _now()
    tried = 0
    contexts: list[Any] = []
    while True:
        contexts.append(context := _context(action, tried + 1, child))
        error: BaseException | None = None
        try:
            result = _called(action, context)
            if inspect.isawaitable(result):
                _awaited(action, result, until)
        except _FATAL as failure:
            error = failure
            break
        except BaseException as failure:  # noqa: BLE001 - it is told in the report
            error = failure
        if error is None or tried >= action.retries or _is_over(until):
            break
        tried += 1
    playback.ran(_registered(contexts))
    return _ended(action, began, error)


def _awaited(action: UndoAction, awaitable: Any, until: float | None) -> None:  # noqa: ANN401 - any awaitable
    async def wait() -> None:
        patience, by_deadline = _patience(action, until)
        limit = asyncio.timeout(patience)
        try:
            async with limit:
                await awaitable
        except TimeoutError as failure:
            if patience is None or not limit.expired():
                raise
            raise _overran(action, patience, failure, by_deadline=by_deadline) from failure

    if _in_a_loop():
        if inspect.iscoroutine(awaitable):
            awaitable.close()
        message = "an event loop runs in this thread: await the rollback instead of blocking it"
        raise RuntimeError(message)
    with asyncio.Runner() as runner:
        runner.run(wait())


def _in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _called(action: UndoAction, context: Any) -> object:  # noqa: ANN401 - a Context or a scope
    if action.takes_ctx:
        return action.call(*action.args, ctx=context)
    return action.call(*action.args)


def _context(action: UndoAction, attempt: int, child: Callable[[], Any] | None) -> Any:  # noqa: ANN401 - as above
    if not action.takes_ctx:
        return None
    context = action.context(attempt)
    if context is not None:
        return context
    return None if child is None else child()


def _registered(contexts: list[Any]) -> list[_core.Scope | _core.Context]:
    # Of every try: what a try did before it failed is there, too.
    made = [it for it in contexts if it is not None]
    return [it if isinstance(it, _core.Context) else it._whole() for it in made]  # noqa: SLF001 - a CompensationScope of ours


def _patience(action: UndoAction, until: float | None) -> tuple[float | None, bool]:
    """Return the seconds a try may take, and whether it is the deadline that says so."""
    if until is None:
        return action.timeout, False
    left = max(0.0, until - _now())
    if action.timeout is not None and action.timeout <= left:
        return action.timeout, False
    return left, True


def _overran(
    action: UndoAction, patience: float, cause: BaseException, *, by_deadline: bool
) -> HandlerTimeout:
    error = undo_timed_out(action.name, patience, by_deadline, action.pipeline, action.stage)
    error.__cause__ = cause
    return error


def _now() -> float:
    """Return the time that timeouts go by here: the running loop's, which may be a test's."""
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return time.monotonic()


def _is_over(until: float | None) -> bool:
    return until is not None and _now() >= until


def _ended(action: UndoAction, began: float, error: BaseException | None) -> Played:
    outcome = "done" if error is None else "failed"
    return Played(action, outcome, _now() - began, error)


def _given_up(playback: _core.Playback) -> list[Played]:
    return [Played(action, "unrun", 0.0, None) for action in playback.abandoned()]


def arranging(policy: Policy) -> Callable[[tuple[UndoAction, ...]], list[UndoAction]]:
    """Make what asks a policy for the actions to run, and runs all if it gives no answer."""

    def arrange(actions: tuple[UndoAction, ...]) -> list[UndoAction]:
        try:
            chosen = list(policy(actions))
            known = set(map(id, actions))
            strange = [it for it in chosen if id(it) not in known]
            if strange:
                message = f"a rollback policy returns some of its actions, not {strange[0]!r}"
                raise AnabranchError(message)  # noqa: TRY301 - handled like one of the policy's own
        except _FATAL:
            raise
        except BaseException:
            # Nothing is lost because of it: the actions run as they do without a policy.
            _logger.exception("the rollback policy failed; all actions are run")
            return list(actions)
        return chosen

    return arrange


def seconds(deadline: object, subject: str) -> float | None:
    """Return a rollback's deadline in seconds.

    Args:
        deadline: What was passed for it.
        subject: What it was passed to.

    Raises:
        ConfigError: It is none.
    """
    if deadline is None:
        return None
    value = deadline.total_seconds() if isinstance(deadline, timedelta) else deadline
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LONGEST:
        allowed = f"None or seconds from 0 to {_LONGEST:.0f}"
        raise refused("deadline", deadline, allowed, subject=subject)
    return float(value)


def new_scope() -> _core.Scope:
    """Make the core's part of a scope."""
    return _core.Scope(examine_action)
