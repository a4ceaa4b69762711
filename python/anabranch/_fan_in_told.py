"""What the sources of a fan-in are told, and what a call ends with that is cancelled by itself."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING

from anabranch._watch import is_stepped, stepped
from anabranch.errors import Cancelled

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from anabranch._calls import Act


def is_cancelled() -> bool:
    """Return whether the running task is being cancelled by another one."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def cancelled_by_itself(name: str, error: asyncio.CancelledError) -> Cancelled:
    """Return what a call has failed with that was cancelled by itself, not by the fan-in's end."""
    cancelled = Cancelled(f"{name!r} was cancelled", reason="it was cancelled")
    cancelled.__cause__ = error
    return cancelled


async def outcome_of(answer: Awaitable[object], name: str) -> BaseException | None:
    """Await what an ack has returned, in a task of its own; return what that raises.

    Raised in that task, a KeyboardInterrupt would end the loop, and once more where it is awaited.
    """
    me = stepped()
    try:
        await answer
    except asyncio.CancelledError as error:
        # Who cancels the fan-in does not cancel this.
        return cancelled_by_itself(name, error)
    except BaseException as error:
        if isinstance(error, GeneratorExit) and not is_stepped(me):
            raise
        return error
    return None


async def told(call: Act, *args: object) -> None:
    """Call what a source wants to be told by."""
    value = call.fn(*args)
    if inspect.isawaitable(value):
        await value
