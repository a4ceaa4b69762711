"""Where failures end: dead-letter targets, `on_error`, and what `collect_errors` counts."""

import asyncio
import gc
import json
import os
import socket
import threading
from pathlib import Path

import pytest
from support import balanced, every_driver, every_way, flat, go, with_sink

import anabranch as ab

DESCRIPTORS = [Path("/proc/self/fd"), Path("/dev/fd")]


def number(text):
    return int(text)


def open_files():
    return sum(1 for _ in next(path for path in DESCRIPTORS if path.exists()).iterdir())


def refuse_odd(n, ctx):
    if n % 2:
        raise OSError(n)


@pytest.mark.parametrize("how", ["pool", "inline", "async"])
@every_way
def test_t1_dead_letters_go_to_a_callable(driver, kind, how):
    letters, threads = [], set()

    def keep(failure, ctx):
        threads.add(threading.current_thread())
        letters.append((failure.item, ctx.tenant))

    async def keep_async(failure, ctx):
        await asyncio.sleep(0)
        keep(failure, ctx)

    pipeline = ab.Pipeline("p").source(range(6)).fan_out(by=lambda n: n % 3)
    pipeline = with_sink(pipeline, kind, refuse_odd)
    target = keep_async if how == "async" else keep
    report = balanced(go(pipeline.dead_letter(target, inline=how == "inline"), driver))
    assert sorted(letters) == [(1, 1), (3, 0), (5, 2)]
    assert (report.dead_lettered, report.failed, report.codes) == (3, 0, {})
    assert report.ok
    assert (threading.current_thread() in threads) == (how != "pool")
    assert [branch.dead_lettered for branch in report.branches] == [1, 1, 1]


@every_way
def test_t1_dead_letters_go_to_a_file_line_by_line(driver, kind, tmp_path):
    path = tmp_path / "letters.jsonl"
    path.write_text("what was there before\n")
    pipeline = ab.Pipeline("p").source(range(6)).window(max_items=2)

    def store(window, ctx):
        if 3 in window:
            raise OSError({"not": "a text"})

    pipeline = with_sink(pipeline, kind, store).dead_letter(path)
    report = balanced(go(pipeline, driver))
    before, line = path.read_text().splitlines()
    assert before == "what was there before"
    told = json.loads(line)
    assert (told["code"], told["item"], told["items"]) == ("OSError", [2, 3], 2)
    assert "raise OSError" in told["error"]["traceback"]
    assert ab.Failure.from_dict(told).to_dict() == told
    assert report.dead_lettered == 2


@every_driver
def test_t1_a_letter_is_in_the_file_while_the_run_goes_on(driver, tmp_path):
    path = tmp_path / "letters.jsonl"

    async def source():
        yield "x"
        while not path.read_text().endswith("\n"):  # noqa: ASYNC110 - a file tells nobody
            await asyncio.sleep(0)
        yield "y"

    pipeline = ab.Pipeline("p").source(source()).map(number).collect().dead_letter(path)
    report = balanced(go(pipeline, driver))
    assert [json.loads(line)["item"] for line in path.read_text().splitlines()] == ["x", "y"]
    assert report.dead_lettered == 2


@every_driver
def test_t1_a_dead_letter_file_that_cannot_be_opened_is_found_at_the_start(driver, tmp_path):
    pipeline = ab.Pipeline("p").source(["1"]).collect().dead_letter(tmp_path / "no" / "such.jsonl")
    with pytest.raises(ab.ConfigError) as refused:
        go(pipeline, driver)
    assert str(refused.value).startswith(
        "pipeline 'p', stage 'dead_letter': target must be the path of a file that can be appended "
        "to (No such file or directory), got '"
    )
    assert isinstance(refused.value.__cause__, FileNotFoundError)


