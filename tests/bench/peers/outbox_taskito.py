"""taskito, over SQLite or PostgreSQL: dispatched in batches, and told of what is enqueued."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

from taskito import Queue

from stores import TOPIC

if TYPE_CHECKING:
    from stores import Bench

BATCH = 100
POLL_MS = 1


def _queue(bench: Bench) -> Any:
    options: dict[str, Any] = {
        "scheduler_batch_size": BATCH,
        "scheduler_poll_interval_ms": POLL_MS,
        "push_dispatch": True,
        "result_ttl": 1,
    }
    if bench.kind == "sqlite":
        path = bench.url.removeprefix("sqlite:///")
        return Queue(db_path=f"{path}.taskito", **options)
    return Queue(backend="postgres", db_url=bench.url, **options)


# Its worker sets the level of its log by this alone: a line for each task would slow it down.
os.environ["TASKITO_LOG_LEVEL"] = "ERROR"


def ready(bench: Bench, count: int) -> None:
    """Enqueue so many messages."""
    queue = _queue(bench)

    @queue.task(name=TOPIC)
    def handle(n: int) -> None: ...

    for first in range(0, count, 1000):
        queue.enqueue_many(TOPIC, [(n,) for n in range(first, min(count, first + 1000))])


def run(bench: Bench, count: int) -> int:
    """Handle them."""
    handled = 0
    counting = threading.Lock()
    queue = _queue(bench)

    @queue.task(name=TOPIC)
    def handle(n: int) -> None:
        nonlocal handled
        with counting:
            handled += 1
            if handled == count:
                queue.shutdown()

    queue.run_worker()
    return handled
