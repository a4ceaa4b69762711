"""Concurrency: how many are in flight, per branch and in all, and in which order they leave."""

import asyncio
import random
import threading

import pytest
from support import Live, Seen, balanced, every_driver, go, turns, wait_for, within

import anabranch as ab
from anabranch.testing import VirtualClock


class Gauge:
    """Counts calls under way, in all and per tenant."""

    def __init__(self):
        self.now = {}
        self.most = {}
        self.peak = 0
        self._lock = threading.Lock()

    def enter(self, tenant):
        with self._lock:
            self.now[tenant] = self.now.get(tenant, 0) + 1
            self.most[tenant] = max(self.most.get(tenant, 0), self.now[tenant])
            self.peak = max(self.peak, sum(self.now.values()))

    def leave(self, tenant):
        with self._lock:
            self.now[tenant] -= 1

    async def handle(self, item, ctx):
        self.enter(ctx.tenant)
        await turns(3)
        self.leave(ctx.tenant)
        return item


def tenants(count, branches):
    return [(n % branches, n) for n in range(count)]


@pytest.mark.parametrize("concurrency", [1, 2, 7])
@pytest.mark.parametrize("operator", ["map", "for_each"])
@every_driver
def test_t11_never_more_than_n_per_branch(driver, operator, concurrency):
    gauge = Gauge()
    pipeline = ab.Pipeline("p").source(tenants(400, 4)).fan_out(by=ab.item(0))
    pipeline = getattr(pipeline, operator)(gauge.handle, concurrency=concurrency)
    report = balanced(go(pipeline if operator == "for_each" else pipeline.collect(), driver))
    assert report.committed == 400
    assert gauge.most == dict.fromkeys(range(4), concurrency)


@pytest.mark.parametrize("limit", [1, 5, 30])
@every_driver
def test_t11_never_more_than_max_in_flight_per_pipeline(driver, limit):
    gauge = Gauge()
    pipeline = ab.Pipeline("p", max_in_flight=limit).source(tenants(1000, 50))
    pipeline = pipeline.map(gauge.handle, concurrency=20).fan_out(by=ab.item(0))
    report = balanced(go(pipeline.for_each(gauge.handle, concurrency=4), driver))
    assert report.committed == 1000
    assert gauge.peak == limit


@every_driver
def test_t11_max_in_flight_is_256_by_default(driver):
    gauge, full = Gauge(), asyncio.Event()

    async def handle(item, ctx):
        gauge.enter(ctx.tenant)
        if gauge.peak == 256:
            full.set()
        await full.wait()
        await turns(2)
        gauge.leave(ctx.tenant)

    pipeline = ab.Pipeline("p").source(tenants(2000, 500)).fan_out(by=ab.item(0))
    balanced(go(pipeline.for_each(handle, concurrency=2), driver))
    assert gauge.peak == 256


@pytest.mark.parametrize("concurrency", [1, 3])
@every_driver
def test_t11_def_sinks_overlap_on_the_pool_up_to_n_per_branch(driver, concurrency):
    gauge = Gauge()
    # Each waits for as many as may be there at once: they must overlap.
    meeting = threading.Barrier(2 * concurrency)

    def sink(item, ctx):
        gauge.enter(ctx.tenant)
        meeting.wait(20)
        gauge.leave(ctx.tenant)

    pipeline = ab.Pipeline("p").source(tenants(60, 2)).fan_out(by=ab.item(0))
    report = balanced(go(pipeline.for_each(sink, concurrency=concurrency), driver))
    assert report.committed == 60
    assert gauge.most == {0: concurrency, 1: concurrency}


@every_driver
def test_t11_the_pool_has_as_many_threads_as_it_was_told(driver):
    names = set()
    meeting = threading.Barrier(3)

    def sink(item):
        names.add(threading.current_thread().name)
        meeting.wait(20)

    pipeline = ab.Pipeline("p", threads=3).source(range(30)).fan_out(by=lambda n: n)
    assert balanced(go(pipeline.for_each(sink), driver)).committed == 30
    assert len(names) == 3


def in_random_order(seed):
    """Make an async map whose calls end out of order."""
    rng = random.Random(seed)
    delays = [rng.randrange(8) for _ in range(500)]

    async def call(n):
        await turns(delays[n])
        return n

    return call


@pytest.mark.parametrize("seed", range(3))
@every_driver
def test_t11_ordered_leaves_in_the_order_it_came(driver, seed):
    pipeline = ab.Pipeline("p").source(range(500)).map(in_random_order(seed), concurrency=16)
    assert go(pipeline.collect(), driver).items == list(range(500))


@every_driver
def test_t11_ordered_holds_per_branch_with_failures_and_retries(driver):
    slow = in_random_order(5)
    failed = set()

    async def call(pair):
        await slow(pair[1])
        if pair[1] % 11 == 3:
            raise ValueError(pair)
        if pair[1] % 7 == 5 and pair not in failed:
            failed.add(pair)
            raise OSError(pair)
        return pair

    pipeline = ab.Pipeline("p").source(tenants(500, 3)).fan_out(by=ab.item(0))
    retry = ab.Retry.fixed(0, retry_on=OSError)
    report = balanced(go(pipeline.map(call, concurrency=8, retry=retry).collect(), driver))
    for tenant in range(3):
        expected = [n for n in range(500) if n % 3 == tenant and n % 11 != 3]
        assert [n for own, n in report.items if own == tenant] == expected


