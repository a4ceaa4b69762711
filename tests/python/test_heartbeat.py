"""The stage `heartbeat`: branches in which nothing comes are told of (G3)."""

import pytest
from support import Live, balanced, go

import anabranch as ab


def beats(items):
    return [(it.tenant, it.silent, it.number) for it in items if isinstance(it, ab.Heartbeat)]


async def fed(clock, script, **fan_out):
    """Run a pipeline with a beat every 10 s, and items at the times of the script, to `end`."""
    source, out = Live(), []

    def sink(item):
        out.append((clock.now(), item))

    pipeline = ab.Pipeline("p").source(source).fan_out(by=lambda item: item[0], **fan_out)
    pipeline = pipeline.heartbeat(every=10.0).for_each(sink, inline=True)
    async with pipeline.start() as running:
        for at, item in script:
            await clock.advance(at - clock.now())
            if item == "end":
                source.end()
            elif callable(item):
                item(running)
            else:
                source.put(item)
                await clock.advance(0.0)
        report = balanced(await running.wait())
    return out, report


@ab.testing.virtual_time
async def test_g3_a_silent_branch_beats_at_multiples_of_the_period(clock):
    out, report = await fed(clock, [(0.0, "a1"), (4.0, "b1"), (25.0, "a2"), (36.0, "end")])
    told = [(at, it.tenant, it.silent, it.number) for at, it in out if isinstance(it, ab.Heartbeat)]
    assert told == [
        (10.0, "a", 10.0, 1),
        (14.0, "b", 10.0, 1),
        (20.0, "a", 20.0, 2),
        (24.0, "b", 20.0, 2),
        (34.0, "b", 30.0, 3),
        (35.0, "a", 10.0, 1),
    ]
    assert [it for _, it in out if isinstance(it, str)] == ["a1", "b1", "a2"]
    # E8: what was made counts as produced.
    assert (report.received, report.produced, report.committed) == (3, 6, 9)
    assert {it.tenant: it.produced for it in report.branches} == {"a": 3, "b": 3}


@ab.testing.virtual_time
async def test_g3_a_busy_branch_and_one_that_has_not_begun_do_not_beat(clock):
    script = [(float(at), "a") for at in range(0, 50, 9)]
    out, report = await fed(clock, [*script, (50.0, "end")])
    assert (beats(it for _, it in out), report.produced) == ([], 0)


@ab.testing.virtual_time
async def test_g3_no_beats_while_the_branch_is_paused(clock):
    script = [
        (0.0, "a"),
        (5.0, lambda running: running.branch("a").pause()),
        (35.0, lambda running: running.branch("a").resume()),
        (41.0, "end"),
    ]
    out, _ = await fed(clock, script)
    assert beats(it for _, it in out) == [("a", 40.0, 4)]


@ab.testing.virtual_time
async def test_g3_a_branch_that_beats_is_evicted_all_the_same(clock):
    script = [(0.0, "a"), (200.0, lambda running: states.append(running.branch("a").state))]
    states = []
    out, _ = await fed(clock, [*script, (210.0, "a"), (221.0, "end")], idle_ttl=35.0)
    assert beats(it for _, it in out) == [("a", 10.0 * n, n) for n in (1, 2, 3)] + [("a", 10.0, 1)]
    assert states == ["evicted"]


@pytest.mark.parametrize("behind", ["throttle", "window", "map", "async map", "sink"])
@ab.testing.virtual_time
async def test_g3_beats_go_through_what_follows_and_around_nothing(clock, behind):
    async def same(item):
        return item

    source, out = Live(), []
    pipeline = ab.Pipeline("p").source(source).throttle(100).heartbeat(every=10.0)
    if behind == "throttle":
        pipeline = pipeline.throttle(100)
    elif behind == "window":
        pipeline = pipeline.window(max_items=1).map(lambda window: window[0])
    elif "map" in behind:
        pipeline = pipeline.map(same if "async" in behind else lambda item: item)
    async with pipeline.for_each(out.append, inline=True).start() as running:
        source.put("x")
        await clock.advance(25.0)
        source.end()
        balanced(await running.wait())
    assert out == ["x", ab.Heartbeat(None, 10.0, 1), ab.Heartbeat(None, 20.0, 2)]


@ab.testing.virtual_time
async def test_g3_a_branch_with_a_backlog_does_not_beat(clock):
    source, out = Live(), []
    pipeline = ab.Pipeline("p").source(source).fan_out(by=lambda item: item[0])

    async def slow(item):
        out.append(item)
        await ab.delay(30.0)

    async with pipeline.heartbeat(every=10.0).for_each(slow).start() as running:
        for item in ("a1", "a2"):
            source.put(item)
        await clock.advance(29.0)
        assert out == ["a1"]
        await clock.advance(16.0)
        source.end()
        balanced(await running.wait())
    # The one that came at 40 s, when the second item was in hand, had waited for it.
    assert out == ["a1", "a2", ab.Heartbeat("a", 40.0, 4)]


@ab.testing.virtual_time
async def test_g3_c18_an_aborted_run_leaves_no_beat_uncounted(clock):
    source = Live()
    pipeline = ab.Pipeline("p").source(source).heartbeat(every=1.0).window(max_items=100)
    async with pipeline.collect().start() as running:
        source.put("x")
        await clock.advance(5.5)
        running.abort()
        report = balanced(await running.wait())
    assert (report.outcome, report.produced) == ("aborted", 5)


@pytest.mark.parametrize("every", [0, -1.0, float("nan"), None, "1", True])
def test_g3_a_bad_period_is_refused(every):
    with pytest.raises(ab.ConfigError, match=r"stage 'heartbeat'.*every must be a number of sec"):
        ab.Pipeline("p").source([]).heartbeat(every=every)


def test_g3_v2_it_is_described_and_drawn():
    pipeline = ab.Pipeline("p").source([1]).heartbeat(every=5).collect()
    assert "every=5 s" in pipeline.describe()
    assert "heartbeat" in pipeline.mermaid()
    assert go(pipeline).items == [1]
