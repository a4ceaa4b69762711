"""A channel at either end of a pipeline."""

import asyncio
import contextlib
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from channels import parked
from hypothesis import given, settings
from hypothesis import strategies as st
from support import DEADLINE, DRIVERS, Live, Seen, balanced, every_driver, flat, go, turns, within

import anabranch as ab


def ended(*items, error=None, capacity=1000, **options):
    channel = ab.Channel(capacity, **options)
    channel.send_many_nowait(items)
    channel.close(error)
    return channel


def inside(channel):
    try:
        return channel.receive_many_nowait()
    except (ab.ChannelEmpty, ab.ChannelClosed, ConnectionError):
        return []


def source(channel, **options):
    return ab.Pipeline("p", **options).source(channel)


# As a source.


@every_driver
def test_t9_a_channel_is_a_source_under_every_driver(driver):
    report = balanced(go(source(ended(*range(1000))).collect(), driver))
    assert report.items == list(range(1000))
    assert report.outcome == "completed"


def test_a_source_is_called_by_the_channel_s_name():
    pipeline = source(ab.Channel(name="orders")).collect()
    assert [stage.name for stage in pipeline.stages] == ["orders", "collect"]
    assert "how=channel" in pipeline.describe()


@every_driver
def test_f2_items_from_other_threads_arrive_while_it_runs(driver):
    channel = ab.Channel(3)

    def sends(name):
        for number in range(500):
            channel.send_blocking((name, number), timeout=DEADLINE)

    def closes(futures):
        for future in futures:
            future.result(DEADLINE)
        channel.close()

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(sends, name) for name in "abc"]
        closing = pool.submit(closes, futures)
        report = balanced(go(source(channel).fan_out(by=ab.item(0)).collect(), driver))
        closing.result(DEADLINE)
    assert report.received == 1500
    for name in "abc":
        assert [number for who, number in report.items if who == name] == list(range(500))


@within
async def test_items_from_the_pipeline_s_own_loop_arrive_one_by_one():
    channel, seen = ab.Channel(10), Seen()
    async with source(channel).for_each(seen, inline=True).start() as running:
        for number in range(5):
            await parked(channel, receivers=1)
            await channel.send(number)
            await seen.reach(number + 1)
        channel.close()
        report = await running.wait()
    assert (seen.items, report.outcome) == (list(range(5)), "completed")


@every_driver
@pytest.mark.parametrize("error", [ValueError("disk"), ab.ChannelClosed("another")])
def test_f11_a_channel_closed_with_an_error_is_a_source_failure(driver, error):
    report = balanced(go(source(ended(1, 2, error=error)).collect(), driver))
    assert (report.items, report.outcome, report.ok) == ([1, 2], "failed", False)
    assert report.codes == {"source.failed": 0}
    (failure,) = report.failures
    assert failure.error is error


@within
async def test_f11_an_error_reaches_a_pipeline_that_waits():
    channel = ab.Channel(10)
    async with source(channel).collect().start() as running:
        await parked(channel, receivers=1)
        channel.close(ValueError("disk"))
        assert (await running.wait()).outcome == "failed"


@pytest.mark.parametrize("way", ["drain", "abort"])
@within
async def test_f5_what_was_not_taken_stays_in_the_channel(way):
    channel, seen = ab.Channel(100), Seen()
    channel.send_many_nowait(range(40))
    held = asyncio.Event()

    async def handler(item):
        seen(item)
        await held.wait()

    pipeline = source(channel, max_in_flight=2).fan_out(by=lambda n: 0, capacity=3, isolate=False)
    async with pipeline.for_each(handler).start() as running:
        await seen.reach(1)
        getattr(running, way)()
        await turns(3)
        held.set()
        report = balanced(await running.wait())
    stats = channel.stats()
    assert stats.received == report.received < 40
    assert stats.receivers == 0
    assert inside(channel) == list(range(report.received, 40))
    assert not channel.closed


@pytest.mark.parametrize("way", ["drain", "abort"])
@within
async def test_f10_a_pipeline_that_stops_gives_up_its_place_in_line(way):
    channel = ab.Channel(10)
    async with source(channel).collect().start() as running:
        await parked(channel, receivers=1)
        getattr(running, way)()
        # Promised to the pipeline, which is not going to take it.
        channel.send_nowait("it")
        report = balanced(await running.wait())
    assert report.items + inside(channel) == ["it"]
    assert channel.stats().receivers == 0


