"""Windows through the public API: what is in them, when they leave, what cuts them short."""

import asyncio
import math
import time

import pytest
from support import (
    Live,
    Seen,
    balanced,
    every_driver,
    every_sink,
    every_way,
    flat,
    go,
    turns,
    with_sink,
    within,
)

import anabranch as ab
from anabranch import _legs
from anabranch.testing import MemoryWatch, VirtualClock, virtual_time

manual = virtual_time(auto_advance=False)


def numbers(count, **options):
    return ab.Pipeline("windows").source(range(count)).window(**options)


@every_driver
def test_w1_items_leave_in_windows_of_max_items(driver):
    report = go(numbers(4, max_items=2).collect(), driver)
    assert report.items == [[0, 1], [2, 3]]
    assert report.windows == 2


@every_sink
@within
async def test_w1_a_full_window_leaves_while_the_source_is_silent(kind):
    source, seen = Live(1, 2), Seen()
    pipeline = ab.Pipeline("p").source(source).window(max_items=2)
    async with with_sink(pipeline, kind, lambda unit, ctx: seen(unit)).start() as running:
        await seen.reach(1)
        assert seen.items == [[1, 2]]
        source.end()
        await running.wait()


@every_way
def test_w2_the_partial_window_leaves_when_the_source_completes(driver, kind):
    seen = Seen()
    pipeline = with_sink(numbers(5, max_items=2), kind, lambda unit, ctx: seen(unit))
    report = balanced(go(pipeline, driver))
    assert seen.items == [[0, 1], [2, 3], [4]]
    assert (report.outcome, report.committed, report.windows) == ("completed", 5, 3)


def test_w3_only_completion_flushes_what_size_does_not():
    report = numbers(3000, max_items=1_000_000).collect().run_blocking()
    assert report.items == [list(range(3000))]


def test_w4_an_empty_window_never_leaves():
    report = numbers(0, max_items=2, max_age=0.001, idle=0.001).collect().run_blocking()
    assert (report.items, report.windows, report.outcome) == ([], 0, "completed")


@pytest.mark.parametrize("options", [{"max_items": 3}, {"max_bytes": 3}])
def test_w3_no_time_is_set_where_none_was_given(options):
    pipeline = numbers(1, **options)
    stage = pipeline.stages[-1]
    assert (stage.options["max_age"], stage.options["idle"]) == (None, None)
    window = _legs._window(1, pipeline._stages[-1])
    assert (window.max_age, window.idle) == (None, None)


@manual
async def test_w4_after_a_timer_on_nothing_later_items_still_batch(clock):
    source, seen = Live(1), Seen()
    pipeline = ab.Pipeline("p").source(source).window(max_items=2, idle=1.0).for_each(seen)
    async with pipeline.start() as running:
        await clock.advance(1.0)
        assert seen.items == [[1]]
        await clock.advance(1000.0)
        source.put(2, 3)
        await clock.advance(0)
        assert seen.items == [[1], [2, 3]]
        source.end()
        await running.wait()
    assert seen.items == [[1], [2, 3]]


@every_sink
@manual
async def test_w5_the_first_item_leaves_at_max_age_however_fast_others_trickle_in(kind, clock):
    seen = Seen()

    async def trickle():
        for n in range(10):
            yield n
            await asyncio.sleep(0.3)

    def note(unit, ctx):
        seen((clock.now(), unit, ctx.window.reason, ctx.window.age))

    pipeline = ab.Pipeline("p").source(trickle()).window(max_age=1.0, idle=0.5)
    async with with_sink(pipeline, kind, note).start() as running:
        await clock.advance(0.999)
        assert seen.items == []
        await clock.advance(10.0)
        balanced(await running.wait())
    assert seen.items == [
        (1.0, [0, 1, 2, 3], "age", 1.0),
        (2.2, [4, 5, 6, 7], "age", 1.0),
        (3.0, [8, 9], "close", pytest.approx(0.6)),
    ]


@every_sink
@manual
async def test_w5_idle_counts_from_the_last_item(kind, clock):
    source, seen = Live(1), Seen()
    pipeline = ab.Pipeline("p").source(source).window(idle=1.0)
    async with with_sink(
        pipeline, kind, lambda unit, ctx: seen((clock.now(), unit))
    ).start() as running:
        await clock.advance(0.9)
        source.put(2)
        await clock.advance(0.999)
        assert seen.items == []
        await clock.advance(0.001)
        assert seen.items == [(1.9, [1, 2])]
        source.end()
        await running.wait()


@pytest.mark.parametrize("count", [1, 499, 500, 501, 5000])
@every_driver
def test_w6_order_out_is_order_in(driver, count):
    pipeline = numbers(count, max_items=7, max_age=0.0005).collect()
    windows = go(pipeline, driver).items
    assert [item for window in windows for item in window] == list(range(count))
    assert all(1 <= len(window) <= 7 for window in windows)


