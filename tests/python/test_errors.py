"""What becomes of exceptions: whose they stay, what is noted, and which end the process."""

import asyncio
import traceback

import pytest
from support import (
    balanced,
    every_driver,
    every_way,
    go,
    with_sink,
)

import anabranch as ab


class Broken(Exception):
    def __init__(self, number, *, hint):
        super().__init__(number)
        self.hint = hint


def deep(n):
    raise Broken(n, hint="look here")


def shallow(n):
    deep(n)


async def shallow_async(n):
    deep(n)


STAGES = ["map", "filter", "tap", "flat_map", "key", "sink"]


def failing_at(stage, fn, kind="inline", **options):
    pipeline = ab.Pipeline("orders", **options).source([("acme", 1)]).fan_out(by=ab.item(0))
    if stage == "key":
        pipeline = ab.Pipeline("orders", **options).source([("acme", 1)])
        pipeline = pipeline.fan_out(by=fn, name="here")
    elif stage != "sink":
        pipeline = getattr(pipeline, stage)(fn, name="here")
    else:
        return with_sink(pipeline, kind, lambda unit, ctx: fn(unit), name="here")
    return pipeline.collect()


@pytest.mark.parametrize("stage", STAGES)
@every_way
def test_e3_an_exception_keeps_its_type_its_attributes_and_its_traceback(driver, kind, stage):
    report = balanced(go(failing_at(stage, shallow, kind), driver))
    error = report.failures[0].error
    assert type(error) is Broken
    assert (error.args, error.hint) == ((("acme", 1),), "look here")
    names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    assert names[-2:] == ["shallow", "deep"]


@pytest.mark.parametrize("stage", ["map", "filter", "tap", "flat_map"])
@every_driver
def test_e3_so_does_one_of_an_async_callable(driver, stage):
    report = balanced(go(failing_at(stage, shallow_async), driver))
    names = [it.name for it in traceback.extract_tb(report.failures[0].error.__traceback__)]
    assert names[-2:] == ["shallow_async", "deep"]


@every_driver
def test_e3_so_does_one_of_a_source(driver):
    def source():
        yield 1
        deep(2)

    report = balanced(go(ab.Pipeline("p").source(source()).collect(), driver))
    names = [it.name for it in traceback.extract_tb(report.failures[0].error.__traceback__)]
    assert names[-2:] == ["source", "deep"]


@every_way
def test_e3_so_does_one_of_an_undo(driver, kind):
    def sink(unit, ctx):
        ctx.compensate(shallow, 1)
        raise ValueError

    report = go(with_sink(ab.Pipeline("p").source([1]), kind, sink), driver)
    error = report.compensations[0].error
    names = [it.name for it in traceback.extract_tb(error.__traceback__)]
    assert names[-2:] == ["shallow", "deep"]


@pytest.mark.parametrize("stage", STAGES)
@every_way
def test_e3_a_note_tells_pipeline_stage_and_tenant(driver, kind, stage):
    report = go(failing_at(stage, shallow, kind), driver)
    (note,) = report.failures[0].error.__notes__
    assert "'orders'" in note
    assert "'here'" in note
    assert ("'acme'" in note) == (stage != "key")


@every_way
def test_e3_a_note_tells_the_attempt(driver, kind):
    def handler(unit, ctx):
        raise Broken(unit, hint=ctx.attempt)

    pipeline = ab.Pipeline("orders").source([1])
    report = go(with_sink(pipeline, kind, handler, retry=ab.Retry.fixed(0, attempts=3)), driver)
    for attempt, error in enumerate(report.failures[0].history, start=1):
        assert error.hint == attempt
        assert any(f"attempt {attempt}" in note for note in error.__notes__)


@every_way
def test_e3_an_exception_raised_again_and_again_does_not_grow(driver, kind):
    error = Broken(0, hint=None)

    def handler(unit, ctx):
        raise error

    pipeline = ab.Pipeline("p").source(range(500)).fan_out(by=lambda n: n)
    report = balanced(go(with_sink(pipeline, kind, handler), driver))
    assert report.codes == {"Broken": 500}
    assert len(error.__notes__) < 10


@every_driver
def test_e3_a_generated_line_stands_in_the_traceback(driver):
    report = go(failing_at("map", shallow), driver)
    lines = [it.line for it in traceback.extract_tb(report.failures[0].error.__traceback__)]
    assert any("here(" in line for line in lines), lines


def test_e3_an_exception_that_cannot_be_noted_is_still_its_own():
    class Slotted(Exception):
        def add_note(self, note):
            raise RuntimeError("no notes here")

    def refuse(n):
        raise Slotted(n)

    report = balanced(ab.Pipeline("p").source([1]).map(refuse).collect().run_blocking())
    assert type(report.failures[0].error) is Slotted
    assert list(report.codes) == ["Slotted"]


