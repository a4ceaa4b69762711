"""Courses of copies: tee, broadcast and share in the builder. The rows T1, T7 and B1."""

import asyncio
import re

import pytest
from support import balanced, every_driver, go, within

import anabranch as ab


def numbers(count=5, **options):
    return ab.Pipeline("p", **options).source(range(count))


@every_driver
def test_b1_every_course_sees_all_items_in_the_same_order(driver):
    audit, log = [], []
    pipeline = numbers(500).broadcast(
        audit=lambda s: s.for_each(audit.append, inline=True),
        log=lambda s: s.map(str).for_each(log.append, inline=True),
        main=lambda s: s.map(lambda n: n * 2).collect(),
    )
    report = balanced(go(pipeline, driver))
    assert audit == list(range(500))
    assert log == [str(n) for n in range(500)]
    assert report.items == [n * 2 for n in range(500)]
    assert (report.received, report.produced, report.committed) == (500, 1000, 1500)


@every_driver
def test_t7_a_tee_lets_the_items_go_on_as_they_were(driver):
    seen = []

    async def note(item):
        await asyncio.sleep(0)
        seen.append(item)

    pipeline = numbers().tee(lambda s: s.filter(lambda n: n % 2).for_each(note)).collect()
    report = balanced(go(pipeline, driver))
    assert (report.items, seen) == ([0, 1, 2, 3, 4], [1, 3])
    assert (report.produced, report.filtered, report.committed) == (5, 3, 7)


def test_t7_shared_with_channels_each_consumer_gets_all():
    one, two = ab.Channel(100), ab.Channel(100)
    report = balanced(numbers().share(one, two).collect().run_blocking())
    assert report.items == list(one) == list(two) == [0, 1, 2, 3, 4]


def test_t7_the_channels_of_others_stay_open_on_request():
    one = ab.Channel(100)
    numbers(1).share(one, close=False).collect().run_blocking()
    assert one.receive_nowait() == 0
    assert not one.closed


def test_t7_a_generator_given_to_two_runs_is_a_clear_error():
    items = (n for n in range(3))
    ab.Pipeline("one").source(items).collect().run_blocking()
    with pytest.raises(ab.ClosedError, match="share"):
        ab.Pipeline("two").source(items).collect().run_blocking()


@every_driver
def test_c17_what_was_done_before_is_undone_when_a_copy_fails_and_only_for_its_item(driver):
    undone, kept = [], []

    def reserve(n, ctx):
        ctx.compensate(undone.append, n)
        return n

    def audit(n):
        if n == 2:
            raise OSError("the audit is full")

    def keep(n, ctx):
        kept.append(n)
        ctx.compensate(kept.remove, n)

    pipeline = numbers().map(reserve).tee(lambda s: s.for_each(audit)).for_each(keep)
    report = balanced(go(pipeline, driver))
    assert undone == [2]
    # What the other copy did itself has ended well: it stays.
    assert kept == [0, 1, 2, 3, 4]
    assert (report.failed, report.committed, report.codes) == (1, 9, {"OSError": 1})


@ab.testing.virtual_time
async def test_c17_what_copies_stand_on_is_undone_after_what_a_copy_has_done():
    log = []

    def reserve(item, ctx):
        ctx.compensate(log.append, "reserve undone")
        return item

    async def withdraw():
        log.append("audit begins")
        await asyncio.sleep(3.0)  # the other copy ends meanwhile
        log.append("audit undone")

    async def audit(_item, ctx):
        ctx.compensate(withdraw)
        raise OSError

    async def main(_item):
        await asyncio.sleep(1.0)

    pipeline = ab.Pipeline("p").source(["x"]).map(reserve).tee(lambda s: s.for_each(audit))
    await pipeline.for_each(main).run()
    assert log == ["audit begins", "audit undone", "reserve undone"]


@within
async def test_c17_the_undo_waits_until_both_copies_have_ended():
    failed, released, log = asyncio.Event(), asyncio.Event(), []

    def reserve(n, ctx):
        ctx.compensate(log.append, "undone")
        return n

    def fails(_n):
        log.append("failed")
        failed.set()
        raise OSError("no")

    async def slow(_n):
        await released.wait()
        log.append("slow")

    pipeline = numbers(1).map(reserve).tee(lambda s: s.for_each(fails, inline=True))
    async with pipeline.for_each(slow).start() as running:
        await failed.wait()
        released.set()
        await running.wait()
    assert log == ["failed", "slow", "undone"]


