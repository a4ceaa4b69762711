"""The main job for a long time: memory, threads and descriptors must stay where they are.

`make trials` runs it as a script for `SOAK` seconds (600), half of them with an `async def` sink
and half with one on the pool; the tests run it for a number of items. One tenant of ten is always
refused, one is flaky; each window is undone when it fails, and the books must agree in the end.
"""

import itertools
import os
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import anabranch as ab

TENANTS = 50
# Small: the report keeps its first hundred failures, with what they hold, and must be full of them.
WINDOW = 10
# Between two looks: all windows are then as full as they were at the last one.
ROUND = TENANTS * WINDOW
# Looks at the memory, at least; the first of them, while all grows to its size, do not count.
LOOKS = 12
WARM_UP = 3
DESCRIPTORS = next((it for it in (Path("/proc/self/fd"), Path("/dev/fd")) if it.exists()), None)
# What may be more at one look than at another: blocks of Python's, and bytes of the process.
BLOCKS = 10_000
RESIDENT = 8 << 20


class Refused(Exception):
    """Trying again makes no sense."""


class Soak:
    """One long run; it looks at the process each time `every` says so."""

    def __init__(self, *, looks_due):
        self.watch = ab.testing.MemoryWatch(warm_up=WARM_UP)
        self.looks = 0
        self.highest = Counter()
        self.lowest = Counter()
        self.rows = Counter()
        self._looks_due = looks_due
        self._lock = threading.Lock()

    def look(self):
        self.looks += 1
        self.watch.look()
        if self.looks > WARM_UP:
            seen = {"threads": threading.active_count()}
            if DESCRIPTORS is not None:
                seen["descriptors"] = len(list(DESCRIPTORS.iterdir()))
            for what, count in seen.items():
                self.highest[what] = max(self.highest[what], count)
                self.lowest[what] = min(self.lowest.get(what, count), count)

    def lines(self, going):
        for n in itertools.count():
            if not going(n):
                return
            if n % ROUND == 0 and self._looks_due(n, self.looks):
                self.look()
            yield f"{n % TENANTS}:{n}"

    def write(self, window, ctx):
        tenant = ctx.tenant
        ctx.compensate(self.erase, tenant, len(window))
        with self._lock:
            self.rows[tenant] += len(window)
        if tenant % 10 == 3:
            raise Refused
        if tenant % 10 == 7 and ctx.attempt == 1:
            raise ConnectionError

    async def write_async(self, window, ctx):
        self.write(window, ctx)

    def erase(self, tenant, count):
        with self._lock:
            self.rows[tenant] -= count

    def job(self, going, *, asynchronous):
        retry = ab.Retry.fixed(0.001, attempts=3, retry_on=OSError)
        pipeline = ab.Pipeline("soak").source(self.lines(going)).map(parse)
        pipeline = pipeline.fan_out(by=ab.item(0), capacity=WINDOW).window(max_items=WINDOW)
        if asynchronous:
            return pipeline.for_each(self.write_async, retry=retry, timeout=10.0)
        return pipeline.for_each(self.write, retry=retry)

    def check(self, report):
        """Fail if anything has grown, or if the books do not agree."""
        assert report.balanced, report
        assert report.outcome == "completed", report
        assert report.stuck == 0, report
        assert sum(self.rows.values()) == report.committed, (self.rows, report)
        assert {tenant % 10 for tenant, rows in self.rows.items() if not rows} == {3}
        assert self.looks >= LOOKS, self.looks
        growth = self.watch.growth
        for what, highest in self.highest.items():
            assert highest == self.lowest[what], f"{what}: {self.lowest[what]} to {highest}"
        assert growth.blocks < BLOCKS, growth
        assert growth.resident is None or growth.resident < RESIDENT, growth
        return growth


def parse(line):
    tenant, sequence = line.split(":")
    return int(tenant), int(sequence)


def by_items(items, *, asynchronous):
    """Run for so many items."""
    soak = Soak(looks_due=lambda n, looks: n * (LOOKS + 1) // items > looks)
    report = soak.job(lambda n: n < items, asynchronous=asynchronous).run_blocking()
    return report, soak.check(report)


def by_time(seconds, *, asynchronous):
    """Run for so long."""
    began = time.monotonic()

    def part():
        return (time.monotonic() - began) / seconds

    soak = Soak(looks_due=lambda _, looks: part() * (LOOKS + 1) > looks)
    job = soak.job(lambda n: n % ROUND != 0 or part() < 1.0, asynchronous=asynchronous)
    report = job.run_blocking()
    return report, soak.check(report)


if __name__ == "__main__":
    import logging

    logging.getLogger("anabranch").addHandler(logging.NullHandler())
    length = float(os.environ.get("SOAK", "600"))
    for asynchronous in (True, False):
        report, growth = by_time(length / 2, asynchronous=asynchronous)
        kind = "async" if asynchronous else "pool"
        sys.stdout.write(
            f"soak, {kind}: {report.received:,} items in {report.seconds:.0f} s, "
            f"{report.compensated:,} undone; growth {growth}\n"
        )
