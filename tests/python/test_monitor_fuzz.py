"""The monitor of a pipeline that runs, and clients that mean no good.

What they send is kept short, what they do not read costs little, and nobody else notices.
`tests/corpus/monitor.txt` keeps lines that were worth a try once; each is sent as it is, and in
pieces and damaged ones.
"""

import contextlib
import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from looker import Looker, connect, runtime_directory, sockets
from test_monitor import ENDLESS, RUN, directory, running  # noqa: F401 - a fixture

CORPUS = Path(__file__).parent.parent / "corpus" / "monitor.txt"
LINES = CORPUS.read_bytes().splitlines()
HELLO, BARE, *_ = LINES


@pytest.fixture(scope="module")
def target():
    """A pipeline that runs beside all of these tests, and where it answers."""
    with runtime_directory() as made, running() as process:
        (at,) = sockets(made)
        yield at, process


def talk(at, said):
    """Say something, hang up, and return the lines that came."""
    heard = b""
    with connect(at) as connection, contextlib.suppress(OSError):
        connection.sendall(said)
        connection.shutdown(1)
        while data := connection.recv(1 << 16):
            heard += data
    return heard.splitlines()


def is_well(target):
    """The pipeline goes on, and tells of itself."""
    at, process = target
    assert process.poll() is None
    with Looker(at) as looker:
        looker.watch("totals")
        before = looker.until("tick")["tot"][0]["in"]
        looker.until("tick", lambda it: it["tot"][0]["in"] > before)


def memory(process):
    """Return the resident memory of a process, in bytes."""
    pages = Path(f"/proc/{process.pid}/statm").read_text().split()[1]
    return int(pages) * 4096


def test_dashboard_9_each_line_of_the_corpus_is_answered_or_refused(target):
    at, _ = target
    for line, greeted in itertools.product(LINES, (False, True)):
        said = (HELLO + b"\n") * greeted + line + b"\n"
        heard = [json.loads(it) for it in talk(at, said)]
        assert {it["t"] for it in heard[:1]} <= {"welcome", "refuse"}, (line, heard)
    is_well(target)


damage = st.tuples(st.integers(0, 400), st.binary(max_size=3))


@settings(max_examples=100)
@given(
    lines=st.lists(st.tuples(st.sampled_from(LINES), st.lists(damage, max_size=3)), max_size=8),
    greeted=st.booleans(),
    rubbish=st.binary(max_size=300),
)
def test_dashboard_9_damaged_lines_end_their_connection_and_nothing_else(
    target, lines, greeted, rubbish
):
    at, process = target
    said = [HELLO] if greeted else []
    for line, wounds in lines:
        wounded = line
        for place, put in wounds:
            wounded = wounded[:place] + put + wounded[place + 1 :]
        said.append(wounded)
    heard = talk(at, b"\n".join([*said, rubbish]))
    # What came is whole lines of the protocol, but for the last, which may be cut.
    for line in heard[:-1]:
        assert len(line) < 256 * 1024
        assert "t" in json.loads(line)
    assert process.poll() is None


def test_dashboard_9_after_all_that_the_pipeline_goes_on(target):
    is_well(target)


def test_dashboard_9_a_line_without_an_end_is_not_kept(target):
    at, process = target
    before = memory(process)
    connections = [connect(at) for _ in range(8)]
    for connection in connections:
        connection.sendall(HELLO + b"\n")
        with contextlib.suppress(OSError):
            for _ in range(64):
                connection.sendall(b"x" * (1 << 16))
    grown = memory(process) - before
    for connection in connections:
        connection.close()
    assert grown < 8 << 20, "4 MiB were sent by each"
    is_well(target)


def test_dashboard_2_clients_that_do_not_read_cost_little_memory(directory):  # noqa: F811
    script = ENDLESS.replace("TENANTS = 8", "TENANTS = 5000") + RUN
    with running(script) as process:
        (at,) = sockets(directory)
        with Looker(at) as looker:
            looker.watch("totals", "branches", "windows", "comp", "errors", "log", "stages")
            looker.until_told(lambda it: len(it.rows) == 5001)
            before = memory(process)
            hung = [Looker(at) for _ in range(7)]
            for it in hung:
                it.watch("totals", "branches", "windows", "comp", "errors", "log", "stages")
            # Twenty bulk ticks later, of which they have read none.
            seq = looker.until("tick")["seq"]
            looker.until("tick", lambda it: it["seq"] > seq + 20)
            grown = memory(process) - before
            for it in hung:
                it.close()
        # The pipeline's own share is in it.
        assert grown < 7 * (1 << 20), f"{grown / len(hung):,.0f} bytes each"
        is_well((at, process))
