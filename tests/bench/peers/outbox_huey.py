"""huey over SQLite: its storage as it is, and workers that are threads."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from huey import SqliteHuey
from huey.consumer import Consumer

from stores import TOPIC

if TYPE_CHECKING:
    from stores import Bench

WORKERS = 1
POLL = 0.001


def _huey(bench: Bench) -> SqliteHuey:
    path = bench.url.removeprefix("sqlite:///")
    return SqliteHuey(TOPIC, filename=f"{path}.huey", results=False, fsync=True)


def ready(bench: Bench, count: int) -> None:
    """Enqueue so many messages, and have no others."""
    huey = _huey(bench)
    huey.flush()

    @huey.task(name=TOPIC)
    def handle(n: int) -> None: ...

    # One by one, it would take longer than to handle them.
    tasks = [huey.serialize_task(handle.s(n)) for n in range(count)]
    with huey.storage.db(commit=True) as cursor:
        cursor.executemany(
            "insert into task (queue, data, priority) values (?, ?, 0)",
            [(huey.storage.name, task) for task in tasks],
        )


def run(bench: Bench, count: int) -> int:
    """Handle them."""
    handled = 0
    done = threading.Event()
    huey = _huey(bench)
    logging.getLogger("huey").setLevel(logging.ERROR)

    @huey.task(name=TOPIC)
    def handle(n: int) -> None:
        nonlocal handled
        handled += 1
        if handled == count:
            done.set()

    consumer = Consumer(huey, workers=WORKERS, periodic=False, initial_delay=POLL, max_delay=POLL)
    consumer.start()
    done.wait()
    consumer.stop(graceful=True)
    return handled
