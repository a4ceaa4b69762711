"""What the builder finds out about callables and sources: rows T9 and T12."""

import asyncio
import functools
import inspect
import io
from collections import deque
from unittest.mock import AsyncMock

import pytest

import anabranch as ab
from anabranch._callables import examine, examine_undo, is_async, name_of, source_kind


def plain(item):
    return item


async def coroutine(item):
    return item


def generator(item):
    yield item


async def async_generator(item):
    yield item
    yield item


class Handler:
    def __call__(self, item):
        return item

    def method(self, item):
        return item

    async def coroutine(self, item):
        return item

    @staticmethod
    async def static(item):
        return item

    @classmethod
    async def of_class(cls, item):
        return item

    async def partly(self, factor, item):
        return factor, item

    bound = functools.partialmethod(partly, 2)


class AsyncHandler:
    async def __call__(self, item):
        return item


class AsyncEvent(AsyncHandler):
    def __init__(self, item):
        pass


def look(fn, **options):
    return examine(fn, pipeline="p", stage="s", **options)


@pytest.mark.parametrize(
    "fn",
    [
        coroutine,
        functools.partial(coroutine),
        functools.partial(functools.partial(coroutine), item=1),
        Handler().coroutine,
        Handler().static,
        Handler.static,
        Handler.of_class,
        Handler().bound,
        functools.partial(Handler().coroutine),
        AsyncHandler(),
        functools.partial(AsyncHandler()),
        AsyncMock(),
    ],
)
def test_t9_async_callables_are_found_in_every_form(fn):
    assert is_async(fn)


@pytest.mark.parametrize(
    "fn",
    [
        plain,
        lambda item: item,
        functools.partial(plain),
        Handler(),
        Handler().method,
        # A class is called to make an instance, whatever calling the instance would do.
        AsyncEvent,
        int,
        print,
        [].append,
        str.split,
    ],
)
def test_t9_other_callables_are_not_async(fn):
    call = look(fn)
    assert not call.is_async
    assert call.fn is fn


def test_t9_an_async_generator_function_becomes_one_that_returns_its_results():
    for fn in (async_generator, functools.partial(async_generator)):
        call = look(fn, generates=True)
        assert call.is_async
        assert asyncio.run(call.fn(3)) == [3, 3]
    assert not look(generator, generates=True).is_async


@pytest.mark.parametrize("fn", [generator, async_generator, functools.partial(generator)])
def test_a_generator_function_is_refused_where_nothing_would_run_it(fn):
    with pytest.raises(ab.ConfigError, match="only flat_map takes one that yields"):
        look(fn)


def test_t12_ctx_is_found_wherever_it_can_be_passed_by_name():
    def second(item, ctx):
        return item, ctx

    def keyword(item, *, ctx):
        return item, ctx

    def later(item, other=None, ctx=None):
        return item, ctx

    def after_more(connection, item, ctx):
        return item, ctx

    class Object:
        def __call__(self, item, ctx):
            return item, ctx

        def method(self, item, *more, ctx):
            return item, ctx

    @functools.wraps(second)
    def wrapped(*args, **kwargs):
        return second(*args, **kwargs)

    accepting = [
        second,
        keyword,
        later,
        functools.partial(after_more, "connection"),
        Object(),
        Object().method,
        wrapped,
        lambda item, ctx: (item, ctx),
    ]
    for fn in accepting:
        call = look(fn)
        assert call.takes_ctx, fn
        assert call.fn(1, ctx="ctx") == (1, "ctx")


def test_t12_a_positional_only_ctx_is_passed_by_position():
    def second(item, ctx, /):
        return item, ctx

    async def coroutine(item, ctx, /):
        return item, ctx

    assert look(second).fn(1, ctx="ctx") == (1, "ctx")
    call = look(coroutine)
    assert call.is_async
    assert asyncio.run(call.fn(1, ctx="ctx")) == (1, "ctx")


def test_t12_an_async_generator_function_may_take_ctx():
    async def pages(item, ctx):
        yield item, ctx

    call = look(pages, generates=True)
    assert call.takes_ctx
    assert asyncio.run(call.fn(1, ctx="ctx")) == [(1, "ctx")]


def test_t12_ctx_is_not_passed_where_it_is_not_wanted():
    def with_ctx(item, ctx):
        return item, ctx

    @functools.wraps(with_ctx)
    def giving_its_own(item):
        return with_ctx(item, "own")

    declining = [
        plain,
        lambda item, **ctx: (item, ctx),
        lambda item, *ctx: (item, ctx),
        lambda item, **options: (item, options),
        functools.partial(with_ctx, ctx="own"),
        giving_its_own,
        print,
        int,
    ]
    for fn in declining:
        assert not look(fn).takes_ctx, fn


