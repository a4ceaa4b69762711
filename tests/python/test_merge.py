"""`ab.merge`: many readers as one, in the order a strategy says."""

import asyncio
import math
import time
from decimal import Decimal

import pytest
from channels import conserved, drained, filled, in_thread, parked
from support import DEADLINE, balanced, every_driver, go, within

import anabranch as ab


async def later(_):
    return 0


def closed(*items, name="channel"):
    channel = filled(*items, name=name)
    channel.close()
    return channel


def three():
    return [
        closed("a1", "a2", "a3", name="a"),
        closed("b1", name="b"),
        closed("c1", "c2", name="c"),
    ]


ORDERS = {
    "round_robin": "a1 b1 c1 a2 c2 a3",
    "drain_first": "a1 a2 a3 b1 c1 c2",
    "sticky": "a1 a2 a3 b1 c1 c2",
    "longest_queue": "a1 c1 a2 b1 c2 a3",
    "oldest_first": "a1 b1 c1 a2 c2 a3",
}


@pytest.mark.parametrize("strategy", ORDERS)
def test_m1_m6_each_built_in_strategy_gives_its_order_every_time(strategy):
    for _ in range(3):
        assert " ".join(ab.merge(three(), strategy=strategy)) == ORDERS[strategy]


def test_m1_priority_by_level_and_weights_by_share():
    priority = ab.Strategy.priority([1, 1, 0])
    assert " ".join(ab.merge(three(), strategy=priority)) == "c1 c2 a1 b1 a2 a3"
    weighted = ab.Strategy.weighted([1, 1, 2])
    assert " ".join(ab.merge(three(), strategy=weighted)) == "a1 b1 c1 c2 a2 a3"


def test_m1_aging_is_by_the_virtual_clock():
    async def main():
        low, high = filled("low", name="low"), ab.Channel(10, name="high")
        merged = ab.merge([low, high], strategy=ab.Strategy.priority([1, 0], aging=5.0))
        received = []
        for second in range(7):
            high.send_nowait(second)
            received.append(await merged.receive())
            await asyncio.sleep(1.0)
        merged.close()
        return received

    received = ab.testing.run(main())
    assert received == ab.testing.run(main())
    assert 4 <= received.index("low") <= 6


def test_m1_oldest_first_makes_one_ordered_stream_of_ordered_ones():
    logs = [closed((1, "a"), (4, "a")), closed((2, "b"), (3, "b"), (9, "b")), closed((0, "c"))]
    by_time = ab.Strategy.oldest_first(by=lambda line: line[0])
    assert [line[0] for line in ab.merge(logs, strategy=by_time)] == [0, 1, 2, 3, 4, 9]


def test_m1_a_custom_strategy_sees_readiness_depth_and_age():
    seen = []

    async def main():
        quick, idle = filled(1, 2, name="quick"), ab.Channel(name="idle")

        def choose(sources):
            seen.append([(it.name, it.ready, it.depth, it.age, it.ended) for it in sources])
            return 0

        async with ab.merge([quick, idle], strategy=choose) as merged:
            await merged.receive()
            await asyncio.sleep(3.0)
            idle.close()
            await merged.receive()

    ab.testing.run(main())
    assert seen[0] == [("quick", True, 2, 0.0, False), ("idle", False, 0, 0.0, False)]
    assert seen[-1] == [("quick", True, 1, 0.0, False), ("idle", False, 0, 0.0, True)]


def test_m2_m4_a_choice_that_is_not_ready_or_finished_holds_up_nobody():
    idle, gone = ab.Channel(name="idle"), closed(name="gone")
    ready = closed(1, 2, 3, name="ready")
    for choice in (0, 1):
        merged = ab.merge([idle, gone, ready], strategy=lambda _, choice=choice: choice)
        assert merged.receive_nowait() in (1, 2)
        merged.close()
    assert drained(ready) == [3]


