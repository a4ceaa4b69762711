"""Calls by hand: retry, timeout, race, all_of, fallback, hedge (R1-R12), on the virtual clock."""

import asyncio
import functools
import json
import threading

import pytest

import anabranch as ab

virtual = ab.testing.virtual_time
P = functools.partial


class World:
    """What callables do to the world, and what is undone of it; all of it in order."""

    def __init__(self, clock=None):
        self.log = []
        self.clock = clock

    def do(self, ctx, name):
        ctx.compensate(self.log.append, f"-{name}")
        self.log.append(f"+{name}")

    async def work(self, name, seconds, fails=None, ctx=None):
        self.do(ctx, name)
        await asyncio.sleep(seconds)
        if fails is not None:
            raise fails
        return name


def failing(times, error=OSError):
    """A callable that fails that often, then returns its number."""
    calls = []

    def call():
        calls.append(1)
        if len(calls) <= times:
            raise error(f"attempt {len(calls)}")
        return len(calls)

    return call


def awaited(fn):
    async def call():
        return fn()

    return call


forms = pytest.mark.parametrize("form", ["def", "async", "lambda"])


def call_retry(fn, policy, form, ctx=None):
    if form == "def":
        return ab.retry(fn, policy, ctx=ctx)
    make = awaited(fn)
    lazy = lambda: make()  # noqa: E731, PLW0108 - a def that returns a coroutine
    call = ab.retry(make if form == "async" else lazy, policy, ctx=ctx)
    assert asyncio.iscoroutine(call)
    return ab.testing.run(call, clock=None if ctx is None else ctx._clock)


# Retry.


@forms
def test_r1_attempts_include_the_first(form):
    clock = ab.testing.VirtualClock()
    ctx = ab.Context("c", clock=clock)
    assert call_retry(failing(2), ab.Retry.fixed(1.0, attempts=3), form, ctx) == 3
    with pytest.raises(OSError, match="attempt 3"):
        call_retry(failing(3), ab.Retry.fixed(1.0, attempts=3), form, ab.Context("d", clock=clock))


@forms
def test_r2_r6_delays_are_exact_on_the_virtual_clock(form):
    clock = ab.testing.VirtualClock()
    policy = ab.Retry.exponential(attempts=4, base=0.5, jitter="none")
    assert call_retry(failing(3), policy, form, ab.Context("c", clock=clock)) == 4
    assert clock.now() == 0.5 + 1.0 + 2.0


def test_r2_cron_and_custom_and_seeded_delays_are_the_builders():
    def run(policy, fails):
        clock = ab.testing.VirtualClock()
        ab.retry(failing(fails), policy, ctx=ab.Context("c", clock=clock))
        return clock.now()

    assert run(ab.Retry.cron("*/5 * * * *"), 2) == 600.0
    assert run(ab.Retry.custom(lambda attempt, _: attempt * 10.0), 3) == 60.0
    jittered = ab.Retry.exponential(attempts=4, base=1.0, seed=7)
    pipeline_clock = ab.testing.VirtualClock()
    fails = failing(3)
    ab.Pipeline("p", clock=pipeline_clock, seed=7).source([1]).for_each(
        lambda _: fails(), retry=ab.Retry.exponential(attempts=4, base=1.0)
    ).run_blocking()
    assert run(jittered, 3) == pytest.approx(pipeline_clock.now())
    assert run(jittered, 3) == run(jittered, 3)


@forms
@pytest.mark.parametrize("error", [TypeError, ab.Cancelled, asyncio.CancelledError])
def test_r3_programming_errors_and_cancellations_are_not_retried(form, error):
    with pytest.raises(error, match="attempt 1"):
        call_retry(failing(1, error), ab.Retry.fixed(0.0), form)


def test_r3_the_predicate_decides():
    policy = ab.Retry.fixed(0.0, retry_on=lambda error: "1" in str(error))
    with pytest.raises(KeyError, match="attempt 2"):
        ab.retry(failing(3, KeyError), policy)


def test_r4_total_and_budget_are_those_of_the_policy():
    clock = ab.testing.VirtualClock()
    with pytest.raises(OSError, match="attempt") as caught:
        policy = ab.Retry.fixed(10.0, attempts=100, total=25.0)
        ab.retry(failing(100), policy, ctx=ab.Context("c", clock=clock))
    failure = ab.Failure.of(caught.value)
    assert (failure.attempts, failure.gave_up, clock.now()) == (3, "total", 20.0)
    budget = ab.RetryBudget(rate=0.001, burst=2)
    with pytest.raises(OSError, match="attempt") as caught:
        policy = ab.Retry.fixed(0.0, attempts=100, budget=budget)
        ab.retry(failing(100), policy, ctx=ab.Context("c", clock=clock))
    assert ab.Failure.of(caught.value).gave_up == "budget"
    with pytest.raises(OSError, match="attempt") as caught:
        ab.retry(failing(100), policy, ctx=ab.Context("d", clock=clock))
    assert ab.Failure.of(caught.value).attempts == 1


