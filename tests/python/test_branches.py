"""Fan-out through the public API: which branch, in which order, how much waits, how it ends."""

import asyncio
import itertools
import random

import pytest
from support import (
    Live,
    Seen,
    balanced,
    every_driver,
    every_sink,
    every_way,
    go,
    turns,
    with_sink,
    within,
)

import anabranch as ab


class Named(str):
    """A key that is a str, but not exactly one."""

    __slots__ = ()


class Event:
    def __init__(self, tenant, number):
        self.tenant = tenant
        self.number = number


def per_tenant(pairs, **options):
    return ab.Pipeline("p").source(pairs).fan_out(by=ab.item(0), **options)


def lanes(report):
    """The numbers each tenant's branch collected, in order."""
    found = {}
    for tenant, number in report.items:
        found.setdefault(tenant, []).append(number)
    return found


@pytest.mark.parametrize(
    ("make", "by"),
    [
        (lambda tenant, n: {"tenant": tenant, "n": n}, "tenant"),
        (lambda tenant, n: {"tenant": tenant, "n": n}, ab.item("tenant")),
        (lambda tenant, n: (n, tenant), ab.item(1)),
        (lambda tenant, n: (n, tenant), ab.item(-1)),
        (Event, ab.attr("tenant")),
        (lambda tenant, n: f"{tenant} {n}", lambda text: text.split()[0]),
    ],
    ids=["str", "item", "index", "last", "attr", "callable"],
)
@every_way
def test_b3_one_key_is_one_branch_and_keeps_its_order(driver, kind, make, by):
    order = random.Random(3).choices(["a", "b", "c", "d"], k=2000)
    items = [make(tenant, n) for n, tenant in enumerate(order)]
    number = {id(item): n for n, item in enumerate(items)}
    seen = {}

    def note(unit, ctx):
        seen.setdefault(ctx.tenant, []).append(number[id(unit)])

    pipeline = ab.Pipeline("p").source(items).fan_out(by=by)
    report = balanced(go(with_sink(pipeline, kind, note), driver))
    assert seen == {
        tenant: [n for n, other in enumerate(order) if other == tenant] for tenant in "abcd"
    }
    assert {branch.tenant: branch.received for branch in report.branches} == {
        tenant: order.count(tenant) for tenant in "abcd"
    }


@every_sink
@within
async def test_b3_an_unknown_key_opens_a_branch_at_once(kind):
    source, seen = Live(), Seen()
    pipeline = with_sink(
        ab.Pipeline("p").source(source).fan_out(by=ab.item(0)),
        kind,
        lambda u, ctx: seen(ctx.tenant),
    )
    async with pipeline.start() as running:
        for count, tenant in enumerate("xyz", start=1):
            source.put((tenant, count))
            await seen.reach(count)
        source.end()
        await running.wait()
    assert seen.items == ["x", "y", "z"]


@pytest.mark.parametrize(
    "keys",
    [
        ["a", "b", None, 1, 2, ("a", 1), b"a", 1.5, frozenset({1})],
        ["x" * 300, "", "\N{SNOWMAN}", "\0", "a\ud800"],
    ],
)
@every_driver
def test_b3_any_hashable_key_has_a_branch(driver, keys):
    pairs = [(key, n) for n, key in enumerate(keys * 3)]
    report = balanced(go(per_tenant(pairs).collect(), driver))
    assert [branch.tenant for branch in report.branches] == keys
    assert all(branch.committed == 3 for branch in report.branches)


@pytest.mark.parametrize("by", [ab.item(0), lambda pair: pair[0]], ids=["native", "callable"])
def test_b3_equal_keys_are_one_branch_whatever_their_identity_or_type(by):
    text = "acme-corp"
    twin = "-".join(text.split("-"))
    assert twin is not text
    keys = [text, twin, Named(text), 1, True, 1.0, (1,), (True,), 10**30, 10**30 + 0]
    pipeline = ab.Pipeline("p").source([(key, n) for n, key in enumerate(keys)]).fan_out(by=by)
    report = balanced(pipeline.collect().run_blocking())
    assert {branch.tenant: branch.received for branch in report.branches} == {
        text: 3,
        1: 3,
        (1,): 2,
        10**30: 2,
    }


class Text(str):
    """A str that compares by rules of its own."""

    __slots__ = ()

    def __eq__(self, other):
        return str(self).lower() == str(other).lower()

    def __hash__(self):
        return hash(str(self).lower())


def test_b3_a_str_subclass_is_compared_by_its_text():
    report = balanced(
        per_tenant([(Text("A"), 1), ("A", 2), (Text("a"), 3)]).collect().run_blocking()
    )
    assert [branch.received for branch in report.branches] == [2, 1]


