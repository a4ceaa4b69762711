"""An outbox in PostgreSQL whose tables are in a schema of their own."""

import asyncio
import contextlib
import re
from pathlib import Path

import asyncpg
import outboxes
import psycopg
import pytest

import anabranch as ab

PATIENCE = 60.0
PAGE = Path(__file__).parents[2] / "docs" / "outbox.md"


@pytest.fixture
def side():
    with contextlib.closing(outboxes.PostgresSide()) as side:
        yield side
        with psycopg.connect(side.url, autocommit=True) as conn:
            conn.execute("set client_min_messages = warning")
            for schema in ("acme", "0-globex"):
                conn.execute(f'drop schema if exists "{schema}" cascade')


def in_schema(side, schema="acme", **options):
    outbox = ab.Outbox(side.url, schema=schema, **options)
    outbox.migrate()
    return outbox


def test_d1_x1_two_schemas_of_one_database_are_two_outboxes(side):
    with in_schema(side) as acme, in_schema(side, "0-globex") as globex:
        assert acme.migrate() == 0
        acme.enqueue("mail", "to acme", dedupe_key="a", ordering_key="o")
        globex.enqueue_many([ab.Draft("mail", "to globex")] * 2)
        assert [it.payload for it in acme.claim()] == ["to acme"]
        assert [it.payload for it in globex.claim()] == ["to globex"] * 2
        assert side.outbox.messages() == []
        assert repr(acme) == f"Outbox('{side.url}#acme')"
        assert acme.messages()[0].store != globex.messages()[0].store


def test_d1_everything_is_done_in_the_schema_wherever_the_search_path_leads(side):
    """There are no tables but in the schema: a statement that forgot it would fail."""
    with psycopg.connect(side.url) as conn:
        conn.execute("drop schema public cascade")
        conn.execute("create schema public")
    with in_schema(side) as outbox:
        worker = ab.OutboxWorker(outbox)

        @worker.on("mail")
        def handle(message):
            raise ab.Reject("no")

        later = outbox.enqueue("later", 1, delay=60.0, dedupe_key="a")
        assert outbox.enqueue("later", 1, dedupe_key="a") == later
        outbox.enqueue_many([ab.Draft("mail", n, ordering_key="o") for n in range(2)])
        assert worker.run_once_blocking() == 1
        [dead] = outbox.messages(status="dead")
        assert outbox.requeue([dead]) == 1
        assert [it.payload for it in outbox.peek()] == [0]
        [message] = outbox.claim()
        outbox.extend(message)
        outbox.release(message)
        [message] = outbox.claim()
        outbox.abandon(message, delay=0.0)
        [message] = outbox.claim()
        outbox.fail(message, "no")
        assert outbox.purge("dead") == 1
        assert outbox.unsubscribe("mail")
        assert outbox.retract(later)
        assert outbox.reap() == (0, 0)
        [message] = outbox.claim()
        outbox.ack(message)
        with psycopg.connect(side.url) as conn:
            conn.execute("select acme.outbox_enqueue('mail', '1')")
        assert outbox.counts() == {"mail": {"ready": 1, "done": 1}}


def test_d1_n1_callers_connections_write_into_the_schema(side):
    async def over_asyncpg(outbox):
        conn = await asyncpg.connect(side.url)
        async with conn.transaction():
            await outbox.enqueue(conn, "mail", 2, dedupe_key="b")
        await conn.close()

    with in_schema(side) as outbox:
        with psycopg.connect(side.url) as conn:
            outbox.enqueue_many(conn, [ab.Draft("mail", 0), ab.Draft("mail", 1)])
        asyncio.run(over_asyncpg(outbox))
        assert [it.payload for it in outbox.messages()] == [0, 1, 2]
    assert side.outbox.messages() == []


