"""Undo beyond one unit: shared by its outputs, wider than it, arranged by a policy, tried again."""

import asyncio
import threading

import pytest
from support import Live, Seen, balanced, every_driver, every_way, go, with_sink, within

import anabranch as ab
from anabranch.testing import VirtualClock


class Refused(Exception):
    """What a handler raises that is to be undone."""


def pipeline(*items, **options):
    return ab.Pipeline("p", **options).source(list(items) or [1])


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("failing", [0, 1, 2])
@every_driver
def test_c17_a_failure_of_any_output_undoes_the_unit(driver, failing, asynchronous):
    ran = []

    def split(n, ctx):
        ctx.compensate(ran.append, "split")
        return range(3)

    async def split_async(n, ctx):
        return split(n, ctx)

    def store(n, ctx):
        ctx.compensate(ran.append, n)
        if n == failing:
            raise Refused

    stages = pipeline().flat_map(split_async if asynchronous else split)
    report = balanced(go(stages.for_each(store, inline=True), driver))
    assert ran == [failing, "split"]
    assert (report.committed, report.failed, report.compensated) == (2, 1, 2)


@every_driver
def test_c17_what_a_stage_did_for_one_child_is_not_undone_for_its_sibling(driver):
    ran = []

    def note(name):
        def stage(n, ctx):
            ctx.compensate(ran.append, (name, n))
            return n

        return stage

    def store(n):
        if n == 12:
            raise Refused

    stages = pipeline(1).map(note("all")).flat_map(lambda n: [11, 12, 13])
    stages = stages.map(note("one")).filter(lambda n: n != 13).for_each(store, inline=True)
    report = balanced(go(stages, driver))
    assert ran == [("one", 12), ("all", 1)]
    assert (report.committed, report.filtered, report.failed) == (1, 1, 1)


@every_driver
def test_c17_a_child_that_fails_in_the_pass_undoes_itself_then_the_parent(driver):
    ran = []

    def split(n, ctx):
        ctx.compensate(ran.append, "parent")
        return [1, 2]

    def check(n, ctx):
        ctx.compensate(ran.append, n)
        if n == 1:
            raise Refused
        return n

    report = balanced(go(pipeline().flat_map(split).map(check).collect(), driver))
    assert (ran, report.items) == ([1, "parent"], [2])


@every_driver
def test_c17_outputs_in_different_windows_and_tenants(driver):
    ran = []

    def split(pair, ctx):
        ctx.compensate(ran.append, pair)
        return [(tenant, pair) for tenant in pair]

    def store(batch, ctx):
        if ctx.tenant == "c":
            raise Refused

    stages = pipeline("ab", "bc").flat_map(split).fan_out(by=ab.item(0)).window(max_items=2)
    report = balanced(go(stages.for_each(store, inline=True), driver))
    assert ran == ["bc"]
    assert report.compensated == 1


@every_way
def test_c2_unit_branch_and_pipeline_are_undone_in_one_order(driver, kind):
    ran = []

    def handler(unit, ctx):
        for number, level in enumerate(("pipeline", "unit", "branch", "unit", "pipeline")):
            ctx.compensate(ran.append, (number, level), level=level)
        raise Refused

    stages = pipeline(("acme", 1), on_error="stop").fan_out(by=ab.item(0))
    report = balanced(go(with_sink(stages, kind, handler), driver))
    assert [number for number, _ in ran] == [4, 3, 2, 1, 0]
    assert (report.outcome, report.compensated) == ("failed", 5)
    assert {action.tenant for action in report.compensations} == {"acme"}


@every_way
def test_c19_wide_actions_are_released_when_the_run_ends_well(driver, kind):
    ran = []

    def handler(unit, ctx):
        ctx.compensate(ran.append, "branch", level="branch")
        ctx.compensate(ran.append, "pipeline", level="pipeline")
        ctx.compensate(ran.append, "unit")
        raise Refused

    stages = pipeline(("acme", 1)).fan_out(by=ab.item(0))
    report = balanced(go(with_sink(stages, kind, handler), driver))
    assert (ran, report.outcome) == (["unit"], "completed")


@every_driver
def test_c19_wide_actions_of_stages_run_when_the_source_fails(driver):
    ran = []

    def source():
        yield ("acme", 1)
        raise OSError("gone")

    def before(event, ctx):
        ctx.compensate(ran.append, "pipeline", level="pipeline")
        ctx.compensate(ran.append, "trunk", level="branch")
        return event

    def behind(event, ctx):
        ctx.compensate(ran.append, ctx.tenant, level="branch")
        return event

    stages = ab.Pipeline("p").source(source()).map(before).fan_out(by=ab.item(0)).map(behind)
    report = go(stages.collect(), driver)
    assert (ran, report.outcome) == (["acme", "trunk", "pipeline"], "failed")
    assert [action.tenant for action in report.compensations] == ["acme", None, None]


