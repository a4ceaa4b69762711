"""Plans: row J4, and messages by the calendar, on every store."""

import asyncio
import contextlib
import logging

import outboxes
import pytest

import anabranch as ab
from anabranch._outbox.cadence import cadence

# More than a year: no test runs while one ends.
PERIOD = 36_000_000.0


@pytest.fixture(params=["memory", "postgres", "sqlite"])
def side(request, tmp_path):
    with contextlib.closing(outboxes.opened(request.param, tmp_path)) as side:
        yield side


def payloads(side) -> list:
    return [message.payload for message in side.outbox.messages()]


def slicing(outbox, calls, **options) -> ab.OutboxPlanner:
    """Plan two of eight shards a period, where the last time ended."""
    planner = ab.OutboxPlanner(outbox)

    @planner.plan("rebuild", every=PERIOD, **options)
    def rebuild(plan):
        calls.append(plan.at)
        shard = int(plan.cursor or 0)
        plan.cursor = shard + 2
        return [ab.Draft("rebuild", shard), ab.Draft("rebuild", shard + 1)]

    return planner


def test_j4_slices_are_enqueued_once_an_instant_and_go_on_where_the_last_ended(side):
    calls = []
    planner = slicing(side.outbox, calls)
    assert planner.run_once_blocking() == 0
    for count in (1, 2, 3):
        side.pass_time(PERIOD)
        assert [planner.run_once_blocking() for _ in range(2)] == [2, 0]
        assert payloads(side) == list(range(2 * count))
    assert len(calls) == 3


def test_j4_another_process_goes_on_with_the_plan(side):
    calls = []
    slicing(side.outbox, calls).run_once_blocking()
    side.pass_time(PERIOD)
    assert slicing(side.again, calls).run_once_blocking() == 2
    side.pass_time(PERIOD)
    assert slicing(side.outbox, calls).run_once_blocking() == 2
    assert payloads(side) == [0, 1, 2, 3]


def test_j4_of_many_planners_one_plans(side):
    calls = []
    planners = [slicing(outbox, calls) for outbox in (side.outbox, side.again) * 3]
    for planner in planners:
        planner.run_once_blocking()
    side.pass_time(PERIOD)
    outboxes.in_threads(6, lambda number: planners[number].run_once_blocking())
    assert payloads(side) == [0, 1]
    assert len(calls) == 1


def test_j4_a_planner_that_fails_enqueues_nothing_and_is_tried_again(side, caplog):
    planner = ab.OutboxPlanner(side.outbox, lease=60.0)
    calls = []

    @planner.plan("rebuild", every=PERIOD)
    def rebuild(plan):
        calls.append(plan.cursor)
        plan.cursor = "far"
        yield ab.Draft("rebuild", 1)
        if len(calls) == 1:
            raise OSError("the list of shards is gone")
        yield ab.Draft("rebuild", 2)

    planner.run_once_blocking()
    side.pass_time(PERIOD)
    with caplog.at_level(logging.ERROR):
        assert [planner.run_once_blocking() for _ in range(2)] == [0, 0]
    assert "plan 'rebuild' has failed" in caplog.text
    assert payloads(side) == []
    side.pass_time(61.0)
    assert planner.run_once_blocking() == 2
    assert payloads(side) == [1, 2]
    assert calls == [None, None]


def test_j4_who_has_planned_for_longer_than_the_lease_enqueues_nothing(side, caplog):
    calls = []
    slow, quick = ab.OutboxPlanner(side.outbox, lease=10.0), slicing(side.again, calls)

    @slow.plan("rebuild", every=PERIOD)
    async def rebuild(plan):
        side.pass_time(11.0)
        assert await quick.run_once() == 2
        return [ab.Draft("rebuild", "late")]

    slow.run_once_blocking()
    side.pass_time(PERIOD)
    assert slow.run_once_blocking() == 0
    assert payloads(side) == [0, 1]
    assert "took longer than its lease" in caplog.text


@pytest.mark.parametrize(("missed", "count"), [("skip", 1), ("all", 5)])
def test_j4_instants_that_were_missed_are_skipped_or_made_up_for(side, missed, count):
    calls = []
    planner = slicing(side.outbox, calls, missed=missed)
    planner.run_once_blocking()
    side.pass_time(PERIOD)
    side.pass_time(4 * PERIOD)
    assert planner.run_once_blocking() == 2 * count
    assert len(calls) == count
    assert calls == sorted(set(calls))
    # The next one is in the future.
    assert planner.run_once_blocking() == 0
    side.pass_time(PERIOD)
    assert planner.run_once_blocking() == 2


def test_j4_an_instant_is_spread_over_its_jitter(side):
    planner = ab.OutboxPlanner(side.outbox)
    drafts = [ab.Draft("rebuild", n) for n in range(50)]
    planner.plan("rebuild", every=PERIOD, jitter=60.0)(lambda plan: drafts)
    planner.run_once_blocking()
    side.pass_time(PERIOD)
    assert planner.run_once_blocking() == 50
    delays = [(it.due_at - it.enqueued_at).total_seconds() for it in side.outbox.messages()]
    assert 0.0 <= min(delays) < 20.0
    assert 40.0 < max(delays) <= 60.0


