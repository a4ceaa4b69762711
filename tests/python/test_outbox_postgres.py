"""An outbox in PostgreSQL: every driver's connection, other languages, locks, and its errors."""

import asyncio
import contextlib
import json
import threading

import asyncpg
import outboxes
import psycopg
import pytest
import sqlalchemy
from sqlalchemy import orm
from sqlalchemy.ext import asyncio as alchemy_asyncio

import anabranch as ab
from anabranch._outbox.postgres_over import by_percent

PATIENCE = 60.0


@pytest.fixture
def side():
    with contextlib.closing(outboxes.PostgresSide()) as side:
        yield side


def orders(side) -> int:
    with psycopg.connect(side.url) as conn:
        return conn.execute("select count(*) from orders").fetchone()[0]


@pytest.fixture
def shop(side):
    with psycopg.connect(side.url) as conn:
        conn.execute("create table orders (id integer primary key)")
    return side


INSERT = "insert into orders (id) values (7)"


def drafts():
    return [ab.Draft("order", n) for n in range(3)]


@pytest.mark.parametrize("factory", [psycopg.Cursor, psycopg.ClientCursor])
def test_n1_over_psycopg_with_cursors_and_rows_of_the_callers_choice(side, factory):
    options = {"cursor_factory": factory, "row_factory": psycopg.rows.dict_row}
    with psycopg.connect(side.url, **options) as conn:
        first = side.outbox.enqueue(conn, "order", b"\0'x")
        second = side.outbox.enqueue(conn, "order", {"id": 7}, dedupe_key="order-7")
        more = side.outbox.enqueue_many(conn, [ab.Draft("order", b"\0'%") for _ in range(3)])
        assert side.outbox.retract(conn, more.pop())
    claimed = side.outbox.claim()
    assert outboxes.ids(claimed) == [first, second, *more]
    assert [it.payload for it in claimed] == [b"\0'x", {"id": 7}, b"\0'%", b"\0'%"]


@pytest.mark.parametrize("commits", [True, False])
def test_n1_over_psycopg(shop, commits):
    with psycopg.connect(shop.url) as conn:
        conn.execute(INSERT)
        shop.outbox.enqueue(conn, "order", {"id": 7}, dedupe_key="order-7")
        shop.outbox.enqueue_many(conn, drafts())
        gone = shop.outbox.enqueue(conn, "order", "gone")
        assert shop.outbox.retract(conn, gone)
        assert shop.again.messages() == []
        assert conn.info.transaction_status.name == "INTRANS"
        conn.commit() if commits else conn.rollback()
    assert orders(shop) == commits
    assert len(shop.again.claim()) == (4 if commits else 0)


@pytest.mark.parametrize("commits", [True, False])
def test_n1_over_psycopg_async(shop, commits):
    async def main():
        async with await psycopg.AsyncConnection.connect(shop.url) as conn:
            await conn.execute(INSERT)
            await shop.outbox.enqueue(conn, "order", {"id": 7}, dedupe_key="order-7")
            await shop.outbox.enqueue_many(conn, drafts())
            gone = await shop.outbox.enqueue(conn, "order", "gone")
            assert await shop.outbox.retract(conn, gone)
            assert shop.again.messages() == []
            await (conn.commit() if commits else conn.rollback())

    asyncio.run(main())
    assert orders(shop) == commits
    assert len(shop.again.claim()) == (4 if commits else 0)


@pytest.mark.parametrize("commits", [True, False])
def test_n1_over_asyncpg(shop, commits):
    async def main():
        conn = await asyncpg.connect(shop.url)
        transaction = conn.transaction()
        await transaction.start()
        await conn.execute(INSERT)
        await shop.outbox.enqueue(conn, "order", {"id": 7}, dedupe_key="order-7")
        await shop.outbox.enqueue_many(conn, drafts())
        gone = await shop.outbox.enqueue(conn, "order", "gone")
        assert await shop.outbox.retract(conn, gone)
        assert shop.again.messages() == []
        await (transaction.commit() if commits else transaction.rollback())
        await conn.close()

    asyncio.run(main())
    assert orders(shop) == commits
    assert len(shop.again.claim()) == (4 if commits else 0)