@forms
def test_r5_e3_the_error_is_the_last_ones_and_keeps_the_attempts(form):
    ctx = ab.Context("job", clock=ab.testing.VirtualClock())
    with pytest.raises(OSError, match="attempt 3") as caught:
        call_retry(failing(9), ab.Retry.fixed(2.0, attempts=3), form, ctx)
    failure = ab.Failure.of(caught.value, stage="job")
    assert (failure.code, failure.attempts, failure.delay) == ("OSError", 3, 4.0)
    assert [str(error) for error in failure.history] == ["attempt 1", "attempt 2", "attempt 3"]
    (note,) = caught.value.__notes__
    assert note.startswith("anabranch: in 'job.")
    assert note.endswith("attempt 3")
    assert caught.value.__traceback__ is not None
    told = json.loads(json.dumps(failure.to_dict()))
    assert ab.Failure.from_dict(told).attempts == 3


@virtual
async def test_r4_a_timeout_per_attempt_is_a_partial(clock):
    world = World()

    async def slow_at_first(ctx):
        return await world.work(str(len(world.log)), 100.0 if not world.log else 1.0, ctx=ctx)

    limited = P(ab.timeout, slow_at_first, 5.0)
    assert await ab.retry(limited, ab.Retry.fixed(10.0)) == "2"
    assert world.log == ["+0", "-0", "+2"]
    assert clock.now() == 16.0


@forms
def test_c10_each_attempt_is_undone_before_the_next(form):
    world = World()
    attempts = failing(2)

    def attempt(ctx):
        world.do(ctx, ctx.attempt)
        return attempts()

    async def attempt_async(ctx):
        return attempt(ctx)

    call = {
        "def": lambda ctx: ab.retry(attempt, ab.Retry.fixed(0.0), ctx=ctx),
        "async": lambda ctx: asyncio.run(ab.retry(attempt_async, ab.Retry.fixed(0.0), ctx=ctx)),
        "lambda": lambda ctx: asyncio.run(
            ab.retry(lambda ctx: attempt_async(ctx=ctx), ab.Retry.fixed(0.0), ctx=ctx)
        ),
    }[form]
    with ab.Context("c") as ctx:
        assert call(ctx) == 3
    assert world.log == ["+1", "-1", "+2", "-2", "+3"]


@virtual
async def test_r7_a_cancel_during_back_off_ends_it_and_undoes(clock):
    cancel = ab.Cancel()
    world = World()

    async def attempt(ctx):
        world.do(ctx, ctx.attempt)
        raise OSError("busy")

    async with ab.ErrGroup("g") as group:
        group.go(ab.after, 15.0, cancel.cancel)
        ctx = ab.Context("c", cancel=cancel)
        with pytest.raises(ab.Cancelled):
            await ab.retry(attempt, ab.Retry.fixed(10.0, attempts=9), ctx=ctx)
    assert world.log == ["+1", "-1", "+2", "-2"]
    assert clock.now() == 15.0


@forms
def test_t12_an_err_is_a_failed_attempt_and_an_ok_is_unwrapped(form):
    answers = [ab.Err("busy"), ab.Err(OSError("no")), ab.Ok(7)]
    assert call_retry(lambda: answers.pop(0), ab.Retry.fixed(0.0), form) == 7


# Timeout.


@virtual
async def test_r8_a_timeout_cancels_undoes_and_tells_its_code(clock):
    world = World()
    with pytest.raises(ab.HandlerTimeout, match="5 s") as caught:
        await ab.timeout(P(world.work, "a", 60.0), 5.0)
    assert (caught.value.code, caught.value.abandoned) == ("timeout", False)
    assert isinstance(caught.value, TimeoutError)
    assert world.log == ["+a", "-a"]
    assert clock.now() == 5.0
    assert await ab.timeout(P(world.work, "b", 4.0), 5.0) == "b"


