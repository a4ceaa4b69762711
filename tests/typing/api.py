"""A program in the public API's types: mypy and pyright must infer what it asserts."""

import functools
import json
import sqlite3
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, TypedDict, TypeGuard, assert_type

import anabranch as ab


class Event(TypedDict):
    """What the pipelines below carry."""

    tenant: str
    number: int


def parse(line: str) -> Event:
    """Use no ctx."""
    tenant, number = line.split()
    return {"tenant": tenant, "number": int(number)}


def parse_with(line: str, ctx: ab.Context) -> Event:
    """Use ctx, by position or keyword."""
    assert_type(ctx.attempt, int)
    return parse(line)


async def fetch(event: Event) -> bytes:
    """Await something."""
    return event["tenant"].encode()


async def fetch_with(event: Event, *, ctx: ab.Context) -> bytes:
    """Use ctx, by keyword alone."""
    ctx.compensate(print, event["tenant"], name="undo", retries=1, timeout=5.0)
    return await fetch(event)


class Store:
    """A handler with state."""

    async def __call__(self, batch: list[Event], ctx: ab.Context) -> None:
        """Handle one window."""
        ctx.compensate(self.undo, batch)

    async def undo(self, batch: list[Event]) -> None:
        """Take it back."""

    def size(self, event: Event) -> int:
        """Weigh one event."""
        return len(event["tenant"])


def digits(event: Event) -> Iterator[int]:
    """Generate."""
    yield from map(int, str(event["number"]))


async def pages(event: Event) -> AsyncIterator[bytes]:
    """Generate asynchronously."""
    yield await fetch(event)


async def words(event: Event, ctx: ab.Context) -> list[str]:
    """Return several."""
    return [event["tenant"], ctx.pipeline]


def is_text(value: str | bytes) -> TypeGuard[str]:
    """Tell types apart."""
    return isinstance(value, str)


async def ticks() -> AsyncIterator[float]:
    """Give numbers now and then."""
    yield 1.0


def scaled(factor: int, number: int) -> int:
    """Be given to partial."""
    return factor * number


def sources(lines: Iterable[str], mixed: list[str | bytes]) -> None:
    """Check what comes out of each source."""
    start = ab.Pipeline("typed", max_in_flight=10, threads=2, on_error="stop", grace=5, seed=1)
    assert_type(start, ab.Pipeline[None])
    assert_type(start.source(lines), ab.Pipeline[str])
    assert_type(start.source([1, 2]), ab.Pipeline[int])
    assert_type(start.source(ticks()), ab.Pipeline[float])
    assert_type(start.source(mixed).filter(is_text), ab.Pipeline[str])

    tcp = ab.tcp_lines("127.0.0.1", 0, idle_timeout=timedelta(minutes=1), until="disconnected")
    assert_type(tcp, ab.TcpLines[str])
    assert_type(start.source(tcp, name="gateway"), ab.Pipeline[str])
    assert_type(ab.tcp_lines("::1", 9400, encoding=None), ab.TcpLines[bytes])
    pairs = start.source(ab.tcp_lines("::1", 9400, peer=True, until=2.5))
    assert_type(pairs, ab.Pipeline[tuple[str, str]])
    framing = ab.LengthPrefix(2, byteorder="little")
    assert_type(ab.tcp_lines("::1", 9400, framing=framing, encoding=None), ab.TcpLines[bytes])
    feed = ab.tcp_client("::1", 9400, framing=ab.Delimiter(b";"), greeting="hello", retry=None)
    assert_type(feed, ab.TcpClient[str])
    assert_type(start.source(feed), ab.Pipeline[str])
    assert_type(ab.tcp_client("::1", 9400, encoding=None), ab.TcpClient[bytes])
    assert_type(start.source(ab.tail("app.log", until=1)), ab.Pipeline[str])
    assert_type(ab.tail(Path("app.log"), encoding=None), ab.Tail[bytes])
    raw = start.source(ab.tcp_lines("::1", 9400, peer=True, encoding=None))
    assert_type(raw, ab.Pipeline[tuple[str, bytes]])


