"""What a loop in which nothing happens any more waits for, in words."""

from __future__ import annotations

import asyncio
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

# Whose frames are no news to the reader.
_MACHINERY = (str(Path(asyncio.__file__).parent), str(Path(__file__).parent))


def tasks(loop: asyncio.AbstractEventLoop) -> list[str]:
    """Name the unfinished tasks of `loop`, and where in the user's code each of them waits."""
    described = (_describe(task) for task in asyncio.all_tasks(loop))
    return sorted(it for it in described if it is not None)


def name_of_function(func: Callable[..., Any], args: tuple[object, ...]) -> str:
    """Name a function in a thread; `asyncio.to_thread` wraps it."""
    called: Any = func
    while isinstance(called, functools.partial):
        called, args = called.func, called.args
    # Context.run(func, ...), by which to_thread hands on its context variables.
    if getattr(called, "__name__", "") == "run" and args and callable(args[0]):
        called = args[0]
    return str(getattr(called, "__qualname__", called))


def _describe(task: asyncio.Task[Any]) -> str | None:
    name = task.get_name()
    place: FrameType | None = None
    for frame in _frames(task.get_coro()):
        if not frame.f_code.co_filename.startswith(_MACHINERY):
            place = frame
    if place is None:
        # A worker at rest is one of many; what drives a pipeline bears its name.
        return f"pipeline: {name.removeprefix('anabranch ')}" if _drives(name) else None
    code = place.f_code
    return f"task {name}: {code.co_qualname}, {code.co_filename}:{place.f_lineno}"


def _drives(name: str) -> bool:
    return name.startswith("anabranch ")


def _frames(awaited: object) -> Iterator[FrameType]:
    """The frames of a suspended coroutine, outermost first."""
    while awaited is not None:
        for kind in ("cr", "gi", "ag"):
            frame = getattr(awaited, f"{kind}_frame", None)
            if frame is not None:
                yield frame
                inner = "yieldfrom" if kind == "gi" else "await"
                awaited = getattr(awaited, f"{kind}_{inner}", None)
                break
        else:
            return
