"""`ab.Channel` by itself: what it is told, its order and bound, waiting, and its end."""

import asyncio
from datetime import timedelta

import pytest
from channels import conserved, drained, filled, in_thread, parked
from support import DEADLINE, within

import anabranch as ab

LONG = DEADLINE / 2


# What it is told.


@pytest.mark.parametrize(
    ("options", "argument", "message"),
    [
        ({"capacity": 0}, "capacity", "channel: capacity must be an int >= 1, got 0"),
        ({"capacity": True}, "capacity", "channel: capacity must be an int >= 1, got True"),
        ({"name": ""}, "name", "channel: name must be a non-empty str, got ''"),
        (
            {"on_full": "block"},
            "on_full",
            "channel: on_full must be 'wait', 'drop_newest', 'drop_oldest' or 'fail', got 'block'",
        ),
    ],
)
def test_w8_bad_options_are_refused_by_name(options, argument, message):
    with pytest.raises(ab.ConfigError) as caught:
        ab.Channel(**options)
    assert (str(caught.value), caught.value.argument) == (message, argument)


@within
async def test_w8_bad_arguments_are_refused_by_name():
    channel = ab.Channel(2, name="orders")
    with pytest.raises(ab.ConfigError, match=r"channel 'orders': timeout must be .*, got nan"):
        await channel.send(1, timeout=float("nan"))
    with pytest.raises(ab.ConfigError, match=r"timeout must be .*, got 'soon'"):
        channel.receive_blocking(timeout="soon")
    for beyond in (10**400, 10**5000, -(10**400)):
        with pytest.raises(ab.ConfigError, match=r"timeout must be a number of seconds up to "):
            channel.send_blocking(1, timeout=beyond)
    assert filled(1, 2).receive_many_nowait(10**400) == [1, 2]
    with pytest.raises(ab.ConfigError, match=r"max_items must be an int >= 1 or None, got 0"):
        channel.receive_many_nowait(0)
    with pytest.raises(ab.ConfigError, match=r"error must be an Exception or None, got 'why'"):
        channel.close("why")
    with pytest.raises(ab.ConfigError, match="an Exception or None"):
        channel.close(KeyboardInterrupt())
    large = r"items must be at most 2 items, for they go in together, got 3 items"
    with pytest.raises(ab.ConfigError, match=large):
        await channel.send_many(range(3))
    assert channel.stats().sent == 0


def test_it_says_what_it_is():
    channel = filled(1, 2, capacity=5, name="orders")
    assert repr(channel) == "<Channel 'orders': 2 of 5 items, open>"
    channel.close()
    assert repr(channel) == "<Channel 'orders': 2 of 5 items, closed>"
    assert (channel.name, channel.capacity, channel.closed) == ("orders", 5, True)


# Order, bound, overflow.


@within
async def test_b1_items_leave_in_the_order_they_came_whatever_they_are():
    items = [None, 0, [], (), "", None]
    channel = ab.Channel(10)
    await channel.send_many(items)
    assert [await channel.receive() for _ in items] == items


def test_b5_wait_holds_at_most_its_capacity():
    channel = filled(1, 2, capacity=2, name="orders")
    message = r"channel 'orders' has no room for an item: 2 of 2 are inside"
    with pytest.raises(ab.ChannelFull, match=message) as caught:
        channel.send_nowait(3)
    assert caught.value.code == "channel.full"
    with pytest.raises(ab.ChannelFull, match="no room for 2 items"):
        channel.send_many_nowait([3, 4])
    assert drained(channel) == [1, 2]


def test_b5_drop_newest_drops_what_arrives_and_counts_it():
    channel = filled(*range(5), capacity=2, on_full="drop_newest")
    channel.send_many_nowait([7, 8])
    assert conserved(channel).dropped == 5
    assert drained(channel) == [0, 1]
    channel.send_many_nowait([7, 8, 9])
    assert drained(channel) == [7, 8]


def test_b5_drop_oldest_drops_what_waits_and_counts_it():
    channel = filled(*range(5), capacity=2, on_full="drop_oldest")
    assert conserved(channel).dropped == 3
    channel.send_many_nowait([7, 8, 9])
    assert conserved(channel).dropped == 6
    assert drained(channel) == [8, 9]


