"""`ab.window`: the items of a reader in lists, by hand."""

import asyncio
import gc

import pytest
from channels import drained, filled, in_thread, parked
from support import DEADLINE, within

import anabranch as ab


def test_w1_w2_w6_size_and_the_rest_when_the_reader_ends():
    reader = filled(1, 2, 3, 4, 5)
    reader.close()
    windows = ab.window(reader, max_items=2)
    assert [(items, windows.reason) for items in windows] == [
        ([1, 2], "size"),
        ([3, 4], "size"),
        ([5], "close"),
    ]
    assert list(windows) == []


def test_w4_w5_age_counts_from_the_first_item_however_fast_others_follow():
    async def main():
        loop = asyncio.get_running_loop()
        reader = ab.Channel(1000)

        async def trickle():
            for item in range(10):
                await reader.send(item)
                await asyncio.sleep(1.0)
            # Silence: nothing is given, and no empty window.
            await asyncio.sleep(100.0)
            await reader.send("late")
            reader.close()

        async with asyncio.TaskGroup() as group:
            group.create_task(trickle())
            windows = ab.window(reader, max_items=500, max_age=4.5)
            return [(loop.time(), windows.reason, items) async for items in windows]

    assert ab.testing.run(main()) == [
        (4.5, "age", [0, 1, 2, 3, 4]),
        (9.5, "age", [5, 6, 7, 8, 9]),
        (110.0, "close", ["late"]),
    ]


def test_w5_idle_is_the_debounce():
    async def main():
        reader = ab.Channel(10)

        async def bursts():
            for gap in (1.0, 1.0, 5.0, 1.0):
                await reader.send(gap)
                await asyncio.sleep(gap)
            reader.close()

        async with asyncio.TaskGroup() as group:
            group.create_task(bursts())
            windows = ab.window(reader, idle=2.0)
            return [(windows.reason, items) async for items in windows]

    assert ab.testing.run(main()) == [("idle", [1.0, 1.0, 5.0]), ("close", [1.0])]


def test_w7_w9_age_0_gives_whatever_is_there():
    reader = filled(1, 2, 3)
    windows = ab.window(reader, max_age=0)
    assert next(windows) == [1, 2, 3]
    assert windows.reason == "age"


def test_bytes_are_counted_by_len_or_as_said():
    reader = filled("aaaa", "b", "cc", "d")
    reader.close()
    assert list(ab.window(reader, max_bytes=3)) == [["aaaa"], ["b", "cc"], ["d"]]
    reader = filled(1, 2, 3)
    reader.close()
    assert list(ab.window(reader, max_bytes=3, size_of=lambda n: n)) == [[1, 2], [3]]


@pytest.mark.parametrize("size", [ValueError("odd"), -1, 1.5, None, "heavy"])
@pytest.mark.parametrize("asynchronously", [False, True])
def test_f5_what_cannot_be_weighed_stays_in_the_reader(asynchronously, size):
    reader = filled("a", "b", "odd", "c")
    reader.close()

    def weigh(item):
        if item != "odd":
            return 1
        if isinstance(size, ValueError):
            raise size
        return size

    windows = ab.window(reader, max_bytes=5, size_of=weigh)

    async def one():
        return await anext(windows)

    def following():
        return asyncio.run(one()) if asynchronously else next(windows)

    for _ in range(2):
        said = "odd" if isinstance(size, ValueError) else f"size_of returns .* got {size!r}"
        with pytest.raises(ValueError, match=said) as told:
            following()
        assert isinstance(told.value, ab.ConfigError) == (not isinstance(size, ValueError))
        assert "size_of of a window of 'channel'" in told.value.__notes__[-1]
        assert (windows.filled, reader.depth) == (2, 2)
    assert reader.receive_nowait() == "odd"
    assert following() == ["a", "b", "c"]


@within
async def test_w10_a_slow_consumer_holds_back_who_sends():
    reader = filled(1, 2, 3, capacity=3)
    windows = ab.window(reader, max_items=2)
    assert await anext(windows) == [1, 2]
    assert reader.depth == 1
    assert windows.filled == 0


