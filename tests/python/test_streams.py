"""What a pipeline does with failures and sources: on_error, closing, every kind of source."""

import asyncio
import signal
import traceback

import pytest
from support import (
    Seen,
    balanced,
    every_driver,
    every_sink,
    every_way,
    go,
    with_sink,
    within,
)

import anabranch as ab


def halves(n):
    return 12 // n


@every_way
def test_t4_continue_goes_on_after_a_failure_in_any_stage(driver, kind):
    def refuse(bad, result=None):
        def call(n):
            if n == bad:
                raise ValueError(bad)
            return n if result is None else result

        return call

    def sink(unit, ctx):
        if unit == 5:
            raise ValueError(5)

    pipeline = ab.Pipeline("p", on_error="continue").source(range(10)).map(refuse(1))
    pipeline = pipeline.filter(refuse(2, result=True)).tap(refuse(3)).fan_out(by=refuse(4, "all"))
    report = balanced(go(with_sink(pipeline, kind, sink), driver))
    assert (report.outcome, report.committed, report.codes) == ("completed", 5, {"ValueError": 5})
    assert sorted(failure.error.args[0] for failure in report.failures) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("where", ["map", "filter", "tap", "key", "async map", "sink"])
@every_way
def test_t4_stop_takes_in_no_more_and_fails(driver, kind, where):
    def bad(n):
        if n == 100:
            raise ValueError(n)
        return n

    async def bad_async(n):
        return bad(n)

    def source():
        yield from range(1_000_000)

    pipeline = ab.Pipeline("p", on_error="stop").source(source())
    if where == "key":
        pipeline = pipeline.fan_out(by=lambda n: bad(n) and 1)
    elif where == "async map":
        pipeline = pipeline.map(bad_async)
    elif where != "sink":
        pipeline = getattr(pipeline, where)(bad)
    sink = bad if where == "sink" else lambda n: None
    pipeline = with_sink(pipeline, kind, lambda unit, ctx: sink(unit))
    report = balanced(go(pipeline, driver))
    assert (report.outcome, report.codes) == ("failed", {"ValueError": 1})
    assert report.received < 10_000
    assert not report.ok


@every_way
def test_t4_stop_undoes_what_is_inside(driver, kind):
    undone = []

    def register(n, ctx):
        ctx.compensate(undone.append, n)
        return n

    def sink(unit, ctx):
        raise ValueError(unit)

    pipeline = ab.Pipeline("p", on_error="stop").source([1, 2, 3]).map(register)
    pipeline = pipeline.window(max_items=1)
    report = balanced(go(with_sink(pipeline, kind, sink), driver))
    assert sorted(undone) == list(range(1, report.received + 1))
    assert report.failed == 1
    assert report.committed == 0


class Tracked:
    """An iterator that remembers being closed."""

    def __init__(self, items):
        self._items = iter(items)
        self.closed = 0

    def __iter__(self):
        return self

    def __next__(self):
        return next(self._items)

    def close(self):
        self.closed += 1


def generated(items, log):
    try:
        yield from items
    finally:
        log.append("closed")


async def generated_async(items, log):
    try:
        for item in items:
            yield item
    finally:
        # Closing may need the loop.
        await asyncio.sleep(0)
        log.append("closed")


def gave_up(items):
    yield from items
    raise OSError("the source")


@pytest.mark.parametrize("make", [generated, generated_async])
@pytest.mark.parametrize("items", [tuple, lambda: range(1000), lambda: gave_up(range(5))])
@every_way
def test_t8_a_generator_is_closed_when_it_is_done(driver, kind, items, make):
    log = []
    source = make(items(), log)
    pipeline = with_sink(ab.Pipeline("p").source(source), kind, lambda unit, ctx: None)
    report = balanced(go(pipeline, driver))
    assert log == ["closed"]
    assert report.outcome == ("failed" if report.failures else "completed")


@pytest.mark.parametrize("make", [generated, generated_async])
@every_way
def test_t8_a_generator_is_closed_after_a_failure_that_stops(driver, kind, make):
    def sink(unit, ctx):
        raise ValueError

    log = []
    source = make(range(1_000_000), log)
    go(with_sink(ab.Pipeline("p", on_error="stop").source(source), kind, sink), driver)
    assert log == ["closed"]


@pytest.mark.parametrize("make", [generated, generated_async])
@pytest.mark.parametrize("fatal", [KeyboardInterrupt, SystemExit])
@every_way
def test_t8_a_generator_is_closed_when_the_process_is_to_end(driver, kind, fatal, make):
    def sink(unit, ctx):
        if unit == 5:
            raise fatal

    log = []
    source = make(range(1_000_000), log)
    with pytest.raises(fatal):
        go(with_sink(ab.Pipeline("p").source(source), kind, sink), driver)
    assert log == ["closed"]