@within
async def test_b5_fail_tells_the_sender():
    channel = filled(1, capacity=1, on_full="fail", name="orders")
    for send in (channel.send_nowait, channel.send_blocking):
        with pytest.raises(ab.ChannelFull, match="channel 'orders' is full"):
            send(2)
    with pytest.raises(ab.ChannelFull):
        await channel.send(2)
    assert conserved(channel).sent == 1


class Loud:
    """Sends to its channel as it dies."""

    def __init__(self, channel):
        self.channel = channel

    def __del__(self):
        self.channel.send_nowait("dead")


def test_an_item_that_is_dropped_may_use_the_channel_as_it_dies():
    channel = ab.Channel(2, on_full="drop_oldest")
    channel.send_nowait(Loud(channel))
    channel.send_many_nowait([1, 2])
    assert drained(channel) == [2, "dead"]


# Waiting.


@within
async def test_b5_a_sender_waits_for_room_and_the_wait_is_counted():
    channel = filled(1, capacity=1)
    sender = asyncio.create_task(channel.send(2))
    await parked(channel, senders=1)
    assert channel.stats().blocked > 0
    assert await channel.receive() == 1
    await sender
    blocked = channel.stats().blocked
    assert await channel.receive() == 2
    assert channel.stats().blocked == blocked


@within
async def test_those_who_wait_are_served_in_order_and_nobody_overtakes():
    channel = ab.Channel(2)
    got = []

    async def take(number):
        got.append((number, await channel.receive()))

    takers = [asyncio.create_task(take(number)) for number in range(3)]
    await parked(channel, receivers=3)
    channel.send_many_nowait("ab")
    # Promised to the first two, though they have not come yet.
    with pytest.raises(ab.ChannelEmpty):
        channel.receive_nowait()
    await channel.send("c")
    await asyncio.gather(*takers)
    assert got == [(0, "a"), (1, "b"), (2, "c")]


@within
async def test_a_batch_goes_in_whole_and_is_not_starved_by_single_items():
    channel = filled(1, 2, 3, capacity=3)
    batch = asyncio.create_task(channel.send_many("xyz"))
    await parked(channel, senders=1)
    single = asyncio.create_task(channel.send("s"))
    await parked(channel, senders=2)
    assert channel.receive_nowait() == 1
    with pytest.raises(ab.ChannelFull, match="2 of 3 are inside, and 2 wait for room"):
        channel.send_nowait("t")
    assert await channel.receive_many() == [2, 3]
    await batch
    assert await channel.receive_many(2) == ["x", "y"]
    await single
    assert await channel.receive_many(10) == ["z", "s"]


@within
async def test_one_wake_up_brings_a_receiver_all_that_came_meanwhile():
    channel = ab.Channel(10)
    taker = asyncio.create_task(channel.receive_many())
    await parked(channel, receivers=1)
    for number in range(4):
        channel.send_nowait(number)
    assert await taker == [0, 1, 2, 3]


# Timeouts and cancellation.


@within
async def test_f9_a_timeout_is_seconds_and_loses_nothing():
    channel = ab.Channel(1, name="orders")
    message = r"channel 'orders': no item within 0.001 s"
    with pytest.raises(TimeoutError, match=message):
        await channel.receive(timeout=0.001)
    with pytest.raises(TimeoutError, match=message):
        await asyncio.to_thread(channel.receive_blocking, timeout=timedelta(milliseconds=1))
    with pytest.raises(TimeoutError, match="no item within -1 s"):
        await channel.receive_many(timeout=-1)
    await channel.send(1, timeout=0)
    with pytest.raises(TimeoutError, match="no room for an item within 0 s"):
        await channel.send(2, timeout=0)
    with pytest.raises(TimeoutError, match="no room for 1 items within"):
        await asyncio.to_thread(channel.send_many_blocking, [2], timeout=0.001)
    assert await channel.receive(timeout=LONG) == 1
    stats = conserved(channel)
    assert (stats.sent, stats.senders, stats.receivers) == (1, 0, 0)


@within
async def test_f10_what_was_promised_to_a_cancelled_receiver_goes_to_the_next():
    channel = ab.Channel(5)
    first = asyncio.create_task(channel.receive())
    second = asyncio.create_task(channel.receive())
    await parked(channel, receivers=2)
    channel.send_nowait("it")
    # It is the first one's now, which is woken, but has not run yet.
    first.cancel()
    assert await second == "it"
    with pytest.raises(asyncio.CancelledError):
        await first
    assert conserved(channel).receivers == 0


