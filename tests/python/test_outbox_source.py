"""Outboxes as the source of a pipeline: rows A, C and E8 hold through it, on every store."""

import asyncio
import contextlib
import random

import outboxes
import pytest

import anabranch as ab

PATIENCE = 60.0


@pytest.fixture(params=["memory", "postgres", "sqlite"])
def side(request, tmp_path):
    with contextlib.closing(outboxes.opened(request.param, tmp_path)) as side:
        yield side


def quick(attempts: int = 3) -> ab.Retry:
    return ab.Retry.fixed(0.0, attempts=attempts, retry_on=Exception)


def source(outbox, **options):
    return ab.outbox_source(outbox, **{"topic": "order", "once": True, **options})


def order(outbox, *numbers):
    outbox.enqueue_many([ab.Draft("order", n) for n in numbers])


def counted(outbox) -> dict:
    return outbox.counts().get("order", {})


def test_a1_what_is_committed_is_acked(side):
    order(side.outbox, 1, 2, 3)
    seen = []
    pipeline = ab.Pipeline("p").source(source(side.outbox))
    report = pipeline.for_each(lambda message: seen.append(message.payload)).run_blocking()
    assert sorted(seen) == [1, 2, 3]
    assert (report.outcome, report.committed) == ("completed", 3)
    assert counted(side.outbox) == {"done": 3}


def test_a4_a5_what_is_undone_comes_again_and_is_dead_in_the_end(side):
    order(side.outbox, 1, 2)
    undone, attempts = [], []

    def bill(message, ctx):
        attempts.append((message.payload, message.attempt))
        ctx.compensate(undone.append, message.payload)
        if message.payload == 2:
            raise OSError("busy")

    for _ in range(4):
        pipeline = ab.Pipeline("p").source(source(side.outbox, retry=quick(2)))
        pipeline.for_each(bill).run_blocking()
    assert sorted(attempts) == [(1, 1), (2, 1), (2, 2)]
    assert undone == [2, 2]
    assert counted(side.outbox) == {"done": 1, "dead": 1}
    [dead] = side.outbox.messages(status="dead")
    assert "its unit in pipeline 'p' has failed, and was undone" in dead.errors[-1].error


def test_a1_what_is_filtered_is_acked_and_what_fails_on_its_way_is_not(side):
    order(side.outbox, *range(6))

    def parsed(message):
        if message.payload == 4:
            raise ValueError("no number")
        return message.payload

    pipeline = ab.Pipeline("p").source(source(side.outbox)).map(parsed)
    collected = pipeline.filter(lambda n: n % 2 == 0).collect().run_blocking()
    assert collected.items == [0, 2]
    assert counted(side.outbox) == {"done": 5, "scheduled": 1}


def test_c17_a_message_that_becomes_several_is_acked_when_all_of_them_are(side):
    order(side.outbox, 0, 10)
    pipeline = ab.Pipeline("p").source(source(side.outbox, retry=quick()))
    pipeline = pipeline.flat_map(lambda message: [message.payload, message.payload + 1])

    def store(n):
        if n == 11:
            raise OSError("busy")

    pipeline.for_each(store).run_blocking()
    assert counted(side.outbox) == {"done": 1, "ready": 1}


def test_c17_the_messages_of_a_window_are_acked_together(side):
    order(side.outbox, *range(6))
    pipeline = ab.Pipeline("p").source(source(side.outbox, retry=quick())).window(max_items=2)

    def store(batch):
        if any(message.payload == 3 for message in batch):
            raise OSError("busy")

    pipeline.for_each(store).run_blocking()
    assert counted(side.outbox) == {"done": 4, "ready": 2}
    assert sorted(it.payload for it in side.outbox.messages(status="ready")) == [2, 3]


def test_x9_the_outboxes_of_a_router_are_branches():
    acme, globex = ab.Outbox.memory(), ab.Outbox.memory()
    order(acme, 1, 2)
    order(globex, 3)
    router = ab.OutboxRouter({"acme": acme, "globex": globex})
    pipeline = ab.Pipeline("p").source(source(router)).fan_out(by=ab.attr("tenant"))
    report = pipeline.for_each(lambda message: None).run_blocking()
    assert {it.tenant: it.committed for it in report.branches} == {"acme": 2, "globex": 1}
    assert (counted(acme), counted(globex)) == ({"done": 2}, {"done": 1})