@within
async def test_f10_a_cancelled_run_loses_nothing():
    channel = ab.Channel(10)
    task = asyncio.create_task(source(channel).collect().run())
    await parked(channel, receivers=1)
    channel.send_nowait("it")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert channel.stats().receivers == 0


def test_b2_two_pipelines_share_a_channel():
    channel = ab.Channel(5)
    pipelines = [source(channel).map(lambda n: n + 1).collect() for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(pipeline.run_blocking) for pipeline in pipelines]
        for number in range(3000):
            channel.send_blocking(number, timeout=DEADLINE)
        channel.close()
        reports = [balanced(run.result(DEADLINE)) for run in runs]
    assert sorted(reports[0].items + reports[1].items) == list(range(1, 3001))


# As a target.


def test_w8_what_is_no_channel_is_refused():
    with pytest.raises(ab.ConfigError, match=r"channel must be a Channel, got \[\]") as caught:
        ab.Pipeline("p").source([1]).to_channel([])
    assert caught.value.argument == "channel"
    with pytest.raises(ab.ConfigError, match="close must be True or False, got 1"):
        ab.Pipeline("p").source([1]).to_channel(ab.Channel(), close=1)


ROUND = {
    "to_channel": lambda it: ab.Pipeline("p").source(it).map(str).to_channel(it, close=False),
    "merge": lambda it: ab.Pipeline("p").merge([ab.Channel(1), ab.Source(it)]).to_channel(it),
    "target": lambda it: ab.Pipeline("p").source(it).dead_letter(it),
    "dead_letter": lambda it: ab.Pipeline("p", dead_letter=it).source(it),
    "lanes": lambda it: ab.Pipeline("p").source(it).to_channel(it),
}


@pytest.mark.parametrize("way", ROUND)
def test_f12_no_channel_is_both_read_and_sent_into(way):
    channel = ab.PriorityChannel(1, lanes=2) if way == "lanes" else ab.Channel(1)
    with pytest.raises(ab.ConfigError, match="another channel than the pipeline reads") as caught:
        ROUND[way](channel)
    argument = way if way in ("target", "dead_letter") else "channel"
    assert (caught.value.pipeline, caught.value.argument) == ("p", argument)
    assert caught.value.value is channel


@every_driver
def test_f12_the_channel_gets_everything_and_then_the_end(driver):
    channel = ab.Channel(2000)
    pipeline = ab.Pipeline("p").source(range(1000)).filter(lambda n: n % 2).to_channel(channel)
    report = balanced(go(pipeline, driver))
    assert (report.outcome, report.committed, report.filtered) == ("completed", 500, 500)
    assert list(channel) == list(range(1, 1000, 2))


@every_driver
def test_f12_windows_of_many_tenants_go_in_whole(driver):
    channel = ab.Channel(1000)
    pairs = [(n % 7, n) for n in range(500)]
    pipeline = ab.Pipeline("p").source(pairs).fan_out(by=ab.item(0)).window(max_items=10)
    report = balanced(go(pipeline.to_channel(channel), driver))
    windows = list(channel)
    assert report.committed == 500
    for tenant in range(7):
        numbers = [n for window in windows for who, n in window if who == tenant]
        assert numbers == list(range(tenant, 500, 7))


@every_driver
def test_b5_a_full_channel_holds_the_pipeline_back(driver):
    channel, most = ab.Channel(3), []
    with ThreadPoolExecutor(1) as pool:
        pipeline = ab.Pipeline("p").source(iter(range(5000))).to_channel(channel)
        run = pool.submit(go, pipeline, driver)
        got = []
        for item in channel:
            most.append(channel.stats().depth)
            got.append(item)
        report = balanced(run.result(DEADLINE))
    assert got == list(range(5000))
    assert max(most) <= 3
    assert report.committed == 5000
    stats = channel.stats()
    assert stats.senders == 0
    assert stats.blocked > 0