def test_t12_undo_actions_are_examined_alike():
    def undo(ids, ctx):
        pass

    async def by_name(*, ctx):
        pass

    @functools.wraps(undo)
    def wrapped(*args, **kwargs):
        pass

    def by_position(ctx, /):
        pass

    expected = {
        undo: ("undo", False, True),
        by_name: ("by_name", True, True),
        wrapped: ("undo", False, True),
        by_position: ("by_position", False, False),
        functools.partial(undo, ctx="own"): ("undo", False, False),
        functools.partial(by_name): ("by_name", True, True),
        Handler().coroutine: ("coroutine", True, False),
        AsyncHandler(): ("AsyncHandler", True, False),
        print: ("print", False, False),
    }
    assert {fn: examine_undo(fn) for fn in expected} == expected
    assert examine_undo(lambda: None) == ("lambda", False, False)


@pytest.mark.parametrize(
    ("fn", "reason"),
    [
        (lambda: None, "too many positional arguments"),
        (lambda item, connection: None, "missing a required argument: 'connection'"),
        (lambda *, item: None, "too many positional arguments"),
        (lambda ctx: None, "its first parameter, ctx, would get the item"),
        (lambda ctx, item: None, "its first parameter, ctx, would get the item"),
        (functools.partial(plain, 1), "too many positional arguments"),
    ],
)
def test_a_callable_that_cannot_take_one_item_is_refused_with_the_reason(fn, reason):
    with pytest.raises(ab.ConfigError) as caught:
        look(fn)
    assert reason in str(caught.value)
    assert (caught.value.pipeline, caught.value.stage) == ("p", "s")
    assert (caught.value.argument, caught.value.value) == ("fn", fn)


def test_what_cannot_be_called_is_refused():
    with pytest.raises(ab.ConfigError, match=r"fn must be a callable that takes the item, got 3$"):
        look(3)


def test_callables_and_sources_have_names():
    named = {
        "plain": plain,
        "lambda": lambda item: item,
        "coroutine": functools.partial(functools.partial(coroutine)),
        "method": Handler().method,
        "Handler": Handler(),
        "generator": generator(1),
        "list": [1],
        "deque": deque([1]),
        "print": print,
    }
    assert {name: name_of(fn) for name, fn in named.items()} == {name: name for name in named}


class Lines:
    def __getitem__(self, index):
        raise IndexError


class Sorted(list):
    def __iter__(self):
        return iter(sorted(list.__iter__(self)))


class Ticks:
    def __aiter__(self):
        return self

    async def __anext__(self):
        raise StopAsyncIteration


@pytest.mark.parametrize(
    ("source", "how"),
    [
        ([1], "sequence"),
        ((1,), "sequence"),
        (type("Rows", (list,), {})(), "sequence"),
        (Sorted([2, 1]), "iterable"),
        ({1}, "iterable"),
        ({1: 2}.values(), "iterable"),
        (range(3), "iterable"),
        (generator(1), "iterable"),
        (io.StringIO("text"), "iterable"),
        (Lines(), "iterable"),
        (async_generator(1), "async"),
        (Ticks(), "async"),
        (ab.tcp_lines("127.0.0.1", 0), "native"),
        (ab.tcp_client("127.0.0.1", 9400), "native"),
        (ab.tail("app.log"), "native"),
    ],
)
def test_t9_iterables_are_told_apart(source, how):
    assert source_kind(source, pipeline="p", stage="s") == how


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("one line", "text.splitlines()"),
        (b"one line", "text.splitlines()"),
        ({"a": 1}, "d.values()"),
        (generator, "call it: generator()"),
        (async_generator, "call it: async_generator()"),
        (3, "ab.tcp_lines(...)"),
        (None, "ab.tcp_lines(...)"),
    ],
)
def test_what_is_surely_a_mistake_is_no_source(source, hint):
    with pytest.raises(ab.ConfigError) as caught:
        source_kind(source, pipeline="p", stage="s")
    assert "pipeline 'p', stage 's': src must be an iterable or async iterable" in str(caught.value)
    assert hint in str(caught.value)
    assert caught.value.value is source


def test_a_coroutine_is_no_source():
    source = coroutine([1])
    assert inspect.iscoroutine(source)
    with pytest.raises(ab.ConfigError, match="await it first"):
        source_kind(source, pipeline="p", stage="s")
    source.close()
