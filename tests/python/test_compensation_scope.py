"""`ab.CompensationScope` by itself."""

import asyncio
import signal
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

import anabranch as ab

every_form = pytest.mark.parametrize("form", ["blocking", "async"])


def roll_back(scope, form="blocking", **options):
    if form == "blocking":
        return scope.rollback_blocking(**options)
    return asyncio.run(scope.rollback(**options))


def commit(scope, form):
    return scope.commit_blocking() if form == "blocking" else asyncio.run(scope.commit())


def scope_of(ran, names):
    scope = ab.CompensationScope()
    for name in names:
        scope.compensate(ran.append, name)
    return scope


@every_form
def test_c1_c22_actions_run_in_reverse(form):
    ran = []
    scope = scope_of(ran, "abc")
    assert (scope.has_actions, scope.pending) == (True, 3)
    report = roll_back(scope, form)
    assert (ran, report.done, report.ok) == (["c", "b", "a"], 3, True)
    assert (scope.has_actions, scope.pending) == (False, 0)


@given(owners=st.lists(st.integers(0, 3), max_size=20), order=st.permutations(range(1, 4)))
def test_c2_absorbing_one_two_and_three_levels_keeps_the_order(owners, order):
    ran = []
    scopes = [ab.CompensationScope() for _ in range(4)]
    for number, owner in enumerate(owners):
        scopes[owner].compensate(ran.append, number)
    into = 0
    for level in order:
        scopes[level].absorb(scopes[into])
        into = level
    scopes[into].rollback_blocking()
    assert ran == sorted(range(len(owners)), reverse=True)


def calls_in(ends, *args, **kwargs):
    """Count the Python functions that are entered or resumed meanwhile."""
    calls = 0

    def profile(_frame, event, _argument):
        nonlocal calls
        calls += event == "call"

    sys.setprofile(profile)
    try:
        ends(*args, **kwargs)
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize("how", ["rollback", "policy", "commit"])
def test_c1_c8_a_long_playback_costs_as_much_per_action_as_a_short_one(how):
    def calls(actions):
        scope = ab.CompensationScope()
        register = scope.finalize if how == "commit" else scope.compensate
        for _ in range(actions):
            register(int)
        if how == "commit":
            return calls_in(scope.commit_blocking)
        policy = list if how == "policy" else "sequential"
        return calls_in(scope.rollback_blocking, policy=policy)

    # Twice as many, and what the garbage collector calls in between.
    assert calls(400) < 2.5 * calls(200)


@every_form
def test_c3_c7_every_action_has_its_turn_and_is_told(form):
    ran = []
    scope = scope_of(ran, "a")
    scope.compensate(int, "no number", name="broken", retries=1)
    scope.compensate(ran.append, "c")
    report = roll_back(scope, form)
    assert (ran, report.done, report.stuck, report.ok) == (["c", "a"], 2, 1, False)
    assert [it.name for it in report.actions] == ["append", "broken", "append"]
    assert isinstance(report.actions[1].error, ValueError)
    assert all(it.seconds >= 0 for it in report.actions)
    assert scope.report is report


@every_form
def test_c5_an_action_may_register_others_for_16_passes(form):
    passes = []

    def undo(ctx):
        passes.append(1)
        ctx.compensate(undo)

    scope = ab.CompensationScope()
    scope.compensate(undo)
    report = roll_back(scope, form)
    assert (len(passes), report.done, report.stuck) == (16, 16, 1)


@every_form
def test_c6_an_empty_scope_does_nothing(form):
    assert roll_back(ab.CompensationScope(), form).actions == ()
    assert commit(ab.CompensationScope(), form).actions == ()


@every_form
def test_c11_c15_commit_releases_actions_and_runs_finalizers(form):
    ran = []
    scope = scope_of(ran, "ab")
    scope.finalize(ran.append, "close")
    assert scope.pending == 3
    assert commit(scope, form).done == 1
    assert (ran, scope.pending) == (["close"], 0)
    assert roll_back(scope, form).actions == ()


def test_c12_registration_on_a_condition_is_one_call():
    ran = []
    scope = ab.CompensationScope()
    for n in range(4):
        scope.compensate(ran.append, n, when=n % 2 == 1)
    scope.rollback_blocking()
    assert ran == [3, 1]


