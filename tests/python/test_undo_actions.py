"""Undo actions themselves: where they run, their arguments, names, retries and timeouts."""

import asyncio
import functools
import gc
import threading
import weakref

import pytest
from support import DEADLINE, balanced, every_driver, every_way, go, with_sink

import anabranch as ab
from anabranch.testing import VirtualClock


class Refused(Exception):
    """What a handler raises that is to be undone."""


def one(*items):
    return ab.Pipeline("p").source(list(items) or [1])


@every_driver
def test_c16_a_def_undo_of_a_pooled_handler_runs_on_the_pool(driver):
    threads = []

    def undo():
        threads.append(threading.current_thread())

    def handler(unit, ctx):
        ctx.compensate(undo)
        raise Refused

    go(one(1, 2).for_each(handler), driver)
    assert len(threads) == 2
    assert threading.main_thread() not in threads


@every_way
def test_c16_an_async_undo_runs_in_the_loop_and_inside_the_run(driver, kind):
    log = []

    async def undo(row, *, table):
        await asyncio.sleep(0)
        log.append((row, table, asyncio.get_running_loop() is not None))

    def handler(unit, ctx):
        ctx.compensate(functools.partial(undo, table="orders"), 7)
        raise Refused

    report = balanced(go(with_sink(one(), kind, handler), driver))
    assert log == [(7, "orders", True)]
    assert [(it.name, it.outcome) for it in report.compensations] == [("undo", "done")]


@pytest.mark.parametrize("asynchronous", [False, True])
@every_way
def test_c16_an_undo_has_retries_of_its_own(driver, kind, asynchronous):
    tries = []

    def undo():
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError(len(tries))

    async def undo_async():
        undo()

    def handler(unit, ctx):
        ctx.compensate(undo_async if asynchronous else undo, retries=2)
        raise Refused

    report = balanced(go(with_sink(one(), kind, handler), driver))
    assert len(tries) == 3
    assert (report.compensated, report.stuck) == (1, 0)


@pytest.mark.parametrize("asynchronous", [False, True])
@every_way
def test_c16_an_undo_whose_retries_are_used_up_is_stuck(driver, kind, asynchronous):
    tries = []

    def undo():
        tries.append(1)
        raise ConnectionError(len(tries))

    async def undo_async():
        undo()

    def handler(unit, ctx):
        ctx.compensate(undo_async if asynchronous else undo, retries=2)
        raise Refused

    report = balanced(go(with_sink(one(), kind, handler), driver))
    assert len(tries) == 3
    assert (report.compensated, report.stuck) == (0, 1)
    assert report.compensations[-1].error.args == (3,)


@every_way
def test_c16_an_async_undo_has_a_timeout_of_its_own(driver, kind):
    clock, log = VirtualClock(), []

    async def stuck():
        try:
            await asyncio.Event().wait()
        finally:
            log.append(("cancelled", clock.now()))

    def handler(unit, ctx):
        ctx.compensate(log.append, "the other")
        ctx.compensate(stuck, timeout=20.0)
        raise Refused

    pipeline = ab.Pipeline("p", clock=clock).source([1])
    report = balanced(go(with_sink(pipeline, kind, handler), driver, clock))
    assert log == [("cancelled", 20.0), "the other"]
    assert (report.compensated, report.stuck) == (1, 1)
    error = report.compensations[0].error
    assert isinstance(error, ab.HandlerTimeout)
    assert isinstance(error, TimeoutError)
    assert error.timeout == 20.0
    place = f"pipeline 'p', stage {report.compensations[0].stage!r}"
    assert str(error) == (
        f"{place}: undo 'stuck' took longer than its timeout of 20 s; see whether its effect is "
        "undone, or run it again with `report.retry_stuck()`. "
        "If it needs the time, give it a longer `timeout` where it is registered"
    )


@every_way
def test_c8_an_async_undo_is_cut_short_by_the_deadline_and_the_error_says_so(driver, kind):
    clock = VirtualClock()

    async def remove():
        await asyncio.Event().wait()

    def handler(unit, ctx):
        ctx.compensate(remove)
        raise Refused

    pipeline = ab.Pipeline("p", clock=clock, rollback_deadline=12.0).source([1])
    report = balanced(go(with_sink(pipeline, kind, handler), driver, clock))
    (action,) = report.compensations
    assert (clock.now(), report.stuck, report.abandoned) == (12.0, 1, 0)
    assert "undo 'remove' had not ended after 12 s, when the deadline of its" in str(action.error)
    assert "a later deadline" in str(action.error)


