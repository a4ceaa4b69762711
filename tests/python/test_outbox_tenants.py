"""One table for many tenants: row X11, and X9 for each thing that is done with messages."""

import asyncio
import contextlib
import json
import random
import sqlite3
import uuid

import aiosqlite
import asyncpg
import outboxes
import psycopg
import pytest

import anabranch as ab
from anabranch import _core
from anabranch._outbox.command import main
from anabranch._outbox.postgres_over import by_percent

PATIENCE = 60.0


@pytest.fixture(params=["memory", "postgres", "sqlite"])
def side(request, tmp_path):
    with contextlib.closing(outboxes.opened(request.param, tmp_path)) as side:
        yield side


@pytest.fixture(params=["postgres", "sqlite"])
def stored(request, tmp_path):
    with contextlib.closing(outboxes.opened(request.param, tmp_path)) as side:
        yield side


def payloads(messages):
    return [message.payload for message in messages]


def connections_to(side):
    with psycopg.connect(side.url, autocommit=True) as conn:
        rows = conn.execute(
            "select application_name from pg_stat_activity "
            "where datname = current_database() and pid <> pg_backend_pid()"
        ).fetchall()
    return [row[0] for row in rows]


# -- writing


def test_x11_n5_enqueue_names_the_tenant_and_the_message_tells_it(side):
    acme = side.outbox.tenant("acme")
    with side.transaction() as conn:
        acme.enqueue(conn, "mail", 1)
        side.outbox.enqueue(conn, "mail", 2, tenant="globex")
        side.outbox.enqueue_many(
            conn, [ab.Draft("mail", 3, tenant=name) for name in ("acme", "initech", None)]
        )
        acme.enqueue_many(conn, [ab.Draft("mail", 4), ab.Draft("mail", 5, tenant="acme")])
    acme.enqueue("mail", 6)
    assert [(it.tenant, it.payload) for it in side.outbox.claim()] == [
        ("acme", 1),
        ("globex", 2),
        ("acme", 3),
        ("initech", 3),
        (None, 3),
        ("acme", 4),
        ("acme", 5),
        ("acme", 6),
    ]


def test_x11_n1_enqueue_names_the_tenant_over_awaited_connections_too(stored):
    acme = stored.outbox.tenant("acme")

    async def write():
        drafts = [ab.Draft("mail", 2), ab.Draft("mail", 3)]
        if stored.kind == "sqlite":
            async with aiosqlite.connect(stored.path) as conn:
                await acme.enqueue(conn, "mail", 1, dedupe_key="a")
                await acme.enqueue_many(conn, drafts)
                await conn.commit()
            return
        async with await psycopg.AsyncConnection.connect(stored.url) as conn:
            await acme.enqueue(conn, "mail", 1, dedupe_key="a")
        conn = await asyncpg.connect(stored.url)
        async with conn.transaction():
            await acme.enqueue_many(conn, drafts)
        await conn.close()

    asyncio.run(write())
    assert payloads(acme.claim()) == [1, 2, 3]


def test_x11_n8_plain_sql_names_the_tenant():
    with contextlib.closing(outboxes.PostgresSide()) as side:
        with psycopg.connect(side.url) as conn:
            conn.execute("select outbox_enqueue('mail', '1', tenant => 'acme')")
            conn.execute("select outbox_enqueue('mail', '2')")
        assert payloads(side.outbox.tenant("acme").claim()) == [1]
        assert payloads(side.outbox.claim()) == [2]


@pytest.mark.parametrize("key", ["", "k" * 256, 7, None])
def test_x11_n4_a_tenant_that_is_none_is_refused(key):
    outbox = ab.Outbox.memory()
    with pytest.raises(ab.ConfigError, match="tenant: key must be a UUID, or a str"):
        outbox.tenant(key)
    if key is not None:
        with pytest.raises(ab.ConfigError, match="enqueue: tenant must be a str of 1 to 255"):
            outbox.enqueue("mail", 1, tenant=key)


def test_x9_the_outbox_of_a_tenant_writes_for_no_other():
    acme = ab.Outbox.memory().tenant("acme")
    with pytest.raises(ab.ConfigError, match="tenant must be None or 'acme', whose outbox this is"):
        acme.enqueue("mail", 1, tenant="globex")
    with pytest.raises(ab.ConfigError, match="this one is that of 'acme'"):
        acme.tenant("globex")


