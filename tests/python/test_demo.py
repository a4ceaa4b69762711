"""The demo: what it promises holds, and is checked; it stops when told to."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import pytest
from looker import runtime_directory, sockets
from terminal import Terminal

from anabranch import demo

DEADLINE = 30.0


def play(**options):
    """Run the demo; return its verdict and what it said."""
    said = []
    held = demo.run(demo.Options(**{"seconds": 0.3, "tenants": 6, **options}), said.append)
    return held, "\n".join(said)


@pytest.mark.parametrize("tenants", [2, 3, 24])
def test_c1_the_failing_tenant_is_undone_and_the_others_are_whole(tenants, tmp_path):
    path = tmp_path / "lines.db"
    held, said = play(tenants=tenants, database=path)
    assert held, said
    roles = demo.Roles.cast(tenants)
    with closing(sqlite3.connect(path)) as database:
        rows = database.execute("select tenant, sequence from lines").fetchall()
    assert len(rows) == len(set(rows))
    stored = {tenant for tenant, _ in rows}
    assert stored
    assert stored <= set(roles.names) - {roles.failing}
    for name in stored:
        sequences = {sequence for tenant, sequence in rows if tenant == name}
        assert sequences == set(range(len(sequences)))
    assert "Refused" in said
    assert "undo actions" in said


def test_a_temporary_database_is_named_and_removed():
    held, said = play()
    assert held
    (line,) = (line for line in said.splitlines() if line.startswith("database "))
    path = line.split()[1]
    assert path.endswith("lines.db")
    assert not os.path.lexists(os.path.dirname(path))  # noqa: PTH120 - a str, as it was printed


def test_progress_is_told_while_it_runs():
    _, said = play(seconds=2.0)
    assert any(" s  sent " in line for line in said.splitlines())


def test_without_a_terminal_a_picture_of_the_running_job_is_printed():
    _, said = play(seconds=0.6)
    begin = said.index(f"$ anabranch top {os.getpid()} --once")
    picture = said[begin : said.index("completed in")]
    assert "PROCESS" in picture
    assert " gateway " in picture
    assert "TENANT" in picture


def test_on_a_terminal_the_dashboard_shows_the_running_job_and_leaves_its_report():
    with Terminal("demo", "--tenants", "6", "--seed", "3") as terminal:
        terminal.shows("gateway", "LIVE")
        terminal.press("\r")
        terminal.shows("branches 6/6")
        terminal.press("q")
        assert terminal.ended() == 0
        assert terminal.is_restored()
        told = terminal.written.rpartition(b"\x1b[?1049l")[2].decode()
        assert "stopping" not in told
        assert "completed in" in told
        assert "OK: every line of the others is there, once" in told


def test_the_job_under_the_dashboard_ends_in_good_order_if_the_terminal_is_gone():
    with runtime_directory() as directory, Terminal("demo", "--tenants", "6") as terminal:
        terminal.shows("gateway", "LIVE")
        assert len(sockets(directory)) == 1
        terminal.process.send_signal(signal.SIGHUP)
        assert terminal.ended() == -signal.SIGHUP
        assert terminal.is_restored()
        end = time.monotonic() + DEADLINE
        # A process takes its files with it only if it ends by itself.
        while list(directory.iterdir()) and time.monotonic() < end:
            os.sched_yield()
        assert list(directory.iterdir()) == []


def test_plain_is_plain_even_on_a_terminal():
    with Terminal("demo", "--plain", "--seconds", "0.2", "--tenants", "4") as terminal:
        assert terminal.ended() == 0
        assert b"\x1b[?1049h" not in terminal.written
        assert b"\nOK: " in terminal.written


def test_a_full_disk_is_a_failure_that_the_verdict_tells(monkeypatch):
    connect = demo.Store._connect

    def connect_to_little(store):
        connection = connect(store)
        connection.execute("pragma max_page_count = 8")
        return connection

    monkeypatch.setattr(demo.Store, "_connect", connect_to_little)
    held, said = play()
    assert not held
    assert "OperationalError" in said
    assert "WRONG: " in said


@pytest.fixture
def stored(tmp_path):
    """Return a database with 3 lines of each tenant but the failing one, and who they are."""
    path, roles = tmp_path / "lines.db", demo.Roles.cast(4)
    with closing(demo.Store(path, roles)) as store:
        store.create()
    rows = [(name, number) for name in roles.names for number in range(3) if name != roles.failing]
    change(path, "insert into lines values (1, ?, ?, '')", rows)
    return path, roles


def change(path, statement, rows):
    with closing(sqlite3.connect(path)) as database, database:
        database.executemany(statement, rows)


def judged(path, roles):
    said = []
    return demo._verdict(path, roles, dict.fromkeys(roles.names, 3), said.append), "\n".join(said)


def test_the_verdict_is_good_if_all_is_there(stored):
    held, said = judged(*stored)
    assert held
    assert "OK: " in said


@pytest.mark.parametrize(
    ("statement", "sequence"),
    [
        ("delete from lines where tenant = ? and sequence = ?", 1),
        ("insert into lines values (1, ?, ?, '')", 3),
        ("update lines set sequence = 0 where tenant = ? and sequence = ?", 1),
    ],
    ids=["lost", "not sent", "doubled and lost"],
)
def test_the_verdict_finds_what_is_wrong(stored, statement, sequence):
    path, roles = stored
    change(path, statement, [(roles.names[0], sequence)])
    held, said = judged(path, roles)
    assert not held
    assert f"WRONG: {roles.names[0]} has " in said


def test_the_verdict_finds_what_was_not_undone(stored):
    path, roles = stored
    change(path, "insert into lines values (1, ?, ?, '')", [(roles.failing, 0)])
    held, said = judged(path, roles)
    assert not held
    assert f"WRONG: {roles.failing} has 1 rows instead of 0" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_drains_and_reports(number):
    command = [sys.executable, "-W", "error", "-m", "anabranch.cli", "demo", "--seconds", "600"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        while " s  sent " not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(number)
        said, errors = process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, errors) == (0, "")
    assert said.index("stopping: ") < said.index("completed in") < said.index("\nOK: ")


def test_the_first_signal_ends_the_traffic_and_the_second_the_pipeline():
    class Running:
        def __init__(self):
            self.aborted = asyncio.Event()

        def abort(self):
            self.aborted.set()

    async def main():
        running, stop, said = Running(), asyncio.Event(), []
        before = signal.getsignal(signal.SIGTERM)
        async with asyncio.timeout(DEADLINE):
            with demo._steering(running, stop, said.append):
                signal.raise_signal(signal.SIGINT)
                await stop.wait()
                assert not running.aborted.is_set()
                signal.raise_signal(signal.SIGINT)
                await running.aborted.wait()
        assert signal.getsignal(signal.SIGTERM) is before
        assert len(said) == 1

    asyncio.run(main())
