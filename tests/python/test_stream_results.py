"""`ab.Result` in streams: an `Err` is a failure of its item, an `Ok` goes on as its value (T12)."""

import asyncio
import subprocess
import sys
import textwrap

import pytest
from support import balanced, every_driver, go

import anabranch as ab

BAD = 3


def err(n):
    return ab.Err("bad.number", f"{n} is bad", metadata={"n": n})


def sync(fn):
    return fn


def asynchronous(fn):
    async def call(n):
        return fn(n)

    return call


def with_ctx(fn):
    def call(n, ctx):
        return fn(n)

    return call


def result_of(n):
    return err(n) if n == BAD else ab.Ok(n * 10)


def holds(n):
    return err(n) if n == BAD else ab.Ok(n != 2)


STAGES = {
    "map": (lambda p, how: p.map(how(result_of)), [10, 20, 40]),
    "filter": (lambda p, how: p.filter(how(holds)), [1, 4]),
    "tap": (lambda p, how: p.tap(how(result_of)), [1, 2, 4]),
    "ensure": (lambda p, how: p.ensure(how(holds)), [1, 4]),
    "flat_map": (
        lambda p, how: p.flat_map(how(lambda n: err(n) if n == BAD else ab.Ok([n, ab.Ok(n)]))),
        [1, 1, 2, 2, 4, 4],
    ),
}


@pytest.mark.parametrize("how", [sync, asynchronous, with_ctx])
@pytest.mark.parametrize("kind", STAGES)
@every_driver
def test_t12_an_err_fails_its_item_at_its_stage_and_an_ok_is_unwrapped(driver, kind, how):
    stage, expected = STAGES[kind]
    seen = []
    pipeline = stage(ab.Pipeline("p").source([1, 2, BAD, 4]), how).tap(seen.append)
    report = balanced(go(pipeline.collect(), driver))
    assert report.items == seen == expected
    failed = {failure.code: failure for failure in report.failures}["bad.number"]
    assert (failed.item, failed.message, dict(failed.metadata)) == (BAD, "3 is bad", {"n": BAD})
    assert failed.stage == pipeline.stages[1].name


@pytest.mark.parametrize("how", [sync, asynchronous, with_ctx])
@pytest.mark.parametrize("inline", [False, True])
@every_driver
def test_t12_a_sink_that_returns_an_err_has_failed(driver, how, inline):
    def store(n):
        return err(n) if n == BAD else ab.Ok("ignored")

    pipeline = ab.Pipeline("p").source([1, 2, BAD, 4]).map(lambda n: n)
    options = {"inline": inline} if how is not asynchronous else {}
    report = balanced(go(pipeline.for_each(how(store), name="store", **options), driver))
    assert (report.committed, report.failed) == (3, 1)
    assert [(it.stage, it.code, it.item) for it in report.failures] == [("store", "bad.number", 3)]


@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize("window", [False, True])
@every_driver
def test_t12_a_unit_whose_async_sink_returns_an_err_has_failed(driver, concurrency, window):
    async def store(unit):
        await asyncio.sleep(0)
        return err(BAD) if BAD in (unit if window else [unit]) else None

    pipeline = ab.Pipeline("p").source([1, 2, BAD, 4]).fan_out(by=lambda n: n)
    pipeline = pipeline.window(max_items=1) if window else pipeline
    report = balanced(go(pipeline.for_each(store, concurrency=concurrency), driver))
    assert (report.committed, report.failed, report.codes) == (3, 1, {"bad.number": 1})


@pytest.mark.parametrize("asynchronously", [False, True])
@pytest.mark.parametrize("called", [False, True])
@every_driver
def test_t12_a_source_may_give_results(driver, called, asynchronously):
    items = [ab.Ok(1), err(2), 3, ab.Ok(4)]

    async def source():
        for item in items:
            yield item

    pipeline = ab.Pipeline("p").source(source() if asynchronously else items)
    pipeline = pipeline.map(lambda n: n + 1) if called else pipeline
    report = balanced(go(pipeline.collect(), driver))
    assert report.items == [n + called for n in (1, 3, 4)]
    failed = report.failures[0]
    assert (failed.stage, failed.code) == (pipeline.stages[0].name, "bad.number")


