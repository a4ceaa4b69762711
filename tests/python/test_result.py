"""`ab.Result`, `ab.Ok`, `ab.Err`: outcomes as values (E1, T12), and the scope they carry."""

import asyncio
import inspect
import json
import pickle

import pytest

import anabranch as ab

forms = pytest.mark.parametrize("form", ["def", "async", "lambda"])


def step(form, fn):
    async def awaited(*args, **ctx):
        return fn(*args, **ctx)

    async def with_ctx(given, ctx):
        return fn(given, ctx=ctx)

    takes_ctx = "ctx" in inspect.signature(fn).parameters
    if form == "def":
        return fn
    chosen = with_ctx if takes_ctx else awaited
    if form == "async":
        return chosen
    if takes_ctx:
        return lambda given, ctx: with_ctx(given, ctx=ctx)
    return lambda given: awaited(given)  # noqa: PLW0108 - a def that returns a coroutine


def got(result, form):
    """The Result, however the step was called."""
    if form == "def":
        return result

    async def main():
        return await result

    return asyncio.run(main())


@forms
def test_e1_what_is_raised_is_an_err_with_code_message_metadata_and_cause(form):
    class NoStockError(Exception):
        def __init__(self, message):
            super().__init__(message)
            self.metadata = {"title": "Emma"}

    def fail(_):
        raise NoStockError("none left")

    result = got(ab.Ok(1).map(step(form, fail)), form)
    failure = result.error
    assert (failure.code, failure.message) == ("NoStockError", "none left")
    assert dict(failure.metadata) == {"title": "Emma"}
    assert isinstance(failure.cause, NoStockError)
    assert failure.error.__traceback__ is not None
    told = json.loads(json.dumps(failure.to_dict()))
    assert ab.Failure.from_dict(told).to_dict() == told
    with pytest.raises(NoStockError):
        result.unwrap()


def test_e1_an_err_by_code_and_the_children_of_a_group():
    cause = OSError("socket")
    err = ab.Err("net.down", "no line", metadata={"host": "h"}, cause=cause)
    assert (err.error.code, err.error.message, err.error.error.__cause__) == (
        "net.down",
        "no line",
        cause,
    )
    with pytest.raises(ab.ResultError, match="no line") as caught:
        err.unwrap()
    assert (caught.value.code, caught.value.metadata) == ("net.down", {"host": "h"})
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.code, again.metadata) == ("net.down", {"host": "h"})
    group = ab.Err(ExceptionGroup("two", [OSError("a"), ValueError("b")]))
    assert [child.code for child in group.error.children] == ["OSError", "ValueError"]


@forms
def test_an_ok_goes_on_and_an_err_stays(form):
    assert got(ab.Ok(2).map(step(form, lambda n: n + 1)), form) == ab.Ok(3)
    assert got(ab.Ok(2).then(step(form, lambda n: ab.Ok(n * 2))), form) == ab.Ok(4)
    assert got(ab.Ok(2).ensure(step(form, lambda n: n > 1)), form) == ab.Ok(2)
    assert got(ab.Ok(2).ensure(step(form, lambda n: n > 5)), form).error.code == "ensure.failed"
    seen = []
    assert got(ab.Ok(2).tap(step(form, seen.append)), form) == ab.Ok(2)
    assert seen == [2]
    err = ab.Err("no")
    for verb in ("map", "then", "ensure", "tap"):
        assert got(getattr(err, verb)(step(form, seen.append)), form) is err
    assert seen == [2]