@pytest.mark.parametrize("make", [generated, generated_async])
@pytest.mark.parametrize("way", ["drain", "abort", "error", "leave", "cancel"])
@every_sink
@within
async def test_t8_a_generator_is_closed_when_it_is_stopped(kind, way, make):
    log, seen = [], Seen()

    def endless():
        while True:
            yield 1

    pipeline = ab.Pipeline("p", grace=0.5).source(make(endless(), log))
    pipeline = with_sink(pipeline, kind, lambda unit, ctx: seen(unit))
    if way == "cancel":
        task = asyncio.create_task(pipeline.run())
        await seen.reach(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        try:
            async with pipeline.start() as running:
                await seen.reach(1)
                if way == "error":
                    raise LookupError
                if way != "leave":
                    getattr(running, way)()
        except LookupError:
            pass
    assert log == ["closed"]
    balanced(pipeline.last_report)


@every_driver
def test_t8_any_iterator_with_a_close_is_closed_once(driver):
    source = Tracked([1, 2, 3])
    assert go(ab.Pipeline("p").source(source).collect(), driver).items == [1, 2, 3]
    assert source.closed == 1


@every_driver
def test_t8_a_close_that_raises_costs_nothing(driver, caplog):
    class Broken(Tracked):
        def close(self):
            raise OSError("cannot close")

    report = go(ab.Pipeline("p").source(Broken([1, 2])).collect(), driver)
    assert report.items == [1, 2]
    assert "pipeline 'p', stage 'Broken': closing the source raised" in caplog.text


@every_driver
def test_t8_an_aclose_that_raises_costs_nothing(driver, caplog):
    class Broken(TrackedAsync):
        async def aclose(self):
            raise OSError("cannot close")

    report = go(ab.Pipeline("p").source(Broken([1, 2])).collect(), driver)
    assert report.items == [1, 2]
    assert "pipeline 'p', stage 'Broken': closing the source raised" in caplog.text


@pytest.mark.parametrize("how", ["take", "drain"])
@every_driver
def test_t8_a_generator_that_raises_when_it_is_closed_costs_nothing(driver, how, caplog):
    undone = []

    async def source():
        try:
            for n in range(100):
                yield n
                # Where the stop finds it.
                await asyncio.sleep(0 if n < 2 else 3600)
        finally:
            raise OSError("cannot close")

    def register(n, ctx):
        ctx.compensate(undone.append, n)
        if how == "drain" and n == 2:
            signal.raise_signal(signal.SIGTERM)
        return n

    pipeline = ab.Pipeline("p", commit="end").source(source()).map(register)
    pipeline = pipeline.take(3) if how == "take" else pipeline
    report = balanced(go(pipeline.collect(), driver))
    assert (report.outcome, report.items) == (
        "drained" if how == "drain" else "completed",
        [0, 1, 2],
    )
    assert (report.codes, undone) == ({}, [])
    assert "pipeline 'p', stage 'source': closing the source raised" in caplog.text


@pytest.mark.parametrize("fatal", [KeyboardInterrupt, SystemExit])
@every_driver
def test_e4_an_iter_may_end_the_process(driver, fatal):
    class Out(list):
        def __iter__(self):
            raise fatal("out")

    pipeline = ab.Pipeline("p").source(Out()).collect()
    with pytest.raises(fatal, match="out"):
        go(pipeline, driver)
    assert balanced(pipeline.last_report).outcome == "aborted"


@pytest.mark.parametrize("answer", [OSError("no such thing"), 3])
@every_driver
def test_t9_a_source_that_cannot_be_iterated_has_failed(driver, answer):
    class Broken:
        def __iter__(self):
            if isinstance(answer, OSError):
                raise answer
            return answer

    report = balanced(go(ab.Pipeline("p").source(Broken()).collect(), driver))
    (failure,) = report.failures
    assert (report.outcome, failure.code, failure.stage) == ("failed", "source.failed", "Broken")
    assert isinstance(failure.error, OSError if isinstance(answer, OSError) else TypeError)
    names = [frame.name for frame in traceback.extract_tb(failure.error.__traceback__)]
    assert ("__iter__" in names) == isinstance(answer, OSError)


class TrackedAsync(Tracked):
    """The same, async."""

    def __aiter__(self):
        return self

    async def __anext__(self):
        for item in self._items:
            return item
        raise StopAsyncIteration

    async def aclose(self):
        self.closed += 1


@pytest.mark.parametrize("stops", [False, True])
@every_driver
def test_t8_any_async_iterator_with_an_aclose_is_closed_once(driver, stops):
    def sink(number):
        if stops:
            raise ValueError(number)

    # Not a generator: a loop that ends would close that one itself.
    source = TrackedAsync(range(100_000 if stops else 3))
    pipeline = ab.Pipeline("p", on_error="stop").source(source).for_each(sink, inline=True)
    report = balanced(go(pipeline, driver))
    assert report.outcome == ("failed" if stops else "completed")
    assert source.closed == 1


@pytest.mark.parametrize("make", [list, tuple, set, iter, lambda it: dict.fromkeys(it).keys()])
@every_driver
def test_t9_every_iterable_is_a_source(driver, make):
    assert sorted(go(ab.Pipeline("p").source(make(range(500))).collect(), driver).items) == list(
        range(500)
    )


def test_t9_an_object_with_getitem_alone_is_a_source():
    class Old:
        def __getitem__(self, index):
            if index >= 3:
                raise IndexError
            return index * 10

    assert ab.Pipeline("p").source(Old()).collect().run_blocking().items == [0, 10, 20]


@every_driver
def test_t9_an_async_iterable_is_a_source(driver):
    class Source:
        def __init__(self):
            self.at = 0

        def __aiter__(self):
            return self

        async def __anext__(self):
            if self.at == 1000:
                raise StopAsyncIteration
            self.at += 1
            return self.at

    report = balanced(go(ab.Pipeline("p").source(Source()).collect(), driver))
    assert report.items == list(range(1, 1001))
