"""Servers, connections, clocks, disks and handlers that fail: rows Z2, Z3 and Z5, K11 and X12.

Bounded; `make trials` goes through more of them.
"""

import asyncio
import contextlib
import os
import random
import sqlite3
import time
from pathlib import Path

import disasters
import outboxes
import psycopg
import pytest

import anabranch as ab
from anabranch._outbox.postgres_listen import Listener

PATIENCE = 60.0
HOUR = 3600.0
ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["memory", "postgres", "sqlite"])
def side(request, tmp_path):
    with contextlib.closing(outboxes.opened(request.param, tmp_path)) as side:
        yield side


@pytest.fixture
def server_side():
    with contextlib.closing(outboxes.PostgresSide()) as side:
        yield side


@pytest.mark.parametrize("disaster", disasters.DISASTERS)
def test_z2_z5_nothing_is_lost_by_a_disaster_and_all_is_done_after_it(disaster):
    """A crash under load; one of four databases closed; a connection cut in mid-statement."""
    seed = int(os.environ.get("SEED", "0")) or random.randrange(2**31)
    print(f"SEED={seed}")  # noqa: T201 - it brings a failure back
    disasters.DISASTERS[disaster](1, seed)


# -- clocks


@pytest.mark.parametrize("wrong", [-HOUR, HOUR])
def test_k11_z2_a_worker_whose_clock_is_an_hour_wrong_takes_nothing_that_is_held(
    server_side, monkeypatch, wrong
):
    """All times are the database's: leases, due times, expiry, dedupe, the inbox and plans."""
    outbox, other = server_side.outbox, server_side.again
    held = outbox.enqueue("mail", 1)
    outbox.claim(lease=60.0)
    wall = time.time
    monkeypatch.setattr("time.time", lambda: wall() + wrong)
    later = other.enqueue("mail", 2, delay=60.0)
    lasting = other.enqueue("mail", 3, ttl=60.0, dedupe_key="a")
    with server_side.transaction() as conn:
        assert not other.seen(conn, "invoice", keep=60.0)
    assert outboxes.ids(other.claim(lease=60.0)) == [lasting]
    assert other.reap() == (0, 0)
    assert other.counts() == {"mail": {"leased": 2, "scheduled": 1}}
    monkeypatch.undo()
    assert outbox.claim() == []
    assert outbox.enqueue("mail", 3, ttl=60.0, dedupe_key="a") == lasting
    with server_side.transaction() as conn:
        assert outbox.seen(conn, "invoice", keep=60.0)
    server_side.pass_time(61.0)
    assert set(outboxes.ids(outbox.claim())) == {held, later}


@pytest.mark.parametrize("wrong", [-HOUR, HOUR])
def test_k11_z2_workers_whose_clocks_differ_by_an_hour_handle_each_message_once(
    server_side, monkeypatch, wrong
):
    count = 300
    server_side.outbox.enqueue_many([ab.Draft("mail", n) for n in range(count)])
    wall = time.time
    monkeypatch.setattr("time.time", lambda: wall() + wrong)
    handled = []
    postponed = set()
    workers = [
        ab.OutboxWorker(outbox, batch=20, lease=30.0)
        for outbox in (server_side.outbox, server_side.again)
    ]
    for worker in workers:

        @worker.on("mail")
        async def handle(message):
            if message.payload % 10 == 0 and message.payload not in postponed:
                postponed.add(message.payload)
                raise ab.RetryLater(0.01)
            handled.append(message.payload)
            if len(handled) == count:
                for each in workers:
                    each.stop()

    async def main():
        await asyncio.wait_for(asyncio.gather(*(it.run() for it in workers)), PATIENCE)

    asyncio.run(main())
    assert sorted(handled) == list(range(count))
    assert server_side.outbox.counts() == {"mail": {"done": count}}


# -- disks


def test_z2_a_full_disk_refuses_what_has_no_room_and_loses_nothing(tmp_path):
    with contextlib.closing(outboxes.SqliteSide(tmp_path)) as side:
        side.outbox.enqueue("mail", "0")
        line = side.outbox._store.line
        connection = line.opened("", creates=False)
        [(pages,)] = connection.execute("pragma page_count").fetchall()
        connection.execute(f"pragma max_page_count = {pages + 20}")
        written = 1
        with pytest.raises(ab.StoreUnavailable, match="free some space") as caught:
            while True:
                side.outbox.enqueue_many([ab.Draft("mail", "x" * 2000) for _ in range(3)])
                written += 3
        assert caught.value.reason == "full"
        # The caller's own transaction is told by its own driver, and says so to nobody else.
        with contextlib.closing(sqlite3.connect(side.path)) as conn:
            conn.execute(f"pragma max_page_count = {pages + 20}")
            with pytest.raises(sqlite3.OperationalError, match="full"):
                side.outbox.enqueue_many(conn, [ab.Draft("mail", "x" * 2000)] * 3)
            conn.rollback()
        assert written > 3
        handled = []
        worker = ab.OutboxWorker(side.outbox, batch=4)

        @worker.on("mail")
        async def handle(message):
            handled.append(message.id)
            if len(handled) == written:
                worker.stop()

        asyncio.run(asyncio.wait_for(worker.run(), PATIENCE))
        with contextlib.closing(sqlite3.connect(side.path)) as conn:
            assert conn.execute("select sum(count) from outbox_done").fetchone() == (written,)
            assert conn.execute("select count(*) from outbox_message").fetchone() == (0,)
            assert conn.execute("pragma integrity_check").fetchone() == ("ok",)
        side.outbox.enqueue("mail", "there is room again")