@every_driver
def test_t12_a_channel_may_hold_results_for_an_async_sink(driver):
    items = ab.Channel(10)
    items.send_many_nowait([ab.Ok(1), err(2), ab.Ok(3)])
    items.close()
    stored = []

    async def store(n):
        stored.append(n)

    report = balanced(go(ab.Pipeline("p").source(items).for_each(store), driver))
    assert (stored, report.codes) == ([1, 3], {"bad.number": 1})


@every_driver
def test_t12_a_key_may_be_a_result(driver):
    pipeline = ab.Pipeline("p").source([1, 2, BAD, 4])
    report = balanced(go(pipeline.fan_out(by=result_of).collect(), driver))
    assert sorted(branch.tenant for branch in report.branches) == [10, 20, 40]
    assert report.codes == {"bad.number": 1}


@every_driver
def test_t12_t13_a_failing_child_does_not_cost_its_siblings(driver):
    pipeline = ab.Pipeline("p").source([1, 2]).flat_map(lambda n: [ab.Ok(n), err(n), n * 10])
    report = balanced(go(pipeline.collect(), driver))
    assert report.items == [1, 10, 2, 20]
    assert report.codes == {"bad.number": 2}


@every_driver
def test_t12_an_err_is_a_failed_attempt(driver):
    tries = []

    async def store(n):
        tries.append(n)
        return err(n) if len(tries) < 3 else None

    retry = ab.Retry.fixed(0.0, attempts=3)
    pipeline = ab.Pipeline("p").source([1]).for_each(store, retry=retry)
    report = balanced(go(pipeline, driver))
    assert (report.ok, tries) == (True, [1, 1, 1])


@every_driver
def test_t12_what_recovers_and_takes_failures_may_return_results(driver):
    pipeline = ab.Pipeline("p").source([1, 2, BAD]).map(result_of)
    pipeline = pipeline.recover(lambda failure: ab.Ok(failure.item)).collect()
    assert balanced(go(pipeline, driver)).items == [10, 20, BAD]
    pipeline = ab.Pipeline("p").source([BAD]).map(result_of)
    pipeline = pipeline.recover(lambda failure: ab.Err("not.recovered")).collect()
    assert balanced(go(pipeline, driver)).codes == {"not.recovered": 1}


@pytest.mark.parametrize("how", [sync, asynchronous])
@every_driver
def test_t12_c17_what_an_ok_carries_is_undone_with_its_unit(driver, how):
    undone = []

    def store(n, ctx):
        def write(n, ctx):
            ctx.compensate(undone.append, n)
            return n

        return ab.Result.try_(write, n, ctx=ctx)

    async def store_async(n, ctx):
        return store(n, ctx)

    def fail(n):
        raise ValueError(n)

    pipeline = ab.Pipeline("p").source([7]).map(store if how is sync else store_async)
    report = balanced(go(pipeline.for_each(fail, inline=True), driver))
    assert (report.codes, undone) == ({"ValueError": 1}, [7])


