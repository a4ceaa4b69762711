"""The case about fairness: what one tenant with a hundred times the others' events does to them.

Time is virtual, so that what is measured is whose turn it is, and not the machine: the same each
time, on each one.
"""

from __future__ import annotations

import asyncio
import random
from statistics import quantiles
from typing import TYPE_CHECKING

import anabranch as ab
from data import SEED
from measure import Settings, WrongResultError
from outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BAR = 2.0
TENANTS = 50
# Events per second of each tenant but one, seconds that a handler takes for one of them, handlers
# at work at once: they are busy for a sixth of the time, for half of it with the hot tenant's.
RATE = 10.0
SERVICE = 0.005
PLACES = 16
SECONDS = 60.0
# The hot tenant sends what it has for a second at once.
BURST = 100 * int(RATE)

Sent = tuple[str, float]


def _arrivals(seconds: float, *, hot: bool) -> list[Sent]:
    draw = random.Random(SEED)
    sent: list[Sent] = []
    for number in range(TENANTS):
        at = draw.expovariate(RATE)
        while at < seconds:
            sent.append((f"tenant-{number}", at))
            at += draw.expovariate(RATE)
    if hot:
        sent += [("hot", float(second)) for second in range(int(seconds)) for _ in range(BURST)]
    return sorted(sent, key=lambda event: event[1])


async def _source(arrivals: list[Sent]) -> AsyncIterator[Sent]:
    begun = asyncio.get_running_loop().time()
    for event in arrivals:
        wait = begun + event[1] - asyncio.get_running_loop().time()
        if wait > 0:
            await asyncio.sleep(wait)
        yield event


def _p99(seconds: float, *, hot: bool, parted: bool) -> float:
    """Return the 99th percentile of milliseconds from an event's sending to its end.

    The hot tenant's are not among them.
    """
    arrivals = _arrivals(seconds, hot=hot)
    took: list[float] = []
    begun = 0.0

    async def handle(event: Sent) -> None:
        await asyncio.sleep(SERVICE)
        if event[0] != "hot":
            took.append((asyncio.get_running_loop().time() - begun - event[1]) * 1e3)

    async def main() -> ab.Report[None]:
        nonlocal begun
        begun = asyncio.get_running_loop().time()
        pipeline = ab.Pipeline("bench", max_in_flight=PLACES).source(_source(arrivals))
        if parted:
            pipeline = pipeline.fan_out(by=ab.item(0))
        return await pipeline.for_each(handle, concurrency=PLACES).run()

    report = ab.testing.run(main())
    if report.committed != len(arrivals):
        raise WrongResultError(f"{report.committed} of {len(arrivals)} events were handled")
    return quantiles(took, n=100)[98]


def fair(settings: Settings) -> Outcome:
    """B12: the others' p99 latency beside a tenant that sends a hundred times what they do."""
    seconds = settings.seconds(SECONDS)
    alone = _p99(seconds, hot=False, parted=True)
    beside = _p99(seconds, hot=True, parted=True)
    queued = _p99(seconds, hot=True, parted=False)
    return Outcome(
        bar=f"<= {BAR:.1f}x",
        measured=f"{beside / alone:.2f}x",
        spread="virtual time",
        ours=f"p99 {beside:.1f} ms, {alone:.1f} without it",
        against=f"p99 {queued:.1f} ms in one queue for all",
        met=beside <= BAR * alone,
        numbers={"alone_ms": alone, "beside_ms": beside, "one_queue_ms": queued},
    )


CASES = {"fair": fair}
