"""An outbox in a file of SQLite: its tables, its errors, and the file shared with the caller."""

import asyncio
import contextlib
import multiprocessing
import os
import sqlite3

import outboxes
import pytest

import anabranch as ab
from anabranch._outbox.sqlite_watch import FileWatch


@pytest.fixture
def side(tmp_path):
    with contextlib.closing(outboxes.SqliteSide(tmp_path)) as side:
        yield side


def test_d1_migrate_makes_the_tables_once(tmp_path):
    with ab.Outbox(f"sqlite:///{tmp_path}/new.db") as outbox:
        assert outbox.migrate() == outboxes.VERSION
        assert outbox.migrate() == 0
        assert outbox.counts() == {}


def test_d1_several_may_migrate_at_once(tmp_path):
    behind = []

    def work(_):
        with ab.Outbox(f"sqlite:///{tmp_path}/new.db") as outbox:
            behind.append(outbox.migrate())

    outboxes.in_threads(8, work)
    assert sorted(behind) == [0] * 7 + [outboxes.VERSION]


def test_d1_without_tables_everything_but_migrate_says_what_to_do(tmp_path):
    path = tmp_path / "shop.db"
    with contextlib.closing(sqlite3.connect(path)) as conn:
        conn.execute("create table orders (id integer primary key)")
        outbox = ab.Outbox(f"sqlite:///{path}")
        with contextlib.closing(outbox):
            for act in (outbox.claim, outbox.counts, lambda: outbox.enqueue("mail", "x")):
                with pytest.raises(
                    ab.SchemaMismatch, match=r"no outbox tables; .*migrate"
                ) as caught:
                    act()
                assert (caught.value.found, caught.value.needed) == (0, outboxes.VERSION)
                assert caught.value.store == f"sqlite:///{path}"
            with pytest.raises(ab.SchemaMismatch, match="has no outbox tables: call"):
                outbox.enqueue(conn, "mail", "x")
        tables = conn.execute("select name from sqlite_master where type = 'table'").fetchall()
        assert tables == [("orders",)]


def test_d1_tables_of_a_later_version_are_left_alone(side):
    with contextlib.closing(sqlite3.connect(side.path)) as conn, conn:
        conn.execute("update outbox_meta set value = 7 where name = 'version'")
    for act in (side.outbox.claim, side.again.migrate):
        fresh = ab.Outbox(side.url)
        with contextlib.closing(fresh), pytest.raises(ab.SchemaMismatch) as caught:
            getattr(fresh, act.__name__)()
        assert str(caught.value) == (
            f"outbox {side.url}: the tables are version 7; this anabranch knows version "
            f"{outboxes.VERSION}: "
            "install the later anabranch"
        )


def test_d1_two_prefixes_in_one_file_are_two_outboxes(side):
    with ab.Outbox(side.url, prefix="mail_") as other:
        other.migrate()
        other.enqueue("mail", "hello")
        assert side.outbox.claim() == []
        assert len(other.claim()) == 1


@pytest.mark.parametrize("prefix", ["", "1a", "a-b", "A", "x" * 32, "a; drop table orders", 7])
def test_a_prefix_that_is_no_name_is_refused(prefix):
    with pytest.raises(ab.ConfigError, match="prefix must be lower-case letters"):
        ab.Outbox("sqlite:///shop.db", prefix=prefix)


@pytest.mark.parametrize(
    "url",
    [
        "shop.db",
        "mysql://root:geheim@host/db",
        "sqlite://ada:geheim@host/shop.db",
        "sqlite://shop.db",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///shop.db?geheim=1",
        "geheim",
        None,
    ],
)
def test_a_url_that_is_not_of_a_database_we_know_is_refused_without_its_secrets(url):
    with pytest.raises(
        ab.ConfigError, match=r"url must be postgresql://.*sqlite:///relative\.db"
    ) as caught:
        ab.Outbox(url)
    if url != "sqlite:///shop.db?geheim=1":
        assert "geheim" not in str(caught.value)
    assert caught.value.value is None


def test_options_are_checked():
    for options in (
        {"ordering": "fifo"},
        {"archive": 1},
        {"dedupe_for": 0},
        {"max_payload": 0},
        {"clock": 7},
    ):
        with pytest.raises(ab.ConfigError, match=f"Outbox: {next(iter(options))} must be"):
            ab.Outbox.memory(**options)


def test_a_file_that_is_not_there_is_not_created_by_work(tmp_path):
    with ab.Outbox(f"sqlite:///{tmp_path}/gone/shop.db") as outbox:
        for act in (outbox.claim, outbox.migrate):
            with pytest.raises(ab.StoreUnavailable, match=r"to open .*check the path") as caught:
                act()
            assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
    with ab.Outbox(f"sqlite:///{tmp_path}/shop.db") as outbox:
        with pytest.raises(ab.StoreUnavailable):
            outbox.claim()
        assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_said_so(tmp_path):
    path = tmp_path / "shop.db"
    path.write_bytes(b"not a database, but long enough to be one" * 100)
    with (
        ab.Outbox(f"sqlite:///{path}") as outbox,
        pytest.raises(ab.StoreUnavailable, match="not a"),
    ):
        outbox.claim()


def test_a_file_with_odd_characters_in_its_name_is_found(tmp_path):
    (tmp_path / "a b%20ü").mkdir()
    with ab.Outbox(f"sqlite:///{tmp_path}/a b%20ü/shop.db") as outbox:
        outbox.migrate()
    assert (tmp_path / "a b%20ü" / "shop.db").exists()


