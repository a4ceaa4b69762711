"""What a run closes at its end: its source and its branches, each once, whatever one raises."""

import asyncio
import itertools
import logging

import pytest
from support import balanced, child, every_driver, finish, go

import anabranch as ab

FATAL = [KeyboardInterrupt, SystemExit]
# With one of these the run goes on in an event loop.
SINKS = ["inline", "async"]


class Own(BaseException):
    """Neither an Exception nor what ends the process."""


class Closes:
    """A source whose `close()` raises."""

    def __init__(self, error):
        self._items = itertools.count()
        self._error = error
        self.closed = 0

    def __iter__(self):
        return self

    def __next__(self):
        return next(self._items)

    def close(self):
        self.closed += 1
        if self.closed < 9:  # for ever, otherwise
            raise self._error


def stored(pipeline, kind):
    async def store(n):
        pass

    return pipeline.for_each(store) if kind == "async" else pipeline.for_each(id, inline=True)


@pytest.mark.parametrize("fatal", FATAL)
@pytest.mark.parametrize("kind", SINKS)
@every_driver
def test_e4_who_is_told_of_a_branch_may_end_the_process_and_the_others_are_told(
    driver, kind, fatal
):
    told = []

    def closed(tenant):
        told.append(tenant)
        if len(told) < 9:  # for ever, otherwise
            raise fatal(f"out {tenant}")

    pipeline = ab.Pipeline("p").source([1, 2, 3])
    pipeline = pipeline.fan_out(by=lambda n: n, on_branch_closed=closed)
    pipeline = stored(pipeline, kind)
    with pytest.raises(fatal, match="out 1"):
        go(pipeline, driver)
    assert told == [1, 2, 3]
    assert balanced(pipeline.last_report).committed == 3


@pytest.mark.parametrize("fatal", FATAL)
@pytest.mark.parametrize("kind", SINKS)
@every_driver
def test_e4_closing_the_source_may_end_the_process_and_happens_once(driver, kind, fatal):
    source = Closes(fatal("out"))
    told = []
    pipeline = ab.Pipeline("p").source(source).take(2)
    pipeline = pipeline.fan_out(by=lambda n: n, on_branch_closed=told.append)
    pipeline = stored(pipeline, kind)
    with pytest.raises(fatal, match="out"):
        go(pipeline, driver)
    assert (source.closed, told) == (1, [0, 1])
    assert balanced(pipeline.last_report).committed == 2


@pytest.mark.parametrize("error", [Own, asyncio.CancelledError, GeneratorExit])
@pytest.mark.parametrize("kind", SINKS)
@every_driver
def test_e4_any_other_exception_of_what_is_closed_is_logged(driver, kind, error, caplog):
    def closed(tenant):
        raise error(tenant)

    pipeline = ab.Pipeline("p").source(Closes(error("shut"))).take(2)
    pipeline = pipeline.fan_out(by=lambda n: n, on_branch_closed=closed)
    assert balanced(go(stored(pipeline, kind), driver)).ok
    assert "stage 'Closes': closing the source raised" in caplog.text
    for tenant in (0, 1):
        assert f"stage 'fan_out', tenant {tenant}: on_branch_closed raised" in caplog.text


class ClosesAsync(Closes):
    """The same, async."""

    def __aiter__(self):
        return self

    async def __anext__(self):
        # Here the stop finds it.
        await asyncio.sleep(0)
        return next(self._items)

    async def aclose(self):
        self.close()


@pytest.mark.parametrize("fatal", FATAL)
@every_driver
def test_e4_so_may_closing_an_async_source_before_the_loop_ends(driver, fatal):
    source, ended = ClosesAsync(fatal("out")), []

    async def go_on():
        try:
            async with pipeline.start() as running:
                await running.wait()
        finally:
            # What is raised into the loop itself would leave this to its shutdown.
            ended.append(asyncio.current_task().cancelling())

    pipeline = ab.Pipeline("p").source(source).take(2).collect()
    with pytest.raises(fatal, match="out"):
        asyncio.run(go_on()) if driver == "start" else go(pipeline, driver)
    assert (source.closed, ended) == (1, [0] if driver == "start" else [])
    assert balanced(pipeline.last_report).failed == 0


@pytest.mark.parametrize("error", [Own, GeneratorExit])
@every_driver
def test_e4_any_other_exception_of_an_aclose_is_logged(driver, error, caplog):
    pipeline = ab.Pipeline("p").source(ClosesAsync(error("shut"))).take(2).collect()
    assert balanced(go(pipeline, driver)).outcome == "completed"
    assert "stage 'ClosesAsync': closing the source raised" in caplog.text
    assert "never retrieved" not in caplog.text


@pytest.mark.parametrize("kind", SINKS)
@every_driver
def test_e4_a_log_may_end_the_process_and_who_receives_is_told_of_the_end(driver, kind):
    class Exits(logging.Handler):
        def emit(self, record):
            raise SystemExit(record.getMessage())

    async def number(n):
        return int(n)

    out = ab.Channel(9)
    pipeline = ab.Pipeline("p").source(["1", "x"]).map(number if kind == "async" else int)
    pipeline = pipeline.to_channel(out, close=True)
    logger, exits = logging.getLogger("anabranch"), Exits()
    logger.addHandler(exits)
    try:
        with pytest.raises(SystemExit, match="with failures: ValueError x1"):
            go(pipeline, driver)
    finally:
        logger.removeHandler(exits)
    assert out.closed
    assert balanced(pipeline.last_report).failed == 1


@pytest.mark.parametrize("how", ["run_blocking()", "run()", "start()"])
def test_e7_what_is_told_of_a_branch_ends_the_program_with_its_exit_code(how):
    script = """
    import asyncio, sys
    import anabranch as ab

    async def store(n):
        pass

    def closed(tenant):
        sys.exit(7)

    async def started():
        async with pipeline.start() as running:
            await running.wait()

    pipeline = ab.Pipeline("p").source([1]).fan_out(by=lambda n: n, on_branch_closed=closed)
    pipeline = pipeline.for_each(store)
    if sys.argv[1] == "run_blocking()":
        pipeline.run_blocking()
    asyncio.run(pipeline.run() if sys.argv[1] == "run()" else started())
    """
    assert finish(child(script, arguments=[how])) == (7, "", "")
