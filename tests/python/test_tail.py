"""`tail`: a real file that grows, is rotated, is truncated, comes and goes."""

import os
from pathlib import Path

import pytest
from support import Seen, balanced, within

import anabranch as ab


@pytest.fixture
def log(tmp_path):
    return tmp_path / "app.log"


class Following:
    """A pipeline that follows a file; the test waits for what it has heard."""

    def __init__(self, log, **options):
        self._heard, self._failed = Seen(), Seen()
        source = ab.tail(log, poll=0.002, **options)
        self._running = (
            ab.Pipeline("tail")
            .source(source)
            .tap(self._heard)
            .tap_error(lambda failure: self._failed(failure.code))
            .collect()
            .start()
        )

    async def __aenter__(self):
        self.running = await self._running.__aenter__()
        return self

    async def __aexit__(self, *error):
        return await self._running.__aexit__(*error)

    async def hears(self, *items):
        await self._heard.reach(len(items))
        assert self._heard.items == list(items)

    async def fails(self, *codes):
        await self._failed.reach(len(codes))
        assert self._failed.items == [f"source.{code}" for code in codes]

    @property
    def report(self):
        return balanced(self.running.report)


def append(log, data):
    with log.open("ab") as file:
        file.write(data)


@within
async def test_e9_what_is_appended_is_read_and_an_unfinished_line_waits_for_its_end(log):
    log.write_bytes(b"old\n")
    async with Following(log) as it:
        append(log, b"one\r\ntw")
        await it.hears("one")
        append(log, b"o\n")
        await it.hears("one", "two")
    assert it.report.items == ["one", "two"]
    assert it.report.ok


@within
async def test_e9_from_the_start_all_that_is_there_comes_first(log):
    log.write_bytes(b"old\nolder\n")
    async with Following(log, from_start=True) as it:
        await it.hears("old", "older")
        append(log, b"new\n")
        await it.hears("old", "older", "new")


@pytest.mark.parametrize("before", [b"unfin", b"old\nunfin", b"x" * 100_000 + b"\nunfin"])
@within
async def test_e9_a_line_that_was_begun_before_the_start_is_read_in_whole(log, before):
    log.write_bytes(before)
    async with Following(log) as it:
        append(log, b"ished\nnext\n")
        await it.hears("unfinished", "next")


@within
async def test_e9_a_line_of_which_too_much_was_there_is_too_long(log):
    log.write_bytes(b"x" * 100)
    async with Following(log, max_line=10) as it:
        append(log, b"\nnext\n")
        await it.hears("next")
        await it.fails("line_too_long")


@within
async def test_e9_a_rotated_file_is_read_to_its_end_and_then_the_new_one(log):
    log.write_bytes(b"")
    async with Following(log) as it:
        with log.open("ab", buffering=0) as old:
            old.write(b"one\n")
            await it.hears("one")
            log.rename(log.with_suffix(".1"))
            # Who writes has not noticed yet; and nothing is there in its place.
            old.write(b"two\n")
            await it.hears("one", "two")
            log.write_bytes(b"")
            old.write(b"three\nfo")
            await it.hears("one", "two", "three")
            old.write(b"ur")
        append(log, b"five\n")
        # Nobody ends the old file's last line any more: it is one.
        await it.hears("one", "two", "three", "four", "five")
        append(log, b"six\n")
        await it.hears("one", "two", "three", "four", "five", "six")
    assert it.report.ok


@within
async def test_e9_a_truncated_file_is_read_from_its_beginning(log):
    log.write_bytes(b"one\ntwo\nthr")
    async with Following(log, from_start=True) as it:
        await it.hears("one", "two")
        os.truncate(log, 0)
        await it.fails("truncated")
        append(log, b"four\n")
        await it.hears("one", "two", "four")
    (failure,) = it.report.failures
    assert f"file {log}: truncation of the file in the middle of a line" in str(failure.error)
    assert failure.error.peer == str(log)


@pytest.mark.parametrize("from_start", [False, True])
@within
async def test_e9_a_file_that_is_not_there_yet_is_waited_for_and_read_from_its_beginning(
    log, from_start
):
    async with Following(log, from_start=from_start) as it:
        made = log.with_suffix(".new")
        made.write_bytes(b"one\n")
        made.rename(log)
        await it.hears("one")
        log.unlink()
        log.write_bytes(b"two, after it was gone\n")
        await it.hears("one", "two, after it was gone")


