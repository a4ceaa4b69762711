"""Procrastinate: an asynchronous worker with some concurrency, which deletes what is done."""

from __future__ import annotations

import asyncio

import procrastinate

from stores import TOPIC, Bench

CONCURRENCY = 100
AT_ONCE = 1000


def _app(bench: Bench) -> procrastinate.App:
    connector = procrastinate.PsycopgConnector(conninfo=bench.url, max_size=16)
    return procrastinate.App(connector=connector)


async def _ready(bench: Bench, count: int) -> None:
    app = _app(bench)

    @app.task(name=TOPIC)
    async def handle(n: int) -> None: ...

    async with app.open_async():
        if not await app.check_connection_async():
            await app.schema_manager.apply_schema_async()
        await app.connector.execute_query_async("truncate procrastinate_jobs cascade")
        for first in range(0, count, AT_ONCE):
            jobs = range(first, min(count, first + AT_ONCE))
            await handle.batch_defer_async(*({"n": n} for n in jobs))


async def _run(bench: Bench, count: int) -> int:
    handled = 0
    app = _app(bench)

    @app.task(name=TOPIC)
    async def handle(n: int) -> None:
        nonlocal handled
        handled += 1

    async with app.open_async():
        await app.run_worker_async(
            wait=False,
            concurrency=CONCURRENCY,
            delete_jobs="always",
            install_signal_handlers=False,
        )
    return handled


def ready(bench: Bench, count: int) -> None:
    """Enqueue so many messages, and have no others."""
    asyncio.run(_ready(bench, count))


def run(bench: Bench, count: int) -> int:
    """Handle them."""
    return asyncio.run(_run(bench, count))
