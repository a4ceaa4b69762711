"""The builder's scan, distinct, take, map_batch, merge; and that a generator is consumed once."""

import asyncio
import itertools

import pytest
from channels import drained, filled
from support import balanced, every_driver, go

import anabranch as ab


def closed(*items, **options):
    channel = filled(*items, **options)
    channel.close()
    return channel


def total(state, n):
    if n < 0:
        raise ValueError(n)
    return state + n


@every_driver
def test_t1_scan_gives_each_state_and_a_failure_leaves_it_as_it_is(driver):
    report = go(ab.Pipeline("p").source([1, 2, -1, 3]).scan(total, 0).collect(), driver)
    assert report.items == [1, 3, 6]
    assert balanced(report).codes == {"ValueError": 1}


@every_driver
def test_t12_scan_takes_the_value_of_an_ok_and_an_err_leaves_the_state_as_it_is(driver):
    def add(state, n):
        return ab.Err("two", "two") if n == 2 else ab.Ok(state + n)

    report = balanced(go(ab.Pipeline("p").source([1, 2, 3]).scan(add, 0).collect(), driver))
    assert (report.items, report.codes) == ([1, 4], {"two": 1})
    by = ab.Pipeline("p").source([1, 2, 3]).distinct(lambda n: add(0, n))
    report = balanced(go(by.collect(), driver))
    assert (report.items, report.codes) == ([1, 3], {"two": 1})


def pairs(text):
    return [(tenant, n) for n, tenant in enumerate(text)]


@every_driver
def test_t1_behind_fan_out_each_tenant_has_a_state_of_its_own(driver):
    pipeline = ab.Pipeline("p").source(pairs("abab")).fan_out(by=ab.item(0))
    pipeline = pipeline.scan(lambda seen, pair: (*seen, pair[1]), ()).collect()
    assert sorted(go(pipeline, driver).items) == [(0,), (0, 2), (1,), (1, 3)]


def test_t1_pipelines_that_share_a_beginning_share_no_state():
    sums = ab.Pipeline("p").source([1, 2]).scan(total, 0).distinct()
    for _ in range(2):
        assert sums.collect().run_blocking().items == [1, 3]


@every_driver
def test_t1_distinct_keeps_the_first_of_each_key_per_tenant(driver):
    lines = [("a", 1), ("a", 1), ("b", 1), ("a", 2), ("b", 1)]
    pipeline = ab.Pipeline("p").source(lines).distinct(by=ab.item(1)).collect()
    report = balanced(go(pipeline, driver))
    assert (report.items, report.filtered) == ([("a", 1), ("a", 2)], 3)
    pipeline = ab.Pipeline("p").source(lines).fan_out(by=ab.item(0)).distinct(by=ab.item(1))
    report = balanced(go(pipeline.collect(), driver))
    assert sorted(report.items) == [("a", 1), ("a", 2), ("b", 1)]


def test_t1_distinct_is_bounded_and_forgets_what_came_longest_ago():
    pipeline = ab.Pipeline("p").source([1, 2, 1, 3, 1, 2]).distinct(max_keys=2).collect()
    assert pipeline.run_blocking().items == [1, 2, 3, 2]


@every_driver
@pytest.mark.parametrize("how", ["generator", "async", "channel", "list"])
def test_t1_t8_take_ends_the_source_and_the_run_completes(driver, how):
    ended, channel = [], filled(*range(1000), capacity=1000)

    def numbers():
        try:
            yield from itertools.count()
        finally:
            ended.append(how)

    async def numbers_async():
        try:
            for n in itertools.count():
                yield n
        finally:
            ended.append(how)

    # The channel is not closed: only `take` can end it.
    make = {"generator": numbers, "async": numbers_async, "channel": lambda: channel}
    source = list(range(1000)) if how == "list" else make[how]()
    # A partial window leaves at the end of a source, whatever follows a drain.
    pipeline = ab.Pipeline("p").source(source).take(3).window(max_items=2, on_cancel="drop")
    report = balanced(go(pipeline.collect(), driver))
    assert (report.items, report.outcome) == ([[0, 1], [2]], "completed")
    if how == "async":
        assert report.filtered == report.received - 3
    else:
        # Nothing is taken that cannot be let through.
        assert (report.received, report.filtered) == (3, 0)
    assert ended == ([how] if how in ("generator", "async") else [])
    assert channel.depth == (997 if how == "channel" else 1000)


@every_driver
def test_t1_the_least_take_counts_and_what_it_lets_through_is_whole(driver):
    source = ab.Pipeline("p").source(itertools.count()).take(1000)
    pipeline = source.filter(lambda n: n % 2).take(300).flat_map(lambda n: [n, n]).take(5)
    report = balanced(go(pipeline.collect(), driver))
    assert (report.items, report.outcome) == ([1, 1, 3, 3, 5], "completed")
    assert go(ab.Pipeline("p").source(range(9)).take(10).collect(), driver).items == [*range(9)]


def test_t1_behind_fan_out_take_counts_for_each_tenant():
    pipeline = ab.Pipeline("p").source([*"abaabbcab"]).fan_out(by=lambda it: it).take(2)
    report = balanced(pipeline.collect().run_blocking())
    assert sorted(report.items) == [*"aabbc"]
    assert (report.received, report.filtered, report.outcome) == (9, 4, "completed")