@every_form
def test_c13_c14_policies(form):
    ran, calls = [], []

    def policy(actions):
        calls.append(len(actions))
        return actions[::-2]

    report = roll_back(scope_of(ran, "abc"), form, policy=policy)
    assert (ran, calls, report.skipped) == (["a", "c"], [3], 1)
    scope = scope_of(ran, "x")
    scope.finalize(ran.append, "close")
    report = roll_back(scope, form, policy="none")
    assert (ran[2:], report.skipped, report.done) == (["close"], 1, 1)
    with pytest.raises(ab.ConfigError, match="policy must be"):
        roll_back(scope_of(ran, "abc"), form, policy="random")


def test_c4_in_parallel_all_run_at_once():
    both = []

    async def meet(name):
        both.append(name)
        while len(both) < 2:  # noqa: ASYNC110 - it must wait for the other one
            await asyncio.sleep(0)
        raise OSError(name)

    scope = ab.CompensationScope()
    scope.compensate(meet, "a")
    scope.compensate(meet, "b")
    assert roll_back(scope, "async", policy="parallel").stuck == 2


@every_form
def test_c8_the_deadline_cancels_what_can_be_and_leaves_the_rest_stuck(form):
    ran = []

    async def hang():
        await asyncio.Event().wait()

    scope = scope_of(ran, "a")
    scope.compensate(hang)
    report = roll_back(scope, form, deadline=0.5)
    assert (ran, [it.outcome for it in report.actions]) == ([], ["failed", "failed"])
    error = report.actions[0].error
    assert isinstance(error, ab.HandlerTimeout)
    assert "undo 'hang' had not ended after" in str(error)
    assert "when the deadline of its rollback came" in str(error)


def test_c8_a_rollback_is_shielded_from_the_cancellation_that_caused_it():
    ran = []

    async def slowly(name):
        await asyncio.sleep(0)
        ran.append(name)

    async def main():
        begun = asyncio.Event()

        async def work():
            async with ab.CompensationScope() as scope:
                scope.compensate(slowly, "a")
                scope.compensate(slowly, "b")
                begun.set()
                await asyncio.Event().wait()

        task = asyncio.ensure_future(work())
        await begun.wait()
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()  # comes in the middle of the rollback
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert ran == ["b", "a"]


def test_c16_an_async_undo_runs_in_a_blocking_rollback_too():
    ran = []

    async def undo(name):
        await asyncio.sleep(0)
        ran.append(name)

    scope = ab.CompensationScope()
    scope.compensate(undo, "a")
    scope.compensate(lambda: undo("b"))
    assert scope.rollback_blocking().ok
    assert ran == ["b", "a"]


def test_c16_where_a_loop_runs_an_async_undo_of_a_blocking_rollback_is_stuck_and_says_so():
    async def undo():
        raise AssertionError

    async def main():
        scope = ab.CompensationScope()
        scope.compensate(undo)
        return scope.rollback_blocking()

    (action,) = asyncio.run(main()).actions
    assert isinstance(action.error, RuntimeError)


def leave(form, what, error=None):
    """Leave a block in which `what` was done to the scope; return the scope and what was raised."""
    scope = ab.CompensationScope()

    async def enter():
        async with scope:
            what(scope)
            if error is not None:
                raise error

    def enter_blocking():
        with scope:
            what(scope)
            if error is not None:
                raise error

    try:
        enter_blocking() if form == "blocking" else asyncio.run(enter())
    except LookupError as raised:
        return scope, raised
    return scope, None


@every_form
def test_c7_what_leaves_a_block_keeps_its_type_and_tells_what_was_undone(form):
    ran, own = [], LookupError("mine")

    def work(scope):
        scope.compensate(ran.append, "a", name="first")
        scope.compensate(ran.append, "b", name="second")

    scope, raised = leave(form, work, own)
    assert (raised, ran) == (own, ["b", "a"])
    told = ab.RollbackReport.of(raised)
    assert [(it.name, it.outcome) for it in told.actions] == [("second", "done"), ("first", "done")]
    assert told.actions == scope.report.actions
    # Nothing is stuck, so nothing is noted.
    assert not hasattr(raised, "__notes__")
    assert leave(form, lambda scope: None, LookupError())[1].__dict__ == {}
    # What is stuck is.
    broken = leave(form, lambda scope: scope.compensate(int, "x", name="broken"), LookupError())
    assert broken[0].report.stuck == 1
    assert any("stuck: broken" in note for note in broken[1].__notes__)


@every_form
def test_c11_c15_a_block_that_ends_well_finalizes_and_is_over(form):
    ran = []

    def work(scope):
        scope.compensate(ran.append, "undo")
        scope.finalize(ran.append, "close")

    scope, _ = leave(form, work)
    assert (ran, scope.pending) == (["close"], 0)
    other = scope_of(ran, "x")
    for use in (lambda: scope.absorb(other), scope.__enter__, lambda: scope.compensate(print)):
        with pytest.raises(ab.ClosedError, match="after its block had been left"):
            use()
    assert other.pending == 1


