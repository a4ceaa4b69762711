"""`ab.ticker`, `ab.after`, `ab.delay` (G1, G2), on the virtual clock."""

import asyncio

import pytest

import anabranch as ab

virtual = ab.testing.virtual_time


@virtual
async def test_g1_ticks_are_at_the_multiples_of_the_period_however_long_it_ticks(clock):
    await asyncio.sleep(3.0)
    ticks = []
    async for tick in ab.ticker(0.1):
        ticks.append(tick)
        if tick.number == 10_000:
            break
    assert [tick.number for tick in ticks] == list(range(1, 10_001))
    assert all(tick.missed == 0 for tick in ticks)
    assert ticks[-1].at == 3.0 + 10_000 * 0.1
    assert clock.now() == pytest.approx(1003.0)


@virtual
async def test_g1_a_slow_reader_sees_the_latest_tick_and_how_many_it_missed(clock):
    ticker = aiter(ab.ticker(10.0))
    assert await anext(ticker) == ab.Tick(number=1, at=10.0, missed=0)
    await asyncio.sleep(25.0)  # until 35: 20 and 30 are due
    assert await anext(ticker) == ab.Tick(number=3, at=30.0, missed=1)
    assert clock.now() == 35.0
    assert await anext(ticker) == ab.Tick(number=4, at=40.0, missed=0)
    await asyncio.sleep(10.0)  # at the very instant of the next
    assert await anext(ticker) == ab.Tick(number=5, at=50.0, missed=0)


def test_g1_in_a_thread_it_goes_by_the_clock_of_its_context():
    clock = ab.testing.VirtualClock()
    ticks = []
    for tick in ab.ticker(10.0, ctx=ab.Context("c", clock=clock)):
        ticks.append((tick.number, tick.missed))
        clock.spend(25.0 if tick.number == 1 else 0.0)
        if tick.number == 4:
            break
    assert ticks == [(1, 0), (3, 1), (4, 0)]
    assert clock.now() == 40.0


@virtual
async def test_g1_a_ticker_has_one_reader_and_one_life():
    ticker = ab.ticker(10.0)
    waiting = asyncio.create_task(anext(aiter(ticker)))
    await asyncio.sleep(1.0)
    with pytest.raises(ab.ClosedError, match="one reader"):
        await anext(ticker)
    with pytest.raises(ab.ClosedError, match="make a new one"):
        aiter(ticker)
    assert (await waiting).number == 1
    ticker.stop()
    assert [tick async for tick in _rest(ticker)] == []
    with pytest.raises(ab.ClosedError, match="stopped"):
        aiter(ticker)


@virtual
async def test_g1_a_ticker_is_the_source_of_a_pipeline(clock):
    ticks = await ab.Pipeline("p").source(ab.ticker(10.0)).take(2).collect().run()
    assert [(tick.number, tick.at) for tick in ticks.items] == [(1, 10.0), (2, 20.0)]
    assert clock.now() == 20.0
    ticker, seen = ab.ticker(10.0), []
    async with ab.Pipeline("p").source(ticker).for_each(seen.append).start() as running:
        await asyncio.sleep(35.0)
        running.drain()
    assert [tick.at for tick in seen] == [30.0, 40.0, 50.0]
    # It has been read: another run would go on in the middle.
    report = await ab.Pipeline("p").source(ticker).collect().run()
    assert "make a new one" in report.failures[0].message


@virtual
async def test_g1_in_a_running_loop_a_ticker_is_not_waited_for_by_blocking_it():
    with pytest.raises(RuntimeError, match=r"would block the event loop .* `async for` instead"):
        for _ in ab.ticker(10.0):
            break


async def _rest(ticker):
    while True:
        try:
            yield await anext(ticker)
        except StopAsyncIteration:
            return


@virtual
async def test_g1_a_ticker_is_stopped_where_its_block_is_left(clock):
    with ab.ticker(10.0) as ticker:
        async for tick in ticker:
            assert tick.at == 10.0
            break
    with pytest.raises(StopAsyncIteration):
        await anext(ticker)
    assert clock.now() == 10.0


@virtual
async def test_g1_g8_a_cancel_ends_a_ticker(clock):
    cancel = ab.Cancel()
    ctx = ab.Context("c", cancel=cancel)
    seen = []
    async with ab.ErrGroup("g") as group:
        group.go(ab.after, 25.0, cancel.cancel)
        with pytest.raises(ab.Cancelled):
            async for tick in ab.ticker(10.0, ctx=ctx):
                seen += [tick.number]
    assert (seen, clock.now()) == ([1, 2], 25.0)


@virtual
async def test_g2_delay_waits_and_after_calls(clock):
    await ab.delay(5.0)
    assert clock.now() == 5.0
    assert await ab.after(5.0, clock.now) == 10.0

    async def later(ctx):
        return ctx.name

    assert await ab.after(0.0, later) == "later"


@virtual
async def test_g2_g8_a_cancelled_after_does_not_call(clock):
    cancel = ab.Cancel()
    called = []
    async with ab.WaitGroup("g", ctx=ab.Context("c")) as group:
        group.go(ab.after, 5.0, cancel.cancel)
        with pytest.raises(ab.Cancelled):
            await ab.after(60.0, lambda: called.append(1), ctx=ab.Context("d", cancel=cancel))
    assert (called, clock.now()) == ([], 5.0)


@virtual
async def test_g2_after_undoes_what_its_callable_did():
    ran = []

    def work(ctx):
        ctx.compensate(ran.append, "undone")
        raise LookupError

    with pytest.raises(LookupError):
        await ab.after(1.0, work)
    assert ran == ["undone"]
