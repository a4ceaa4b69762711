"""The contract `inline`: claim, handlers and ack in one transaction of the user's own driver.

The rows H, A, K and J that it can have; see `outboxes.INLINE_CANNOT` for the others.
"""

import asyncio
import contextlib
import sqlite3

import aiosqlite
import asyncpg
import outboxes
import psycopg
import pytest
import sqlalchemy
import sqlalchemy.ext.asyncio as alchemy_asyncio
import sqlalchemy.orm

import anabranch as ab

PATIENCE = 60.0


@pytest.fixture(params=["postgres", "sqlite"])
def side(request, tmp_path):
    with contextlib.closing(outboxes.opened(request.param, tmp_path)) as side:
        with side.transaction() as conn:
            conn.execute("create table effects (topic text, number integer)")
        yield side


def connector(side):
    if side.kind == "sqlite":
        return lambda: sqlite3.connect(side.path, check_same_thread=False)
    return lambda: psycopg.connect(side.url)


def inline(side, **options) -> ab.OutboxWorker:
    return ab.OutboxWorker(side.outbox, ack="inline", connect=connector(side), **options)


def quick(attempts: int = 3, delay: float = 0.0) -> ab.Retry:
    return ab.Retry.fixed(delay, attempts=attempts, retry_on=Exception)


def note(message) -> None:
    """Have an effect, in the transaction of the message."""
    value = f"insert into effects values ('{message.topic}', {message.payload})"
    message.connection.execute(value)


def effects(side) -> list[tuple]:
    with side.transaction() as conn:
        rows = conn.execute("select topic, number from effects order by 1, 2").fetchall()
    return [tuple(row) for row in rows]


def until_empty(worker: ab.OutboxWorker) -> int:
    claimed = 0
    while count := worker.run_once_blocking():
        claimed += count
    return claimed


def test_h9_effects_and_ack_are_one_transaction(side):
    worker = inline(side)
    before = []

    @worker.on("order")
    def handle(message):
        note(message)
        before.append((effects(side) if side.kind == "postgres" else [], message.attempt))

    side.outbox.enqueue_many([ab.Draft("order", n) for n in range(3)])
    assert until_empty(worker) == 3
    assert before == [([], 1)] * 3
    assert effects(side) == [("order", n) for n in range(3)]
    assert side.outbox.counts() == {"order": {"done": 3}}


def test_h9_one_that_fails_rolls_the_batch_back_and_it_is_redone_one_by_one(side):
    worker = inline(side)
    calls = []

    @worker.on("order", retry=quick(2))
    def handle(message):
        calls.append((message.payload, message.attempt))
        note(message)
        if message.payload == 1:
            raise ValueError("bad")

    side.outbox.enqueue_many([ab.Draft("order", n) for n in range(3)])
    until_empty(worker)
    assert effects(side) == [("order", 0), ("order", 2)]
    assert side.outbox.counts() == {"order": {"done": 2, "dead": 1}}
    # In the batch, perhaps with some of those behind the one that failed; then one by one.
    assert calls[:2] == [(0, 1), (1, 1)]
    assert calls[-4:] == [(0, 1), (1, 1), (2, 1), (1, 2)]
    [dead] = side.outbox.messages()
    assert [error.error for error in dead.errors] == ["ValueError: bad"] * 2


def test_h9_an_effect_that_the_database_refuses_fails_its_message_alone(side):
    with side.transaction() as conn:
        conn.execute("create unique index one on effects (topic, number)")
        conn.execute("insert into effects values ('order', 1)")
    worker = inline(side)
    worker.on("order", retry=quick(1))(note)
    side.outbox.enqueue_many([ab.Draft("order", n) for n in range(3)])
    until_empty(worker)
    assert effects(side) == [("order", n) for n in range(3)]
    assert side.outbox.counts() == {"order": {"done": 2, "dead": 1}}