@ab.testing.virtual_time
async def test_t1_take_behind_what_is_awaited_lets_those_under_way_go(clock):
    async def wait(n):
        await asyncio.sleep(1)
        return n

    source = ab.Pipeline("p", grace=0.1).source(itertools.count())
    pipeline = source.map(wait, concurrency=4).take(2).for_each(wait).start()
    async with pipeline as running:
        report = balanced(await running.wait())
    # No drain: nothing is cut short after the grace.
    assert (report.committed, report.outcome, report.failed) == (2, "completed", 0)


def test_t1_distinct_by_the_name_of_an_entry_and_the_least_that_are_allowed():
    rows = [{"id": 1}, {"id": 1}, {"id": 2}, {"id": 1}]
    pipeline = ab.Pipeline("p").source(rows)
    assert pipeline.distinct(by="id").collect().run_blocking().items == [{"id": 1}, {"id": 2}]
    # One that remembers a single key takes out what comes twice in a row.
    one = pipeline.distinct(by="id", max_keys=1).collect().run_blocking()
    assert one.items == [{"id": 1}, {"id": 2}, {"id": 1}]
    assert pipeline.take(1).collect().run_blocking().items == [{"id": 1}]


def test_t4_an_item_that_cannot_be_a_key_is_a_failure():
    report = ab.Pipeline("p").source([[1], 2]).distinct().collect().run_blocking()
    assert (report.items, report.codes) == ([2], {"TypeError": 1})


@every_driver
def test_t1_map_batch_works_on_many_at_once_per_branch(driver):
    async def label(batch):
        return [(len(batch), n) for _, n in batch]

    pipeline = ab.Pipeline("p").source(pairs("aabab")).fan_out(by=ab.item(0))
    report = go(pipeline.map_batch(label, max_items=2).collect(), driver)
    assert sorted(balanced(report).items) == [(1, 3), (2, 0), (2, 1), (2, 2), (2, 4)]


@every_driver
def test_f2_m1_a_pipeline_reads_many_channels_by_a_strategy(driver):
    channels = [closed(*"aaa", name="a"), closed(*"bb", name="b")]
    pipeline = ab.Pipeline("p").merge(channels, strategy=ab.Strategy.priority([1, 0]))
    assert "".join(balanced(go(pipeline.collect(), driver)).items) == "bbaaa"


def test_f11_a_channel_that_failed_ends_the_run_as_failed():
    faulty = filled("x", name="faulty")
    faulty.close(OSError("torn"))
    report = ab.Pipeline("p").merge([faulty]).collect().run_blocking()
    assert (report.items, report.outcome) == (["x"], "failed")


def test_f5_what_a_drained_pipeline_has_not_taken_stays_in_the_channels():
    channels = [filled(*range(5000), capacity=5000), ab.Channel()]

    async def main():
        entered = asyncio.Event()

        async def slow(item):
            entered.set()
            await asyncio.sleep(1.0)

        pipeline = ab.Pipeline("p", max_in_flight=1).merge(channels).for_each(slow)
        async with pipeline.start() as running:
            await entered.wait()
            running.drain()
            return await running.wait()

    report = balanced(ab.testing.run(main()))
    rest = drained(channels[0])
    assert rest == list(range(report.received, 5000))
    assert rest
    assert channels[0].stats().receivers == channels[1].stats().receivers == 0


def test_t7_a_generator_is_consumed_by_one_pipeline():
    numbers = (n for n in range(3))
    first = ab.Pipeline("first").source(numbers)
    assert first.collect().run_blocking().items == [0, 1, 2]
    for again in (first, ab.Pipeline("second").source(numbers)):
        with pytest.raises(ab.ClosedError, match=r"is a generator that another run has taken"):
            again.collect().run_blocking()


@pytest.mark.parametrize(
    ("add", "said"),
    [
        (lambda p: p.scan(1, 0), "fn must be a def that is given the state"),
        (lambda p: p.scan(lambda s, n, ctx: n, 0), "fn must be a def that is given the state"),
        (lambda p: p.take(0), "count must be an int >= 1, got 0"),
        (lambda p: p.take("3"), "count must be an int >= 1, got '3'"),
        (lambda p: p.distinct(max_keys=0), "max_keys must be an int >= 1, got 0"),
        (lambda p: p.distinct(max_keys="3"), "max_keys must be an int >= 1, got '3'"),
        (lambda p: p.distinct(by=" "), "by must be the name of an entry"),
        (lambda p: p.distinct(by=1), "by must be a callable"),
        (lambda p: p.map_batch(len), "max_items must be an int >= 1 where neither"),
        (lambda p: p.merge([ab.Channel()]), "source"),
        (lambda _: ab.Pipeline("p").merge(1), "readers must be an iterable"),
        (lambda _: ab.Pipeline("p").merge([], strategy="x"), "strategy must be a Strategy"),
    ],
)
def test_a_bad_argument_is_refused(add, said):
    with pytest.raises(ab.ConfigError, match=said):
        add(ab.Pipeline("p").source([1]))


@every_driver
def test_t7_a_list_fails_as_a_whole_also_where_a_generator_has_begun(driver):
    undone = []

    def enrich(batch, ctx):
        ctx.compensate(undone.append, list(batch))
        for item in batch:
            if item == 5:
                raise ConnectionError(item)
            yield item

    report = balanced(
        go(ab.Pipeline("p").source(range(8)).map_batch(enrich, max_items=4).collect(), driver)
    )
    assert report.items == [0, 1, 2, 3]
    assert undone == [[4, 5, 6, 7]]
    assert (report.failed, report.received) == (4, 8)
