"""litequeue: pop, handle, done, in a loop. Its commits do not wait for the disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from litequeue import LiteQueue

from stores import BODY

if TYPE_CHECKING:
    from stores import Bench


def _queue(bench: Bench) -> LiteQueue:
    return LiteQueue(bench.url.removeprefix("sqlite:///") + ".litequeue")


def ready(bench: Bench, count: int) -> None:
    """Enqueue so many messages, and have no others."""
    queue = _queue(bench)
    queue.prune()
    with queue.transaction():
        for _ in range(count):
            queue.put(BODY.decode())
    queue.close()


def run(bench: Bench, count: int) -> int:
    """Handle them."""
    queue = _queue(bench)
    handled = 0
    while message := queue.pop():
        handled += 1
        queue.done(message.message_id)
    queue.close()
    return handled
