"""`tcp_client`: lines from a server that goes away and comes back, over real sockets."""

import asyncio
import socket
import struct
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from support import Seen, balanced, within

import anabranch as ab

AT_ONCE = ab.Retry.fixed(0.0, attempts=1000)


@asynccontextmanager
async def serving(*scripts, port=0):
    """Serve: each connection plays the next script, the last one over and over; yields the port."""
    played = []

    async def converse(reader, writer):
        script = scripts[min(len(played), len(scripts) - 1)]
        played.append(script)
        await script(reader, writer)
        writer.close()

    async with await asyncio.start_server(converse, "127.0.0.1", port) as server:
        yield server.sockets[0].getsockname()[1], played


def says(data):
    """A connection that says that, and is closed properly."""

    async def script(reader, writer):
        writer.write(data)

    return script


def holds(data=b""):
    """A connection that says that, and stays until the client has gone."""

    async def script(reader, writer):
        writer.write(data)
        await reader.read()

    return script


def failed(report):
    return [failure.code for failure in balanced(report).failures]


@within
async def test_e9_lines_of_a_server_are_items_until_it_closes_properly():
    async with serving(says(b"one\r\ntwo\nlast")) as (port, _):
        source = ab.tcp_client("127.0.0.1", port, until="disconnected")
        report = await ab.Pipeline("p").source(source).collect().run()
    assert balanced(report).items == ["one", "two", "last"]
    assert report.ok


@within
async def test_e9_a_client_has_the_framings_of_the_server():
    options = {"until": "disconnected", "encoding": None}
    async with serving(says(b"\0\x02\n\n\0\0")) as (port, _):
        source = ab.tcp_client("127.0.0.1", port, framing=ab.LengthPrefix(2), **options)
        assert (await ab.Pipeline("p").source(source).collect().run()).items == [b"\n\n", b""]
    async with serving(says(b"a;b")) as (port, _):
        source = ab.tcp_client("127.0.0.1", port, framing=ab.Delimiter(b";"), **options)
        assert (await ab.Pipeline("p").source(source).collect().run()).items == [b"a", b"b"]


@within
async def test_e9_a_lost_connection_is_a_failure_and_the_next_one_goes_on():
    heard = Seen()
    async with serving(says(b"one\n"), says(b"two\n"), holds(b"three\n")) as (port, played):
        source = ab.tcp_client("127.0.0.1", port, retry=AT_ONCE)
        pipeline = ab.Pipeline("p").source(source).tap(heard).collect()
        async with pipeline.start() as running:
            await heard.reach(3)
    assert heard.items == running.report.items == ["one", "two", "three"]
    assert failed(running.report) == ["source.disconnected"] * 2
    error = running.report.failures[0].error
    assert error.peer == f"127.0.0.1:{port}"
    lost = "the connection is lost: the server closed it"
    assert str(error) == f"server 127.0.0.1:{port}: {lost}"
    assert len(played) == 3


@within
async def test_e9_a_reset_in_the_middle_of_a_line_truncates_that_line_alone():
    async def broken(reader, writer):
        writer.write(b"one\ntw")
        await heard.reach(1)
        # RST instead of FIN.
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    heard = Seen()
    async with serving(broken, holds(b"three\n")) as (port, _):
        source = ab.tcp_client("127.0.0.1", port, retry=AT_ONCE)
        pipeline = ab.Pipeline("p").source(source).tap(heard).collect()
        async with pipeline.start() as running:
            await heard.reach(2)
    assert running.report.items == ["one", "three"]
    assert failed(running.report) == ["source.truncated", "source.disconnected"]
    assert "connection reset in the middle of a line (2 bytes" in str(
        running.report.failures[0].error
    )


@within
async def test_e9_every_connection_is_greeted():
    greetings = Seen()

    async def greeted(reader, writer):
        greetings((await reader.readline()).decode())

    async with serving(greeted) as (port, _):
        source = ab.tcp_client("127.0.0.1", port, greeting="subscribe\n", retry=AT_ONCE)
        async with ab.Pipeline("p").source(source).collect().start():
            await greetings.reach(3)
    assert set(greetings.items) == {"subscribe\n"}


def nobody():
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


@pytest.mark.parametrize(
    ("retry", "said"),
    [(None, "1 attempt"), (ab.Retry.fixed(0.001, attempts=3), "3 attempts")],
)
def test_r1_a_server_that_is_never_there_fails_the_run_when_the_policy_ends(retry, said):
    port = nobody()
    source = ab.tcp_client("127.0.0.1", port, retry=retry)
    report = balanced(ab.Pipeline("p").source(source).collect().run_blocking())
    assert (report.outcome, report.items) == ("failed", [])
    (failure,) = report.failures
    assert isinstance(failure.error, ConnectionRefusedError)
    assert f"tcp_client gave 127.0.0.1:{port} up" in str(failure.error)
    assert f"(server 127.0.0.1:{port}, after {said} in a row)" in str(failure.error)


@within
async def test_r2_a_server_that_comes_later_is_found():
    port = nobody()
    source = ab.tcp_client("127.0.0.1", port, retry=ab.Retry.fixed(0.001, attempts=1_000_000))
    heard = Seen()
    pipeline = ab.Pipeline("p").source(source).tap(heard).collect()
    async with pipeline.start() as running, serving(holds(b"here\n"), port=port):
        await heard.reach(1)
        running.drain()
        report = await running.wait()
    assert (report.items, report.outcome) == (["here"], "drained")


