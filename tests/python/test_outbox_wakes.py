"""How a worker hears of what is committed, and what its claim waits for."""

import asyncio
import contextlib
import sqlite3
import sys

import outboxes
import psycopg
import pytest

import anabranch as ab
from anabranch import _core
from anabranch._outbox import sqlite_watch
from anabranch._outbox.postgres_over import by_percent
from anabranch._outbox.sqlite_watch import FileWatch

PATIENCE = 30.0
INSERT = "insert into orders values (7)"


@pytest.fixture
def side(tmp_path):
    with contextlib.closing(outboxes.SqliteSide(tmp_path)) as side:
        with contextlib.closing(sqlite3.connect(side.path)) as conn:
            conn.execute("pragma journal_mode = wal")
            conn.execute("create table orders (id integer)")
        yield side


async def hear(path) -> None:
    """Watch a file, and commit to it twice; wait each time until that is heard."""
    heard = asyncio.Event()
    with (
        contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other,
        contextlib.closing(FileWatch(str(path), heard.set)),
    ):
        for _ in range(2):
            other.execute(INSERT)
            await asyncio.wait_for(heard.wait(), PATIENCE)
            heard.clear()


@pytest.mark.skipif(sys.platform != "linux", reason="no other system tells of writes")
@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_x7_a_commit_is_heard_though_nobody_looks_by_himself(side, mode, monkeypatch):
    with contextlib.closing(sqlite3.connect(side.path)) as conn:
        conn.execute(f"pragma journal_mode = {mode}")
    monkeypatch.setattr(sqlite_watch, "_EVERY", 3600.0)
    asyncio.run(hear(side.path))


def test_x7_a_commit_is_heard_where_nobody_tells_of_writes(side, monkeypatch):
    def none():
        raise OSError("too many of them")

    monkeypatch.setattr(_core, "Folders", none)
    asyncio.run(hear(side.path))


def test_x7_a_commit_is_heard_where_writes_are_said_to_be_told_of_and_are_not(side, monkeypatch):
    monkeypatch.setattr(sqlite_watch, "_SELDOM", 0.001)
    monkeypatch.setattr(_core, "Folders", Silent)
    asyncio.run(hear(side.path))


class Silent:
    """Folders of a file system that tells nobody of anything."""

    def __init__(self):
        self._real = _REAL()

    def fileno(self):
        return self._real.fileno()

    def watch(self, folder):
        return 1

    def leave(self, number):
        pass


_REAL = _core.Folders


def test_x7_a_worker_is_not_woken_by_what_it_writes_itself(side, monkeypatch):
    """Its claims and acks are commits, too: each of them would be followed by another claim."""
    heard = []
    side.outbox.enqueue("mail", 1)

    async def main():
        watch = side.outbox._store.line
        end = watch.listen(lambda: heard.append(1))
        looked = asyncio.Event()
        version = FileWatch._version

        def look(self):
            looked.set()
            return version(self)

        monkeypatch.setattr(FileWatch, "_version", look)

        async def settle():
            # What was written before a look is heard in it, if at all.
            for _ in range(5):
                looked.clear()
                await asyncio.wait_for(looked.wait(), PATIENCE)

        with contextlib.closing(sqlite3.connect(side.path, isolation_level=None)) as other:
            other.execute(INSERT)
            await settle()
            assert heard
            heard.clear()
            side.outbox.ack(side.outbox.claim())
            await settle()
            assert not heard
            other.execute(INSERT)
            await settle()
            assert heard
        end()

    asyncio.run(main())


def test_x7_a_claim_waits_for_no_disk_and_an_ack_does(side):
    side.outbox.enqueue_many(ab.Draft("mail", n) for n in range(5))
    said = []
    claimed = side.outbox.claim(1)
    # It was opened before there was a log; then its commits wait, whatever they are.
    side.outbox._store.line.rest()
    claimed += side.outbox.claim(1)
    connection = side.outbox._store.line._connection
    connection.set_trace_callback(said.append)
    claimed += side.outbox.claim(1)
    levels = [it for it in said if "synchronous" in it or it in ("COMMIT", "commit")]
    assert levels == ["pragma synchronous = normal", "commit", "pragma synchronous = full"]
    said.clear()
    side.outbox.ack(claimed)
    assert not [it for it in said if "synchronous" in it]


def test_x7_without_a_log_a_claim_waits_too(tmp_path):
    with contextlib.closing(outboxes.SqliteSide(tmp_path)) as side:
        side.outbox.enqueue("mail", 1)
        said = []
        side.outbox._store.line._connection.set_trace_callback(said.append)
        assert side.outbox.claim()
        assert not [it for it in said if "synchronous" in it]


def test_x7_a_claim_in_postgres_waits_for_no_disk_and_an_ack_does():
    with contextlib.closing(outboxes.PostgresSide()) as side, psycopg.connect(side.url) as conn:
        store = side.outbox._store
        side.outbox.enqueue("mail", 1)
        given = {"owner": 1, "limit": 1, "lease": 60_000, "skip": 0, "without": None, "by": None}
        [row] = conn.execute(by_percent(store._sql["claim"]), {**given, "tenant": None}).fetchall()
        assert conn.execute("show synchronous_commit").fetchone() == ("off",)
        conn.commit()
        assert conn.execute("show synchronous_commit").fetchone() == ("on",)
        held = {"ids": f"{{{row[0]}}}", "owner": 1, "claims": 1}
        assert conn.execute(by_percent(store._sql["ack_delete"]), held).fetchall()
        assert conn.execute("show synchronous_commit").fetchone() == ("on",)