@pytest.mark.parametrize("kind", ["connection", "session"])
@pytest.mark.parametrize("commits", [True, False])
def test_n1_over_sqlalchemy(shop, kind, commits):
    engine = sqlalchemy.create_engine(shop.url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() if kind == "connection" else orm.Session(engine) as conn:
        conn.execute(sqlalchemy.text(INSERT))
        shop.outbox.enqueue(conn, "order", {"id": 7}, dedupe_key="order-7")
        shop.outbox.enqueue_many(conn, drafts())
        gone = shop.outbox.enqueue(conn, "order", "gone")
        assert shop.outbox.retract(conn, gone)
        assert shop.again.messages() == []
        conn.commit() if commits else conn.rollback()
    engine.dispose()
    assert orders(shop) == commits
    assert len(shop.again.claim()) == (4 if commits else 0)


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
@pytest.mark.parametrize("kind", ["connection", "session"])
def test_n1_over_sqlalchemy_async(shop, driver, kind):
    async def main():
        engine = alchemy_asyncio.create_async_engine(
            shop.url.replace("postgresql:", f"postgresql+{driver}:")
        )
        opened = engine.connect() if kind == "connection" else alchemy_asyncio.AsyncSession(engine)
        async with opened as conn:
            await conn.execute(sqlalchemy.text(INSERT))
            await shop.outbox.enqueue(conn, "order", {"id": 7}, dedupe_key="order-7")
            await shop.outbox.enqueue_many(conn, drafts())
            assert shop.again.messages() == []
            await conn.commit()
            await shop.outbox.enqueue(conn, "order", "gone")
            await conn.rollback()
        await engine.dispose()

    asyncio.run(main())
    assert orders(shop) == 1
    assert len(shop.again.claim()) == 4


def test_n1_a_connection_in_autocommit_is_refused_unless_a_transaction_is_open(side):
    with psycopg.connect(side.url, autocommit=True) as conn:
        with pytest.raises(ab.ConfigError, match="in autocommit mode and no transaction"):
            side.outbox.enqueue(conn, "mail", "x")
        with conn.transaction():
            side.outbox.enqueue(conn, "mail", "y")
    assert [message.payload for message in side.outbox.messages()] == ["y"]

    async def main():
        conn = await asyncpg.connect(side.url)
        with pytest.raises(ab.ConfigError, match="in autocommit mode and no transaction"):
            await side.outbox.enqueue(conn, "mail", "x")
        await conn.close()

    asyncio.run(main())


def test_n1_a_transaction_that_has_failed_is_refused(side):
    with psycopg.connect(side.url) as conn:
        with pytest.raises(psycopg.errors.DivisionByZero):
            conn.execute("select 1 / 0")
        with pytest.raises(ab.ConfigError, match="transaction has failed: roll it back first"):
            side.outbox.enqueue(conn, "mail", "x")


def test_n1_a_connection_of_another_kind_is_refused(side):
    with pytest.raises(ab.ConfigError, match="conn must be a connection of psycopg, asyncpg"):
        side.outbox.enqueue(7, "mail", "x")


def test_n8_other_languages_call_a_function(side):
    with psycopg.connect(side.url) as conn:
        payload = json.dumps({"id": 7})
        found = conn.execute(
            "select outbox_enqueue('order', %s::jsonb, ordering_key => 'o-7', priority => 7)",
            (payload,),
        ).fetchone()
        assert side.outbox.messages() == []
    [message] = side.outbox.claim()
    assert (message.id, message.payload) == (found[0], {"id": 7})
    assert (message.ordering_key, message.priority) == ("o-7", 7)
    with (
        psycopg.connect(side.url) as conn,
        pytest.raises(psycopg.errors.CheckViolation, match="topic"),
    ):
        conn.execute("select outbox_enqueue('', '1')")


def test_k6_a_claim_skips_what_another_transaction_holds(side):
    first, second = side.outbox.enqueue("mail", 1), side.outbox.enqueue("mail", 2)
    with psycopg.connect(side.url) as conn:
        conn.execute("select 1 from outbox_message where id = %s for update", (first,))
        assert outboxes.ids(side.outbox.claim()) == [second]
        assert side.outbox.claim() == []
        conn.rollback()
    assert outboxes.ids(side.outbox.claim()) == [first]


def test_k9_k12_a_claim_reads_its_index_and_no_other_messages(side):
    """The plan, instead of a stopwatch: one range of the index per priority."""
    side.outbox.enqueue_many([ab.Draft("mail", 0, delay=3600.0, priority=9)] * 2000)
    side.outbox.enqueue("mail", 0, priority=3)
    with psycopg.connect(side.url) as conn:
        conn.execute("analyze outbox_message")
        sql = side.outbox._here._sql["claim"]
        for name, value in (("owner", "1"), ("limit", "10"), ("lease", "1"), ("skip", "0")):
            sql = sql.replace(f":{name}", value)
        sql = sql.replace(":without", "null").replace(":by", "null")
        plan = [row[0] for row in conn.execute(f"explain (analyze, costs off) {sql}")]
    assert any("outbox_message_due" in line for line in plan)
    assert not any("Rows Removed by Filter: 2000" in line for line in plan)


def test_d1_several_may_migrate_at_once():
    with contextlib.closing(outboxes.PostgresSide()) as side:
        with psycopg.connect(side.url) as conn:
            conn.execute("drop schema public cascade")
            conn.execute("create schema public")
        behind = []

        def work(_):
            with ab.Outbox(side.url) as outbox:
                behind.append(outbox.migrate())

        outboxes.in_threads(4, work)
        assert sorted(behind) == [0, 0, 0, outboxes.VERSION]


def test_d1_without_tables_everything_but_migrate_says_what_to_do(side):
    with psycopg.connect(side.url) as conn:
        conn.execute("drop schema public cascade")
        conn.execute("create schema public")
    with ab.Outbox(side.url) as outbox:
        for act in (outbox.claim, outbox.counts, lambda: outbox.enqueue("mail", "x")):
            with pytest.raises(ab.SchemaMismatch, match=r"no outbox tables; .*migrate"):
                act()
        with (
            psycopg.connect(side.url) as conn,
            pytest.raises(ab.SchemaMismatch, match="has no outbox tables: call"),
        ):
            outbox.enqueue(conn, "mail", "x")
        assert outbox.migrate() == outboxes.VERSION


def test_d1_tables_of_a_later_version_are_refused(side):
    with psycopg.connect(side.url) as conn:
        conn.execute("update outbox_meta set value = 99 where name = 'version'")
    with (
        ab.Outbox(side.url) as outbox,
        pytest.raises(ab.SchemaMismatch, match=r"version 99; .* later anabranch"),
    ):
        outbox.claim()


def test_what_cannot_be_reached_says_so_and_no_password_is_shown(side):
    secret = "hunter2"
    url = f"postgresql://tests:{secret}@127.0.0.1:1/shop?password={secret}"
    with ab.Outbox(url) as outbox:
        assert secret not in repr(outbox)
        with pytest.raises(ab.StoreUnavailable, match="see that the server runs") as caught:
            outbox.claim()
    assert secret not in str(caught.value)
    assert caught.value.store == "postgresql://tests@127.0.0.1:1/shop"
    missing = side.url.replace(side.database, "nowhere")
    with (
        ab.Outbox(missing) as outbox,
        pytest.raises(ab.StoreUnavailable, match="does not exist"),
    ):
        outbox.claim()


def test_a_connection_that_is_cut_is_made_anew(side):
    side.outbox.enqueue("mail", 1)
    with psycopg.connect(side.url, autocommit=True) as conn:
        conn.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where datname = current_database() and pid <> pg_backend_pid()"
        )
    with pytest.raises(ab.StoreUnavailable):
        side.outbox.claim()
    assert len(side.outbox.claim()) == 1


