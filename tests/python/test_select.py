"""`ab.select`: whatever is ready first."""

import asyncio

import pytest
from channels import conserved, drained, in_thread, parked
from support import DEADLINE, within

import anabranch as ab


def three():
    return [ab.Channel(10, name=name) for name in "abc"]


def test_s1_a_ready_case_beats_the_default():
    a, b, _ = three()
    either = ab.select(a, b).default(lambda: "nothing")
    assert either.run_blocking().value == "nothing"
    assert either.run_blocking().case == "default"
    b.send_nowait(1)
    chosen = either.run_blocking()
    assert (chosen.case, chosen.reader, chosen.item, chosen.value) == (1, b, 1, 1)


@within
async def test_s2_s3_priority_then_registration_order_and_losers_keep_theirs():
    a, b, c = three()
    for channel in (a, b, c):
        channel.send_nowait(channel.name)
    either = ab.select(a, b).on(c, priority=-1)
    assert [(await either).item for _ in range(3)] == ["c", "a", "b"]
    a.send_nowait("again")
    b.send_nowait("too")
    assert (await either).item == "again"
    assert drained(b) == ["too"]
    for channel in (a, b, c):
        assert conserved(channel).receivers == 0


@within
async def test_s2_of_several_that_become_ready_while_it_waits_the_order_holds():
    a, b, c = three()
    running = asyncio.ensure_future(ab.select(a, b).on(c, priority=-1).run())
    await parked(c, receivers=1)
    for channel in (b, a, c):
        channel.send_nowait(channel.name)
    assert (await running).item == "c"
    assert [channel.depth for channel in (a, b, c)] == [1, 1, 0]
    assert [a.receive_nowait(), b.receive_nowait()] == ["a", "b"]


@within
async def test_s2_fair_takes_turns():
    channels = three()
    for channel in channels:
        channel.send_many_nowait([channel.name] * 3)
    either = ab.select(*channels, fair=True)
    assert "".join([(await either).item for _ in range(9)]) == "abcabcabc"


@within
async def test_s3_s6_two_selects_take_an_item_each_and_none_is_lost():
    a, b, _ = three()
    first = asyncio.ensure_future(ab.select(a, b).run())
    second = asyncio.ensure_future(ab.select(b, a).run())
    await parked(a, receivers=2)
    a.send_nowait("one")
    assert (await first).item == "one"
    # The other one is asked for all of its cases still.
    assert (a.stats().receivers, b.stats().receivers) == (1, 1)
    b.send_nowait("two")
    assert (await second).item == "two"
    assert (a.stats().receivers, b.stats().receivers) == (0, 0)


@within
async def test_s6_an_item_that_others_take_meanwhile_is_waited_for_again():
    a, b, _ = three()
    running = asyncio.ensure_future(ab.select(a, b).run())
    await parked(a, receivers=1)
    other = asyncio.ensure_future(a.receive())
    await parked(a, receivers=2)
    # One for each of those who wait; and what nobody was promised is taken at once.
    a.send_many_nowait([1, 2, 3])
    assert a.receive_nowait() == 1
    assert {(await running).item, await other} == {2, 3}


@within
async def test_s4_all_closed_is_drained_or_the_default():
    a, b, c = three()
    a.send_nowait("last")
    for channel in (a, b):
        channel.close()
    either = ab.select(a, b)
    assert (await either).item == "last"
    with pytest.raises(ab.SelectDrained) as drained_error:
        await either
    assert drained_error.value.code == "select.drained"
    assert (await either.default()).case == "default"
    running = asyncio.ensure_future(ab.select(a, c).run())
    await parked(c, receivers=1)
    c.close()
    with pytest.raises(ab.SelectDrained):
        await running


@pytest.mark.parametrize("seconds", [0.0, 1.0])
@within
async def test_s4_all_closed_is_drained_with_after_too_however_soon_that_is(seconds):
    a, b, _ = three()
    a.send_nowait("last")
    a.close()
    either = ab.select(a, b).after(seconds)
    assert (await either).item == "last"
    assert (await either).case == "after"
    running = asyncio.ensure_future(ab.select(a, b).after(60.0).run())
    await parked(b, receivers=1)
    b.close()
    for closed in (running, either, either.run(timeout=5.0)):
        with pytest.raises(ab.SelectDrained):
            await closed
    with pytest.raises(ab.SelectDrained):
        await asyncio.to_thread(either.run_blocking)
    assert (await either.default()).case == "default"
    assert (await ab.select().after(seconds)).case == "after"


@within
async def test_s4_f11_a_channel_that_failed_is_not_one_that_has_ended():
    a, b, _ = three()
    b.close(OSError("torn"))
    with pytest.raises(OSError, match="torn") as failed:
        await ab.select(a, b)
    assert failed.value.__notes__ == ["anabranch: in channel 'b' of 'select'"]
    a.send_nowait(1)
    assert (await ab.select(a, b)).item == 1


