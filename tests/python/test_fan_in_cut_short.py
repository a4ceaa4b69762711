"""F10, F17: what a handler raises that is cut short loses neither its item nor itself."""

import asyncio
import threading

import pytest
from channels import drained, filled
from support import DEADLINE, within

import anabranch as ab


async def cleaning_up(item):
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        raise ConnectionError(f"closing the cursor of {item}")


@within
async def test_f10_the_item_is_put_back_and_the_error_is_told():
    channel = filled(1, 2, name="orders")
    with pytest.raises(ab.HandlerTimeout) as caught:
        await ab.fan_in([channel], cleaning_up, timeout=0.01)
    assert drained(channel) == [1, 2]
    assert any("'orders'" in it and "cursor of 1" in it for it in caught.value.__notes__)


@within
async def test_f10_so_is_that_of_a_def_in_a_thread():
    channel, started, may_end = filled(1, 2), asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def late(item):
        loop.call_soon_threadsafe(started.set)
        may_end.wait(DEADLINE)
        raise ConnectionError(item)

    running = asyncio.ensure_future(ab.fan_in([channel], late))
    await started.wait()
    running.cancel()
    await asyncio.sleep(0)
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert drained(channel) == [1, 2]


@within
async def test_f10_and_of_those_that_the_error_of_another_one_cuts_short():
    first, second = filled(1, name="first"), filled(2, 3, name="second")

    async def handle(item):
        if item != 1:
            await cleaning_up(item)
        # The other one has begun.
        await asyncio.sleep(0)
        raise KeyError(item)

    with pytest.raises(KeyError) as caught:
        await ab.fan_in([first, second], handle)
    # What ends the fan-in was not handled, and is told: it is not put back.
    assert (drained(first), drained(second)) == ([], [2, 3])
    assert any("'second'" in it and "cursor of 2" in it for it in caught.value.__notes__)


@within
async def test_f17_of_two_that_fail_one_is_raised_and_the_other_is_told():
    nacking, may_fail = asyncio.Event(), asyncio.Event()

    async def nack(item, error):
        nacking.set()
        await may_fail.wait()

    async def handle(item):
        if item == "b":
            await nacking.wait()
            may_fail.set()
        raise LookupError(item)

    sources = [ab.Source(filled("a", name="first"), nack=nack), filled("b", name="second")]
    with pytest.raises(LookupError) as caught:
        await ab.fan_in(sources, handle)
    other = "first" if str(caught.value) == "b" else "second"
    assert any(f"an item of source '{other}' failed" in it for it in caught.value.__notes__)