@within
async def test_c19_c18_wide_actions_run_when_the_run_is_aborted():
    source, seen, ran = Live(1), Seen(), []

    async def handler(n, ctx):
        ctx.compensate(ran.append, "unit")
        ctx.compensate(ran.append, "pipeline", level="pipeline")
        seen(n)
        await asyncio.Event().wait()

    async with ab.Pipeline("p").source(source).for_each(handler).start() as running:
        await seen.reach(1)
        running.abort()
        report = await running.wait()
    assert (ran, report.outcome) == (["pipeline", "unit"], "aborted")


@pytest.mark.parametrize("failing", [None, 2])
@every_way
def test_c11_commit_at_the_end_is_all_or_nothing(driver, kind, failing):
    ran = []

    def handler(n, ctx):
        ctx.compensate(ran.append, n)
        if n == failing:
            raise Refused

    report = balanced(go(with_sink(pipeline(1, 2, 3, commit="end"), kind, handler), driver))
    assert ran == ([] if failing is None else [3, 2, 1])
    assert report.compensated == len(ran)


@pytest.mark.parametrize("fails", [False, True])
@every_way
def test_c15_finalizers_always_run_and_last(driver, kind, fails):
    ran = []

    def handler(n, ctx):
        ctx.finalize(ran.append, "close")
        ctx.compensate(ran.append, "undo")
        ctx.finalize(ran.append, "release")
        ctx.finalize(ran.append, "at the end", level="pipeline")
        if fails:
            raise Refused

    report = balanced(go(with_sink(pipeline(), kind, handler), driver))
    assert ran == [*(["undo"] if fails else []), "release", "close", "at the end"]
    assert (report.finalized, report.compensated) == (3, int(fails))


@every_driver
def test_c4_in_parallel_all_run_at_once_and_every_failure_is_told(driver):
    both = []

    async def meet(name, ctx):
        both.append(name)
        while len(both) < 2:  # noqa: ASYNC110 - it must wait for the other one
            await asyncio.sleep(0)
        raise OSError(name)

    def handler(n, ctx):
        ctx.compensate(meet, "a")
        ctx.compensate(meet, "b")
        raise Refused

    report = go(pipeline(rollback="parallel").for_each(handler, inline=True), driver)
    assert report.stuck == 2
    assert sorted(str(action.error) for action in report.compensations) == ["a", "b"]


@every_driver
def test_c13_none_must_be_spelled_out_and_is_told(driver):
    ran = []

    def handler(n, ctx):
        ctx.compensate(ran.append, "undo")
        ctx.finalize(ran.append, "close")
        raise Refused

    report = go(pipeline(rollback="none").for_each(handler, inline=True), driver)
    assert ran == ["close"]
    assert (report.skipped, report.compensated, report.stuck) == (1, 0, 0)
    assert [action.outcome for action in report.compensations] == ["skipped"]
    for other in (None, "x"):
        with pytest.raises(ab.ConfigError, match=r"rollback must be .* 'none' or a def that takes"):
            ab.Pipeline("p", rollback=other)


@every_driver
def test_c14_a_policy_of_ones_own_is_called_once_per_rollback(driver):
    ran, calls = [], []

    def policy(actions):
        calls.append([action.args[0] for action in actions])
        return [action for action in reversed(actions) if action.args[0] != "b"]

    def handler(n, ctx):
        for name in "abc":
            ctx.compensate(ran.append, name)
        raise Refused

    report = go(pipeline(1, 2, rollback=policy).for_each(handler, inline=True), driver)
    assert calls == [["c", "b", "a"]] * 2
    assert ran == ["a", "c"] * 2
    assert (report.compensated, report.skipped) == (4, 2)


class Strange(BaseException):
    pass


@pytest.mark.parametrize("answer", [None, ["strange"], LookupError, GeneratorExit, Strange])
@every_driver
def test_c14_a_policy_that_fails_loses_no_action(driver, answer, caplog):
    ran = []

    def policy(_):
        if isinstance(answer, type):
            raise answer
        return answer

    def handler(n, ctx):
        for name in "abc":
            ctx.compensate(ran.append, name)
        raise Refused

    report = go(pipeline(rollback=policy).for_each(handler, inline=True), driver)
    assert (ran, report.compensated, report.outcome) == (["c", "b", "a"], 3, "completed")
    assert "rollback policy failed" in caplog.text


@every_driver
def test_c8_a_rollback_has_a_deadline_and_what_did_not_run_is_stuck(driver):
    ran = []

    async def hang():
        try:
            await asyncio.Event().wait()
        finally:
            ran.append("cancelled")

    def handler(n, ctx):
        ctx.compensate(ran.append, "never")
        ctx.compensate(hang)
        raise Refused

    clock = VirtualClock()
    stages = pipeline(rollback_deadline=5.0, clock=clock).for_each(handler, inline=True)
    report = balanced(go(stages, driver, clock))
    assert (ran, report.stuck, clock.now()) == (["cancelled"], 2, 5.0)
    hung, unrun = report.compensations
    assert isinstance(hung.error, TimeoutError)
    assert "no turn" in str(unrun.error)


