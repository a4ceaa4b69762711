"""Owns how two contestants are timed against each other, and how a sample is summed up."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from statistics import median, quantiles
from time import perf_counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from data import Sums


class WrongResultError(Exception):
    """A contestant has lost, doubled or changed something: its speed means nothing."""


@dataclass(frozen=True)
class Settings:
    """How much to measure.

    Attributes:
        pairs: how often each contestant of a pair runs.
        quick: a smoke test: a tenth of the data and of the time, whose numbers mean little.
    """

    pairs: int
    quick: bool

    def size(self, count: int) -> int:
        """Return how many items to use where the full measurement uses `count`."""
        return count // 10 if self.quick else count

    def seconds(self, full: float) -> float:
        """Return how long to run where the full measurement takes `full` seconds."""
        return full / 10 if self.quick else full


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of a sample."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, sample: list[float]) -> Spread:
        """Sum up `sample`, which is not empty."""
        if len(sample) == 1:
            return cls(sample[0], sample[0], sample[0])
        low, _, high = quantiles(sample, n=4, method="inclusive")
        return cls(low, median(sample), high)


@dataclass(frozen=True)
class Paired:
    """Seconds of the two contestants, run by run."""

    ours: list[float]
    theirs: list[float]

    def ratio(self) -> Spread:
        """Return how many times faster ours is: one ratio per pair of neighbouring runs."""
        return Spread.of([their / our for our, their in zip(self.ours, self.theirs, strict=True)])


def timed(job: Callable[[], Sums], expected: Sums, name: str) -> float:
    """Return the seconds that `job` takes; check what it did."""
    gc.collect()
    start = perf_counter()
    seen = job()
    seconds = perf_counter() - start
    check(seen, expected, name)
    return seconds


def check(seen: Sums, expected: Sums, name: str) -> None:
    """Raise if a contestant's sums are not the expected ones."""
    if seen != expected:
        message = f"{name}: saw {seen}, expected {expected}"
        raise WrongResultError(message)


def interleaved(
    ours: Callable[[], Sums],
    theirs: Callable[[], Sums],
    expected: Sums,
    pairs: int,
) -> Paired:
    """Time both in turn, each first in every other pair.

    So a machine that slows down or speeds up meanwhile does it to both. One run of each before the
    first pair warms caches and is not counted.
    """
    timed(ours, expected, "anabranch")
    timed(theirs, expected, "the other")
    result = Paired([], [])
    for pair in range(pairs):
        order = [(ours, result.ours, "anabranch"), (theirs, result.theirs, "the other")]
        for job, seconds, name in order if pair % 2 == 0 else reversed(order):
            seconds.append(timed(job, expected, name))
    return result


def percentile(sample: list[float], percent: int) -> float:
    """Return the `percent`-th percentile of `sample`: the value that many percent do not exceed."""
    ordered = sorted(sample)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]
