"""Branches that are full, too many, or throttled: B5, B6, B10, B11."""

import asyncio

import pytest
from support import Live, Seen, balanced, go, within

import anabranch as ab


def keyed(source, **options):
    return ab.Pipeline("p").source(source).fan_out(by=lambda item: item[0], **options)


@pytest.mark.parametrize(
    ("mode", "kept", "dropped", "codes"),
    [
        ("drop_newest", ["a0", "a1", "a2"], 7, {}),
        ("drop_oldest", ["a7", "a8", "a9"], 7, {}),
        ("fail", ["a0", "a1", "a2"], 0, {"branch.full": 7}),
    ],
)
@ab.testing.virtual_time
async def test_b5_a_full_branch_does_what_on_full_says(clock, mode, kept, dropped, codes):
    seen, source = Seen(), Live()
    pipeline = keyed(source, capacity=3, on_full=mode).for_each(seen, inline=True)
    async with pipeline.start() as running:
        running.add_branch("a").pause()
        for n in range(10):
            source.put(f"a{n}", f"b{n}")
            await clock.advance(0.0)
        running.branch("a").resume()
        source.end()
        report = balanced(await running.wait())
    assert [item for item in seen.items if item[0] == "a"] == kept
    assert report.branch("b").committed == 10
    assert (report.branch("a").dropped, report.codes) == (dropped, codes)
    assert report.ok == (mode != "fail")


@ab.testing.virtual_time
async def test_b5_on_full_may_be_a_function_of_the_tenant(clock):
    seen, source = Seen(), Live()
    modes = {"a": "drop_newest", "b": "fail"}
    pipeline = keyed(source, capacity=1, on_full=modes.__getitem__, isolate=False)
    async with pipeline.for_each(seen, inline=True).start() as running:
        for tenant in modes:
            running.add_branch(tenant).pause()
        for item in ("a1", "a2", "b1", "b2"):
            source.put(item)
            await clock.advance(0.0)
        for tenant in modes:
            running.branch(tenant).resume()
        source.put("c1")
        source.end()
        report = balanced(await running.wait())
    assert seen.items == ["a1", "b1"]
    assert (report.dropped, report.codes) == (1, {"branch.full": 1, "KeyError": 1})


@pytest.mark.parametrize("own", [False, True])
@ab.testing.virtual_time
async def test_b5_a_full_branch_may_hand_items_to_the_dead_letters(clock, own):
    seen, source, dead = Seen(), Live(), []
    mode = (lambda tenant: "dead_letter" if tenant == "a" else "fail") if own else "dead_letter"
    pipeline = ab.Pipeline("p", dead_letter=dead.append).source(source)
    pipeline = pipeline.fan_out(by=lambda it: it[0], capacity=1, isolate=False, on_full=mode)
    async with pipeline.for_each(seen, inline=True).start() as running:
        for tenant in "ab":
            running.add_branch(tenant).pause()
        for item in ("a1", "a2", "b1", "b2"):
            source.put(item)
            await clock.advance(0.0)
        for tenant in "ab":
            running.branch(tenant).resume()
        source.end()
        report = balanced(await running.wait())
    assert sorted(seen.items) == ["a1", "b1"]
    told = [(it.code, it.stage, it.tenant, it.item) for it in dead]
    lettered = [("branch.full", "fan_out", item[0], item) for item in ("a2", "b2")]
    assert told == (lettered[:1] if own else lettered)
    assert (report.dead_lettered, report.failed) == ((1, 1) if own else (2, 0))


def test_b5_dead_letters_of_full_branches_need_a_target():
    with pytest.raises(ab.ConfigError) as refused:
        ab.Pipeline("p").source([]).fan_out(by="tenant", on_full="dead_letter")
    assert str(refused.value) == (
        "pipeline 'p', stage 'fan_out': on_full must be 'wait', 'drop_newest', 'drop_oldest' or "
        "'fail' where the pipeline has no dead_letter=target, got 'dead_letter'"
    )
    report = balanced(go(keyed(["a1"], on_full=lambda tenant: "dead_letter").collect()))
    assert report.codes == {"ConfigError": 1}


@ab.testing.virtual_time
async def test_b5_what_a_branch_refuses_is_recovered_once_and_not_for_ever(clock):
    made, letters = [], []

    def again(failure):
        made.append(failure.code)
        return failure.item

    source, seen = Live(), Seen()
    pipeline = ab.Pipeline("p").source(source).fan_out(by=lambda it: it[0]).recover(again)
    pipeline = pipeline.for_each(seen, inline=True).dead_letter(letters.append)
    async with pipeline.start() as running:
        running.add_branch("a").fail("on purpose")
        source.put("a1", "b1")
        source.end()
        report = balanced(await running.wait())
    assert (made, seen.items) == (["branch.failed"], ["b1"])
    assert [letter.item for letter in letters] == ["a1"]
    assert (report.dead_lettered, report.recovered) == (1, 1)