def test_x7_a_worker_hears_of_what_is_enqueued_in_its_schema(side):
    with in_schema(side, "0-globex") as outbox:
        worker = ab.OutboxWorker(outbox, poll=3600.0, max_idle_poll=3600.0)
        seen = asyncio.Queue()

        @worker.on("mail")
        async def handle(message):
            seen.put_nowait(message.payload)

        async def main():
            async with worker:
                outbox.enqueue("mail", 0)
                assert await asyncio.wait_for(seen.get(), PATIENCE) == 0
                with psycopg.connect(side.url) as conn:
                    outbox.enqueue(conn, "mail", 1)
                assert await asyncio.wait_for(seen.get(), PATIENCE) == 1

        asyncio.run(main())


def test_d1_a_schema_without_tables_says_what_to_do(side):
    with ab.Outbox(side.url, schema="acme") as outbox:
        with pytest.raises(ab.SchemaMismatch, match=r"#acme: there are no outbox tables; .*migra"):
            outbox.claim()
        with (
            psycopg.connect(side.url) as conn,
            pytest.raises(ab.SchemaMismatch, match="#acme: the connection's database has no"),
        ):
            outbox.enqueue(conn, "mail", "x", dedupe_key="a")


@pytest.mark.parametrize("schema", ["", "a b", 'a"b', "pg_acme", "x" * 64, "a$$b", 7])
def test_d1_a_schema_that_is_no_name_is_refused(schema):
    with pytest.raises(ab.ConfigError, match="schema must be letters, digits"):
        ab.Outbox("postgresql://localhost/shop", schema=schema)


def test_d1_sqlite_has_no_schemas():
    with pytest.raises(ab.ConfigError, match="schema must be None: only PostgreSQL has schemas"):
        ab.Outbox("sqlite:///shop.db", schema="acme")


@pytest.fixture
def roles(side):
    """The roles of docs/outbox.md, as it grants them."""
    [grants] = re.findall(r"```sql\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names = ("shop", "worker", "auditor")
    with in_schema(side, "jobs"), psycopg.connect(side.url, autocommit=True) as conn:
        for name in names:
            conn.execute(f"create role {name} login")
        conn.execute(grants)
        yield {name: side.url.replace("tests@", f"{name}@") for name in names}
        conn.execute("set client_min_messages = warning")
        for name in names:
            conn.execute(f"drop owned by {name}")
            conn.execute(f"drop role {name}")
        conn.execute("drop schema jobs cascade")


def test_d1_the_roles_of_the_docs_may_do_what_they_are_for_and_no_more(roles):
    shop = ab.Outbox(roles["shop"], schema="jobs")
    worker = ab.Outbox(roles["worker"], schema="jobs")
    auditor = ab.Outbox(roles["auditor"], schema="jobs")
    with shop, worker, auditor:
        with psycopg.connect(roles["shop"]) as conn:
            shop.enqueue(conn, "mail", 1, dedupe_key="a")
            shop.enqueue_many(conn, [ab.Draft("mail", n) for n in range(3)])
            assert shop.retract(conn, shop.enqueue(conn, "mail", "gone"))
            conn.execute("select jobs.outbox_enqueue('mail', '1')")
            join = shop.join(conn, expected=1, then=ab.Draft("later", 1))
            shop.enqueue(conn, "member", 1, join=join)
        [first, *rest] = worker.claim()
        worker.ack(rest)
        worker.fail(first, "no")
        worker.pause("order")
        assert worker.resume("order")
        assert worker.requeue() == worker.cancel(topic="mail") == worker.purge("dead") == 1
        handling = ab.OutboxWorker(worker)
        handling.on("mail")(lambda message: None)
        assert handling.run_once_blocking() == 0
        assert auditor.counts()["mail"] == {"done": 4}
        assert (auditor.ages().held, auditor.workers(), auditor.paused()) == (None, [], [])
        for act in (shop.claim, lambda: auditor.enqueue("mail", 1), auditor.pause):
            with pytest.raises(ab.StoreUnavailable, match="grant the user what") as caught:
                act()
            assert caught.value.reason == "denied"