@every_driver
def test_t11_unordered_leaves_when_ready(driver):
    first = asyncio.Event()

    async def call(n):
        if n == 0:
            await first.wait()
        elif n == 9:
            first.set()
        return n

    pipeline = ab.Pipeline("p").source(range(10)).map(call, concurrency=4, ordered=False).collect()
    report = balanced(go(pipeline, driver))
    assert report.items == [*range(1, 10), 0]


@within
async def test_t11_ordered_waits_for_the_first():
    source, seen, gate, begun = Live(0, 1, 2), Seen(), asyncio.Event(), Seen()

    async def call(n):
        begun(n)
        if n == 0:
            await gate.wait()
        return n

    pipeline = ab.Pipeline("p").source(source).map(call, concurrency=3)
    async with pipeline.for_each(seen, inline=True).start() as running:
        await begun.reach(3)
        await turns(20)
        assert seen.items == []
        gate.set()
        await seen.reach(3)
        source.end()
        await running.wait()
    assert seen.items == [0, 1, 2]


def test_t11_a_slow_tenant_on_the_pool_does_not_hold_up_the_others():
    others, gate = Seen(), threading.Event()

    def sink(pair):
        if pair[0] == "slow":
            wait_for(gate)
        else:
            others(pair)
            if len(others.items) == 100:
                gate.set()

    pairs = [("slow", 0), *(("quick", n) for n in range(100))]
    pipeline = ab.Pipeline("p").source(pairs).fan_out(by=ab.item(0)).for_each(sink)
    assert balanced(pipeline.run_blocking()).committed == 101


@within
async def test_t11_a_slow_tenant_in_the_loop_does_not_hold_up_the_others():
    others, gate = Seen(), asyncio.Event()

    async def sink(pair):
        if pair[0] == "slow":
            await gate.wait()
        else:
            others(pair)

    pairs = [("slow", 0), *(("quick", n) for n in range(100))]
    pipeline = ab.Pipeline("p").source(pairs).fan_out(by=ab.item(0)).for_each(sink)
    async with pipeline.start() as running:
        await others.reach(100)
        gate.set()
        assert balanced(await running.wait()).committed == 101


@within
async def test_a_pipeline_leaves_the_loop_to_others():
    turned = 0
    done = asyncio.Event()

    async def ticker():
        nonlocal turned
        while not done.is_set():
            turned += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(ticker())
    pipeline = ab.Pipeline("p").source(range(300_000)).map(lambda n: n + 1)
    report = await pipeline.for_each(lambda n: None, inline=True).run()
    done.set()
    await ticking
    assert report.committed == 300_000
    assert turned > 20


@within
async def test_t11_many_pipelines_in_one_loop_all_get_their_turn():
    seen = [0] * 100

    def pipeline(number):
        async def sink(window):
            seen[number] += len(window)
            await asyncio.sleep(0)

        source = ({"tenant": n % 3} for n in range(30))
        return (
            ab.Pipeline("p").source(source).fan_out(by="tenant").window(max_items=4).for_each(sink)
        )

    await asyncio.gather(*(pipeline(number).run() for number in range(100)))
    assert seen == [30] * 100


@pytest.mark.parametrize("concurrency", [1, 2])
@within
async def test_b6_a_driver_that_waits_for_room_hears_of_it_before_the_sink_runs_dry(concurrency):
    given = []

    def source():
        for n in range(100):
            given.append(n)
            yield 0

    done = []

    async def sink(_):
        # The driver has nothing to do by now, for its branch is full.
        await turns(5)
        # What is taken out of a branch that is half empty makes room: the source goes on.
        while len(given) < min(len(done) + 6, 100):
            await turns(1)
        done.append(1)

    pipeline = ab.Pipeline("p").source(source())
    pipeline = pipeline.fan_out(by=abs, capacity=8, isolate=False)
    report = await pipeline.for_each(sink, concurrency=concurrency).run()
    assert (report.committed, len(given)) == (100, 100)


@pytest.mark.parametrize("concurrency", [1, 2])
@every_driver
def test_b4_a_branch_is_idle_from_the_end_of_its_last_handler(driver, concurrency):
    clock, closed = VirtualClock(), []

    async def source():
        for n in (1, 2, 3):
            yield n
        await asyncio.sleep(1000.0)

    async def sink(n):
        await asyncio.sleep(50.0)

    pipeline = ab.Pipeline("p", clock=clock).source(source())
    pipeline = pipeline.fan_out(
        by=lambda n: "a", idle_ttl=60.0, on_branch_closed=lambda _: closed.append(clock.now())
    )
    balanced(go(pipeline.for_each(sink, concurrency=concurrency), driver, clock))
    assert closed == [210.0 if concurrency == 1 else 160.0]


def test_e3_a_thread_that_the_system_does_not_give_is_told_with_the_pipeline(monkeypatch):
    def refuse(_thread):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    pipeline = ab.Pipeline("p").source([1]).for_each(print)
    with pytest.raises(RuntimeError) as caught:
        pipeline.run_blocking()
    assert str(caught.value) == (
        "pipeline 'p': the system gives no thread for its `def` callables (can't create new thread"
        " at interpreter shutdown); with inline=True they need none"
    )