@every_way
def test_c16_the_context_of_an_undo_knows_its_tenant(driver, kind):
    told = []

    def undo(ctx):
        told.append((ctx.tenant, ctx.stage, ctx.attempt))
        if ctx.attempt == 1:
            raise OSError

    def before(event, ctx):
        ctx.compensate(undo, retries=1)
        return event

    def handler(unit, ctx):
        ctx.compensate(undo, retries=1)
        raise Refused

    stages = pipeline(("acme", 1)).map(before).fan_out(by=ab.item(0))
    go(with_sink(stages, kind, handler, name="store"), driver)
    assert told == [
        *(("acme", "store", 1), ("acme", "store", 2)),
        *(("acme", "before", 1), ("acme", "before", 2)),
    ]


def test_c12_registration_on_a_condition_is_one_call():
    ran = []

    def handler(n, ctx):
        ctx.compensate(ran.append, "made", when=n == 1)
        ctx.finalize(ran.append, "opened", when=False)
        raise Refused

    report = go(pipeline(1, 2).for_each(handler, inline=True))
    assert (ran, report.compensated, report.finalized) == (["made"], 1, 0)


@pytest.mark.parametrize("blocking", [False, True])
@pytest.mark.parametrize("asynchronous", [False, True])
@every_driver
def test_c3_what_is_stuck_stays_listed_and_is_tried_again(driver, asynchronous, blocking):
    ran, broken = [], [True]

    def undo(name, ctx):
        if broken:
            raise OSError(name)
        ran.append((name, ctx.tenant, ctx.stage))

    async def undo_async(name, ctx):
        undo(name, ctx)

    def handler(event, ctx):
        for name in "ab":
            ctx.compensate(undo_async if asynchronous else undo, name)
        ctx.compensate(ran.append, "fine")
        raise Refused

    def again(report):
        if blocking:
            return report.retry_stuck_blocking()
        return asyncio.run(report.retry_stuck())

    stages = pipeline(("acme", 1)).fan_out(by=ab.item(0)).for_each(handler, name="store")
    first = go(stages, driver)
    assert (first.stuck, first.compensated, ran) == (2, 1, ["fine"])
    second = again(first)
    assert (second.stuck, second.compensated) == (2, 1)
    broken.clear()
    assert again(first).stuck == 2, "they belong to the second report now"
    third = again(second)
    assert ran == ["fine", ("b", "acme", "store"), ("a", "acme", "store")]
    assert (third.stuck, third.compensated, third.ok) == (0, 3, False)
    assert [action.outcome for action in third.compensations] == ["done"] * 3
    # Whichever is asked, it tells how things are now, and tries nothing twice.
    for report in (first, second, third):
        now = again(report)
        assert (now.stuck, now.compensated) == (0, 3)
        assert [action.outcome for action in now.compensations] == ["done"] * 3
    assert len(ran) == 3


def test_c3_what_a_try_registers_is_told_by_each_report_of_the_run():
    broken, closed = [True], []

    def undo(ctx):
        if broken:
            raise OSError
        ctx.compensate(fails)
        ctx.finalize(closed.append, "closed")
        raise LookupError

    def fails():
        raise KeyError

    def handler(n, ctx):
        ctx.compensate(undo)
        raise Refused

    first = go(pipeline(1).for_each(handler, inline=True))
    second = first.retry_stuck_blocking()
    assert (first.stuck, second.stuck) == (1, 1)
    broken.clear()
    for report in (second, first):
        now = report.retry_stuck_blocking()
        # It has failed for good, and what it registered has had its turn.
        assert (now.stuck, now.finalized, closed) == (2, 1, ["closed"])
        told = [(it.name, it.outcome) for it in now.compensations]
        assert told == [("undo", "failed"), ("fails", "failed"), ("append", "done")]


def test_c3_more_actions_than_samples_stay_stuck():
    threads = set()

    def undo():
        threads.add(threading.get_ident())
        raise OSError

    def handler(n, ctx):
        ctx.compensate(undo)
        raise Refused

    report = go(pipeline(*range(300)).for_each(handler, inline=True))
    assert report.stuck == 300
    assert sum(action.action is not None for action in report.compensations) == 300


@every_driver
def test_c14_a_policy_arranges_what_is_undone_with_the_run_too(driver):
    ran = []

    def handler(n, ctx):
        for name in "abc":
            ctx.compensate(ran.append, name, level="pipeline")
        raise Refused

    options = {"rollback": reversed, "rollback_deadline": None, "on_error": "stop"}
    report = go(pipeline(**options).for_each(handler, inline=True), driver)
    assert (ran, report.compensated) == (["a", "b", "c"], 3)


def test_e5_what_had_no_turn_when_the_run_is_left_is_stuck():
    ran = []

    def interrupt():
        raise KeyboardInterrupt

    def handler(n, ctx):
        ctx.compensate(ran.append, "pipeline", level="pipeline")
        ctx.compensate(ran.append, "unit")
        ctx.compensate(interrupt)
        interrupt()

    stages = pipeline().for_each(handler, inline=True)
    with pytest.raises(KeyboardInterrupt):
        stages.run_blocking()
    report = stages.last_report
    assert ran == []
    assert [action.name for action in report.compensations] == ["interrupt", "append", "append"]
    assert report.stuck == 3