@pytest.mark.parametrize(
    ("options", "argument", "shown"),
    [
        ({"max_items": 0}, "max_items", "0"),
        ({"max_items": -1}, "max_items", "-1"),
        ({"max_items": 1.5}, "max_items", "1.5"),
        ({"max_items": True}, "max_items", "True"),
        ({"max_age": -0.1}, "max_age", "-0.1"),
        ({"max_age": math.nan}, "max_age", "nan"),
        ({"max_age": "1"}, "max_age", "'1'"),
        ({"idle": -1}, "idle", "-1"),
        ({"idle": math.nan}, "idle", "nan"),
        ({"max_bytes": 0}, "max_bytes", "0"),
        ({"max_items": 1, "on_cancel": "keep"}, "on_cancel", "'keep'"),
    ],
)
def test_w8_bad_arguments_are_refused_at_build_time_by_name_and_value(options, argument, shown):
    with pytest.raises(ab.ConfigError) as refused:
        numbers(1, **options)
    assert refused.value.argument == argument
    for part in ("windows", "window", argument, shown):
        assert part in str(refused.value)


def test_w8_a_window_that_nothing_would_ever_make_leave_is_refused():
    with pytest.raises(ab.ConfigError, match="max_items"):
        numbers(1)


@every_sink
@manual
async def test_w9_max_age_0_is_no_busy_loop(kind, clock):
    source, seen = Live(1, 2, 3), Seen()
    pipeline = ab.Pipeline("p").source(source).window(max_age=0)
    async with with_sink(pipeline, kind, lambda unit, ctx: seen(unit)).start() as running:
        # A pipeline that looks again and again never comes to rest: this would not return.
        await clock.advance(0)
        assert flat(seen.items) == [1, 2, 3]
        source.put(4)
        await clock.advance(0)
        assert seen.items[-1] == [4]
        assert clock.now() == 0.0
        steps = await count_turns(clock, 1_000_000.0)
        assert steps < 10
        source.end()
        await running.wait()


async def count_turns(clock, seconds):
    """How often the loop goes round while so much time passes."""
    loop, turned = asyncio.get_running_loop(), 0
    go_round = loop._run_once

    def counted():
        nonlocal turned
        turned += 1
        go_round()

    loop._run_once = counted
    try:
        await clock.advance(seconds)
    finally:
        del loop._run_once
    return turned


CUT_SHORT = [
    ("drain", None, "flushed"),
    ("drain", "flush", "flushed"),
    ("drain", "drop", "dropped"),
    ("abort", None, "dropped"),
    ("abort", "flush", "flushed"),
    ("abort", "drop", "dropped"),
]


@pytest.mark.parametrize(("way", "policy", "fate"), CUT_SHORT)
@every_sink
@within
async def test_w11_a_partial_window_is_flushed_or_dropped_when_cut_short(kind, way, policy, fate):
    source, taken, seen = Live(1, 2, 3), Seen(), Seen()
    pipeline = ab.Pipeline("p").source(source).tap(taken).window(max_items=10, on_cancel=policy)
    async with with_sink(pipeline, kind, lambda unit, ctx: seen(unit)).start() as running:
        await taken.reach(3)
        getattr(running, way)()
        report = balanced(await running.wait())
    assert report.outcome == f"{way}ed"
    flushed = fate == "flushed"
    assert seen.items == ([[1, 2, 3]] if flushed else [])
    assert (report.committed, report.dropped) == ((3, 0) if flushed else (0, 3))


def faulty(count):
    yield from range(count)
    raise OSError("the disk is gone")


@pytest.mark.parametrize(("policy", "partial"), [(None, True), ("flush", True), ("drop", False)])
@every_driver
def test_w12_at_a_fault_whole_windows_leave_then_the_partial_by_policy(driver, policy, partial):
    source = ab.Pipeline("p").source(faulty(5))
    report = balanced(go(source.window(max_items=2, on_cancel=policy).collect(), driver))
    assert report.items == [[0, 1], [2, 3], *([[4]] if partial else [])]
    assert report.dropped == (0 if partial else 1)
    assert report.outcome == "failed"
    (failure,) = report.failures
    assert (failure.code, failure.items) == ("source.failed", 0)
    assert isinstance(failure.error, OSError)


@every_way
def test_w13_a_window_is_a_snapshot(driver, kind):
    kept = []

    def keep_and_spoil(unit, ctx):
        kept.append((unit, tuple(unit)))
        if len(kept) > 1:
            kept[-2][0].append("spoilt")

    pipeline = with_sink(numbers(100, max_items=10), kind, keep_and_spoil)
    go(pipeline, driver)
    assert [content for _, content in kept] == [
        tuple(range(at, at + 10)) for at in range(0, 100, 10)
    ]
    assert len({id(unit) for unit, _ in kept}) == 10


@every_sink
def test_w13_a_second_attempt_gets_the_whole_window_again(kind):
    seen = []

    def spoil(unit, ctx):
        seen.append(list(unit))
        unit.clear()
        if ctx.attempt == 1:
            raise OSError("again")

    pipeline = numbers(3, max_items=3)
    report = go(with_sink(pipeline, kind, spoil, retry=ab.Retry.fixed(0)))
    assert seen == [[0, 1, 2], [0, 1, 2]]
    assert report.committed == 3


