"""Inline stages in front of branches that refuse what comes, and failures in a row: B4, B7, B10."""

import asyncio

import pytest
from support import Live, Seen, balanced, go

import anabranch as ab


def keyed(source, **options):
    return ab.Pipeline("p").source(source).fan_out(by=lambda item: item[0], **options)


class Calls:
    """A `def` that notes what it is called with, and fails where it is told to."""

    def __init__(self, fails=lambda item: False):
        self.items = []
        self.fails = fails

    def __call__(self, item):
        self.items.append(item)
        if self.fails(item):
            raise OSError(item)
        return item


def plain(pipeline, calls):
    return pipeline.map(calls)


def tracked(pipeline, calls):
    return pipeline.tap(lambda item, ctx: None).map(calls)


def grown(pipeline, calls):
    return pipeline.flat_map(lambda item: [item]).filter(lambda item: True).map(calls)


def behind_a_leg(pipeline, calls):
    return pipeline.window(max_items=1).map(lambda window: calls(window[0]))


def recovered(pipeline, calls):
    def broken(item):
        raise ValueError(item)

    pipeline = pipeline.tap(broken).recover(lambda failure: failure.item, codes="ValueError")
    return pipeline.map(calls)


SHAPES = [plain, tracked, grown, recovered]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("command", "code"), [("fail", "failed"), ("remove", "removed")])
@ab.testing.virtual_time
async def test_b4_no_inline_stage_is_called_for_what_a_branch_refuses(clock, shape, command, code):
    calls, source, seen = Calls(), Live(), Seen()
    pipeline = shape(keyed(source), calls).for_each(seen, inline=True)
    async with pipeline.start() as running:
        source.put("a1", "b1")
        await clock.advance(0.0)
        getattr(running.branch("a"), command)()
        source.put("a2", "b2", "a3")
        await clock.advance(0.0)
        assert sorted(calls.items) == ["a1", "b1", "b2"]
        running.branch("a").restart()
        source.put("a4")
        source.end()
        report = balanced(await running.wait())
    assert sorted(seen.items) == sorted(calls.items) == ["a1", "a4", "b1", "b2"]
    code = f"branch.{code}"
    assert report.codes[code] == 2
    refused = [failure for failure in report.failures if failure.code == code]
    assert [(it.stage, it.tenant, it.item) for it in refused] == [
        ("fan_out", "a", "a2"),
        ("fan_out", "a", "a3"),
    ]
    assert report.branch("a").received == 4


@ab.testing.virtual_time
async def test_b4_while_a_branch_is_about_to_be_removed_it_refuses_and_otherwise_waits(clock):
    calls, source = Calls(), Live()
    async with plain(keyed(source), calls).window(max_items=9).collect().start() as running:
        for command in ("pause", "resume", "drain"):
            running.add_branch("a") if command == "pause" else None
            getattr(running.branch("a"), command)()
            source.put(f"a-{command}")
            await clock.advance(0.0)
        assert calls.items == ["a-pause", "a-resume", "a-drain"]
        source.end()
        balanced(await running.wait())


@ab.testing.virtual_time
async def test_b7_what_a_failed_branch_passes_on_meets_no_further_stage(clock):
    calls, source = Calls(), Live()

    async def slow(item):
        await asyncio.sleep(10.0)
        return item

    pipeline = keyed(source).map(slow).map(calls).collect()
    async with pipeline.start() as running:
        source.put("a1", "b1")
        await clock.advance(1.0)
        running.branch("a").fail()
        await clock.advance(10.0)
        source.end()
        report = balanced(await running.wait())
    assert (calls.items, report.items, report.codes) == (["b1"], ["b1"], {"branch.failed": 1})


@pytest.mark.parametrize("shared", [False, True])
@ab.testing.virtual_time
async def test_b10_no_inline_stage_is_called_for_what_finds_no_branch(clock, shared):
    calls, source = Calls(), Live()
    more = {"on_max_branches": "overflow"} if shared else {}
    async with plain(keyed(source, max_branches=1, **more), calls).collect().start() as running:
        source.put("a1")
        await clock.advance(0.0)
        if shared:
            source.put("b1")
            await clock.advance(0.0)
            running.branch(ab.OVERFLOW).fail()
        source.put("a2", "c1", "d1")
        source.end()
        report = balanced(await running.wait())
    assert calls.items == (["a1", "b1", "a2"] if shared else ["a1", "a2"])
    assert report.codes == {"branch.failed" if shared else "branch.limit": 2}


@ab.testing.virtual_time
async def test_b4_what_an_item_did_before_the_fan_out_is_undone_if_its_branch_refuses_it(clock):
    source, undone = Live(), []

    def note(item, ctx):
        ctx.compensate(undone.append, item)
        return item

    pipeline = ab.Pipeline("p").source(source).map(note).fan_out(by=lambda item: item[0])
    async with pipeline.map(str.upper).collect().start() as running:
        running.add_branch("a").fail()
        source.put("a1", "b1")
        source.end()
        report = balanced(await running.wait())
    assert (report.items, undone) == (["B1"], ["a1"])


