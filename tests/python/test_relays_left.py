"""`ab.broadcast`, `ab.balance` and `ab.fan_out`: before, behind and at the end of their block."""

import asyncio

import pytest
from channels import conserved, drained, filled, parked
from support import flat, within

import anabranch as ab


def closed(*items):
    channel = filled(*items)
    channel.close()
    return channel


@within
async def test_f10_when_the_block_is_left_what_was_not_sent_stays_in_the_reader():
    source = filled(*range(10))
    async with ab.broadcast(source, 2, capacity=3) as (one, two):
        await parked(two, senders=1)
    assert drained(one) == drained(two) == [0, 1, 2]
    assert drained(source) == list(range(3, 10))
    with pytest.raises(ab.ClosedError, match="its block was left"):
        await one.receive()
    for channel in (source, one, two):
        conserved(channel)


@within
@pytest.mark.parametrize("make", [ab.broadcast, ab.balance])
async def test_f10_a_block_left_before_its_task_has_run_leaves_nobody_waiting(make):
    source = filled(1, 2)
    with pytest.raises(OSError, match="mine"):
        async with make(source, 2) as failed:
            raise OSError("mine")
    async with make(source, 2) as left:
        pass
    for branch in (*failed, *left):
        with pytest.raises(ab.ClosedError, match="its block was left before its reader had ended"):
            await branch.receive()
    assert drained(source) == [1, 2]


@within
async def test_f10_so_does_a_fan_out_that_is_left_at_once():
    async with ab.fan_out(filled({"k": 1}), "k") as branches:
        branch = branches.add("early")
    with pytest.raises(ab.ClosedError, match="its block was left before its reader had ended"):
        await branch.receive()


@within
async def test_b8_a_branch_that_is_added_behind_the_end_closes_with_the_block():
    async with ab.fan_out(closed({"k": 1}), "k") as branches:
        await branches.finished()
        late = branches.add("late")
    assert [item async for item in late] == []


@within
async def test_b4_no_branch_is_added_outside_of_the_block():
    branches = ab.fan_out(closed(), "k")
    with pytest.raises(ab.ClosedError, match="fan_out has not begun: use it by `async with`"):
        branches.add("early")
    async with branches:
        pass
    with pytest.raises(ab.ClosedError, match="fan_out: its block has been left: no branch 'late'"):
        branches.add("late")
    assert not branches


@within
@pytest.mark.parametrize("make", [ab.broadcast, ab.balance])
async def test_a_block_is_entered_once(make):
    relay = make(closed(1), 2)
    with pytest.raises(ab.ClosedError, match=f"{make.__name__} has not begun: use it by"):
        await relay.finished()
    async with relay as branches:
        await relay.finished()
        assert 1 in flat([drained(branch) for branch in branches])
    with pytest.raises(ab.ClosedError, match="is used once: make a new one"):
        async with relay:
            pass


@within
async def test_f10_a_balance_goes_on_when_a_branch_that_is_full_is_closed():
    source = closed(*range(8))
    async with ab.balance(source, 2, capacity=1) as (one, other):
        await parked(one, senders=1)
        await parked(other, senders=1)
        one.close()
        rest = [item async for item in other]
    # What the other one held stays in it.
    assert sorted([*rest, one.receive_nowait()]) == list(range(8))


@within
async def test_f10_who_waits_for_the_end_of_a_broadcast_hears_that_nobody_read_it_to_the_end():
    source = closed(*range(8))
    relay = ab.broadcast(source, 2, capacity=1)
    async with relay as branches:
        for branch in branches:
            await branch.receive()
            branch.close()
        with pytest.raises(ab.ClosedError, match="all branches were closed before"):
            await relay.finished()
    assert source.depth > 0


@within
async def test_b4_and_of_a_fan_out_what_its_key_raised():
    with pytest.raises(KeyError, match="k"):
        async with ab.fan_out(closed({"k": 1}, {}), "k") as branches:
            with pytest.raises(KeyError, match="k"):
                await branches.finished()


@within
@pytest.mark.parametrize("make", [ab.broadcast, ab.balance])
async def test_f10_and_of_any_that_it_was_cut_short(make):
    cancel = ab.Cancel()
    relay = make(ab.Channel(3), 2, ctx=ab.Context("c", cancel=cancel))
    async with relay:
        cancel.cancel()
        with pytest.raises(ab.Cancelled):
            await relay.finished()
    relay = make(filled(1), 2)
    async with relay:
        waiting = asyncio.ensure_future(relay.finished())
        await asyncio.sleep(0)
    with pytest.raises(ab.ClosedError, match="its block was left before its reader had ended"):
        await waiting
