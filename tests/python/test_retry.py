"""Retry through the public API: how often, after what delay, for which errors, and the record."""

import asyncio
import itertools

import pytest
from support import balanced, every_driver, every_sink, every_way, go, with_sink

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


def jittered(seed, *, pipeline_seed=None):
    handler, _ = failing(99)
    retry = ab.Retry.exponential(attempts=4, base=0.0001, seed=seed)
    pipeline = ab.Pipeline("p", seed=pipeline_seed).source([1])
    return go(with_sink(pipeline, "inline", handler, retry=retry)).failures[0].delay


def test_r2_a_seed_repeats_the_jitter():
    assert jittered(1) == jittered(1)
    assert jittered(1) != jittered(2)
    assert jittered(None, pipeline_seed=7) == jittered(None, pipeline_seed=7)
    assert jittered(None) != jittered(None)
    assert 0 <= jittered(3) <= 0.0007


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