def test_x8_a_tenant_has_one_outbox_whether_its_key_is_a_uuid_or_what_it_is_written_as():
    outbox, key = ab.Outbox.memory(), uuid.uuid4()
    assert outbox.tenant(key) is outbox.tenant(str(key)) is not outbox.tenant("acme")
    assert repr(outbox.tenant("acme")) == "Outbox('memory?tenant=acme')"


# -- whose is what


def test_x9_a_tenant_sees_claims_and_counts_its_own_messages_alone(side):
    acme, globex = side.outbox.tenant("acme"), side.outbox.tenant("globex")
    acme.enqueue_many([ab.Draft("mail", n) for n in range(2)])
    theirs = globex.enqueue("mail", "theirs")
    assert payloads(acme.peek()) == payloads(acme.messages()) == [0, 1]
    assert not acme.retract(theirs)
    assert acme.cancel([theirs], topic="mail") == 0
    done, dead = acme.claim()
    assert acme.claim() == []
    acme.ack(done)
    acme.fail(dead, "no")
    assert acme.counts() == {"mail": {"dead": 1, "done": 1}}
    assert globex.counts() == {"mail": {"ready": 1}}
    assert side.outbox.counts() == {"mail": {"dead": 1, "done": 1, "ready": 1}}
    assert globex.requeue() == globex.purge("dead") == 0
    assert acme.requeue() == 1
    assert globex.ages().ready is not None
    assert globex.retract(theirs)
    assert globex.ages().ready is None
    assert side.outbox.tenants() == ["acme"]
    assert acme.tenants() == ["acme"]


def test_x9_at_random_what_a_tenant_is_given_is_its_own(side):
    chance = random.Random(11)
    names = ["acme", "globex", "initech"]
    written = dict.fromkeys(names, 0)
    handled = dict.fromkeys(names, 0)
    for _ in range(150):
        name = chance.choice(names)
        outbox = side.outbox.tenant(name)
        if chance.random() < 0.5:
            draft = ab.Draft("mail", name, ordering_key=chance.choice([None, "a"]))
            outbox.enqueue_many([draft] * chance.randint(1, 3))
            written[name] = written[name] + len(outbox.messages(limit=1000, status="ready"))
            written[name] = handled[name] + len(outbox.messages(limit=1000))
            continue
        claimed = outbox.claim(chance.randint(1, 5))
        assert all(it.tenant == it.payload == name for it in claimed)
        handled[name] += outbox.ack(claimed)
    for name in names:
        left = len(side.outbox.tenant(name).messages(limit=1000))
        assert left + handled[name] == written[name]


def test_x9_k10_n6_keys_of_one_tenant_mean_nothing_to_another(side):
    acme, globex = side.outbox.tenant("acme"), side.outbox.tenant("globex")
    first = acme.enqueue("mail", 1, dedupe_key="welcome", ordering_key="ada")
    assert acme.enqueue("mail", 1, dedupe_key="welcome") == first
    other = globex.enqueue("mail", "another", dedupe_key="welcome", ordering_key="ada")
    nobodys = side.outbox.enqueue("mail", "a third", dedupe_key="welcome", ordering_key="ada")
    assert len({first, other, nobodys}) == 3
    assert outboxes.ids(acme.claim()) == [first]
    # Nor to an outbox of all that claims them.
    assert outboxes.ids(side.outbox.claim()) == [other, nobodys]


def test_x9_h9_what_one_tenant_has_seen_another_has_not(side):
    acme, globex = side.outbox.tenant("acme"), side.outbox.tenant("globex")
    with side.transaction() as conn:
        assert not acme.seen(conn, "invoice 7")
    with side.transaction() as conn:
        assert acme.seen(conn, "invoice 7")
        assert not globex.seen(conn, "invoice 7")
        assert not side.outbox.seen(conn, "invoice 7")


def test_x9_j1_a_join_and_what_follows_it_are_their_tenants(side):
    acme, globex = side.outbox.tenant("acme"), side.outbox.tenant("globex")
    join = acme.join(expected=1, then=ab.Draft("ready", "all picked"))
    assert [it.id for it in acme.joins()] == [join]
    assert globex.joins() == []
    assert not globex.cancel_join(join)
    with pytest.raises(ab.ConfigError, match="there is no join"):
        globex.enqueue("pick", 1, join=join)
    acme.enqueue("pick", 1, join=join)
    acme.ack(acme.claim())
    assert globex.claim() == []
    assert [(it.tenant, it.payload) for it in acme.claim()] == [("acme", "all picked")]