@within
async def test_e9_lines_that_cannot_be_items_are_failures_and_the_rest_goes_on(log):
    log.write_bytes(b"ok\n\xff\n" + b"x" * 20 + b"\nok\n")
    async with Following(log, from_start=True, max_line=10) as it:
        await it.hears("ok", "ok")
        await it.fails("invalid_utf8", "line_too_long")
    async with Following(log, from_start=True, errors="replace") as it:
        await it.hears("ok", "\ufffd", "x" * 20, "ok")
    async with Following(log, from_start=True, encoding=None) as it:
        await it.hears(b"ok", b"\xff", b"x" * 20, b"ok")


@within
async def test_e5_a_drain_says_which_line_it_cuts_off(log):
    log.write_bytes(b"one\ntw")
    async with Following(log, from_start=True) as it:
        await it.hears("one")
    assert (it.report.outcome, it.report.items) == ("drained", ["one"])
    assert it.report.codes == {"source.truncated": 1}
    assert "drain in the middle of a line (2 bytes" in str(it.report.failures[0].error)


@within
async def test_e9_a_long_file_is_read_in_pieces_and_nothing_is_lost(log):
    log.write_bytes(b"".join(b"%d\n" % n for n in range(200_000)))
    async with Following(log, from_start=True) as it:
        await it.hears(*map(str, range(200_000)))


def test_e9_it_ends_by_itself_after_its_time(log):
    log.write_bytes(b"old\n")
    source = ab.tail(log, until=0.01)
    report = balanced(ab.Pipeline("p").source(source).collect().run_blocking())
    assert (report.outcome, report.items) == ("completed", [])


@within
async def test_e9_an_aborted_run_tells_what_it_left(log):
    log.write_bytes(b"line\n" * 100_000)
    seen = Seen()

    def give_up(line):
        seen(line)
        if len(seen.items) == 10:
            running.abort()

    source = ab.tail(log, from_start=True)
    # Named before it starts: lines may be handled before `as` has bound anything.
    running = ab.Pipeline("p").source(source).tap(give_up).collect().start()
    async with running:
        report = balanced(await running.wait())
    assert report.outcome == "aborted"
    assert report.received >= 10


@pytest.mark.parametrize("driver", ["run", "run_blocking"])
def test_e9_what_is_no_file_is_an_os_error_that_names_it(tmp_path, driver):
    os.mkfifo(tmp_path / "pipe")
    for path, kind in ((tmp_path, IsADirectoryError), (tmp_path / "pipe", OSError)):
        pipeline = ab.Pipeline("p").source(ab.tail(path)).collect()
        with pytest.raises(kind, match=r"tail cannot read .*: not a regular file") as caught:
            ab.testing.run(pipeline.run()) if driver == "run" else pipeline.run_blocking()
        assert str(path) in str(caught.value)


@within
async def test_f11_a_file_that_cannot_be_read_any_more_fails_the_run_after_what_it_had(log):
    log.write_bytes(b"one\n")
    async with Following(log, from_start=True) as it:
        await it.hears("one")
        log.rename(log.with_suffix(".1"))
        log.mkdir()
        report = balanced(await it.running.wait())
    assert (report.outcome, report.items) == ("failed", ["one"])
    assert isinstance(report.failures[-1].error, IsADirectoryError)


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"path": ""}, "path"),
        ({"path": 7}, "path"),
        ({"from_start": 1}, "from_start"),
        ({"max_line": 0}, "max_line"),
        ({"encoding": "latin-1"}, "encoding"),
        ({"errors": "ignore"}, "errors"),
        ({"poll": 0}, "poll"),
        ({"until": "later"}, "until"),
    ],
)
def test_e9_bad_tail_arguments_are_named_with_their_values(options, argument):
    with pytest.raises(ab.ConfigError, match=rf"^tail: {argument} must be .*, got ") as caught:
        ab.tail(**{"path": "app.log", **options})
    assert caught.value.value == options[argument]


def test_e9_tail_holds_what_it_was_told():
    source = ab.tail(Path("app.log"), poll=1, until=2)
    assert (source.path, source.poll, source.until) == ("app.log", 1.0, 2.0)
    assert (source.from_start, source.encoding, source.errors) == (False, "utf-8", "strict")
