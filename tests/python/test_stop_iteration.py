"""A StopIteration of the user's is an error, wherever it comes from, and the end of nothing."""

import contextlib
import logging

import outboxes
import pytest
from support import within

import anabranch as ab

EMPTY = iter(())
PERIOD = 36_000_000.0


def full(*items):
    channel = ab.Channel(10)
    channel.send_many_nowait(items)
    channel.close()
    return channel


def exhausted(*_):
    return next(EMPTY)


async def in_group(kind):
    async with kind() as group:
        group.go(exhausted)


CALLS = {
    "fan_in": lambda: ab.fan_in([full(1)], exhausted),
    "ErrGroup": lambda: in_group(ab.ErrGroup),
    "timeout": lambda: ab.timeout(exhausted, 60.0),
    "all_of": lambda: ab.all_of(exhausted),
}


@pytest.mark.parametrize("call", CALLS)
@within
async def test_e1_out_of_a_thread_it_gets_to_who_waits(call):
    with pytest.raises(RuntimeError) as caught:
        await CALLS[call]()
    assert isinstance(caught.value.__cause__, StopIteration)


def test_e1_nor_does_a_planner_that_is_a_def_wait_for_ever(caplog, tmp_path):
    with contextlib.closing(outboxes.opened("sqlite", tmp_path)) as side:
        planner = ab.OutboxPlanner(side.outbox)
        planner.plan("nightly", every=PERIOD)(exhausted)
        planner.run_once_blocking()
        side.pass_time(PERIOD)
        with caplog.at_level(logging.ERROR):
            assert planner.run_once_blocking() == 0
    assert "plan 'nightly' has failed" in caplog.text


def strategies():
    yield ab.Strategy.custom(exhausted)
    yield ab.Strategy.oldest_first(by=exhausted)


def iterated():
    yield from (lambda it=it: ab.merge([full(1, 2)], strategy=it) for it in strategies())
    yield lambda: ab.window(full("a"), max_bytes=10, size_of=exhausted)


def failed(error):
    channel = ab.Channel(1)
    channel.close(error)
    return channel


def ends_with(error):
    yield lambda: failed(error)
    yield lambda: ab.merge([failed(error)])
    yield lambda: ab.window(failed(error), max_items=2)


@pytest.mark.parametrize("make", [*iterated(), *ends_with(StopIteration("the feed broke"))])
def test_f11_a_for_loop_does_not_take_it_for_the_end(make):
    with pytest.raises(RuntimeError) as caught:
        list(make())
    assert isinstance(caught.value.__cause__, StopIteration)


@pytest.mark.parametrize("make", list(ends_with(StopAsyncIteration("the feed broke"))))
@within
async def test_f11_nor_does_an_async_for_loop_of_the_other_kind(make):
    with pytest.raises(RuntimeError) as caught:
        async for _ in make():
            pass
    assert isinstance(caught.value.__cause__, StopAsyncIteration)
