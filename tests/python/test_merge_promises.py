"""`ab.merge`: what its sources promise it, and when it gives that up."""

import asyncio
import gc

import pytest
from channels import conserved, drained, filled, parked
from support import within

import anabranch as ab


@within
async def test_f5_f10_what_is_not_taken_stays_and_what_was_promised_is_the_others():
    channels = [ab.Channel(4), ab.Channel(4)]
    merged = ab.merge(channels)
    receiving = asyncio.ensure_future(merged.receive())
    await parked(channels[0], receivers=1)
    for channel in channels:
        channel.send_nowait("item")
    receiving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await receiving
    assert [channel.receive_nowait() for channel in channels] == ["item", "item"]
    for channel in channels:
        assert conserved(channel).receivers == 0


@within
@pytest.mark.parametrize("how", ["nowait", "in time", "in a thread", "cancelled"])
async def test_f5_f10_a_receive_that_got_nothing_keeps_nothing(how):
    own, shared = ab.Channel(4), ab.Channel(4)
    merged = ab.merge([own, shared])
    if how == "nowait":
        with pytest.raises(ab.ChannelEmpty):
            merged.receive_nowait()
    elif how == "in time":
        with pytest.raises(TimeoutError):
            await merged.receive(timeout=0.001)
    elif how == "in a thread":
        with pytest.raises(TimeoutError):
            await asyncio.to_thread(merged.receive_blocking, timeout=0.001)
    else:
        receiving = asyncio.ensure_future(merged.receive())
        await parked(shared, receivers=1)
        receiving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await receiving
    shared.send_nowait(1)
    shared.close()
    assert [item async for item in shared] == [1]
    own.send_nowait(2)
    own.close()
    assert [item async for item in merged] == [2]


@within
async def test_f5_between_two_items_it_stands_in_line_until_it_is_closed():
    own, shared = filled("own", name="own"), ab.Channel(4, name="shared")
    with ab.merge([own, shared]) as merged:
        assert await merged.receive() == "own"
        shared.send_nowait(1)
        with pytest.raises(ab.ChannelEmpty):
            shared.receive_nowait()
        with pytest.raises(TimeoutError):
            await shared.receive(timeout=0.001)
    assert shared.receive_nowait() == 1


@within
async def test_f10_who_looks_in_meanwhile_does_not_send_away_the_one_who_waits():
    channel = ab.Channel(4)
    merged = ab.merge([channel])
    receiving = asyncio.ensure_future(merged.receive())
    await parked(channel, receivers=1)
    with pytest.raises(ab.ChannelEmpty):
        merged.receive_nowait()
    channel.send_nowait(1)
    assert await receiving == 1
    merged.close()


def test_f10_one_that_is_forgotten_gives_back_what_it_was_promised():
    channel, idle = filled("a", "b"), ab.Channel()
    merged = ab.merge([channel, idle])
    assert merged.receive_nowait() == "a"
    assert idle.stats().receivers == 1
    idle.send_nowait("c")
    with pytest.raises(ab.ChannelEmpty):
        idle.receive_nowait()
    del merged
    gc.collect()
    assert drained(channel) + drained(idle) == ["b", "c"]


@within
async def test_f15_idle_peers_are_asked_once_whatever_comes():
    busy, idle = ab.Channel(10), [ab.Channel() for _ in range(100)]
    merged = ab.merge([busy, *idle])
    for item in range(1000):
        busy.send_nowait(item)
        assert await merged.receive() == item
        assert all(channel.stats().receivers == 1 for channel in idle[::25])
    merged.close()
    assert all(channel.stats().receivers == 0 for channel in idle)
