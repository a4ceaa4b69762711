"""For tests of code that uses anabranch: virtual time, interleavings, and whether memory grows.

Time: run the code under test by `run`, or decorate an async test with `virtual_time`. All that
waits by the event loop (`asyncio.sleep`, `asyncio.timeout`, windows, retries, deadlines) then waits
no real time, at exact instants and in the same order each time; the code stays as it is. What
waits by other means (`time.sleep`, a lock of a thread) still does.

Interleavings: `explore` runs a test again and again, and each time draws anew which of the tasks
that are ready goes on.

Memory: `memory_growth` for what is called over and over, `MemoryWatch` for what runs long.

Nothing here needs, or is, a plugin of a test framework.

Example:
    >>> import asyncio
    >>> import anabranch as ab
    >>> async def readings():
    ...     for n in range(5):
    ...         yield n
    ...         await asyncio.sleep(600.0)
    >>> async def main() -> list[list[int]]:
    ...     windows = ab.Pipeline("hourly").source(readings()).window(max_age=1500.0)
    ...     report = await windows.collect().run()
    ...     return report.items
    >>> ab.testing.run(main())
    [[0, 1, 2], [3, 4]]
"""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

from anabranch._callables import check_def
from anabranch._explore import Explored, explore
from anabranch._virtual import PATIENCE, VirtualClock, VirtualLoop, check_clock, check_waits
from anabranch.errors import ConfigError, StandstillError, refused

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from datetime import timedelta

__all__ = [
    "Explored",
    "MemoryGrowth",
    "MemoryWatch",
    "StandstillError",
    "VirtualClock",
    "VirtualLoop",
    "explore",
    "memory_growth",
    "run",
    "virtual_time",
]

T = TypeVar("T")


def run(
    main: Coroutine[Any, Any, T],
    *,
    clock: VirtualClock | None = None,
    auto_advance: bool = True,
    patience: float = PATIENCE,
) -> T:
    """Run a coroutine to its end in virtual time; `asyncio.run` with another clock.

    Whenever nothing can happen without more time, the clock goes on to the next timer, or as far
    as a call of `clock.advance` says. A pipeline inside goes by the same clock. Functions in
    threads (`asyncio.to_thread`) run one after the other and take no virtual time; sockets and
    pipes are real, so time passes when they have been silent for 20 real milliseconds.

    Args:
        main: The coroutine.
        clock: The clock; a new one from zero if None.
        auto_advance: Whether time passes by itself. If not, only `clock.advance` lets it pass
            until `main` has ended.
        patience: Real seconds to wait for a thread, a socket or a pipe where time cannot help.

    Returns:
        What the coroutine returns.

    Raises:
        ConfigError: An argument is not allowed.
        StandstillError: Everything waits for what can never happen; it names what does.
        RuntimeError: An event loop runs in this thread, or the clock is in use already.
        Exception: What the coroutine raises.

    Example:
        >>> import asyncio
        >>> import anabranch as ab
        >>> clock = ab.testing.VirtualClock()
        >>> async def main() -> str:
        ...     try:
        ...         async with asyncio.timeout(3600.0):
        ...             await asyncio.sleep(86_400.0)
        ...     except TimeoutError:
        ...         return f"gave up at {clock.now()} s"
        >>> ab.testing.run(main(), clock=clock)
        'gave up at 3600.0 s'
    """
    if not asyncio.iscoroutine(main):
        raise refused("main", main, "a coroutine: call the async def", subject="run")
    try:
        clock = VirtualClock() if clock is None else clock
        check_clock(clock, subject="run")
        check_waits(auto_advance, patience, subject="run")
    except ConfigError:
        main.close()  # it is not awaited, and need not say so
        raise
    loop = VirtualLoop(clock, auto_advance=auto_advance, patience=patience)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        try:
            return runner.run(main)
        finally:
            # What is cancelled now may have to wait, and nobody is left to advance the clock.
            loop.auto_advance = True


