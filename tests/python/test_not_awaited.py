"""An `async def` that nobody can see: what a `def` returns is awaited, or the item fails; T9."""

import asyncio
import functools

import pytest
from support import balanced, every_driver, go

import anabranch as ab


async def answer(n):
    return n % 2


async def children(n):
    return [n, n]


def call(n):
    return answer(n)


def hidden(fn):
    """Decorate as many do: what comes out is a `def` that returns a coroutine."""

    @functools.wraps(fn)
    def outer(*args):
        return fn(*args)

    return outer


STAGES = {
    "map": lambda p, fn: p.map(fn, name="it"),
    "filter": lambda p, fn: p.filter(fn, name="it"),
    "tap": lambda p, fn: p.tap(fn, name="it"),
    "ensure": lambda p, fn: p.ensure(fn, name="it"),
    "flat_map": lambda p, fn: p.flat_map(fn, name="it"),
    "scan": lambda p, fn: p.scan(lambda state, n: fn(n), 0, name="it"),
    "distinct": lambda p, fn: p.distinct(fn, name="it"),
    "fan_out": lambda p, fn: p.fan_out(by=fn, name="it").map(lambda n: n),
}


def staged(kind, fn, *, tracked=False, behind=False):
    pipeline = ab.Pipeline("p").source(range(500))
    if tracked:
        pipeline = pipeline.tap(lambda n, ctx: None, name="look")
    if behind:
        pipeline = pipeline.fan_out(by=lambda n: n % 3)
    return STAGES[kind](pipeline, fn)


@pytest.mark.parametrize("fn", [hidden(answer), call])
@pytest.mark.parametrize("tracked", [False, True])
@pytest.mark.parametrize("kind", STAGES)
@every_driver
def test_t9_no_item_passes_a_def_whose_coroutine_nobody_awaits(driver, kind, tracked, fn):
    report = balanced(go(staged(kind, fn, tracked=tracked).collect(), driver))
    assert report.items == []
    assert report.codes == {"callable.not_awaited": 500}
    failure = report.failures[0]
    assert (failure.stage, type(failure.error)) == ("it", ab.NotAwaited)
    assert "answer" in str(failure.error)
    assert "pass the async def itself" in str(failure.error)


@pytest.mark.parametrize("kind", ["map", "filter", "tap", "ensure", "flat_map", "scan"])
@every_driver
def test_t9_nor_behind_the_fan_out(driver, kind):
    report = balanced(go(staged(kind, hidden(answer), behind=True).collect(), driver))
    assert report.codes == {"callable.not_awaited": 500}
    assert sorted(it.failed for it in report.branches) == [166, 167, 167]


@pytest.mark.parametrize("kind", ["map", "filter", "tap"])
@every_driver
def test_t9_nor_on_the_way_to_an_async_sink(driver, kind):
    taken = []

    async def sink(n):
        taken.append(n)

    report = balanced(go(staged(kind, hidden(answer)).for_each(sink), driver))
    assert taken == []
    assert report.codes == {"callable.not_awaited": 500}
    assert {failure.stage for failure in report.failures} == {"it"}


def test_t9_a_future_is_no_answer_of_a_filter_but_may_be_an_item():
    async def main(kind):
        loop = asyncio.get_running_loop()
        futures = []

        def future(n):
            futures.append(loop.create_future())
            futures[-1].set_result(n % 2)
            return futures[-1]

        async def sink(it):
            assert it is futures[0]

        pipeline = STAGES[kind](ab.Pipeline("p").source([1]), future)
        return balanced(await pipeline.for_each(sink).run())

    assert asyncio.run(main("filter")).codes == {"callable.not_awaited": 1}
    assert asyncio.run(main("map")).committed == 1


@every_driver
def test_t9_a_stage_that_calls_alone_awaits_what_a_def_returns(driver):
    retry = ab.Retry.fixed(0, attempts=2)
    pipeline = ab.Pipeline("p").source(range(4))
    pipeline = pipeline.ensure(hidden(answer), retry=retry).tap(hidden(answer), retry=retry)
    pipeline = pipeline.filter(hidden(answer), retry=retry).map(hidden(answer), retry=retry)
    report = balanced(go(pipeline.flat_map(hidden(children), retry=retry).collect(), driver))
    assert report.items == [1, 1, 1, 1]
    assert report.codes == {"ensure.failed": 2}


