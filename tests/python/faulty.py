"""A store that is slow, fails, fails after it has committed, or hangs; and who counts its rows.

What is in it is compared with what was sent from outside, by tenant and sequence, as somebody with
a database would do it: the pipeline's own counts are not believed.
"""

import asyncio
import random
import threading
from collections import Counter
from dataclasses import dataclass, field

import anabranch as ab

ATTEMPTS = 3
FAULTS = ("refuse", "commit, then fail", "slow", "hang", "commit, then hang")
# A `def` cannot be cancelled: a hanging one would be left behind with its thread.
ENDING = FAULTS[:3]


@dataclass
class Store:
    """The rows, and what was done to whom; `odds` are those of a fault in one attempt."""

    seed: int
    odds: float = 0.6
    faults: tuple = FAULTS
    rows: Counter = field(default_factory=Counter)
    injected: Counter = field(default_factory=Counter)
    # What the latest attempt at each window has come to, by tenant and first sequence.
    fates: dict = field(default_factory=dict)
    undos: int = 0

    def __post_init__(self):
        self._random = random.Random(self.seed)
        self._lock = threading.Lock()

    def draw(self):
        with self._lock:
            hit = self._random.random() < self.odds
            fault = self._random.choice(self.faults) if hit else "none"
            self.injected[fault] += 1
            return fault

    def write(self, tenant, window):
        with self._lock:
            self.rows.update((tenant, sequence) for _, sequence in window)

    def erase(self, tenant, window):
        """Undo a write, whether it has happened or not; sometimes only at the second try."""
        with self._lock:
            self.undos += 1
            if self._random.random() < self.odds / 4:
                raise ConnectionError("the undo")
            for _, sequence in window:
                self.rows.pop((tenant, sequence), None)

    def begin(self, window, ctx):
        self.fates[ctx.tenant, window[0][1]] = "begun", window
        ctx.compensate(self.erase, ctx.tenant, window, retries=40)
        return self.draw()

    def end(self, window, ctx):
        self.fates[ctx.tenant, window[0][1]] = "stored", window

    def store(self, window, ctx):
        fault = self.begin(window, ctx)
        if fault == "refuse":
            raise ConnectionError(fault)
        self.write(ctx.tenant, window)
        if fault == "commit, then fail":
            raise ConnectionError(fault)
        self.end(window, ctx)

    async def store_async(self, window, ctx):
        fault = self.begin(window, ctx)
        if fault == "refuse":
            raise ConnectionError(fault)
        if fault == "hang":
            await asyncio.Event().wait()
        await asyncio.sleep(3.0 if fault == "slow" else 0.01)
        self.write(ctx.tenant, window)
        if fault == "commit, then hang":
            await asyncio.Event().wait()
        if fault == "commit, then fail":
            raise ConnectionError(fault)
        self.end(window, ctx)

    def given_up(self):
        """The rows of the windows whose last attempt has failed."""
        return {
            (tenant, sequence)
            for (tenant, _), (fate, window) in self.fates.items()
            if fate != "stored"
            for _, sequence in window
        }

    def reconcile(self, sent):
        """Compare the rows with what was sent: nothing is lost, nothing is there twice."""
        doubled = [key for key, times in self.rows.items() if times > 1]
        assert doubled == [], doubled[:5]
        stored, given_up = set(self.rows), self.given_up()
        assert sorted(stored & given_up)[:5] == [], "not undone"
        assert sorted(sent - stored - given_up)[:5] == [], "lost"
        assert sorted(stored - sent)[:5] == [], "never sent"
        return len(stored), len(given_up)


def main_job(store, lines, *, asynchronous, clock=None, size=10, base=0.2):
    """The pipeline the library is for, into that store."""
    retry = ab.Retry.exponential(attempts=ATTEMPTS, base=base, retry_on=(OSError, TimeoutError))
    # Long enough for the last window to hang in each of its attempts.
    pipeline = ab.Pipeline("job", clock=clock, grace=600.0, seed=1).source(lines).map(parse)
    pipeline = pipeline.fan_out(by=ab.item(0), capacity=100)
    pipeline = pipeline.window(max_items=size, max_age=1.0)
    if asynchronous:
        return pipeline.for_each(store.store_async, retry=retry, timeout=5.0)
    return pipeline.for_each(store.store, retry=retry)


def parse(line):
    tenant, sequence = line.split(":")
    return tenant, int(sequence)
