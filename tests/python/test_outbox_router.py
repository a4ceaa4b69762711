"""The router: rows X, and a worker whose stores come, go, move and die while it is at work."""

import asyncio
import collections
import contextlib
import logging
import re
import sqlite3
import threading
import uuid

import postgres
import psycopg
import pytest

import anabranch as ab

PATIENCE = 60.0


async def until(holds) -> None:
    """Let the loop go round until something holds that tells nobody of it."""
    async with asyncio.timeout(PATIENCE):
        while not holds():  # noqa: ASYNC110 - nothing is told
            await asyncio.sleep(0)


class Files:
    """Tenants with a file of SQLite each; `tenants` may be changed, or made to fail."""

    def __init__(self, folder, *names):
        self.folder = folder
        self.names = []
        self.error = None
        self.asked = 0
        for name in names:
            self.open(name)

    def open(self, name):
        """A customer comes: the tables are made, as an application does."""
        with ab.Outbox(self.url(name)) as outbox:
            outbox.migrate()
        self.names.append(name)

    def url(self, name):
        return f"sqlite:///{self.folder}/{name}.db"

    def tenants(self):
        self.asked += 1
        if self.error is not None:
            raise self.error
        return list(self.names)

    def outbox(self, tenant):
        return self.url(tenant) if tenant in self.names else None


class Seen:
    """What a handler has got, and a wait for it."""

    def __init__(self, worker):
        self.messages = []
        self._came = asyncio.Event()
        worker.on("*", concurrency=4)(self.handle)

    async def handle(self, message: ab.Message) -> None:
        self.messages.append((message.tenant, message.payload))
        self._came.set()

    async def until(self, *expected):
        while not all(it in self.messages for it in expected):
            self._came.clear()
            await asyncio.wait_for(self._came.wait(), PATIENCE)


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path, "acme", "globex")


@pytest.fixture
def router(files):
    with ab.OutboxRouter(files) as router:
        yield router


def test_x8_a_tenant_has_one_outbox_and_it_is_found_before_the_first_poll(router):
    acme = router.outbox("acme")
    assert router.outbox("acme") is acme
    assert router.outbox("globex") is not acme
    assert router.refresh() == ["acme", "globex"]
    assert router.outbox("acme") is acme


def test_x8_a_uuid_and_what_it_is_written_as_are_one_tenant():
    tenant = uuid.uuid4()
    outbox, other = ab.Outbox.memory(), ab.Outbox.memory()
    for key in (tenant, str(tenant)):
        router = ab.OutboxRouter({key: outbox, "other": other})
        assert router.outbox(tenant) is router.outbox(str(tenant)) is outbox


def test_x8_an_unknown_tenant_is_refused_with_the_nearest_ones(router):
    with pytest.raises(ab.UnknownTenant, match="'acmee'; known ones like it: 'acme'") as caught:
        router.outbox("acmee")
    assert caught.value.tenant == "acmee"
    assert isinstance(caught.value, LookupError)
    with pytest.raises(ab.UnknownTenant, match="known ones are: 'acme', 'globex'"):
        router.outbox("zzz")
    with pytest.raises(ab.ConfigError, match="tenant must be hashable"):
        router.outbox([])


def test_x9_a_tenants_messages_are_in_its_own_tables_alone(router):
    router.outbox("acme").enqueue("order", 1)
    assert router.outbox("acme").counts() == {"order": {"ready": 1}}
    assert router.outbox("globex").counts() == {}


def test_x8_x9_to_outbox_takes_a_router(router):
    items = [{"tenant": tenant} for tenant in ("acme", "globex", "acme", "acmee")]
    pipeline = ab.Pipeline("p").source(items).fan_out(by="tenant")
    report = pipeline.to_outbox(router, topic="t").run_blocking()
    assert (report.committed, report.failed) == (3, 1)
    assert "no outbox for tenant 'acmee'; known ones like it: 'acme'" in str(report.failures[0])
    assert router.outbox("acme").counts() == {"t": {"ready": 2}}
    assert router.outbox("globex").counts() == {"t": {"ready": 1}}


