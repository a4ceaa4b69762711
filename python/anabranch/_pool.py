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
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from anabranch._core import Job


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
            args=(_serve, self._feed),
            name=f"anabranch-{self._name}-{len(self._threads)}",
            daemon=True,
        )
        try:
            thread.start()
        except RuntimeError:
            if not self._threads:
                raise
        else:
            self._threads.append(thread)

    def started(self) -> int:
        """Return how many threads there are."""
        return len(self._threads)

    def close(self, within: float) -> int:
        """Let the threads end; return how many are still busy after `within` seconds."""
        for _ in self._threads:
            self._feed.put(None)
        deadline = time.monotonic() + within
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return sum(thread.is_alive() for thread in self._threads)


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

    def close(self, within: float) -> int:
        """Return how many threads are still busy: none."""
        del within
        return 0


def _serve(feed: SimpleQueue[Job | None]) -> None:
    process = os.getpid()
    while (job := feed.get()) is not None:
        _call(job)
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
