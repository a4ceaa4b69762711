"""Woven passes: the callables before a sequential `async def` sink run in a coroutine with it.

Nothing of it shows: these pipelines behave as those with a generated pass do.
"""

import asyncio
import traceback

import pytest
from support import balanced, every_driver, go, within

import anabranch as ab


def failing(bad, error=ValueError):
    def call(n):
        if n == bad:
            raise error(n)
        return n

    return call


@every_driver
def test_t13_an_exception_loses_nothing_and_runs_nothing_twice(driver):
    log, seen = [], []

    def first(n):
        log.append(n)
        if n % 10 == 3:
            raise ValueError(n)
        return n

    async def sink(n):
        if n % 10 == 7:
            raise KeyError(n)
        seen.append(n)

    pipeline = ab.Pipeline("p").source(range(5000)).map(first).filter(lambda n: n % 10 != 5)
    report = balanced(go(pipeline.for_each(sink), driver))
    assert log == list(range(5000))
    assert seen == [n for n in range(5000) if n % 10 not in (3, 5, 7)]
    assert report.codes == {"ValueError": 500, "KeyError": 500}
    assert (report.committed, report.filtered, report.failed) == (3500, 500, 1000)


@every_driver
def test_t13_the_failing_stage_is_named_and_its_line_is_shown(driver):
    async def sink(n):
        failing(4)(n)

    pipeline = ab.Pipeline("p").source([1, 2, 3, 4, 5]).map(failing(1), name="one")
    pipeline = pipeline.filter(failing(2), name="two").tap(failing(3), name="three")
    report = balanced(go(pipeline.for_each(sink, name="four"), driver))
    assert [(it.stage, it.error.args) for it in report.failures] == [
        ("one", (1,)),
        ("two", (2,)),
        ("three", (3,)),
        ("four", (4,)),
    ]
    shown = "".join(traceback.format_exception(report.failures[1].error))
    assert "if not two(v1): filtered[0] += 1; continue" in shown
    assert "stage 'two'" in shown
    assert report.committed == 1


def test_e3_a_stop_iteration_of_a_stage_stays_one():
    async def sink(n):
        pass

    pipeline = ab.Pipeline("p").source(range(3)).map(failing(1, StopIteration))
    report = balanced(go(pipeline.for_each(sink)))
    assert report.codes == {"StopIteration": 1}
    assert report.committed == 2


def test_e3_a_runtime_error_of_the_users_own_stays_one():
    def stops():
        raise StopIteration

    def parse(n):
        # Python makes a RuntimeError of what this generator raises.
        return sum(stops() for _ in range(1)) if n == 1 else n

    async def sink(n):
        if n == 2:
            try:
                next(iter(()))
            except StopIteration as stop:
                raise RuntimeError("nothing there") from stop

    pipeline = ab.Pipeline("p").source([1, 2, 3]).map(parse).for_each(sink)
    report = balanced(go(pipeline))
    assert [(it.code, it.stage) for it in report.failures] == [
        ("RuntimeError", "parse"),
        ("RuntimeError", "sink"),
    ]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@every_driver
def test_e4_what_ends_the_process_is_no_failure(driver, error):
    seen = []

    async def sink(n):
        seen.append(n)

    pipeline = ab.Pipeline("p").source(range(1000)).map(failing(20, error)).for_each(sink)
    with pytest.raises(error):
        go(pipeline, driver)
    report = balanced(pipeline.last_report)
    assert seen == list(range(20))
    assert (report.committed, report.failed) == (20, 0)


@within
async def test_e2_an_abort_in_the_middle_leaves_the_rest():
    begun = asyncio.Event()

    async def sink(n):
        if n == 6:
            begun.set()
            await asyncio.Event().wait()

    pipeline = ab.Pipeline("p").source(range(100)).filter(lambda n: n % 2 == 0).for_each(sink)
    async with pipeline.start() as running:
        await begun.wait()
        running.abort()
        report = balanced(await running.wait())
    assert report.codes == {"cancelled": 1}
    assert (report.committed, report.filtered) == (3, 3)
    assert report.left == 100 - 7


@within
async def test_t8_a_drain_in_the_middle_finishes_what_was_taken():
    begun, on, seen = asyncio.Event(), asyncio.Event(), []

    async def sink(n):
        begun.set()
        await on.wait()
        seen.append(n)

    pipeline = ab.Pipeline("p").source(iter(range(10**9))).map(failing(None)).for_each(sink)
    async with pipeline.start() as running:
        await begun.wait()
        running.drain()
        on.set()
        report = balanced(await running.wait())
    assert (report.outcome, report.failed, report.left) == ("drained", 0, 0)
    assert seen == list(range(report.received))


@every_driver
def test_t12_a_stage_that_takes_ctx_is_given_it(driver):
    seen = []

    async def sink(told):
        seen.append(told)

    pipeline = ab.Pipeline("p").source([1, 2]).map(lambda n, ctx: (n, ctx.stage), name="tell")
    assert balanced(go(pipeline.for_each(sink), driver)).committed == 2
    assert seen == [(1, "tell"), (2, "tell")]