@within
async def test_b5_a_held_up_pipeline_takes_no_more_than_it_can_hold():
    channel, taken = ab.Channel(1), []

    def items():
        for number in range(100_000):
            taken.append(number)
            yield number

    pipeline = ab.Pipeline("p").source(items()).to_channel(channel)
    async with pipeline.start() as running:
        await parked(channel, senders=1)
        await turns(50)
        assert len(taken) < 5000
        assert channel.stats().depth == 1
        running.abort()
        report = balanced(await running.wait())
    assert report.outcome == "aborted"
    assert report.committed == 1
    assert channel.stats().senders == 0


@pytest.mark.parametrize("close", [True, False])
@every_driver
def test_f12_close_says_whether_the_channel_is_closed(driver, close):
    channel = ab.Channel(10)
    go(ab.Pipeline("p").source([1]).to_channel(channel, close=close), driver)
    assert channel.closed is close
    assert inside(channel) == [1]


@every_driver
def test_f12_a_failed_run_closes_the_channel_with_its_failure(driver):
    def items():
        yield 1
        raise ConnectionError("the source")

    channel = ab.Channel(10)
    report = balanced(go(ab.Pipeline("p").source(items()).to_channel(channel), driver))
    assert report.outcome == "failed"
    assert channel.receive_nowait() == 1
    with pytest.raises(ab.PipelineFailed, match="pipeline 'p' failed") as caught:
        channel.receive_nowait()
    assert caught.group_contains(ab.HandlerError, match="ConnectionError: the source")


def test_f12_an_aborted_run_is_no_end_either():
    channel = ab.Channel(10)

    async def main():
        async with ab.Pipeline("p").source(Live(1)).to_channel(channel).start():
            assert await channel.receive() == 1
            raise KeyError("the caller's")

    with pytest.raises(KeyError):
        asyncio.run(main())
    with pytest.raises(ab.PipelineFailed, match="pipeline 'p' aborted"):
        channel.receive_nowait()


