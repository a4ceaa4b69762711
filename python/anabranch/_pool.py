"""The pipeline's threads, for `def` sinks and undo actions.

Daemon threads that idle in `SimpleQueue.get()`: a handler stuck in C does not keep the
interpreter from exiting, which a `ThreadPoolExecutor` would.
"""

from __future__ import annotations

import contextvars
import os
import threading
import time
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from anabranch._core import Job


# Threads that may be stuck at once: more of them would be a leak, and not an accident.
_MOST_ABANDONED: Final = 64


class Pool:
    """Up to `size` threads, started as work comes.

    Args:
        name: The pipeline's name, for the names of the threads.
        size: How many threads there may be.
    """

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size
        self._feed: SimpleQueue[Job | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        # Who runs which job. A dict, because taking an entry out is one step: either its thread
        # does, or who abandons it.
        self._busy: dict[Job, threading.Thread] = {}
        self._abandoned: list[threading.Thread] = []
        self._context = contextvars.copy_context()

    @property
    def put(self) -> Callable[[Job], None]:
        """Hands over a job; a thread runs it soon."""
        return self._feed.put

    def grow(self) -> None:
        """See to it that there is a thread for one more job.

        Raises:
            RuntimeError: The system gives none, and there is no other that could take the job.
        """
        if len(self._threads) == self._size:
            return
        # Each thread has a context of its own, copied from the one the pipeline runs in.
        thread = threading.Thread(
            target=self._context.copy().run,
            args=(_serve, self._feed, self._busy),
            name=f"anabranch-{self._name}-{self.started()}",
            daemon=True,
        )
        try:
            thread.start()
        except RuntimeError as error:
            if not self._threads:
                message = (
                    f"pipeline {self._name!r}: the system gives no thread for its `def` callables "
                    f"({error}); with inline=True they need none"
                )
                raise RuntimeError(message) from error
        else:
            self._threads.append(thread)

    def started(self) -> int:
        """Return how many threads there are."""
        return len(self._threads) + len(self._abandoned)

    def busy(self) -> list[Job]:
        """Return the jobs that threads are at, but for those that were abandoned."""
        return list(self._busy)

    def abandon(self, job: Job, ending: bool) -> bool:  # noqa: FBT001 - as the extension calls it
        """Give the place of the thread that is stuck in `job` to another one.

        Args:
            job: The job.
            ending: Whether the run is being aborted. Then it does not matter how many threads are
                stuck: it must end, and calls no more handlers.

        Returns:
            Whether that is so. If the job has just ended, or too many threads are stuck already,
            the thread keeps its place.
        """
        self._abandoned = [thread for thread in self._abandoned if thread.is_alive()]
        if len(self._abandoned) >= _MOST_ABANDONED and not ending:
            return False
        thread = self._busy.pop(job, None)
        if thread is None:
            return False
        self._threads.remove(thread)
        self._abandoned.append(thread)
        return True

    def close(self, within: float) -> int:
        """Let the threads end; return how many are still busy after `within` seconds.

        Those that were abandoned are not waited for, and one that only has not come to its end yet
        is not busy.
        """
        for _ in self._threads:
            self._feed.put(None)
        deadline = time.monotonic() + within
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return len(self._busy) + sum(thread.is_alive() for thread in self._abandoned)


class InlinePool:
    """Stands in for the pool in virtual time: a job runs at once, in the driving thread."""

    def put(self, job: Job) -> None:
        """Run a job."""
        _call(job)

    def grow(self) -> None:
        """Do nothing: there is always room for a job."""

    def started(self) -> int:
        """Return how many threads there are: none."""
        return 0

    def busy(self) -> list[Job]:
        """Return the jobs that threads are at: there are none."""
        return []

    def abandon(self, job: Job, ending: bool) -> bool:  # noqa: FBT001 - as the extension calls it
        """Return whether the job's thread is replaced: there is none."""
        del job, ending
        return False

    def close(self, within: float) -> int:
        """Return how many threads are still busy: none."""
        del within
        return 0


def _serve(feed: SimpleQueue[Job | None], busy: dict[Job, threading.Thread]) -> None:
    process, me = os.getpid(), threading.current_thread()
    while (job := feed.get()) is not None:
        busy[job] = me
        _call(job)
        if busy.pop(job, None) is None:
            return  # abandoned meanwhile: another thread has this one's place
        if os.getpid() != process:
            # The handler has forked: in the child nobody will ever feed this thread.
            return
        # The last job's objects must not live until the next one comes.
        del job


def _call(job: Job) -> None:
    try:
        call, arguments, named = job.parts()
        result = call(*arguments, **named)
    except BaseException as error:  # noqa: BLE001 - it becomes a failure, or ends the run
        job.failed(error)
    else:
        job.done(result)