def test_x10_a_shared_outbox_stands_beside_the_tenants_own(files):
    shared = ab.Outbox.memory()
    places = {"acme": files.url("acme"), "globex": files.url("globex"), "shared": shared}
    with ab.OutboxRouter(places) as router:
        worker = ab.OutboxWorker(router)
        seen = Seen(worker)
        shared.enqueue("rates", 1)
        router.outbox("acme").enqueue("order", 2)
        assert worker.run_once_blocking() == 2
        assert sorted(seen.messages) == [("acme", 2), ("shared", 1)]
    # What it was given it does not close.
    assert shared.counts() == {"rates": {"done": 1}}


def test_x1_stores_of_one_name_stay_apart(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        with ab.Outbox(f"sqlite:///{tmp_path}/{name}/shop.db") as outbox:
            outbox.migrate()
    with ab.OutboxRouter(lambda it: f"sqlite:///{tmp_path}/{it}/shop.db") as router:
        worker = ab.OutboxWorker(router)
        seen = Seen(worker)
        for name in ("one", "two"):
            router.outbox(name).enqueue("order", name)
        assert worker.run_once_blocking() == 2
        assert sorted(seen.messages) == [("one", "one"), ("two", "two")]


@ab.testing.virtual_time
async def test_x2_tenants_come_and_go_within_the_refresh(clock):
    outboxes = {name: ab.Outbox.memory(clock=clock.now) for name in ("acme", "globex")}
    worker = ab.OutboxWorker(ab.OutboxRouter(outboxes, refresh=30.0))
    seen = Seen(worker)
    async with worker:
        await clock.advance(1.0)
        outboxes["initech"] = ab.Outbox.memory(clock=clock.now)
        outboxes["initech"].enqueue("order", 3)
        await clock.advance(28.0)
        assert seen.messages == []
        await clock.advance(2.0)
        assert seen.messages == [("initech", 3)]
        gone = outboxes.pop("acme")
        await clock.advance(31.0)
        gone.enqueue("order", 1)
        outboxes["globex"].enqueue("order", 2)
        await clock.advance(100.0)
        assert seen.messages == [("initech", 3), ("globex", 2)]
    assert gone.counts() == {"order": {"ready": 1}}


@ab.testing.virtual_time
async def test_x2_an_error_of_discovery_keeps_the_tenants_and_is_tried_again_soon(clock, caplog):
    class Registry:
        def __init__(self):
            self.outboxes = {"acme": ab.Outbox.memory(clock=clock.now)}
            self.error = None

        def tenants(self):
            if self.error:
                raise self.error
            return self.outboxes

        def outbox(self, tenant):
            return self.outboxes.get(tenant)

    registry = Registry()
    worker = ab.OutboxWorker(ab.OutboxRouter(registry, refresh=1000.0))
    seen = Seen(worker)
    async with worker:
        await clock.advance(1.0)
        registry.error = OSError("the registry is away")
        await clock.advance(1000.0)
        registry.outboxes["acme"].enqueue("order", 1)
        registry.outboxes["globex"] = ab.Outbox.memory(clock=clock.now)
        registry.outboxes["globex"].enqueue("order", 2)
        await clock.advance(2.0)
        assert seen.messages == [("acme", 1)]
        registry.error = None
        await clock.advance(10.0)
        assert seen.messages == [("acme", 1), ("globex", 2)]
    said = [it.getMessage() for it in caplog.records if it.levelno == logging.WARNING]
    assert any("OSError: the registry is away" in it for it in said)


def test_x2_refresh_takes_effect_at_once_and_leaves_the_others_alone(files, router):
    worker = ab.OutboxWorker(router, poll=3600.0, max_idle_poll=3600.0)
    seen = Seen(worker)

    async def main():
        async with worker:
            router.outbox("acme").enqueue("order", 1)
            await seen.until(("acme", 1))
            acme = router.outbox("acme")
            connection = acme._here.line._connection
            files.open("initech")
            # Nobody has asked for it yet; what is in it is found by the first poll.
            with ab.Outbox(files.url("initech")) as other:
                other.enqueue("order", 2)
            router.refresh()
            await seen.until(("initech", 2))
            assert router.outbox("acme") is acme
            assert acme._here.line._connection is connection is not None
            acme.enqueue("order", 3)
            await seen.until(("acme", 3))

    asyncio.run(main())


def test_x2_x8_a_tenant_somebody_asks_for_is_worked_on_from_then_on(tmp_path):
    files = Files(tmp_path, "acme")
    with ab.OutboxRouter(files.outbox) as router:
        worker = ab.OutboxWorker(router)
        seen = Seen(worker)

        async def main():
            async with worker:
                router.outbox("acme").enqueue("order", 1)
                await seen.until(("acme", 1))

        asyncio.run(main())


def test_x2_a_refresh_that_fails_says_why_and_keeps_the_tenants(files, router):
    router.refresh()
    files.error = OSError("away")
    with pytest.raises(OSError, match="away"):
        router.refresh()
    assert router.tenants == ["acme", "globex"]


def test_x2_a_tenant_that_has_moved_is_worked_on_at_its_new_place(tmp_path):
    files = Files(tmp_path, "old", "new")
    places = {"acme": files.url("old")}
    with ab.OutboxRouter(places) as router:
        worker = ab.OutboxWorker(router)
        seen = Seen(worker)

        async def main():
            async with worker:
                router.outbox("acme").enqueue("order", 1)
                await seen.until(("acme", 1))
                places["acme"] = files.url("new")
                router.refresh()
                router.outbox("acme").enqueue("order", 2)
                await seen.until(("acme", 2))

        asyncio.run(main())
        assert router.outbox("acme").counts() == {"order": {"done": 1}}


def test_x2_a_tenant_whose_place_is_wrong_keeps_nobody_from_work(files, caplog):
    places = {"acme": files.url("acme")}
    with ab.OutboxRouter(places) as router:
        worker = ab.OutboxWorker(router)
        seen = Seen(worker)
        router.outbox("acme").enqueue("order", 1)
        places["globex"] = "mysql://user:secret@host/db"
        worker.run_once_blocking()
        assert seen.messages == [("acme", 1)]
    assert "tenant 'globex' has no outbox" in caplog.text
    assert "secret" not in caplog.text


REGISTRY = """
create table outbox_tenant (
  tenant text primary key, url text not null, schema text,
  enabled boolean not null default true, weight real not null default 1
)
"""


@contextlib.contextmanager
def sqlite_registry(folder):
    url = f"sqlite:///{folder}/registry.db"

    def execute(sql, **values):
        with contextlib.closing(sqlite3.connect(folder / "registry.db")) as conn, conn:
            conn.execute(sql, values)

    execute("create table other (id)")
    yield url, execute


@contextlib.contextmanager
def postgres_registry(folder):
    server = postgres.server()
    database = server.create()
    url = server.url(database)

    def execute(sql, **values):
        named = re.sub(r":(\w+)", r"%(\1)s", sql)
        with psycopg.connect(url) as conn:
            conn.execute(named, values)

    yield url, execute
    server.drop(database)


@pytest.mark.parametrize("registry", [sqlite_registry, postgres_registry])
def test_x2_a_table_tells_of_the_tenants(files, registry):
    with registry(files.folder) as (url, execute):
        with pytest.raises(ab.StoreUnavailable, match="outbox_tenant of tenants cannot be read"):
            ab.OutboxRouter.table(url).refresh()
        execute(REGISTRY)
        add = "insert into outbox_tenant (tenant, url, enabled, weight) values (:t, :u, :e, :w)"
        execute(add, t="acme", u=files.url("acme"), e=True, w=3.0)
        execute(add, t="globex", u=files.url("globex"), e=False, w=1.0)
        with ab.OutboxRouter.table(url) as router:
            worker = ab.OutboxWorker(router)
            seen = Seen(worker)
            for name in ("acme", "globex"):
                router.outbox(name).enqueue("order", name)
            # One that is not enabled can be written to, and is not worked on.
            assert worker.run_once_blocking() == 1
            assert seen.messages == [("acme", "acme")]
            assert router._present()["acme"].weight == 3.0
            acme = router.outbox("acme")
            execute("update outbox_tenant set enabled = :e, weight = 2", e=True)
            assert worker.run_once_blocking() == 1
            assert seen.messages[1:] == [("globex", "globex")]
            assert router.outbox("acme") is acme
            assert router._present()["acme"].weight == 2.0
            execute("delete from outbox_tenant where tenant = :t", t="acme")
            assert router.refresh() == ["globex"]
            with pytest.raises(ab.UnknownTenant):
                router.outbox("acme")


@pytest.mark.parametrize("table", ["", "a b", "a;b", "A", 7, "a.b.c"])
def test_x2_a_table_has_a_name(table):
    with pytest.raises(ab.ConfigError, match="OutboxRouter: table must be the name of a table"):
        ab.OutboxRouter.table("sqlite:///registry.db", table=table)


def test_x11_tenants_may_have_a_schema_each():
    server = postgres.server()
    database = server.create()
    url = server.url(database)
    schemas = {name: f"tenant_{name}" for name in ("acme", "globex")}
    places = {name: ab.StoreAt(url=url, options={"schema": it}) for name, it in schemas.items()}
    with ab.OutboxRouter(places) as router:
        worker = ab.OutboxWorker(router)
        seen = Seen(worker)
        for name in places:
            router.outbox(name).migrate()
            router.outbox(name).enqueue("order", name)
        assert worker.run_once_blocking() == 2
        assert sorted(seen.messages) == [("acme", "acme"), ("globex", "globex")]
        for name in places:
            assert router.outbox(name).counts() == {"order": {"done": 1}}
    with psycopg.connect(url) as conn:
        for schema in schemas.values():
            conn.execute(f"drop schema {schema} cascade")
    server.drop(database)


def test_x3_a_tenant_may_be_removed_while_its_messages_are_handled():
    acme, globex = ab.Outbox.memory(), ab.Outbox.memory()
    tenants = {"acme": acme, "globex": globex}
    router = ab.OutboxRouter(tenants)
    worker = ab.OutboxWorker(router)
    seen = []

    async def main():
        begun, go_on, over = asyncio.Event(), asyncio.Event(), asyncio.Event()

        @worker.on("order")
        async def handle(message):
            seen.append((message.tenant, message.payload))
            if seen == [("acme", 0)]:
                begun.set()
                await go_on.wait()
            if message.payload == "last":
                over.set()

        acme.enqueue_many([ab.Draft("order", n) for n in range(10)])
        async with worker:
            await asyncio.wait_for(begun.wait(), PATIENCE)
            del tenants["acme"]
            router.refresh()
            # The others go on while it is still at work.
            globex.enqueue("order", 1)
            await until(lambda: ("globex", 1) in seen)
            go_on.set()
            await until(lambda: acme.counts() == {"order": {"done": 1, "ready": 9}})
            assert {it.attempt for it in acme.messages()} == {0}
            # It comes back, and so do its messages.
            tenants["acme"] = acme
            acme.enqueue("order", "last")
            router.refresh()
            await asyncio.wait_for(over.wait(), PATIENCE)

    asyncio.run(main())
    assert acme.counts() == {"order": {"done": 11}}
    assert sorted(seen[:1] + [it for it in seen if it[0] == "globex"]) == [
        ("acme", 0),
        ("globex", 1),
    ]


@pytest.mark.parametrize("seed", range(4))
def test_x3_z5_tenants_that_come_and_go_lose_no_message(seed):
    """Tenants are removed and added at random moments; in the end all messages are done."""
    import random

    chance = random.Random(seed)
    everyone = {name: ab.Outbox.memory() for name in "abcdef"}
    tenants = dict(everyone)
    router = ab.OutboxRouter(tenants)
    worker = ab.OutboxWorker(router, batch=4, parallel=2, seed=seed)
    done = []

    @worker.on("order", concurrency=2, retry=ab.Retry.fixed(0.0, attempts=50, retry_on=Exception))
    async def handle(message):
        await asyncio.sleep(0)
        if chance.random() < 0.2:
            raise OSError("unlucky")
        done.append(message.payload)

    async def main():
        number = 0
        async with worker:
            for _ in range(300):
                name = chance.choice("abcdef")
                if chance.random() < 0.3:
                    if name in tenants:
                        del tenants[name]
                    else:
                        tenants[name] = everyone[name]
                    router.refresh()
                else:
                    everyone[name].enqueue("order", number)
                    number += 1
                await asyncio.sleep(0)
            tenants.update(everyone)
            router.refresh()
            await until(lambda: len(done) == number)
        return number

    number = asyncio.run(main())
    assert sorted(done) == list(range(number))


def test_x5_one_dead_database_stops_neither_the_others_nor_the_end(files, caplog):
    places = {"acme": files.url("acme"), "globex": f"sqlite:///{files.folder}/gone/shop.db"}
    with ab.OutboxRouter(places) as router:
        worker = ab.OutboxWorker(router)
        seen = Seen(worker)

        async def main():
            async with worker:
                for number in range(20):
                    router.outbox("acme").enqueue("order", number)
                    await seen.until(("acme", number))

        asyncio.run(main())
    said = [it for it in caplog.records if "unable to open" in it.getMessage()]
    assert len(said) == 1


def test_x6_a_few_connections_are_enough_for_many_databases(tmp_path):
    names = [f"t{n}" for n in range(30)]
    files = Files(tmp_path, *names)
    with ab.OutboxRouter(files) as router:
        worker = ab.OutboxWorker(router, connections=6, parallel=4)
        seen = Seen(worker)
        most = 0

        async def main():
            nonlocal most
            async with worker:
                for number in range(3):
                    for name in names:
                        # As another process does: nobody tells the worker of it.
                        with ab.Outbox(files.url(name)) as other:
                            other.enqueue("order", number)
                    await seen.until(*((name, number) for name in names))
                    stores = [router.outbox(name)._here for name in names]
                    most = max(most, sum(it.line._connection is not None for it in stores))

        asyncio.run(main())
        # Two of the six are for listening.
        assert 1 <= most <= 4


def test_x6_a_worker_opens_no_more_connections_than_it_may():
    server = postgres.server()
    databases = [server.create() for _ in range(10)]
    places = {name: server.url(name) for name in databases}
    for url in places.values():
        with ab.Outbox(url) as outbox:
            outbox.migrate()
            outbox.enqueue("order", 1)

    def connected() -> int:
        with psycopg.connect(server.url("postgres")) as conn:
            [count] = conn.execute(
                "select count(*) from pg_stat_activity where application_name like 'anabranch%%' "
                "and datname = any(%s)",
                [databases],
            ).fetchone()
        return count

    async def until_connected(most) -> None:
        # The server takes a moment to notice that one was closed.
        async with asyncio.timeout(PATIENCE):
            while await asyncio.to_thread(connected) > most:
                pass

    with ab.OutboxRouter(places) as router:
        worker = ab.OutboxWorker(router, connections=6, parallel=8)
        seen = Seen(worker)

        async def main():
            async with worker:
                await seen.until(*((name, 1) for name in databases))
                await until_connected(6)
            await until_connected(0)

        asyncio.run(main())
    for name in databases:
        server.drop(name)


def test_x4_a_worker_serves_its_stores_as_its_selection_says():
    outboxes = {name: ab.Outbox.memory() for name in ("acme", "globex")}
    sights = []

    def globex_first(stores):
        sights.append([(it.tenant, it.depth) for it in stores])
        return max(stores, key=lambda it: it.tenant)

    worker = ab.OutboxWorker(ab.OutboxRouter(outboxes), selection=globex_first, parallel=1, batch=2)
    seen = Seen(worker)
    for name, outbox in outboxes.items():
        outbox.enqueue_many([ab.Draft("order", (name, n)) for n in range(6)])

    async def main():
        async with worker:
            await seen.until(*((name, [name, n]) for name in outboxes for n in range(6)))

    asyncio.run(main())
    assert seen.messages[0] == ("globex", ["globex", 0])
    # Before it was looked at, and then.
    assert sights[0] == [("acme", None), ("globex", None)]
    assert ("globex", 4) in sights[1]


def test_x4_a_flood_of_one_tenant_holds_up_no_other():
    """Lesson 12: A floods, B sends one message: B is served within a few claims."""
    outboxes = {name: ab.Outbox.memory() for name in ("flood", "one")}
    worker = ab.OutboxWorker(ab.OutboxRouter(outboxes), parallel=1, batch=10)
    order = []

    @worker.on("order")
    async def handle(message):
        order.append(message.tenant)

    outboxes["flood"].enqueue_many([ab.Draft("order", n) for n in range(1000)])
    outboxes["one"].enqueue("order", 0)

    async def main():
        async with worker:
            await until(lambda: len(order) == 1001)

    asyncio.run(main())
    assert order.index("one") <= 30


def test_x4_an_error_of_a_selection_ends_the_worker():
    def broken(stores):
        raise ZeroDivisionError

    outboxes = {name: ab.Outbox.memory() for name in "ab"}
    worker = ab.OutboxWorker(ab.OutboxRouter(outboxes), selection=broken, parallel=1)
    worker.on("order")(lambda message: None)
    with pytest.raises(ZeroDivisionError):
        worker.run_blocking()


def test_a_closed_router_says_so(router):
    router.outbox("acme")
    router.close()
    with pytest.raises(ab.ClosedError, match="the router is closed"):
        router.outbox("acme")
    with pytest.raises(ab.ClosedError, match="the router is closed"):
        router.refresh()


@pytest.mark.parametrize(
    ("given", "options", "said"),
    [
        (7, {}, "stores must be a mapping"),
        ({"a": 7}, {}, "stores must be an Outbox, a URL or a StoreAt, got a int for tenant 'a'"),
        ({}, {"tenants": list}, "tenants must be given with a def only"),
        (str, {"tenants": 7}, "tenants must be None, or a def"),
        ({}, {"refresh": 0}, "refresh must be seconds"),
        ({}, {"prefix": "A"}, "prefix must be lower-case"),
        ({"a": ab.StoreAt(url="sqlite:///a.db", weight=0)}, {}, "weight must be a number above 0"),
    ],
)
def test_bad_arguments_of_a_router_are_refused(given, options, said):
    with pytest.raises(ab.ConfigError, match=said):
        ab.OutboxRouter(given, **options)


def test_a_coroutine_function_tells_no_tenants():
    async def tenants():
        return []

    with pytest.raises(ab.ConfigError, match="tenants must be None, or a def"):
        ab.OutboxRouter(str, tenants=tenants)


def test_h11_a_provider_of_ones_own_is_typed():
    def use(provider: ab.StoreProvider) -> ab.OutboxRouter:
        return ab.OutboxRouter(provider)

    class Mine:
        def tenants(self):
            return ["acme"]

        def outbox(self, tenant):
            return outbox

    outbox = ab.Outbox.memory()
    router = use(Mine())
    assert router.refresh() == ["acme"]
    assert router.outbox("acme") is outbox


def test_x5_of_a_store_that_never_worked_a_worker_that_stops_does_not_say_it_works_again(caplog):
    """Only what was claimed or written tells that it does."""
    dead = ab.Outbox("postgresql://nobody@127.0.0.1:1/nothing")
    memory = ab.Outbox.memory()
    worker = ab.OutboxWorker({"dead": dead, "memory": memory})

    @worker.on("mail")
    async def handle(message):
        await until(lambda: any("its messages wait" in it.message for it in caplog.records))
        worker.stop()

    memory.enqueue("mail", 1)
    with caplog.at_level(logging.WARNING, "anabranch"):
        asyncio.run(asyncio.wait_for(worker.run(), PATIENCE))
    assert not any("works again" in it.message for it in caplog.records)


def test_h6_a_handler_that_blocks_in_one_store_delays_no_other_and_each_has_its_concurrency():
    """It is a `def`: it blocks a thread, not the worker."""
    outboxes = {name: ab.Outbox.memory() for name in ("acme", "globex", "initech")}
    worker = ab.OutboxWorker(outboxes)
    blocked, lock = threading.Event(), threading.Lock()
    busy = collections.Counter()
    most = collections.Counter()
    done = []

    @worker.on("mail", concurrency=2)
    def handle(message):
        with lock:
            busy[message.tenant] += 1
            most[message.tenant] = max(most[message.tenant], busy[message.tenant])
        if message.tenant == "acme":
            assert blocked.wait(PATIENCE)
        with lock:
            busy[message.tenant] -= 1
            done.append(message.tenant)
            others = len(done) - done.count("acme")
        if others == 10:
            blocked.set()
        if len(done) == 15:
            worker.stop()

    for outbox in outboxes.values():
        outbox.enqueue_many([ab.Draft("mail", n) for n in range(5)])
    asyncio.run(asyncio.wait_for(worker.run(), PATIENCE))
    assert "acme" not in done[:10]
    assert most["acme"] == 2
    assert max(most.values()) == 2