@within
async def test_f10_a_cancelled_sender_has_sent_nothing_and_the_next_one_may():
    channel = filled(1, capacity=1)
    first = asyncio.create_task(channel.send(2))
    second = asyncio.create_task(channel.send(3))
    await parked(channel, senders=2)
    assert channel.receive_nowait() == 1
    first.cancel()
    await second
    with pytest.raises(asyncio.CancelledError):
        await first
    assert drained(channel) == [3]


@within
async def test_f10_a_cancelled_batch_lets_those_behind_it_in():
    channel = filled(1, capacity=2)
    batch = asyncio.create_task(channel.send_many([2, 3]))
    single = asyncio.create_task(channel.send(4))
    await parked(channel, senders=2)
    batch.cancel()
    await single
    assert drained(channel) == [1, 4]


# The end.


@within
async def test_b8_receivers_drain_what_is_inside_and_then_get_the_end():
    channel = filled(1, 2, name="orders")
    channel.close()
    channel.close(ValueError("too late"))
    assert [await channel.receive(), channel.receive_blocking()] == [1, 2]
    for receive in (channel.receive_nowait, channel.receive_blocking, channel.receive_many_nowait):
        with pytest.raises(ab.ChannelClosed, match="channel 'orders' is closed, and") as caught:
            receive()
        assert caught.value.code == "channel.closed"
    with pytest.raises(ab.ChannelClosed):
        await channel.receive_many(timeout=LONG)


@within
async def test_f11_receivers_get_the_very_error_it_was_closed_with():
    channel = filled(1)
    error = ConnectionResetError("the peer is gone")
    channel.close(error)
    assert await channel.receive() == 1
    frames = set()
    for _ in range(20):
        with pytest.raises(ConnectionResetError) as caught:
            channel.receive_nowait()
        assert caught.value is error
        frames.add(len(caught.traceback))
    # Raising it again and again does not make it grow.
    assert len(frames) == 1
    with pytest.raises(ConnectionResetError):
        await channel.receive(timeout=LONG)


@within
async def test_f12_senders_are_refused_with_the_error_as_the_cause():
    channel = filled(1, capacity=1, name="orders")
    waiting = asyncio.create_task(channel.send(2))
    in_another = in_thread(channel.send_blocking, 3)
    await parked(channel, senders=2)
    error = ValueError("why")
    channel.close(error)
    message = "channel 'orders' is closed: nothing more can be sent"
    with pytest.raises(ab.ChannelClosed, match=message) as caught:
        await waiting
    assert caught.value.__cause__ is error
    with pytest.raises(ab.ChannelClosed, match=message):
        in_another.result(DEADLINE)
    with pytest.raises(ab.ChannelClosed, match=message):
        channel.send_nowait(4)
    assert drained(channel) == [1]
    assert conserved(channel).sent == 1


@within
async def test_closing_wakes_everybody_who_waits_for_an_item():
    channel = ab.Channel(1)
    waiting = [asyncio.create_task(channel.receive()) for _ in range(3)]
    in_another = in_thread(channel.receive_many_blocking)
    await parked(channel, receivers=4)
    channel.close()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [ab.ChannelClosed] * 3
    with pytest.raises(ab.ChannelClosed):
        in_another.result(DEADLINE)


@within
async def test_b8_the_end_waits_for_the_item_a_cancelled_receiver_may_give_back():
    channel = ab.Channel(1)
    first = asyncio.create_task(channel.receive())
    second = asyncio.create_task(channel.receive())
    await parked(channel, receivers=2)
    channel.send_nowait("last")
    channel.close()
    first.cancel()
    assert await second == "last"
    assert conserved(channel).depth == 0


# Iterating.


@within
async def test_t9_iterating_ends_at_the_end_in_both_worlds():
    assert [item async for item in ended(1, 2)] == [1, 2]
    assert list(ended(3, 4)) == [3, 4]


def ended(*items, error=None):
    channel = filled(*items)
    channel.close(error)
    return channel


@pytest.mark.parametrize("error", [ValueError("why"), ab.ChannelClosed("another one")])
@within
async def test_f11_iterating_never_takes_an_error_for_an_end(error):
    channels = [ended(1, error=error), ended(2, error=error)]
    with pytest.raises(type(error), match=str(error)):
        assert not [item async for item in channels[0]]
    with pytest.raises(type(error), match=str(error)):
        assert not list(channels[1])
    # What was inside did come out first.
    assert [channel.stats().received for channel in channels] == [1, 1]