@ab.testing.virtual_time
async def test_b10_branches_that_come_back_count_against_the_limit(clock):
    source = Live()
    pipeline = keyed(source, max_branches=2, idle_ttl=10).collect()
    async with pipeline.start() as running:
        for item in ("a1", "b1", "c1"):
            source.put(item)
            await clock.advance(30.0)
        source.put("a2", "b2", "c2")
        await clock.advance(1.0)
        assert [running.branch(tenant).state for tenant in "abc"] == ["open", "open", "evicted"]
        with pytest.raises(ab.BranchRefused) as refused:
            running.add_branch("c")
        assert refused.value.code == "branch.limit"
        source.end()
        report = balanced(await running.wait())
    assert report.items == ["a1", "b1", "c1", "a2", "b2"]
    assert report.codes == {"branch.limit": 1}


@ab.testing.virtual_time
async def test_b7_a_branch_that_fails_begins_nothing_more_of_a_slow_handlers(clock):
    begun, source = [], Live()

    async def slow(item):
        begun.append(item)
        await asyncio.sleep(60)

    async with keyed(source).for_each(slow).start() as running:
        source.put(*(f"a{n}" for n in range(20)))
        await clock.advance(1.0)
        running.branch("a").fail()
        await clock.advance(400.0)
        assert begun == ["a0"]
        source.end()
        report = balanced(await running.wait())
    assert (report.committed, report.codes) == (1, {"branch.failed": 19})


def test_b5_an_on_full_that_is_not_allowed_fails_the_item():
    report = balanced(go(keyed(["a1"], on_full=lambda tenant: "lose").collect()))
    assert report.codes == {"ConfigError": 1}
    assert str(report.failures[0].error) == (
        "pipeline 'p', stage 'fan_out': on_full must be a callable that returns 'wait', "
        "'drop_newest', 'drop_oldest' or 'fail', got 'lose'"
    )


@ab.testing.virtual_time
async def test_b6_a_stall_is_visible_and_bounded_by_branch_timeout(clock):
    seen, source = Seen(), Live()
    pipeline = keyed(source, capacity=2, isolate=False, branch_timeout=30.0)
    async with pipeline.for_each(seen, inline=True).start() as running:
        running.add_branch("a").pause()
        source.put("a1", "a2")
        await clock.advance(0.0)
        source.put("a3", "b1")
        await clock.advance(29.0)
        assert (running.blocking, seen.items) == (("a",), [])
        assert running.branch("a").counts.blocked == 29.0
        await clock.advance(1.0)
        assert (running.blocking, seen.items) == ((), ["b1"])
        running.branch("a").resume()
        source.end()
        report = balanced(await running.wait())
    assert report.codes == {"branch.timeout": 1}
    assert (report.blocked, report.branch("a").blocked, report.branch("b").blocked) == (30, 30, 0)
    assert seen.items == ["b1", "a1", "a2"]


@ab.testing.virtual_time
async def test_b6_a_full_branch_that_drops_does_not_stall_the_others(clock):
    seen, source = Seen(), Live()
    pipeline = keyed(source, capacity=2, on_full="drop_newest").for_each(seen, inline=True)
    async with pipeline.start() as running:
        running.add_branch("a").pause()
        for n in range(100):
            source.put("a", f"b{n}")
        await clock.advance(0.0)
        assert seen.items == [f"b{n}" for n in range(100)]
        assert running.blocking == ()
        running.abort()
        assert balanced(await running.wait()).blocked == 0.0


def test_b10_beyond_max_branches_items_fail_and_name_their_key():
    items = ["a1", "b1", "c1", "a2", "c2"]
    report = balanced(go(keyed(items, max_branches=2).collect()))
    assert (report.items, report.codes) == (["a1", "b1", "a2"], {"branch.limit": 2})
    assert [branch.tenant for branch in report.branches] == ["a", "b"]
    assert str(report.failures[0].error) == (
        "pipeline 'p': no branch for tenant 'c': there are max_branches=2 already; raise "
        "max_branches, or drain a branch or let idle_ttl close it"
    )
    assert report.failures[0].tenant is None