def test_a9_a_drained_pipeline_ends_what_it_has_and_gives_the_rest_back(side):
    order(side.outbox, *range(50))

    async def main():
        begun = asyncio.Event()

        async def store(message):
            begun.set()
            await asyncio.sleep(0.001)

        pipeline = ab.Pipeline("p").source(source(side.outbox, once=False, batch=10))
        async with pipeline.for_each(store).start() as running:
            await asyncio.wait_for(begun.wait(), PATIENCE)
            running.drain()
            return await asyncio.wait_for(running.wait(), PATIENCE)

    report = asyncio.run(main())
    counts = counted(side.outbox)
    assert counts.get("leased", 0) == 0
    assert counts["done"] == report.committed
    assert counts["done"] + counts["ready"] == 50
    assert {it.attempt for it in side.outbox.messages()} == {0}


def test_a9_an_aborted_pipeline_gives_back_what_was_not_begun(side):
    order(side.outbox, *range(50))
    undone = []

    async def main():
        begun = asyncio.Event()

        async def store(message, ctx):
            ctx.compensate(undone.append, message.id)
            begun.set()
            await asyncio.sleep(3600.0)

        options = {"once": False, "retry": quick()}
        pipeline = ab.Pipeline("p").source(source(side.outbox, **options)).for_each(store)
        async with pipeline.start() as running:
            await asyncio.wait_for(begun.wait(), PATIENCE)
            running.abort()
            return await asyncio.wait_for(running.wait(), PATIENCE)

    report = asyncio.run(main())
    assert report.outcome == "aborted"
    assert len(undone) == 1
    assert counted(side.outbox) == {"ready": 50}


def test_x7_a_source_hears_of_what_is_enqueued(side):
    async def main():
        came = asyncio.Queue()
        options = {"once": False, "poll": 3600.0, "max_idle_poll": 3600.0}
        pipeline = ab.Pipeline("p").source(source(side.outbox, **options))
        async with pipeline.for_each(lambda it: came.put_nowait(it.payload), inline=True).start():
            for number in range(3):
                side.outbox.enqueue("order", number)
                assert await asyncio.wait_for(came.get(), PATIENCE) == number

    asyncio.run(main())
    assert counted(side.outbox) == {"done": 3}


def test_an_outbox_that_cannot_be_reached_fails_the_run(tmp_path):
    outbox = ab.Outbox(f"sqlite:///{tmp_path}/gone/shop.db")
    pipeline = ab.Pipeline("p").source(source(outbox)).for_each(lambda message: None)
    report = pipeline.run_blocking()
    assert report.outcome == "failed"
    assert "unable to open" in str(report.failures[0])
    outbox.close()


@pytest.mark.parametrize("seed", range(6))
def test_e8_z5_every_message_ends_once_whatever_its_units_do(side, seed):
    chance = random.Random(seed)
    order(side.outbox, *range(60))
    done = []
    for _ in range(60):
        failing = {n for n in range(60) if chance.random() < 0.3}

        def store(unit, failing=failing):
            batch = unit if isinstance(unit, list) else [unit]
            if any(message.payload in failing for message in batch):
                raise OSError("unlucky")
            done.extend(message.payload for message in batch)

        pipeline = ab.Pipeline("p", seed=seed).source(
            source(side.outbox, retry=quick(50), batch=chance.randrange(1, 30))
        )
        if chance.random() < 0.5:
            pipeline = pipeline.fan_out(by=lambda message: message.payload % 3)
        if chance.random() < 0.5:
            pipeline = pipeline.window(max_items=chance.randrange(1, 4), max_age=0.0)
        report = pipeline.for_each(store, inline=True).run_blocking()
        assert report.received == report.committed + report.failed
        counts = counted(side.outbox)
        assert counts.get("done", 0) == len(done)
        assert sum(counts.values()) == 60
        if counts == {"done": 60}:
            break
    assert sorted(done) == list(range(60))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"topic": "a*b"}, "outbox_source: topic must be"),
        ({"subscriber": ""}, "outbox_source: subscriber must be"),
        ({"retry": 3}, "outbox_source: retry must be"),
        ({"batch": 0}, "outbox_source: batch must be"),
        ({"once": 1}, "outbox_source: once must be a bool"),
        ({"selection": "robin"}, "outbox_source: selection must be"),
    ],
)
def test_bad_arguments_are_refused(options, said):
    with pytest.raises(ab.ConfigError, match=said):
        ab.outbox_source(ab.Outbox.memory(), **options)
    with pytest.raises(ab.ConfigError, match="outbox_source: outboxes must be an Outbox"):
        ab.outbox_source("sqlite:///a.db")


def test_a_run_that_commits_in_the_end_cannot_ack_before():
    messages = ab.outbox_source(ab.Outbox.memory())
    with pytest.raises(ab.ConfigError, match="commit must be 'unit' with a source of outboxes"):
        ab.Pipeline("p", commit="end").source(messages)