def test_t3_the_failures_of_copies_stay_in_their_course():
    def fails(n):
        if n == 1:
            raise ValueError("copy")
        return n

    own = []
    pipeline = (
        numbers(3)
        .tee(lambda s: s.map(fails).for_each(own.append, inline=True), name="audit")
        .recover(lambda _failure: -1)
        .collect()
    )
    report = balanced(pipeline.run_blocking())
    # Recovered, it would be one item too many there.
    assert (report.items, own) == ([0, 1, 2], [0, 2])
    assert report.codes == {"ValueError": 1}


def test_t3_the_operators_of_a_course_take_its_failures_and_those_behind_all_sinks_the_rest():
    def fails(n):
        raise (ValueError if n == 1 else KeyError)(n)

    inner, outer = [], []
    pipeline = (
        numbers(3)
        .tee(lambda s: s.for_each(fails, inline=True).dead_letter(inner.append, types=ValueError))
        .collect()
        .dead_letter(outer.append)
    )
    report = balanced(pipeline.run_blocking())
    assert report.items == [0, 1, 2]
    assert [failure.item for failure in inner] == [1]
    assert [failure.item for failure in outer] == [0, 2]
    assert (report.dead_lettered, report.failed) == (3, 0)


def test_what_a_course_recovers_goes_on_in_it():
    def fails(n):
        if n == 1:
            raise ValueError("copy")
        return n

    copies = []
    pipeline = numbers(3).tee(
        lambda s: (
            s.map(fails)
            .recover(lambda failure: failure.item * 10)
            .map(str)
            .for_each(copies.append, inline=True)
        )
    )
    report = balanced(pipeline.collect().run_blocking())
    assert sorted(copies) == ["0", "10", "2"]
    assert report.items == [0, 1, 2]


def test_t4_dead_letters_of_the_pipeline_take_those_of_all_courses():
    letters = []

    def fails(_n):
        raise OSError("copy")

    pipeline = numbers(2, on_error="dead_letter", dead_letter=letters.append)
    report = balanced(pipeline.tee(lambda s: s.for_each(fails)).collect().run_blocking())
    assert [failure.code for failure in letters] == ["OSError", "OSError"]
    assert report.dead_lettered == 2


def test_courses_behind_a_fan_out_are_the_tenant_s():
    seen = []

    def note(window, ctx):
        seen.append((ctx.tenant, window))

    pipeline = (
        numbers(6)
        .fan_out(by=lambda n: n % 2)
        .tee(lambda s: s.window(max_items=2).for_each(note))
        .map(lambda n: n + 10)
        .collect()
    )
    report = balanced(pipeline.run_blocking())
    assert sorted(seen) == [(0, [0, 2]), (0, [4]), (1, [1, 3]), (1, [5])]
    assert sorted(report.items) == [10, 11, 12, 13, 14, 15]
    assert [(it.tenant, it.committed) for it in report.branches] == [(0, 6), (1, 6)]


def test_courses_in_courses_and_in_front_of_a_fan_out():
    one, two, three = [], [], []
    pipeline = (
        numbers(4)
        .tee(
            lambda s: s.tee(lambda t: t.map(str).for_each(one.append, inline=True)).for_each(
                two.append, inline=True
            )
        )
        .fan_out(by=lambda n: n % 2)
        .for_each(three.append, inline=True)
    )
    report = balanced(pipeline.run_blocking())
    assert (one, two, sorted(three)) == (["0", "1", "2", "3"], [0, 1, 2, 3], [0, 1, 2, 3])
    assert (report.produced, report.committed) == (8, 12)


def test_e8_the_copy_of_a_window_stands_for_all_of_its_items():
    pipeline = numbers(5).window(max_items=5).tee(lambda s: s.for_each(print_nothing)).collect()
    report = balanced(pipeline.run_blocking())
    assert report.items == [[0, 1, 2, 3, 4]]
    assert (report.received, report.produced, report.committed) == (5, 5, 10)


def print_nothing(_value):
    pass