@every_driver
def test_t1_a_run_that_cannot_begin_leaves_no_file_open(driver, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        gc.collect()
        before = open_files()
        lines = ab.tcp_lines("127.0.0.1", taken.getsockname()[1])
        pipeline = ab.Pipeline("p").source(lines).collect().dead_letter(tmp_path / "letters.jsonl")
        with pytest.raises(OSError, match="in use"):
            go(pipeline, driver)
        del pipeline
        gc.collect()
        assert open_files() <= before


@every_driver
def test_t1_a_letter_that_cannot_be_written_is_a_typed_failure(driver):
    """Of a device that is always full."""
    pipeline = ab.Pipeline("p").source(["1", "x"]).map(number).collect().dead_letter("/dev/full")
    report = balanced(go(pipeline, driver))
    (failure,) = report.failures
    assert (failure.code, report.failed, report.dead_lettered) == ("dead_letter.failed", 1, 0)
    assert type(failure.error) is ab.DeadLetterError
    assert failure.error.path == "/dev/full"
    assert type(failure.error.__cause__) is OSError


def test_t1_a_line_cut_short_is_ended_before_the_next(tmp_path, monkeypatch):
    from anabranch._letters import LetterFile

    path = tmp_path / "letters.jsonl"
    failure = ab.Failure(code="x", stage="s", error=OSError("x"))
    file = LetterFile(str(path))
    write, calls = os.write, []

    def short(fd, data):
        calls.append(len(data))
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return write(fd, data[:5])

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", short)
        with pytest.raises(ab.DeadLetterError, match="No space left"):
            file(failure)
    file(failure)
    file.close()
    torn, line = path.read_text().splitlines()
    assert len(torn) == 5
    assert json.loads(line)["code"] == "x"
    with pytest.raises(ab.DeadLetterError, match="closed"):
        file(failure)


@every_way
def test_t1_dead_letters_go_to_a_channel(driver, kind):
    letters = ab.Channel(10)
    pipeline = with_sink(ab.Pipeline("p").source(range(6)), kind, refuse_odd).dead_letter(letters)
    report = balanced(go(pipeline, driver))
    assert report.dead_lettered == 3
    assert not letters.closed
    letters.close()
    assert [failure.item for failure in letters] == [1, 3, 5]


@every_driver
def test_t1_a_closed_channel_takes_no_letters(driver):
    letters = ab.Channel(10)
    letters.close()
    pipeline = ab.Pipeline("p").source(["x"]).map(number).collect().dead_letter(letters)
    report = balanced(go(pipeline, driver))
    assert report.codes == {"channel.closed": 1}
    assert type(report.failures[0].error.__cause__) is ValueError


@pytest.mark.parametrize("at", ["pipeline", "stage"])
@every_way
def test_t4_on_error_dead_letter_takes_what_nobody_else_has(driver, kind, at):
    letters = []
    options = {"on_error": "dead_letter"}
    pipeline = ab.Pipeline("p", dead_letter=letters.append, **(options if at == "pipeline" else {}))
    pipeline = pipeline.source(["0", "x", "1", "y"]).map(number, name="parse")
    pipeline = pipeline.recover(lambda failure: 2, types=KeyError)
    pipeline = with_sink(
        pipeline, kind, refuse_odd, name="sink", **(options if at == "stage" else {})
    )
    report = balanced(go(pipeline, driver))
    from_parse = [failure for failure in letters if failure.stage == "parse"]
    from_sink = [failure for failure in letters if failure.stage == "sink"]
    assert len(from_sink) == 1
    assert len(from_parse) == (2 if at == "pipeline" else 0)
    assert report.dead_lettered == len(letters)
    assert report.codes == ({} if at == "pipeline" else {"ValueError": 2})


@every_way
def test_t4_on_error_stop_of_a_stage_stops_the_run(driver, kind):
    def source():
        yield from ["x", "0"]
        yield from ["2"] * 100_000

    pipeline = ab.Pipeline("p").source(source()).map(number, on_error="stop")
    report = balanced(go(with_sink(pipeline, kind, refuse_odd), driver))
    assert report.outcome == "failed"
    assert report.received < 100_000
    assert report.codes["ValueError"] == 1


@every_way
def test_t4_on_error_continue_of_a_stage_goes_on_though_the_pipeline_would_stop(driver, kind):
    pipeline = ab.Pipeline("p", on_error="stop").source(["x", "0", "y"])
    pipeline = with_sink(pipeline.map(number, on_error="continue"), kind, refuse_odd)
    report = balanced(go(pipeline, driver))
    assert (report.outcome, report.failed, report.committed) == ("completed", 2, 1)


@every_way
def test_t4_on_error_stop_does_not_stop_at_what_was_recovered(driver, kind):
    pipeline = ab.Pipeline("p", on_error="stop").source(["x", "0", "y"]).map(number)
    pipeline = with_sink(pipeline.recover(lambda failure: 4), kind, refuse_odd)
    report = balanced(go(pipeline, driver))
    assert (report.outcome, report.recovered, report.committed) == ("completed", 2, 3)


def test_t4_on_error_dead_letter_needs_a_target():
    with pytest.raises(ab.ConfigError, match="where the pipeline has no dead_letter"):
        ab.Pipeline("p", on_error="dead_letter")
    with pytest.raises(ab.ConfigError, match="target must be a callable that takes a Failure"):
        ab.Pipeline("p", dead_letter=7)


@every_driver
def test_t6_collect_errors_counts_all_and_keeps_some(driver):
    def fail(n):
        raise (ValueError if n % 3 else KeyError)(n)

    told = []
    pipeline = ab.Pipeline("p").source(range(3000)).map(fail)
    pipeline = pipeline.collect_errors(to=told.append, samples=5).recover(lambda failure: 0)
    report = balanced(go(pipeline.for_each(lambda n: None, inline=True), driver))
    (summary,) = told
    assert summary.codes == {"KeyError": 1000, "ValueError": 2000}
    assert (len(summary.failures), summary.items) == (5, 3000)
    assert (summary.pipeline, summary.stage) == ("p", "collect_errors")
    assert dict(report.errors["collect_errors"].codes) == summary.codes
    assert (report.failed, report.recovered, report.committed) == (0, 3000, 3000)


@every_driver
def test_t6_successes_are_not_discarded_because_of_failures(driver):
    pipeline = ab.Pipeline("p").source(["1", "x", "2"]).map(number).collect_errors().collect()
    report = balanced(go(pipeline, driver))
    assert (report.items, report.failed) == ([1, 2], 1)
    assert report.to_dict()["errors"]["collect_errors"]["codes"] == {"ValueError": 1}


@pytest.mark.parametrize("how", ["def", "async"])
@ab.testing.virtual_time
async def test_t6_collect_errors_tells_periodically_by_the_pipeline_s_clock(clock, how):
    told = []

    async def told_async(summary):
        await asyncio.sleep(1.0)
        told.append(summary)

    async def source():
        yield "x"
        await asyncio.sleep(70.0)
        yield "y"
        yield "1"
        await asyncio.sleep(200.0)
        yield "z"

    to = told_async if how == "async" else told.append
    pipeline = ab.Pipeline("p").source(source()).map(number).collect_errors(every=60.0, to=to)
    report = balanced(await pipeline.collect().run())
    assert [(it.began, it.ended, dict(it.codes)) for it in told] == [
        (0.0, 60.0, {"ValueError": 1}),
        (60.0, 120.0, {"ValueError": 1}),
        (120.0, 270.0, {"ValueError": 1}),
    ]
    assert report.errors["collect_errors"].codes == {"ValueError": 3}


@pytest.mark.parametrize("how", ["def", "async"])
@every_driver
def test_t6_who_is_told_may_raise(driver, how, caplog):
    def broken(summary):
        raise ConnectionError("nobody listens")

    async def broken_async(summary):
        broken(summary)

    to = broken if how == "def" else broken_async
    pipeline = ab.Pipeline("p").source(["x"]).map(number).collect_errors(to=to).collect()
    report = balanced(go(pipeline, driver))
    assert report.codes == {"ValueError": 1}
    assert "who is told of the errors raised" in caplog.text
    assert "nobody listens" in caplog.text


class Own(BaseException):
    """Neither an Exception nor what ends the process."""


def telling(error, how, every, undone):
    """A pipeline that has a failure, and tells of it what raises `error`."""

    def broken(summary):
        raise error

    async def broken_async(summary):
        await asyncio.sleep(1.0)
        broken(summary)

    async def source():
        yield "2"
        yield "x"
        await asyncio.sleep(70.0)
        yield "1"

    def register(n, ctx):
        ctx.compensate(undone.append, n)
        return n

    to = broken if how == "def" else broken_async
    pipeline = ab.Pipeline("p", commit="end").source(source()).tap(register).map(number)
    pipeline = pipeline.collect_errors(every=every, to=to).recover(lambda failure: 0)
    return pipeline.collect()


@pytest.mark.parametrize("every", [None, 60.0])
@pytest.mark.parametrize("error", [Own, asyncio.CancelledError, GeneratorExit])
@pytest.mark.parametrize("how", ["def", "async"])
@ab.testing.virtual_time
async def test_t6_whatever_who_is_told_raises_the_run_goes_on(clock, how, error, every, caplog):
    undone = []
    pipeline = telling(error("nobody listens"), how, every, undone)
    report = balanced(await pipeline.run())
    assert (report.outcome, report.items, report.codes) == ("completed", [2, 0, 1], {})
    assert (undone, report.stuck) == (["x"], 0)
    assert caplog.text.count("who is told of the errors raised") == 1
    assert "nobody listens" in caplog.text


@pytest.mark.parametrize("every", [None, 60.0])
@pytest.mark.parametrize("fatal", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("how", ["def", "async"])
@ab.testing.virtual_time
async def test_e4_who_is_told_may_end_the_process(clock, how, fatal, every):
    undone = []
    pipeline = telling(fatal("out"), how, every, undone)
    with pytest.raises(fatal, match="out"):
        await pipeline.run()
    report = balanced(pipeline.last_report)
    # At the end of a run it is over already, and has gone well.
    outcome, expected = ("aborted", ["x", "2"]) if every else ("completed", ["x"])
    assert (report.outcome, report.stuck, undone) == (outcome, 0, expected)


def test_e5_a_loop_that_shuts_down_while_somebody_is_told_costs_no_report():
    async def to(summary):
        told.set_result(summary)
        await asyncio.sleep(3600)

    async def main():
        nonlocal told
        told = asyncio.get_running_loop().create_future()
        running = asyncio.create_task(pipeline.run())
        await told
        return running

    told = None
    pipeline = ab.Pipeline("p").source(["1", "x"]).map(number).collect_errors(to=to).collect()
    assert asyncio.run(main()).cancelled()
    report = balanced(pipeline.last_report)
    assert (report.items, report.errors["collect_errors"].codes) == ([1], {"ValueError": 1})


@every_way
def test_e8_a_run_that_is_aborted_loses_no_failure(driver, kind):
    """Failures that wait for an operator have failed when nobody will be asked any more."""
    pipeline = None

    async def stuck(failure):
        pipeline_running.abort()
        await asyncio.Event().wait()

    class Stop:
        def abort(self):
            pass

    pipeline_running = Stop()

    async def main():
        nonlocal pipeline_running
        running = pipeline.start()
        pipeline_running = running
        async with running:
            return await running.wait()

    pipeline = ab.Pipeline("p").source(range(20)).window(max_items=2)
    pipeline = with_sink(pipeline, kind, lambda window, ctx: refuse_odd(window[1], ctx))
    pipeline = pipeline.dead_letter(stuck)
    report = balanced(asyncio.run(main()))
    assert report.outcome == "aborted"
    assert report.failed > 0
    assert report.dead_lettered == 0
    assert set(report.codes) == {"OSError"}
    assert all(failure.item for failure in report.failures)
    assert flat(failure.item for failure in report.failures)