# -- handlers


def test_z2_a_handler_that_never_returns_holds_up_its_own_message_alone(side):
    """It keeps its lease; when the worker stops it is cut off, and its message comes again."""
    stuck = side.outbox.enqueue("stuck", 1)
    side.outbox.enqueue_many([ab.Draft("mail", n) for n in range(20)])
    worker = ab.OutboxWorker(side.outbox, grace=0.05, lease=60.0)
    handled = []

    @worker.on("stuck")
    async def never(message):
        await asyncio.Event().wait()

    @worker.on("mail")
    async def handle(message):
        handled.append(message.payload)
        if len(handled) == 20:
            worker.stop()

    asyncio.run(asyncio.wait_for(worker.run(), PATIENCE))
    assert sorted(handled) == list(range(20))
    [left] = side.outbox.messages(topic="stuck")
    assert left.id == stuck
    assert side.outbox.counts()["mail"] == {"done": 20}
    side.pass_time(24 * HOUR)
    assert outboxes.ids(side.outbox.claim()) == [stuck]


def test_z2_a_handler_that_never_returns_is_cut_off_by_its_timeout_and_dies_in_the_end(side):
    side.outbox.enqueue("stuck", 1)
    worker = ab.OutboxWorker(side.outbox)

    @worker.on("stuck", timeout=0.02, retry=ab.Retry.fixed(0.0, attempts=2, retry_on=Exception))
    async def never(message):
        await asyncio.Event().wait()

    for _ in range(2):
        worker.run_once_blocking()
    [dead] = side.outbox.messages(status="dead")
    assert [it.attempt for it in dead.errors] == [1, 2]
    assert "HandlerTimeout" in dead.errors[-1].error


# -- joins, and what there is not


def test_z3_j2_a_join_whose_last_member_takes_a_minute_is_followed_once(side):
    join = side.outbox.join(expected=2, then=ab.Draft("ready", 1))
    side.outbox.enqueue_many([ab.Draft("part", n, join=join) for n in range(2)])
    quick, slow = side.outbox.claim(lease=30.0)
    side.outbox.ack(quick)
    for _ in range(3):
        side.pass_time(20.0)
        side.outbox.extend(slow, lease=30.0)
        assert side.again.messages(topic="ready") == []
    side.outbox.ack(slow)
    with pytest.raises(ab.LeaseLost):
        side.outbox.ack(slow)
    [ready] = side.again.claim()
    assert ready.topic == "ready"
    assert side.again.messages(topic="ready", status="ready") == []


def test_x12_what_is_enqueued_in_one_outbox_is_there_whatever_becomes_of_the_other(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with (
        contextlib.closing(outboxes.SqliteSide(tmp_path / "a")) as one,
        contextlib.closing(outboxes.SqliteSide(tmp_path / "b")) as other,
        contextlib.closing(sqlite3.connect(one.path)) as first,
        contextlib.closing(sqlite3.connect(other.path)) as second,
    ):
        one.outbox.enqueue(first, "mail", 1)
        other.outbox.enqueue(second, "mail", 1)
        first.commit()
        second.rollback()
        assert one.outbox.counts() == {"mail": {"ready": 1}}
        assert other.outbox.counts() == {}


@pytest.mark.parametrize("page", ["README.md", "docs/outbox.md"])
def test_x12_the_pages_say_that_there_are_no_transactions_over_several_databases(page):
    words = " ".join((ROOT / page).read_text().split())
    assert "no transaction over several databases" in words.replace("transactions", "transaction")


# -- listeners


def test_x7_d5_a_listener_whose_server_is_silent_is_noticed_and_another_one_listens(
    server_side, monkeypatch
):
    """A fail-over tells nobody who only listens."""
    monkeypatch.setattr("anabranch._outbox.postgres_listen._REST", 0.01)
    server = server_side.server
    proxy = disasters.Proxy(server.port, None)
    url = server_side.url.replace(f":{server.port}", f":{proxy.port}")

    async def main():
        heard = asyncio.Event()
        listener = Listener(url, check=0.05, patience=0.2)
        listener.add("outbox_message", None, heard.set)
        await asyncio.wait_for(heard.wait(), PATIENCE)
        heard.clear()
        proxy.silent = True
        async with asyncio.timeout(PATIENCE):
            while await asyncio.to_thread(said, 1):
                pass
        proxy.silent = False
        # It tells as soon as it listens again: what was said meanwhile was not heard.
        await asyncio.wait_for(heard.wait(), PATIENCE)
        heard.clear()
        server_side.outbox.enqueue("mail", 1)
        await asyncio.wait_for(heard.wait(), PATIENCE)
        listener.close()

    def said(least):
        with psycopg.connect(server_side.url) as conn:
            query = (
                "select count(*) from pg_stat_activity where application_name = 'anabranch listens'"
                " and datname = current_database()"
            )
            return conn.execute(query).fetchone()[0] >= least

    try:
        asyncio.run(main())
    finally:
        proxy.close()