def test_another_writer_who_does_not_end_is_said_so(side, monkeypatch):
    monkeypatch.setattr("anabranch._outbox.sqlite_line.PATIENCE", 0.01)
    with side.transaction() as conn, ab.Outbox(side.url) as outbox:
        conn.execute("begin immediate")
        with pytest.raises(ab.StoreUnavailable, match="database is locked; another writer held"):
            outbox.claim()
        conn.rollback()
        assert outbox.claim() == []


def test_a_commit_that_waits_in_vain_for_a_reader_leaves_nothing_behind(side, monkeypatch):
    monkeypatch.setattr("anabranch._outbox.sqlite_line.PATIENCE", 0.01)
    with (
        ab.Outbox(side.url) as outbox,
        contextlib.closing(sqlite3.connect(side.path)) as reader,
    ):
        outbox.counts()
        reader.execute("begin")
        reader.execute("select count(*) from outbox_message").fetchall()
        with pytest.raises(ab.StoreUnavailable, match="database is locked"):
            outbox.enqueue("mail", "hello")
        reader.rollback()
        assert outbox.messages() == []
        outbox.enqueue("mail", "hello")
        assert len(outbox.claim()) == 1


def test_a_closed_outbox_says_so_and_closing_again_is_harmless(side):
    side.outbox.close()
    side.outbox.close()
    with pytest.raises(ab.ClosedError, match="is closed: make another"):
        side.outbox.claim()
    with side.transaction() as conn:
        side.outbox.enqueue(conn, "mail", "over the caller's connection it goes on")


def _claims_in_a_fork(outbox, said):
    try:
        outbox.claim()
    except ab.ForkedProcessError as error:
        said.put(str(error))


def test_a_connection_does_not_go_along_into_a_fork(side):
    side.outbox.claim()
    context = multiprocessing.get_context("fork")
    said = context.SimpleQueue()
    child = context.Process(target=_claims_in_a_fork, args=(side.outbox, said))
    child.start()
    child.join(30)
    assert child.exitcode == 0
    assert f"was opened in process {os.getpid()}, before the fork" in said.get()


def test_k9_k12_a_claim_reads_its_index_and_no_other_messages(side):
    """The plan, instead of a stopwatch: no scan of the table, no sort of what is not claimed."""
    with contextlib.closing(sqlite3.connect(side.path)) as conn:
        sql = side.outbox._here._sql
        given = {"owner": 1, "limit": 10, "lease": 1, "skip": 0, "without": None, "by": None}
        given |= {"now": 0, "more": 1, "ids": "[]"}
        plan = [row[3] for row in conn.execute(f"explain query plan {sql['claimable']}", given)]
        changes = [row[3] for row in conn.execute(f"explain query plan {sql['claim']}", given)]
    assert "SEARCH m USING INTEGER PRIMARY KEY (rowid=?)" in changes
    scans = [line for line in plan if line.startswith("SCAN") and "subquery" not in line.lower()]
    assert [line for line in scans if "outbox_message" in line or " m" in line] == []
    assert not [line for line in plan if "TEMP B-TREE" in line]
    due = [line for line in plan if "outbox_message_due (priority=? AND due_at<?)" in line]
    assert len(due) == 10
    assert any("outbox_message_ordering" in line for line in plan)


def test_z7_the_callers_connections_and_the_queue_share_the_file(side):
    """Bounded: four threads write business rows and messages while two claim and ack."""
    with contextlib.closing(sqlite3.connect(side.path)) as conn, conn:
        conn.execute("create table orders (id integer primary key, note text)")
    writers, each = 4, 50
    done = []

    def work(number):
        if number < writers:
            with contextlib.closing(sqlite3.connect(side.path, timeout=30)) as conn:
                for n in range(each):
                    with conn:
                        conn.execute("insert into orders (note) values (?)", (f"{number}-{n}",))
                        side.outbox.enqueue(conn, "order", [number, n])
        else:
            outbox = side.outbox if number % 2 else side.again
            while len(done) < writers * each:
                claimed = outbox.claim(20)
                outbox.ack(claimed)
                done.extend(message.payload for message in claimed)

    outboxes.in_threads(writers + 2, work)
    with contextlib.closing(sqlite3.connect(side.path)) as conn:
        assert conn.execute("pragma integrity_check").fetchall() == [("ok",)]
        assert conn.execute("select count(*) from orders").fetchone() == (writers * each,)
    assert sorted(done) == [[number, n] for number in range(writers) for n in range(each)]
    assert side.outbox.counts() == {"order": {"done": writers * each}}


def test_n1_what_the_callers_own_driver_says_is_the_callers(side):
    with (
        contextlib.closing(sqlite3.connect(f"file:{side.path}?mode=ro", uri=True)) as conn,
        pytest.raises(sqlite3.OperationalError, match="readonly"),
    ):
        side.outbox.enqueue(conn, "mail", "hello")


def test_x7_a_worker_begins_while_another_holds_the_file(tmp_path):
    with contextlib.closing(outboxes.SqliteSide(tmp_path)) as side:
        side.outbox.enqueue("mail", 7)

        async def main():
            with contextlib.closing(sqlite3.connect(side.path, isolation_level=None)) as other:
                other.execute("begin exclusive")
                heard = asyncio.Event()
                with contextlib.closing(FileWatch(str(side.path), heard.set)):
                    other.execute("delete from outbox_message")
                    other.execute("commit")
                    await asyncio.wait_for(heard.wait(), 30.0)

        asyncio.run(main())