def test_n1_what_a_handler_enqueues_over_its_connection_is_there_with_the_ack(side):
    worker = inline(side)

    @worker.on("order", retry=quick(2))
    def handle(message):
        side.outbox.enqueue(message.connection, "mail", message.payload)
        if message.attempt == 1:
            raise OSError

    worker.on("mail")(note)
    side.outbox.enqueue("order", 7)
    until_empty(worker)
    assert effects(side) == [("mail", 7)]
    assert side.outbox.counts() == {"order": {"done": 1}, "mail": {"done": 1}}


def test_h1_subscribers_have_attempts_and_dead_letters_of_their_own(side):
    worker = inline(side)
    seen = []

    @worker.on("order", subscriber="projection")
    def project(message):
        seen.append(("projection", message.attempt))
        note(message)

    @worker.on("order", subscriber="mail", retry=quick(3))
    def mail(message):
        seen.append(("mail", message.attempt))
        if message.attempt < 3:
            raise OSError

    @worker.on("order", subscriber="broker", retry=quick(1))
    def publish(message):
        seen.append(("broker", message.attempt))
        raise ValueError("no")

    side.outbox.enqueue("order", 7)
    until_empty(worker)
    assert effects(side) == [("order", 7)]
    assert side.outbox.counts() == {"order": {"dead": 1}}
    assert sorted(set(seen)) == [
        ("broker", 1),
        *(("mail", n) for n in (1, 2, 3)),
        ("projection", 1),
    ]
    # Requeued, it is the broker's alone.
    seen.clear()
    side.outbox.requeue()
    until_empty(worker)
    assert seen == [("broker", 1)]
    assert effects(side) == [("order", 7)]


def test_h1_a_subscriber_elsewhere_gets_its_part(side):
    mine, others = inline(side), ab.OutboxWorker(side.again)
    seen = []
    mine.on("order", subscriber="mine")(note)
    others.on("order", subscriber="others")(lambda message: seen.append(message.payload))
    mine.run_once_blocking()
    others.run_once_blocking()
    side.outbox.enqueue("order", 7)
    until_empty(mine)
    assert (effects(side), seen) == ([("order", 7)], [])
    assert until_empty(others) == 1
    assert (effects(side), seen) == ([("order", 7)], [7])
    assert side.outbox.counts() == {"order": {"done": 1}}


def test_h4_reject_is_dead_at_once_and_retry_later_does_not_count(side):
    worker = inline(side)
    seen = []

    @worker.on("a")
    def reject(message):
        raise ab.Reject("no such address")

    @worker.on("b", retry=quick(1))
    async def later(message):
        seen.append(message.attempt)
        if len(seen) < 3:
            raise ab.RetryLater(60.0)

    side.outbox.enqueue("a", 0)
    side.outbox.enqueue("b", 0)
    for _ in range(3):
        until_empty(worker)
        side.pass_time(61.0)
    assert seen == [1, 1, 1]
    assert side.outbox.counts() == {"a": {"dead": 1}, "b": {"done": 1}}


def test_h3_a_topic_without_a_handler_is_parked_until_there_is_one(side):
    worker = inline(side)

    @worker.on("order", retry=quick(2))
    def handle(message):
        note(message)
        if message.attempt == 1:
            raise OSError("so that the batch is redone")

    side.outbox.enqueue("mail", 1)
    side.outbox.enqueue("order", 2)
    until_empty(worker)
    assert side.outbox.counts() == {"mail": {"parked": 1}, "order": {"done": 1}}
    worker.on("mail")(note)
    until_empty(worker)
    assert effects(side) == [("mail", 1), ("order", 2)]


def test_h8_a_batch_comes_as_a_list(side):
    worker = inline(side)
    sizes = []

    @worker.on("order", batch=10, retry=quick(1))
    def handle(messages):
        sizes.append(len(messages))
        for message in messages:
            note(message)
        if any(message.payload == 3 for message in messages):
            raise ValueError

    side.outbox.enqueue_many([ab.Draft("order", n) for n in range(5)])
    until_empty(worker)
    assert sizes == [5, 1, 1, 1, 1, 1]
    assert effects(side) == [("order", n) for n in (0, 1, 2, 4)]