def test_x9_j4_each_tenant_has_the_plans_for_itself(side):
    tenants = {name: side.outbox.tenant(name) for name in ("acme", "globex")}
    planner = ab.OutboxPlanner(tenants)

    @planner.plan("rebuild", every=3600.0)
    def rebuild(plan):
        plan.cursor = f"{plan.cursor or ''}{plan.tenant}"
        return [ab.Draft("rebuild", plan.cursor)]

    assert planner.run_once_blocking() == 0
    for _ in range(2):
        side.pass_time(3600.0)
        assert planner.run_once_blocking() == 2
    assert payloads(tenants["acme"].claim()) == ["acme", "acmeacme"]
    assert payloads(tenants["globex"].claim()) == ["globex", "globexglobex"]


# -- pauses


def test_x11_d2_a_tenant_is_paused_by_itself_for_every_worker(side):
    acme, globex = side.outbox.tenant("acme"), side.outbox.tenant("globex")
    acme.enqueue("mail", 1)
    acme.pause("ma*")
    later = acme.enqueue("mail", 2)
    globex.enqueue("mail", 3)
    side.again.tenant("acme").enqueue("post", 4)
    assert [it.topic for it in acme.paused()] == ["ma*"]
    assert globex.paused() == side.outbox.paused() == []
    assert payloads(acme.claim()) == [4]
    assert payloads(side.outbox.claim()) == [3]
    assert acme.claim() == []
    assert acme.counts()["mail"] == {"paused": 2}
    assert side.outbox.counts()["mail"] == {"leased": 1, "paused": 2}
    assert not globex.resume("ma*")
    assert not side.outbox.resume("ma*")
    assert acme.resume("ma*")
    assert outboxes.ids(acme.claim())[-1] == later


def test_x11_d2_what_is_paused_for_all_is_so_for_each_tenant(side):
    acme = side.outbox.tenant("acme")
    acme.enqueue("mail", 1)
    side.outbox.pause("mail")
    assert acme.claim() == []
    assert [it.topic for it in acme.paused()] == ["mail"]
    assert not acme.resume("mail")
    assert acme.claim() == []
    assert side.outbox.resume("mail")
    assert payloads(acme.claim()) == [1]


# -- workers


def test_x11_a_tenant_that_floods_does_not_keep_the_others_waiting(side):
    """A floods 1000, B sends 1: B is served within two claims of each."""
    side.outbox.tenant("acme").enqueue_many([ab.Draft("mail", n) for n in range(1000)])
    side.outbox.tenant("globex").enqueue("mail", "one")
    router = ab.OutboxRouter(side.outbox.tenant, tenants=side.outbox.tenants)
    worker = ab.OutboxWorker(router, batch=20, parallel=1)
    order = []

    @worker.on("mail")
    async def handle(message):
        order.append(message.tenant)
        if len(order) == 200:
            worker.stop()

    asyncio.run(asyncio.wait_for(worker.run(), PATIENCE))
    assert "globex" in order[:61]


def test_x11_a_worker_of_all_gives_each_tenant_a_branch_of_its_own(side):
    """One tenant's handler that hangs keeps the others' from nothing."""
    worker = ab.OutboxWorker(side.outbox)
    done = []

    @worker.on("mail")
    async def handle(message):
        if message.tenant == "acme":
            await asyncio.Event().wait()
        done.append(message.tenant)
        if len(done) == 3:
            raise KeyboardInterrupt

    for name in ("acme", "globex", "initech", "umbrella"):
        side.outbox.enqueue("mail", 1, tenant=name)
    with contextlib.suppress(KeyboardInterrupt):
        # Alone: an interrupt in a task within another ends the loop before both have ended.
        asyncio.run(worker.run())
    assert sorted(done) == ["globex", "initech", "umbrella"]