def stages(lines: list[str]) -> None:
    """Check what comes out of each stage."""
    texts = ab.Pipeline("typed").source(lines)
    events = texts.map(parse)
    assert_type(events, ab.Pipeline[Event])
    assert_type(texts.map(parse_with, name="parse"), ab.Pipeline[Event])
    assert_type(texts.map(len), ab.Pipeline[int])
    assert_type(texts.map(json.loads), ab.Pipeline[Any])
    assert_type(texts.map(lambda text: text.encode()), ab.Pipeline[bytes])
    assert_type(texts.map(len).map(functools.partial(scaled, 2)), ab.Pipeline[int])
    assert_type(events.map(lambda event: event["number"]), ab.Pipeline[int])
    retry = ab.Retry.exponential(attempts=3, base=timedelta(seconds=1), retry_on=OSError)
    fetched = events.map(fetch, concurrency=8, ordered=False, retry=retry, timeout=0.5)
    assert_type(fetched, ab.Pipeline[bytes])
    budget = ab.RetryBudget(rate=10, burst=100)
    assert_type(budget.rate, float)
    for policy in (
        ab.Retry.fixed(1, budget=budget, total=timedelta(minutes=1)),
        ab.Retry.decorrelated(base=0.1, seed=1),
        ab.Retry.cron("0 6 * * mon-fri", tz="UTC"),
        ab.Retry.custom(lambda attempt, error: 0.1 * attempt if error.args else 1.0),
    ):
        assert_type(events.tap(fetch, retry=policy), ab.Pipeline[Event])
    assert_type(events.map(fetch_with), ab.Pipeline[bytes])

    assert_type(events.filter(lambda event: event["number"] > 0), ab.Pipeline[Event])
    assert_type(events.filter(fetch), ab.Pipeline[Event])
    assert_type(events.filter(fetch_with), ab.Pipeline[Event])
    assert_type(events.tap(print), ab.Pipeline[Event])
    assert_type(events.tap(fetch_with), ab.Pipeline[Event])

    assert_type(texts.flat_map(str.split), ab.Pipeline[str])
    assert_type(events.flat_map(digits), ab.Pipeline[int])
    assert_type(events.flat_map(pages), ab.Pipeline[bytes])
    assert_type(events.flat_map(words), ab.Pipeline[str])

    assert_type(events.fan_out(by="tenant"), ab.Pipeline[Event])
    assert_type(events.fan_out(ab.item("tenant"), capacity=10), ab.Pipeline[Event])
    assert_type(texts.fan_out(by=ab.attr("real"), isolate=False), ab.Pipeline[str])
    assert_type(events.fan_out(by=lambda event: event["number"] % 8), ab.Pipeline[Event])
    pairs = ab.Pipeline("p").source([("acme", 1)])
    assert_type(pairs.fan_out(by=lambda pair: pair[0]), ab.Pipeline[tuple[str, int]])

    windows = events.window(max_items=500, max_age=1.0, idle=timedelta(seconds=1))
    assert_type(windows, ab.Pipeline[list[Event]])
    assert_type(windows.map(len), ab.Pipeline[int])
    assert_type(events.heartbeat(every=5.0), ab.Pipeline[Event | ab.Heartbeat])
    sized = events.window(max_bytes=1 << 20, size_of=Store().size, on_cancel="drop")
    assert_type(sized, ab.Pipeline[list[Event]])

    assert_type(windows.for_each(Store(), concurrency=4, retry=retry), ab.Pipeline[None])
    assert_type(windows.for_each(print, inline=True), ab.Pipeline[None])
    assert_type(windows.collect(), ab.Pipeline[list[Event]])


async def channels(events: ab.Pipeline[Event]) -> None:
    """Check that a channel keeps its items' type on every way in and out."""
    channel: ab.Channel[Event] = ab.Channel(10, on_full="drop_oldest", name="events")
    event = await channel.receive(timeout=timedelta(seconds=1))
    assert_type(event, Event)
    await channel.send(event)
    channel.send_many_blocking([event], timeout=2.5)
    assert_type(channel.receive_nowait(), Event)
    assert_type(await channel.receive_many(10), list[Event])
    assert_type([event async for event in channel], list[Event])
    assert_type(list(channel), list[Event])
    assert_type(channel.stats().blocked, float)
    channel.close(ValueError("why"))

    assert_type(ab.Pipeline("typed").source(channel), ab.Pipeline[Event])
    assert_type(events.to_channel(channel, close=False), ab.Pipeline[None])


@ab.testing.virtual_time
async def decorated(clock: ab.testing.VirtualClock) -> int:
    """Be a test."""
    await clock.advance(timedelta(minutes=1))
    return 1


@ab.testing.virtual_time(start=5.0, seed=1, auto_advance=False)
async def decorated_with_options() -> str:
    """Be another."""
    return ""


def testing(lines: list[str]) -> None:
    """Check the test module."""
    clock = ab.testing.VirtualClock(timedelta(days=1), seed=7)
    assert_type(clock.now(), float)
    clock.spend(1)
    pipeline = ab.Pipeline("typed", clock=clock).source(lines).collect()
    assert_type(ab.testing.run(pipeline.run(), clock=clock), ab.Report[str])
    assert_type(decorated(), int)
    assert_type(decorated_with_options(), str)
    growth = ab.testing.memory_growth(lambda: None, calls=5, warm_up=1)
    assert_type(growth.resident, int | None)
    watch = ab.testing.MemoryWatch()
    watch.look()
    assert_type(watch.growth.blocks, int)