def test_h10_what_a_failed_attempt_did_elsewhere_is_undone(side):
    worker = inline(side)
    log = []

    @worker.on("order", retry=quick(2))
    def handle(message, ctx):
        log.append("do")
        ctx.compensate(log.append, "undo")
        raise ValueError

    side.outbox.enqueue("order", 7)
    until_empty(worker)
    assert log == ["do", "undo"] * 2


def test_j1_members_are_counted_with_the_effects(side):
    worker = inline(side)
    worker.on("member", retry=quick(1))(note)
    worker.on("then")(note)
    with side.transaction() as tx:
        join = side.outbox.join(tx, expected=3, then=ab.Draft("then", 7))
        side.outbox.enqueue_many(tx, [ab.Draft("member", n, join=join) for n in range(3)])
    until_empty(worker)
    assert effects(side) == [*(("member", n) for n in range(3)), ("then", 7)]
    assert [it.status for it in side.outbox.joins()] == ["done"]


def test_k10_of_an_ordering_key_one_is_handled_after_the_other(side):
    worker = inline(side)
    seen = []

    @worker.on("order", retry=quick(3))
    def handle(message):
        if message.payload == 1 and message.attempt < 3:
            raise OSError
        seen.append((message.ordering_key, message.payload))

    drafts = [ab.Draft("order", n, ordering_key=key) for n in range(3) for key in "ab"]
    side.outbox.enqueue_many(drafts)
    until_empty(worker)
    for key in "ab":
        assert list(dict.fromkeys(n for k, n in seen if k == key)) == [0, 1, 2]


def test_k5_k6_two_at_work_never_hold_one_message(tmp_path):
    """In PostgreSQL, whose rows are locked: in SQLite one waits for the other."""
    with contextlib.closing(outboxes.opened("postgres", tmp_path)) as side:
        with side.transaction() as conn:
            conn.execute("create table effects (topic text, number integer)")
        side.outbox.enqueue_many([ab.Draft("order", n) for n in range(500)])

        async def both():
            workers = [inline(side, batch=20, name=name) for name in ("one", "two")]
            for worker in workers:
                worker.on("order")(note)
            while sum([await worker.run_once() for worker in workers]):
                await asyncio.gather(*(worker.run_once() for worker in workers))

        asyncio.run(both())
        assert effects(side) == [("order", n) for n in range(500)]
        assert side.outbox.counts() == {"order": {"done": 500}}


def test_k6_what_another_transaction_holds_is_passed_over(tmp_path):
    with contextlib.closing(outboxes.opened("postgres", tmp_path)) as side:
        worker, other = inline(side), ab.OutboxWorker(side.again)
        held, others = [], []
        worker.on("order")(lambda message: held.append(other.run_once_blocking()))
        other.on("order", subscriber="order")(lambda message: others.append(message.payload))
        first, second = side.outbox.enqueue("order", 1), side.outbox.enqueue("order", 2)
        worker.run_once_blocking()
        assert (held, others) == ([0, 0], [])
        assert side.outbox.counts() == {"order": {"done": 2}}
        assert first < second


def test_a8_a_commit_that_fails_is_no_failure_of_the_handler(side):
    broken = []
    make = connector(side)

    def connect():
        conn = make()
        if broken:
            return conn

        class Once(type(conn)):
            def commit(self):
                if not broken:
                    broken.append(True)
                    raise OSError("the network is gone")
                super().commit()

        conn.close()
        if side.kind == "sqlite":
            return sqlite3.connect(side.path, check_same_thread=False, factory=Once)
        return Once.connect(side.url)

    worker = ab.OutboxWorker(side.outbox, ack="inline", connect=connect)
    worker.on("order", retry=quick(1))(note)
    side.outbox.enqueue("order", 7)
    assert worker.run_once_blocking() == 0
    assert broken
    assert effects(side) == []
    [message] = side.outbox.messages()
    assert (message.status, message.attempt, message.errors) == ("ready", 0, ())
    until_empty(worker)
    assert effects(side) == [("order", 7)]


