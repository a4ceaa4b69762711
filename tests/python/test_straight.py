"""Items taken straight from a ready source into the hands of the one worker that handles them.

Nothing of it shows but the speed: these pipelines behave as those whose items wait in a queue.
"""

import asyncio

import pytest
from support import balanced, every_driver, go

import anabranch as ab

# More than the first, cautious pulls and batches take.
MANY = 5000


def numbers(n, *, then=None):
    yield from range(n)
    if then is not None:
        raise then


@every_driver
def test_f2_each_item_is_handled_once_and_in_order(driver):
    seen = []

    async def sink(n):
        seen.append(n)

    report = balanced(go(ab.Pipeline("p").source(numbers(MANY)).for_each(sink), driver))
    assert seen == list(range(MANY))
    assert (report.received, report.committed) == (MANY, MANY)


@every_driver
def test_w12_what_came_before_a_fault_of_the_source_is_handled(driver):
    seen = []

    async def sink(n):
        seen.append(n)

    source = numbers(MANY, then=OSError("gone"))
    report = balanced(go(ab.Pipeline("p").source(source).for_each(sink), driver))
    assert seen == list(range(MANY))
    assert report.outcome == "failed"
    assert list(report.codes) == ["source.failed"]


@every_driver
def test_e4_a_source_that_ends_the_process_does_so_after_what_it_brought(driver):
    seen = []

    async def sink(n):
        seen.append(n)

    pipeline = ab.Pipeline("p").source(numbers(MANY, then=SystemExit(3))).for_each(sink)
    with pytest.raises(SystemExit):
        go(pipeline, driver)
    report = balanced(pipeline.last_report)
    assert seen == list(range(report.committed))


@every_driver
def test_r1_an_item_that_is_tried_again_is_not_overtaken(driver):
    seen, failed = [], set()

    async def sink(n):
        if n % 1000 == 999 and n not in failed:
            failed.add(n)
            raise OSError(n)
        seen.append(n)

    retry = ab.Retry.fixed(attempts=2, delay=0)
    pipeline = ab.Pipeline("p").source(numbers(MANY)).for_each(sink, retry=retry)
    report = balanced(go(pipeline, driver))
    assert seen == list(range(MANY))
    assert report.retried == 5


def test_e5_a_drain_ends_the_intake_and_finishes_what_is_in_hand():
    running = None

    def endless():
        n = 0
        while True:
            yield n
            n += 1

    seen = []

    async def sink(n):
        seen.append(n)
        if n == MANY:
            running.drain()

    pipeline = ab.Pipeline("p").source(endless()).for_each(sink)

    async def main():
        nonlocal running
        async with pipeline.start() as running:
            return await running.wait()

    report = balanced(asyncio.run(main()))
    assert report.outcome == "drained"
    assert report.left == 0
    assert seen == list(range(report.received))
    # What was in hand, and what was brought in while the request was on its way.
    assert len(seen) <= MANY + 2000


def test_e5_an_abort_gives_up_what_is_in_hand():
    running = None
    seen = []

    async def sink(n):
        seen.append(n)
        if n == MANY:
            running.abort()
            await asyncio.get_running_loop().create_future()

    pipeline = ab.Pipeline("p").source(numbers(MANY * 2)).for_each(sink)

    async def main():
        nonlocal running
        async with pipeline.start() as running:
            return await running.wait()

    report = balanced(asyncio.run(main()))
    assert report.outcome == "aborted"
    assert seen == list(range(MANY + 1))
    assert report.committed == MANY
    assert report.committed + report.failed + report.left == report.received
