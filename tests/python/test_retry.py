"""Retry through the public API: how often, after what delay, for which errors, and the record."""

import asyncio
import itertools

import pytest
from support import (
    Live,
    Seen,
    balanced,
    every_driver,
    every_sink,
    every_way,
    go,
    with_sink,
    within,
)

import anabranch as ab
from anabranch.testing import VirtualClock


def one(*items):
    return ab.Pipeline("p").source(list(items) or [1])


def failing(times, error=OSError):
    """Make a handler that fails so many times, and a list of its attempts."""
    attempts = []

    def handler(unit, ctx):
        attempts.append(ctx.attempt)
        if len(attempts) <= times:
            raise error(len(attempts))

    return handler, attempts


@every_way
def test_r1_attempts_include_the_first(driver, kind):
    handler, attempts = failing(99)
    retry = ab.Retry.fixed(0, attempts=3)
    report = balanced(go(with_sink(one(), kind, handler, retry=retry), driver))
    assert attempts == [1, 2, 3]
    assert (report.failed, report.retried, report.failures[0].attempts) == (1, 2, 3)


@every_way
def test_r1_one_attempt_is_no_retry(driver, kind):
    handler, attempts = failing(1)
    report = go(with_sink(one(), kind, handler, retry=ab.Retry.fixed(0, attempts=1)), driver)
    assert (attempts, report.failed, report.retried) == ([1], 1, 0)


@every_way
def test_r1_the_attempt_that_succeeds_is_the_last(driver, kind):
    handler, attempts = failing(2)
    report = balanced(go(with_sink(one(), kind, handler, retry=ab.Retry.fixed(0)), driver))
    assert (attempts, report.committed, report.failures) == ([1, 2, 3], 1, ())


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("operator", ["map", "filter", "tap", "flat_map"])
@every_driver
def test_r1_every_operator_tries_again(driver, operator, asynchronous):
    seen = []

    def call(n):
        seen.append(n)
        if seen.count(n) < 3:
            raise OSError(n)
        return [n]

    async def call_async(n):
        await asyncio.sleep(0)
        return call(n)

    pipeline = one(1, 2, 3)
    add = getattr(pipeline, operator)
    pipeline = add(call_async if asynchronous else call, retry=ab.Retry.fixed(0)).collect()
    report = balanced(go(pipeline, driver))
    assert sorted(seen) == [1] * 3 + [2] * 3 + [3] * 3
    assert report.items == ([[1], [2], [3]] if operator == "map" else [1, 2, 3])
    assert (report.retried, report.failed) == (6, 0)


@pytest.mark.parametrize(
    ("retry", "delays"),
    [
        (ab.Retry.fixed(60.0, attempts=4), [60.0] * 3),
        (ab.Retry.exponential(attempts=5, base=0.5, jitter="none"), [0.5, 1.0, 2.0, 4.0]),
        (
            ab.Retry.exponential(attempts=5, base=0.5, factor=3.0, cap=2.0, jitter="none"),
            [0.5, 1.5, 2.0, 2.0],
        ),
    ],
    ids=["fixed", "doubling", "capped"],
)
@every_sink
def test_r2_delays_are_those_of_the_policy(kind, retry, delays):
    clock, attempts = VirtualClock(), []

    def handler(unit, ctx):
        attempts.append(clock.now())
        raise OSError

    pipeline = ab.Pipeline("p", clock=clock).source([1])
    report = go(with_sink(pipeline, kind, handler, retry=retry), clock=clock)
    assert attempts == list(itertools.accumulate(delays, initial=0.0))
    assert report.failures[0].delay == report.seconds == attempts[-1]


def jittered(seed, *, pipeline_seed=None, make=ab.Retry.exponential):
    handler, _ = failing(99)
    retry = make(attempts=4, base=0.0001, seed=seed)
    pipeline = ab.Pipeline("p", seed=pipeline_seed).source([1])
    return go(with_sink(pipeline, "inline", handler, retry=retry)).failures[0].delay


def test_r2_a_seed_repeats_the_jitter():
    assert jittered(1) == jittered(1)
    assert jittered(1) != jittered(2)
    assert jittered(None, pipeline_seed=7) == jittered(None, pipeline_seed=7)
    assert jittered(None) != jittered(None)
    assert 0 <= jittered(3) <= 0.0007