@forms
def test_a_failure_is_recovered_shown_or_replaced(form):
    err = ab.Err("no")
    assert got(err.recover(step(form, lambda failure: failure.code)), form) == ab.Ok("no")
    again = got(err.recover(step(form, lambda failure: ab.Err("still"))), form)
    assert again.error.code == "still"
    seen = []
    shown = got(err.tap_error(step(form, lambda failure: seen.append(failure.code))), form)
    assert (shown.error, seen) == (err.error, ["no"])
    replaced = got(err.map_error(step(form, lambda failure: KeyError(failure.code))), form)
    assert (replaced.error.code, replaced.error.cause.__cause__) == ("KeyError", err.error.error)
    wrong = got(err.map_error(step(form, lambda failure: 7)), form)
    assert wrong.error.code == "TypeError"
    for verb in ("recover", "tap_error", "map_error"):
        ok = ab.Ok(1)
        assert got(getattr(ok, verb)(step(form, seen.append)), form) is ok


def test_match_takes_them_apart():
    def told(result):
        match result:
            case ab.Ok(value):
                return value
            case ab.Err(failure):
                return failure.code

    assert [told(ab.Ok(1)), told(ab.Err("no"))] == [1, "no"]
    assert (ab.Ok(1).unwrap(), ab.Ok(1).unwrap_or(2), ab.Err("no").unwrap_or(2)) == (1, 1, 2)
    assert {ab.Ok(1), ab.Ok(1)} == {ab.Ok(1)}
    assert ab.Ok(1) != ab.Err("no")
    assert repr(ab.Err("no", "nothing")) == "Err('no', 'nothing')"


def work(log, name, *, fails=False):
    def call(*args, ctx):
        ctx.compensate(log.append, f"-{name}")
        ctx.finalize(log.append, f"closed {name}")
        log.append(f"+{name}")
        if fails:
            raise OSError(name)
        return name

    return call


@forms
def test_c17_a_failure_undoes_all_that_the_result_carries_in_reverse(form):
    log = []

    async def chain():
        first = ab.Result.try_(work(log, "a"))
        second = first.map(step(form, work(log, "b")))
        second = second if form == "def" else await second
        third = second.map(step(form, work(log, "c", fails=True)))
        return third if form == "def" else await third

    result = asyncio.run(chain())
    assert result.error.code == "OSError"
    assert [entry for entry in log if entry[0] in "+-"] == ["+a", "+b", "+c", "-c", "-b", "-a"]
    names = [it.outcome for it in ab.RollbackReport.of(result.error.error).actions]
    assert names == ["done"] * 6


def test_c11_c15_the_end_releases_what_an_ok_carries():
    log = []
    result = ab.Result.try_(work(log, "a")).map(work(log, "b"))
    assert log == ["+a", "+b"]
    assert result.unwrap() == "b"
    assert log == ["+a", "+b", "closed b", "closed a"]

    async def committed():
        return await (await ab.Result.try_async(step("async", work(log, "c")), None)).commit()

    assert asyncio.run(committed()) == ab.Ok("c")
    assert log[-2:] == ["+c", "closed c"]


def test_c17_what_a_returned_result_carries_comes_with_it():
    log = []
    result = ab.Result.try_(work(log, "a")).then(lambda _: ab.Result.try_(work(log, "b")))
    assert not result.ensure(lambda _: False).ok
    assert [entry for entry in log if entry[0] in "+-"] == ["+a", "+b", "-b", "-a"]


def test_c17_a_recovery_begins_with_nothing():
    log = []
    result = ab.Result.try_(work(log, "a", fails=True)).recover(work(log, "b"))
    assert log == ["+a", "-a", "closed a", "+b"]
    result.map(work(log, "c", fails=True))
    assert [entry for entry in log if entry[0] in "+-"] == ["+a", "-a", "+b", "+c", "-c", "-b"]


def test_g8_with_a_context_the_end_hands_it_on():
    log = []
    with pytest.raises(LookupError), ab.Context("c") as ctx:
        ab.Result.try_(work(log, "a"), ctx=ctx).map(work(log, "b")).unwrap()
        raise LookupError
    assert [entry for entry in log if entry[0] in "+-"] == ["+a", "+b", "-b", "-a"]


