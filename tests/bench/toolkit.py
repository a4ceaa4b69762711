"""The parts to compose by hand: many readers read as one, channels, and select."""

from __future__ import annotations

import asyncio
from functools import partial
from queue import Queue
from statistics import median
from threading import Thread
from typing import TYPE_CHECKING, Any

import anabranch as ab
from data import Sums
from measure import Settings, interleaved
from outcome import Outcome, rate

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

ITEMS = 100_000
CAPACITY = 1000
BATCH = 100
SELECTS = 2_000


def _sums(count: int, total: int) -> Sums:
    return Sums(count, total)


def _fanned_in(readers: int, items: int) -> Sums:
    """Handle the items of one of so many readers; the others have nothing until the end."""
    count = total = 0

    async def handle(item: int) -> None:
        nonlocal count, total
        count += 1
        total += item
        if count == items:
            for channel in idle:
                channel.close()

    busy = ab.Channel[int](items)
    idle = [ab.Channel[int](1) for _ in range(readers - 1)]
    busy.send_many_nowait(range(items))
    busy.close()
    asyncio.run(_run(ab.fan_in([busy, *idle], handle)))
    return _sums(count, total)


async def _run(job: Coroutine[Any, Any, Any]) -> None:
    await job


def fan_in(readers: int, settings: Settings) -> Outcome:
    """F15: what a message costs beside so many readers that have nothing, against one alone."""
    items = settings.size(ITEMS)
    expected = _sums(items, sum(range(items)))
    paired = interleaved(
        partial(_fanned_in, 1, items),
        partial(_fanned_in, readers, items),
        expected,
        settings.pairs,
    )
    ratio = paired.ratio()
    return Outcome(
        bar="<= 1.50x",
        measured=f"{ratio.median:.2f}x",
        spread=f"{ratio.low:.2f}-{ratio.high:.2f}",
        ours=f"{rate(items, median(paired.theirs))} of {readers} readers",
        against=f"{rate(items, median(paired.ours))} of one",
        met=ratio.median <= 1.5,
        numbers={"items": items, "alone": paired.ours, "beside": paired.theirs},
    )


async def _hop_ours(items: int) -> Sums:
    channel = ab.Channel[int](CAPACITY)

    async def send() -> None:
        for item in range(items):
            await channel.send(item)
        channel.close()

    sending = asyncio.ensure_future(send())
    count = total = 0
    async for item in channel:
        count += 1
        total += item
    await sending
    return _sums(count, total)


async def _hop_theirs(items: int) -> Sums:
    queue: asyncio.Queue[int] = asyncio.Queue(CAPACITY)

    async def send() -> None:
        for item in range(items):
            await queue.put(item)

    sending = asyncio.ensure_future(send())
    count = total = 0
    for _ in range(items):
        total += await queue.get()
        count += 1
    await sending
    return _sums(count, total)


def hop(settings: Settings) -> Outcome:
    """An item from one task to another, each sent and received by itself.

    Of the instructions between two items two loops and two awaited coroutines that do nothing are
    a quarter of what the queue takes: no channel whose calls are coroutines comes near the bar.
    Awaitables of the extension's own, which do nothing until they are awaited, take 0.91 times
    (3.11) and 1.01 times (3.12) the instructions of coroutines on a channel that is a bare deque:
    what they gain in sending, a third, is lost to the StopIteration that each received item comes
    in. They are no coroutines for those who ask, and nobody is told of one that is not awaited.
    """
    items = settings.size(ITEMS)
    return _raced(5.0, items, "asyncio.Queue", _hop_ours, _hop_theirs, settings)


async def _hop_in_batches(items: int) -> Sums:
    channel = ab.Channel[int](CAPACITY)

    async def send() -> None:
        for first in range(0, items, BATCH):
            await channel.send_many(range(first, min(first + BATCH, items)))
        channel.close()

    sending = asyncio.ensure_future(send())
    count = total = 0
    try:
        while True:
            for item in await channel.receive_many():
                count += 1
                total += item
    except ab.ChannelClosed:
        await sending
    return _sums(count, total)


def hop_in_batches(settings: Settings) -> Outcome:
    """The same by those who have many items at a time, which the queue has no call for."""
    items = settings.size(ITEMS)
    return _raced(5.0, items, "asyncio.Queue", _hop_in_batches, _hop_theirs, settings)


def _thread_hop_ours(items: int) -> Sums:
    channel = ab.Channel[int](CAPACITY)

    def send() -> None:
        for item in range(items):
            channel.send_blocking(item)
        channel.close()

    sending = Thread(target=send)
    sending.start()
    count = total = 0
    for item in channel:
        count += 1
        total += item
    sending.join()
    return _sums(count, total)