def test_s5_s7_a_timeout_is_by_the_clock_and_begins_with_each_run():
    async def main():
        loop = asyncio.get_running_loop()
        a, b, _ = three()
        either = ab.select(a, b)
        times = []
        for _ in range(2):
            with pytest.raises(ab.HandlerTimeout) as late:
                await either.run(timeout=5.0)
            assert (late.value.code, late.value.timeout) == ("timeout", 5.0)
            times.append(loop.time())
        after = either.after(2.0, lambda: "late")
        await asyncio.sleep(10.0)
        for _ in range(2):
            assert (await after).value == "late"
            times.append(loop.time())
        a.send_nowait(1)
        # At once, also where something is ready.
        with pytest.raises(ab.HandlerTimeout):
            await either.run(timeout=0)
        assert (await after).item == 1
        return times

    assert ab.testing.run(main()) == [5.0, 10.0, 22.0, 24.0]


@within
async def test_s5_a_cancel_is_looked_at_first():
    a, _, _ = three()
    a.send_nowait(1)
    stop = ab.Cancel()
    ctx = ab.Context("job", cancel=stop)
    stop.cancel("closing time")
    with pytest.raises(ab.Cancelled, match="closing time"):
        await ab.select(a).default().run(timeout=0, ctx=ctx)
    assert a.depth == 1


@within
async def test_s5_f10_cancelled_while_waiting_it_has_taken_nothing():
    a, b, _ = three()
    stop = ab.Cancel()
    by_context = asyncio.ensure_future(ab.select(a, b).run(ctx=ab.Context("job", cancel=stop)))
    by_task = asyncio.ensure_future(ab.select(a, b).run())
    await parked(a, receivers=2)
    stop.cancel("enough")
    with pytest.raises(ab.Cancelled):
        await by_context
    # It is promised one, and has not come for it.
    a.send_many_nowait([1, 2])
    by_task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await by_task
    assert drained(a) == [1, 2]
    assert (a.stats().receivers, b.stats().receivers) == (0, 0)


def test_s5_in_a_thread_too():
    a, b, _ = three()
    with pytest.raises(ab.HandlerTimeout):
        ab.select(a, b).run_blocking(timeout=0.01)
    assert ab.select(a).after(0.01).run_blocking().case == "after"
    stop = ab.Cancel()
    ctx = ab.Context("job", cancel=stop)
    waiting = in_thread(ab.select(a, b).run_blocking, ctx=ctx)
    asyncio.run(parked(b, receivers=1))
    stop.cancel("enough")
    with pytest.raises(ab.Cancelled):
        waiting.result(DEADLINE)
    waiting = in_thread(ab.select(a, b).run_blocking)
    asyncio.run(parked(b, receivers=1))
    b.send_nowait("item")
    assert waiting.result(DEADLINE).item == "item"


@within
async def test_c1_what_a_handler_did_is_undone_if_it_fails():
    a, _, _ = three()
    a.send_many_nowait([1, 2])
    undone = []

    async def handle(item, ctx):
        ctx.compensate(undone.append, item)
        if item == 2:
            raise ValueError(item)
        return -item

    either = ab.select().on(a, handle)
    assert (await either).value == -1
    with pytest.raises(ValueError, match="2"):
        await either
    assert undone == [2]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ab.select(1), r"readers\[0\] must be a Channel, got 1"),
        (lambda: ab.select().on("a"), "reader must be a Channel, got 'a'"),
        (lambda: ab.select().on(ab.Channel(), 1), "handler must be a callable"),
        (lambda: ab.select().on(ab.Channel(), lambda: 1), "handler must be a callable that takes"),
        (lambda: ab.select().on(ab.Channel(), priority="a"), "priority must be an int, got 'a'"),
        (lambda: ab.select(fair=1), "fair must be True or False, got 1"),
        (lambda: ab.select(fair=True).on(ab.Channel(), priority=1), "0 where fair=True, got 1"),
        (lambda: ab.select().after(-1), "seconds must be a number of seconds >= 0, got -1"),
        (lambda: ab.select().default(3), "handler must be a callable, got 3"),
    ],
)
def test_a_bad_argument_is_refused(make, said):
    with pytest.raises(ab.ConfigError, match=said):
        make()


@within
async def test_s3_what_was_selected_is_a_value():
    a, b, _ = three()
    b.send_many_nowait([1, 1])
    either = ab.select(a, b)
    chosen, again = await either, await either
    match chosen:
        case ab.Selected(case=1, item=item):
            assert item == 1
        case _:
            pytest.fail(f"no match: {chosen!r}")
    assert chosen == again
    assert hash(chosen) == hash(again)
    assert repr(chosen) == f"Selected(case=1, reader={b!r}, item=1, value=1)"
    with pytest.raises(AttributeError):
        chosen.item = 2
