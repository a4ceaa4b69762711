"""An undo action that raises what is no Exception is stuck, and costs no other its turn: C3, C7."""

import asyncio

import pytest

import anabranch as ab


class Strange(BaseException):
    pass


KINDS = [asyncio.CancelledError, GeneratorExit, Strange]
every_kind = pytest.mark.parametrize("kind", KINDS)
every_undo = pytest.mark.parametrize("asynchronous", [False, True], ids=["def", "async"])


def raising(kind, asynchronous):
    """Return an undo action that raises this, and the list of its calls."""
    calls = []

    def undo():
        calls.append(kind)
        raise kind("no")

    async def undo_async():
        await asyncio.sleep(0)
        undo()

    return (undo_async if asynchronous else undo), calls


def outcomes(report):
    return [(it.name, it.outcome) for it in report.actions]


def prepared(scope, undo, log):
    scope.finalize(log.append, "closed")
    scope.compensate(log.append, "first")
    scope.compensate(undo, retries=1)
    scope.compensate(log.append, "last")


def check(scope, undo, calls, log, error):
    """The others had their turn; the one was tried twice, and is told of where the error is."""
    assert (log, len(calls), scope.pending) == (["last", "first", "closed"], 2, 0)
    assert outcomes(scope.report) == [
        ("append", "done"),
        (undo.__name__, "failed"),
        ("append", "done"),
        ("append", "done"),
    ]
    assert type(scope.report.actions[1].error) is calls[0]
    assert error.__notes__ == [f"anabranch: undo actions are stuck: {undo.__name__}"]


@every_kind
@every_undo
def test_c3_c7_in_a_plain_block_the_others_run_and_the_error_goes_on(kind, asynchronous):
    undo, calls = raising(kind, asynchronous)
    log = []
    with pytest.raises(ValueError, match="no") as raised, ab.CompensationScope() as scope:
        prepared(scope, undo, log)
        raise ValueError("no")
    check(scope, undo, calls, log, raised.value)


@every_kind
@every_undo
def test_c3_c7_in_an_async_block_the_others_run_and_the_error_goes_on(kind, asynchronous):
    undo, calls = raising(kind, asynchronous)
    log = []
    scope = ab.CompensationScope()

    async def main():
        async with scope:
            prepared(scope, undo, log)
            raise ValueError("no")

    with pytest.raises(ValueError, match="no") as raised:
        asyncio.run(main())
    check(scope, undo, calls, log, raised.value)


@every_kind
@every_undo
def test_c4_in_parallel_the_others_run_and_so_do_the_finalizers(kind, asynchronous, caplog):
    undo, calls = raising(kind, asynchronous)
    log = []
    scope = ab.CompensationScope()
    prepared(scope, undo, log)
    report = asyncio.run(scope.rollback(policy="parallel"))
    assert (log, len(calls), report.done, report.stuck) == (["last", "first", "closed"], 2, 3, 1)
    assert "never retrieved" not in caplog.text


@every_kind
@every_undo
@pytest.mark.parametrize("form", ["blocking", "async"])
def test_c15_such_a_finalizer_of_a_commit_costs_no_other(kind, asynchronous, form):
    undo, calls = raising(kind, asynchronous)
    log = []
    scope = ab.CompensationScope()
    for finalizer in (log.append, undo, log.append):
        scope.finalize(finalizer, *(["closed"] if finalizer is not undo else []))
    report = scope.commit_blocking() if form == "blocking" else asyncio.run(scope.commit())
    assert (log, len(calls), report.done, report.stuck) == (["closed"] * 2, 1, 2, 1)


@every_kind
@pytest.mark.parametrize("form", ["blocking", "async"])
def test_c14_a_policy_that_raises_such_a_thing_costs_no_action(kind, form, caplog):
    log = []

    def policy(_):
        raise kind("no")

    scope = ab.CompensationScope()
    scope.compensate(log.append, "undone")
    if form == "blocking":
        scope.rollback_blocking(policy=policy)
    else:
        asyncio.run(scope.rollback(policy=policy))
    assert log == ["undone"]
    assert "rollback policy failed" in caplog.text


@pytest.mark.parametrize("ends", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("form", ["blocking", "async"])
def test_c14_e4_a_policy_that_asks_for_the_end_of_the_process_costs_none_either(ends, form):
    log = []

    def policy(_):
        raise ends

    async def roll_back():
        # Here: what leaves a task of its own ends the loop as well.
        with pytest.raises(ends):
            await scope.rollback(policy=policy)

    scope = ab.CompensationScope()
    scope.compensate(log.append, "undone")
    if form == "blocking":
        with pytest.raises(ends):
            scope.rollback_blocking(policy=policy)
    else:
        asyncio.run(roll_back())
    assert (log, scope.report.done) == (["undone"], 1)


@every_kind
@every_undo
def test_c7_a_call_by_hand_raises_its_own_error_then(kind, asynchronous):
    undo, _ = raising(kind, asynchronous)
    log = []

    def store(ctx):
        prepared(ctx, undo, log)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no") as raised:
        ab.retry(store, ab.Retry.fixed(0.0, attempts=1))
    assert log == ["last", "first", "closed"]
    assert ab.RollbackReport.of(raised.value).stuck == 1


@every_kind
@every_undo
@pytest.mark.parametrize("form", ["blocking", "async"])
def test_c3_such_a_stuck_action_can_be_tried_again_and_again(kind, asynchronous, form):
    healed, ran = [], []

    def undo(n):
        ran.append(n)
        if not healed:
            raise kind("no")

    async def undo_async(n):
        await asyncio.sleep(0)
        undo(n)

    def store(_, ctx):
        for n in range(3):
            ctx.compensate(undo_async if asynchronous else undo, n)
        raise ValueError("no")

    def again(report):
        ran.clear()
        if form == "blocking":
            return report.retry_stuck_blocking()
        return asyncio.run(report.retry_stuck())

    pipeline = ab.Pipeline("p").source([1]).for_each(store, inline=True)
    reports = [pipeline.run_blocking()]
    for _ in range(2):
        reports.append(again(reports[-1]))
        assert ran == [2, 1, 0]
    assert [report.stuck for report in reports] == [3, 3, 3]
    healed.append("yes")
    report = again(reports[-1])
    assert (ran, report.stuck, report.compensated) == ([2, 1, 0], 0, 3)


@pytest.mark.parametrize("ends", [SystemExit, KeyboardInterrupt])
def test_c3_e4_what_asks_for_the_end_of_the_process_is_not_tried_away(ends):
    tries = []

    def undo():
        tries.append(ends)
        if len(tries) == 1:
            raise ends

    async def main():
        scope = ab.CompensationScope()
        scope.compensate(undo, retries=1)
        with pytest.raises(ends):
            await scope.rollback()
        return scope.report

    assert (asyncio.run(main()).stuck, len(tries)) == (1, 1)


@pytest.mark.parametrize("asynchronous", [False, True], ids=["def", "async"])
def test_c7_what_was_undone_is_told_where_the_process_is_to_end(asynchronous):
    error = ValueError("no")

    def store(ctx):
        ctx.compensate(raising(SystemExit, asynchronous=False)[0])
        raise error

    async def store_async(ctx):
        store(ctx)

    with pytest.raises(SystemExit):
        if asynchronous:
            asyncio.run(ab.retry(store_async, ab.Retry.fixed(0.0, attempts=1)))
        else:
            ab.retry(store, ab.Retry.fixed(0.0, attempts=1))
    assert ab.RollbackReport.of(error).stuck == 1
