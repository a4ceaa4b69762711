"""Virtual time: a clock that only moves when it is told to, and the event loop that goes by it.

The loop is asyncio's own selector loop with two changes: `time()` is the clock's, and where the
real one would sleep in `select`, nothing is ready, so this one moves the clock to the next timer
instead. That makes a timed `select` the moment of quiescence, for user code as for pipelines:
`asyncio.sleep` and `asyncio.timeout` are nothing but timers of the loop.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import random
import selectors
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from anabranch import _core, _standstill
from anabranch.errors import StandstillError, refused

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from concurrent.futures import Executor
    from contextvars import Context
    from typing import TypeVarTuple, Unpack

    Ts = TypeVarTuple("Ts")

T = TypeVar("T")

_NANO: Final = 1_000_000_000
# Real seconds that the loop keeps still for a function in a thread while other callbacks are
# ready: a short one is then over at the same turn of the loop in every run.
_HOLD: Final = 0.05
# Real seconds without a sign from a socket or pipe after which time may pass.
SETTLE: Final = 0.02
# Real seconds that a thread, socket or pipe may keep the loop waiting where time cannot help.
PATIENCE: Final = 30.0


class VirtualClock:
    """A clock that stands still until it is moved, for tests of what takes time.

    A pipeline goes by it if it is run inside `ab.testing.run(..., clock=clock)`, or if it is built
    with `ab.Pipeline(name, clock=clock)` and run by `run_blocking()`. Its windows, retries and
    deadlines then wait no real time, and happen at exact instants, in the same order each time.

    - Inside `ab.testing.run` time passes when nothing else can happen: to the next timer, whoever
      set it, or as far as `advance` says.
    - In `run_blocking()` it passes by itself, to the next timer, whenever nothing is left to do.
    - `def` sinks and undo actions run in the pipeline's own thread. A callable takes no time,
      unless it calls `spend`.

    Times are exact to the nanosecond for the first 48 virtual days.

    Args:
        start: What `now()` is at first, in seconds.
        seed: Seeds what is random in the pipelines that go by the clock and have no seed of their
            own: the same seed repeats the same run.

    Raises:
        ConfigError: An argument is not allowed.

    Example:
        >>> import anabranch as ab
        >>> clock = ab.testing.VirtualClock()
        >>> attempts = []
        >>> def store(n: int) -> None:
        ...     attempts.append(clock.now())
        ...     if len(attempts) < 3:
        ...         raise OSError("busy")
        >>> retry = ab.Retry.fixed(60.0)
        >>> pipeline = ab.Pipeline("p", clock=clock).source([1]).for_each(store, retry=retry)
        >>> pipeline.run_blocking().committed, attempts
        (1, [0.0, 60.0, 120.0])
    """

    __slots__ = ("_driver", "_random", "_seed", "_time")

    def __init__(self, start: float | timedelta = 0.0, *, seed: int = 0) -> None:
        if type(seed) is not int:  # a bool is a mistake
            raise refused("seed", seed, "an int", subject="VirtualClock")
        self._time = _core.VirtualTime(_nanos(start, "start"))
        self._seed = seed
        self._random = random.Random(seed)  # noqa: S311 - for repeating, not for secrets
        # What moves the clock now: two loops or threads would move it under each other's feet.
        self._driver: str | None = None

    @property
    def seed(self) -> int:
        """The seed."""
        return self._seed

    def now(self) -> float:
        """Return the time, in seconds."""
        # True division of ints rounds once: 1.4 s is the float 1.4.
        return self._time.nanos / _NANO

    async def advance(self, seconds: float | timedelta) -> None:
        """Let time pass: run everything that is due meanwhile, in time order, to quiescence.

        When it returns, `now()` is `seconds` later, and nothing is left that could happen without
        more time; `advance(0)` only lets happen what can happen now. Functions in threads
        (`asyncio.to_thread`) are waited for.

        Args:
            seconds: How much, in seconds; not negative.

        Raises:
            ConfigError: `seconds` is negative or no number.
            RuntimeError: The caller does not run in a loop of this clock.

        Example:
            >>> import asyncio
            >>> import anabranch as ab
            >>> clock = ab.testing.VirtualClock()
            >>> async def main() -> None:
            ...     task = asyncio.create_task(asyncio.sleep(10.0))
            ...     await clock.advance(9.5)
            ...     print(clock.now(), task.done())
            ...     await clock.advance(0.5)
            ...     print(clock.now(), task.done())
            >>> ab.testing.run(main(), clock=clock)
            9.5 False
            10.0 True
        """
        later = _nanos(seconds, "seconds")
        loop = asyncio.get_running_loop()
        if not isinstance(loop, VirtualLoop) or loop.virtual_clock is not self:
            raise RuntimeError(
                "clock.advance() moves the event loop that goes by the clock, and this is not it: "
                "use ab.testing.run(main(), clock=clock)"
            )
        await loop.reach(self._time.nanos + later)

    def spend(self, seconds: float | timedelta) -> None:
        """Let time pass as if the calling `def` took this long; nothing else runs meanwhile.

        What `time.sleep` is to the real clock: timers that become due fire late, after the caller
        is done.

        Args:
            seconds: How long, in seconds; not negative.

        Raises:
            ConfigError: `seconds` is negative or no number.

        Example:
            >>> import anabranch as ab
            >>> clock = ab.testing.VirtualClock()
            >>> def sensor():
            ...     for reading in range(4):
            ...         yield reading
            ...         clock.spend(0.4)
            >>> pipeline = ab.Pipeline("p", clock=clock).source(sensor()).window(max_age=1.0)
            >>> pipeline.collect().run_blocking().items
            [[0, 1, 2], [3]]
        """
        self._time.reach(self._time.nanos + _nanos(seconds, "seconds"))

    def __repr__(self) -> str:
        return f"<VirtualClock: now={self.now()} s, seed={self._seed}>"

    # For the package.

    def _draw(self) -> int:
        """Return the seed of the next pipeline."""
        return self._random.getrandbits(64)

    def _pass(self, run: _core.Run, until: float | None, name: str) -> None:
        """Let time pass in a thread whose run has nothing to do for `until` seconds."""
        if run.address is not None:
            # Clients live in real time.
            before = time.monotonic()
            run.wait(SETTLE)
            if until is None or time.monotonic() - before < SETTLE:
                return
        if until is None:
            waiting = (f"pipeline: {name}",)
            raise StandstillError("nothing can ever happen", now=self.now(), waiting=waiting)
        self._time.reach(self._time.nanos + max(1, round(until * _NANO)))

    @contextmanager
    def _driven(self, by: str) -> Generator[None]:
        if self._driver is not None:
            raise RuntimeError(
                f"the VirtualClock is moved by {self._driver} already, and cannot be by {by}, too: "
                "run one after the other, or give each a clock of its own"
            )
        self._driver = by
        try:
            yield
        finally:
            self._driver = None


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop that goes by a VirtualClock.

    `ab.testing.run` makes one. For a test framework that takes a loop factory, such as anyio or
    pytest-asyncio, pass it `lambda: ab.testing.VirtualLoop(clock)`.

    Args:
        clock: The clock; one loop at a time moves it.
        auto_advance: Whether time passes to the next timer whenever nothing else can happen. If
            not, only `clock.advance` lets it pass.
        patience: Real seconds to wait where only a thread or a socket can go on.

    Example:
        >>> import asyncio
        >>> import anabranch as ab
        >>> clock = ab.testing.VirtualClock()
        >>> with asyncio.Runner(loop_factory=lambda: ab.testing.VirtualLoop(clock)) as runner:
        ...     runner.run(asyncio.sleep(3600.0, "an hour later")), clock.now()
        ('an hour later', 3600.0)
    """

    def __init__(
        self, clock: VirtualClock, *, auto_advance: bool = True, patience: float = PATIENCE
    ) -> None:
        # For `__del__`, which asks.
        self._closed = True
        check_clock(clock, subject="VirtualLoop")
        check_waits(auto_advance, patience, subject="VirtualLoop")
        self._clock = clock
        self.auto_advance = auto_advance
        self._selector_of_time = _Selector(self, patience)
        super().__init__(self._selector_of_time)
        # The pipe by which other threads wake the loop.
        own = self._selector_of_time.get_map().values()
        self._selector_of_time.quiet.update(key.fd for key in own)
        # Where calls to `advance` want the clock to be, and what they wait for.
        self._targets: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        # One thread: functions end in the order they were begun in.
        self.set_default_executor(ThreadPoolExecutor(1, thread_name_prefix="anabranch-virtual"))

    @property
    def virtual_clock(self) -> VirtualClock:
        """The clock."""
        return self._clock

    @property
    def _clock_resolution(self) -> float:
        # A timer within it is due. The base class would use that of the machine's clock, which is
        # nothing beside a large time: no timer would ever be due then.
        return max(1 / _NANO, math.ulp(self.time()))

    @_clock_resolution.setter
    def _clock_resolution(self, value: float) -> None:
        pass

    def time(self) -> float:
        """Return the clock's time, in seconds."""
        return self._clock.now()

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call `callback` after `delay` seconds of virtual time."""
        now = self.time()
        # However large the time is, a delay takes time: one without would repeat for ever.
        least = math.nextafter(now, math.inf) if delay > 0 else -math.inf
        return self.call_at(max(now + delay, least), callback, *args, context=context)

    def run_forever(self) -> None:
        """Run until `stop` is called."""
        with self._clock._driven("an event loop"):  # noqa: SLF001 - of the same module
            super().run_forever()

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Run `func` in a thread, while time stands still.

        Without an executor functions run one after the other, in the order they were begun in.
        """
        future = super().run_in_executor(executor, func, *args)
        self._selector_of_time.await_thread(future, _standstill.name_of_function(func, args))
        self._selector_of_time.hold()
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - as its base
        """Wait for the threads of the default executor, at most `timeout` real seconds."""
        if self._selector_of_time.stuck:
            # That has been told, with what it waits for; here it would be once more, without.
            return
        # The base class waits in a thread, for the others.
        waiting: asyncio.Future[None] = self.create_future()
        self._selector_of_time.await_thread(waiting, "the shutdown of the threads")
        try:
            # Python 3.11 has no timeout here.
            await super().shutdown_default_executor(*(() if timeout is None else (timeout,)))
        finally:
            waiting.set_result(None)

    async def reach(self, nanos: int) -> None:
        """Wait until the clock shows `nanos` and nothing is left to do there."""
        waiter: asyncio.Future[None] = self.create_future()
        heapq.heappush(self._targets, (nanos, next(self._order), waiter))
        await waiter

    def quiet(self, descriptor: int) -> None:
        """Take `descriptor` as one that only this process's own loop makes readable."""
        self._selector_of_time.quiet.add(descriptor)

    def pass_time(self, until: float | None) -> bool:
        """Nothing is ready: let time pass.

        Args:
            until: Seconds to the next timer; None if there is none.

        Returns:
            Whether anything can happen now.
        """
        clock = self._clock._time  # noqa: SLF001 - of the same module
        due = None if until is None else clock.nanos + max(1, round(until * _NANO))
        while self._targets and self._targets[0][2].done():  # cancelled
            heapq.heappop(self._targets)
        if self._targets and (due is None or self._targets[0][0] < due):
            target, _, waiter = heapq.heappop(self._targets)
            clock.reach(target)
            waiter.set_result(None)
            return True
        if due is None or not (self._targets or self.auto_advance):
            return False
        clock.reach(due)
        return True

    def standstill(self, reason: str, threads: list[str]) -> StandstillError:
        """Make the error that names all that waits."""
        waiting = (*_standstill.tasks(self), *(f"thread: {name}" for name in threads))
        return StandstillError(reason, now=self.time(), waiting=waiting)