@within
async def test_m2_it_waits_where_it_says_so():
    first, second = filled("early", name="first"), ab.Channel(name="second")
    asked = 0

    def second_first(sources):
        nonlocal asked
        asked += 1
        return 1 if sources[1].ready else None

    merged = ab.merge([first, second], strategy=second_first)
    receiving = asyncio.ensure_future(merged.receive())
    await parked(second, receivers=1)
    for _ in range(20):
        await asyncio.sleep(0)
    # M3: asked again when another one is ready, and no sooner.
    assert asked == 1
    second.send_nowait("late")
    assert await receiving == "late"
    assert asked == 2
    merged.close()


@pytest.mark.parametrize("answer", [3, -1, "a", 1.0, True])
def test_m3_an_answer_that_is_no_source_is_an_error(answer):
    merged = ab.merge(three(), strategy=lambda _: answer)
    for _ in range(2):
        with pytest.raises(ab.ConfigError, match="None or the number of a source, an int from 0"):
            merged.receive_nowait()


@within
async def test_m3_none_where_no_other_source_can_become_ready_is_an_error_and_no_hang():
    merged = ab.merge([closed(1, name="a"), closed(name="b")], strategy=lambda _: None)
    with pytest.raises(ab.ConfigError, match=r"lambda> returns must be the number of a source .*N"):
        await merged.receive()
    source = filled(1)
    with pytest.raises(ab.ConfigError, match=r"fan_in: what the strategy .* no other can become"):
        await ab.fan_in([source], print, strategy=lambda _: None)
    assert drained(source) == [1]


@within
async def test_m5_an_exception_of_the_strategy_fails_the_merge_and_closes_the_destination_with_it():
    sources, into = three(), ab.Channel(10)

    def broken(_):
        raise LookupError("which one?")

    with pytest.raises(LookupError) as failed:
        await ab.merge(sources, strategy=broken).into(into)
    assert failed.value.__notes__ == ["anabranch: in the strategy of merge"]
    with pytest.raises(LookupError, match="which one"):
        await into.receive()
    # F5: nothing was taken.
    assert [source.depth for source in sources] == [3, 1, 2]


def test_m5_so_does_one_of_the_key_of_oldest_first():
    merged = ab.merge([closed("x")], strategy=ab.Strategy.oldest_first(by=int))
    with pytest.raises(ValueError, match="invalid literal"):
        merged.receive_nowait()


def test_m5_and_a_key_that_is_no_number():
    merged = ab.merge([closed("x")], strategy=ab.Strategy.oldest_first(lambda _: None))
    with pytest.raises(ab.ConfigError, match=r"merge: what the key .*returns must be a number"):
        merged.receive_nowait()
    merged = ab.merge([closed("2"), closed("1")], strategy=ab.Strategy.oldest_first(Decimal))
    assert list(merged) == ["1", "2"]


def test_f1_no_readers_are_a_merge_that_has_ended():
    assert list(ab.merge([])) == []


@within
async def test_f2_f6_every_item_is_received_once_and_in_order_from_threads_and_tasks():
    channels = [ab.Channel(4, name=str(n)) for n in range(5)]

    def produce(number):
        for item in range(200):
            channels[number].send_blocking((number, item))
        channels[number].close()

    producers = [in_thread(produce, number) for number in range(5)]
    merged = ab.merge(channels)
    received = [item async for item in merged]
    for producer in producers:
        producer.result(DEADLINE)
    assert sorted(received) == [(number, item) for number in range(5) for item in range(200)]
    for number in range(5):
        of_one = [item for source, item in received if source == number]
        assert of_one == list(range(200))
    assert merged.received == {str(n): 200 for n in range(5)}


def test_f2_a_thread_waits_for_it_too():
    channels = [ab.Channel(2), ab.Channel(2)]
    receiving = in_thread(lambda: list(ab.merge(channels)))
    for number in range(10):
        channels[number % 2].send_blocking(number)
    for channel in channels:
        channel.close()
    assert sorted(receiving.result(DEADLINE)) == list(range(10))


