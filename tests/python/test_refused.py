"""What can never work is refused where it is said, by name: E1, T9, C22, R2, R3, G6."""

import asyncio
import dataclasses
import functools
import re

import pytest

import anabranch as ab
from anabranch import testing
from anabranch.testing import VirtualClock


def none():
    pass


def one(first):
    return first


def two(first, second):
    return second


def by_name(first, *, needed):
    return needed


def with_ctx(first, ctx):
    return ctx


def yielding(first):
    yield first


async def awaited(first=None, second=None):
    return second


def begun():
    return ab.Pipeline("p").source([1])


def scanning(fn):
    return begun().scan(fn, 0)


def collecting(to):
    return begun().collect_errors(every=60.0, to=to)


def hooked(argument, value):
    return begun().fan_out(by="tenant", **{argument: value})


def sized(size_of):
    return begun().window(max_bytes=10, size_of=size_of)


def scoped(policy):
    return ab.CompensationScope().rollback_blocking(policy=policy)


ROLLBACK = "'sequential', 'parallel', 'none' or a def that takes the undo actions"
RULE = "an Exception type, a tuple of them, or a def that takes the exception"
DELAY = "a def that takes the attempt and the exception, and returns seconds"
FOLD = "a def that is given the state and the item"
KEY = "a callable that takes the item"
HOOK = "a callable that takes the tenant"
HOOKS = ("capacity", "on_full", "weight", "on_new_branch", "on_branch_closed")

CALLABLES = [
    (scanning, "fn", one, FOLD),
    (scanning, "fn", with_ctx, FOLD),
    (scanning, "fn", awaited, FOLD),
    (scanning, "fn", functools.partial(yielding), FOLD),
    (scanning, "fn", 3, FOLD),
    (begun().distinct, "by", none, KEY),
    (begun().distinct, "by", two, KEY),
    (begun().distinct, "by", with_ctx, "a callable that takes the item alone, without ctx"),
    (begun().distinct, "by", awaited, "a def: a key is needed at once"),
    (begun().distinct, "by", " ", "the name of an entry, ab.attr(...), ab.item(...) or a def"),
    (ab.Retry.custom, "delay", one, DELAY),
    (ab.Retry.custom, "delay", yielding, DELAY),
    (ab.Retry.custom, "delay", awaited, DELAY),
    (ab.Retry.custom, "delay", 0.5, DELAY),
    (lambda it: ab.Retry.fixed(1.0, retry_on=it), "retry_on", two, RULE),
    (lambda it: ab.Retry.fixed(1.0, retry_on=it), "retry_on", none, RULE),
    (lambda it: ab.Retry.fixed(1.0, retry_on=it), "retry_on", awaited, RULE),
    (lambda it: ab.Retry.fixed(1.0, retry_on=it), "retry_on", KeyboardInterrupt, RULE),
    (lambda it: ab.Pipeline("p", rollback=it), "rollback", two, ROLLBACK),
    (lambda it: ab.Pipeline("p", rollback=it), "rollback", awaited, ROLLBACK),
    (scoped, "policy", none, ROLLBACK),
    (scoped, "policy", awaited, ROLLBACK),
    (scoped, "policy", "lifo", ROLLBACK),
    (collecting, "to", none, "a callable that takes the ErrorSummary"),
    (collecting, "to", with_ctx, "a callable that takes the ErrorSummary alone, without ctx"),
    (sized, "size_of", with_ctx, "a callable that takes the item alone, without ctx"),
    *[(functools.partial(hooked, it), it, two, HOOK) for it in HOOKS],
    *[(functools.partial(hooked, it), it, with_ctx, f"{HOOK} alone, without ctx") for it in HOOKS],
]


def refusal(call, *arguments, **named):
    """Return the error, which tells what was passed for which argument."""
    with pytest.raises(ab.ConfigError) as caught:
        call(*arguments, **named)
    return caught.value