class _Selector(selectors.DefaultSelector):
    """Waits for descriptors in real time, and where that cannot help lets virtual time pass."""

    def __init__(self, loop: VirtualLoop, patience: float) -> None:
        super().__init__()
        self._loop = loop
        self._patience = patience
        # Descriptors through which the loop and the pipelines wake themselves.
        self.quiet: set[int] = set()
        self._threads: dict[asyncio.Future[Any], str] = {}
        self._hold = False
        # Whether a thread has not ended in time.
        self.stuck = False

    def await_thread(self, future: asyncio.Future[Any], name: str) -> None:
        """Let no time pass until `future` is done."""
        self._threads[future] = name
        future.add_done_callback(self._threads.pop)

    def hold(self) -> None:
        """Keep still for the thread that was begun last, though other callbacks are ready."""
        self._hold = True

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:  # noqa: ANN401 - as its base
        """Forget a descriptor: its number may mean another one later."""
        key = super().unregister(fileobj)
        self.quiet.discard(key.fd)
        return key

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready; before that, let pass the time it takes."""
        threads = any(not future.done() for future in self._threads)
        hold = self._hold and threads
        events = super().select(_HOLD if hold else 0)
        if hold and not events:
            self._hold = False  # it takes longer, or waits for what is ready
        if events or (timeout is not None and timeout <= 0):
            return events
        if threads:
            return self._wait("a function in a thread does not end")
        outside = len(self.get_map()) - len(self.quiet)
        if outside and (events := super().select(SETTLE)):
            return events
        if self._loop.pass_time(timeout):
            return []
        if outside:
            return self._wait("nothing comes from the sockets and pipes it waits for")
        if timeout is None:
            raise self._loop.standstill("nothing can ever happen", [])
        raise self._loop.standstill("only clock.advance() could let time pass", [])

    def _wait(self, reason: str) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(self._patience)
        if not events:
            self.stuck = self.stuck or bool(self._threads)
            reason = f"{reason} (waited {self._patience:g} real seconds)"
            raise self._loop.standstill(reason, list(self._threads.values()))
        return events


def check_clock(clock: object, *, subject: str) -> None:
    """Raise a ConfigError unless `clock` is one."""
    if not isinstance(clock, VirtualClock):
        raise refused("clock", clock, "an ab.testing.VirtualClock", subject=subject)


def check_waits(auto_advance: object, patience: object, *, subject: str) -> None:
    """Raise a ConfigError unless these are a bool, and real seconds."""
    if not isinstance(auto_advance, bool):
        raise refused("auto_advance", auto_advance, "a bool", subject=subject)
    number = isinstance(patience, int | float) and not isinstance(patience, bool)
    if not number or not cast("float", patience) >= 0:
        raise refused("patience", patience, "a number of seconds >= 0", subject=subject)


def _nanos(seconds: object, argument: str) -> int:
    if isinstance(seconds, timedelta):
        seconds = seconds.total_seconds()
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise refused(argument, seconds, "a number of seconds", subject="VirtualClock")
    if not 0 <= seconds * _NANO < 1 << 63:
        allowed = f"between 0 and {(1 << 63) / _NANO:.3g} seconds"
        raise refused(argument, seconds, allowed, subject="VirtualClock")
    return round(seconds * _NANO)
