"""`ab.PriorityChannel`: the most urgent first, each lane with room of its own."""

import asyncio

import pytest
from channels import conserved, in_thread, parked
from support import DEADLINE, within

import anabranch as ab


def urgent(capacity=10, **options):
    return ab.PriorityChannel(capacity, **options)


def test_q1_the_order_is_chosen_when_an_item_is_received():
    channel = urgent()
    channel.send_many_nowait(["low 1", "low 2"])
    channel.send_nowait("middle", priority=1)
    assert channel.receive_nowait() == "middle"
    channel.send_nowait("high", priority=0)
    assert channel.depths == (1, 0, 2)
    assert channel.receive_many_nowait() == ["high", "low 1", "low 2"]
    conserved(channel)


@within
async def test_q1_a_receiver_that_was_called_gets_the_most_urgent_of_all():
    channel = urgent()
    receiving = asyncio.ensure_future(channel.receive())
    await parked(channel, receivers=1)
    channel.send_nowait("low")
    channel.send_nowait("high", priority=0)
    assert await receiving == "high"


def test_q1_with_aging_a_low_lane_waits_no_longer_than_that():
    async def main():
        channel = urgent(100, lanes=2, aging=10.0)
        await channel.send("low", priority=1)
        received = []
        for second in range(13):
            await channel.send(second, priority=0)
            received.append(await channel.receive())
            await asyncio.sleep(1.0)
        return received

    received = ab.testing.run(main())
    # Of equals the more urgent one comes first.
    assert received[:12] == [*range(11), "low"]


def test_q1_without_aging_it_waits_as_long_as_there_is_something():
    async def main():
        channel = urgent(100, lanes=2)
        await channel.send("low", priority=1)
        for second in range(100):
            await channel.send(second, priority=0)
            assert await channel.receive() == second
            await asyncio.sleep(1000.0)
        return channel.receive_nowait()

    assert ab.testing.run(main()) == "low"


@within
async def test_q2_a_full_lane_blocks_its_own_writer_and_no_other():
    channel = urgent(1)
    channel.send_nowait("low")
    with pytest.raises(ab.ChannelFull):
        channel.send_nowait("low 2")
    waiting = asyncio.ensure_future(channel.send("low 2"))
    await parked(channel, senders=1)
    await channel.send("high", priority=0)
    assert await channel.receive() == "high"
    assert not waiting.done()
    assert await channel.receive() == "low"
    await waiting
    assert channel.blocked > 0
    assert channel.depth == 1


@within
async def test_q2_a_batch_waits_for_room_in_its_lane_also_in_a_thread():
    channel = urgent(3)
    channel.send_many_nowait([1, 2], priority=1)
    waiting = in_thread(channel.send_many_blocking, [3, 4], priority=1)
    await parked(channel, senders=1)
    assert await channel.receive_many() == [1, 2]
    await asyncio.to_thread(waiting.result, DEADLINE)
    assert channel.depths == (0, 2, 0)


def put_back_by_fan_in(channel):
    def handle(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ab.fan_in_blocking([channel], handle)


def put_back_by_a_window(channel):
    async def main():
        windows = ab.window(channel, max_items=9)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(windows), 10.0)
        assert channel.depth == 0
        windows.close()

    ab.testing.run(main())


def put_back_by_a_relay(channel):
    async def main():
        async with ab.balance(channel, 1) as (branch,):
            await parked(branch, senders=1)
        assert branch.depth == 1

    asyncio.run(main())


@pytest.mark.parametrize(
    ("put_back", "depths"),
    [
        (put_back_by_fan_in, (0, 1, 3)),
        (put_back_by_a_window, (0, 1, 3)),
        (put_back_by_a_relay, (0, 0, 3)),
    ],
)
def test_q1_what_is_put_back_is_the_next_of_its_own_lane(put_back, depths):
    channel = urgent()
    channel.send_many_nowait(["low 1", "low 2", "low 3"])
    channel.send_nowait("middle 1", priority=1)
    put_back(channel)
    assert channel.depths == depths
    channel.send_nowait("middle 2", priority=1)
    first = ["middle 1"] * depths[1]
    assert channel.receive_many_nowait() == [*first, "middle 2", "low 1", "low 2", "low 3"]
    conserved(channel)


def test_q1_what_is_put_back_has_not_lost_its_age():
    async def main():
        channel = urgent(lanes=2, aging=10.0)
        await channel.send("low")
        windows = ab.window(channel, max_items=9)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(windows), 8.0)
        await channel.send("9 s", priority=0)
        await asyncio.sleep(4.0)
        await channel.send("12 s", priority=0)
        windows.close()
        return channel.receive_many_nowait()

    assert ab.testing.run(main()) == ["9 s", "low", "12 s"]


@within
async def test_q3_a_fault_and_a_cancel_reach_a_waiting_reader():
    channel = urgent()
    first = asyncio.ensure_future(channel.receive())
    second = asyncio.ensure_future(channel.receive())
    await parked(channel, receivers=2)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    channel.close(OSError("the disk is full"))
    with pytest.raises(OSError, match="the disk is full"):
        await second


@within
async def test_q3_what_a_cancelled_writer_would_have_sent_is_not_inside():
    channel = urgent(1)
    channel.send_nowait("low")
    waiting = asyncio.ensure_future(channel.send("never"))
    await parked(channel, senders=1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert channel.receive_many_nowait() == ["low"]
    assert conserved(channel).senders == 0


def test_q1_a_pipeline_reads_it_in_its_order_and_writes_to_its_last_lane():
    jobs, done = urgent(name="jobs"), urgent(name="done")
    jobs.send_many_nowait([3, 4])
    jobs.send_many_nowait([1, 2], priority=0)
    jobs.close()
    ab.Pipeline("p").source(jobs).to_channel(done).run_blocking()
    assert done.depths == (0, 0, 4)
    assert list(done) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lanes": 0}, "lanes must be an int from 1 to 256, got 0"),
        ({"lanes": True}, "lanes must be an int from 1 to 256, got True"),
        ({"aging": 0.0}, "aging must be a number of seconds > 0, got 0.0"),
        ({"aging": "1"}, "aging must be a number of seconds > 0, got '1'"),
        ({"capacity": 0}, "capacity must be an int >= 1, got 0"),
        ({"clock": 1}, "clock must be a VirtualClock or None, got 1"),
    ],
)
def test_a_bad_argument_is_refused(options, said):
    with pytest.raises(ab.ConfigError) as refused:
        ab.PriorityChannel(**options)
    assert str(refused.value).endswith(said)


@pytest.mark.parametrize("priority", [-1, 3, "0", True])
def test_there_is_no_such_lane(priority):
    channel = urgent(name="jobs")
    with pytest.raises(
        ab.ConfigError, match=r"'jobs': priority must be None or an int from 0 to 2"
    ):
        channel.send_nowait(1, priority=priority)
