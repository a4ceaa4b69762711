"""PgQueuer over asyncpg: a large batch, and no limit on what is at work at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import asyncpg
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.queries import Queries

from stores import BODY, TOPIC

if TYPE_CHECKING:
    from pgqueuer.models import Job

    from stores import Bench

BATCH = 1000


async def _ready(url: str, count: int) -> None:
    connection = await asyncpg.connect(url)
    queries = Queries(AsyncpgDriver(connection))
    if not await queries.has_table("pgqueuer"):
        await queries.install()
    await queries.clear_queue()
    await queries.enqueue([TOPIC] * count, [BODY] * count, [0] * count)
    await connection.close()


async def _run(url: str, count: int) -> int:
    handled = 0
    connection = await asyncpg.connect(url)
    worker = PgQueuer(AsyncpgDriver(connection))

    @worker.entrypoint(TOPIC)
    async def handle(job: Job) -> None:
        nonlocal handled
        handled += 1
        if handled == count:
            worker.shutdown.set()

    await worker.run(batch_size=BATCH)
    await connection.close()
    return handled


def ready(bench: Bench, count: int) -> None:
    """Enqueue so many messages, and have no others."""
    asyncio.run(_ready(bench.url, count))


def run(bench: Bench, count: int) -> int:
    """Handle them."""
    return asyncio.run(_run(bench.url, count))