@within
async def test_f11_a_fault_is_raised_at_once_after_its_own_items():
    faulty, open_one = filled("x", name="faulty"), ab.Channel(name="open")
    faulty.close(OSError("torn"))
    merged = ab.merge([faulty, open_one])
    assert await merged.receive() == "x"
    for _ in range(2):
        with pytest.raises(OSError, match="torn") as failed:
            await merged.receive()
    assert "anabranch: in source 'faulty' of merge" in failed.value.__notes__


def test_f11_or_when_the_others_have_ended_or_not_at_all():
    def sources():
        faulty = ab.Channel(name="faulty")
        faulty.close(OSError("torn"))
        return [faulty, closed(1, 2)]

    drain = ab.merge(sources(), on_fault="drain")
    assert [drain.receive_nowait(), drain.receive_nowait()] == [1, 2]
    with pytest.raises(OSError, match="torn"):
        next(drain)
    quarantine = ab.merge(sources(), on_fault="quarantine")
    assert list(quarantine) == [1, 2]
    assert list(quarantine.faults) == ["faulty"]


@within
async def test_f12_the_destination_completes_or_stays_open_as_wanted():
    into = ab.Channel(10)
    assert await ab.merge(three()).into(into, close_destination=False) == 6
    assert not into.closed
    into = ab.Channel(2)
    pouring = asyncio.ensure_future(ab.merge(three()).into(into))
    assert len([item async for item in into]) == 6
    assert await pouring == 6


@within
async def test_f12_a_destination_closed_early_is_an_error_and_the_item_is_put_back():
    source, into = filled(1, 2, 3), ab.Channel(1)
    pouring = asyncio.ensure_future(ab.merge([source]).into(into))
    await parked(into, senders=1)
    into.close()
    with pytest.raises(ab.ChannelClosed):
        await pouring
    assert drained(into) == [1]
    assert drained(source) == [2, 3]
    conserved(source)


@within
async def test_f10_a_cancelled_into_puts_its_item_back_and_closes_with_the_reason():
    source, into = filled(1, 2, 3), ab.Channel(1)
    pouring = asyncio.ensure_future(ab.merge([source]).into(into))
    await parked(into, senders=1)
    pouring.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pouring
    assert into.receive_nowait() == 1
    with pytest.raises(ab.Cancelled):
        into.receive_nowait()
    assert drained(source) == [2, 3]


@within
async def test_g8_it_is_cancelled_by_its_context():
    stop = ab.Cancel()
    into = ab.Channel(1)
    ctx = ab.Context("job", cancel=stop)
    pouring = asyncio.ensure_future(ab.merge([ab.Channel()]).into(into, ctx=ctx))
    await asyncio.sleep(0)
    stop.cancel("enough")
    with pytest.raises(ab.Cancelled, match="enough"):
        await pouring


def test_f12_into_a_channel_from_a_thread():
    into = ab.Channel(10)
    assert ab.merge(three()).into_blocking(into) == 6
    assert into.closed
    assert len(drained(into)) == 6


@within
async def test_it_has_one_reader_at_a_time():
    channel = ab.Channel()
    merged = ab.merge([channel])
    first = asyncio.ensure_future(merged.receive())
    await parked(channel, receivers=1)
    with pytest.raises(ab.ClosedError, match="one reader"):
        await merged.receive()
    channel.send_nowait(1)
    assert await first == 1
    merged.close()


@within
async def test_a_timeout_takes_nothing():
    channel = ab.Channel()
    merged = ab.merge([channel])
    for seconds in (0, -1, 0.001):
        with pytest.raises(TimeoutError):
            await merged.receive(timeout=seconds)
    channel.send_nowait(1)
    assert await merged.receive(timeout=0) == 1
    merged.close()