def test_j4_a_plan_whose_cadence_has_changed_begins_anew(side):
    first, second = ab.OutboxPlanner(side.outbox), ab.OutboxPlanner(side.outbox)
    first.schedule("report", ab.Draft("report", "first"), every=10 * PERIOD)
    second.schedule("report", ab.Draft("report", "second"), every=PERIOD)
    first.run_once_blocking()
    second.run_once_blocking()
    side.pass_time(PERIOD)
    assert second.run_once_blocking() == 1
    assert payloads(side) == ["second"]


def test_j4_each_tenant_has_its_own_plan(side):
    other = ab.Outbox.memory()
    planner = ab.OutboxPlanner({"acme": side.outbox, "globex": other})
    seen = []

    @planner.plan("report", every=PERIOD)
    def report(plan):
        seen.append(plan.tenant)
        return [ab.Draft("report", plan.tenant)]

    planner.run_once_blocking()
    side.pass_time(PERIOD)
    planner.run_once_blocking()
    assert seen.count("acme") == 1
    assert payloads(side) == ["acme"]


@ab.testing.virtual_time
async def test_j4_by_the_calendar_of_a_time_zone_a_running_planner_plans_when_it_is_time(clock):
    # From Saturday, 29 March 2025, 12:00 UTC on: at night Berlin's clocks go from 2 to 3.
    begin = 1_743_249_600.0
    outbox = ab.Outbox.memory(clock=lambda: begin + clock.now())
    planner = ab.OutboxPlanner(outbox)
    told, over = [], asyncio.Event()

    @planner.plan("report", cron="30 6 * * *", tz="Europe/Berlin")
    async def report(plan):
        told.append(plan.at.isoformat())
        if len(told) == 2:
            over.set()
        return [ab.Draft("report", len(told))]

    async with planner:
        await over.wait()
    assert told == ["2025-03-30T04:30:00+00:00", "2025-03-31T04:30:00+00:00"]
    assert [round(it.enqueued_at.timestamp() - begin) for it in outbox.messages()] == [
        59_400,
        145_800,
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "cron must be given, or every="),
        ({"cron": "* * * * *", "every": 1.0}, "cron must be given, or every="),
        ({"cron": "* * *"}, "must be a cron expression of 5 or 6 fields"),
        ({"cron": "* * * * *", "tz": "Mars/Olympus"}, "tz must be"),
        ({"every": 0}, "plan: every must be seconds"),
        ({"every": 1.0, "tz": "UTC"}, "tz must be given with cron="),
        ({"every": 1.0, "missed": "some"}, "missed must be 'skip' or 'all'"),
        ({"every": 1.0, "jitter": -1}, "plan: jitter must be seconds"),
        ({"every": 1.0, "name": ""}, "name must be a str"),
        ({"every": 1.0, "name": "known"}, "name must be another name"),
    ],
)
def test_j4_bad_arguments_of_a_plan_are_refused(options, said):
    planner = ab.OutboxPlanner(ab.Outbox.memory())
    planner.schedule("known", ab.Draft("a", 1), every=1.0)
    with pytest.raises(ab.ConfigError, match=said):
        planner.plan(**{"name": "new", **options})(lambda plan: None)


def test_j4_what_is_no_planner_and_no_outbox_is_refused():
    with pytest.raises(ab.ConfigError, match="outboxes must be an Outbox"):
        ab.OutboxPlanner({})
    planner = ab.OutboxPlanner(ab.Outbox.memory())
    with pytest.raises(ab.ConfigError, match=r"plans must be added by @planner\.plan"):
        planner.run_once_blocking()
    with pytest.raises(ab.ConfigError, match=r"schedule: draft must be an ab\.Draft"):
        planner.schedule("a", "mail", every=1.0)


@pytest.mark.parametrize("options", [{"every": 7.5}, {"cron": "*/20 * * * * *"}])
def test_j4_the_next_instant_is_in_the_future_whenever_it_is_asked(options):
    given = {"cron": None, "every": None, "tz": None, "missed": "skip", "jitter": 0.0, **options}
    when = cadence(**given, subject="plan")
    period = 7_500 if "every" in options else 20_000
    for now in (0, 1, 7_499, 7_500, 20_000, 1_749_999_999_999, 1_750_000_000_000):
        assert now < when.after(now) <= now + period
        assert when.after(now) % period == 0
    assert when.due(period, 10 * period) == ([10 * period], 11 * period)


def test_j4_x2_a_planner_of_a_router_plans_for_tenants_that_come_and_not_for_those_that_go(side):
    names = ["acme"]
    router = ab.OutboxRouter(side.outbox.tenant, tenants=lambda: names)
    planner = ab.OutboxPlanner(router)
    planned = []

    @planner.plan("rebuild", every=60.0)
    def rebuild(plan):
        planned.append(plan.tenant)
        return [ab.Draft("rebuild", plan.tenant)]

    assert planner.run_once_blocking() == 0
    names.append("globex")
    side.pass_time(60.0)
    assert planner.run_once_blocking() == 1
    names.remove("acme")
    side.pass_time(60.0)
    assert planner.run_once_blocking() == 1
    assert planned == ["acme", "globex"]
    assert {it.tenant for it in side.outbox.claim()} == {"acme", "globex"}