@pytest.mark.parametrize("tracked", [False, True])
def test_b10_what_failed_by_itself_keeps_its_error_beyond_max_branches(tracked):
    def deny(item):
        if item == "b1":
            raise OSError(item)
        return item

    def deny_aware(item, ctx):
        return deny(item)

    pipeline = keyed(["a1", "b1", "b2"], max_branches=1)
    report = balanced(go(pipeline.map(deny_aware if tracked else deny).collect(), "blocking"))
    assert report.items == ["a1"]
    assert report.codes == {"OSError": 1, "branch.limit": 1}


def test_b10_or_they_share_one_branch():
    told, tenants = [], []

    def sink(item, ctx):
        tenants.append((item, str(ctx.tenant)))

    items = ["a1", "b1", "c1", "d1", "a2", "c2"]
    pipeline = keyed(items, max_branches=2, on_max_branches="overflow", on_new_branch=told.append)
    report = balanced(go(pipeline.for_each(sink, inline=True)))
    assert told == ["a", "b", ab.OVERFLOW]
    shared = [item for item, tenant in tenants if tenant == "overflow"]
    assert (shared, report.branch(ab.OVERFLOW).committed) == (["c1", "d1", "c2"], 3)


@ab.testing.virtual_time
async def test_b10_a_branch_that_has_closed_makes_room_for_another(clock):
    source = Live("a1", "b1")
    async with keyed(source, max_branches=1, idle_ttl=10.0).collect().start() as running:
        await clock.advance(10.0)
        with pytest.raises(ab.BranchRefused, match="max_branches=1 already"):
            running.add_branch("c"), running.add_branch("d")
        source.put("b2", "c1")
        source.end()
        report = balanced(await running.wait())
    assert report.items == ["a1", "c1"]


@ab.testing.virtual_time
async def test_b11_a_throttle_delays_each_tenant_and_never_drops(clock):
    times = {}

    def sink(item):
        times.setdefault(item[0], []).append(clock.now())

    items = ["a1", "a2", "a3", "b1", "a4"]
    pipeline = keyed(items).throttle(2.0, burst=2).for_each(sink, inline=True)
    report = balanced(await pipeline.run())
    assert times == {"a": [0.0, 0.0, 0.5, 1.0], "b": [0.0]}
    assert report.ok


@ab.testing.virtual_time
async def test_b11_windows_fill_at_the_throttled_rate(clock):
    pipeline = keyed([f"a{n}" for n in range(6)]).throttle(1.0).window(max_age=2.5).collect()
    report = balanced(await pipeline.run())
    assert report.items == [["a0", "a1", "a2"], ["a3", "a4", "a5"]]


@ab.testing.virtual_time
async def test_b11_what_stands_behind_a_throttle_is_called_at_its_rate(clock):
    for build in (
        lambda it: it.throttle(1.0).map(call).collect(),
        lambda it: it.window(max_items=1).throttle(1.0).map(call).collect(),
        lambda it: it.throttle(1.0).fan_out(by=lambda n: n).map(call).collect(),
        lambda it: it.throttle(1.0).throttle(10.0).for_each(call, inline=True),
    ):
        times, begin = [], clock.now()

        def call(item, times=times, begin=begin):
            times.append(clock.now() - begin)
            return item

        report = balanced(await build(ab.Pipeline("p").source([1, 2, 3])).run())
        assert (times, report.committed) == ([0.0, 1.0, 2.0], 3)


@ab.testing.virtual_time
async def test_b11_a_throttle_is_changed_while_the_pipeline_runs(clock):
    seen, source = Seen(), Live(*(f"a{n}" for n in range(10)))
    async with keyed(source).throttle(0.01, burst=1).for_each(seen, inline=True).start() as running:
        await clock.advance(10.0)
        assert len(seen.items) == 1
        running.branch("a").throttle(1.0)
        await clock.advance(3.0)
        assert len(seen.items) == 4
        running.branch("a").throttle(None)
        await clock.advance(0.0)
        assert len(seen.items) == 10
        running.branch("a").throttle(1.0, burst=2)
        source.put("a10", "a11", "a12")
        await clock.advance(0.0)
        assert len(seen.items) == 12
        source.end()
        balanced(await running.wait())


@within
async def test_b11_throttled_async_handlers_keep_their_order():
    seen = []

    async def sink(item):
        seen.append(item)

    items = [f"a{n}" for n in range(200)]
    report = balanced(await keyed(items).throttle(20_000.0, burst=50).for_each(sink).run())
    assert (seen, report.committed) == (items, 200)


def test_v2_a_throttle_is_drawn_with_its_units():
    pipeline = keyed(["a"]).throttle(500, burst=1000)
    assert "rate=500 items/s, burst=1000 items" in pipeline.describe()
    assert "throttle" in pipeline.mermaid()