def test_a_timeout_in_a_thread():
    merged = ab.merge([ab.Channel()])
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        merged.receive_blocking(timeout=0.01)
    assert time.monotonic() >= began + 0.01
    merged.close()
    with pytest.raises(ab.ChannelClosed, match="the merge was closed"):
        merged.receive_nowait()


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        (5, {}, "merge: readers must be an iterable of Channels and Sources, got 5"),
        (["a"], {}, r"merge: readers\[0\] must be a Channel or a Source, got 'a'"),
        (None, {"strategy": "fair"}, "strategy must be a Strategy, a callable or one of"),
        (None, {"on_fault": "stop"}, "on_fault must be 'fail_fast', 'drain' or 'quarantine'"),
        (None, {"strategy": ab.Strategy.weighted([1])}, "one of its weights for each of the 3"),
        (None, {"strategy": ab.Strategy.priority([1])}, "one of its levels for each of the 3"),
    ],
)
def test_a_bad_argument_is_refused(arguments, options, said):
    with pytest.raises(ab.ConfigError, match=said):
        ab.merge(three() if arguments is None else arguments, **options)


def test_a_channel_is_merged_once():
    channel = ab.Channel()
    with pytest.raises(ab.ConfigError, match=r"readers\[1\] must be another channel"):
        ab.merge([channel, channel])


@pytest.mark.parametrize(
    "make",
    [
        lambda: ab.Strategy.priority([]),
        lambda: ab.Strategy.priority([0, -1]),
        lambda: ab.Strategy.priority([0, True]),
        lambda: ab.Strategy.priority([0], aging=0),
        lambda: ab.Strategy.weighted([1, 0]),
        lambda: ab.Strategy.weighted([1, float("nan")]),
        lambda: ab.Strategy.weighted("12"),
        lambda: ab.Strategy.oldest_first(by="ts"),
        lambda: ab.Strategy.oldest_first(by=later),
        lambda: ab.Strategy.custom(1),
        lambda: ab.Strategy.custom(later),
        lambda: ab.Strategy.custom(lambda: 0),
    ],
)
def test_m1_a_strategy_checks_what_it_is_given(make):
    with pytest.raises(ab.ConfigError, match="strategy '"):
        make()


def broken(*items, name):
    channel = ab.Channel(10, name=name)
    channel.send_many_nowait(items)
    channel.close(ConnectionError(f"{name} is gone"))
    return channel


@every_driver
def test_f11_what_a_pipelines_merge_sets_aside_is_a_failure_of_the_run(driver):
    one, two, three = broken(1, 2, name="one"), broken(name="two"), ab.Channel(10, name="three")
    three.send_many_nowait([3, 4])
    three.close()
    pipeline = ab.Pipeline("p").merge([one, two, three], on_fault="quarantine").collect()
    report = balanced(go(pipeline, driver))
    assert sorted(report.items) == [1, 2, 3, 4]
    assert report.codes == {"ConnectionError": 2}
    assert sorted(str(failure.error) for failure in report.failures) == [
        "one is gone",
        "two is gone",
    ]


def test_f11_a_drain_tells_of_every_source_that_has_failed():
    merged = ab.merge([broken(1, name="one"), broken(2, name="two")], on_fault="drain")
    items = []
    with pytest.raises(ConnectionError, match="one is gone") as caught:
        items.extend(merged)
    assert sorted(items) == [1, 2]
    assert any("'two'" in note and "two is gone" in note for note in caught.value.__notes__)


@within
async def test_m7_a_merge_into_one_of_its_sources_is_refused_for_it_would_never_end():
    source = closed(1)
    merged = ab.merge([source, closed(2)])
    with pytest.raises(ab.ConfigError, match="a channel that is not one of the sources"):
        await merged.into(source)
    with pytest.raises(ab.ConfigError, match="a channel that is not one of the sources"):
        await asyncio.to_thread(merged.into_blocking, source)
    assert sorted([item async for item in merged]) == [1, 2]


def test_m5_a_key_of_oldest_first_that_is_not_a_number_is_refused():
    merged = ab.merge([closed("x")], strategy=ab.Strategy.oldest_first(lambda _: math.nan))
    with pytest.raises(ab.ConfigError, match="'oldest_first' returns must be a number, got nan"):
        next(merged)