def test_a_handler_that_ends_the_transaction_is_told_of(side, caplog):
    worker = inline(side)

    @worker.on("order")
    def handle(message):
        note(message)
        if message.payload == 1:
            message.connection.commit()
            assert len(side.again.claim()) == 2

    side.outbox.enqueue_many([ab.Draft("order", n) for n in (1, 2)])
    assert worker.run_once_blocking() == 0
    said = [it.getMessage() for it in caplog.records]
    assert any("leave commit and rollback to the worker" in it for it in said)
    # It is the other one's now.
    assert side.outbox.counts() == {"order": {"leased": 2}}


def test_z6_a_worker_that_stops_commits_what_is_done_or_rolls_all_back(side):
    worker = inline(side)
    begun, free = asyncio.Event(), asyncio.Event()

    @worker.on("order")
    async def handle(message):
        note(message)
        begun.set()
        await free.wait()

    side.outbox.enqueue_many([ab.Draft("order", n) for n in range(10)])

    async def main():
        async with worker:
            await asyncio.wait_for(begun.wait(), PATIENCE)
            worker.stop()
            free.set()

    asyncio.run(main())
    counts = side.outbox.counts()["order"]
    assert counts == {"ready": 10}
    assert effects(side) == []
    assert {message.attempt for message in side.outbox.messages()} == {0}


def test_h7_a_handler_that_ends_the_process_leaves_nothing_half_done(side):
    worker = inline(side)

    @worker.on("order", inline=True)
    def handle(message):
        note(message)
        if message.payload == 2:
            raise KeyboardInterrupt

    side.outbox.enqueue_many([ab.Draft("order", n) for n in range(5)])
    with pytest.raises(KeyboardInterrupt):
        worker.run_once_blocking()
    assert effects(side) == []
    assert side.outbox.counts() == {"order": {"ready": 5}}


def test_x6_an_idle_worker_hears_of_what_is_enqueued(side):
    worker = inline(side, poll=3600.0, max_idle_poll=3600.0)
    over = asyncio.Event()

    @worker.on("order")
    async def handle(message):
        note(message)
        if message.payload == 2:
            over.set()

    async def main():
        async with worker:
            await asyncio.sleep(0.05)
            side.outbox.enqueue("order", 1)
            await asyncio.sleep(0.05)
            with side.transaction() as tx:
                side.outbox.enqueue(tx, "order", 2)
            await asyncio.wait_for(over.wait(), PATIENCE)

    asyncio.run(main())
    assert effects(side) == [("order", 1), ("order", 2)]


def test_h9_over_connections_that_are_awaited(side):
    async def connect():
        if side.kind == "sqlite":
            return await aiosqlite.connect(side.path)
        return await psycopg.AsyncConnection.connect(side.url)

    worker = ab.OutboxWorker({"acme": side.outbox}, ack="inline", connect=lambda key: connect())

    @worker.on("order", retry=quick(2))
    async def handle(message):
        value = f"insert into effects values ('{message.tenant}', {message.payload})"
        await message.connection.execute(value)
        if message.payload == 1 and message.attempt == 1:
            raise OSError

    side.outbox.enqueue_many([ab.Draft("order", n) for n in range(3)])
    until_empty(worker)
    assert effects(side) == [("acme", n) for n in range(3)]
    assert side.outbox.counts() == {"order": {"done": 3}}