def test_n6_who_comes_second_waits_for_the_first_to_commit(side):
    with psycopg.connect(side.url) as conn:
        first = side.outbox.enqueue(conn, "mail", 1, dedupe_key="a")
        found = []
        thread = threading.Thread(
            target=lambda: found.append(side.again.enqueue("mail", 1, dedupe_key="a"))
        )
        thread.start()
        conn.commit()
        thread.join(PATIENCE)
    assert found == [first]


def test_x5_x7_a_worker_outlives_its_server(side):
    worker = ab.OutboxWorker({"acme": side.outbox}, poll=0.2, max_idle_poll=0.2)
    seen = []
    began, over = asyncio.Event(), asyncio.Event()

    @worker.on("mail")
    async def handle(message):
        seen.append(message.payload)
        (began if message.payload == 0 else over).set()

    side.outbox.enqueue("mail", 0)

    async def main():
        async with worker:
            await asyncio.wait_for(began.wait(), PATIENCE)
            await asyncio.to_thread(side.server.stop, "immediate")
            await asyncio.to_thread(side.server.start)
            with psycopg.connect(side.url) as conn:
                side.outbox.enqueue(conn, "mail", 1)
            await asyncio.wait_for(over.wait(), PATIENCE)

    asyncio.run(main())
    assert seen[0] == 0
    assert seen[-1] == 1


def test_k9_what_is_set_aside_or_brought_back_is_found_by_its_place(side):
    """Whatever the statistics say: the plan reads the ranges of its index, and not the table."""
    side.outbox.pause("bulk")
    side.outbox.enqueue_many([ab.Draft("bulk", 0, priority=9)] * 3000)
    side.outbox.pause("bulk")
    side.outbox.enqueue_many([ab.Draft("mail", 0)] * 3000)
    with psycopg.connect(side.url) as conn:
        conn.execute("analyze outbox_message")
        for name in ("set_aside", "bring_back"):
            sql = side.outbox._here._sql[name].replace(":limit", "10")
            plan = [row[0] for row in conn.execute(f"explain {sql}")]
            assert any("Tid Scan" in line for line in plan)
            assert not any("Seq Scan on outbox_message" in line for line in plan), plan


def test_k9_claims_are_not_compiled(side):
    """Compiling takes seconds where statistics make a claim look expensive."""
    assert side.outbox.claim() == []
    assert side.outbox._here.line._connection.execute("show jit").fetchone() == ("off",)


def test_k9_a_claim_sorts_nothing(side):
    """Where little seems to be due, all of it would be read and sorted for each claim."""
    side.outbox.enqueue_many([ab.Draft("mail", "x" * 500) for _ in range(5000)])
    store = side.outbox._store
    with store._own() as cursor:
        cursor.execute("vacuum analyze outbox_message")
        given = {"owner": 1, "limit": 10, "lease": 1000, "skip": 0, "tenant": None}
        claim = f"explain {by_percent(store.statements['claim'])}"
        rows = cursor.execute(claim, {**given, "without": None, "by": '["a"]'}).fetchall()
    plan = "\n".join(row[0] for row in rows)
    assert "Index Scan using outbox_message_due" in plan
    assert "Sort" not in plan