@every_way
def test_c8_a_coroutine_that_ignores_the_deadline_does_not_hold_up_the_end(driver, kind):
    clock, cancelled = VirtualClock(), []

    async def stubborn():
        while len(cancelled) < 100:
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                cancelled.append(clock.now())

    def handler(unit, ctx):
        ctx.compensate(stubborn)
        raise Refused

    pipeline = ab.Pipeline("p", clock=clock, rollback_deadline=12.0).source([1])
    report = balanced(go(with_sink(pipeline, kind, handler), driver, clock))
    assert (report.stuck, report.compensated) == (1, 0)
    assert isinstance(report.compensations[0].error, ab.HandlerTimeout)
    assert report.compensations[0].error.abandoned
    # At the deadline, and, its grace being over, once more as the run closes.
    assert cancelled[:2] == [12.0, 13.0]


@every_driver
def test_c8_a_def_that_hangs_beyond_the_deadline_does_not_hold_up_the_end(driver):
    begun, leave, threads = threading.Event(), threading.Event(), []

    def hang():
        threads.append(threading.current_thread())
        begun.set()
        leave.wait()

    def handler(unit, ctx):
        ctx.compensate(hang, retries=3)
        raise Refused

    pipeline = ab.Pipeline("p", rollback_deadline=0.05).source([1, 2])
    report = balanced(go(pipeline.for_each(handler), driver))
    # The run has ended while they hang: each in a thread of ours, which another has replaced.
    assert begun.is_set()
    assert all(thread.is_alive() for thread in threads)
    leave.set()
    for thread in threads:
        thread.join(DEADLINE)
    assert (report.failed, report.stuck, report.compensated) == (2, 2, 0)
    for action in report.compensations:
        assert isinstance(action.error, ab.HandlerTimeout)
        assert action.error.abandoned
        assert "undo 'hang' had not ended after" in str(action.error)


@every_way
def test_c5_what_a_try_registers_before_it_fails_runs_in_a_next_pass(driver, kind):
    ran = []

    def undo(ctx):
        ran.append(f"try {ctx.attempt}")
        ctx.compensate(ran.append, f"undo of try {ctx.attempt}")
        ctx.finalize(ran.append, f"end of try {ctx.attempt}")
        if ctx.attempt < 3:
            raise ConnectionError

    async def undo_async(ctx):
        undo(ctx)

    for action in (undo, undo_async):
        ran.clear()

        def handler(unit, ctx, action=action):
            ctx.compensate(action, retries=2)
            raise Refused

        report = balanced(go(with_sink(one(), kind, handler), driver))
        assert ran == [
            *("try 1", "try 2", "try 3"),
            *("undo of try 3", "undo of try 2", "undo of try 1"),
            *("end of try 3", "end of try 2", "end of try 1"),
        ]
        assert (report.compensated, report.finalized, report.stuck) == (4, 3, 0)


@every_driver
def test_c16_the_tries_of_a_def_undo_run_on_the_pool(driver):
    threads = []

    def undo():
        threads.append(threading.current_thread())
        if len(threads) < 3:
            raise ConnectionError

    def handler(unit, ctx):
        ctx.compensate(undo, retries=2)
        raise Refused

    assert go(one().for_each(handler), driver).compensated == 1
    assert len(threads) == 3
    assert threading.main_thread() not in threads


