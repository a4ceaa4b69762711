"""The inbox: row H9, on every store."""

import asyncio
import contextlib
import sqlite3

import aiosqlite
import outboxes
import psycopg
import pytest

import anabranch as ab


@pytest.fixture(params=["memory", "postgres", "sqlite"])
def side(request, tmp_path):
    with contextlib.closing(outboxes.opened(request.param, tmp_path)) as side:
        yield side


def quick(attempts: int = 3) -> ab.Retry:
    return ab.Retry.fixed(0.0, attempts=attempts, retry_on=Exception)


def test_h9_what_was_committed_is_seen_and_what_was_rolled_back_is_not(side):
    side.outbox.enqueue("order", 7)
    [message] = side.outbox.claim()
    with pytest.raises(KeyError), side.transaction() as tx:
        assert not side.outbox.seen(tx, message)
        raise KeyError
    with side.transaction() as tx:
        assert not side.outbox.seen(tx, message)
        assert side.outbox.seen(tx, message)
    with side.transaction() as tx:
        assert side.outbox.seen(tx, message)


def test_h9_a_message_that_comes_again_has_its_effect_once_and_is_acked(side):
    worker = ab.OutboxWorker(side.outbox)
    calls, effects = [], []

    @worker.on("order", retry=quick())
    def handle(message):
        calls.append(message.attempt)
        with side.transaction() as tx:
            if side.outbox.seen(tx, message):
                return
            effects.append(message.payload)
            side.outbox.enqueue(tx, "billed", message.payload)
        raise OSError("cut off after the commit, before the ack")

    side.outbox.enqueue("order", 7)
    while worker.run_once_blocking():
        pass
    assert (calls, effects) == ([1, 2], [7])
    assert side.outbox.counts() == {"order": {"done": 1}, "billed": {"parked": 1}}


def test_h9_subscribers_of_one_message_have_an_effect_each(side):
    worker = ab.OutboxWorker(side.outbox)
    effects = []

    def handler(name):
        def handle(message):
            with side.transaction() as tx:
                if not side.outbox.seen(tx, message):
                    effects.append(name)
            if message.attempt < 3:
                raise OSError

        return handle

    for name in ("mail", "projection"):
        worker.on("order", subscriber=name, retry=quick())(handler(name))
    side.outbox.enqueue("order", 7)
    while worker.run_once_blocking():
        pass
    assert sorted(effects) == ["mail", "projection"]
    assert side.outbox.counts() == {"order": {"done": 1}}


def test_h9_messages_of_two_tenants_with_one_id_are_two(side):
    first, second = ab.Outbox.memory(), ab.Outbox.memory()
    worker = ab.OutboxWorker({"acme": first, "globex": second})
    effects = []

    @worker.on("order")
    def handle(message):
        with side.transaction() as tx:
            if not side.outbox.seen(tx, message):
                effects.append((message.tenant, message.id))

    assert first.enqueue("order", 1) == second.enqueue("order", 1)
    worker.run_once_blocking()
    assert sorted(effects) == [("acme", 1), ("globex", 1)]


def test_h9_a_key_is_forgotten_when_its_time_is_over(side):
    with side.transaction() as tx:
        assert not side.outbox.seen(tx, "short", keep=10.0)
        assert not side.outbox.seen(tx, "long", keep=30.0)
    side.pass_time(11.0)
    with side.transaction() as tx:
        assert not side.outbox.seen(tx, "short", keep=10.0)
        assert side.outbox.seen(tx, "long")
    side.pass_time(20.0)
    side.outbox.reap()
    with side.transaction() as tx:
        assert not side.outbox.seen(tx, "long")


def test_h9_what_is_in_progress_elsewhere_is_tried_again_later(tmp_path):
    """SQLite and memory have one writer at a time: there the second waits for the first."""
    with contextlib.closing(outboxes.opened("postgres", tmp_path)) as side:
        worker = ab.OutboxWorker(side.outbox)
        calls, effects = [], []

        @worker.on("order", retry=quick(1))
        def handle(message):
            calls.append(message.attempt)
            with side.transaction() as tx:
                if not side.outbox.seen(tx, "order-7"):
                    effects.append(message.payload)

        side.outbox.enqueue("order", 7)
        with psycopg.connect(side.url) as other:
            assert not side.outbox.seen(other, "order-7")
            worker.run_once_blocking()
            [message] = side.outbox.messages()
            assert (message.status, message.attempt, message.errors) == ("scheduled", 0, ())
            other.rollback()
        side.pass_time(1.1)
        worker.run_once_blocking()
        assert (calls, effects) == ([1, 1], [7])
        assert side.outbox.counts() == {"order": {"done": 1}}


def test_h9_of_many_at_once_one_has_the_effect(side):
    new = []

    def work(number):
        while True:
            try:
                with side.transaction() as tx:
                    if not side.outbox.seen(tx, "order-7"):
                        new.append(number)
                return
            except ab.RetryLater:
                pass

    outboxes.in_threads(8, work)
    assert len(new) == 1


def test_h9_over_a_connection_that_is_awaited_the_answer_is_awaited(tmp_path):
    async def over_sqlite(side):
        async with aiosqlite.connect(side.path) as conn:
            first = await side.outbox.seen(conn, "order-7")
            await conn.commit()
            return first, await side.outbox.seen(conn, "order-7")

    async def over_postgres(side):
        async with await psycopg.AsyncConnection.connect(side.url) as conn:
            first = await side.outbox.seen(conn, "order-7")
            await conn.commit()
            return first, await side.outbox.seen(conn, "order-7")

    for kind, main in (("sqlite", over_sqlite), ("postgres", over_postgres)):
        with contextlib.closing(outboxes.opened(kind, tmp_path)) as side:
            assert asyncio.run(main(side)) == (False, True)


@pytest.mark.parametrize("message", ["", "x" * 256, 7, None])
def test_h9_what_is_no_message_and_no_key_is_refused(side, message):
    with (
        side.transaction() as tx,
        pytest.raises(ab.ConfigError, match="seen: message must be a Message, or a str of 1 to"),
    ):
        side.outbox.seen(tx, message)


def test_h9_without_a_transaction_nothing_is_noted(tmp_path):
    with contextlib.closing(outboxes.opened("sqlite", tmp_path)) as side:
        connect = sqlite3.connect(side.path, isolation_level=None)
        with (
            contextlib.closing(connect) as conn,
            pytest.raises(ab.ConfigError, match="execute 'BEGIN' first"),
        ):
            side.outbox.seen(conn, "order-7")
    memory = ab.Outbox.memory()
    with pytest.raises(ab.ConfigError, match="seen: conn must be a transaction of this outbox"):
        memory.seen(object(), "order-7")
