"""Many interleavings of one test: the virtual loop with a seeded choice of which task goes on.

asyncio runs what is ready in the order it became ready, so a test sees one interleaving, and the
same each time. Here a task that is ready may be overtaken by others, any number of times: what
happens between two of its awaits is as indivisible as ever, but who goes first is drawn. Callbacks
that are no steps of tasks keep their order, which asyncio promises.

It is a random walk, as the schedulers of Coyote and Shuttle take one: no proof, but each run is one
more draw, and its seed repeats it.
"""

from __future__ import annotations

import asyncio
import inspect
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from anabranch._callables import name_of
from anabranch._virtual import PATIENCE, VirtualClock, VirtualLoop, check_waits
from anabranch.errors import refused

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Coroutine, Iterable
    from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Explored:
    """What `explore` has run.

    Attributes:
        seeds: How many seeds, one run for each.
        interleavings: How many different orders of steps came of them. Where it is 1 the test never
            had two tasks ready at a time: there was nothing to choose.
    """

    seeds: int
    interleavings: int


def explore(
    test: Callable[..., Coroutine[Any, Any, object]],
    *,
    seeds: int | Iterable[int] = 100,
    start: float | timedelta = 0.0,
    patience: float = PATIENCE,
) -> Explored:
    """Run a test in virtual time under many interleavings of its tasks, one for each seed.

    Whenever several tasks are ready, the seed decides who goes on and who is overtaken. The first
    run that fails ends it: the error is the test's own, with a note that tells the seed; the same
    seed repeats the same run.

    Args:
        test: An `async def`, called anew for each seed. A parameter named `clock` is given the
            VirtualClock, whose seed is that of the run.
        seeds: How many: 0, 1, 2, ...; or these.
        start: Where the clock begins, in seconds.
        patience: Real seconds to wait for a thread, a socket or a pipe, as for `run`.

    Returns:
        How many runs there were, and how many of them differed.

    Raises:
        ConfigError: An argument is not allowed.
        BaseException: What the test raises.

    Example:
        >>> import asyncio
        >>> import anabranch as ab
        >>> async def withdraw_twice() -> None:
        ...     account = {"balance": 100}
        ...     async def withdraw() -> None:
        ...         balance = account["balance"]
        ...         await asyncio.sleep(0)  # the other one may come in between
        ...         account["balance"] = balance - 10
        ...     async with asyncio.TaskGroup() as group:
        ...         group.create_task(withdraw())
        ...         group.create_task(withdraw())
        ...     assert account["balance"] == 80
        >>> try:
        ...     ab.testing.explore(withdraw_twice)
        ... except AssertionError as error:
        ...     print(error.__notes__[-1])
        anabranch: seed 0; to repeat it: ab.testing.explore(withdraw_twice, seeds=[0])
    """
    if not inspect.iscoroutinefunction(test):
        raise refused("test", test, "an async def", subject="explore")
    check_waits(True, patience, subject="explore")  # noqa: FBT003 - as it is here
    takes_clock = "clock" in inspect.signature(test).parameters
    traces: set[int] = set()
    count = 0
    for seed in _seeds(seeds):
        clock = VirtualClock(start, seed=seed)
        loop = _Drawn(clock, patience=patience)
        main = test(clock=clock) if takes_clock else test()
        try:
            with asyncio.Runner(loop_factory=lambda loop=loop: loop) as runner:  # type: ignore[misc]  # a lambda with a default
                runner.run(main)
        except BaseException as error:
            name = name_of(test)
            error.add_note(
                f"anabranch: seed {seed}; to repeat it: ab.testing.explore({name}, seeds=[{seed}])"
            )
            raise
        count += 1
        traces.add(loop.trace)
    return Explored(count, len(traces))


def _seeds(seeds: int | Iterable[int]) -> Iterable[int]:
    if isinstance(seeds, int):
        if type(seeds) is int and seeds >= 1:  # a bool is a mistake
            return range(seeds)
    elif hasattr(seeds, "__iter__"):
        given = list(seeds)
        if given and all(type(it) is int for it in given):
            return given
    raise refused("seeds", seeds, "an int of at least 1, or ints", subject="explore")


class _Drawn(VirtualLoop):
    """Draws which of the tasks that are ready go on."""

    # Of asyncio's base class: what is ready, in the order it became so.
    _ready: deque[asyncio.Handle]

    def __init__(self, clock: VirtualClock, *, patience: float) -> None:
        super().__init__(clock, patience=patience)
        self._draw = random.Random(clock.seed)  # noqa: S311 - for repeating, not for secrets
        # Steps of tasks that are overtaken in this turn.
        self._held: list[asyncio.Handle] = []
        # What was drawn so far, as a number.
        self.trace = 0

    def _run_once(self) -> None:
        self._mix()
        super()._run_once()  # type: ignore[misc]  # what a turn of asyncio's loop is

    def _mix(self) -> None:
        ready = self._ready
        ready.extend(self._held)
        self._held.clear()
        places = [place for place, handle in enumerate(ready) if _is_step(handle)]
        if len(places) < 2:  # noqa: PLR2004 - a choice takes two
            return
        steps = [ready[place] for place in places]
        order = self._draw.sample(range(len(steps)), len(steps))
        # At least one goes on: time must not pass while one that is ready is held back.
        going = self._draw.randint(1, len(steps))
        self.trace = hash((self.trace, going, *order[:going]))
        for place, index in zip(places, order, strict=False):
            ready[place] = steps[index]
        for place in reversed(places[going:]):
            self._held.append(ready[place])
            del ready[place]
        self._held.reverse()


def _is_step(handle: asyncio.Handle) -> bool:
    # Of a task that is cancelled, too: its step throws.
    callback = getattr(handle, "_callback", None)
    return isinstance(getattr(callback, "__self__", None), asyncio.Task)