def test_x11_x2_a_tenant_that_comes_is_worked_on_soon(side):
    router = ab.OutboxRouter(side.outbox.tenant, tenants=side.outbox.tenants, refresh=0.01)
    worker = ab.OutboxWorker(router)

    @worker.on("mail")
    async def handle(message):
        if message.tenant == "acme":
            # By another process: this one's router has not heard of it.
            side.again.tenant("globex").enqueue("mail", 2)
        else:
            worker.stop()

    side.outbox.tenant("acme").enqueue("mail", 1)
    asyncio.run(asyncio.wait_for(worker.run(), PATIENCE))
    assert side.outbox.counts() == {"mail": {"done": 2}}


def test_x11_x6_a_hundred_tenants_of_a_table_have_one_connection_and_one_that_listens():
    with contextlib.closing(outboxes.PostgresSide()) as side:
        tenants = {str(n): side.outbox.tenant(str(n)) for n in range(100)}
        worker = ab.OutboxWorker(tenants, connections=4)
        seen = []
        open_ = []

        @worker.on("mail")
        async def handle(message):
            seen.append(message.tenant)
            if len(seen) == 100:
                open_.extend(connections_to(side))
                worker.stop()

        for tenant in tenants.values():
            tenant.enqueue("mail", 1)
        asyncio.run(asyncio.wait_for(worker.run(), PATIENCE))
        assert sorted(seen, key=int) == list(tenants)
        assert sorted(open_) == ["anabranch", "anabranch listens"]


def test_x11_x6_schemas_of_one_database_that_a_router_opens_share_its_connection():
    with contextlib.closing(outboxes.PostgresSide()) as side:
        side.outbox.close()
        names = [f"tenant{n}" for n in range(10)]
        places = {name: ab.StoreAt(url=side.url, options={"schema": name}) for name in names}
        seen = []
        open_ = []
        with ab.OutboxRouter(places) as router:
            for name in names:
                router.outbox(name).migrate()
                router.outbox(name).enqueue("mail", name)
            worker = ab.OutboxWorker(router, connections=4)

            @worker.on("mail")
            async def handle(message):
                seen.append((message.tenant, message.payload))
                if len(seen) == len(names):
                    open_.extend(connections_to(side))
                    router.outbox(names[0]).close()
                    assert router.outbox(names[1]).counts()
                    worker.stop()

            asyncio.run(asyncio.wait_for(worker.run(), PATIENCE))
        assert sorted(seen) == sorted((name, name) for name in names)
        assert sorted(open_) == ["anabranch", "anabranch listens"]
        with psycopg.connect(side.url, autocommit=True) as conn:
            conn.execute("set client_min_messages = warning")
            for name in names:
                conn.execute(f"drop schema {name} cascade")


def test_x11_x7_what_is_enqueued_for_a_tenant_wakes_no_other():
    with contextlib.closing(outboxes.PostgresSide()) as side:
        heard = []

        async def main():
            came = asyncio.Event()
            ready = asyncio.Event()

            def listen(name, store):
                def told():
                    heard.append(name)
                    ready.set()
                    if name == "all" and ready.is_set():
                        came.set()

                return store._store.listen(told)

            names = ("acme", "globex")
            ends = [listen(name, side.outbox.tenant(name)) for name in names]
            ends.append(listen("all", side.outbox))
            await asyncio.wait_for(came.wait(), PATIENCE)
            heard.clear()
            came.clear()
            side.again.tenant("acme").enqueue("mail", 1)
            await asyncio.wait_for(came.wait(), PATIENCE)
            for end in ends:
                end()

        asyncio.run(main())
        assert sorted(heard) == ["acme", "all"]


@pytest.mark.parametrize("sync", [True, False], ids=["def", "async"])
def test_x11_inline_a_tenants_messages_are_handled_in_its_transactions(stored, sync):
    router = ab.OutboxRouter(stored.outbox.tenant, tenants=stored.outbox.tenants)
    given = []

    def connect(tenant):
        given.append(tenant)
        if stored.kind == "sqlite":
            return sqlite3.connect(stored.path, check_same_thread=False, timeout=PATIENCE)
        return psycopg.connect(stored.url)

    for name in ("acme", "globex"):
        stored.outbox.enqueue("mail", name, tenant=name)
    worker = ab.OutboxWorker(router, ack="inline", connect=connect)
    handled = []

    if sync:

        @worker.on("mail")
        def handle(message):
            handled.append((message.tenant, message.payload))

    else:

        @worker.on("mail")
        async def handle(message):
            handled.append((message.tenant, message.payload))

    assert worker.run_once_blocking() == 2
    assert sorted(handled) == [("acme", "acme"), ("globex", "globex")]
    assert sorted(given) == ["acme", "globex"]