def test_z5_every_effect_happens_once_whatever_the_handlers_do(side):
    import random

    chance = random.Random(7)
    worker = inline(side, batch=16, seed=7)

    @worker.on("order", retry=quick(50))
    def handle(message):
        note(message)
        if chance.random() < 0.1:
            raise OSError("unlucky")

    side.outbox.enqueue_many([ab.Draft("order", n) for n in range(100)])
    until_empty(worker)
    assert effects(side) == [("order", n) for n in range(100)]
    assert side.outbox.counts() == {"order": {"done": 100}}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ack": "both"}, "ack must be 'lease' or 'inline'"),
        ({"ack": "inline"}, "connect must be a callable"),
        ({"connect": lambda: None}, "connect must be given with ack='inline'"),
    ],
)
def test_bad_arguments_are_refused(tmp_path, options, said):
    outbox = ab.Outbox(f"sqlite:///{tmp_path}/shop.db")
    with pytest.raises(ab.ConfigError, match=said):
        ab.OutboxWorker(outbox, **options)


def test_an_outbox_in_memory_and_concurrency_are_refused(tmp_path):
    with pytest.raises(ab.ConfigError, match="in memory: it has no driver"):
        ab.OutboxWorker(ab.Outbox.memory(), ack="inline", connect=lambda: None)
    outbox = ab.Outbox(f"sqlite:///{tmp_path}/shop.db")
    worker = ab.OutboxWorker(outbox, ack="inline", connect=lambda: None)
    with pytest.raises(ab.ConfigError, match="on: concurrency must be 1"):
        worker.on("order", concurrency=2)(note)


@pytest.mark.parametrize(
    ("options", "said"),
    [({}, "check_same_thread=False"), ({"isolation_level": None}, "not in autocommit mode")],
)
def test_a_connection_that_cannot_be_used_so_is_refused(tmp_path, options, said):
    with contextlib.closing(outboxes.opened("sqlite", tmp_path)) as side:
        made = []

        def connect():
            made.append(sqlite3.connect(side.path, **options))
            return made[-1]

        worker = ab.OutboxWorker(side.outbox, ack="inline", connect=connect)
        worker.on("order")(note)
        with pytest.raises(ab.ConfigError, match=said):
            worker.run_once_blocking()
        made[0].close()


async def of_asyncpg(side, _engines):
    return await asyncpg.connect(side.url)


async def of_alchemy(side, engines):
    engines.append(sqlalchemy.create_engine(with_psycopg(side)))
    return engines[-1].connect()


async def of_a_session(side, engines):
    engines.append(sqlalchemy.create_engine(with_psycopg(side)))
    return sqlalchemy.orm.Session(engines[-1])


async def of_async_alchemy(side, engines):
    engines.append(alchemy_asyncio.create_async_engine(with_psycopg(side)))
    return await engines[-1].connect()


def with_psycopg(side):
    return side.url.replace("postgresql:", "postgresql+psycopg:")


async def awaited(result):
    return await result if hasattr(result, "__await__") else result


@pytest.mark.parametrize("connect", [of_alchemy, of_a_session, of_async_alchemy, of_asyncpg])
def test_n1_h9_effect_and_ack_are_one_transaction_of_every_driver(tmp_path, connect):
    """What has failed is rolled back with its effect, and comes again."""
    with contextlib.closing(outboxes.opened("postgres", tmp_path)) as side:
        with side.transaction() as conn:
            conn.execute("create table effects (topic text, number integer)")
        engines = []
        worker = ab.OutboxWorker(side.outbox, ack="inline", connect=lambda: connect(side, engines))
        attempts = []

        @worker.on("order", retry=quick(2))
        async def handle(message):
            value = f"insert into effects values ('order', {message.payload})"
            statement = value if connect is of_asyncpg else sqlalchemy.text(value)
            await awaited(message.connection.execute(statement))
            attempts.append(message.attempt)
            if message.payload == 1 and message.attempt == 1:
                raise OSError

        side.outbox.enqueue_many([ab.Draft("order", n) for n in range(3)])

        async def main():
            while await worker.run_once():
                pass
            for engine in engines:
                await awaited(engine.dispose())

        asyncio.run(main())
        assert effects(side) == [("order", n) for n in range(3)]
        assert side.outbox.counts() == {"order": {"done": 3}}
        assert 2 in attempts


