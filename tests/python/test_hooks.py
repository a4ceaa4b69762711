"""The callables around a branch: its capacity, and being told of its opening and closing."""

import asyncio
import itertools

import pytest
from support import Live, Seen, balanced, every_driver, every_sink, go, with_sink, within

import anabranch as ab
from anabranch.testing import VirtualClock


@every_sink
@every_driver
def test_b3_hooks_are_told_once_of_each_branch(driver, kind):
    told = []

    def sink(unit, ctx):
        told.append(("sink", ctx.tenant))

    pipeline = ab.Pipeline("p").source(["a", "b", "a", "c"])
    pipeline = pipeline.fan_out(
        by=lambda item: item,
        on_new_branch=lambda tenant: told.append(("new", tenant)),
        on_branch_closed=lambda tenant: told.append(("closed", tenant)),
    )
    balanced(go(with_sink(pipeline, kind, sink), driver))
    assert [tenant for what, tenant in told if what == "new"] == ["a", "b", "c"]
    assert told[-3:] == [("closed", "a"), ("closed", "b"), ("closed", "c")]
    for tenant in "abc":
        assert told.index(("new", tenant)) < told.index(("sink", tenant))


def test_b3_an_item_whose_branch_is_refused_has_failed_and_the_next_one_asks_again():
    asked = []

    def admit(tenant):
        asked.append(tenant)
        if asked.count(tenant) < 3:
            raise PermissionError(tenant)

    pipeline = ab.Pipeline("p").source([1, 2, 3, 4]).fan_out(by=lambda n: "a", on_new_branch=admit)
    report = balanced(go(pipeline.collect()))
    assert (report.items, report.codes, asked) == ([3, 4], {"PermissionError": 2}, ["a"] * 3)
    assert {it.stage for it in report.failures} == {"fan_out"}


def test_b3_what_on_branch_closed_raises_is_logged_and_the_others_are_told(caplog):
    told = []

    def closed(tenant):
        told.append(tenant)
        raise ValueError(tenant)

    pipeline = ab.Pipeline("p").source("ab" and ["a", "b"])
    pipeline = pipeline.fan_out(by=lambda item: item, on_branch_closed=closed)
    assert go(pipeline.collect()).ok
    assert told == ["a", "b"]
    assert "stage 'fan_out', tenant 'b': on_branch_closed raised" in caplog.text


@within
async def test_b5_capacity_may_be_a_function_of_the_tenant():
    go_on, seen = asyncio.Event(), Seen()
    given = []

    def source():
        for n in itertools.count():
            given.append(n)
            yield n % 2

    async def sink(tenant):
        seen(tenant)
        await go_on.wait()

    pipeline = ab.Pipeline("p").source(source())
    pipeline = pipeline.fan_out(
        by=lambda n: n, capacity=lambda tenant: 1 if tenant else 500, isolate=False
    )
    async with pipeline.for_each(sink).start() as running:
        await seen.reach(2)
        for _ in range(100):
            await asyncio.sleep(0)
        # The odd ones fill their branch first, and hold the source back.
        assert len(given) < 20
        go_on.set()
        running.drain()
        balanced(await running.wait())


@pytest.mark.parametrize("capacity", [0, -1, True, 1.5, "9", None, 2**32])
def test_b5_a_capacity_that_is_not_allowed_fails_the_item(capacity):
    pipeline = (
        ab.Pipeline("p").source([1]).fan_out(by=lambda n: n, capacity=lambda tenant: capacity)
    )
    report = balanced(go(pipeline.collect()))
    assert report.codes == {"ConfigError": 1}
    shown = (
        f"capacity must be a callable that returns an int from 1 to 4294967295, got {capacity!r}"
    )
    assert str(report.failures[0].error) == f"pipeline 'p', stage 'fan_out': {shown}"


async def later(tenant):
    return 1


@pytest.mark.parametrize("capacity", [0, "9", None, 1.5])
def test_b5_a_capacity_that_is_neither_is_refused_at_build(capacity):
    with pytest.raises(ab.ConfigError) as caught:
        ab.Pipeline("p").source([1]).fan_out(by=lambda n: n, capacity=capacity)
    allowed = "an int >= 1 or a def that takes the tenant"
    place = "pipeline 'p', stage 'fan_out'"
    assert str(caught.value) == f"{place}: capacity must be {allowed}, got {capacity!r}"


@pytest.mark.parametrize("argument", ["capacity", "on_new_branch", "on_branch_closed"])
def test_b3_b5_an_async_hook_is_refused_at_build(argument):
    with pytest.raises(ab.ConfigError, match=f"{argument} must be a def: .*, got later"):
        ab.Pipeline("p").source([1]).fan_out(by=lambda n: n, **{argument: later})


def test_b5_a_callable_is_named_in_the_description():
    def quota(tenant):
        return 10

    pipeline = ab.Pipeline("p").source(Live(1)).fan_out(by=lambda n: n, capacity=quota).collect()
    assert "capacity=quota" in pipeline.describe()


@every_driver
@pytest.mark.parametrize("policy", ["fail", "restart", "drain"])
def test_b3_c19_a_branch_is_told_to_have_closed_once_it_was_undone(driver, policy):
    clock, told = VirtualClock(), []

    async def undo(life):
        await asyncio.sleep(2.0)
        told.append(("undone", life, clock.now()))

    async def sink(item, ctx):
        end = ctx.finalize if policy == "drain" else ctx.compensate
        end(undo, item[1], level="branch")
        if policy != "drain":
            raise LookupError

    async def events():
        yield ("acme", 1)
        await asyncio.sleep(1.0)
        # For the next life: it waits until what the first one did is undone.
        yield ("acme", 2)

    pipeline = ab.Pipeline("p", clock=clock).source(events())
    pipeline = pipeline.fan_out(
        by=lambda item: item[0],
        idle_ttl=0.5,
        on_branch_error={
            "fail": ab.fail(after=1),
            "restart": ab.restart(ab.Retry.fixed(0.1, attempts=9)),
            "drain": "continue",
        }[policy],
        on_new_branch=lambda tenant: told.append(("opened", clock.now())),
        on_branch_closed=lambda tenant: told.append(("closed", clock.now())),
    )
    go(pipeline.for_each(sink), driver, clock)
    assert (
        told
        == {
            "fail": [("opened", 0.0), ("undone", 1, 2.0), ("closed", 2.0)],
            "restart": [
                ("opened", 0.0),
                ("undone", 1, 2.0),
                ("closed", 2.0),
                ("opened", 2.1),
                ("undone", 2, 4.1),
                ("closed", 4.1),
            ],
            "drain": [
                ("opened", 0.0),
                ("undone", 1, 2.5),
                ("closed", 2.5),
                ("opened", 2.5),
                ("undone", 2, 4.5),
                ("closed", 4.5),
            ],
        }[policy]
    )
