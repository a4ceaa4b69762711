"""DBOS: a queue of workflows without steps, polled often."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from dbos import DBOS

from stores import TOPIC

if TYPE_CHECKING:
    from stores import Bench

POLL = 0.01


def _launch(bench: Bench) -> None:
    DBOS(
        config={
            "name": "bench",
            "system_database_url": bench.url,
            "log_level": "ERROR",
            "application_version": "1",
            "executor_id": "bench",
        }
    )


class _Seen:
    """What the handler has seen, of how many."""

    count = 0
    handled = 0
    done = threading.Event()


@DBOS.workflow(name=TOPIC)
async def handle(n: int) -> None:
    """Count."""
    _Seen.handled += 1
    if _Seen.handled == _Seen.count:
        _Seen.done.set()


def ready(bench: Bench, count: int) -> None:
    """Enqueue so many messages."""
    from dbos import DBOSClient

    _launch(bench)
    DBOS.launch()
    DBOS.register_queue(TOPIC, polling_interval_sec=POLL)
    DBOS.destroy()
    client = DBOSClient(system_database_url=bench.url)
    options = {"queue_name": TOPIC, "workflow_name": TOPIC, "app_version": "1"}
    for n in range(count):
        client.enqueue(options, n)
    client.destroy()


def run(bench: Bench, count: int) -> int:
    """Handle them."""
    _Seen.handled, _Seen.count = 0, count
    _Seen.done.clear()
    _launch(bench)
    DBOS.launch()
    try:
        _Seen.done.wait()
    finally:
        DBOS.destroy()
    return _Seen.handled
