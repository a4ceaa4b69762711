"""Playing a rollback outside a run: a scope by itself, and actions of a run that got stuck.

What comes next is the core's to say; here the actions are called, one at a time or at once.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from typing import TYPE_CHECKING, Any

from anabranch import _core
from anabranch._callables import examine_undo
from anabranch.errors import AnabranchError

if TYPE_CHECKING:
    from collections.abc import Callable

    from anabranch._core import UndoAction
    from anabranch.scope import Policy

_logger = logging.getLogger("anabranch")


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
) -> tuple[list[Played], asyncio.CancelledError | None]:
    """Play to the end, or to the deadline in seconds; a cancellation waits until then.

    Args:
        playback: What to play.
        parallel: Whether to run all of a pass at once.
        deadline: Seconds until what has not run is given up.
        child: Makes what an action with a parameter `ctx` is given where it has no Context.

    Returns:
        What was played, and the cancellation that is to go on now.
    """
    task = asyncio.ensure_future(_play(playback, parallel=parallel, deadline=deadline, child=child))
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    return task.result(), cancelled


async def _play(
    playback: _core.Playback,
    *,
    parallel: bool,
    deadline: float | None,
    child: Callable[[], Any] | None,
) -> list[Played]:
    until = None if deadline is None else time.monotonic() + deadline
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
    began = time.monotonic()
    tried = 0
    while True:
        context = _context(action, tried + 1, child)
        error: BaseException | None = None
        try:
            result = _called(action, context)
            if inspect.isawaitable(result):
                async with asyncio.timeout(_patience(action, until)):
                    await result
        except Exception as failure:  # noqa: BLE001 - it is told in the report
            error = failure
        except asyncio.CancelledError as failure:
            error = failure
        if error is None or tried >= action.retries or _is_over(until):
            break
        tried += 1
    playback.ran(_registered(context))
    return _ended(action, began, error)


def play_blocking(
    playback: _core.Playback,
    *,
    deadline: float | None = None,
    child: Callable[[], Any] | None = None,
) -> list[Played]:
    """Play in this thread; an action that must be awaited gets a loop of its own."""
    until = None if deadline is None else time.monotonic() + deadline
    played: list[Played] = []
    while not playback.over:
        if _is_over(until):
            playback.give_up()
        while (action := playback.next()) is not None:
            played.append(_run_blocking(playback, action, until, child))
            if _is_over(until):
                break
    return played + _given_up(playback)


def _run_blocking(
    playback: _core.Playback,
    action: UndoAction,
    until: float | None,
    child: Callable[[], Any] | None,
) -> Played:
    began = time.monotonic()
    tried = 0
    while True:
        context = _context(action, tried + 1, child)
        error: Exception | None = None
        try:
            result = _called(action, context)
            if inspect.isawaitable(result):
                _awaited(result, _patience(action, until))
        except Exception as failure:  # noqa: BLE001 - it is told in the report
            error = failure
        if error is None or tried >= action.retries or _is_over(until):
            break
        tried += 1
    playback.ran(_registered(context))
    return _ended(action, began, error)


def _awaited(awaitable: Any, patience: float | None) -> None:  # noqa: ANN401 - any awaitable
    async def wait() -> None:
        async with asyncio.timeout(patience):
            await awaitable

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


def _registered(context: Any) -> _core.Scope | _core.Context | None:  # noqa: ANN401 - as above
    if context is None or isinstance(context, _core.Context):
        return context
    scope: _core.Scope = context._core  # noqa: SLF001 - a CompensationScope of ours
    return scope


def _patience(action: UndoAction, until: float | None) -> float | None:
    left = None if until is None else max(0.0, until - time.monotonic())
    return min((it for it in (left, action.timeout) if it is not None), default=None)


def _is_over(until: float | None) -> bool:
    return until is not None and time.monotonic() >= until


def _ended(action: UndoAction, began: float, error: BaseException | None) -> Played:
    outcome = "done" if error is None else "failed"
    return Played(action, outcome, time.monotonic() - began, error)


def _given_up(playback: _core.Playback) -> list[Played]:
    return [Played(action, "unrun", 0.0, None) for action in playback.abandoned()]


def arranging(policy: Policy) -> Callable[[tuple[UndoAction, ...]], list[UndoAction]]:
    """Make what asks a policy for the actions to run, and runs all if it gives no answer."""

    def arrange(actions: tuple[UndoAction, ...]) -> list[UndoAction]:
        try:
            chosen = list(policy(actions))
            strange = next((it for it in chosen if it not in actions), None)
            if strange is not None:
                message = f"a rollback policy returns some of its actions, not {strange!r}"
                raise AnabranchError(message)  # noqa: TRY301 - handled like one of the policy's own
        except Exception:
            # Nothing is lost because of it: the actions run as they do without a policy.
            _logger.exception("the rollback policy failed; all actions are run")
            return list(actions)
        return chosen

    return arrange


def new_scope() -> _core.Scope:
    """Make the core's part of a scope."""
    return _core.Scope(examine_undo)
