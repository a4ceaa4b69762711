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