def test_w14_a_million_idle_intervals_do_not_grow_memory():
    clock, watch, windows = VirtualClock(), MemoryWatch(), 0

    def now_and_then():
        for n in range(1_000_000):
            yield n
            clock.spend(1.0)

    def store(window):
        nonlocal windows
        windows += 1
        if windows % 200_000 == 0:
            watch.look()

    pipeline = ab.Pipeline("p", clock=clock).source(now_and_then()).window(idle=0.5, max_age=60.0)
    report = pipeline.for_each(store, inline=True).run_blocking()
    assert (report.windows, report.seconds) == (1_000_000, 1_000_000.0)
    assert watch.growth.blocks < 1000


@manual
async def test_w14_waiting_sources_and_timers_do_not_grow_memory(clock):
    source, seen = Live(), Seen()
    watch = MemoryWatch()
    pipeline = ab.Pipeline("p").source(source).window(idle=1.0, max_age=1000.0).for_each(seen)
    async with pipeline.start():
        for n in range(4000):
            source.put(n)
            await clock.advance(1000.0)
            seen.items.clear()
            if n % 1000 == 999:
                watch.look()
    assert watch.growth.blocks < 500


@every_sink
@manual
async def test_w15_only_the_pipelines_clock_moves_windows(kind, clock):
    source, seen = Live(1, 2), Seen()
    pipeline = ab.Pipeline("p").source(source).window(max_age=0.001)
    async with with_sink(pipeline, kind, lambda unit, ctx: seen(unit)).start() as running:
        real = time.monotonic()
        while time.monotonic() < real + 0.01:
            await turns(10)
        await clock.advance(0)
        assert seen.items == []
        await clock.advance(0.0009)
        assert seen.items == []
        await clock.advance(0.0001)
        assert seen.items == [[1, 2]]
        source.end()
        await running.wait()


@every_sink
@within
async def test_w16_one_tenants_window_never_waits_for_anothers(kind):
    source, seen = Live(("b", 0), ("a", 1), ("a", 2)), Seen()
    pipeline = ab.Pipeline("p").source(source).fan_out(by=ab.item(0)).window(max_items=2)
    pipeline = with_sink(pipeline, kind, lambda unit, ctx: seen((ctx.tenant, unit)))
    async with pipeline.start() as running:
        await seen.reach(1)
        assert seen.items == [("a", [("a", 1), ("a", 2)])]
        source.end()
        await running.wait()
    assert seen.items[1:] == [("b", [("b", 0)])]


@every_sink
@virtual_time
async def test_w17_a_window_knows_why_it_left(kind, clock):
    seen = Seen()

    def note(unit, ctx):
        assert ctx.window.items == len(unit)
        seen((unit, ctx.window.reason, ctx.window.age))

    async def reason(items, **options):
        source = Live(*items)
        pipeline = ab.Pipeline("p").source(source).window(**options)
        async with with_sink(pipeline, kind, note).start() as running:
            await seen.reach(len(seen.items) + 1)
            source.end()
            await running.wait()
        return seen.items[-1]

    assert await reason([1, 2], max_items=2) == ([1, 2], "size", 0.0)
    assert await reason([1], max_age=0.1, max_items=9) == ([1], "age", 0.1)
    assert await reason([1], idle=0.2, max_items=9) == ([1], "idle", 0.2)
    assert await reason(["ab", "cd"], max_bytes=4) == (["ab", "cd"], "bytes", 0.0)
    assert clock.now() == 0.3


@every_way
def test_w17_the_last_window_left_because_its_source_closed(driver, kind):
    seen = Seen()
    pipeline = numbers(3, max_items=2)
    go(with_sink(pipeline, kind, lambda unit, ctx: seen(ctx.window.reason)), driver)
    assert seen.items == ["size", "close"]


@every_driver
def test_w18_failures_never_enter_a_window_and_sums_count_items(driver):
    def odd(number):
        if number % 2 == 0:
            raise ValueError(number)
        return number

    pipeline = ab.Pipeline("p").source(range(10)).map(odd).window(max_items=2).collect()
    report = balanced(go(pipeline, driver))
    assert report.items == [[1, 3], [5, 7], [9]]
    assert (report.committed, report.failed, report.windows) == (5, 5, 3)


@every_way
def test_w18_a_failed_window_counts_its_items(driver, kind):
    def refuse(unit, ctx):
        if 0 in unit:
            raise ValueError(unit)

    report = balanced(go(with_sink(numbers(10, max_items=4), kind, refuse), driver))
    assert (report.committed, report.failed) == (6, 4)
    assert report.codes == {"ValueError": 4}
    assert [failure.items for failure in report.failures] == [4]


def test_max_bytes_asks_size_of():
    pipeline = ab.Pipeline("p").source([3, 4, 5, 1]).window(max_bytes=7, size_of=lambda n: n)
    assert pipeline.collect().run_blocking().items == [[3, 4], [5, 1]]


def test_an_item_without_a_size_is_a_failure():
    pipeline = ab.Pipeline("p").source(["ab", 3, b"cd"]).window(max_bytes=4).collect()
    report = balanced(pipeline.run_blocking())
    assert report.items == [["ab", b"cd"]]
    assert report.codes == {"TypeError": 1}
