"""What the tests of channels share."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from support import DEADLINE

import anabranch as ab


def filled(*items, capacity=10, **options):
    channel = ab.Channel(capacity, **options)
    for item in items:
        channel.send_nowait(item)
    return channel


def drained(channel):
    items = []
    while True:
        try:
            items.append(channel.receive_nowait())
        except (ab.ChannelEmpty, ab.ClosedError, ab.Cancelled, ValueError):
            return items


def conserved(channel):
    """Nothing is lost: checked against the channel's own counts."""
    stats = channel.stats()
    assert stats.sent == stats.received + stats.dropped + stats.depth, stats
    assert stats.depth <= stats.capacity or stats.capacity == 0, stats
    return stats


async def parked(channel, *, senders=0, receivers=0):
    """Wait until so many wait at the channel, whatever loop or thread they are in."""
    async with asyncio.timeout(DEADLINE):
        while True:
            stats = channel.stats()
            if (stats.senders, stats.receivers) == (senders, receivers):
                return
            await asyncio.sleep(0)


def in_thread(fn, *args, **options):
    """Run `fn` in a thread; return the future."""
    pool = ThreadPoolExecutor(1)
    future = pool.submit(fn, *args, **options)
    pool.shutdown(wait=False)
    return future