async def branches(events: list[Event]) -> None:
    """Check what fan_out takes, and the handle of a branch."""
    pipeline = ab.Pipeline("typed", dead_letter=print).source(events)
    pipeline = pipeline.fan_out(
        by="tenant",
        capacity=len,
        weight=len,
        on_full="dead_letter",
        branch_timeout=timedelta(minutes=1),
        idle_ttl=None,
        on_branch_error=ab.fail(after=3),
        max_branches=10,
        on_max_branches="overflow",
        close_branches=False,
    )
    pipeline = pipeline.throttle(10.5, burst=3)
    async with pipeline.for_each(print).start() as running:
        branch = running.branch("acme")
        assert_type(branch, ab.Branch)
        assert_type(branch.counts.blocked, float)
        assert_type(running.add_branch(7), ab.Branch)
        branch.pause()
        branch.throttle(None)
        branch.fail(OSError())
    pipeline.fan_out(by="tenant", on_branch_error=ab.restart(ab.Retry.fixed(delay=1)))


def reports(finished: ab.Pipeline[Event]) -> None:
    """Check what a report gives."""
    report = finished.run_blocking()
    assert_type(report, ab.Report[Event])
    assert_type(report.items, list[Event])
    assert_type(report.committed, int)
    assert_type(report.balanced, bool)
    assert_type(report.codes, dict[str, int])
    assert_type([branch.failed for branch in report.branches], list[int])
    assert_type([failure.error for failure in report.failures], list[BaseException])
    assert_type(finished.last_report, ab.Report[Event] | None)
    assert_type([stage.name for stage in finished.stages], list[str])
    assert_type(finished.describe() + finished.mermaid(), str)
    try:
        report.raise_for_failure()
    except* ab.HandlerError as group:
        assert_type(group, ExceptionGroup[ab.HandlerError])


async def runs(pipeline: ab.Pipeline[Event]) -> ab.Report[Event]:
    """Check the two ways to run in an event loop."""
    nothing = await ab.Pipeline("typed").source(["acme 1"]).map(parse).for_each(print).run()
    assert_type(nothing, ab.Report[None])
    async with pipeline.start() as running:
        assert_type(running, ab.Running[Event])
        assert_type(running.address, tuple[str, int])
        running.drain()
        report = await running.wait()
    assert_type(report, ab.Report[Event])
    return report


def connections() -> None:
    """Check that `per_thread` keeps the type."""
    connection = ab.per_thread(functools.partial(sqlite3.connect, "shop.db"))
    assert_type(connection(), sqlite3.Connection)
    connection.close()


def errors(error: ab.ConfigError) -> tuple[str | None, str | None, str | None, object]:
    """Check what an error tells a program."""
    return error.pipeline, error.stage, error.argument, error.value


def told(failure: ab.Failure) -> Event:
    """Take a failure."""
    assert_type(failure.error, BaseException)
    assert_type(failure.children, Sequence[ab.Failure])
    return {"tenant": failure.code, "number": failure.items}


async def told_later(failure: ab.Failure, ctx: ab.Context) -> bytes:
    """Take a failure, and ctx."""
    return f"{failure.item}, {ctx.tenant}".encode()


def summarized(summary: ab.ErrorSummary) -> None:
    """Take what was counted."""
    assert_type(summary.codes, Mapping[str, int])


letters: ab.Channel[ab.Failure] = ab.Channel(10)
parsed = ab.Pipeline("p", on_error="dead_letter", dead_letter=letters).source(["acme 1"]).map(parse)
assert_type(parsed.ensure(lambda event: event["number"] > 0, code="negative"), ab.Pipeline[Event])
assert_type(parsed.recover(told), ab.Pipeline[Event])
assert_type(parsed.recover(told_later, codes="timeout", concurrency=4), ab.Pipeline[Event | bytes])
assert_type(parsed.recover(lambda failure: None, types=OSError), ab.Pipeline[Event | None])
assert_type(parsed.tap_error(print), ab.Pipeline[Event])
assert_type(parsed.tap_error(told_later), ab.Pipeline[Event])
assert_type(parsed.map_error(lambda failure: OSError(failure.message)), ab.Pipeline[Event])
assert_type(parsed.map_error(lambda failure: failure.replace(code="x")), ab.Pipeline[Event])
assert_type(parsed.collect_errors(every=60.0, to=summarized), ab.Pipeline[Event])
assert_type(parsed.dead_letter(told_later).dead_letter("letters.jsonl"), ab.Pipeline[Event])
assert_type(parsed.collect().dead_letter(letters).run_blocking().items, list[Event])
