"""Undo actions themselves: where they run, their arguments, names, retries and timeouts."""

import asyncio
import functools
import threading

import pytest
from support import balanced, every_driver, every_way, go, with_sink

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
    assert isinstance(report.compensations[0].error, TimeoutError)


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"level": "galaxy"}, "level"),
        ({"retries": -1}, "retries"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": -1.0}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
    ],
)
def test_c16_a_refused_argument_is_named(options, argument):
    report = one().map(lambda n, ctx: ctx.compensate(print, **options)).collect().run_blocking()
    (failure,) = report.failures
    assert isinstance(failure.error, ab.ConfigError)
    assert failure.error.argument == argument


def test_c16_what_cannot_be_called_is_refused():
    report = one().map(lambda n, ctx: ctx.compensate("undo")).collect().run_blocking()
    assert report.codes == {"ConfigError": 1}
