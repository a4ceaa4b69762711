"""A program in the outbox's types: mypy and pyright must infer what it asserts."""

import sqlite3
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, assert_type

import anabranch as ab


class AwaitedConnection:
    """As aiosqlite's: its methods are awaited."""

    async def commit(self) -> None:
        """End the transaction."""


def writing(outbox: ab.Outbox, conn: sqlite3.Connection) -> None:
    """Write over a connection, and alone."""
    assert_type(outbox.enqueue("mail", {"to": "ada"}), int)
    assert_type(outbox.enqueue(conn, "mail", b"", priority=9, delay=timedelta(hours=1)), int)
    assert_type(outbox.enqueue_many([ab.Draft("mail", "x", ttl=3.0)]), list[int])
    assert_type(outbox.enqueue_many(conn, []), list[int])
    assert_type(outbox.retract(7), bool)
    with outbox.transaction() as tx:
        assert_type(outbox.enqueue(tx, "mail", 1), int)
        assert_type(outbox.retract(tx, 7), bool)


async def awaited(outbox: ab.Outbox, conn: AwaitedConnection) -> None:
    """Write over a connection that is awaited."""
    assert_type(await outbox.enqueue(conn, "mail", [1], headers={"source": "shop"}), int)
    assert_type(await outbox.enqueue_many(conn, []), list[int])
    assert_type(await outbox.retract(conn, 7), bool)


def working() -> None:
    """Claim, and say what became of it."""
    with ab.Outbox("sqlite:///shop.db", ordering="skip") as outbox:
        claimed = outbox.claim(10, lease=60.0)
        assert_type(claimed, list[ab.Message])
        message = claimed[0]
        assert_type(message.headers, Mapping[str, str])
        assert_type(message.payload, Any)
        assert_type(message.due_at, datetime)
        assert_type(message.expires_at, datetime | None)
        assert_type(message.errors[0].error, str)
        assert_type(outbox.ack(claimed), int)
        assert_type(outbox.ack(message), int)
        assert_type(outbox.abandon(message, error=OSError(), delay=1), int)
        assert_type(outbox.fail(message, "no"), int)
        assert_type(outbox.reap().leases, int)
        assert_type(outbox.requeue([message, 7]), int)
        assert_type(outbox.counts()["mail"]["ready"], int)


async def handling(outbox: ab.Outbox) -> None:
    """Handlers keep their types."""
    worker = ab.OutboxWorker({"acme": outbox}, lease=timedelta(minutes=1))

    @worker.on("order.*", retry=ab.Retry.exponential(attempts=20), batch=100)
    async def publish(messages: list[ab.Message], ctx: ab.Context) -> None:
        assert_type(messages[0].tenant, Any)
        raise ab.RetryLater(3.0)

    @worker.on("mail", subscriber="mail")
    def send(message: ab.Message) -> int:
        return message.id

    assert_type(send(outbox.claim()[0]), int)
    assert_type(await worker.run_once(), int)
    assert_type(worker.run_once_blocking(), int)
    assert_type(worker.run_blocking(), dict[str, ab.Report[Any]])
    assert_type(outbox.unsubscribe("mail"), bool)
    async with worker:
        worker.stop()
