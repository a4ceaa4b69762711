"""Retry policies: what is allowed, and which errors are worth another attempt."""

import asyncio
import concurrent.futures
import pickle
from datetime import timedelta

import pytest

import anabranch as ab


def test_r2_durations_become_float_seconds():
    fixed = ab.Retry.fixed(timedelta(milliseconds=500), attempts=2)
    assert (fixed.kind, fixed.attempts, fixed.base, fixed.cap) == ("fixed", 2, 0.5, 0.5)
    grown = ab.Retry.exponential(base=timedelta(seconds=1), cap=60)
    assert (grown.kind, grown.attempts, grown.base, grown.cap) == ("exponential", 5, 1.0, 60.0)
    assert isinstance(grown.cap, float)


def test_r2_the_default_is_the_documented_one():
    retry = ab.Retry.exponential()
    assert retry.plan_options() == {
        "kind": "exponential",
        "attempts": 5,
        "base": 0.2,
        "factor": 2.0,
        "cap": 30.0,
        "jitter": "full",
        "seed": None,
        "total": None,
    }
    assert ab.Retry.fixed(1).plan_options() == {
        "kind": "fixed",
        "attempts": 5,
        "delay": 1.0,
        "total": None,
    }


@pytest.mark.parametrize(
    ("make", "argument", "value"),
    [
        (lambda: ab.Retry.fixed(1, attempts=0), "attempts", 0),
        (lambda: ab.Retry.fixed(-1), "delay", -1),
        (lambda: ab.Retry.fixed("soon"), "delay", "soon"),
        (lambda: ab.Retry.exponential(base=-0.5), "base", -0.5),
        (lambda: ab.Retry.exponential(factor=0.5), "factor", 0.5),
        pytest.param(
            lambda: ab.Retry.exponential(factor=10**400), "factor", 10**400, id="beyond a float"
        ),
        pytest.param(lambda: ab.Retry.exponential(cap=10**5000), "cap", 10**5000, id="beyond text"),
        (lambda: ab.Retry.exponential(cap=float("inf")), "cap", float("inf")),
        (lambda: ab.Retry.exponential(jitter="some"), "jitter", "some"),
        (lambda: ab.Retry.exponential(seed=-1), "seed", -1),
        (lambda: ab.Retry.decorrelated(base=-1), "base", -1),
        (lambda: ab.Retry.decorrelated(cap="high"), "cap", "high"),
        (lambda: ab.Retry.cron("* * * *"), "expression", "* * * *"),
        (lambda: ab.Retry.cron("0 0 31 2 *"), "expression", "0 0 31 2 *"),
        (lambda: ab.Retry.cron(None), "expression", None),
        (lambda: ab.Retry.cron("* * * * *", tz="Mars/Olympus"), "tz", "Mars/Olympus"),
        (lambda: ab.Retry.cron("* * * * *", tz=1), "tz", 1),
        (lambda: ab.Retry.custom(3), "delay", 3),
        (lambda: ab.Retry.custom(asyncio.sleep), "delay", asyncio.sleep),
        (lambda: ab.Retry.custom(print, attempts=0), "attempts", 0),
        (lambda: ab.Retry.fixed(1, total=0), "total", 0),
        (lambda: ab.Retry.exponential(budget=10), "budget", 10),
        (lambda: ab.Retry.exponential(retry_on=3), "retry_on", 3),
        (lambda: ab.Retry.exponential(retry_on=()), "retry_on", ()),
        (lambda: ab.Retry.fixed(1, retry_on=int), "retry_on", int),
        # These two must always get through.
        (lambda: ab.Retry.fixed(1, retry_on=KeyboardInterrupt), "retry_on", KeyboardInterrupt),
        (
            lambda: ab.Retry.fixed(1, retry_on=(OSError, asyncio.CancelledError)),
            "retry_on",
            (OSError, asyncio.CancelledError),
        ),
    ],
)
def test_r1_bad_arguments_are_named_with_their_values(make, argument, value):
    with pytest.raises(ab.ConfigError, match=rf"^retry: {argument} must be .*, got ") as caught:
        make()
    assert caught.value.argument == argument
    assert caught.value.value == value


def test_r2_a_refused_expression_is_explained():
    with pytest.raises(ab.ConfigError) as caught:
        ab.Retry.cron("0 25 * * *")
    assert str(caught.value) == (
        "retry: expression must be a cron expression of 5 or 6 fields "
        "(this one has \"25\" as its hour: it takes 0 to 23), got '0 25 * * *'"
    )


