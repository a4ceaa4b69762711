"""The builder's operators at work: every kind of callable, and ctx."""

import asyncio
import functools
import inspect

import pytest
from support import Live, Seen, balanced, every_driver, every_sink, every_way, go, with_sink, within

import anabranch as ab

OPERATORS = ["map", "filter", "flat_map", "tap", "for_each"]


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


@pytest.mark.parametrize("operator", OPERATORS)
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