FATAL = [KeyboardInterrupt, SystemExit]


@pytest.mark.parametrize("fatal", FATAL)
@pytest.mark.parametrize("stage", STAGES)
@every_way
def test_e4_what_ends_the_process_is_never_swallowed_nor_a_failure(driver, kind, stage, fatal):
    registered, undone, committed = [], [], []

    def register(n, ctx):
        registered.append(n)
        ctx.compensate(undone.append, n)
        return n

    def call(n):
        if n == 3:
            raise fatal("out")
        return [n] if stage == "flat_map" else n

    pipeline = ab.Pipeline("p").source(list(range(10))).map(register)
    if stage == "key":
        pipeline = pipeline.fan_out(by=call)
    elif stage != "sink":
        pipeline = getattr(pipeline, stage)(call)

    def sink(unit, ctx):
        if stage == "sink":
            call(unit)
        committed.append(unit)

    pipeline = with_sink(pipeline, kind, sink)
    with pytest.raises(fatal, match="out"):
        go(pipeline, driver)
    report = balanced(pipeline.last_report)
    assert (report.failed, report.codes) == (0, {})
    assert 3 in undone
    # All that was begun is either done or undone.
    filtered = [0] * report.filtered
    assert sorted(undone + committed + filtered) == registered
    assert report.committed == len(committed)


@pytest.mark.parametrize("fatal", FATAL)
@pytest.mark.parametrize("operator", ["map", "filter", "tap", "flat_map"])
@every_driver
def test_e4_an_async_stage_may_end_the_process(driver, operator, fatal):
    async def call(n):
        await asyncio.sleep(0)
        if n == 3:
            raise fatal("out")
        return [n]

    pipeline = getattr(ab.Pipeline("p").source(range(10)), operator)(call, concurrency=4).collect()
    with pytest.raises(fatal, match="out"):
        go(pipeline, driver)
    report = balanced(pipeline.last_report)
    assert report.outcome == "aborted"
    # Those beside it were cancelled.
    assert set(report.codes) <= {"cancelled"}
    assert report.failed <= 3


@pytest.mark.parametrize("fatal", FATAL)
@pytest.mark.parametrize("asynchronous", [False, True])
@every_way
def test_e4_an_undo_may_end_the_process_and_the_other_undos_run(driver, kind, asynchronous, fatal):
    ran = []

    def leave():
        raise fatal("out")

    async def leave_async():
        raise fatal("out")

    def sink(unit, ctx):
        ctx.compensate(ran.append, "first")
        ctx.compensate(leave_async if asynchronous else leave)
        ctx.compensate(ran.append, "last")
        raise ValueError

    pipeline = with_sink(ab.Pipeline("p").source([1]), kind, sink)
    with pytest.raises(fatal, match="out"):
        go(pipeline, driver)
    assert ran == ["last", "first"]
    report = balanced(pipeline.last_report)
    assert report.codes == {"ValueError": 1}
    assert (report.compensated, report.stuck) == (2, 1)


@pytest.mark.parametrize("fatal", FATAL)
@every_way
def test_e4_a_source_may_end_the_process_and_what_it_gave_is_accounted_for(driver, kind, fatal):
    given = []

    def source():
        for n in range(1000):
            given.append(n)
            yield n
        raise fatal("out")

    pipeline = with_sink(ab.Pipeline("p").source(source()), kind, lambda unit, ctx: None)
    with pytest.raises(fatal, match="out"):
        go(pipeline, driver)
    report = balanced(pipeline.last_report)
    assert report.received == len(given)
    assert (report.failed, report.outcome) == (0, "aborted")


@pytest.mark.parametrize("fatal", FATAL)
@every_way
def test_e4_an_async_source_may_end_the_process(driver, kind, fatal):
    async def source():
        for n in range(1000):
            yield n
        raise fatal("out")

    pipeline = with_sink(ab.Pipeline("p").source(source()), kind, lambda unit, ctx: None)
    with pytest.raises(fatal, match="out"):
        go(pipeline, driver)
    report = balanced(pipeline.last_report)
    assert (report.received, report.failed) == (1000, 0)


@pytest.mark.parametrize("fatal", FATAL)
@every_way
def test_e4_it_is_not_tried_again(driver, kind, fatal):
    attempts = []

    def sink(unit, ctx):
        attempts.append(unit)
        raise fatal

    pipeline = ab.Pipeline("p").source([1])
    pipeline = with_sink(pipeline, kind, sink, retry=ab.Retry.fixed(0))
    with pytest.raises(fatal):
        go(pipeline, driver)
    assert attempts == [1]