def test_t12_a_callable_may_return_a_result_with_what_it_carries():
    log = []

    def attempt(ctx):
        return ab.Result.try_(work(log, "a"), ctx=ctx).ensure(lambda _: len(log) > 3)

    assert ab.retry(attempt, ab.Retry.fixed(0.0)) == "a"
    assert log[:4] == ["+a", "-a", "closed a", "+a"]


def test_e2_a_cancellation_goes_on_and_undoes():
    log = []

    async def main():
        async def slow(_, ctx):
            work(log, "b")(ctx=ctx)
            await asyncio.sleep(60.0)

        result = ab.Result.try_(work(log, "a"))
        task = asyncio.ensure_future(result.map(slow))
        await asyncio.sleep(1.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    ab.testing.run(main())
    assert [entry for entry in log if entry[0] in "+-"] == ["+a", "+b", "-b", "-a"]


def test_t12_a_mapped_code_survives_unwrap():
    err = ab.Result.try_(int, "x").map_error(lambda failure: failure.replace(code="no.number"))
    with pytest.raises(ab.ResultError) as caught:
        err.unwrap()
    assert caught.value.code == "no.number"
    assert isinstance(caught.value.__cause__, ValueError)


def test_e1_a_result_is_always_one_of_the_two():
    with pytest.raises(TypeError, match=r"ab\.Ok or an ab\.Err"):
        ab.Result()


@pytest.mark.parametrize("fails", [True, False])
@pytest.mark.parametrize("how", ["plain", "async", "scope"])
def test_g8_c15_what_nobody_unwraps_ends_with_its_context(how, fails):
    log = []

    async def main():
        if how == "scope":
            with ab.CompensationScope() as scope:
                await one(ab.Context("c", scope=scope))
        elif how == "async":
            async with ab.Context("c") as ctx:
                await one(ctx)
        else:
            with ab.Context("c") as ctx:
                await one(ctx)

    async def one(ctx):
        ctx.compensate(log.append, "-before")
        match ab.Result.try_(work(log, "a"), ctx=ctx):
            case ab.Ok(_):
                ctx.compensate(log.append, "-between")
        match await ab.Result.try_async(step("async", work(log, "b")), None, ctx=ctx):
            case ab.Ok(_) if fails:
                raise OSError

    try:
        asyncio.run(main())
    except OSError:
        assert log[2:] == ["-b", "-between", "-a", "-before", "closed b", "closed a"]
    else:
        assert log[2:] == ["closed b", "closed a"]


def test_g8_what_ended_with_its_context_is_settled():
    log = []
    with ab.Context("c") as ctx:
        result = ab.Result.try_(work(log, "a"), ctx=ctx)
    assert log == ["+a", "closed a"]
    assert result.unwrap() == "a"
    with pytest.raises(ab.ClosedError, match="'c' was used after its work had ended"):
        result.map(work(log, "b"))
    assert log == ["+a", "closed a"]


def test_c11_a_context_keeps_nothing_of_results_that_are_settled():
    log = []
    with ab.CompensationScope() as scope, ab.Context("c", scope=scope) as ctx:
        for name in "ab":
            assert not ab.Result.try_(work(log, name), ctx=ctx).ensure(lambda _: False).ok
        assert (scope.pending, scope.has_actions) == (0, False)
        held = ab.Result.try_(work(log, "c"), ctx=ctx)
        assert (scope.pending, scope.has_actions) == (2, True)
        held.unwrap()
        assert scope.pending == 2
    assert log[-1] == "closed c"


def test_c2_the_order_of_undoing_holds_through_results_of_any_kind():
    log = []
    with pytest.raises(LookupError), ab.Context("c") as ctx:
        held = ab.Result.try_(work(log, "a"), ctx=ctx)
        ab.Result.try_(work(log, "b"), ctx=ctx).unwrap()
        held.map(work(log, "c"))
        ab.Result.try_(lambda: ab.Result.try_(work(log, "d"), ctx=ctx), ctx=ctx)
        raise LookupError
    assert [entry for entry in log if entry[0] == "-"] == ["-d", "-c", "-b", "-a"]


def test_e2_g8_a_cancelled_context_calls_nothing_and_undoes_what_is_carried():
    log = []
    stop = ab.Cancel()
    ctx = ab.Context("c", cancel=stop)
    held = ab.Result.try_(work(log, "a"), ctx=ctx)
    stop.cancel("enough")
    with pytest.raises(ab.Cancelled, match="enough"):
        ab.Result.try_(work(log, "b"), ctx=ctx)
    assert log == ["+a"]
    with pytest.raises(ab.Cancelled, match="enough"):
        held.map(work(log, "c"))
    assert log == ["+a", "-a", "closed a"]


@pytest.mark.parametrize("when", ["before", "meanwhile"])
@ab.testing.virtual_time
async def test_e2_g8_what_is_awaited_is_cut_short_by_its_context(when, clock):
    log = []
    stop = ab.Cancel()

    async def slow(ctx):
        work(log, "b")(ctx=ctx)
        await asyncio.sleep(60.0)

    if when == "before":
        stop.cancel("enough")
    else:
        asyncio.get_running_loop().call_later(1.0, stop.cancel, "enough")
    with pytest.raises(ab.Cancelled, match="enough"):
        await ab.Result.try_async(slow, ctx=ab.Context("c", cancel=stop))
    assert log == ([] if when == "before" else ["+b", "-b", "closed b"])
    assert clock.now() == (0.0 if when == "before" else 1.0)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"message": 5}, "Err: message must be a str, got 5"),
        ({"metadata": 5}, "Err: metadata must be a mapping or None, got 5"),
        ({"cause": 5}, "Err: cause must be an exception or None, got 5"),
    ],
)
def test_e1_a_detail_of_an_err_that_is_none_is_refused_by_name(given, said):
    with pytest.raises(ab.ConfigError, match=said):
        ab.Err("x.y", **given)


