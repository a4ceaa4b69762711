"""The main job before a store that is slow, fails, fails after its commit, or hangs."""

import asyncio
import random

import pytest
from faulty import ENDING, FAULTS, Store, main_job
from support import DRIVERS, balanced, go

import anabranch as ab
from anabranch.testing import VirtualClock

TENANTS = 12


def lines_of(sent, seed):
    """Lines of all tenants in a random order, each tenant's in its own."""
    turns = [tenant for tenant, count in sent.items() for _ in range(count)]
    random.Random(seed).shuffle(turns)
    number = dict.fromkeys(sent, 0)
    for tenant in turns:
        yield f"{tenant}:{number[tenant]}"
        number[tenant] += 1


def job(seed, clock, *, asynchronous, lines=None):
    # Some tenants send a hundred times as much as others.
    sent = {f"t{n}": 400 // (n + 1) for n in range(TENANTS)}
    keys = {(tenant, n) for tenant, count in sent.items() for n in range(count)}
    store = Store(seed, faults=FAULTS if asynchronous else ENDING)
    lines = lines_of(sent, seed) if lines is None else lines(lines_of(sent, seed))
    pipeline = main_job(store, lines, asynchronous=asynchronous, clock=clock)
    return pipeline, store, keys


def tell(report, store):
    """The report and the store agree; return how many rows there are."""
    assert (report.stuck, report.abandoned) == (0, 0)
    # Every attempt that failed was undone once; its tries are not counted.
    windows = report.windows
    assert report.compensated == windows + report.retried - sum(
        fate == "stored" for fate, _ in store.fates.values()
    )
    return report.committed


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("driver", DRIVERS)
def test_e8_c10_nothing_is_lost_or_doubled_whatever_the_store_does(driver, asynchronous, seed):
    clock = VirtualClock(seed=seed)
    pipeline, store, keys = job(seed, clock, asynchronous=asynchronous)
    report = balanced(go(pipeline, driver, clock))
    stored, given_up = store.reconcile(keys)
    assert (tell(report, store), report.failed) == (stored, given_up)
    assert report.outcome == "completed"
    assert stored > 0 < given_up
    # All kinds of faults came up.
    assert set(store.injected) == {"none", *store.faults}


@pytest.mark.parametrize("way", ["drain", "abort"])
@pytest.mark.parametrize("seed", range(5))
def test_e8_c18_a_run_that_is_stopped_leaves_only_whole_windows(way, seed):
    async def main():
        async def slowly(lines):
            for number, line in enumerate(lines):
                if number == 300:
                    getattr(running, way)()
                await asyncio.sleep(0.05)
                taken.add(line)
                yield line

        taken = set()
        pipeline, store, keys = job(seed, None, asynchronous=True, lines=slowly)
        running = pipeline.start()
        async with running:
            report = balanced(await running.wait())
        return report, store, keys, taken

    report, store, keys, taken = ab.testing.run(main(), clock=VirtualClock(seed=seed))
    # What was never begun is not in the store's books: it is left, or was not taken.
    begun = {(tenant, n) for (tenant, _), (_, w) in store.fates.items() for _, n in w}
    stored, given_up = store.reconcile(begun)
    assert begun <= keys
    assert report.committed == stored
    assert report.failed == given_up
    assert report.received <= len(taken)
    assert report.left == report.received - stored - given_up - report.dropped
    assert (report.stuck, report.outcome) == (0, "drained" if way == "drain" else "aborted")
    assert (way == "drain") <= (report.left == report.dropped == 0)
