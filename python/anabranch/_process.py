"""The process under the pipelines that run in it: its end, and its forks.

Up to CPython 3.13 a daemon thread that asks for the interpreter after its end is unwound on the
spot, and unwinding a Rust frame aborts the process. So before that, every run is told to roll back;
the drivers that have not ended soon are parked where their thread has Python frames only, and stay
there until the process is gone: a blocking one with its thread, one in an event loop without.

This module is imported first of all: what is registered first runs last, after whatever the
program itself does at exit to end its pipelines in good order.

What nothing drives any more is ended here, and whatever is not undone is told of.

A fork copies a pipeline in the middle of what it does. The copy is told, and does nothing more:
whatever it did would be done twice.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NoReturn, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Generator

# Seconds for the rollback, then for the drivers to come to their parking place, then for those
# whose callables had to be interrupted for it. Together well below what a user takes for a hang.
_ROLLBACK: Final = 1.0
_PARKING: Final = 0.3
_INTERRUPTING: Final = 0.3


class Driven(Protocol):
    """A run, as this module sees it."""

    def abort(self) -> None:
        """Roll back at once, and wake the driver."""

    def copied(self) -> None:
        """This process is a fork: the run is its parent's."""

    def hurry(self) -> None:
        """Leave handlers behind that do not end now."""

    def end_with_process(self) -> None:
        """End without the driver: nothing will drive it any more.

        Raises:
            ResourceWarning: It has ended, and Python was told to make errors of them.
        """

    def tell_owed(self) -> None:
        """Say what will not be undone."""


# Without a lock, which a fork could leave taken for ever: each change is a single operation.
# Weak: a loop may be closed, and forgotten, under the run it drives.
_driving: weakref.WeakKeyDictionary[Driven, threading.Thread] = weakref.WeakKeyDictionary()
# Those that have not ended in time, and those of them that are where they should be.
_late: weakref.WeakSet[Driven] = weakref.WeakSet()
_parked: weakref.WeakSet[Driven] = weakref.WeakSet()


@contextmanager
def driving(run: Driven) -> Generator[None]:
    """Tell that this thread drives `run` meanwhile."""
    _driving[run] = threading.current_thread()
    try:
        yield
    finally:
        _driving.pop(run, None)


def late(run: Driven) -> bool:
    """Return whether the driver of `run` must not step any more; asked between two steps."""
    return run in _late


def park(run: Driven) -> NoReturn:
    """Stay here with the whole thread until the process is gone."""
    _parked.add(run)
    never = threading.Lock()
    while True:
        never.acquire()


async def rest(run: Driven, loop: asyncio.AbstractEventLoop) -> None:
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
    _wait(_ROLLBACK / 2)
    for run in _elsewhere():
        run.hurry()
    _wait(_ROLLBACK / 2)
    for run in _elsewhere():
        _late.add(run)
        run.abort()  # asked for already: this wakes it
    _wait(_PARKING)
    _interrupt(set(_elsewhere().values()))
    _wait(_INTERRUPTING)
    main = threading.main_thread()
    errors: list[str] = []
    for run, thread in tuple(_driving.items()):
        if thread is main or not thread.is_alive():
            # Its loop was closed or stopped under it, and somebody refers to it still.
            try:
                run.end_with_process()
            except ResourceWarning as warning:
                # Made an error by somebody: it costs the other runs nothing.
                errors.append(str(warning))
        else:
            run.tell_owed()
    if errors:
        # Of a group Python would show nothing but the name, here.
        raise ResourceWarning("\n".join(errors))


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


def _elsewhere() -> dict[Driven, threading.Thread]:
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


def _in_child() -> None:
    for run in tuple(_driving):
        run.copied()


atexit.register(_leave)
os.register_at_fork(after_in_child=_in_child)