def test_x6_no_more_connections_of_the_users_own_are_open_than_there_may_be(tmp_path):
    names = [str(n) for n in range(6)]
    for name in names:
        (tmp_path / name).mkdir()
    sides = {name: outboxes.SqliteSide(tmp_path / name) for name in names}
    open_ = []
    most = []

    class Counted(sqlite3.Connection):
        def close(self):
            open_.remove(self)
            super().close()

    def connect(tenant):
        made = sqlite3.connect(sides[tenant].path, check_same_thread=False, factory=Counted)
        open_.append(made)
        most.append(len(open_))
        return made

    router = ab.OutboxRouter({name: side.outbox for name, side in sides.items()})
    worker = ab.OutboxWorker(router, ack="inline", connect=connect, connections=2)
    seen = []

    @worker.on("order")
    async def handle(message):
        seen.append(message.tenant)
        if len(seen) == 2 * len(names):
            worker.stop()

    for side in sides.values():
        side.outbox.enqueue_many([ab.Draft("order", n) for n in range(2)])
    asyncio.run(asyncio.wait_for(worker.run(), PATIENCE))
    assert sorted(seen) == sorted(names * 2)
    assert max(most) <= 2
    assert open_ == []
    for side in sides.values():
        side.close()


def test_x4_a_selection_says_whose_transaction_is_next(tmp_path):
    """A worker with `ack="inline"` asks it as one with leases does, and tells what is there."""
    sights = []

    def last_first(stores):
        sights.append({it.tenant: it.depth for it in stores})
        return max(stores, key=lambda it: it.tenant)

    with contextlib.closing(outboxes.SqliteSide(tmp_path)) as side:
        tenants = {name: side.outbox.tenant(name) for name in ("a", "b", "c")}
        worker = ab.OutboxWorker(
            tenants,
            ack="inline",
            connect=lambda _: sqlite3.connect(side.path, check_same_thread=False),
            selection=last_first,
            parallel=1,
        )
        order = []

        @worker.on("order")
        async def handle(message):
            order.append(message.tenant)

        for tenant in tenants.values():
            tenant.enqueue("order", 1)
        assert worker.run_once_blocking() == 3
        assert order == ["c", "b", "a"]
        assert sights[0].keys() == {"a", "b", "c"}


def test_h9_a_claim_is_neither_compiled_nor_sorted_and_handlers_find_the_settings_as_they_were():
    """A claim that PostgreSQL compiled took half a second; what a user has set is the user's."""
    at_claims, at_handlers = [], []

    class Asking(psycopg.Cursor):
        def execute(self, query, params=None, **options):
            # What holds one message by its id looks cheap.
            if "generate_series" in query and "skip locked" in query:
                super().execute("select current_setting('jit'), current_setting('enable_sort')")
                at_claims.append(self.fetchone())
            return super().execute(query, params, **options)

    with contextlib.closing(outboxes.PostgresSide()) as side:
        for setting in ("on", "off"):
            settings = f"-c jit={setting} -c enable_sort={setting}"
            options = {"options": settings, "cursor_factory": Asking}
            worker = ab.OutboxWorker(
                side.outbox,
                ack="inline",
                connect=lambda options=options: psycopg.connect(side.url, **options),
            )

            @worker.on("order", inline=True)
            def handle(message):
                sql = "select current_setting('jit'), current_setting('enable_sort')"
                at_handlers.append(message.connection.execute(sql).fetchone())

            # One by itself is held in a transaction that claims nothing else.
            side.outbox.enqueue_many([ab.Draft("order", n) for n in range(2)])
            assert worker.run_once_blocking() == 2
    assert set(at_claims) == {("off", "off")}
    assert at_handlers == [("on", "on")] * 2 + [("off", "off")] * 2
