"""C3: an undo action that fails is told, also where nobody gets the error it came with."""

import asyncio
from functools import partial

import pytest
from support import within

import anabranch as ab


def broken():
    raise ConnectionError("the booking service is down")


async def book(ctx, *, fails=False, waits=False):
    ctx.compensate(broken)
    if fails:
        raise OSError("no answer")
    if waits:
        await asyncio.get_running_loop().create_future()


async def quickly():
    await asyncio.sleep(0)


async def lost_race():
    await ab.race(partial(book, waits=True), quickly)


async def earlier_attempt():
    attempts = []

    async def twice(ctx):
        attempts.append(ctx.attempt)
        await book(ctx, fails=len(attempts) == 1)

    await ab.retry(twice, ab.Retry.fixed(0.0))


async def lost_tier():
    await ab.fallback(partial(book, fails=True), quickly)


async def cancelled_child():
    async with ab.WaitGroup("group") as group:
        child = group.go(partial(book, waits=True))
        await asyncio.sleep(0)
        child.cancel()


@pytest.mark.parametrize("way", [lost_race, earlier_attempt, lost_tier, cancelled_child])
@within
async def test_c3_what_is_lost_tells_of_its_stuck_undo_actions(way, caplog):
    await way()
    (told,) = caplog.messages
    assert "book" in told or "twice" in told
    assert "undo actions are stuck: broken (ConnectionError('the booking service is down'))" in told


def test_c3_so_does_an_earlier_attempt_in_a_thread(caplog):
    attempts = []

    def twice(ctx):
        ctx.compensate(broken)
        attempts.append(ctx.attempt)
        if len(attempts) == 1:
            raise OSError("no answer")

    ab.retry(twice, ab.Retry.fixed(0.0))
    assert ["undo actions are stuck: broken" in it for it in caplog.messages] == [True]
