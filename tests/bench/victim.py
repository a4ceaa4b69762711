"""A worker that handles some messages, and is at the next one until it is killed.

    python victim.py URL LEASE COUNT

It prints the number of each message that it has handled, and then that it is stuck.
"""

from __future__ import annotations

import asyncio
import os
import sys

import anabranch as ab
from stores import TOPIC


def main(url: str, lease: float, count: int) -> None:
    """Work."""
    handled = 0
    worker = ab.OutboxWorker(ab.Outbox(url), lease=lease, observe="off")

    @worker.on(TOPIC)
    async def handle(message: ab.Message) -> None:
        nonlocal handled
        if handled == count:
            os.write(1, b"stuck\n")
            await asyncio.Event().wait()
        os.write(1, b"%d\n" % message.id)
        handled += 1

    worker.run_blocking()


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))
