"""The builder's operators at work: on_error, closing of sources, every kind of callable, ctx."""

import asyncio
import functools
import inspect

import pytest
from support import (
    Live,
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
    assert "closing the source raised" in caplog.text


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


class Callables:
    """One behaviour, `fn(n, factor=1) -> n * 10 * factor`, as each kind of callable."""

    def method(self, n, factor=1):
        return n * 10 * factor

    async def method_async(self, n, factor=1):
        await asyncio.sleep(0)
        return n * 10 * factor

    @classmethod
    def of_class(cls, n):
        return n * 10

    @staticmethod
    async def static_async(n):
        return n * 10


class Callable:
    def __call__(self, n):
        return n * 10


class AsyncCallable:
    async def __call__(self, n):
        return n * 10


KINDS = {
    "def": lambda n: n * 10,
    "method": Callables().method,
    "async method": Callables().method_async,
    "class method": Callables.of_class,
    "async static": Callables.static_async,
    "object": Callable(),
    "async object": AsyncCallable(),
    "partial": functools.partial(Callables().method, factor=1),
    "async partial": functools.partial(Callables().method_async, factor=1),
    "partial of partial": functools.partial(functools.partial(Callables().method_async), factor=1),
    "builtin": [0, 10, 20, 30].__getitem__,
}


@pytest.mark.parametrize("name", KINDS)
@every_driver
def test_t9_every_kind_of_callable_maps(driver, name):
    report = balanced(go(ab.Pipeline("p").source([1, 2, 3]).map(KINDS[name]).collect(), driver))
    assert report.items == [10, 20, 30]


class Noticing:
    """A number that notes when one of `KINDS` takes it."""

    def __init__(self, number, log):
        self.number = number
        self.log = log

    def __mul__(self, factor):
        return self.__index__() * factor

    def __index__(self):
        self.log.append(self.number)
        return self.number


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("operator", ["filter", "tap", "for_each"])
@every_driver
def test_t9_every_kind_of_callable_is_called_by_every_operator(driver, operator, name):
    log = []
    items = [Noticing(number, log) for number in range(4)]
    pipeline = getattr(ab.Pipeline("p").source(items), operator)(KINDS[name])
    pipeline = pipeline if operator == "for_each" else pipeline.collect()
    report = balanced(go(pipeline, driver))
    assert log == [0, 1, 2, 3]
    # What a filter is given back is 0 for the first.
    filtered = int(operator == "filter")
    assert (report.committed, report.filtered, report.failed) == (4 - filtered, filtered, 0)


class Examined:
    """A callable that counts how often its signature is looked at."""

    def __init__(self):
        self.looks = 0

    @property
    def __signature__(self):
        self.looks += 1
        return inspect.signature(self.__call__)

    def __call__(self, item, ctx):
        return [item]


@pytest.mark.parametrize("operator", ["map", "filter", "flat_map", "tap", "for_each"])
@every_driver
def test_t9_t12_a_callable_is_examined_once_at_build(driver, operator):
    fn = Examined()
    pipeline = getattr(ab.Pipeline("p").source(range(10)), operator)(fn)
    pipeline = pipeline if operator == "for_each" else pipeline.collect()
    looks = fn.looks
    assert looks > 0
    assert balanced(go(pipeline, driver)).committed == 10
    assert fn.looks == looks


def many(n):
    return [n] * n


def many_generated(n):
    yield from many(n)


async def many_async(n):
    return many(n)


async def many_async_generated(n):
    for each in many(n):
        yield each


@pytest.mark.parametrize("fn", [many, many_generated, many_async, many_async_generated])
@every_driver
def test_t9_flat_map_takes_functions_that_return_and_that_yield(driver, fn):
    report = balanced(go(ab.Pipeline("p").source([0, 1, 2, 3]).flat_map(fn).collect(), driver))
    assert report.items == [1, 2, 2, 3, 3, 3]
    assert (report.received, report.produced, report.filtered) == (4, 3, 1)


@every_way
def test_t12_ctx_comes_by_name_to_every_callable(driver, kind):
    contexts = []

    def note(n, *, ctx):
        contexts.append((ctx.pipeline, ctx.stage, ctx.tenant, ctx.attempt, ctx.window))
        return n

    async def note_async(n, ctx):
        return note(n, ctx=ctx)

    pipeline = ab.Pipeline("p").source([7]).map(note, name="one").map(note_async, name="two")
    pipeline = pipeline.fan_out(by=lambda n: "acme").tap(note, name="three")
    balanced(go(with_sink(pipeline, kind, lambda n, ctx: note(n, ctx=ctx), name="four"), driver))
    assert contexts == [
        ("p", "one", None, 1, None),
        ("p", "two", None, 1, None),
        ("p", "three", "acme", 1, None),
        ("p", "four", "acme", 1, None),
    ]


OPERATORS = ["map", "filter", "flat_map", "tap", "for_each"]


@pytest.mark.parametrize(
    ("operator", "asynchronous"),
    [("fan_out", False), *((name, how) for name in OPERATORS for how in (False, True))],
)
@every_driver
def test_t12_every_operator_passes_ctx(driver, operator, asynchronous):
    seen = []

    def call(n, ctx):
        seen.append((ctx.pipeline, ctx.stage, n))
        return (n,)

    async def call_async(n, ctx):
        return call(n, ctx)

    fn = call_async if asynchronous else call
    pipeline = ab.Pipeline("p").source([1, 2])
    if operator == "fan_out":
        pipeline = pipeline.fan_out(by=fn, name="it")
    else:
        pipeline = getattr(pipeline, operator)(fn, name="it")
    pipeline = pipeline if operator == "for_each" else pipeline.collect()
    report = balanced(go(pipeline, driver))
    assert (report.codes, report.committed) == ({}, 2)
    assert seen == [("p", "it", 1), ("p", "it", 2)]


@every_way
def test_t12_a_sinks_result_is_ignored(driver, kind):
    results = iter([0, False, "error", ValueError("not raised"), [1]])
    pipeline = ab.Pipeline("p").source(range(5))
    report = balanced(go(with_sink(pipeline, kind, lambda unit, ctx: next(results)), driver))
    assert (report.committed, report.failed) == (5, 0)


@every_sink
@within
async def test_t12_ctx_tells_of_an_abort(kind):
    source, seen, told = Live(1), Seen(), Live()
    before = []

    def handler(unit, ctx):
        before.append(ctx.cancelled)
        told.put(ctx)
        seen(unit)

    async with with_sink(ab.Pipeline("p").source(source), kind, handler).start() as running:
        await seen.reach(1)
        running.abort()
        await running.wait()
    assert before == [False]
    told.end()
    assert [ctx.cancelled async for ctx in told] == [True]