@forms
def test_c17_what_another_course_has_undone_goes_no_further(form):
    log, called = [], []
    booked = ab.Result.try_(lambda ctx: work(log, "seat")(ctx=ctx))
    assert not got(booked.map(step(form, lambda _: 1 // 0)), form).ok
    assert log == ["+seat", "-seat", "closed seat"]
    failed = got(booked.map(step(form, called.append)), form)
    assert isinstance(failed.error.error, ab.ClosedError)
    assert called == []
    with pytest.raises(ab.ClosedError, match="was undone: another call"):
        booked.unwrap()


def test_e1_two_that_were_made_of_a_code_are_equal_by_what_they_say():
    err = ab.Err("stock.empty", "no book", metadata={"title": "Emma"})
    assert err == ab.Err("stock.empty", "no book", metadata={"title": "Emma"})
    assert len({err, ab.Err("stock.empty", "no book", metadata={"title": "Emma"})}) == 1
    assert ab.Err("a.b") == ab.Err("a.b")
    for other in (
        ab.Err("stock.out", "no book", metadata={"title": "Emma"}),
        ab.Err("stock.empty", "no pen", metadata={"title": "Emma"}),
        ab.Err("stock.empty", "no book"),
        ab.Err("stock.empty", "no book", metadata={"title": "Emma"}, cause=OSError()),
        ab.Ok("stock.empty"),
    ):
        assert err != other


def test_e1_two_that_were_made_of_exceptions_are_equal_if_it_is_the_same_failure():
    failure = ab.Failure.of(OSError("busy"))
    assert ab.Err(failure) == ab.Err(failure)
    assert hash(ab.Err(failure)) == hash(ab.Err(failure))
    assert ab.Err(OSError("busy")) != ab.Err(OSError("busy"))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), asyncio.CancelledError()])
def test_e1_what_ends_a_program_or_a_task_is_no_err(error):
    with pytest.raises(ab.ConfigError, match="error must be a Failure, an Exception or a code"):
        ab.Err(error)