@overload
def virtual_time(test: Callable[..., Coroutine[Any, Any, T]], /) -> Callable[..., T]: ...
@overload
def virtual_time(
    *,
    start: float | timedelta = ...,
    seed: int = ...,
    auto_advance: bool = ...,
    patience: float = ...,
) -> Callable[[Callable[..., Coroutine[Any, Any, T]]], Callable[..., T]]: ...
def virtual_time(
    test: Callable[..., Coroutine[Any, Any, Any]] | None = None,
    /,
    *,
    start: float | timedelta = 0.0,
    seed: int = 0,
    auto_advance: bool = True,
    patience: float = PATIENCE,
) -> Callable[..., Any]:
    """Make an `async def` test a plain one that runs in virtual time.

    A parameter named `clock` is given the VirtualClock, new for each call. Test frameworks do not
    see it: to pytest the other parameters are fixtures, as ever.

    Args:
        test: The test, where the decorator is used without arguments.
        start: Where the clock begins, in seconds.
        seed: The clock's seed.
        auto_advance: Whether time passes by itself, as for `run`.
        patience: Real seconds to wait for a thread, a socket or a pipe, as for `run`.

    Raises:
        ConfigError: What is decorated is no `async def`, or an argument is not allowed.

    Example:
        >>> import asyncio
        >>> import anabranch as ab
        >>> @ab.testing.virtual_time
        ... async def test_a_nap(clock: ab.testing.VirtualClock) -> None:
        ...     await asyncio.sleep(7200.0)
        ...     assert clock.now() == 7200.0
        >>> test_a_nap()
    """
    VirtualClock(start, seed=seed)
    check_waits(auto_advance, patience, subject="virtual_time")

    def decorate(test: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
        if not inspect.iscoroutinefunction(test):
            raise refused("test", test, "an async def", subject="virtual_time")
        signature = inspect.signature(test)
        takes_clock = "clock" in signature.parameters

        @functools.wraps(test)
        def call(*args: object, **kwargs: object) -> object:
            clock = VirtualClock(start, seed=seed)
            if takes_clock:
                kwargs["clock"] = clock
            main = test(*args, **kwargs)
            return run(main, clock=clock, auto_advance=auto_advance, patience=patience)

        seen = [it for it in signature.parameters.values() if it.name != "clock"]
        call.__signature__ = signature.replace(parameters=seen)  # type: ignore[attr-defined]  # what inspect looks at first
        return call

    return decorate if test is None else decorate(test)


@dataclass(frozen=True, slots=True)
class MemoryGrowth:
    """How much more memory was in use at the end than at the beginning.

    Attributes:
        blocks: Memory blocks of Python's own allocator: roughly objects. It is exact, and one
            object kept by each call shows.
        resident: Bytes of the whole process in RAM, native code included, to the page. What is
            freed may stay resident. None where the system does not tell (it does on Linux).
    """

    blocks: int
    resident: int | None


class MemoryWatch:
    """Looks at the memory in use now and then: for one long run, which must not grow.

    Each look collects garbage first, which takes milliseconds.

    Args:
        warm_up: How many looks to pass over at the beginning, while caches and pools fill.

    Raises:
        ConfigError: `warm_up` is negative.

    Example:
        >>> import anabranch as ab
        >>> watch = ab.testing.MemoryWatch()
        >>> def store(n: int) -> None:
        ...     if n % 10_000 == 0:
        ...         watch.look()
        >>> pipeline = ab.Pipeline("p").source(iter(range(50_000))).for_each(store, inline=True)
        >>> pipeline.run_blocking().committed
        50000
        >>> watch.growth.blocks < 1_000
        True
    """

    def __init__(self, *, warm_up: int = 1) -> None:
        self._to_skip = _checked("warm_up", warm_up, least=0, subject="MemoryWatch")
        self._first: tuple[int, int | None] | None = None
        self._highest: tuple[int, int | None] | None = None

    def look(self) -> None:
        """Look at the memory in use."""
        gc.collect()
        _clear_caches()
        blocks, resident = sys.getallocatedblocks(), _resident()
        if self._to_skip > 0:
            self._to_skip -= 1
        elif self._first is None:
            self._first = blocks, resident
        else:
            # The highest: a growth that goes back at the end is one.
            most, peak = self._highest or (blocks, resident)
            highest = None if resident is None or peak is None else max(peak, resident)
            self._highest = max(most, blocks), highest

    @property
    def growth(self) -> MemoryGrowth:
        """From the first look after the warm-up to the highest one after it.

        Raises:
            RuntimeError: There have been fewer than two looks after the warm-up.
        """
        if self._first is None or self._highest is None:
            raise RuntimeError("MemoryWatch: look() twice after the warm-up before asking")
        (blocks, resident), (most, peak) = self._first, self._highest
        if resident is None or peak is None:
            return MemoryGrowth(most - blocks, None)
        return MemoryGrowth(most - blocks, peak - resident)


def memory_growth(
    call: Callable[[], object], *, calls: int = 50, warm_up: int = 10, rounds: int = 3
) -> MemoryGrowth:
    """Call something over and over, and return by how much the memory in use has grown.

    It is measured several times, and the least growth counts: what each call leaves behind shows
    every time, while caches and pools fill up.

    Args:
        call: What to call. A growth of less than one block per call means that nothing is left
            behind by each.
        calls: How often in each round.
        warm_up: How often before the first.
        rounds: How often to measure.

    Raises:
        ConfigError: `call` is no `def` without arguments, or `calls`, `warm_up` or `rounds` is less
            than 1.
        Exception: What `call` raises.

    Example:
        >>> import anabranch as ab
        >>> def job() -> None:
        ...     ab.Pipeline("p").source(range(10)).collect().run_blocking()
        >>> ab.testing.memory_growth(job, calls=50).blocks < 50
        True
        >>> kept = []
        >>> ab.testing.memory_growth(lambda: kept.append(object()), calls=50).blocks >= 50
        True
    """
    allowed = "a def that takes nothing"
    check_def(call, argument="call", allowed=allowed, subject="memory_growth")
    counts = {"calls": calls, "warm_up": warm_up, "rounds": rounds}
    for argument, count in counts.items():
        _checked(argument, count, least=1, subject="memory_growth")
    # Looking for the first time leaves something behind itself.
    MemoryWatch().look()
    for _ in range(warm_up):
        call()
    grown = [_grown(call, calls) for _ in range(rounds)]
    resident = [it.resident for it in grown if it.resident is not None]
    return MemoryGrowth(min(it.blocks for it in grown), min(resident, default=None))


def _grown(call: Callable[[], object], calls: int) -> MemoryGrowth:
    watch = MemoryWatch(warm_up=0)
    watch.look()
    for _ in range(calls):
        call()
    watch.look()
    return watch.growth


def _checked(argument: str, value: object, *, least: int, subject: str) -> int:
    if type(value) is not int or value < least:  # a bool is a mistake
        raise refused(argument, value, f"an int of at least {least}", subject=subject)
    return value


def _clear_caches() -> None:
    # The interpreter keeps names by which attributes were looked up; `asyncio.run` makes new ones
    # in each call. The first is there since Python 3.13, and the second deprecated since.
    clear = getattr(sys, "_clear_internal_caches", None) or getattr(sys, "_clear_type_cache", None)
    if clear is not None:
        clear()


def _resident() -> int | None:
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return None
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