def test_f12_a_run_that_cannot_begin_closes_the_channel_with_the_reason():
    channel = ab.Channel(10)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        source = ab.tcp_lines("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(OSError, match="in use"):
            ab.Pipeline("p").source(source).to_channel(channel).run_blocking()
    with pytest.raises(OSError, match="in use"):
        channel.receive_nowait()


def test_f12_so_does_one_whose_source_cannot_be_iterated():
    class Broken:
        def __iter__(self):
            raise OSError("no disk")

    channel = ab.Channel(10)
    report = ab.Pipeline("p").source(Broken()).to_channel(channel).run_blocking()
    assert report.outcome == "failed"
    with pytest.raises(ab.PipelineFailed, match="pipeline 'p' failed"):
        channel.receive_nowait()


@every_driver
@pytest.mark.parametrize("window", [False, True])
def test_f12_a_channel_closed_early_fails_the_item_in_hand_and_ends_the_run(driver, window):
    channel = ab.Channel(10)
    undone = []

    def mark(n, ctx):
        ctx.compensate(undone.append, n)
        return n

    def items():
        for number in range(100):
            if number == 50:
                channel.close()
            yield number

    pipeline = ab.Pipeline("p").source(items()).map(mark)
    pipeline = pipeline.window(max_items=2) if window else pipeline
    with ThreadPoolExecutor(1) as pool:
        taking = pool.submit(list, channel)
        report = balanced(go(pipeline.to_channel(channel), driver))
        got = taking.result(DEADLINE)
    assert report.outcome == "failed"
    assert report.codes == {"channel.closed": 2 if window else 1}
    assert report.failures[0].stage == "channel"
    assert (flat(got) if window else got) == list(range(report.committed))
    # What did not get in is undone.
    assert sorted(undone) == list(range(report.committed, report.received))
    with pytest.raises(ab.PipelineFailed):
        report.raise_for_failure()


def test_f12_a_channel_closed_while_the_pipeline_waits_for_room_ends_the_run():
    channel = ab.Channel(1)
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(ab.Pipeline("p").source(range(10)).to_channel(channel).run_blocking)
        asyncio.run(parked(channel, senders=1))
        channel.close()
        report = balanced(run.result(DEADLINE))
    assert (report.committed, report.codes) == (1, {"channel.closed": 1})
    assert report.left == report.received - 2


def test_b5_what_the_channel_drops_it_counts():
    channel = ab.Channel(3, on_full="drop_oldest")
    report = balanced(ab.Pipeline("p").source(range(10)).to_channel(channel).run_blocking())
    assert (report.committed, channel.stats().dropped) == (10, 7)
    assert list(channel) == [7, 8, 9]


def test_b5_what_the_channel_refuses_has_failed():
    channel = ab.Channel(3, on_full="fail")
    report = balanced(ab.Pipeline("p").source(range(10)).to_channel(channel).run_blocking())
    assert (report.committed, report.codes, report.outcome) == (3, {"channel.full": 7}, "completed")
    assert list(channel) == [0, 1, 2]


@within
async def test_e5_a_drain_that_runs_out_of_grace_waits_for_no_receiver():
    channel = ab.Channel(1)
    pipeline = ab.Pipeline("p", grace=0).source(range(10)).window(max_items=2, on_cancel="flush")
    async with pipeline.to_channel(channel).start() as running:
        await parked(channel, senders=1)
        running.drain()
        report = balanced(await running.wait())
    assert report.outcome == "aborted"
    assert report.committed == 2


@every_driver
def test_f11_pipelines_in_a_row_hand_on_the_end_and_the_failure(driver):
    def items():
        yield from range(200)
        raise ConnectionError("the source")

    for first, outcome in ((range(200), "completed"), (items(), "failed")):
        between = ab.Channel(5)
        sending = ab.Pipeline("first").source(first).to_channel(between)
        with ThreadPoolExecutor(1) as pool:
            run = pool.submit(go, sending, driver)
            report = balanced(go(source(between).collect(), driver))
            assert run.result(DEADLINE).outcome == outcome
        assert report.outcome == outcome
        assert report.items == list(range(200))


class Course:
    """A channel, a pipeline, and a channel; a thread at either end."""

    def __init__(self, count, capacities, end):
        self.count, self.end = count, end
        self.come, self.go_on = map(ab.Channel, capacities)
        self.sent, self.got = [], []
        self.running = None

    def feed(self):
        with contextlib.suppress(ab.ChannelClosed):
            for number in range(self.count):
                self.come.send_blocking(number, timeout=DEADLINE)
                self.sent.append(number)
        self.come.close(ConnectionError("the feed") if self.end == "fault" else None)

    def take(self):
        with contextlib.suppress(ab.PipelineFailed):
            for item in self.go_on:
                self.got.append(item)
                if len(self.got) == 5:
                    self.stop()

    def stop(self):
        if self.end == "close":
            self.go_on.close()
        elif self.running is not None:
            getattr(self.running, self.end)()

    async def started(self, pipeline):
        running = pipeline.start()
        if self.end in ("drain", "abort"):
            self.running = running
        async with running:
            return await running.wait()

    def run(self, pipeline, driver):
        threads = [threading.Thread(target=self.feed), threading.Thread(target=self.take)]
        for thread in threads:
            thread.start()
        try:
            if self.end in ("drain", "abort"):
                return asyncio.run(self.started(pipeline))
            return go(pipeline, driver)
        finally:
            self.come.close()
            for thread in threads:
                thread.join(DEADLINE)
                assert not thread.is_alive()


@given(
    st.integers(0, 120),
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.sampled_from(["complete", "fault", "drain", "abort", "close"]),
    st.booleans(),
    st.sampled_from(DRIVERS),
)
@settings(max_examples=100)
def test_e8_conservation_from_channel_to_channel(count, capacities, end, window, driver):
    course = Course(count, capacities, end)
    pipeline = source(course.come, seed=1)
    pipeline = pipeline.window(max_items=2, on_cancel="flush") if window else pipeline
    report = balanced(course.run(pipeline.to_channel(course.go_on), driver))
    # What came out is what was committed, in order; the rest has failed, is left, or was not taken.
    assert (flat(course.got) if window else course.got) == list(range(report.committed))
    assert report.received == course.come.stats().received
    assert report.received + len(inside(course.come)) == len(course.sent)
    assert course.come.stats().receivers == course.go_on.stats().senders == 0
    assert set(report.codes) <= {"channel.closed", "source.failed"}
