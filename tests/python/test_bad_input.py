"""What goes wrong at the edges becomes a failure item, or an error that names what it is about."""

import asyncio
import errno
import socket
import sqlite3
from contextlib import closing

import pytest

import anabranch as ab
from anabranch.traffic import parse


def gateway(sink, **options):
    """Build a gateway that ends when its clients have gone."""
    lines = ab.tcp_lines("127.0.0.1", 0, until="disconnected", **options)
    return (
        ab.Pipeline("gateway")
        .source(lines)
        .map(parse)
        .fan_out(by=ab.attr("tenant"))
        .for_each(sink, inline=True)
    )


async def send(pipeline, data):
    """Run the pipeline with one client, which closes its side after `data`."""
    async with asyncio.timeout(30), pipeline.start() as running:
        reader, writer = await asyncio.open_connection(*running.address)
        writer.write(data)
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        return await running.wait()


def failed(report):
    """Return the failures, without those of whom there is no sample: here there are none."""
    assert report.balanced
    assert sum(failure.items for failure in report.failures) == report.failed
    return [(failure.code, failure.stage, failure.tenant) for failure in report.failures]


def test_an_over_long_line_is_a_failure_and_the_connection_goes_on():
    kept = []
    data = b"acme\t0\tshort\nacme\t1\t" + b"x" * 300_000 + b"\nacme\t2\tshort\n"
    report = asyncio.run(send(gateway(kept.append, max_line=1000), data))
    assert [entry.sequence for entry in kept] == [0, 2]
    assert failed(report) == [("source.line_too_long", "TcpLines", None)]
    error = report.failures[0].error
    assert isinstance(error, ab.SourceError)
    assert error.peer is not None
    assert error.peer.startswith("127.0.0.1:")
    assert "1000" in str(error)


def test_invalid_utf8_is_a_failure_and_the_connection_goes_on():
    kept = []
    data = b"acme\t0\tK\xc3\xb6ln\nacme\t1\tK\xf6ln\nacme\t2\tBonn\n"
    report = asyncio.run(send(gateway(kept.append), data))
    assert [entry.line for entry in kept] == ["Köln", "Bonn"]
    assert failed(report) == [("source.invalid_utf8", "TcpLines", None)]


def test_invalid_utf8_can_be_replaced():
    kept = []
    report = asyncio.run(send(gateway(kept.append, errors="replace"), b"acme\t1\tK\xf6ln\n"))
    assert [entry.line for entry in kept] == ["K\ufffdln"]
    assert report.ok


def test_lines_that_cannot_be_parsed_are_failures_of_their_stage():
    kept = []
    data = b"acme 0 no tabs\n\nacme\tzero\tno number\nacme\t1\tfine\n"
    report = asyncio.run(send(gateway(kept.append), data))
    assert [entry.line for entry in kept] == ["fine"]
    assert failed(report) == [("ValueError", "parse", None)] * 3
    assert "no tabs" in str(report.failures[0].error)


@pytest.mark.parametrize("said", [b"", b"acme\t0\tunfinished"])
def test_a_client_that_says_nothing_is_disconnected(said):
    """What it had begun to say is a failure, not lost."""

    async def main():
        lines = ab.tcp_lines("127.0.0.1", 0, idle_timeout=0.02, until="disconnected")
        pipeline = ab.Pipeline("gateway").source(lines).collect()
        async with asyncio.timeout(30), pipeline.start() as running:
            reader, writer = await asyncio.open_connection(*running.address)
            writer.write(said)
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
            return await running.wait()

    report = asyncio.run(main())
    assert report.items == []
    assert failed(report) == ([("source.truncated", "TcpLines", None)] if said else [])


@pytest.mark.parametrize("blocking", [True, False])
def test_a_port_in_use_is_an_os_error_that_names_the_address(blocking):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        pipeline = ab.Pipeline("late").source(ab.tcp_lines("127.0.0.1", port)).collect()
        with pytest.raises(OSError, match=rf"127\.0\.0\.1:{port}") as caught:
            if blocking:
                pipeline.run_blocking()
            else:
                asyncio.run(pipeline.run())
    assert caught.value.errno == errno.EADDRINUSE


def database(path, *pragmas):
    """Give each thread a connection on which these pragmas hold."""

    def connect():
        connection = sqlite3.connect(path, timeout=0, check_same_thread=False)
        for pragma in pragmas:
            connection.execute(f"pragma {pragma}")
        return connection

    return ab.per_thread(connect)


def storing(connection, rows, **options):
    """Build a pipeline that stores each window in two transactions, with an undo."""

    def write(half):
        with connection() as own:
            own.executemany("insert into lines values (?, ?)", half)

    def undo(window):
        with connection() as own:
            own.executemany("delete from lines where sequence = ?", [row[:1] for row in window])

    def store(window, ctx):
        ctx.compensate(undo, window, retries=3)
        half = len(window) // 2
        write(window[:half])
        write(window[half:])

    return (
        ab.Pipeline("store", threads=1).source(rows).window(max_items=20).for_each(store, **options)
    )


def create(path):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("create table lines (sequence integer primary key, line text)")


def sequences(path):
    with closing(sqlite3.connect(path)) as connection:
        return [row[0] for row in connection.execute("select sequence from lines order by 1")]


def test_c7_a_full_disk_is_a_failure_and_the_half_written_window_is_undone(tmp_path):
    path = tmp_path / "full.db"
    create(path)
    # As much as 30 of these pages hold, SQLite will not make the file larger: SQLITE_FULL.
    rows = [(number, "x" * 900) for number in range(200)]
    with database(path, "max_page_count = 30") as connection:
        report = storing(connection, rows).run_blocking()
    assert report.outcome == "completed"
    assert report.balanced
    assert report.committed > 0
    assert list(report.codes) == ["OperationalError"]
    assert "full" in str(report.failures[0].error)
    assert report.stuck == 0
    assert report.compensated == report.failed / 20
    stored = sequences(path)
    assert stored == list(range(report.committed)), "whole windows, the first ones"


def test_r3_a_locked_database_is_tried_again_and_then_a_failure(tmp_path):
    path = tmp_path / "locked.db"
    create(path)
    rows = [(number, "x") for number in range(40)]
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("begin immediate")
        with database(path) as connection:
            retry = ab.Retry.fixed(0, attempts=3)
            report = storing(connection, rows, retry=retry).run_blocking()
        other.execute("rollback")
    assert report.codes == {"OperationalError": 40}
    assert report.retried == 4
    assert [failure.attempts for failure in report.failures] == [3, 3]
    assert "locked" in str(report.failures[0].error)
    assert sequences(path) == []
