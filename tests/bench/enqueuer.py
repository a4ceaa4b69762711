"""Enqueues one message after another, in a process of its own; tells when each was committed.

    python enqueuer.py postgres|sqlite URL COUNT SECONDS

It prints an array of arrays, with the clock's nanoseconds before and after each commit. The clock
is that of the machine, which all its processes read.
"""

from __future__ import annotations

import contextlib
import json
import random
import sys
from time import perf_counter_ns, sleep

import anabranch as ab
from stores import TOPIC, connect


def main(kind: str, url: str, count: int, seconds: float) -> None:
    """Wait about as many seconds before each message."""
    spread = random.Random(0)
    times: list[tuple[int, int]] = []
    with contextlib.closing(connect(kind, url)) as conn:
        outbox = ab.Outbox(url)
        for number in range(count):
            # At any moment of whatever the worker does now and then.
            sleep(seconds * (0.5 + spread.random()))
            outbox.enqueue(conn, TOPIC, {"n": number})
            begun = perf_counter_ns()
            conn.commit()
            times.append((begun, perf_counter_ns()))
        outbox.close()
    print(json.dumps(times))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
