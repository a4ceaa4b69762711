"""Who uses what has ended is told what has, and since when: in the error, and in its message."""

import asyncio
import inspect
import pickle
from datetime import UTC, datetime, timedelta

import pytest

import anabranch as ab

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


async def channel_to_send():
    channel = ab.Channel(1)
    channel.close()
    return lambda: channel.send(1)


async def channel_to_receive():
    channel = ab.PriorityChannel(1)
    channel.close(None)
    return channel.receive


async def group_to_go():
    async with ab.ErrGroup("work") as group:
        pass
    return lambda: group.go(print)


async def group_to_enter():
    async with ab.WaitGroup("work") as group:
        pass
    return group.__aenter__


async def pipeline_to_run():
    pipeline = ab.Pipeline("p").source([1]).collect()
    await pipeline.run()
    return pipeline.run


async def generator_to_read():
    numbers = (number for number in [1])
    await ab.Pipeline("p").source(numbers).collect().run()
    return lambda: ab.Pipeline("q").source(numbers).collect().run()


async def running_to_ask():
    async with ab.Pipeline("p").source([1]).fan_out(by=ab.item).collect().start() as running:
        await running.wait()
    return running.branch(1).pause


async def merge_to_receive():
    merged = ab.merge([ab.Channel(1)])
    merged.close()
    return merged.receive


async def branches_to_add():
    async with ab.fan_out(ab.Channel(1), by=ab.item) as branches:
        pass
    return lambda: branches.add("acme")


async def branch_that_was_left():
    async with ab.broadcast(ab.Channel(1), 1) as (branch,):
        pass
    return branch.receive


async def relay_to_begin():
    block = ab.balance(ab.Channel(1), 1)
    async with block:
        pass
    return block.__aenter__


async def scope_to_register():
    async with ab.CompensationScope() as scope:
        pass
    return lambda: scope.compensate(print)


async def ticker_to_read():
    ticker = ab.ticker(1.0)
    ticker.stop()
    return ticker.__iter__


ENDS = [
    channel_to_send,
    channel_to_receive,
    group_to_go,
    group_to_enter,
    pipeline_to_run,
    generator_to_read,
    running_to_ask,
    merge_to_receive,
    branches_to_add,
    branch_that_was_left,
    relay_to_begin,
    scope_to_register,
    ticker_to_read,
]


@pytest.mark.parametrize("end", ENDS, ids=lambda it: it.__name__)
def test_e1_what_has_ended_says_since_when(end):
    async def main():
        await asyncio.sleep(5)
        use = await end()
        await asyncio.sleep(7)
        with pytest.raises(ab.ClosedError) as caught:
            answer = use()
            if inspect.isawaitable(answer):
                await answer
        assert caught.value.since == EPOCH + timedelta(seconds=5)
        assert str(caught.value).endswith(" (since 1970-01-01 00:00:05.000+00:00)")

    ab.testing.run(main())


def test_e1_the_first_end_is_the_one_that_is_told():
    async def main():
        channel = ab.Channel(1)
        await asyncio.sleep(1)
        channel.close()
        await asyncio.sleep(1)
        channel.close(ValueError("too late"))
        with pytest.raises(ab.ChannelClosed) as caught:
            channel.send_nowait(1)
        assert caught.value.since == EPOCH + timedelta(seconds=1)

    ab.testing.run(main())


def test_e1_outside_a_test_it_is_the_time_of_the_calendar():
    channel = ab.Channel(1)
    before = datetime.now(UTC)
    channel.close()
    after = datetime.now(UTC)
    with pytest.raises(ab.ChannelClosed) as caught:
        channel.receive_blocking()
    assert before <= caught.value.since <= after
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.since) == (str(caught.value), caught.value.since)


def test_e1_what_has_not_begun_has_no_end_to_tell():
    with pytest.raises(ab.ClosedError, match="has not begun") as caught:
        ab.ErrGroup("work").go(print)
    assert caught.value.since is None