def run_alone(program, tmp_path, **modules):
    """Run a program of its own, in which nothing has asked for Results before."""
    for name, text in modules.items():
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(program))
    command = [sys.executable, "-W", "error", str(path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_t12_results_that_are_first_asked_for_within_the_run_count(tmp_path):
    program = """
        import anabranch as ab
        report = (
            ab.Pipeline("p").source(range(10)).map(lambda n: ab.Err("bad") if n == 5 else n)
            .filter(lambda n: n + 1).collect().run_blocking()
        )
        print(report.items, report.codes)
    """
    assert run_alone(program, tmp_path) == "[0, 1, 2, 3, 4, 6, 7, 8, 9] {'bad': 1}\n"


LOADS_LATER = """
    import importlib
    import anabranch as ab

    def call(n):
        {body}
        return n

    def source():
        for n in range(2000):
            if n == 1000:
                importlib.import_module("anabranch.group")
            yield n

    def plugged(n):
        return importlib.import_module("plugin").made(n) if n >= 1900 else n

    p = ab.Pipeline("p").source(source()).map(plugged).filter(lambda n: n >= 0)
    print(p.collect().run_blocking().codes)
"""


def test_t12_a_run_that_has_begun_sees_results_once_there_can_be_any(tmp_path):
    plugin = "from anabranch import Err\n\ndef made(n):\n    return Err('late')\n"
    told = run_alone(LOADS_LATER.format(body="pass"), tmp_path, plugin=plugin)
    assert told == "{'late': 100}\n"


def test_t12_a_result_that_could_not_be_seen_is_refused(tmp_path):
    # The alias hides the package from the builder until the callable asks it.
    program = """
        import anabranch as hidden
        from plugin import made
        report = hidden.Pipeline("p").source([1]).map(made).collect().run_blocking()
        print(report.failures[0].message)
    """
    plugin = "def made(n):\n    import anabranch\n    return getattr(anabranch, 'E' + 'rr')('x')\n"
    told = run_alone(program, tmp_path, plugin=plugin)
    assert "write `from anabranch import Err` where the module begins" in told


# Out of a stream.


async def read(stream):
    async with stream as results:
        told = [result async for result in results]
    return told, balanced(stream.report)


def test_t1_what_becomes_of_each_item_is_read_as_a_result_while_it_runs():
    stream = ab.Pipeline("p").source(range(5)).map(result_of).results()
    told, report = asyncio.run(read(stream))
    assert [result.unwrap() for result in told if isinstance(result, ab.Ok)] == [0, 10, 20, 40]
    [failed] = [result.error for result in told if isinstance(result, ab.Err)]
    assert (failed.code, failed.stage, failed.item, dict(failed.metadata)) == (
        "bad.number",
        "result_of",
        3,
        {"n": 3},
    )
    assert (report.committed, report.failed, report.codes) == (4, 1, {"bad.number": 1})


def test_t1_a_failure_that_a_stage_has_taken_is_no_err():
    stream = ab.Pipeline("p").source(range(5)).map(result_of).recover(lambda _: "mended").results()
    told, report = asyncio.run(read(stream))
    assert sorted(map(str, told)) == ["Ok('mended')", "Ok(0)", "Ok(10)", "Ok(20)", "Ok(40)"]
    assert (report.failed, report.recovered) == (0, 1)


def test_b5_who_does_not_read_holds_the_pipeline_back():
    async def main():
        taken = []
        numbers = ab.Pipeline("p").source(range(100_000)).tap(taken.append)
        async with numbers.results(capacity=3) as results:
            assert (await anext(results)).unwrap() == 0
            before = -1
            while before != len(taken):
                before = len(taken)
                for _ in range(20):
                    await asyncio.sleep(0)
            assert len(taken) < 100_000
        # Left before its end: it was aborted.
        return balanced(results.report)

    report = asyncio.run(main())
    assert report.outcome == "aborted"
    assert report.left > 0


def test_e2_a_run_that_fails_as_a_whole_is_not_taken_for_an_end():
    def broken():
        yield 1
        raise ConnectionError("the source")

    async def main():
        async with ab.Pipeline("p").source(broken()).results() as results:
            told = await anext(results)
            with pytest.raises(ab.PipelineFailed, match="pipeline 'p' failed"):
                await anext(results)
        assert told.unwrap() == 1
        assert results.report.codes == {"source.failed": 0}

    asyncio.run(main())


def test_results_are_read_inside_the_block_that_runs_the_pipeline():
    stream = ab.Pipeline("p").source([1]).results()
    with pytest.raises(ab.ClosedError, match="async with"):
        asyncio.run(stream.__anext__())
    with pytest.raises(ab.ConfigError, match="capacity"):
        ab.Pipeline("p").source([1]).results(capacity=0)
    with pytest.raises(ab.ConfigError, match="nothing can follow the sink"):
        ab.Pipeline("p").source([1]).collect().results()