@within
async def test_r1_a_server_that_hangs_up_at_once_uses_the_attempts_up():
    async with serving(says(b"")) as (port, played):
        source = ab.tcp_client("127.0.0.1", port, retry=ab.Retry.fixed(0.0, attempts=3))
        report = balanced(await ab.Pipeline("p").source(source).collect().run())
    assert (report.outcome, len(played)) == ("failed", 3)
    assert report.codes["source.disconnected"] == 3


@within
async def test_r1_a_connection_that_brought_a_line_begins_the_attempts_anew():
    lines = [says(f"{n}\n".encode()) for n in range(6)]
    async with serving(*lines, says(b"")) as (port, played):
        source = ab.tcp_client("127.0.0.1", port, retry=ab.Retry.fixed(0.0, attempts=2))
        report = balanced(await ab.Pipeline("p").source(source).collect().run())
    assert report.items == [str(n) for n in range(6)]
    # The last line's connection counts as the first loss, and the next is the last one.
    assert (report.outcome, len(played)) == ("failed", 7)


@within
async def test_e9_a_server_that_says_nothing_is_taken_for_gone():
    async with serving(holds(b"unfinished"), holds(b"")) as (port, _):
        source = ab.tcp_client("127.0.0.1", port, idle_timeout=0.02, retry=None)
        report = await ab.Pipeline("p").source(source).collect().run()
    assert failed(report)[:2] == ["source.truncated", "source.disconnected"]
    assert "idle timeout" in str(report.failures[1].error)
    assert report.outcome == "failed"


@within
async def test_e5_a_drain_delivers_what_was_read_and_ends_whether_connected_or_not():
    heard = Seen()
    async with serving(holds(b"one\ntw")) as (port, _):
        source = ab.tcp_client("127.0.0.1", port)
        async with ab.Pipeline("p").source(source).tap(heard).collect().start() as running:
            await heard.reach(1)
            running.drain()
            report = await running.wait()
    assert (report.outcome, report.items) == ("drained", ["one"])
    assert failed(report) == ["source.truncated"]
    away = ab.tcp_client("127.0.0.1", nobody(), retry=ab.Retry.fixed(3600.0, attempts=9))
    async with ab.Pipeline("p").source(away).collect().start() as running:
        running.drain()
        assert (await running.wait()).outcome == "drained"
    async with ab.Pipeline("p").source(away).collect().start() as running:
        running.abort()
        assert (await running.wait()).outcome == "aborted"


@within
async def test_e9_a_client_ends_by_itself_after_its_time():
    async with serving(holds(b"one\n")) as (port, _):
        source = ab.tcp_client("127.0.0.1", port, until=0.05)
        report = await ab.Pipeline("p").source(source).collect().run()
    assert (report.outcome, set(report.items) <= {"one"}) == ("completed", True)


@within
async def test_w10_a_slow_pipeline_holds_the_server_back_and_loses_nothing():
    lines = b"".join(b"%d\n" % n for n in range(200_000))
    async with serving(says(lines)) as (port, _):
        source = ab.tcp_client("127.0.0.1", port, until="disconnected")
        handled = []

        async def handle(window):
            await asyncio.sleep(0)
            handled.extend(window)

        pipeline = ab.Pipeline("p").source(source).window(max_items=1000).for_each(handle)
        report = balanced(await pipeline.run())
    assert report.ok
    assert handled == [str(n) for n in range(200_000)]


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"port": 0}, "port"),
        ({"host": ""}, "host"),
        ({"greeting": 1}, "greeting"),
        ({"framing": "crlf"}, "framing"),
        ({"max_line": 0}, "max_line"),
        ({"connect_timeout": 0}, "connect_timeout"),
        ({"idle_timeout": 0}, "idle_timeout"),
        ({"encoding": "latin-1"}, "encoding"),
        ({"errors": "ignore"}, "errors"),
        ({"retry": 3}, "retry"),
        ({"retry": ab.Retry.fixed(1.0, retry_on=OSError)}, "retry"),
        ({"retry": ab.Retry.custom(lambda attempt, error: 1.0)}, "retry"),
        ({"until": "later"}, "until"),
    ],
)
def test_e9_bad_tcp_client_arguments_are_named_with_their_values(options, argument):
    with pytest.raises(ab.ConfigError, match=rf"^tcp_client: {argument} must be .*, got ") as it:
        ab.tcp_client(**{"host": "127.0.0.1", "port": 9400, **options})
    assert it.value.value == options[argument]


def test_e9_tcp_client_holds_what_it_was_told():
    source = ab.tcp_client("::1", 9400, greeting="é", idle_timeout=timedelta(minutes=1), until=2)
    assert (source.host, source.port, source.greeting) == ("::1", 9400, "é".encode())
    assert (source.idle_timeout, source.connect_timeout, source.until) == (60.0, 10.0, 2.0)
    assert ab.tcp_client("::1", 1, retry=ab.Retry.exponential(seed=7)).seed == 7
    with pytest.raises(TypeError):
        iter(source)
