"""The calls of a channel take `ctx=`, whose cancellation ends them (G8, F10)."""

import asyncio

import pytest
from channels import conserved, drained, filled, in_thread, parked
from support import DEADLINE, within

import anabranch as ab


def channel_of(kind, **options):
    return ab.Channel(1, **options) if kind == "channel" else ab.PriorityChannel(1, **options)


CALLS = {
    "send": lambda channel, **options: channel.send(2, **options),
    "send_many": lambda channel, **options: channel.send_many([2], **options),
    "receive": lambda channel, **options: channel.receive(**options),
    "receive_many": lambda channel, **options: channel.receive_many(5, **options),
}
BLOCKING = {
    "send": lambda channel, **options: channel.send_blocking(2, **options),
    "send_many": lambda channel, **options: channel.send_many_blocking([2], **options),
    "receive": lambda channel, **options: channel.receive_blocking(**options),
    "receive_many": lambda channel, **options: channel.receive_many_blocking(5, **options),
}


def prepared(kind, call):
    """A channel at which this call has to wait."""
    channel = channel_of(kind)
    if "send" in call:
        channel.send_nowait(1)
    return channel, {"senders" if "send" in call else "receivers": 1}


@pytest.mark.parametrize("kind", ["channel", "priority"])
@pytest.mark.parametrize("call", CALLS)
@within
async def test_g8_f10_a_cancelled_ctx_ends_a_call_that_waits_and_nothing_is_lost(call, kind):
    channel, waits = prepared(kind, call)
    token = ab.Cancel()
    async with ab.Context("work", cancel=token) as ctx:
        task = asyncio.ensure_future(CALLS[call](channel, ctx=ctx, timeout=DEADLINE))
        await parked(channel, **waits)
        token.cancel("enough")
        with pytest.raises(ab.Cancelled, match="enough"):
            await task
        await parked(channel)
    assert not token._wakers
    assert drained(channel) == ([1] if "send" in call else [])
    conserved(channel)


@pytest.mark.parametrize("kind", ["channel", "priority"])
@pytest.mark.parametrize("call", BLOCKING)
@within
async def test_g8_f10_a_thread_that_waits_is_woken_too(call, kind):
    channel, waits = prepared(kind, call)
    token = ab.Cancel()
    with ab.Context("work", cancel=token) as ctx:
        future = in_thread(BLOCKING[call], channel, ctx=ctx)
        await parked(channel, **waits)
        token.cancel()
        with pytest.raises(ab.Cancelled):
            await asyncio.wrap_future(future)
    assert drained(channel) == ([1] if "send" in call else [])
    conserved(channel)


@pytest.mark.parametrize("call", CALLS)
@within
async def test_g8_a_ctx_that_is_cancelled_comes_before_what_is_there(call):
    channel = filled(*(() if "send" in call else (1,)))
    token = ab.Cancel()
    token.cancel()
    with pytest.raises(ab.Cancelled):
        await CALLS[call](channel, ctx=ab.Context("work", cancel=token))
    assert drained(channel) == ([] if "send" in call else [1])


@within
async def test_g8_what_was_promised_to_a_cancelled_receiver_goes_to_the_next():
    channel, token = ab.Channel(10), ab.Cancel()
    ctx = ab.Context("work", cancel=token)
    first = asyncio.ensure_future(channel.receive(ctx=ctx))
    await parked(channel, receivers=1)
    second = asyncio.ensure_future(channel.receive())
    await parked(channel, receivers=2)
    channel.send_nowait(1)
    token.cancel()
    with pytest.raises(ab.Cancelled):
        await first
    assert await second == 1
    conserved(channel)


@within
async def test_g8_a_call_that_need_not_wait_and_one_that_is_served_go_on_as_ever():
    channel, token = ab.Channel(1), ab.Cancel()
    with ab.Context("work", cancel=token) as ctx:
        await channel.send(1, ctx=ctx)
        assert await channel.receive(ctx=ctx) == 1
        task = asyncio.ensure_future(channel.receive(ctx=ctx))
        await parked(channel, receivers=1)
        await channel.send(2, ctx=ctx)
        assert await task == 2
    assert not token._wakers


@within
async def test_g8_a_ctx_that_is_none_of_ours_is_refused():
    with pytest.raises(ab.ConfigError, match="channel 'channel': ctx must be a Context or None"):
        await ab.Channel().send(1, ctx=1)