@every_way
def test_e4_a_generator_exit_is_an_exception_like_any_other(driver, kind, capfd):
    def sink(unit, ctx):
        raise GeneratorExit(unit)

    report = balanced(go(with_sink(ab.Pipeline("p").source([1, 2]), kind, sink), driver))
    assert (report.outcome, report.codes) == ("completed", {"GeneratorExit": 2})
    assert [str(failure.error) for failure in report.failures] == ["1", "2"]
    assert "Traceback" not in capfd.readouterr().err


@every_driver
def test_e4_so_it_is_where_a_coroutine_of_a_def_raises_it(driver, capfd):
    async def raises(n):
        await asyncio.sleep(0)
        raise GeneratorExit(n)

    def sink(n):
        return raises(n)

    report = balanced(go(ab.Pipeline("p").source([1]).for_each(sink), driver))
    assert report.codes == {"GeneratorExit": 1}
    assert not capfd.readouterr().err


@every_driver
def test_e4_one_of_an_async_source_is_no_end_of_it(driver, capfd):
    async def source():
        yield 1
        raise GeneratorExit("out")

    report = balanced(go(ab.Pipeline("p").source(source()).collect(), driver))
    assert (report.outcome, report.items, report.received) == ("failed", [1], 1)
    assert isinstance(report.failures[-1].error, GeneratorExit)
    assert "Traceback" not in capfd.readouterr().err


class Raises:
    """An item that ends the process when it is looked at in one way or another."""

    def __init__(self, fatal):
        self._fatal = fatal

    @property
    def key(self):
        raise self._fatal

    def __getitem__(self, name):
        raise self._fatal

    def __hash__(self):
        raise self._fatal

    def __len__(self):
        raise self._fatal

    def __bool__(self):
        raise self._fatal

    def __iter__(self):
        raise self._fatal


async def same(item):
    return item


SIZED = {
    "at once": lambda p: p,
    "behind a leg": lambda p: p.map(same),
    "behind a key": lambda p: p.fan_out(by=str),
    "behind a leg and a key": lambda p: p.map(same).fan_out(by=str),
}


@pytest.mark.parametrize("front", SIZED)
@pytest.mark.parametrize("size", [-1, "a", None, float("nan"), 1.5])
def test_e3_an_item_without_a_size_is_a_failure_of_its_window(front, size):
    pipeline = SIZED[front](ab.Pipeline("p").source([1]))
    windows = pipeline.window(max_bytes=10, size_of=lambda item: size, name="packed")
    (failure,) = balanced(windows.map(same, name="behind").collect().run_blocking()).failures
    assert (failure.stage, type(failure.error)) == ("packed", ValueError)
    assert str(failure.error).startswith("size_of must return a number of bytes, an int >= 0, got ")
    raising = pipeline.window(max_bytes=10, size_of=lambda item: item // 0, name="packed")
    (failure,) = balanced(raising.collect().run_blocking()).failures
    assert (failure.stage, type(failure.error)) == ("packed", ZeroDivisionError)


def test_e3_a_size_beyond_all_bounds_fills_a_window():
    pipeline = ab.Pipeline("p").source([1, 2]).window(max_bytes=10, size_of=lambda item: 2**70)
    assert balanced(pipeline.collect().run_blocking()).items == [[1], [2]]


LOOKED_AT = {
    "attribute": lambda p: p.fan_out(by=ab.attr("key")).collect(),
    "entry": lambda p: p.fan_out(by="key").collect(),
    "hash": lambda p: p.fan_out(by=lambda item: item).collect(),
    "size": lambda p: p.window(max_bytes=9, size_of=len).collect(),
    "truth": lambda p: p.filter(same).collect(),
    "items": lambda p: p.flat_map(same).collect(),
    "attribute behind a leg": lambda p: p.map(same).fan_out(by=ab.attr("key")).collect(),
    "size behind a leg": lambda p: p.map(same).window(max_bytes=9, size_of=len).collect(),
}


@pytest.mark.parametrize("fatal", FATAL)
@pytest.mark.parametrize("look", LOOKED_AT)
def test_e4_an_item_may_end_the_process_when_it_is_looked_at(look, fatal):
    pipeline = LOOKED_AT[look](ab.Pipeline("p").source([Raises(fatal)]))
    with pytest.raises(fatal):
        pipeline.run_blocking()
    report = balanced(pipeline.last_report)
    assert (report.received, report.failed, report.left) == (1, 0, 1)
