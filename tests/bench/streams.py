"""Sources that go on for a given time, and threads and tasks that notice when they wake up late."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from threading import Event as Flag
from threading import Thread
from time import perf_counter, sleep
from typing import TYPE_CHECKING

from data import Sums, expected

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from data import Event

TICK = 0.001


class Endless:
    """The same events again and again, from a generator, for `seconds`."""

    def __init__(self, events: Sequence[Event], seconds: float) -> None:
        self._events = events
        self._seconds = seconds
        self._rounds = 0

    def __iter__(self) -> Iterator[Event]:
        end = perf_counter() + self._seconds
        while perf_counter() < end:
            yield from self._events
            self._rounds += 1

    def expected(self) -> Sums:
        """Return the sums of what has been yielded."""
        once = expected(self._events)
        return Sums(once.count * self._rounds, once.value * self._rounds)

    def count(self) -> int:
        """Return how many events have been yielded."""
        return len(self._events) * self._rounds


async def tick(seconds: float) -> list[float]:
    """Sleep for a millisecond again and again; return how late each wake-up was, in seconds."""
    loop = asyncio.get_running_loop()
    late: list[float] = []
    end = loop.time() + seconds
    while (now := loop.time()) < end:
        await asyncio.sleep(TICK)
        late.append(loop.time() - now - TICK)
    return late


def nap(late: list[float]) -> None:
    """Sleep for a millisecond on this thread; note in `late` how late the wake-up was, in s."""
    start = perf_counter()
    sleep(TICK)
    late.append(perf_counter() - start - TICK)


@contextmanager
def bystander() -> Iterator[list[float]]:
    """Run a thread that wakes each millisecond, as a user's own would; yield its lateness."""
    late: list[float] = []
    stop = Flag()

    def wake() -> None:
        while not stop.is_set():
            nap(late)

    thread = Thread(target=wake, daemon=True)
    thread.start()
    try:
        yield late
    finally:
        stop.set()
        thread.join()