@virtual
async def test_r8_what_does_not_end_within_its_grace_is_left_behind(clock):
    release = asyncio.Event()
    world = World()

    async def stubborn(ctx):
        world.do(ctx, "a")
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                world.log.append("no")

    with pytest.raises(ab.HandlerTimeout) as caught:
        await ab.timeout(stubborn, 5.0, grace=2.0)
    assert caught.value.abandoned
    assert clock.now() == 7.0
    assert world.log == ["+a", "no", "-a"]
    release.set()


@virtual
async def test_r8_the_late_exception_is_told():
    async def late():
        try:
            await asyncio.sleep(60.0)
        finally:
            raise ValueError("late")

    with pytest.raises(ab.HandlerTimeout) as caught:
        await ab.timeout(late, 5.0)
    assert str(caught.value.late) == "late"
    assert ab.Failure.of(caught.value).metadata["late"] is caught.value.late


@virtual
async def test_r8_the_callers_cancel_beats_the_timeout(clock):
    async def slow_to_end():
        try:
            await asyncio.sleep(60.0)
        finally:
            await asyncio.sleep(3.0)

    task = asyncio.create_task(ab.timeout(slow_to_end, 5.0))
    await asyncio.sleep(6.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert clock.now() == 8.0


@virtual
async def test_r8_f9_a_timeout_of_nothing_is_over_before_it_begins(clock):
    called = []
    for seconds in (0, -1.0):
        with pytest.raises(ab.HandlerTimeout):
            await ab.timeout(lambda: called.append(1), seconds)
    assert called == []


@virtual
async def test_r8_g8_the_deadline_is_known_inside_and_the_nearest_counts(clock):
    async def inner(ctx):
        return ctx.deadline, ctx.remaining

    assert await ab.timeout(P(ab.timeout, inner, 60.0), 5.0) == (5.0, 5.0)
    assert await ab.timeout(P(ab.timeout, inner, 2.0), 5.0) == (2.0, 2.0)


def test_r8_a_def_runs_in_a_thread_and_is_told():
    begun = threading.Event()

    def stubborn(ctx):
        begun.set()
        while not ctx.cancelled:
            threading.Event().wait(0.001)
        raise ValueError("told")

    with pytest.raises(ab.HandlerTimeout) as caught:
        asyncio.run(ab.timeout(stubborn, 0.05))
    assert begun.is_set()
    assert isinstance(caught.value.late, ValueError)


# All.


@virtual
async def test_r9_results_are_in_order_whatever_ends_first(clock):
    world = World()
    names = await ab.all_of(*(P(world.work, n, 10.0 - n) for n in range(5)))
    assert names == [0, 1, 2, 3, 4]
    assert clock.now() == 10.0
    assert await ab.all_of() == []


@virtual
async def test_r9_fail_fast_cancels_the_others_and_undoes_all_in_reverse(clock):
    world = World()
    with pytest.raises(OSError, match="b"):
        await ab.all_of(
            P(world.work, "a", 1.0),
            P(world.work, "b", 2.0, OSError("b")),
            P(world.work, "c", 60.0),
        )
    assert world.log[:3] == ["+a", "+b", "+c"]
    assert sorted(world.log[3:5]) == ["-b", "-c"]
    assert world.log[5:] == ["-a"]
    assert clock.now() == 2.0


@virtual
async def test_r9_collect_gives_a_result_for_each_and_undoes_what_failed():
    world = World()
    async with ab.Context("c") as ctx:
        good, bad = await ab.all_of(
            P(world.work, "a", 1.0),
            P(world.work, "b", 0.5, OSError("b")),
            on_error="collect",
            ctx=ctx,
        )
    assert (good, bad.error.code) == (ab.Ok("a"), "OSError")
    assert world.log == ["+a", "+b", "-b"]


@virtual
async def test_r9_never_more_run_at_once_than_allowed(clock):
    running = []

    async def count():
        running.append(1)
        most = len(running)
        await asyncio.sleep(1.0)
        running.pop()
        return most

    assert max(await ab.all_of(*[count] * 10, max_concurrency=3)) == 3
    assert clock.now() == 4.0


# Race and hedge.


@virtual
async def test_r10_the_first_success_wins_and_the_losers_are_undone(clock):
    world = World()
    winner = await ab.race(
        P(world.work, "fails", 1.0, OSError()),
        P(world.work, "wins", 2.0),
        P(world.work, "slow", 60.0),
    )
    assert winner == "wins"
    assert world.log == ["+fails", "+wins", "+slow", "-fails", "-slow"]
    assert clock.now() == 2.0


@virtual
async def test_r10_in_a_block_the_winner_is_returned_at_once(clock):
    undone = []

    async def undo():
        await asyncio.sleep(10.0)
        undone.append(clock.now())

    async def loser(ctx):
        ctx.compensate(undo)
        await asyncio.sleep(60.0)

    async with ab.Context("c") as ctx:
        assert await ab.race(loser, P(asyncio.sleep, 1.0, "winner"), ctx=ctx) == "winner"
        assert clock.now() == 1.0
        assert undone == []
    assert undone == [11.0]
    # By itself the race is what waits.
    assert await ab.race(loser, P(asyncio.sleep, 1.0, "winner")) == "winner"
    assert undone == [11.0, 22.0]


@virtual
async def test_r10_a_loser_that_succeeds_all_the_same_is_undone():
    world = World()

    async def stubborn(ctx):
        try:
            await world.work("stubborn", 60.0, ctx=ctx)
        except asyncio.CancelledError:
            return "too late"

    assert await ab.race(P(world.work, "quick", 1.0), stubborn) == "quick"
    assert world.log == ["+quick", "+stubborn", "-stubborn"]


@virtual
async def test_r10_if_all_fail_the_error_holds_each_in_order():
    with pytest.raises(ab.AllFailed) as caught:
        await ab.race(
            P(World().work, "a", 2.0, OSError("first")), P(World().work, "b", 1.0, KeyError("k"))
        )
    assert [type(error) for error in caught.value.exceptions] == [OSError, KeyError]
    assert caught.value.code == "all.failed"
    failure = ab.Failure.of(caught.value)
    assert (failure.code, [it.code for it in failure.children]) == (
        "all.failed",
        ["OSError", "KeyError"],
    )
    matched, rest = caught.value.split(KeyError)
    assert isinstance(matched, ab.AllFailed)
    assert isinstance(rest, ab.AllFailed)


@virtual
async def test_r10_the_effects_of_the_winner_go_to_the_context():
    world = World()
    with pytest.raises(KeyError):
        async with ab.Context("c") as ctx:
            await ab.race(P(world.work, "wins", 1.0), P(world.work, "slow", 2.0), ctx=ctx)
            raise KeyError
    assert world.log == ["+wins", "+slow", "-slow", "-wins"]


@virtual
async def test_r10_a_cancelled_race_leaves_nothing_behind(clock):
    world = World()
    task = asyncio.create_task(ab.race(P(world.work, "a", 60.0), P(world.work, "b", 60.0)))
    await asyncio.sleep(1.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(world.log[2:]) == ["-a", "-b"]
    assert len(asyncio.all_tasks()) == 1


@virtual
async def test_r12_a_hedge_begins_when_the_answer_takes_long(clock):
    begun = []

    async def ask(ctx):
        begun.append((ctx.attempt, clock.now()))
        await asyncio.sleep(100.0 if ctx.attempt < 3 else 1.0)
        return ctx.attempt

    assert await ab.hedge(ask, 2.0, attempts=3) == 3
    assert begun == [(1, 0.0), (2, 2.0), (3, 4.0)]
    assert clock.now() == 5.0


@virtual
async def test_r12_a_failure_brings_the_next_attempt_forward(clock):
    async def ask(ctx):
        await asyncio.sleep(1.0)
        if ctx.attempt == 1:
            raise OSError("broken")
        return ctx.attempt

    assert await ab.hedge(ask, 60.0) == 2
    assert clock.now() == 2.0
    with pytest.raises(ab.AllFailed):
        await ab.hedge(P(World().work, "a", 1.0, OSError()), 60.0, attempts=3)


@virtual
async def test_r12_a_quick_answer_needs_no_hedge(clock):
    world = World()
    assert await ab.hedge(P(world.work, "a", 1.0), 2.0) == "a"
    assert world.log == ["+a"]


# Fallback.


@pytest.mark.parametrize("form", ["def", "async", "lambda"])
def test_r11_each_tier_that_fails_is_undone_and_named(form):
    world = World()

    def tier(name, ctx):
        world.do(ctx, name)
        raise OSError(name)

    async def tier_async(name, ctx):
        return tier(name, ctx)

    one = {
        "def": tier,
        "async": tier_async,
        "lambda": lambda name, ctx: tier_async(name, ctx=ctx),
    }[form]
    call = P(ab.fallback, P(one, "a"), P(one, "b"))
    with pytest.raises(ab.AllFailed) as caught:
        call() if form == "def" else asyncio.run(call())
    assert world.log == ["+a", "-a", "+b", "-b"]
    first, second = caught.value.exceptions
    assert "tier 1 of 2" in first.__notes__[0]
    assert "tier 2 of 2" in second.__notes__[0]
    answer = ab.fallback(P(one, "a"), lambda: "cached")
    assert (answer if form == "def" else asyncio.run(answer)) == "cached"


@virtual
async def test_r11_a_cancelled_fallback_tries_no_further_tier():
    cancel = ab.Cancel()

    async def first():
        cancel.cancel()
        await asyncio.sleep(1.0)

    with pytest.raises(ab.Cancelled):
        await ab.fallback(first, lambda: "second", ctx=ab.Context("c", cancel=cancel))


def test_r11_a_fallback_in_a_thread_tries_no_further_tier_once_cancelled():
    cancel = ab.Cancel()

    def first():
        cancel.cancel("stop")
        raise OSError("no")

    with pytest.raises(ab.Cancelled, match="stop"):
        ab.fallback(first, lambda: "second", ctx=ab.Context("c", cancel=cancel))


# What all have in common.


@virtual
async def test_c7_what_was_undone_is_told_with_the_original_error():
    async def work(ctx):
        ctx.compensate(print, "never shown", name="good", when=False)
        ctx.compensate(int, "x", name="broken")
        ctx.compensate(list, name="fine")
        raise OSError("no")

    with pytest.raises(OSError, match="no") as caught:
        await ab.retry(work, ab.Retry.fixed(0.0, attempts=1))
    report = ab.RollbackReport.of(caught.value)
    assert [(it.name, it.outcome) for it in report.actions] == [
        ("fine", "done"),
        ("broken", "failed"),
    ]
    assert not report.ok
    assert "anabranch: undo actions are stuck: broken" in caught.value.__notes__


@virtual
async def test_c8_a_rollback_is_shielded_and_has_a_deadline_on_the_virtual_clock(clock):
    log = []

    async def undo(name, seconds):
        await asyncio.sleep(seconds)
        log.append((name, clock.now()))

    async def work(ctx):
        ctx.compensate(undo, "late", 100.0, timeout=None)
        ctx.compensate(undo, "in time", 5.0)
        await asyncio.sleep(60.0)

    ctx = ab.Context("c", rollback_deadline=20.0)
    task = asyncio.create_task(ab.timeout(work, 60.0, ctx=ctx))
    await asyncio.sleep(1.0)
    task.cancel()
    await asyncio.sleep(1.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log == [("in time", 6.0)]
    assert clock.now() == 21.0


def test_e4_an_interrupt_goes_through_and_is_no_failure():
    ran = []

    def work(ctx):
        ctx.compensate(ran.append, "undone")
        raise KeyboardInterrupt

    for call in (
        lambda: ab.retry(work, ab.Retry.fixed(0.0)),
        lambda: ab.fallback(work, lambda: "not reached"),
        lambda: ab.Result.try_(work),
        lambda: ab.Saga("s").step("a", lambda _, ctx: work(ctx)).run_blocking(),
    ):
        with pytest.raises(KeyboardInterrupt):
            call()
    assert ran == ["undone"] * 4


def yielding(*_):
    yield


async def yielding_async(*_):
    yield


async def gone(fn):
    async with ab.ErrGroup() as group:
        group.go(fn)


TAKERS = {
    "fan_in": lambda fn: asyncio.run(ab.fan_in([ab.Channel(1)], fn)),
    "fan_in_blocking": lambda fn: ab.fan_in_blocking([ab.Channel(1)], fn),
    "Source": lambda fn: ab.Source(ab.Channel(1), ack=fn),
    "go": lambda fn: asyncio.run(gone(fn)),
    "retry": lambda fn: ab.retry(fn, ab.Retry.fixed(0.0)),
    "timeout": lambda fn: asyncio.run(ab.timeout(fn, 1.0)),
    "race": lambda fn: asyncio.run(ab.race(fn)),
    "all_of": lambda fn: asyncio.run(ab.all_of(fn)),
    "fallback": ab.fallback,
    "Result": lambda fn: ab.Ok(1).map(fn),
    "step": lambda fn: ab.Saga("trip").step("reserve", fn),
    "undo": lambda fn: ab.Saga("trip").step("reserve", print, undo=fn),
    "after": lambda fn: asyncio.run(ab.after(1.0, fn)),
    "on": lambda fn: ab.select().on(ab.Channel(1), fn),
}


@pytest.mark.parametrize("fn", [yielding, yielding_async, functools.partial(yielding, 1)])
@pytest.mark.parametrize("taker", TAKERS)
def test_a_generator_function_is_refused_because_nothing_would_begin_it(taker, fn):
    with pytest.raises(ab.ConfigError, match="nothing would begin a generator"):
        TAKERS[taker](fn)