@pytest.mark.parametrize(
    ("item", "by", "code"),
    [
        ({"other": 1}, "tenant", "KeyError"),
        ({"tenant": []}, "tenant", "TypeError"),
        ((), ab.item(0), "IndexError"),
        (5, ab.item(0), "TypeError"),
        (object(), ab.attr("tenant"), "AttributeError"),
        ("x", lambda item: {}[item], "KeyError"),
        ("x", lambda item: [item], "TypeError"),
    ],
)
@every_way
def test_b3_a_missing_or_unhashable_key_is_a_failure_item(driver, kind, item, by, code):
    pipeline = ab.Pipeline("p").source([item]).fan_out(by=by)
    report = balanced(go(with_sink(pipeline, kind, lambda unit, ctx: None), driver))
    assert (report.codes, report.committed, report.branches) == ({code: 1}, 0, ())
    (failure,) = report.failures
    assert (failure.stage, failure.tenant) == ("fan_out", None)


def test_b3_a_key_whose_hash_raises_costs_one_item():
    class Broken:
        def __hash__(self):
            raise RuntimeError("no hash")

    report = balanced(per_tenant([("a", 1), (Broken(), 2), ("a", 3)]).collect().run_blocking())
    assert lanes(report) == {"a": [1, 3]}
    assert report.codes == {"RuntimeError": 1}


@pytest.mark.parametrize("windowed", [True, False])
def test_b3_fifty_thousand_branches(windowed):
    count = 50_000
    pairs = [(f"tenant-{n % count}", n) for n in range(2 * count)]
    pipeline = per_tenant(pairs)
    if windowed:
        pipeline = pipeline.window(max_items=10, max_age=1000.0)
    units = Seen()
    report = balanced(pipeline.for_each(units, inline=True).run_blocking())
    assert len(report.branches) == count
    assert report.committed == 2 * count
    if windowed:
        assert all(first[1] + count == second[1] for first, second in units.items)


class Backlog:
    """Counts what the source has given that no handler has taken."""

    def __init__(self, items):
        self._items = items
        self.waiting = 0
        self.most = 0

    def source(self):
        for item in self._items:
            self.waiting += 1
            self.most = max(self.most, self.waiting)
            yield item

    def taken(self, unit, ctx):
        self.waiting -= 1


@pytest.mark.parametrize(("isolate", "limit"), [(True, 125), (False, 100)])
@every_sink
def test_b5_a_full_branch_holds_the_source_back(kind, isolate, limit):
    backlog = Backlog([("a", n) for n in range(20_000)])
    pipeline = ab.Pipeline("p").source(backlog.source())
    pipeline = pipeline.fan_out(by=ab.item(0), capacity=100, isolate=isolate)
    report = balanced(with_sink(pipeline, kind, backlog.taken).run_blocking())
    assert report.committed == 20_000
    # What a chunk may bring past the limit is at most a capacity.
    assert backlog.most <= limit + 100


@within
async def test_b5_a_source_waits_while_a_branch_is_full_and_loses_nothing():
    entered, gate, given = Seen(), asyncio.Event(), 0

    async def endless():
        nonlocal given
        for given in itertools.count(1):
            yield given

    async def blocked(number):
        entered(number)
        await gate.wait()

    pipeline = ab.Pipeline("p").source(endless()).fan_out(by=lambda n: "a", capacity=10)
    async with pipeline.for_each(blocked).start() as running:
        await entered.reach(1)
        await turns(1000)
        assert given < 300, "more than a branch, and what an async source may be ahead"
        running.drain()
        gate.set()
        report = balanced(await running.wait())
    assert entered.items == list(range(1, report.received + 1))


def test_b5_each_tenant_has_a_capacity_of_its_own():
    report = per_tenant([(n % 300, n) for n in range(3000)], capacity=10).collect().run_blocking()
    assert balanced(report).committed == 3000


@pytest.mark.parametrize("capacity", [0, -1, 1.5, "10", None])
def test_b5_there_is_no_unbounded_branch(capacity):
    with pytest.raises(ab.ConfigError, match="capacity"):
        per_tenant([], capacity=capacity)


@every_way
def test_b8_completion_ends_branches_after_what_they_hold(driver, kind):
    seen = {}
    pipeline = per_tenant([(n % 7, n) for n in range(700)]).window(max_items=30)
    pipeline = with_sink(
        pipeline, kind, lambda unit, ctx: seen.setdefault(ctx.tenant, []).extend(unit)
    )
    report = balanced(go(pipeline, driver))
    assert seen == {key: [(key, n) for n in range(key, 700, 7)] for key in range(7)}
    assert report.outcome == "completed"


@every_way
def test_b8_a_fault_reaches_branches_after_what_they_hold(driver, kind):
    def source():
        yield from ((n % 3, n) for n in range(300))
        raise OSError("gone")

    seen = {}
    pipeline = ab.Pipeline("p").source(source()).fan_out(by=ab.item(0))
    pipeline = with_sink(
        pipeline, kind, lambda unit, ctx: seen.setdefault(ctx.tenant, []).append(unit)
    )
    report = balanced(go(pipeline, driver))
    assert seen == {key: [(key, n) for n in range(key, 300, 3)] for key in range(3)}
    assert (report.outcome, report.committed) == ("failed", 300)