def test_x11_d2_the_command_names_a_tenant(stored, capsys):
    stored.outbox.enqueue_many([ab.Draft("mail", n, tenant="acme") for n in range(2)])
    stored.outbox.enqueue("mail", 1, tenant="globex")
    for verb, *more in (["status"], ["pause"], ["cancel", "--topic", "mail"], ["list"]):
        assert main(["outbox", verb, stored.url, "--tenant", "acme", "--json", *more]) == 0
        [told] = json.loads(capsys.readouterr().out)["outboxes"]
        assert told["store"].endswith("?tenant=acme")
        if verb == "status":
            assert told["topics"] == {"mail": {"ready": 2}}
    assert [it["tenant"] for it in told["messages"]] == ["acme"] * 2
    assert stored.outbox.tenant("acme").counts() == {"mail": {"dead": 2}}
    assert stored.outbox.tenant("globex").counts() == {"mail": {"ready": 1}}
    assert stored.outbox.tenant("globex").paused() == []


# -- tables


def test_x11_k9_a_claim_finds_its_tenants_messages_by_an_index(stored):
    """It reads none of the others': by the place of the tenant, whatever else there is."""
    stored.outbox.enqueue_many([ab.Draft("mail", n, tenant="acme") for n in range(2000)])
    _, sql = _core.outbox_sql(stored.kind, "outbox_", of_tenant=True)
    given = {"owner": 1, "limit": 10, "lease": 1, "skip": 0, "tenant": "globex"}
    given |= {"without": None, "by": None, "now": 2**60, "more": 1}
    if stored.kind == "sqlite":
        with contextlib.closing(sqlite3.connect(stored.path)) as conn:
            rows = conn.execute(f"explain query plan {sql['claimable']}", given).fetchall()
    else:
        with psycopg.connect(stored.url) as conn:
            conn.execute("analyze outbox_message")
            rows = conn.execute(f"explain {by_percent(sql['claim'])}", given).fetchall()
    plan = "\n".join(str(row[-1]) for row in rows)
    assert "outbox_message_tenant" in plan
    assert "outbox_message_due" not in plan


def test_d1_tables_of_version_1_are_brought_up_to_date_with_what_is_in_them(stored, tmp_path):
    """What was counted, remembered and paused before is so afterwards."""
    old = "old_"
    one = "cast(1 as blob)" if stored.kind == "sqlite" else "cast('1' as bytea)"
    migrations, _ = _core.outbox_sql(stored.kind, old)
    rows = [
        "update old_meta set value = 1 where name = 'version'",
        "insert into old_done (topic, count) values ('mail', 7)",
        "insert into old_pause (pattern, since) values ('post', 1)",
        "insert into old_plan (name, cadence, next_at) values ('p', 'c', 1)",
        "insert into old_inbox (key, until) values ('seen', 9000000000000)",
        "insert into old_message (topic, body, format, priority, enqueued_at, due_at) "
        + ("values ('mail', " + one + ", 2, 5, 1, 1)"),
    ]
    connect = sqlite3.connect(stored.path) if stored.kind == "sqlite" else None
    with contextlib.closing(connect or psycopg.connect(stored.url)) as conn:
        for statement in (*dict(migrations)[1], *rows):
            conn.execute(statement)
        conn.commit()
    with ab.Outbox(stored.url, prefix=old) as outbox:
        with pytest.raises(ab.SchemaMismatch, match="the tables are version 1"):
            outbox.claim()
        assert outbox.migrate() == 1
        assert outbox.migrate() == 0
        assert outbox.counts() == {"mail": {"done": 7, "ready": 1}}
        assert [it.topic for it in outbox.paused()] == ["post"]
        with contextlib.closing(
            sqlite3.connect(stored.path) if stored.kind == "sqlite" else psycopg.connect(stored.url)
        ) as conn:
            assert outbox.seen(conn, "seen")
            conn.rollback()
        [message] = outbox.claim()
        assert (message.payload, message.tenant) == (1, None)
