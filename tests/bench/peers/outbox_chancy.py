"""Chancy: a queue with much concurrency, whose handlers run in the event loop."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from chancy import Chancy, Queue, Worker, job

from stores import TOPIC

if TYPE_CHECKING:
    from stores import Bench

CONCURRENCY = 1000


class _Seen:
    """What the handler has seen, of how many."""

    count = 0
    handled = 0
    done: asyncio.Event


# It is found by its name, in a module.
@job(queue=TOPIC)
async def handle(*, n: int) -> None:
    """Count."""
    _Seen.handled += 1
    if _Seen.handled == _Seen.count:
        _Seen.done.set()


def _app(bench: Bench) -> Chancy:
    log = logging.getLogger("bench.chancy")
    log.setLevel(logging.ERROR)
    return Chancy(bench.url, log=log)


async def _ready(bench: Bench, count: int) -> None:
    async with _app(bench) as app:
        await app.migrate()
        queue = Queue(
            TOPIC,
            concurrency=CONCURRENCY,
            executor="chancy.executors.asyncex.AsyncExecutor",
            polling_interval=1,
        )
        await app.declare(queue, upsert=True)
        async with app.pool.connection() as connection:
            await connection.execute("truncate chancy_jobs")
        jobs = [handle.job.with_kwargs(n=n) for n in range(count)]
        async for _ in app.push_many(jobs):
            pass


async def _run(bench: Bench, count: int) -> int:
    _Seen.handled, _Seen.count, _Seen.done = 0, count, asyncio.Event()
    async with _app(bench) as app, Worker(app, register_signal_handlers=False):
        await _Seen.done.wait()
    return _Seen.handled


def ready(bench: Bench, count: int) -> None:
    """Enqueue so many messages, and have no others."""
    asyncio.run(_ready(bench, count))


def run(bench: Bench, count: int) -> int:
    """Handle them."""
    return asyncio.run(_run(bench, count))
