"""awa-pg: its queue storage, jobs that were copied in, and many workers for one queue."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from awa import AsyncClient

if TYPE_CHECKING:
    from stores import Bench

WORKERS = 256
AT_ONCE = 5000
QUEUE = "bench"


@dataclass
class Order:
    """What a job is about."""

    n: int


async def _ready(bench: Bench, count: int) -> None:
    client = AsyncClient(bench.url)
    await client.migrate()
    await client.install_queue_storage(reset=True)
    for first in range(0, count, AT_ONCE):
        jobs = [Order(n) for n in range(first, min(count, first + AT_ONCE))]
        await client.enqueue_many_copy(jobs, queue=QUEUE)
    await client.close()


async def _run(bench: Bench, count: int) -> int:
    handled = 0
    done = asyncio.Event()
    client = AsyncClient(bench.url)

    @client.task(Order, queue=QUEUE)
    async def handle(job: Any) -> None:
        nonlocal handled
        handled += 1
        if handled == count:
            done.set()

    await client.start([(QUEUE, WORKERS)], poll_interval_ms=20)
    await done.wait()
    await client.shutdown()
    await client.close()
    return handled


def ready(bench: Bench, count: int) -> None:
    """Enqueue so many messages, and have no others."""
    asyncio.run(_ready(bench, count))


def run(bench: Bench, count: int) -> int:
    """Handle them."""
    return asyncio.run(_run(bench, count))