def test_r2_decorrelated_jitter_has_a_seed_too():
    once, again = (jittered(1, make=ab.Retry.decorrelated) for _ in range(2))
    assert once == again != jittered(2, make=ab.Retry.decorrelated)
    assert 0.0003 <= once <= 0.0003 + 0.0009 + 0.0027


@every_way
def test_r2_a_custom_delay_sees_attempt_and_error(driver, kind):
    asked = []

    def delay(attempt, error):
        asked.append((attempt, error.args))
        return 0.001 * attempt

    handler, _ = failing(99)
    retry = ab.Retry.custom(delay, attempts=3)
    report = balanced(go(with_sink(one(), kind, handler, retry=retry), driver))
    # After the last attempt nobody asks.
    assert asked == [(1, (1,)), (2, (2,))]
    assert report.failures[0].delay == pytest.approx(0.003)


@every_sink
def test_r2_a_custom_delay_that_raises_is_noted_and_ends_the_attempts(kind):
    handler, attempts = failing(99)
    retry = ab.Retry.custom(lambda attempt, error: 1 // 0)
    report = balanced(go(with_sink(one(), kind, handler, retry=retry)))
    assert attempts == [1]
    (failure,) = report.failures
    assert failure.gave_up == "error"
    assert any("delay raised ZeroDivisionError" in note for note in failure.error.__notes__)


@every_sink
@within
async def test_r2_a_custom_delay_runs_while_the_engine_is_free(kind):
    source, handler = Live(1), failing(2)[0]

    def delay(attempt, error):
        # Asks the engine: if it were borrowed, this would wait for ever.
        running._session._run.timeout()
        source.end() if attempt == 2 else None
        return 0

    pipeline = ab.Pipeline("p").source(source)
    pipeline = with_sink(pipeline, kind, handler, retry=ab.Retry.custom(delay))
    async with pipeline.start() as running:
        report = balanced(await running.wait())
    assert (report.committed, report.retried) == (1, 2)


@pytest.mark.parametrize(("tz", "first"), [(None, 6.0), ("Asia/Tokyo", 21.0)])
@every_way
def test_r6_cron_waits_for_the_instants_of_its_calendar(driver, kind, tz, first):
    clock, hours = VirtualClock(), []

    def fail(unit, ctx):
        hours.append(clock.now() / 3600)
        raise OSError

    # Virtual time begins with 1970, on a Thursday; Tokyo is nine hours ahead.
    retry = ab.Retry.cron("0 6 * * mon-fri", attempts=4, tz=tz)
    pipeline = with_sink(ab.Pipeline("p", clock=clock).source([1]), kind, fail, retry=retry)
    balanced(go(pipeline, driver, clock))
    weekend = 48.0
    days = [0.0, 24.0, 24.0 + 24.0 + weekend] if tz is None else [0.0, 24.0 + weekend, 96.0]
    assert hours == [0.0, *(first + day for day in days)]


@every_way
def test_r6_decorrelated_delays_stay_within_their_bounds(driver, kind):
    clock, attempts = VirtualClock(), []

    def fail(unit, ctx):
        attempts.append(clock.now())
        raise OSError

    retry = ab.Retry.decorrelated(attempts=9, base=1.0, cap=20.0, seed=3)
    pipeline = with_sink(ab.Pipeline("p", clock=clock).source([1]), kind, fail, retry=retry)
    balanced(go(pipeline, driver, clock))
    before = 1.0
    for earlier, later in itertools.pairwise(attempts):
        delay = later - earlier
        assert 1.0 - 1e-9 <= delay <= min(3 * before, 20.0) + 1e-9
        before = delay


@every_way
def test_r4_no_attempt_begins_after_the_total(driver, kind):
    handler, attempts = failing(99)
    retry = ab.Retry.fixed(3600, attempts=9, total=60)
    report = balanced(go(with_sink(one(), kind, handler, retry=retry), driver))
    assert (attempts, report.retried) == ([1], 0)
    assert (report.failures[0].gave_up, report.failures[0].delay) == ("total", 0.0)


@every_way
def test_r4_a_total_with_room_changes_nothing(driver, kind):
    items = list(range(20))
    handler, attempts = failing(3)
    retry = ab.Retry.fixed(0, attempts=9, total=60)
    report = balanced(go(with_sink(one(*items), kind, handler, retry=retry), driver))
    assert attempts == [1, 2, 3, 4] + [1] * 19
    assert (report.committed, report.retried) == (20, 3)


@every_way
def test_r4_a_budget_is_shared_by_stages_and_pipelines(driver, kind):
    budget = ab.RetryBudget(rate=1e-6, burst=3)

    def run(name):
        def broken(item):
            raise ConnectionError(item)

        def sink(item, ctx):
            raise OSError(item)

        pipeline = ab.Pipeline(name).source([1, 2])
        pipeline = pipeline.map(
            lambda n: broken(n) if n == 1 else n, retry=ab.Retry.fixed(0, budget=budget)
        )
        retry = ab.Retry.exponential(base=0, budget=budget)
        return balanced(go(with_sink(pipeline, kind, sink, retry=retry), driver))

    first, second = run("first"), run("second")
    assert (first.retried, second.retried) == (3, 0)
    assert [failure.gave_up for failure in first.failures + second.failures] == ["budget"] * 4


@every_way
def test_r5_a_failure_says_why_there_was_no_further_attempt(driver, kind):
    def sink(item, ctx):
        raise item

    retry = ab.Retry.fixed(0, attempts=2)
    pipeline = with_sink(one(OSError(), TypeError()), kind, sink, retry=retry)
    report = balanced(go(pipeline, driver))
    given_up = {failure.code: failure.gave_up for failure in report.failures}
    assert given_up == {"OSError": "attempts", "TypeError": "error"}
    assert [row["gave_up"] for row in report.to_dict()["failures"]] == ["attempts", "error"]


def test_r5_very_many_attempts_keep_the_first_error_and_the_latest():
    handler, _ = failing(999)
    retry = ab.Retry.fixed(0, attempts=100)
    report = go(with_sink(one(), "inline", handler, retry=retry))
    (failure,) = report.failures
    assert failure.attempts == 100
    assert [error.args[0] for error in failure.history] == [1, *range(69, 101)]


@pytest.mark.parametrize("way", ["abort", "cancel"])
@pytest.mark.parametrize(
    "retry",
    [
        ab.Retry.fixed(3600),
        ab.Retry.cron("0 0 29 2 *"),
        ab.Retry.cron("0 0 1 1,7 *", tz="Europe/Berlin"),
        ab.Retry.custom(lambda attempt, error: 3600),
    ],
    ids=["fixed", "cron", "zone", "custom"],
)
@every_sink
@within
async def test_r7_cancel_during_back_off_is_cancelled_and_undone(kind, retry, way):
    source, seen, undone = Live(1), Seen(), []

    def upstream(item, ctx):
        ctx.compensate(undone.append, "upstream")

    def handler(unit, ctx):
        ctx.compensate(undone.append, "attempt")
        seen(unit)
        raise OSError("mine")

    pipeline = ab.Pipeline("p").source(source).tap(upstream)
    pipeline = with_sink(pipeline, kind, handler, retry=retry)
    task = asyncio.ensure_future(pipeline.run()) if way == "cancel" else None
    if task is not None:
        await seen.reach(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        async with pipeline.start() as running:
            await seen.reach(1)
            running.abort()
    report = balanced(pipeline.last_report)
    assert undone == ["attempt", "upstream"]
    assert (report.outcome, report.codes) == ("aborted", {"cancelled": 1})
    (failure,) = report.failures
    assert (failure.code, failure.gave_up, failure.attempts) == ("cancelled", "cancelled", 1)
    assert failure.error.args == ("mine",)
    assert failure.delay < 60


PROGRAMMING = [TypeError, AttributeError, NameError, ImportError, AssertionError]


@pytest.mark.parametrize("error", [*PROGRAMMING, asyncio.CancelledError])
@every_way
def test_r3_programming_errors_and_cancellation_are_not_tried_again(driver, kind, error):
    handler, attempts = failing(1, error)
    report = balanced(go(with_sink(one(), kind, handler, retry=ab.Retry.fixed(0)), driver))
    assert (attempts, report.failed, report.retried) == ([1], 1, 0)
    code = "cancelled" if error is asyncio.CancelledError else error.__name__
    assert report.codes == {code: 1}


@pytest.mark.parametrize(
    ("retry_on", "error", "again"),
    [
        (OSError, ConnectionError, True),
        (OSError, ValueError, False),
        ((OSError, ValueError), ValueError, True),
        (TypeError, TypeError, True),
        (lambda error: error.args == (1,), OSError, True),
        (lambda error: False, OSError, False),
        (lambda error: 1 // 0, OSError, False),
    ],
)
@every_sink
def test_r3_retry_on_decides(kind, retry_on, error, again):
    handler, attempts = failing(1, error)
    retry = ab.Retry.fixed(0, retry_on=retry_on)
    report = balanced(go(with_sink(one(), kind, handler, retry=retry)))
    assert attempts == ([1, 2] if again else [1])
    assert report.committed == int(again)


def test_r3_a_retry_on_that_raises_is_noted_on_the_error():
    handler, _ = failing(1)
    retry = ab.Retry.fixed(0, retry_on=lambda error: 1 // 0)
    report = go(with_sink(one(), "inline", handler, retry=retry))
    assert any(
        "retry_on raised ZeroDivisionError" in it for it in report.failures[0].error.__notes__
    )


@every_way
def test_r5_the_failure_keeps_attempts_each_error_and_the_delay(driver, kind):
    handler, clock = failing(99)[0], VirtualClock()
    pipeline = (
        ab.Pipeline("p", clock=clock)
        .source([("acme", 1)])
        .fan_out(by=ab.item(0))
        .window(max_items=5)
    )
    retry = ab.Retry.fixed(60.0, attempts=3)
    report = go(with_sink(pipeline, kind, handler, retry=retry, name="store"), driver, clock)
    (failure,) = report.failures
    assert (failure.attempts, failure.items, failure.tenant) == (3, 1, "acme")
    assert failure.delay == 120.0
    assert [error.args for error in failure.history] == [(1,), (2,), (3,)]
    assert failure.error is failure.history[-1]
    with pytest.raises(ab.PipelineFailed) as failed:
        report.raise_for_failure()
    (error,) = failed.value.exceptions
    assert (error.attempts, error.history) == (3, tuple(failure.history))
    assert error.__cause__ is failure.error


@every_way
def test_r6_delays_are_exact(driver, kind):
    clock, attempts = VirtualClock(), []

    def fail(unit, ctx):
        attempts.append(clock.now())
        raise OSError

    retry = ab.Retry.exponential(attempts=7, base=0.2, cap=5.0, jitter="none")
    pipeline = with_sink(ab.Pipeline("p", clock=clock).source([1]), kind, fail, retry=retry)
    (failure,) = balanced(go(pipeline, driver, clock)).failures
    # 0.2 s, doubled each time, 5 s at most.
    assert attempts == [0.0, 0.2, 0.6, 1.4, 3.0, 6.2, 11.2]
    assert failure.delay == 11.2


@every_way
def test_r6_a_jittered_delay_is_what_the_report_says(driver, kind):
    clock, attempts = VirtualClock(seed=5), []

    def fail(unit, ctx):
        attempts.append(clock.now())
        raise OSError

    retry = ab.Retry.exponential(attempts=4, base=1.0)
    pipeline = with_sink(ab.Pipeline("p", clock=clock).source([1]), kind, fail, retry=retry)
    (failure,) = balanced(go(pipeline, driver, clock)).failures
    assert attempts[0] == 0.0
    assert attempts[-1] == failure.delay
    assert 0.0 < failure.delay <= 7.0
    assert attempts == sorted(attempts)


@every_sink
def test_a_unit_in_back_off_holds_up_its_own_branch_only(kind):
    clock, log = VirtualClock(), []

    def handler(unit, ctx):
        log.append((unit, ctx.attempt, clock.now()))
        if unit == ("a", 1) and ctx.attempt == 1:
            raise OSError

    pairs = [("a", 1), ("a", 2), ("b", 1), ("b", 2)]
    pipeline = ab.Pipeline("p", clock=clock).source(pairs).fan_out(by=ab.item(0))
    go(with_sink(pipeline, kind, handler, retry=ab.Retry.fixed(60.0)), clock=clock)
    assert sorted(log, key=lambda entry: entry[0]) == [
        (("a", 1), 1, 0.0),
        (("a", 1), 2, 60.0),
        (("a", 2), 1, 60.0),
        (("b", 1), 1, 0.0),
        (("b", 2), 1, 0.0),
    ]


@every_driver
def test_overtaking_is_allowed_where_order_was_given_up(driver):
    clock, seen = VirtualClock(), []

    def handler(n, ctx):
        if n == 1 and ctx.attempt == 1:
            raise OSError
        seen.append((n, clock.now()))

    pipeline = ab.Pipeline("p", clock=clock).source([1, 2, 3])
    pipeline = pipeline.for_each(handler, concurrency=3, retry=ab.Retry.fixed(60.0))
    report = balanced(go(pipeline, driver, clock))
    assert seen == [(2, 0.0), (3, 0.0), (1, 60.0)]
    assert report.committed == 3
