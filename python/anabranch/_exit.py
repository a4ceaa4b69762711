"""Leaving the interpreter while pipelines run in daemon threads.

Up to CPython 3.13 a daemon thread that asks for the interpreter after its end is unwound on the
spot, and unwinding a Rust frame aborts the process. So before that, every run is told to roll back;
the drivers that have not ended soon are parked where their thread has Python frames only, and stay
there until the process is gone: a blocking one with its thread, one in an event loop without.

This module is imported first of all: what is registered first runs last, after whatever the
program itself does at exit to end its pipelines in good order.
"""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Generator

    from anabranch._signals import Stoppable

# Seconds for the rollback, then for the drivers to come to their parking place, then for those
# whose callables had to be interrupted for it. Together well below what a user takes for a hang.
_ROLLBACK: Final = 1.0
_PARKING: Final = 0.3
_INTERRUPTING: Final = 0.3


# Without a lock, which a fork could leave taken for ever: each change is a single operation.
# Weak: a loop may be closed, and forgotten, under the run it drives.
_driving: weakref.WeakKeyDictionary[Stoppable, threading.Thread] = weakref.WeakKeyDictionary()
# Those that have not ended in time, and those of them that are where they should be.
_late: weakref.WeakSet[Stoppable] = weakref.WeakSet()
_parked: weakref.WeakSet[Stoppable] = weakref.WeakSet()


@contextmanager
def driving(run: Stoppable) -> Generator[None]:
    """Tell that this thread drives `run` meanwhile."""
    _driving[run] = threading.current_thread()
    try:
        yield
    finally:
        _driving.pop(run, None)


def late(run: Stoppable) -> bool:
    """Return whether the driver of `run` must not step any more; asked between two steps."""
    return run in _late


def park(run: Stoppable) -> NoReturn:
    """Stay here with the whole thread until the process is gone."""
    _parked.add(run)
    never = threading.Lock()
    while True:
        never.acquire()


async def rest(run: Stoppable, loop: asyncio.AbstractEventLoop) -> None:
    """Stay here, with the loop free, until the process is gone or the loop is shut down."""
    _parked.add(run)
    try:
        await loop.create_future()
    finally:
        # Whoever shuts the loop down waits for the end of the run.
        _late.discard(run)
        _parked.discard(run)


def _leave() -> None:
    for run in _elsewhere():
        run.abort()
    _wait(_ROLLBACK)
    for run in _elsewhere():
        _late.add(run)
        run.abort()  # asked for already: this wakes it
    _wait(_PARKING)
    _interrupt(set(_elsewhere().values()))
    _wait(_INTERRUPTING)


def _interrupt(threads: set[threading.Thread]) -> None:
    """End callables that run inline, inside a step.

    One that is stuck in C does no harm: it does not come back to ask for the interpreter. One in
    Python would.
    """
    import ctypes

    for thread in threads:
        if thread.ident is not None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit)
            )


def _elsewhere() -> dict[Stoppable, threading.Thread]:
    """Return the runs whose drivers may yet ask for the interpreter."""
    main = threading.main_thread()
    return {
        run: thread
        for run, thread in tuple(_driving.items())
        if thread is not main and thread.is_alive() and run not in _parked
    }


def _wait(seconds: float) -> None:
    until = time.monotonic() + seconds
    while _elsewhere() and time.monotonic() < until:
        time.sleep(0.001)


atexit.register(_leave)