@every_form
@pytest.mark.parametrize("policy", [None, "backwards", 3, lambda: None])
def test_c13_a_policy_that_is_none_is_refused_and_nothing_is_lost(form, policy):
    ran = []
    scope = scope_of(ran, "ab")
    with pytest.raises(ab.ConfigError, match="rollback: policy must be 'sequential'"):
        roll_back(scope, form, policy=policy)
    assert (ran, scope.pending) == ([], 2)


@pytest.mark.parametrize(
    "deadline", [-1, float("nan"), "x", True, object(), pytest.param(10**400, id="beyond a float")]
)
def test_c8_a_deadline_that_is_none_is_refused(deadline):
    scope = ab.CompensationScope()
    scope.compensate(print)
    for call in (
        lambda: scope.rollback_blocking(deadline=deadline),
        lambda: asyncio.run(scope.rollback(deadline=deadline)),
    ):
        with pytest.raises(ab.ConfigError, match="rollback: deadline must be") as refused:
            call()
        assert refused.value.argument == "deadline"
        assert refused.value.value is deadline
    assert scope.pending == 1


def test_c22_a_scope_that_absorbs_itself_stays_as_it_is():
    ran = []
    scope = scope_of(ran, "ab")
    scope.absorb(scope)
    assert scope.rollback_blocking().done == 2
    assert ran == ["b", "a"]


def test_c22_only_scopes_can_be_absorbed():
    with pytest.raises(ab.ConfigError, match="absorb: other must be a CompensationScope, got 'x'"):
        ab.CompensationScope().absorb("x")


@every_form
def test_c5_what_a_try_registers_before_it_fails_runs_in_a_next_pass(form):
    ran = []

    def undo(ctx):
        ran.append("try")
        ctx.compensate(ran.append, f"undo of try {len(ran)}")
        if len(ran) < 3:
            raise ConnectionError

    scope = ab.CompensationScope()
    scope.compensate(undo, retries=2)
    assert roll_back(scope, form).ok
    assert ran == ["try", "try", "try", "undo of try 3", "undo of try 2", "undo of try 1"]


def test_c16_an_undo_that_overruns_its_timeout_says_which_and_how_long():
    async def main():
        scope = ab.CompensationScope()
        scope.compensate(asyncio.Event().wait, name="remove", timeout=5.0)
        return (await scope.rollback()).actions[0].error

    assert str(ab.testing.run(main())) == (
        "scope: undo 'remove' took longer than its timeout of 5 s; see whether its effect is "
        "undone. If it needs the time, give it a longer `timeout` where it is registered"
    )


@every_form
@pytest.mark.parametrize("ends", ["commit", "rollback"])
def test_c2_c5_what_asks_for_the_end_of_the_process_waits_until_all_have_run(form, ends):
    ran = []
    scope = scope_of(ran, "ab")
    (scope.compensate if ends == "rollback" else scope.finalize)(sys.exit, 3)
    scope.finalize(ran.append, "closed")
    with pytest.raises(SystemExit) as raised:
        roll_back(scope, form) if ends == "rollback" else commit(scope, form)
    assert raised.value.code == 3
    assert ran == (["b", "a", "closed"] if ends == "rollback" else ["closed"])
    assert [it.name for it in scope.report.actions if it.outcome == "failed"] == ["exit"]


def test_c2_a_ctrl_c_in_a_plain_block_costs_one_action_and_a_second_one_the_rest():
    ran = []

    def undo(n, interrupts):
        if interrupts:
            signal.raise_signal(signal.SIGINT)
        ran.append(n)

    for interrupted, left in (({2}, [3, 1, "closed"]), ({3, 2}, [])):
        ran.clear()
        scope = ab.CompensationScope()
        scope.finalize(ran.append, "closed")
        error = OSError("no")
        with pytest.raises(KeyboardInterrupt), scope:
            for n in (1, 2, 3):
                scope.compensate(undo, n, n in interrupted)
            raise error
        assert ran == left
        assert scope.report.stuck == 4 - len(left)
        assert "undo actions are stuck: undo" in error.__notes__[0]


def test_c16_a_generator_function_is_no_undo_action():
    def yields():
        yield

    async def yields_async():
        yield

    for fn in (yields, yields_async):
        with pytest.raises(ab.ConfigError, match=r"fn must be a def or async def.*generator"):
            ab.CompensationScope().compensate(fn)