@pytest.mark.parametrize(
    ("rate", "burst", "argument"),
    [
        (0, 1, "rate"),
        ("fast", 1, "rate"),
        (float("inf"), 1, "rate"),
        pytest.param(10**400, 1, "rate", id="beyond a float"),
        (1, 0, "burst"),
        (1, 0.5, "burst"),
    ],
)
def test_r4_a_budget_names_its_bad_arguments(rate, burst, argument):
    with pytest.raises(ab.ConfigError, match=rf"^retry budget: {argument} must be ") as caught:
        ab.RetryBudget(rate=rate, burst=burst)
    assert caught.value.argument == argument


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [(2, 2.0), (0.5, 0.5), (0, 0.0), (timedelta(milliseconds=250), 0.25)],
)
def test_r2_a_custom_delay_is_seconds_or_a_timedelta(asked, seconds):
    error = OSError()
    assert ab.Retry.custom(lambda attempt, error: asked).seconds_after(1, error) == seconds
    assert not hasattr(error, "__notes__")


@pytest.mark.parametrize(
    "asked",
    [
        *(-1, float("nan"), float("inf"), None, "soon", "1", True, timedelta(-1)),
        pytest.param(10**400, id="beyond a float"),
        pytest.param(10**5000, id="beyond text"),
    ],
)
def test_r2_any_other_custom_delay_is_no_retry_and_leaves_a_note(asked):
    error = OSError()
    assert ab.Retry.custom(lambda attempt, error: asked).seconds_after(1, error) is None
    (note,) = error.__notes__
    assert note.startswith("not retried: delay must return a number of seconds from 0 to ")


def test_r3_an_async_predicate_is_refused():
    async def predicate(error):
        return True

    with pytest.raises(ab.ConfigError, match="retry_on"):
        ab.Retry.fixed(1, retry_on=predicate)


@pytest.mark.parametrize(
    "error",
    [
        TypeError(),
        AttributeError(),
        NameError(),
        UnboundLocalError(),
        ImportError(),
        ModuleNotFoundError(),
        SyntaxError(),
        AssertionError(),
        NotImplementedError(),
        asyncio.CancelledError(),
        KeyboardInterrupt(),
        SystemExit(),
        GeneratorExit(),
        BaseExceptionGroup("stop", [KeyboardInterrupt()]),
        ExceptionGroup("mixed", [OSError(), ExceptionGroup("inner", [TypeError()])]),
        concurrent.futures.CancelledError(),
    ],
)
def test_r3_cancellation_and_programming_errors_are_not_retried(error):
    assert not ab.Retry.fixed(1).retryable(error)


@pytest.mark.parametrize(
    "error",
    [
        OSError(),
        ValueError(),
        TimeoutError(),
        RuntimeError(),
        ExceptionGroup("all", [OSError(), ValueError()]),
    ],
)
def test_r3_other_errors_are_retried(error):
    assert ab.Retry.fixed(1).retryable(error)


def test_r3_retry_on_overrules_the_default():
    by_type = ab.Retry.fixed(1, retry_on=OSError)
    assert by_type.retryable(ConnectionError())
    assert not by_type.retryable(ValueError())
    by_types = ab.Retry.fixed(1, retry_on=(OSError, TypeError))
    assert by_types.retryable(TypeError())
    by_test = ab.Retry.fixed(1, retry_on=lambda error: "again" in str(error))
    assert by_test.retryable(TypeError("again"))
    assert not by_test.retryable(OSError("never"))


def test_r3_no_predicate_makes_a_cancellation_an_error():
    always = ab.Retry.fixed(1, retry_on=lambda error: True)
    assert not always.retryable(asyncio.CancelledError())
    assert not always.retryable(KeyboardInterrupt())


def test_r3_a_predicate_that_raises_is_a_no_and_leaves_a_note():
    retry = ab.Retry.fixed(1, retry_on=lambda error: error.code == 503)
    error = OSError("gone")
    assert not retry.retryable(error)
    (note,) = error.__notes__
    assert note.startswith("not retried: retry_on raised AttributeError: ")


def test_policies_are_values():
    retry = ab.Retry.exponential(seed=7, retry_on=(OSError,))
    assert retry == ab.Retry.exponential(seed=7, retry_on=(OSError,))
    assert hash(retry) == hash(pickle.loads(pickle.dumps(retry)))
    with pytest.raises(AttributeError):
        retry.attempts = 3


def test_policies_read_as_they_were_written():
    assert repr(ab.Retry.fixed(0, attempts=1)) == "Retry.fixed(0.0, attempts=1)"
    tries = ab.Retry.exponential(seed=7, retry_on=(OSError,))
    assert repr(tries).endswith("jitter='full', seed=7, retry_on=(<class 'OSError'>,))")
    cron = ab.Retry.cron("0 6 * * *", tz="Europe/Berlin", total=3600)
    assert repr(cron) == "Retry.cron('0 6 * * *', attempts=5, tz='Europe/Berlin', total=3600.0)"
    budget = ab.RetryBudget(rate=0.5, burst=2)
    spread = ab.Retry.decorrelated(attempts=2, budget=budget)
    assert repr(spread) == (
        "Retry.decorrelated(attempts=2, base=0.2, cap=30.0, budget=RetryBudget(rate=0.5, burst=2))"
    )