@within
async def test_w11_a_cancelled_wait_keeps_what_is_gathered_and_close_puts_it_back():
    reader = filled(1, 2)
    windows = ab.window(reader, max_items=3)
    waiting = asyncio.ensure_future(anext(windows))
    await parked(reader, receivers=1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert windows.filled == 2
    reader.send_nowait(3)
    assert await anext(windows) == [1, 2, 3]
    reader.send_nowait(4)
    with windows:
        waiting = asyncio.ensure_future(anext(windows))
        await parked(reader, receivers=1)
        waiting.cancel()
        await asyncio.wait([waiting])
    assert drained(reader) == [4]


@within
async def test_g8_a_cancel_ends_the_waiting_and_keeps_what_is_gathered():
    reader, cancel = filled(1, 2), ab.Cancel()
    windows = ab.window(reader, max_items=3, ctx=ab.Context("batch", cancel=cancel))
    waiting = asyncio.create_task(anext(windows))
    await parked(reader, receivers=1)
    cancel.cancel()
    with pytest.raises(ab.Cancelled, match="batch"):
        await waiting
    assert windows.filled == 2
    with pytest.raises(ab.Cancelled):
        await anext(windows)
    windows.close()
    assert reader.receive_many_nowait() == [1, 2]


def test_g8_a_cancel_ends_the_waiting_in_a_thread_too():
    reader, cancel = filled(1), ab.Cancel()
    windows = ab.window(reader, max_items=2, ctx=ab.Context("batch", cancel=cancel))

    def wait():
        with pytest.raises(ab.Cancelled):
            next(windows)

    waiting = in_thread(wait)
    while reader.stats().receivers == 0 and not waiting.done():
        pass
    cancel.cancel()
    waiting.result(DEADLINE)


def test_g8_an_error_of_the_reader_is_not_taken_for_the_own_cancellation():
    reader = filled(1)
    reader.close(ab.Cancelled("that of the sender", reason="it was cancelled"))
    windows = ab.window(reader, max_items=2, ctx=ab.Context("batch"))
    assert next(windows) == [1]
    with pytest.raises(ab.Cancelled, match="sender"):
        next(windows)


def test_w5_a_window_that_is_due_takes_nothing_more():
    async def main():
        reader = filled("old")
        windows = ab.window(reader, max_age=5.0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3.0):
                await anext(windows)
        await asyncio.sleep(100.0)
        reader.send_nowait("new")
        return [await anext(windows), windows.reason, windows.age, await anext(windows)]

    assert ab.testing.run(main()) == [["old"], "age", 103.0, ["new"]]


@within
async def test_w12_a_fault_comes_after_the_last_window():
    reader = filled(1, 2, 3)
    reader.close(TimeoutError("torn"))
    windows = ab.window(reader, max_items=2, max_age=60.0)
    assert [await anext(windows), await anext(windows)] == [[1, 2], [3]]
    for _ in range(2):
        with pytest.raises(TimeoutError, match="torn"):
            await anext(windows)


@within
async def test_w13_a_window_is_a_snapshot():
    reader = filled(1, 2, 3, 4)
    windows = ab.window(reader, max_items=2)
    one = await anext(windows)
    await anext(windows)
    assert one == [1, 2]


def test_it_is_read_in_a_thread_too():
    reader = ab.Channel(1)
    reading = in_thread(lambda: list(ab.window(reader, max_items=2, max_age=60.0)))
    for item in range(5):
        reader.send_blocking(item, timeout=DEADLINE)
    reader.close()
    assert reading.result(DEADLINE) == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize("how", ["drain", "abort"])
@within
async def test_e8_as_the_source_of_a_pipeline_it_gives_back_what_has_not_left(how):
    reader = filled(1, 2, 3)
    windows = ab.window(reader, max_items=2)
    async with ab.Pipeline("p").source(windows).collect().start() as running:
        await parked(reader, receivers=1)
        assert windows.filled == 1
        running.drain() if how == "drain" else running.abort()
    assert running.report.received == 1
    assert drained(reader) == [3]


@within
async def test_e8_so_does_one_that_nobody_reads_any_more():
    reader = filled(1, 2, 3)

    async def cut_short():
        async for _ in ab.window(reader, max_items=2):
            pass

    reading = asyncio.ensure_future(cut_short())
    await parked(reader, receivers=1)
    reading.cancel()
    await asyncio.wait([reading])
    del reading
    gc.collect()
    assert drained(reader) == [3]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "window: max_items must be an int >= 1 where none of max_age, idle and max_bytes"),
        ({"max_items": 0}, "max_items must be an int >= 1"),
        ({"max_age": -1}, "max_age must be a number of seconds >= 0"),
        ({"idle": float("nan")}, "idle must be a number of seconds >= 0"),
        ({"max_items": 1, "size_of": len}, "size_of must be a def that is given an item, beside"),
        ({"max_bytes": 1, "size_of": 3}, "size_of must be a callable"),
        ({"max_items": 1, "reader": 3}, "reader must be a Channel, got 3"),
    ],
)
def test_w8_a_bad_argument_is_refused(options, said):
    with pytest.raises(ab.ConfigError, match=said):
        ab.window(options.pop("reader", ab.Channel()), **options)


def test_f5_an_item_of_more_bytes_than_are_counted_leaves_with_the_window_it_fills():
    reader = filled("a", "b")
    reader.close()
    assert list(ab.window(reader, max_bytes=5, size_of=lambda _: 1 << 70)) == [["a"], ["b"]]
