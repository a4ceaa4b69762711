"""What operators do besides taking failures: register, stop the pipeline, and fail themselves."""

import asyncio

import pytest
from support import balanced, every_driver, go
from test_failures import Taken, every_how, number

import anabranch as ab


@every_how
@every_driver
def test_c15_what_tap_error_registers_is_finalized_and_its_undo_actions_are_released(driver, how):
    closed, undone = [], []

    def look(failure, ctx):
        ctx.finalize(closed.append, failure.item)
        ctx.compensate(undone.append, failure.item)

    async def look_async(failure, ctx):
        await asyncio.sleep(0)
        look(failure, ctx)

    pipeline = ab.Pipeline("p").source(["1", "x", "y"]).map(number)
    pipeline = pipeline.tap_error(look if how == "def" else look_async).collect()
    report = balanced(go(pipeline, driver))
    assert (sorted(closed), undone, report.failed) == (["x", "y"], [], 2)


@every_how
@every_driver
def test_t4_a_failure_that_was_looked_at_stops_the_pipeline_as_its_stage_says(driver, how):
    seen = Taken()
    pipeline = ab.Pipeline("p").source(["1", "x", "2"]).map(number, on_error="stop")
    report = balanced(go(pipeline.tap_error(seen.called(how)).collect(), driver))
    assert (report.outcome, seen.items) == ("failed", ["x"])


@every_how
@every_driver
def test_e3_an_operator_that_fails_tells_its_attempt(driver, how):
    broken = Taken(raises=OSError("the letter box is full"))
    pipeline = ab.Pipeline("p").source(["x"]).map(number)
    retry = ab.Retry.fixed(0, attempts=3)
    pipeline = pipeline.dead_letter(broken.called(how), name="letters", retry=retry).collect()
    report = balanced(go(pipeline, driver))
    (failure,) = report.failures
    assert len(broken.failures) == 3
    assert any("stage 'letters'" in it and "attempt 3" in it for it in failure.error.__notes__)


@pytest.mark.parametrize("codes", ["", ["ValueError", ""], []])
def test_t1_an_empty_code_is_refused_by_its_argument(codes):
    pipeline = ab.Pipeline("p").source(["x"]).map(number)
    with pytest.raises(ab.ConfigError, match="codes must be a code, or several of them"):
        pipeline.recover(lambda failure: failure, codes=codes)


@pytest.mark.parametrize("path", ["/nowhere/at/all", "a\0b"])
def test_t1_a_file_that_cannot_be_opened_is_told_with_its_stage(path):
    pipeline = ab.Pipeline("p").source(["x"]).map(number).dead_letter(path).collect()
    with pytest.raises(ab.ConfigError, match=r"pipeline 'p', stage 'dead_letter': target must be"):
        pipeline.run_blocking()


def test_b4_without_a_fan_out_there_are_no_branches():
    async def main():
        async with ab.Pipeline("p").source([1]).collect().start() as running:
            for ask in (running.branch, running.add_branch):
                with pytest.raises(ab.ConfigError, match="no branches without a fan_out"):
                    ask("acme")

    asyncio.run(main())
