"""The clock a run goes by: the machine's, or one of a test."""

from __future__ import annotations

import asyncio
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final, cast

from anabranch._pool import InlinePool, Pool
from anabranch.errors import refused

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from anabranch import _core
    from anabranch._virtual import VirtualClock, VirtualLoop

# How long the blocking driver sleeps at most: signal handlers run in between.
_LONGEST_WAIT: Final = 0.25


class RunClock:
    """All that a driver does otherwise in virtual time.

    Args:
        virtual: The pipeline's clock; None is the machine's, until a loop imposes its own.
        pipeline: The pipeline's name, for errors.

    Attributes:
        virtual: The clock of a test; None is the machine's.
    """

    def __init__(self, virtual: VirtualClock | None, pipeline: str) -> None:
        self.virtual = virtual
        self._pipeline = pipeline

    def now(self) -> float:
        """Return the time, in seconds."""
        return time.monotonic() if self.virtual is None else self.virtual.now()

    def adopt(self, loop: asyncio.AbstractEventLoop) -> None:
        """Go by the clock of `loop`, if it has one.

        Raises:
            ConfigError: The pipeline was given another one.
        """
        # Not by the loop's type: its module is for tests, and is not imported for this.
        imposed: VirtualClock | None = getattr(loop, "virtual_clock", None)
        if self.virtual not in (None, imposed):
            allowed = (
                "that of the event loop: run the pipeline inside "
                "ab.testing.run(main(), clock=clock), or by run_blocking()"
            )
            raise refused("clock", self.virtual, allowed, pipeline=self._pipeline)
        self.virtual = imposed

    def attend(self, loop: asyncio.AbstractEventLoop, run: _core.Run) -> None:
        """Tell a loop in virtual time that only it makes this run's descriptor readable."""
        if self.virtual is not None and run.address is None:
            cast("VirtualLoop", loop).quiet(run.fileno())

    def runner(self) -> asyncio.Runner:
        """Make what runs a loop that goes by the clock."""
        clock = self.virtual
        if clock is None:
            return asyncio.Runner()
        from anabranch._virtual import VirtualLoop

        return asyncio.Runner(loop_factory=lambda: VirtualLoop(clock))

    def driven(self) -> AbstractContextManager[None]:
        """Be the one who lets time pass, meanwhile.

        Raises:
            RuntimeError: Somebody else is.
        """
        if self.virtual is None:
            return nullcontext()
        return self.virtual._driven(f"pipeline {self._pipeline!r}")  # noqa: SLF001 - for the package

    def wait(self, run: _core.Run, longest: float | None) -> None:
        """Wait for something to happen to a run in this thread, at most `longest` seconds.

        Raises:
            StandstillError: In virtual time: nothing ever will.
        """
        if self.virtual is not None:
            self.virtual._pass(run, longest, self._pipeline)  # noqa: SLF001 - for the package
        else:
            run.wait(_LONGEST_WAIT if longest is None else min(longest, _LONGEST_WAIT))

    def pool(self, threads: int) -> Pool | InlinePool:
        """Make what runs `def` sinks and undo actions."""
        return Pool(self._pipeline, threads) if self.virtual is None else InlinePool()
