"""The cases about how soon an idle worker handles what another process has committed."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import anabranch as ab
import stores
from measure import Settings, WrongResultError, percentile
from outcome import Outcome
from stores import TOPIC

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

ENQUEUER = Path(__file__).parent / "enqueuer.py"
MESSAGES = 400
# Seconds between messages: what became of the one before is long written then.
EVERY = 0.05
# The first ones are about connections, and about statements that nobody has prepared yet.
WARM_UP = 30
# Seconds until a worker has claimed for the first time, found nothing, and listens.
SETTLED = 1.0
# Seconds until an idle worker looks by itself, and some.
PATIENCE = 60.0


@dataclass(frozen=True)
class Wakes:
    """What was seen of messages on their way: milliseconds from their commit to their handler.

    Attributes:
        since_commit: From when the commit returned. Who writes, and who hears of it, are told by
            the server at once: it may be negative.
        since_asked: From when it was asked for, with what the disk takes.
    """

    since_commit: list[float]
    since_asked: list[float]

    def numbers(self) -> dict[str, Any]:
        """Return percentiles."""
        return {
            name: {str(p): percentile(sample, p) for p in (50, 90, 99, 100)}
            for name, sample in vars(self).items()
        }


async def nothing() -> None:
    """Do nothing before."""


async def woken(
    outboxes: Any,
    kind: str,
    url: str,
    count: int,
    *,
    before: Callable[[], Awaitable[object]] = nothing,
) -> Wakes:
    """Let a worker wait for messages that another process enqueues at `url`.

    Args:
        outboxes: What it works on.
        kind: The database.
        url: The one of them that has messages.
        count: How many.
        before: What is done first, beside the worker.
    """
    entered: dict[int, int] = {}
    first_entered, all_entered = asyncio.Event(), asyncio.Event()
    worker = ab.OutboxWorker(outboxes, observe="off")

    @worker.on(TOPIC)
    async def handle(message: ab.Message) -> None:
        if message.payload["n"] < 0:
            first_entered.set()
            return
        entered[message.payload["n"]] = perf_counter_ns()
        if len(entered) == count:
            all_entered.set()

    async with worker:
        await before()
        # It may have been idle for so long that nobody listens to it.
        with ab.Outbox(url) as other:
            other.enqueue(TOPIC, {"n": -1})
        async with asyncio.timeout(PATIENCE):
            await first_entered.wait()
        await asyncio.sleep(SETTLED)
        enqueuer = await asyncio.create_subprocess_exec(
            *(sys.executable, ENQUEUER, kind, url, str(count), str(EVERY)),
            stdout=asyncio.subprocess.PIPE,
        )
        told, _ = await enqueuer.communicate()
        times: list[tuple[int, int]] = json.loads(told)
        async with asyncio.timeout(10):
            await all_entered.wait()
    return Wakes(
        sorted(_late(entered, (done for _, done in times))),
        sorted(_late(entered, (begun for begun, _ in times))),
    )


def _late(entered: dict[int, int], since: Iterable[int]) -> list[float]:
    late = [(entered[number] - then) / 1e6 for number, then in enumerate(since)]
    return late[WARM_UP:]


def _wake(settings: Settings, *, kind: str, bars: tuple[float, float]) -> Outcome:
    count = WARM_UP + settings.size(MESSAGES)
    with stores.OPENED[kind]() as bench:
        try:
            wakes = asyncio.run(woken(bench.outbox, kind, bench.url, count))
        except TimeoutError:
            raise WrongResultError("messages that were committed are not handled") from None
    return outcome(wakes, bars)


def outcome(wakes: Wakes, bars: tuple[float, float]) -> Outcome:
    """Compare the median and the 99th percentile with their bars, in milliseconds."""
    late = wakes.since_commit
    p50, p99 = percentile(late, 50), percentile(late, 99)
    return Outcome(
        bar="p50 <= {:.0f}, p99 <= {:.0f} ms".format(*bars),
        measured=f"{p50:.2f}, {p99:.2f} ms",
        spread=f"{percentile(late, 25):.2f}-{percentile(late, 75):.2f}, max {late[-1]:.1f} ms",
        ours=f"{p50:.2f}, {p99:.2f} ms",
        against="{:.2f}, {:.2f} ms with the commit".format(
            *(percentile(wakes.since_asked, p) for p in (50, 99))
        ),
        met=p50 <= bars[0] and p99 <= bars[1],
        numbers={"messages": len(late), **wakes.numbers()},
    )


CASES = {
    "outbox-wake": partial(_wake, kind="postgres", bars=(2.0, 5.0)),
    "outbox-sqlite-wake": partial(_wake, kind="sqlite", bars=(1.0, 2.0)),
}