@ab.testing.virtual_time
async def test_b3_a_key_that_cannot_be_hashed_fails_in_front_of_a_refusing_branch_too(clock):
    calls, source = Calls(), Live()
    pipeline = ab.Pipeline("p").source(source).fan_out(by=lambda item: item).map(calls).collect()
    async with pipeline.start() as running:
        running.add_branch("a").fail()
        source.put([1], "b", "a")
        source.end()
        report = balanced(await running.wait())
    assert (calls.items, report.items) == (["b"], ["b"])
    assert report.codes == {"TypeError": 1, "branch.failed": 1}


def filtered(pipeline, calls):
    # What the filter takes out has succeeded, too.
    return pipeline.map(calls).filter(lambda item: False)


def childless(pipeline, calls):
    return pipeline.map(calls).flat_map(lambda item: [])


def filtered_tracked(pipeline, calls):
    return pipeline.tap(lambda item, ctx: None).map(calls).filter(lambda item: False)


def filtered_late(pipeline, calls):
    async def passes(item):
        return item

    return pipeline.map(passes).map(calls).filter(lambda item: False)


COURSES = [plain, tracked, grown, filtered, childless, filtered_tracked, filtered_late]


@pytest.mark.parametrize("course", COURSES)
@pytest.mark.parametrize("driver", ["run_blocking", "run"])
def test_b7_scattered_failures_of_an_inline_stage_fail_no_healthy_branch(driver, course):
    # Two failures in a row, and then one that succeeds, however they fall into chunks.
    calls = Calls(lambda item: item[0] == "a" and int(item[1:]) % 3 > 0)
    items = [f"{tenant}{n}" for n in range(900) for tenant in "ab"]
    pipeline = course(keyed(items, on_branch_error=ab.fail(after=3)), calls)
    report = balanced(go(pipeline.window(max_items=500).collect(), driver))
    assert report.codes == {"OSError": 600}
    assert [branch.state for branch in report.branches if branch.failed] in (["open"], ["evicted"])


@pytest.mark.parametrize("course", COURSES)
@ab.testing.virtual_time
async def test_b7_failures_in_a_row_of_an_inline_stage_fail_the_branch(clock, course):
    calls, source = Calls(lambda item: item[0] == "a"), Live()
    pipeline = course(keyed(source, on_branch_error=ab.fail(after=3)), calls).collect()
    async with pipeline.start() as running:
        for n in range(4):
            # The successes of the other tenant are no matter.
            source.put(f"b{n}", f"a{n}", f"b{n}")
            await clock.advance(0.0)
            assert (running.branch("a").state == "failed") == (n >= 2)
        source.end()
        report = balanced(await running.wait())
    assert report.codes == {"OSError": 3, "branch.failed": 1}


@pytest.mark.parametrize("on_error", [ab.fail(after=1), "stop_pipeline"])
@pytest.mark.parametrize("inline", [True, False])
def test_b7_a_recovered_failure_fails_no_branch_and_stops_no_pipeline(on_error, inline):
    calls = Calls(lambda item: True)
    pipeline = keyed([f"a{n}" for n in range(9)], on_branch_error=on_error)
    retry = None if inline else ab.Retry.fixed(0.0, attempts=1)
    pipeline = pipeline.map(calls, retry=retry)
    pipeline = pipeline.tap_error(lambda failure: None).recover(lambda failure: failure.item)
    report = balanced(go(pipeline.collect()))
    assert (report.outcome, report.codes, report.recovered) == ("completed", {}, 9)


def test_b7_a_dead_letter_counts_as_a_failure():
    letters = []
    pipeline = keyed([f"a{n}" for n in range(9)], on_branch_error=ab.fail(after=3))
    pipeline = pipeline.map(Calls(lambda item: True)).dead_letter(letters.append, codes="OSError")
    report = balanced(go(pipeline.collect()))
    assert report.branch("a").state == "failed"


def test_b7_sizes_that_fail_here_and_there_fail_no_healthy_branch():
    def size_of(item):
        if int(item[1:]) % 3:
            raise OSError(item)
        return 1

    pipeline = keyed([f"a{n}" for n in range(900)], on_branch_error=ab.fail(after=3))
    report = balanced(go(pipeline.window(max_bytes=100, size_of=size_of).collect()))
    assert (report.codes, report.committed) == ({"OSError": 600}, 300)


def test_t3_a_key_that_fails_behind_an_operator_belongs_to_no_branch():
    def key(item):
        if item == "bad":
            raise OSError(item)
        return item[0]

    pipeline = ab.Pipeline("p").source(["a1", "bad", "b1"]).map(str)
    pipeline = pipeline.tap_error(lambda failure: None).fan_out(by=key).map(str)
    report = balanced(go(pipeline.collect()))
    (failure,) = report.failures
    assert (failure.stage, failure.tenant) == ("fan_out", None)
    assert [branch.failed for branch in report.branches] == [0, 0]
