"""`ab.Saga` (R13), on the virtual clock."""

import asyncio

import pytest

import anabranch as ab

virtual = ab.testing.virtual_time
forms = pytest.mark.parametrize("form", ["def", "async"])


def run(saga, form, ctx=None):
    if form == "def":
        return saga.run_blocking(ctx=ctx)
    return ab.testing.run(saga.run(ctx=ctx), clock=None if ctx is None else ctx._clock)


def step(form, fn):
    """A step of either kind."""
    if form == "def":
        return fn

    async def awaited(results, ctx):
        await asyncio.sleep(1.0)
        return fn(results, ctx)

    return awaited


def trip(form, log, fails=None):
    saga = ab.Saga("trip")
    for name in ("flight", "hotel", "car"):

        def book(results, ctx, name=name):
            ctx.compensate(log.append, f"half of {name}")
            if name == fails:
                raise OSError(name)
            return f"{name} after {len(results)}"

        saga = saga.step(name, step(form, book), undo=log.append)
    return saga


@forms
def test_r13_later_steps_see_earlier_results(form):
    log = []
    saga = trip(form, log)
    assert saga.steps == ("flight", "hotel", "car")
    expected = {"flight": "flight after 0", "hotel": "hotel after 1", "car": "car after 2"}
    assert run(saga, form) == expected
    # A saga is a description: the next run begins anew.
    assert run(saga, form) == expected
    assert log == []


@forms
def test_r13_c9_a_failing_saga_undoes_its_completed_steps_in_reverse(form):
    log = []
    with pytest.raises(OSError, match="car") as caught:
        run(trip(form, log, fails="car"), form)
    assert log == [
        "half of car",
        "hotel after 1",
        "half of hotel",
        "flight after 0",
        "half of flight",
    ]
    assert "anabranch: in saga 'trip', step 'car'" in caught.value.__notes__
    names = [it.name for it in ab.RollbackReport.of(caught.value).actions]
    assert names == ["append", "hotel.undo", "append", "flight.undo", "append"]


@forms
def test_r13_a_cancel_between_two_steps_undoes_what_is_done(form):
    log, cancel = [], ab.Cancel()
    saga = (
        ab.Saga("s")
        .step("a", step(form, lambda results, ctx: cancel.cancel("stop")), undo=log.append)
        .step("b", step(form, lambda results, ctx: log.append("never")))
    )
    with pytest.raises(ab.Cancelled, match="stop"):
        run(saga, form, ab.Context("c", cancel=cancel, clock=ab.testing.VirtualClock()))
    assert log == [None]


@virtual
async def test_r13_r7_a_cancel_in_a_back_off_undoes_what_is_done(clock):
    log, cancel = [], ab.Cancel()

    async def busy(results, ctx):
        ctx.compensate(log.append, f"attempt {ctx.attempt}")
        raise OSError("busy")

    saga = (
        ab.Saga("s")
        .step("a", lambda results: "A", undo=log.append)
        .step("b", busy, retry=ab.Retry.fixed(10.0, attempts=9))
    )
    async with ab.ErrGroup("g") as group:
        group.go(ab.after, 15.0, cancel.cancel)
        with pytest.raises(ab.Cancelled):
            await saga.run(ctx=ab.Context("c", cancel=cancel))
    assert log == ["attempt 1", "attempt 2", "A"]
    assert clock.now() == 15.0


@virtual
async def test_r13_the_callers_cancellation_in_a_step_undoes_what_is_done():
    log = []
    saga = (
        ab.Saga("s")
        .step("a", lambda results: "A", undo=log.append)
        .step("b", lambda results: asyncio.sleep(60.0))
    )
    task = asyncio.create_task(saga.run())
    await asyncio.sleep(1.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log == ["A"]


@forms
def test_r13_r2_a_step_is_retried_by_its_policy(form):
    clock = ab.testing.VirtualClock()
    attempts = []

    def busy(results, ctx):
        attempts.append(ctx.attempt)
        if len(attempts) < 3:
            raise OSError("busy")
        return "done"

    saga = ab.Saga("s").step("a", step(form, busy), retry=ab.Retry.fixed(10.0))
    assert run(saga, form, ab.Context("c", clock=clock)) == {"a": "done"}
    assert attempts == [1, 2, 3]
    assert clock.now() == 20.0 + (3.0 if form == "async" else 0.0)


@forms
def test_r13_c2_a_saga_that_succeeds_goes_to_its_context(form):
    log = []
    with pytest.raises(LookupError), ab.Context("c", clock=ab.testing.VirtualClock()) as ctx:
        ctx.compensate(log.append, "before")
        run(ab.Saga("s").step("a", step(form, lambda r, ctx: "A"), undo=log.append), form, ctx)
        ctx.compensate(log.append, "after")
        raise LookupError
    assert log == ["after", "A", "before"]


@forms
def test_t12_an_err_fails_the_step_and_an_ok_is_unwrapped(form):
    saga = ab.Saga("s").step("a", step(form, lambda r, ctx: ab.Ok(1)))
    assert run(saga, form) == {"a": 1}
    with pytest.raises(ab.ResultError):
        run(saga.step("b", step(form, lambda r, ctx: ab.Err("no.seat"))), form)


def test_r13_a_step_keeps_no_hold_of_the_others_results():
    def greedy(results):
        results["a"] = "changed"

    saga = ab.Saga("s").step("a", lambda _: "A").step("b", greedy)
    assert saga.run_blocking() == {"a": "A", "b": None}


def test_r13_a_blocking_saga_refuses_a_coroutine_and_undoes():
    log = []
    saga = ab.Saga("s").step("a", lambda _: "A", undo=log.append)
    with pytest.raises(ab.ConfigError, match="step 'b'"):
        saga.step("b", lambda _: asyncio.sleep(1.0)).run_blocking()
    assert log == ["A"]
