"""Leaving the interpreter while pipelines run in daemon threads.

Up to CPython 3.13 a daemon thread that asks for the interpreter after its end is unwound on the
spot, and unwinding a Rust frame aborts the process. So before that, every run is told to roll back;
the drivers that have not ended soon are parked where their thread has Python frames only, and stay
there until the process is gone.
"""

from __future__ import annotations

import atexit
import ctypes
import threading
import time
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NoReturn, Protocol

if TYPE_CHECKING:
    from collections.abc import Generator

# Seconds for the rollback, then for the drivers to come to their parking place, then for those
# whose callables had to be interrupted for it. Together well below what a user takes for a hang.
_ROLLBACK: Final = 1.0
_PARKING: Final = 0.3
_INTERRUPTING: Final = 0.3


class Stoppable(Protocol):
    """A run, as exit sees it."""

    def abort(self) -> None:
        """Roll back at once, and wake the driver."""


# Without a lock, which a fork could leave taken for ever: each change is a single operation.
# Weak: a loop may be closed, and forgotten, under the run it drives.
_driving: weakref.WeakKeyDictionary[Stoppable, threading.Thread] = weakref.WeakKeyDictionary()
_parked: set[threading.Thread] = set()
_leaving = threading.Event()


@contextmanager
def driving(run: Stoppable) -> Generator[None]:
    """Tell that this thread drives `run` meanwhile."""
    _driving[run] = threading.current_thread()
    try:
        yield
    finally:
        _driving.pop(run, None)


def check() -> None:
    """Stay here for ever if the interpreter is about to end; drivers call it between two steps."""
    if _leaving.is_set() and threading.current_thread() is not threading.main_thread():
        _park()


def _park() -> NoReturn:
    _parked.add(threading.current_thread())
    never = threading.Lock()
    while True:
        never.acquire()


def _leave() -> None:
    for run in _elsewhere():
        run.abort()
    _wait(_ROLLBACK)
    _leaving.set()
    for run in _elsewhere():
        run.abort()  # asked for already: this wakes it
    _wait(_PARKING)
    # A callable that runs inline, inside a step. One that is stuck in C does no harm: it does not
    # come back to ask for the interpreter. One in Python would.
    for thread in set(_elsewhere().values()):
        if thread.ident is not None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit)
            )
    _wait(_INTERRUPTING)


def _elsewhere() -> dict[Stoppable, threading.Thread]:
    """Return the runs whose drivers may yet ask for the interpreter."""
    main = threading.main_thread()
    return {
        run: thread
        for run, thread in tuple(_driving.items())
        if thread is not main and thread.is_alive() and thread not in _parked
    }


def _wait(seconds: float) -> None:
    until = time.monotonic() + seconds
    while _elsewhere() and time.monotonic() < until:
        time.sleep(0.001)


atexit.register(_leave)