@ab.testing.virtual_time
async def test_w16_the_windows_of_a_course_are_its_own(clock):
    async def source():
        for n in range(4):
            yield n
            await asyncio.sleep(1.0)

    copies = []
    pipeline = (
        ab.Pipeline("p")
        .source(source())
        .tee(lambda s: s.window(max_age=2.5).for_each(copies.append, inline=True))
        .window(max_items=2)
        .collect()
    )
    report = balanced(await pipeline.run())
    assert report.items == [[0, 1], [2, 3]]
    assert copies == [[0, 1, 2], [3]]
    assert clock.now() == 4.0


@within
async def test_b6_a_full_course_holds_the_source_back_and_loses_nothing():
    released, seen, taken = asyncio.Event(), [], 0

    async def source():
        nonlocal taken
        for n in range(5000):
            taken = n
            yield n

    async def slow(n):
        await released.wait()
        seen.append(n)

    pipeline = ab.Pipeline("p").source(source()).tee(lambda s: s.for_each(slow)).collect()
    async with pipeline.start() as running:
        before = -1
        while before != taken:
            before = taken
            for _ in range(50):
                await asyncio.sleep(0)
        assert taken < 4999
        released.set()
        report = await running.wait()
    assert seen == report.items == list(range(5000))


def test_take_among_copies_leaves_the_source_alone():
    first = []
    pipeline = numbers(5).tee(lambda s: s.take(2).for_each(first.append, inline=True)).collect()
    report = balanced(pipeline.run_blocking())
    assert (first, report.items) == ([0, 1], [0, 1, 2, 3, 4])


def test_v2_courses_are_listed_and_drawn():
    pipeline = (
        numbers()
        .tee(lambda s: s.map(str).for_each(print_nothing), name="audit")
        .for_each(print_nothing)
    )
    listed = [line.rstrip() for line in pipeline.describe().splitlines()[1:]]
    assert listed == [
        "  1  source      range            how=iterable, label=range",
        "  2  tee         audit",
        "  3    map       str",
        "  4    for_each  print_nothing",
        "  5  for_each    print_nothing_2",
    ]
    arrows = re.findall(r"s(\d) --> s(\d)", pipeline.mermaid())
    assert arrows == [("1", "2"), ("2", "3"), ("3", "4"), ("2", "5")]
    assert [stage.course for stage in pipeline.stages] == [None, None, "audit", "audit", None]


def test_v1_what_a_course_does_is_seen():
    pipeline = numbers().tee(lambda s: s.for_each(print_nothing, name="audit")).collect()

    async def main():
        async with pipeline.start() as running:
            await running.wait()
        return running.report

    report = asyncio.run(main())
    assert report.committed == 10


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda p: p.tee(None), "course must be a def"),
        (lambda p: p.tee(lambda s: None), "one that returned None"),
        (lambda p: p.tee(lambda s: s.map(str)), "sink"),
        (lambda p: p.tee(lambda s: numbers().collect()), "one that returned <Pipeline"),
        (lambda p: p.tee(lambda s: s), "sink"),
        (lambda p: p.broadcast(one=lambda s: s.collect()), "at least two"),
        (
            lambda p: p.broadcast(a=lambda s: s.collect(), b=lambda s: s.collect()),
            "one list of items",
        ),
        (lambda p: p.broadcast(a=lambda s: s.for_each(print), b=lambda s: s.map(str)), "b must be"),
        (lambda p: p.tee(lambda s: s.fan_out(by=str).for_each(print)), "copies"),
        (lambda p: p.share(), "at least one"),
        (lambda p: p.share("no channel"), "a Channel"),
        (lambda p: ab.Pipeline("p").tee(lambda s: s.collect()), "must come first"),
        (lambda p: p.collect().tee(lambda s: s.collect()), "nothing can follow the sink"),
    ],
)
def test_what_a_course_cannot_be_is_refused_at_once(wrong, message):
    with pytest.raises(ab.ConfigError, match=re.escape(message)):
        wrong(numbers())


def test_a_course_is_not_run_by_itself():
    with pytest.raises(ab.ConfigError, match="no pipeline by itself"):
        numbers().tee(lambda s: s.collect().run_blocking())


def test_a_course_that_nothing_follows_is_missing_its_sink():
    pipeline = numbers().tee(lambda s: s.for_each(print_nothing))
    with pytest.raises(ab.ConfigError, match="no sink"):
        pipeline.run_blocking()
