"""Nothing is left behind: threads, descriptors, memory, and what callables hold."""

import contextlib
import gc
import threading
import weakref
from pathlib import Path

import pytest
from support import every_driver, every_sink, go, with_sink

import anabranch as ab

DESCRIPTORS = [Path("/proc/self/fd"), Path("/dev/fd")]


@pytest.fixture(autouse=True, scope="module")
def nothing_but_the_runs():
    # Each look collects garbage: that of the test suite itself would take most of the time.
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def nothing(*args):
    pass


def short_run(driver, kind, *, fail):
    def handler(unit, ctx):
        ctx.compensate(nothing)
        if fail:
            raise ValueError(unit)

    async def looked_up(pair):
        return pair

    pairs = [(n % 3, n) for n in range(30)]
    pipeline = ab.Pipeline("short").source(pairs).map(looked_up).fan_out(by=ab.item(0))
    pipeline = pipeline.map(lambda pair: pair).window(max_items=4, max_age=60.0)
    go(with_sink(pipeline, kind, handler), driver)


def open_files():
    # Linux, and the name the others have for it.
    return len(list(next(it for it in DESCRIPTORS if it.exists()).iterdir()))


@every_sink
@every_driver
def test_threads_and_descriptors_are_flat_over_many_runs(driver, kind):
    # The latest runs may still be looked at for a while: as many as there will ever be.
    for _ in range(10):
        short_run(driver, kind, fail=False)
    threads, files = threading.active_count(), open_files()
    for number in range(25):
        short_run(driver, kind, fail=number % 2 == 0)
    gc.collect()
    assert threading.active_count() == threads
    assert open_files() <= files


@every_sink
@every_driver
def test_a_run_that_has_ended_keeps_no_descriptor_though_it_may_be_looked_at(driver, kind):
    # The first one finds the monitor begun, or begins it.
    short_run(driver, kind, fail=False)
    gc.collect()
    files = open_files()
    for _ in range(3):
        short_run(driver, kind, fail=False)
    gc.collect()
    assert open_files() == files


@pytest.mark.parametrize("fail", [False, True])
@every_sink
@every_driver
def test_memory_is_flat_over_many_runs(driver, kind, fail, caplog):
    # The records of the failing runs would be kept.
    caplog.set_level("CRITICAL", logger="anabranch")
    growth = ab.testing.memory_growth(lambda: short_run(driver, kind, fail=fail), calls=25)
    # One block left behind by each run would be 25.
    assert growth.blocks < 25


class Held:
    """Something only a callable, an item or an error holds."""


@pytest.mark.parametrize("fail", [False, True])
@every_sink
@every_driver
def test_callables_and_items_are_let_go_after_a_run(driver, kind, fail):
    held = [Held() for _ in range(4)]
    watched = [weakref.ref(it) for it in held]

    def run(for_map, for_sink, for_undo, item):
        async def call(it, _held=for_map):
            return it

        def handler(unit, ctx, _held=for_sink):
            ctx.compensate(id, for_undo)
            if fail:
                raise ValueError(unit)

        pipeline = ab.Pipeline("p").source([item]).map(call).window(max_items=2)
        go(with_sink(pipeline, kind, handler), driver)

    run(*held)
    held.clear()
    gc.collect()
    assert [it() for it in watched] == [None] * 4


def test_c11_memory_is_flat_over_many_committed_units():
    watch = ab.testing.MemoryWatch(warm_up=0)

    def handler(unit, ctx):
        ctx.compensate(nothing, unit)
        if unit % 50_000 == 25_000:
            watch.look()

    pipeline = ab.Pipeline("p").source(iter(range(200_000))).for_each(handler, inline=True)
    assert pipeline.run_blocking().committed == 200_000
    assert watch.growth.blocks < 2000


@every_driver
def test_t6_blocks_are_flat_however_many_errors_are_collected(driver):
    watch = ab.testing.MemoryWatch()
    counted = 0

    def handler(n):
        if n % 4000 == 2000:
            watch.look()
        raise OSError(n)

    def tell(summary):
        nonlocal counted
        counted += summary.codes["OSError"]

    pipeline = ab.Pipeline("p").source(iter(range(24_000))).for_each(handler, inline=True)
    report = go(pipeline.collect_errors(every=0.01, to=tell), driver)
    assert report.failed == counted == report.errors["collect_errors"].codes["OSError"] == 24_000
    assert watch.growth.blocks < 3000


@every_driver
def test_c20_blocks_are_flat_where_nothing_is_registered(driver):
    watch = ab.testing.MemoryWatch()

    def handler(window):
        if window[0] % 50_000 == 0:
            watch.look()

    pipeline = ab.Pipeline("p").source(iter(range(300_000))).window(max_items=100)
    assert go(pipeline.for_each(handler, inline=True), driver).committed == 300_000
    assert watch.growth.blocks < 2000


def test_a_pipeline_that_was_never_run_is_let_go():
    held = Held()
    watched = weakref.ref(held)

    def call(n, _held=held):
        return n

    pipeline = ab.Pipeline("p").source([1]).map(call).collect()
    with contextlib.suppress(RuntimeError):
        running = pipeline.start()
        del running
    del call, pipeline, held
    gc.collect()
    assert watched() is None