@pytest.mark.parametrize(("call", "argument", "value", "allowed"), CALLABLES)
def test_t9_a_callable_that_could_not_be_called_is_refused_at_build(call, argument, value, allowed):
    error = refusal(call, value)
    assert (error.argument, error.value) == (argument, value)
    assert f"{argument} must be {allowed}" in str(error)


@pytest.mark.parametrize(
    "fn", [int, max, "{} {}".format, functools.partial(two), lambda *it: it[1]]
)
def test_t9_what_can_be_called_or_cannot_be_looked_into_is_not_refused(fn):
    scanning(fn)
    ab.Retry.custom(fn)


# Not what the plan, which shows it, calls the argument.
@pytest.mark.parametrize("codes", [" ", "", "\ud800", 3, [], [3], ["ok", " "]])
@pytest.mark.parametrize("verb", ["recover", "tap_error", "map_error", "dead_letter"])
def test_e1_codes_that_none_can_be_are_refused_as_such(verb, codes):
    error = refusal(getattr(begun(), verb), print, codes=codes)
    assert (error.argument, error.value) == ("codes", codes)
    assert "codes must be a code, or several of them, got " in str(error)
    assert refusal(begun().collect_errors, codes=codes).argument == "codes"


@pytest.mark.parametrize("code", [[], {}, 3, None, " ", "\ud800", "timeout"])
@pytest.mark.parametrize("make", [lambda: begun().ensure, lambda: ab.Ok(1).ensure])
def test_e1_a_code_that_none_can_be_is_refused(make, code):
    assert refusal(make(), bool, code=code).argument == "code"


@pytest.mark.parametrize("make", [lambda: begun().ensure, lambda: ab.Ok(1).ensure])
def test_t9_what_cannot_be_called_is_refused_under_its_own_name(make):
    for predicate in (3, none, two):
        assert refusal(make(), predicate).argument == "predicate"


@pytest.mark.parametrize(
    ("argument", "value", "said"),
    [
        ("message", 4, "message must be a str or None, got 4"),
        ("metadata", 3, "metadata must be a mapping or None, got 3"),
        ("metadata", [("a", 1)], "metadata must be a mapping or None, got [('a', 1)]"),
    ],
)
def test_e1_a_failure_is_given_no_other_message_or_metadata(argument, value, said):
    failure = ab.Failure.of(OSError("full"))
    error = refusal(failure.replace, **{argument: value})
    assert (error.argument, str(error)) == (argument, f"Failure.replace: {said}")
    for code in (" ", "\ud800", "", 3):
        with pytest.raises(ValueError, match="a text of at least one character"):
            failure.replace(code=code)


# Of each: what cannot be called with these, and what the error says of it.
ACTIONS = [
    (one, (), "the 0 arguments passed, and perhaps ctx (one takes 1)"),
    (one, (1, 2), "the 2 arguments passed, and perhaps ctx (one takes 1)"),
    (with_ctx, (1, 2), "the 2 arguments passed, and perhaps ctx (with_ctx takes 1)"),
    (awaited, (1, 2, 3), "the 3 arguments passed, and perhaps ctx (awaited takes at most 2)"),
    (lambda a, b=1: None, (), "(lambda takes at least 1)"),
    (by_name, (1,), "the 1 argument passed, and perhaps ctx (by_name needs others, which go"),
    (lambda ctx, a: None, (1,), "(lambda needs others, which go through functools.partial)"),
    (functools.partial(two, 1), (2, 3), "(two takes 1)"),
    (functools.partial(two, second=1), (2, 3, 4), "(two takes at most 2)"),
    (functools.partial(two, 1, 2, 3), (), "(two needs others"),
    (Exception().with_traceback, (), None),
    ([].append, (), None),
    (dict, (1, 2), None),
    (functools.partial(by_name, needed=1), (1,), None),
    (functools.partial(two, second=1), (2,), None),
    (lambda a, ctx: None, (1,), None),
    (lambda a, *, ctx: None, (1,), None),
    (lambda a, b=1, *more, c=2, **rest: None, (1, 2, 3), None),
]