REFUSED = [
    ({"level": "galaxy"}, "level", "'unit', 'branch' or 'pipeline', got 'galaxy'"),
    ({"level": None}, "level", "'unit', 'branch' or 'pipeline', got None"),
    ({"level": 5}, "level", "'unit', 'branch' or 'pipeline', got 5"),
    ({"when": 1}, "when", "a bool, got 1"),
    ({"when": None}, "when", "a bool, got None"),
    ({"name": 5}, "name", "None or a str that is not blank, got 5"),
    ({"retries": -1}, "retries", "an int >= 0, got -1"),
    ({"retries": "x"}, "retries", "an int >= 0, got 'x'"),
    ({"retries": 1.5}, "retries", "an int >= 0, got 1.5"),
    ({"retries": True}, "retries", "an int >= 0, got True"),
    ({"retries": None}, "retries", "an int >= 0, got None"),
    ({"retries": 2**70}, "retries", f"an int >= 0, got {2**70}"),
    ({"timeout": 0}, "timeout", "None or seconds > 0, got 0"),
    ({"timeout": -1.0}, "timeout", "None or seconds > 0, got -1.0"),
    ({"timeout": float("nan")}, "timeout", "None or seconds > 0, got nan"),
    ({"timeout": float("inf")}, "timeout", "None or seconds > 0, got inf"),
    ({"timeout": "x"}, "timeout", "None or seconds > 0, got 'x'"),
    ({"timeout": False}, "timeout", "None or seconds > 0, got False"),
]


@pytest.mark.parametrize(("options", "argument", "said"), REFUSED)
@pytest.mark.parametrize("verb", ["compensate", "finalize"])
def test_c16_a_refused_argument_is_named_with_its_value_and_what_is_allowed(
    verb, options, argument, said
):
    pipeline = one().map(lambda n, ctx: getattr(ctx, verb)(print, **options), name="store")
    (failure,) = pipeline.collect().run_blocking().failures
    assert isinstance(failure.error, ab.ConfigError)
    assert (failure.error.argument, failure.error.stage) == (argument, "store")
    place = f"pipeline 'p', stage 'store': {verb}"
    assert str(failure.error) == f"{place}: {argument} must be {said}"


@pytest.mark.parametrize(
    ("options", "argument", "said"), [row for row in REFUSED if row[1] != "level"]
)
@pytest.mark.parametrize("verb", ["compensate", "finalize"])
def test_c22_a_scope_by_itself_refuses_the_same(verb, options, argument, said):
    with pytest.raises(ab.ConfigError) as refused:
        getattr(ab.CompensationScope(), verb)(print, **options)
    assert refused.value.argument == argument
    assert str(refused.value) == f"scope: {verb}: {argument} must be {said}"


def test_c16_what_cannot_be_called_is_refused():
    report = one().map(lambda n, ctx: ctx.compensate("undo")).collect().run_blocking()
    assert report.codes == {"ConfigError": 1}


class Table:
    def __init__(self, name, log):
        self.name, self.log = name, log

    def delete(self, row):
        self.log.append((self.name, row))


@every_driver
def test_c22_each_undo_is_taken_for_what_it_is_whichever_was_registered_before(driver):
    log = []

    def plain(row):
        log.append(("plain", row))

    def informed(row, ctx):
        log.append(("informed", row, ctx.stage))

    async def later(row):
        log.append(("later", row))

    orders, items = Table("orders", log), Table("items", log)
    undos = [
        plain,
        plain,
        informed,
        plain,
        later,
        informed,
        orders.delete,
        items.delete,
        log.append,
        functools.partial(informed, 0),
        orders.delete,
    ]

    def handler(unit, ctx):
        for place, undo in enumerate(undos):
            ctx.compensate(undo, *(() if isinstance(undo, functools.partial) else (place,)))
        raise Refused

    report = go(one().for_each(handler, name="store", inline=True), driver)
    assert log == [
        ("orders", 10),
        ("informed", 0, "store"),
        8,
        ("items", 7),
        ("orders", 6),
        ("informed", 5, "store"),
        ("later", 4),
        ("plain", 3),
        ("informed", 2, "store"),
        ("plain", 1),
        ("plain", 0),
    ]
    names = ["delete", "informed", "append", "delete", "delete", "informed", "later"]
    names += ["plain", "informed", "plain", "plain"]
    assert [undone.name for undone in report.compensations] == names


def test_c11_a_run_that_has_ended_holds_none_of_its_undo_actions():
    class Held:
        pass

    held = Held()
    gone = weakref.ref(held)

    def handler(unit, ctx, held=held):
        def undo():
            return held

        ctx.compensate(undo)

    pipeline = one().for_each(handler)
    report = pipeline.run_blocking()
    del held, handler, pipeline
    gc.collect()
    assert report.ok
    assert gone() is None