def _thread_hop_theirs(items: int) -> Sums:
    items_of: Queue[int] = Queue(CAPACITY)

    def send() -> None:
        for item in range(items):
            items_of.put(item)

    sending = Thread(target=send)
    sending.start()
    count = total = 0
    for _ in range(items):
        total += items_of.get()
        count += 1
    sending.join()
    return _sums(count, total)


def thread_hop(settings: Settings) -> Outcome:
    """An item from one thread to another."""
    items = settings.size(ITEMS)
    return _compared(3.0, items, "queue.Queue", _thread_hop_ours, _thread_hop_theirs, settings)


async def _select_ours(cases: int, items: int) -> Sums:
    channels = [ab.Channel[int](10) for _ in range(cases)]
    either = ab.select(*channels)
    loop = asyncio.get_running_loop()
    total = 0
    for item in range(items):
        loop.call_soon(channels[item % cases].send_nowait, item)
        total += (await either).value
    return _sums(items, total)


async def _select_theirs(cases: int, items: int) -> Sums:
    queues: list[asyncio.Queue[int]] = [asyncio.Queue(10) for _ in range(cases)]
    loop = asyncio.get_running_loop()
    total = 0
    for item in range(items):
        loop.call_soon(queues[item % cases].put_nowait, item)
        tasks = [asyncio.ensure_future(queue.get()) for queue in queues]
        done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        total += sum(task.result() for task in done)
    return _sums(items, total)


def select(cases: int, settings: Settings) -> Outcome:
    """S: waiting for whichever of so many channels has something first."""
    items = max(100, settings.size(SELECTS) // max(1, cases // 16))
    return _raced(
        3.0,
        items,
        "asyncio.wait over Queue.get",
        partial(_select_ours, cases),
        partial(_select_theirs, cases),
        settings,
    )


def _given_to(courses: int, items: int) -> Sums:
    """Give each item to so many sinks, each of which handles it by itself."""
    count = total = 0

    def handle(item: int) -> None:
        nonlocal count, total
        count += 1
        total += item

    pipeline = ab.Pipeline("bench").source(range(items))
    for at in range(1, courses):
        pipeline = pipeline.tee(lambda s: s.for_each(handle, inline=True), name=f"tee {at}")
    pipeline.for_each(handle, inline=True).run_blocking().raise_for_failure()
    assert (count, total) == (items * courses, sum(range(items)) * courses)
    return _sums(items, sum(range(items)))


def tee(settings: Settings) -> Outcome:
    """An item that goes to two sinks, against one that goes to one: the second handles it, too."""
    items = settings.size(ITEMS)
    expected = _sums(items, sum(range(items)))
    paired = interleaved(
        partial(_given_to, 1, items), partial(_given_to, 2, items), expected, settings.pairs
    )
    ratio = paired.ratio()
    return Outcome(
        bar="<= 3.50x",
        measured=f"{ratio.median:.2f}x",
        spread=f"{ratio.low:.2f}-{ratio.high:.2f}",
        ours=f"{rate(items, median(paired.theirs))} to two sinks",
        against=f"{rate(items, median(paired.ours))} to one",
        met=ratio.median <= 3.5,
        numbers={"items": items, "one": paired.ours, "two": paired.theirs},
    )


def _raced(  # noqa: PLR0917 - for the cases above
    bar: float,
    items: int,
    against: str,
    ours: Callable[[int], Coroutine[Any, Any, Sums]],
    theirs: Callable[[int], Coroutine[Any, Any, Sums]],
    settings: Settings,
) -> Outcome:
    return _compared(
        bar,
        items,
        against,
        lambda items: asyncio.run(ours(items)),
        lambda items: asyncio.run(theirs(items)),
        settings,
    )


def _compared(  # noqa: PLR0917 - for the cases above
    bar: float,
    items: int,
    against: str,
    ours: Callable[[int], Sums],
    theirs: Callable[[int], Sums],
    settings: Settings,
) -> Outcome:
    expected = _sums(items, sum(range(items)))
    paired = interleaved(partial(ours, items), partial(theirs, items), expected, settings.pairs)
    ratio = paired.ratio()
    return Outcome(
        bar=f">= {bar:.2f}x",
        measured=f"{ratio.median:.2f}x",
        spread=f"{ratio.low:.2f}-{ratio.high:.2f}",
        ours=rate(items, median(paired.ours)),
        against=f"{rate(items, median(paired.theirs))} {against}",
        met=ratio.median >= bar,
        numbers={"items": items, "ours": paired.ours, "theirs": paired.theirs},
    )


CASES: dict[str, Callable[[Settings], Outcome]] = {
    "fan-in-100": partial(fan_in, 100),
    "fan-in-10000": partial(fan_in, 10_000),
    "channel-hop": hop,
    "channel-hop-batches": hop_in_batches,
    "channel-hop-threads": thread_hop,
    "select-2": partial(select, 2),
    "select-16": partial(select, 16),
    "select-256": partial(select, 256),
    "tee": tee,
}
