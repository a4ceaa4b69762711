"""Many interleavings of one test, by seed: the row G7."""

from __future__ import annotations

import asyncio

import pytest

import anabranch as ab
from anabranch.testing import Explored, explore


async def lost_update():
    """Two tasks read, give way, and write: one update may get lost."""
    account = {"balance": 100}

    async def withdraw():
        balance = account["balance"]
        await asyncio.sleep(0)
        account["balance"] = balance - 10

    await asyncio.gather(withdraw(), withdraw())
    assert account["balance"] == 80


async def check_then_act():
    """Fails only where the second task overtakes the first by two steps."""
    steps: list[str] = []

    async def first():
        steps.append("begin")
        await asyncio.sleep(0)
        steps.append("end")

    async def second():
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert "end" in steps

    async with asyncio.TaskGroup() as group:
        group.create_task(first())
        group.create_task(second())


def test_g7_an_interleaving_that_asyncio_never_shows_is_found():
    for _ in range(20):
        ab.testing.run(check_then_act())
    with pytest.raises(ExceptionGroup) as failed:
        explore(check_then_act, seeds=200)
    assert "seed " in failed.value.__notes__[-1]


def test_g7_a_failing_seed_repeats_the_same_run():
    seen: list[list[tuple[int, int]]] = []

    async def steps():
        order: list[tuple[int, int]] = []
        seen.append(order)

        async def walk(who: int):
            for step in range(4):
                order.append((who, step))
                await asyncio.sleep(0.5 * (step % 2))

        async with asyncio.TaskGroup() as group:
            for who in range(4):
                group.create_task(walk(who))

    explore(steps, seeds=50)
    first = [tuple(order) for order in seen]
    assert len(set(first)) > 25
    seen.clear()
    explore(steps, seeds=50)
    assert [tuple(order) for order in seen] == first
    seen.clear()
    explore(steps, seeds=[17])
    assert [tuple(order) for order in seen] == [first[17]]


def test_g7_the_note_tells_how_to_repeat_it():
    with pytest.raises(AssertionError) as failed:
        explore(lost_update, seeds=100)
    note = failed.value.__notes__[-1]
    assert "ab.testing.explore(lost_update, seeds=[" in note
    seed = int(note.rpartition("[")[2].rstrip("])"))
    with pytest.raises(AssertionError):
        explore(lost_update, seeds=[seed])


def test_g7_one_task_has_one_interleaving():
    async def alone():
        await asyncio.sleep(1.0)

    assert explore(alone, seeds=5) == Explored(seeds=5, interleavings=1)


def test_g7_no_time_passes_while_a_task_is_overtaken():
    async def naps(clock):
        instants = []

        async def nap():
            for _ in range(3):
                await asyncio.sleep(1.0)
                instants.append(clock.now())

        await asyncio.gather(*(nap() for _ in range(5)))
        assert instants == [1.0] * 5 + [2.0] * 5 + [3.0] * 5

    explore(naps, seeds=50)


def test_g7_callbacks_keep_their_order():
    async def calls():
        loop, order = asyncio.get_running_loop(), []
        for number in range(10):
            loop.call_soon(order.append, number)
        await asyncio.sleep(1.0)
        assert order == list(range(10))

    explore(calls, seeds=20)


@pytest.mark.parametrize("seeds", [0, -1, True, [], ["1"], "12", None, 1.5])
def test_g7_seeds_are_checked_before_anything_runs(seeds):
    async def never():
        raise AssertionError

    with pytest.raises(ab.ConfigError, match="seeds must be an int of at least 1, or ints"):
        explore(never, seeds=seeds)
    with pytest.raises(ab.ConfigError, match="test must be an async def"):
        explore(lambda: None)


def test_g7_seeds_may_come_from_any_iterable():
    async def nothing():
        pass

    assert explore(nothing, seeds=iter([3, 4])).seeds == 2


async def of_a_pipeline():
    """Items of three tenants, of which one fails now and then, with undo actions and retries."""
    done: list[tuple[int, int]] = []

    async def handle(item: int, ctx: ab.Context):
        ctx.compensate(done.remove, (item % 3, item))
        for _ in range(item % 4):
            await asyncio.sleep(0)
        done.append((item % 3, item))
        if item % 7 == 3 or (item % 5 == 2 and ctx.attempt == 1):
            await asyncio.sleep(0)
            raise OSError(item)

    pipeline = ab.Pipeline("p", max_in_flight=4).source(range(30)).fan_out(by=lambda it: it % 3)
    report = await pipeline.for_each(handle, retry=ab.Retry.fixed(0.5, attempts=2)).run()
    lost = [item for item in range(30) if item % 7 == 3]
    assert (report.committed, report.failed) == (30 - len(lost), len(lost))
    assert sorted(item for _, item in done) == [it for it in range(30) if it not in lost]
    for tenant in range(3):
        of_tenant = [item for who, item in done if who == tenant]
        assert of_tenant == sorted(of_tenant)


async def of_a_cancelled_pipeline():
    """A run that is cancelled in the middle undoes what is under way, and loses nothing."""
    effects: set[int] = set()

    async def handle(item: int, ctx: ab.Context):
        ctx.compensate(effects.discard, item)
        effects.add(item)
        await asyncio.sleep(0.1 * (item % 3))

    pipeline = ab.Pipeline("p").source(range(40)).fan_out(by=lambda it: it % 5)
    pipeline = pipeline.for_each(handle, concurrency=2)
    task = asyncio.create_task(pipeline.run())
    await asyncio.sleep(0.35)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    report = pipeline.last_report
    assert report is not None
    assert len(effects) == report.committed
    assert report.committed + report.left + report.failed == report.received


async def of_a_channel():
    """Three writers and three readers on a channel of two: each item comes once, in order."""
    channel: ab.Channel[tuple[int, int]] = ab.Channel(capacity=2)
    got: list[list[tuple[int, int]]] = [[], [], []]

    async def write(who: int):
        for number in range(10):
            await channel.send((who, number))

    async def read(who: int):
        async for item in channel:
            got[who].append(item)

    async with asyncio.TaskGroup() as group:
        readers = [group.create_task(read(who)) for who in range(3)]
        async with asyncio.TaskGroup() as writers:
            for who in range(3):
                writers.create_task(write(who))
        channel.close()
        await asyncio.gather(*readers)
    assert sorted(item for of_reader in got for item in of_reader) == [
        (who, number) for who in range(3) for number in range(10)
    ]
    for of_reader in got:
        for who in range(3):
            numbers = [number for writer, number in of_reader if writer == who]
            assert numbers == sorted(numbers)


async def of_a_group_that_fails():
    """The first error wins, peers are cancelled, and what all have done is undone."""
    undone: list[int] = []

    async def child(number: int, ctx: ab.Context):
        ctx.compensate(undone.append, number)
        await asyncio.sleep(0)
        if number == 2:
            raise OSError(number)
        await asyncio.sleep(10.0)

    with pytest.raises(OSError, match="2"):
        async with ab.ErrGroup() as group:
            for number in range(5):
                group.go(lambda ctx, number=number: child(number, ctx))
    assert 2 in undone
    assert len(undone) == len(set(undone))


@pytest.mark.parametrize(
    "test",
    [of_a_pipeline, of_a_cancelled_pipeline, of_a_channel, of_a_group_that_fails],
)
def test_g7_what_is_promised_holds_under_other_interleavings(test):
    assert explore(test, seeds=30).interleavings > 20