class Store:
    """Whose methods undo what it did."""

    def remove(self, key):
        pass

    @classmethod
    def clear(cls, *keys):
        pass

    def __call__(self, key, *, ctx):
        pass


ACTIONS += [
    (Store().remove, (), "the 0 arguments passed, and perhaps ctx (remove takes 1)"),
    (Store().remove, (1, 2), "(remove takes 1)"),
    (Store().remove, (1,), None),
    (Store.clear, (1, 2, 3), None),
    (Store(), (1, 2), "(Store takes 1)"),
    (Store(), (1,), None),
]


@pytest.mark.parametrize("verb", ["compensate", "finalize"])
@pytest.mark.parametrize(("fn", "given", "why"), ACTIONS)
def test_c22_an_undo_action_that_cannot_take_its_arguments_is_refused(fn, given, why, verb):
    scope = ab.CompensationScope()
    register = getattr(scope, verb)
    if why is None:
        register(fn, *given)
        assert scope.pending == 1
        return
    error = refusal(register, fn, *given)
    assert (error.argument, error.value, scope.pending) == ("fn", fn, 0)
    assert f"scope: {verb}: fn must be a callable that can be called with " in str(error)
    assert why in str(error)


def test_c22_in_a_handler_it_is_that_handlers_error_each_time():
    told = []

    def store(item, ctx):
        # The same function, well and wrongly.
        ctx.compensate(one, item)
        try:
            ctx.compensate(one, item, item)
        except ab.ConfigError as error:
            told.append(str(error))

    begun().for_each(store, inline=True).run_blocking()
    (said,) = told
    assert said.startswith("pipeline 'p', stage 'store': compensate: fn must be a callable that ")
    assert said.endswith(f"2 arguments passed, and perhaps ctx (one takes 1), got {one!r}")


@pytest.mark.parametrize("name", ["", " ", "\n"])
def test_c22_the_name_of_an_undo_action_is_not_blank(name):
    error = refusal(ab.CompensationScope().compensate, one, 1, name=name)
    assert (error.argument, error.value) == ("name", name)
    assert f"name must be None or a str that is not blank, got {name!r}" in str(error)


@pytest.mark.parametrize(
    ("argument", "given"),
    [
        ("kind", {"kind": "x"}),
        ("attempts", {"kind": "fixed", "attempts": 0}),
        ("base", {"kind": "fixed", "base": -1.0}),
        ("factor", {"kind": "exponential", "base": 1.0, "cap": 1.0, "factor": 0.5}),
        ("jitter", {"kind": "exponential", "base": 1.0, "cap": 1.0, "jitter": "some"}),
        ("delay", {"kind": "custom"}),
        ("expression", {"kind": "cron"}),
        ("tz", {"kind": "cron", "expression": "* * * * *", "tz": "No/Where"}),
        ("retry_on", {"kind": "fixed", "retry_on": 3}),
        ("budget", {"kind": "fixed", "budget": 3}),
        ("total", {"kind": "fixed", "total": True}),
    ],
)
def test_r2_a_policy_made_by_hand_is_checked_like_the_others(argument, given):
    assert refusal(ab.Retry, **{"attempts": 3, **given}).argument == argument


def test_r2_so_is_one_that_was_changed():
    policies = [
        ab.Retry.fixed(0.5, retry_on=OSError),
        ab.Retry.exponential(seed=3, total=9.0),
        ab.Retry.decorrelated(seed=3),
        ab.Retry.cron("0 6 * * *", tz="UTC"),
        ab.Retry.custom(two),
    ]
    for policy in policies:
        assert dataclasses.replace(policy, attempts=2).attempts == 2
        assert refusal(dataclasses.replace, policy, attempts=0).argument == "attempts"


async def main():
    pass