@every_driver
def test_t9_a_recovered_item_is_awaited(driver):
    async def cure(failure):
        return failure.item

    pipeline = ab.Pipeline("p").source([1, 0]).map(lambda n: 1 // n).recover(hidden(cure))
    assert balanced(go(pipeline.collect(), driver)).items == [1, 0]


@every_driver
def test_t9_a_source_may_bring_what_an_async_sink_awaits(driver):
    taken = []

    async def sink(coroutine):
        taken.append(await coroutine)

    balanced(go(ab.Pipeline("p").source([answer(1), answer(2)]).for_each(sink), driver))
    assert taken == [1, 0]


# By hand, in a thread.


def channel_of(*items):
    channel = ab.Channel(10)
    channel.send_many_nowait(items)
    channel.close()
    return channel


def test_t9_a_handler_in_a_thread_whose_coroutine_nobody_awaits_has_failed():
    log = []

    def handle(n, ctx):
        ctx.compensate(log.append, "undone")
        return answer(n)

    source = ab.Source(channel_of(1, 2), nack=lambda item, error: log.append((item, type(error))))
    with pytest.raises(ab.NotAwaited, match="'handle' has returned a coroutine"):
        ab.fan_in_blocking([source], handle)
    assert (log, source.reader.depth) == (["undone", (1, ab.NotAwaited)], 1)


@pytest.mark.parametrize("told", ["ack", "close"])
def test_t9_f17_nor_does_a_source_take_what_it_is_told_by_for_done(told):
    source = ab.Source(channel_of(1), **{told: lambda *_: answer(1)})
    with pytest.raises(ab.NotAwaited, match="'lambda' has returned a coroutine"):
        ab.fan_in_blocking([source], print)


@pytest.mark.parametrize("told", ["ack", "nack", "close"])
def test_t9_what_a_thread_cannot_await_is_refused_by_its_name(told):
    async def told_by(*_):
        pass

    source = ab.Source(channel_of(1), name="mail", **{told: told_by})
    with pytest.raises(ab.ConfigError, match=f"{told} of 'mail' must be no async def"):
        ab.fan_in_blocking([source], print)
    assert source.reader.depth == 1


@pytest.mark.parametrize("threaded", [False, True])
def test_f17_what_a_nack_raises_is_noted_on_the_error_that_came_first(threaded, caplog):
    def nack(*_):
        raise OSError("the broker is gone")

    source = ab.Source(channel_of(1), name="mail", nack=nack)
    with pytest.raises(ZeroDivisionError) as told:
        if threaded:
            ab.fan_in_blocking([source], lambda n: n / 0)
        else:
            ab.testing.run(ab.fan_in([source], lambda n: n / 0))
    noted = "nack of source 'mail' raised OSError('the broker is gone')"
    assert any(noted in line for line in told.value.__notes__)
    assert "never retrieved" not in caplog.text


def test_t9_nor_is_a_coroutine_what_a_select_has_come_to():
    reader = channel_of(1)
    with pytest.raises(ab.NotAwaited, match="'call' has returned a coroutine"):
        ab.select().on(reader, call).run_blocking()


# Keys and hooks.


def routed(reader, **options):
    async def main():
        async with ab.fan_out(reader, **{"by": lambda n: n, **options}) as branches:
            await branches.finished()
            return tuple(branches)

    return ab.testing.run(main())


@pytest.mark.parametrize("options", [{"by": call}, {"on_new_branch": lambda _, to: answer(1)}])
def test_t9_a_fan_out_by_hand_routes_by_no_coroutine_and_runs_no_hook_in_vain(options):
    reader = channel_of(1)
    with pytest.raises(ab.NotAwaited, match="answer"):
        routed(reader, **options)
    assert reader.depth == 1


def test_t12_a_key_by_hand_may_be_a_result():
    assert routed(channel_of(1, 2, 3), by=lambda n: ab.Ok(n % 2)) == (1, 0)
    with pytest.raises(ab.ResultError, match="no tenant"):
        routed(channel_of(1), by=lambda _: ab.Err("no.tenant", "no tenant"))


@every_driver
def test_t9_b3_a_hook_of_branches_is_not_run_in_vain(driver, caplog):
    pipeline = ab.Pipeline("p").source([1, 2])
    opened = pipeline.fan_out(by=lambda n: n, on_new_branch=call)
    assert go(opened.collect(), driver).codes == {"callable.not_awaited": 2}
    closed = pipeline.fan_out(by=lambda n: n, on_branch_closed=call)
    assert go(closed.collect(), driver).committed == 2
    assert "on_branch_closed raised" in caplog.text
