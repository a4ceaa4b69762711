"""Connections of a worker to many databases, and whom it lets go of: row X3."""

import asyncio
import contextlib

import outboxes
import postgres
import psycopg
import pytest

import anabranch as ab

PATIENCE = 60.0


@pytest.fixture
def sides(tmp_path):
    with contextlib.ExitStack() as stack:
        given = [contextlib.closing(outboxes.opened("postgres", tmp_path)) for _ in range(6)]
        yield [stack.enter_context(side) for side in given]


def connected(side) -> set[str]:
    """Tell by what a worker is connected to a database."""
    with psycopg.connect(postgres.server().url("postgres")) as conn:
        query = (
            "select application_name from pg_stat_activity "
            "where datname = %s and application_name like 'anabranch%%'"
        )
        return {row[0] for row in conn.execute(query, [side.database])}


async def until_let_go(side) -> None:
    # The server takes a moment to notice that one was closed.
    async with asyncio.timeout(PATIENCE):
        while await asyncio.to_thread(connected, side):
            pass


@pytest.mark.parametrize("connections", [4, 40])
def test_x3_nobody_is_connected_any_more_to_the_database_of_a_tenant_that_was_removed(
    sides, connections
):
    """Not to work, nor to write beside that, nor to listen."""
    tenants = {side.database: side.outbox for side in sides}
    router = ab.OutboxRouter(tenants)
    worker = ab.OutboxWorker(router, connections=connections, poll=0.01, max_idle_poll=0.01)
    seen = asyncio.Queue()
    worker.on("mail", inline=True)(seen.put_nowait)
    # One that is listened to, whatever the number of connections: it has messages.
    gone, *others = sides

    async def work():
        async with worker:
            gone.outbox.enqueue_many([ab.Draft("mail", n) for n in range(2000)])
            for _ in range(2000):
                await asyncio.wait_for(seen.get(), PATIENCE)
            assert await asyncio.to_thread(connected, gone)
            del tenants[gone.database]
            router.refresh()
            await until_let_go(gone)
            for side in others:
                side.outbox.enqueue("mail", side.database)
            told = {(await asyncio.wait_for(seen.get(), PATIENCE)).payload for _ in others}
            assert told == {side.database for side in others}

    asyncio.run(work())
