"""A program in the toolkit's types: mypy and pyright must infer what it asserts."""

from collections.abc import Mapping
from functools import partial
from typing import Any, assert_type

import anabranch as ab

policy = ab.Retry.fixed(1.0)


def read() -> int:
    """Use no ctx."""
    return 1


def read_with(ctx: ab.Context) -> int:
    """Use ctx."""
    ctx.compensate(print, ctx.name, level="pipeline")
    return ctx.attempt


async def fetch() -> bytes:
    """Await something."""
    return b""


async def fetch_with(*, ctx: ab.Context) -> bytes:
    """Use ctx, by keyword alone."""
    assert_type(ctx.remaining, float | None)
    return b""


async def store(number: int, ctx: ab.Context) -> str:
    """Take an argument."""
    return f"{number} {ctx.tenant}"


def half(n: int) -> ab.Result[int]:
    """Return a Result."""
    return ab.Ok(n // 2) if n % 2 == 0 else ab.Err("odd", metadata={"n": n})


async def half_later(n: int) -> ab.Result[int]:
    """Return a Result later."""
    return half(n)


async def calls() -> None:
    """Call by hand."""
    assert_type(ab.retry(read, policy), int)
    assert_type(ab.retry(read_with, policy), int)
    assert_type(await ab.retry(fetch, policy), bytes)
    assert_type(await ab.retry(fetch_with, policy, ctx=ab.Context("c")), bytes)
    assert_type(await ab.retry(partial(store, 1), policy), str)
    assert_type(ab.fallback(read, read_with), int)
    assert_type(await ab.fallback(fetch, fetch_with), bytes)
    assert_type(await ab.timeout(fetch, 1.0), bytes)
    assert_type(await ab.race(fetch, fetch_with), bytes)
    assert_type(await ab.hedge(fetch, 0.1, attempts=3), bytes)
    assert_type(await ab.all_of(fetch, fetch_with), list[bytes])
    assert_type(await ab.all_of(fetch, on_error="collect"), list[ab.Result[bytes]])
    assert_type(await ab.after(1.0, fetch), bytes)
    assert_type(ab.retry(partial(half, 7), policy), int)
    assert_type(await ab.retry(partial(half_later, 7), policy), int)
    assert_type(await ab.race(partial(half_later, 7), partial(half_later, 8)), int)
    assert_type(await ab.all_of(partial(half, 7), on_error="collect"), list[ab.Result[int]])
    await ab.delay(1.0)
    async for tick in ab.ticker(1.0):
        assert_type(tick, ab.Tick)
    for tick in ab.ticker(1.0):
        assert_type(tick.missed, int)


async def groups(cancel: ab.Cancel) -> None:
    """Use groups and a saga."""
    async with ab.ErrGroup("g", ctx=ab.Context("c", cancel=cancel), commit="group") as group:
        child = group.go(store, 1, name="one")
        other = group.go(read)
    assert_type(child, ab.Child[str])
    match child.result:
        case ab.Ok(value):
            assert_type(value, str)
        case ab.Err(failure):
            assert_type(failure, ab.Failure)
        case _:
            pass
    assert_type(child.result, ab.Ok[str] | ab.Err | None)
    assert_type(other, ab.Child[int])
    assert_type(group.failures, tuple[ab.Failure, ...])

    def seat(results: Mapping[str, Any], ctx: ab.Context) -> int:
        ctx.compensate(print, results)
        return 7

    saga = ab.Saga("trip").step("seat", seat, undo=print, retry=policy)
    assert_type(await saga.run(), dict[str, Any])
    assert_type(saga.run_blocking(), dict[str, Any])


async def results() -> None:
    """Use values in place of exceptions."""
    tried = ab.Result.try_(int, "7")
    assert_type(tried, ab.Result[int])
    assert_type(ab.Result.try_(half, 7), ab.Result[int])
    assert_type(await ab.Result.try_async(fetch), ab.Result[bytes])
    assert_type(await ab.Result.try_async(half_later, 7), ab.Result[int])
    assert_type(tried.map(str), ab.Result[str])
    assert_type(tried.then(half), ab.Result[int])
    assert_type(await tried.then(half_later), ab.Result[int])
    assert_type(await tried.map(partial(store, ctx=ab.Context("c"))), ab.Result[str])
    assert_type(tried.recover(lambda failure: failure.code), ab.Result[int | str])
    assert_type(tried.ensure(lambda n: n > 3, code="small"), ab.Result[int])
    assert_type(tried.map_error(lambda failure: failure.replace(code="mine")), ab.Result[int])
    assert_type(tried.unwrap(), int)
    assert_type(tried.unwrap_or(None), int | None)
    assert_type(await tried.commit(), ab.Result[int])
    match tried:
        case ab.Ok(value):
            (value + 1).bit_length()
        case ab.Err(failure):
            assert_type(failure, ab.Failure)
        case _:
            pass


def told(error: BaseException) -> None:
    """Ask an exception."""
    assert_type(ab.Failure.of(error), ab.Failure)
    assert_type(ab.RollbackReport.of(error), ab.RollbackReport)


async def many_readers(orders: ab.Channel[int], names: ab.Channel[str]) -> None:
    merged = ab.merge([ab.Source(orders, name="orders")], strategy="sticky")
    assert_type(await merged.receive(), int)
    assert_type(await ab.fan_in([orders], print), ab.FanInReport)
    alarms: ab.PriorityChannel[int] = ab.PriorityChannel(10)
    sources = [ab.Source(orders), alarms]
    assert_type(await ab.fan_in(sources, print), ab.FanInReport)
    assert_type(await ab.merge(sources).receive(), int)
    assert_type(await ab.merge([ab.Source(orders), alarms]).receive(), int)
    ab.Pipeline("p").merge(sources)
    assert_type((await ab.select(orders)).item, int | None)
    assert_type((await ab.select(orders, alarms)).item, int | None)
    assert_type((await ab.select(orders, names)).item, int | str | None)
    assert_type((await ab.select(orders, names, alarms, fair=True)).item, int | str | None)
    either = ab.select().on(orders).on(names, print)
    assert_type((await either.run(timeout=1.0)).item, int | str | None)
    async with ab.broadcast(orders, 2) as (one, _):
        assert_type(one, ab.Channel[int])
    async with ab.fan_out(names, by=len) as branches:
        assert_type(branches[3], ab.Channel[str])
    async for batch in ab.window(names, max_items=2):
        assert_type(batch, list[str])
    urgent: ab.PriorityChannel[int] = ab.PriorityChannel(lanes=2)
    await urgent.send(1, priority=0)
    assert_type(await urgent.receive(), int)


def remembering(orders: ab.Channel[int]) -> None:
    pipeline = ab.Pipeline("p").merge([orders]).distinct().take(5)
    assert_type(pipeline, ab.Pipeline[int])
    assert_type(pipeline.scan(lambda text, n: f"{text}{n}", ""), ab.Pipeline[str])
    assert_type(pipeline.map_batch(lambda batch: map(str, batch), max_items=2), ab.Pipeline[str])


def half_with(n: int, ctx: ab.Context) -> ab.Result[int]:
    """Use ctx."""
    ctx.compensate(print, n)
    return half(n)


def results_in_a_stream() -> None:
    numbers = ab.Pipeline("p").source([1])
    assert_type(numbers.map(half), ab.Pipeline[int])
    assert_type(numbers.map(half_later, concurrency=2), ab.Pipeline[int])
    assert_type(numbers.map(half_with), ab.Pipeline[int])
    assert_type(numbers.map(lambda n: [n]), ab.Pipeline[list[int]])


async def results_of_a_stream() -> None:
    async with ab.Pipeline("p").source(["1"]).map(int).results(capacity=10) as stream:
        assert_type(stream, ab.Stream[int])
        async for result in stream:
            assert_type(result, ab.Result[int])
    assert_type(stream.report, ab.Report[int] | None)


def courses(orders: ab.Channel[int]) -> None:
    numbers = ab.Pipeline("p").source([1])
    assert_type(numbers.tee(lambda s: s.map(str).for_each(print)), ab.Pipeline[int])
    assert_type(numbers.share(orders, close=False), ab.Pipeline[int])
    ended = numbers.broadcast(
        audit=lambda s: s.for_each(print),
        main=lambda s: s.map(half).collect(),
    )
    ended.run_blocking()