TESTING = [
    ("clock", 3, lambda it: testing.run(main(), clock=it)),
    ("main", main, testing.run),
    ("auto_advance", 1, lambda it: testing.run(main(), auto_advance=it)),
    ("clock", 3, testing.VirtualLoop),
    ("auto_advance", None, lambda it: testing.VirtualLoop(VirtualClock(), auto_advance=it)),
    ("auto_advance", "no", lambda it: testing.virtual_time(auto_advance=it)),
    ("start", "x", lambda it: testing.virtual_time(start=it)),
    ("seed", None, lambda it: testing.virtual_time(seed=it)),
    ("start", True, lambda it: testing.explore(main, start=it)),
    ("call", one, testing.memory_growth),
    ("call", main, testing.memory_growth),
    ("call", 3, testing.memory_growth),
]
PATIENT = (
    lambda it: testing.run(main(), patience=it),
    lambda it: testing.virtual_time(patience=it),
    lambda it: testing.explore(main, patience=it),
    lambda it: testing.VirtualLoop(VirtualClock(), patience=it),
)
TESTING += [("patience", it, call) for call in PATIENT for it in (True, -1, "x", float("nan"))]


@pytest.mark.parametrize(("argument", "value", "call"), TESTING)
def test_g6_virtual_time_is_told_nothing_that_it_would_trip_over_later(argument, value, call):
    error = refusal(call, value)
    assert error.argument == argument
    assert re.search(rf"{argument} must be an? ", str(error))


CHANNEL = [
    ("timeout", lambda it: it.send_blocking(1, timeout=True)),
    ("timeout", lambda it: it.send_many_blocking([1], timeout=False)),
    ("timeout", lambda it: it.receive_blocking(timeout=True)),
    ("timeout", lambda it: it.receive_many_blocking(timeout=True)),
    ("timeout", lambda it: testing.run(it.send(1, timeout=True))),
    ("timeout", lambda it: testing.run(it.receive(timeout=True))),
    ("max_items", lambda it: it.receive_many_nowait(max_items=True)),
    ("max_items", lambda it: it.receive_many_blocking(max_items=True)),
    ("items", lambda it: it.send_many_nowait(3)),
    ("items", lambda it: it.send_many_blocking(None)),
]


@pytest.mark.parametrize("make", [ab.Channel, functools.partial(ab.PriorityChannel, lanes=2)])
@pytest.mark.parametrize(("argument", "call"), CHANNEL)
def test_e1_a_channel_takes_no_bool_for_a_number_and_no_item_for_a_batch(argument, call, make):
    channel = make()
    channel.send_nowait(1)
    error = refusal(call, channel)
    assert error.argument == argument
    assert str(error).startswith(f"channel {channel.name!r}: {argument} must be a")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: begun().map_batch(one),
            "stage 'one': max_items must be an int >= 1 where neither max_age nor idle is given",
        ),
        (lambda: begun().map_batch(one, max_items=0), "stage 'one': max_items must be an int"),
        (lambda: begun().map_batch(one, max_age=-1, name="x"), "stage 'x': max_age must be a num"),
        (lambda: begun().map_batch(5, max_items=1), "stage 'map_batch': fn must be a callable"),
        (
            lambda: begun().map_batch(one, max_items=1, name=5),
            "stage 'map_batch': name must be a non-empty str",
        ),
        (lambda: begun().to_channel(5), "stage 'to_channel': channel must be a Channel, got 5"),
        (
            lambda: asyncio.run(ab.all_of(none, max_concurrency=0)),
            "^all_of: max_concurrency must be an int >= 1 or None, got 0",
        ),
        (
            lambda: asyncio.run(ab.all_of(none, max_concurrency=True, on_error="collect")),
            "^all_of: max_concurrency must be an int >= 1 or None, got True",
        ),
    ],
)
def test_e1_w8_what_is_refused_is_told_of_what_was_called(make, said):
    with pytest.raises(ab.ConfigError, match=said):
        make()
