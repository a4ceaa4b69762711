"""The worker: rows H, and what of A, K and Z it must hold, on every store."""

import asyncio
import contextlib
import json
import os
import signal
import threading

import outboxes
import pytest

import anabranch as ab

PATIENCE = 60.0


@pytest.fixture(params=["memory", "postgres", "sqlite"])
def side(request, tmp_path):
    with contextlib.closing(outboxes.opened(request.param, tmp_path)) as side:
        yield side


def quick(attempts: int = 3, delay: float = 0.0) -> ab.Retry:
    return ab.Retry.fixed(delay, attempts=attempts, retry_on=Exception)


def until_empty(worker: ab.OutboxWorker) -> int:
    """Handle what is ready; return how many claims of messages that took."""
    claimed = 0
    while count := worker.run_once_blocking():
        claimed += count
    return claimed


async def working(worker: ab.OutboxWorker, over: asyncio.Event) -> None:
    async with worker:
        await asyncio.wait_for(over.wait(), PATIENCE)


def test_h4_def_and_async_def_get_the_message_and_the_context(side):
    worker = ab.OutboxWorker({"acme": side.outbox})
    seen = []

    @worker.on("a")
    def handle(message, ctx):
        seen.append((message.topic, message.payload, message.attempt, message.tenant, ctx.tenant))

    @worker.on("b")
    async def handle_async(message: ab.Message, ctx: ab.Context) -> None:
        await asyncio.sleep(0)
        seen.append((message.topic, message.payload, message.attempt, message.tenant, ctx.tenant))

    side.outbox.enqueue("a", 1)
    side.outbox.enqueue("b", 2)
    assert worker.run_once_blocking() == 2
    assert sorted(seen) == [("a", 1, 1, "acme", "acme"), ("b", 2, 1, "acme", "acme")]
    assert side.outbox.counts() == {"a": {"done": 1}, "b": {"done": 1}}


def test_h2_topics_are_exact_or_prefixes_or_all_and_case_matters(side):
    worker = ab.OutboxWorker(side.outbox)
    seen = []
    for pattern in ("order.*", "mail", "*"):
        worker.on(pattern)(lambda message, by=pattern: seen.append((by, message.topic)))
    for topic in ("order.created", "Order.created", "mail", "mail.sent"):
        side.outbox.enqueue(topic, 0)
    until_empty(worker)
    assert sorted(seen) == sorted(
        [("*", topic) for topic in ("order.created", "Order.created", "mail", "mail.sent")]
        + [("order.*", "order.created"), ("mail", "mail")]
    )
    assert all(set(counts) == {"done"} for counts in side.outbox.counts().values())


def test_h1_one_subscriber_that_fails_does_not_run_the_others_again(side):
    worker = ab.OutboxWorker(side.outbox)
    seen = []

    @worker.on("order", subscriber="projection")
    def project(message):
        seen.append(("projection", message.attempt))

    @worker.on("order", subscriber="mail", retry=quick(3))
    def mail(message):
        seen.append(("mail", message.attempt))
        if message.attempt < 3:
            raise OSError("busy")

    @worker.on("order", subscriber="broker", retry=quick(2))
    def publish(message):
        seen.append(("broker", message.attempt))
        raise ValueError("no")

    side.outbox.enqueue("order", 7)
    until_empty(worker)
    assert sorted(seen) == [
        ("broker", 1),
        ("broker", 2),
        ("mail", 1),
        ("mail", 2),
        ("mail", 3),
        ("projection", 1),
    ]
    [dead] = side.outbox.messages(status="dead")
    said = [attempt.error for attempt in dead.errors]
    assert any("broker: ValueError: no" in error for error in said)
    assert any("mail: OSError: busy" in error for error in said)
    # Requeued, it is the broker's alone.
    seen.clear()
    assert side.outbox.requeue() == 1
    until_empty(worker)
    assert seen == [("broker", 1), ("broker", 2)]


def test_h1_a_later_subscriber_gets_later_messages_only(side):
    first = ab.OutboxWorker(side.outbox)
    seen = []
    first.on("order", subscriber="first", retry=quick(9))(lambda message: seen.append("first"))
    first.run_once_blocking()
    side.outbox.enqueue("order", 1)
    both = ab.OutboxWorker(side.outbox)
    both.on("order", subscriber="first")(lambda message: seen.append("first"))
    both.on("order", subscriber="second")(lambda message: seen.append("second"))
    until_empty(both)
    assert seen == ["first"]
    side.outbox.enqueue("order", 2)
    until_empty(both)
    assert sorted(seen) == ["first", "first", "second"]
    assert side.outbox.counts() == {"order": {"done": 2}}


def test_h1_subscribers_of_one_message_may_be_in_several_workers(side):
    one, other = ab.OutboxWorker(side.outbox), ab.OutboxWorker(side.again)
    seen = []
    one.on("order", subscriber="mail")(lambda message: seen.append("mail"))
    other.on("order", subscriber="broker")(lambda message: seen.append("broker"))
    one.run_once_blocking()
    other.run_once_blocking()
    side.outbox.enqueue("order", 1)
    assert one.run_once_blocking() == 1
    assert side.outbox.counts() == {"order": {"ready": 1}}
    assert one.run_once_blocking() == 0
    assert other.run_once_blocking() == 1
    assert seen == ["mail", "broker"]
    assert side.outbox.counts() == {"order": {"done": 1}}


def test_h1_a_subscriber_that_is_gone_is_waited_for_no_more(side):
    worker = ab.OutboxWorker(side.outbox)
    worker.on("order", subscriber="mail")(lambda message: None)
    worker.on("order", subscriber="old", retry=quick(9, 3600.0))(lambda message: 1 / 0)
    side.outbox.enqueue("order", 1)
    until_empty(worker)
    assert side.outbox.counts() == {"order": {"scheduled": 1}}
    assert sorted(it.subscriber for it in side.outbox.subscriptions()) == ["mail", "old"]
    assert side.outbox.unsubscribe("old")
    assert not side.outbox.unsubscribe("old")
    new = ab.OutboxWorker(side.outbox)
    new.on("order", subscriber="mail")(lambda message: None)
    until_empty(new)
    assert side.outbox.counts() == {"order": {"done": 1}}


def test_h3_a_topic_without_a_handler_is_parked_until_there_is_one(side, caplog):
    worker = ab.OutboxWorker(side.outbox)
    worker.on("order")(lambda message: None)
    side.outbox.enqueue_many([ab.Draft("mail", n) for n in range(3)])
    side.outbox.enqueue("order", 0)
    until_empty(worker)
    assert side.outbox.counts() == {"mail": {"parked": 3}, "order": {"done": 1}}
    said = [record.getMessage() for record in caplog.records if "parked" in record.getMessage()]
    assert len(set(said)) == 1
    assert "no handler for topic 'mail'" in said[0]
    seen = []
    worker.on("mail")(lambda message: seen.append((message.payload, message.attempt)))
    until_empty(worker)
    assert seen == [(0, 1), (1, 1), (2, 1)]


def test_h4_reject_is_dead_at_once_and_retry_later_does_not_count(side):
    worker = ab.OutboxWorker(side.outbox)
    seen = []

    @worker.on("a")
    def reject(message):
        raise ab.Reject("no such address")

    @worker.on("b", retry=quick(2))
    def later(message):
        seen.append(message.attempt)
        if len(seen) < 5:
            raise ab.RetryLater(60.0)

    side.outbox.enqueue("a", 0)
    side.outbox.enqueue("b", 0)
    for _ in range(5):
        until_empty(worker)
        side.pass_time(60.0)
    assert seen == [1, 1, 1, 1, 1]
    [dead] = side.outbox.messages(status="dead")
    assert (dead.topic, dead.errors[-1].error) == ("a", "Reject: no such address")
    assert side.outbox.counts()["b"] == {"done": 1}


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no text")


@pytest.mark.parametrize("batch", [None, 5])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_h4_t12_what_a_handler_returns_or_raises_loses_no_message(side, batch, asynchronous):
    worker = ab.OutboxWorker(side.outbox)
    answers = {
        "ok": lambda: ab.Ok(None),
        "err": lambda: ab.Err(ValueError("bad")),
        "reject": lambda: ab.Err(ab.Reject("no")),
        "mute": lambda: ab.Err(Mute()),
        "late": lambda: ab.RetryLater(float("inf")),
    }

    def handle(given):
        return answers[(given[0] if batch else given).topic]()

    async def handle_async(given):
        return handle(given)

    for topic in answers:
        fn = handle_async if asynchronous else handle
        worker.on(topic, batch=batch, retry=quick(attempts=2))(fn)
        side.outbox.enqueue(topic, 0)
    until_empty(worker)
    assert {topic: [*counts] for topic, counts in side.outbox.counts().items()} == {
        "ok": ["done"],
        "err": ["dead"],
        "reject": ["dead"],
        "mute": ["dead"],
        "late": ["dead"],
    }
    dead = {it.topic: it.errors[-1].error for it in side.outbox.messages(status="dead")}
    assert (dead["err"], dead["reject"]) == ("ValueError: bad", "Reject: no")
    assert dead["mute"] == "Mute: <Mute without a text>"
    assert "RetryLater: delay must be seconds from 0" in dead["late"]


def test_h8_a_class_is_no_result_of_a_batch(side):
    worker = ab.OutboxWorker(side.outbox)
    worker.on("a", batch=5, retry=quick(attempts=1))(lambda batch: [ValueError for _ in batch])
    side.outbox.enqueue("a", 1)
    until_empty(worker)
    [message] = side.outbox.messages(status="dead")
    assert "the class ValueError: make an instance" in message.errors[-1].error


def test_h5_by_default_there_are_20_attempts_within_a_day(side):
    worker = ab.OutboxWorker(side.outbox, seed=1)
    seen = []

    @worker.on("mail")
    def handle(message):
        seen.append(message.attempt)
        raise TypeError("a mistake that is mended meanwhile")

    side.outbox.enqueue("mail", 0)
    waited = 0.0
    while side.outbox.messages(status="dead") == []:
        until_empty(worker)
        for message in side.outbox.messages(status="scheduled"):
            delay = (message.due_at - message.enqueued_at).total_seconds() - waited
            side.pass_time(max(0.001, delay))
            waited += max(0.0, delay)
    assert seen == list(range(1, 21))
    assert 3600.0 < waited < 30 * 3600.0


def test_h5_an_attempt_that_was_cut_off_counts_and_a_poison_dies(side):
    worker = ab.OutboxWorker(side.outbox)
    worker.on("mail", retry=quick(3))(lambda message: pytest.fail("it was poison"))
    side.outbox.enqueue("mail", 0)
    for _ in range(3):  # three that die in the middle
        assert len(side.again.claim(lease=1.0)) == 1
        side.pass_time(2.0)
    until_empty(worker)
    [dead] = side.outbox.messages(status="dead")
    assert dead.errors[-1].error.startswith("Poison: 3 attempts")


def test_h5_a_timeout_is_a_failed_attempt(side):
    worker = ab.OutboxWorker(side.outbox)
    seen = []

    @worker.on("mail", timeout=0.01, retry=quick(2))
    async def handle(message):
        seen.append(message.attempt)
        await asyncio.sleep(3600.0)

    side.outbox.enqueue("mail", 0)
    until_empty(worker)
    assert seen == [1, 2]
    assert "HandlerTimeout" in side.outbox.messages(status="dead")[0].errors[-1].error


def test_h6_one_blocked_handler_delays_no_other_topic(side):
    worker = ab.OutboxWorker(side.outbox, batch=4)
    over, free = asyncio.Event(), threading.Event()
    seen = []

    @worker.on("slow")
    def slow(message):
        free.wait(PATIENCE)

    @worker.on("fast")
    async def fast(message):
        seen.append(message.payload)
        if len(seen) == 50:
            over.set()

    side.outbox.enqueue_many([ab.Draft("slow", n) for n in range(20)])
    side.outbox.enqueue_many([ab.Draft("fast", n) for n in range(50)])

    async def main():
        async with worker:
            await asyncio.wait_for(over.wait(), PATIENCE)
            free.set()

    asyncio.run(main())
    assert seen == list(range(50))
    assert side.outbox.counts()["fast"] == {"done": 50}


def test_h7_a_handler_that_ends_the_process_gives_back_what_was_not_begun(side):
    worker = ab.OutboxWorker(side.outbox)
    seen = []

    @worker.on("mail", inline=True)
    def handle(message):
        seen.append(message.payload)
        if message.payload == 3:
            raise KeyboardInterrupt

    side.outbox.enqueue_many([ab.Draft("mail", n) for n in range(10)])
    with pytest.raises(KeyboardInterrupt):
        worker.run_once_blocking()
    assert seen == [0, 1, 2, 3]
    left = side.outbox.messages()
    assert [message.payload for message in left] == list(range(3, 10))
    assert {message.status for message in left} <= {"ready", "scheduled"}
    assert [message.attempt for message in left if message.payload > 3] == [0] * 6


def test_h8_a_batch_comes_as_a_list_and_may_fail_in_part(side):
    worker = ab.OutboxWorker(side.outbox)
    batches = []

    @worker.on("mail", batch=4, retry=quick(2))
    async def handle(messages):
        batches.append([message.payload for message in messages])
        return [ab.Err(ValueError("odd")) if message.payload % 2 else None for message in messages]

    side.outbox.enqueue_many([ab.Draft("mail", n) for n in range(8)])
    until_empty(worker)
    assert batches[:2] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert sorted(n for batch in batches[2:] for n in batch) == [1, 3, 5, 7]
    assert side.outbox.counts() == {"mail": {"done": 4, "dead": 4}}


def test_h8_a_batch_that_raises_or_returns_too_little_fails_as_a_whole(side):
    worker = ab.OutboxWorker(side.outbox)
    worker.on("a", batch=4, retry=quick(1))(lambda messages: 1 / 0)
    worker.on("b", batch=4, retry=quick(1))(lambda messages: [None])
    side.outbox.enqueue_many([ab.Draft("a", n) for n in range(2)])
    side.outbox.enqueue_many([ab.Draft("b", n) for n in range(2)])
    until_empty(worker)
    assert side.outbox.counts() == {"a": {"dead": 2}, "b": {"dead": 2}}
    errors = {it.topic: it.errors[-1].error for it in side.outbox.messages(status="dead")}
    assert errors["a"].startswith("ZeroDivisionError")
    assert "one result per message (2)" in errors["b"]


def test_h10_what_a_failed_attempt_did_is_undone_before_the_next(side):
    worker = ab.OutboxWorker(side.outbox)
    log = []

    @worker.on("mail", retry=quick(2))
    def handle(message, ctx):
        log.append(f"do {message.attempt}")
        ctx.compensate(log.append, f"undo {message.attempt}")
        raise ValueError

    side.outbox.enqueue("mail", 0)
    until_empty(worker)
    assert log == ["do 1", "undo 1", "do 2", "undo 2"]


def test_k10_messages_of_one_ordering_key_are_handled_in_order(side):
    worker = ab.OutboxWorker(side.outbox)
    seen = []

    @worker.on("order", concurrency=8, retry=quick(5))
    async def handle(message):
        await asyncio.sleep(0)
        if message.payload == 2 and message.attempt < 3:
            raise OSError
        seen.append((message.ordering_key, message.payload))

    drafts = [ab.Draft("order", n, ordering_key=f"key-{k}") for n in range(5) for k in range(4)]
    side.outbox.enqueue_many(drafts)
    until_empty(worker)
    for k in range(4):
        assert [n for key, n in seen if key == f"key-{k}"] == list(range(5))


def test_k10_x6_the_next_of_an_ordering_key_is_claimed_when_the_one_before_is_done(side):
    """And not when the outbox is asked for the next time."""
    worker = ab.OutboxWorker(side.outbox, poll=PATIENCE, max_idle_poll=PATIENCE)
    seen = []

    @worker.on("order", inline=True)
    def handle(message):
        seen.append(message.payload)
        if len(seen) == 5:
            worker.stop()

    side.outbox.enqueue_many([ab.Draft("order", n, ordering_key="key") for n in range(5)])
    asyncio.run(asyncio.wait_for(worker.run(), PATIENCE / 4))
    assert seen == list(range(5))


def test_k9_nothing_is_asked_of_a_store_as_long_as_nobody_has_room(side, monkeypatch):
    """A claim that leaves out all there is would read all of it."""
    worker = ab.OutboxWorker(side.outbox, batch=10)
    store, room = side.outbox._store, threading.Event()
    asked, twice, claim = [], threading.Event(), store.claim

    def counted(*args):
        asked.append(args)
        if len(asked) == 2:
            twice.set()
        return claim(*args)

    monkeypatch.setattr(store, "claim", counted)

    @worker.on("mail")
    def handle(message):
        assert room.wait(PATIENCE)
        if message.payload == 99:
            over.set()

    over = threading.Event()

    async def work():
        async with worker:
            assert await asyncio.to_thread(twice.wait, PATIENCE)
            # Each time it is told of something it has a turn.
            for _ in range(5):
                await asyncio.to_thread(side.outbox.enqueue, "mail", 0)
            assert len(asked) == 2
            room.set()
            assert await asyncio.to_thread(over.wait, PATIENCE)

    side.outbox.enqueue_many([ab.Draft("mail", n) for n in range(100)])
    asyncio.run(work())
    assert all(args[3].without == [] for args in asked)


def test_a10_a_long_handler_keeps_its_lease(side):
    worker = ab.OutboxWorker(side.outbox, lease=0.3)
    seen = []

    @worker.on("mail")
    async def handle(message):
        seen.append(message.attempt)
        await asyncio.sleep(1.0)

    side.outbox.enqueue("mail", 0)
    assert worker.run_once_blocking() == 1
    assert seen == [1]
    assert side.outbox.counts() == {"mail": {"done": 1}}


def test_a10_a_lost_lease_cancels_the_handler_and_refuses_its_ack(side):
    worker = ab.OutboxWorker(side.outbox, lease=0.3)
    begun, cut = asyncio.Event(), []

    @worker.on("mail")
    async def handle(message):
        begun.set()
        try:
            await asyncio.sleep(PATIENCE)
        except asyncio.CancelledError:
            cut.append(message.attempt)
            raise

    side.outbox.enqueue("mail", 0)

    async def main():
        task = asyncio.ensure_future(worker.run_once())
        await asyncio.wait_for(begun.wait(), PATIENCE)
        side.pass_time(1.0)
        [stolen] = side.again.claim()
        await asyncio.wait_for(task, PATIENCE)
        return stolen

    stolen = asyncio.run(main())
    assert cut == [1]
    assert side.again.ack(stolen) == 1


def test_z6_stopping_gives_back_what_was_not_begun_and_ends_what_was(side):
    worker = ab.OutboxWorker(side.outbox)
    begun, free = asyncio.Event(), asyncio.Event()

    @worker.on("mail")
    async def handle(message):
        begun.set()
        await free.wait()

    side.outbox.enqueue_many([ab.Draft("mail", n) for n in range(10)])

    async def main():
        async with worker:
            await asyncio.wait_for(begun.wait(), PATIENCE)
            worker.stop()
            free.set()

    asyncio.run(main())
    assert side.outbox.counts() == {"mail": {"done": 1, "ready": 9}}
    assert [message.attempt for message in side.outbox.messages()] == [0] * 9


def test_z6_sigterm_gives_back_what_was_not_begun_and_ends_what_was(side):
    worker = ab.OutboxWorker(side.outbox)

    @worker.on("mail")
    async def handle(message):
        if message.payload == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.01)

    side.outbox.enqueue_many([ab.Draft("mail", n) for n in range(10)])
    worker.run_blocking()
    counts = side.outbox.counts()["mail"]
    assert sum(counts.values()) == 10
    assert counts["ready"] >= 8
    assert {message.attempt for message in side.outbox.messages()} == {0}
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_x6_an_idle_worker_hears_of_what_is_enqueued(side):
    worker = ab.OutboxWorker(side.outbox, poll=3600.0, max_idle_poll=3600.0)
    over = asyncio.Event()
    seen = []

    @worker.on("mail")
    async def handle(message):
        seen.append(message.payload)
        if message.payload == 2:
            over.set()

    async def main():
        async with worker:
            await asyncio.sleep(0.05)
            side.outbox.enqueue("mail", 1)
            await asyncio.sleep(0.05)
            with side.transaction() as tx:
                side.outbox.enqueue(tx, "mail", 2)
            await asyncio.wait_for(over.wait(), PATIENCE)

    asyncio.run(main())
    assert seen == [1, 2]


def test_x1_several_outboxes_are_worked_on_side_by_side(tmp_path):
    sides = {}
    for key in ("acme", "globex", "initech"):
        (tmp_path / key).mkdir()
        sides[key] = outboxes.SqliteSide(tmp_path / key)
    worker = ab.OutboxWorker({key: it.outbox for key, it in sides.items()})
    seen = []
    worker.on("mail")(lambda message: seen.append((message.tenant, message.payload)))
    for key, it in sides.items():
        it.outbox.enqueue("mail", key.upper())
    assert worker.run_once_blocking() == 3
    assert sorted(seen) == [(key, key.upper()) for key in sides]
    for it in sides.values():
        it.close()


def test_x5_a_store_that_does_not_work_does_not_stop_the_others(tmp_path, caplog):
    (tmp_path / "here").mkdir()
    side = outboxes.SqliteSide(tmp_path / "here")
    gone = ab.Outbox(f"sqlite:///{tmp_path}/gone/shop.db")
    worker = ab.OutboxWorker({"acme": side.outbox, "globex": gone})
    over = asyncio.Event()

    @worker.on("mail")
    async def handle(message):
        over.set()

    side.outbox.enqueue("mail", 0)
    asyncio.run(working(worker, over))
    side.close()
    said = [it.getMessage() for it in caplog.records if "unable to open" in it.getMessage()]
    assert len(said) == 1


@pytest.mark.parametrize("seed", range(8))
def test_z5_every_message_ends_once_whatever_the_handlers_do(side, seed):
    import random

    chance = random.Random(seed)
    worker = ab.OutboxWorker(side.outbox, batch=16, seed=seed)
    done = {"one": [], "two": []}

    def handler(name):
        async def handle(message):
            if chance.random() < 0.2:
                await asyncio.sleep(0)
            if chance.random() < 0.3:
                raise OSError("unlucky")
            done[name].append(message.payload)

        return handle

    for name in done:
        worker.on("order", subscriber=name, concurrency=4, retry=quick(50))(handler(name))
    side.outbox.enqueue_many([ab.Draft("order", n) for n in range(60)])
    until_empty(worker)
    assert {name: sorted(each) for name, each in done.items()} == {
        name: list(range(60)) for name in done
    }
    assert side.outbox.counts() == {"order": {"done": 60}}


def test_h11_one_round_handles_what_one_claim_gives(side):
    worker = ab.OutboxWorker(side.outbox, batch=2)
    worker.on("mail")(lambda message: None)
    side.outbox.enqueue_many([ab.Draft("mail", n) for n in range(3)])
    assert [worker.run_once_blocking() for _ in range(3)] == [2, 1, 0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"topic": ""}, "on: topic must be a topic"),
        ({"topic": "a*b"}, "on: topic must be a topic"),
        ({"topic": 7}, "on: topic must be a topic"),
        ({"topic": "a", "subscriber": ""}, "on: subscriber must be a str"),
        ({"topic": "a", "retry": 3}, "on: retry must be a Retry"),
        ({"topic": "a", "timeout": 0}, "OutboxWorker: timeout must be"),
        ({"topic": "a", "concurrency": 0}, "concurrency must be"),
        ({"topic": "a", "batch": 0}, "max_items must be"),
    ],
)
def test_bad_arguments_of_a_handler_are_refused(options, said):
    worker = ab.OutboxWorker(ab.Outbox.memory())
    with pytest.raises(ab.ConfigError, match=said):
        worker.on(**options)(lambda message: None)


@pytest.mark.parametrize(
    ("given", "options", "said"),
    [
        ({}, {}, "outboxes must be"),
        ("sqlite:///x.db", {}, "outboxes must be"),
        ({"a": 1}, {}, "outboxes must be"),
        (None, {"batch": 0}, "batch must be"),
        (None, {"lease": 0}, "lease must be"),
        (None, {"poll": -1}, "poll must be"),
        (None, {"name": ""}, "name must be"),
        (None, {"selection": "robin"}, "selection must be one of"),
        (None, {"parallel": 0}, "parallel must be"),
        (None, {"connections": 1}, "connections must be"),
        (None, {"seed": "7"}, "seed must be an int or None"),
        (None, {"grace": "long"}, "grace must be"),
        (None, {"threads": 0}, "threads must be"),
        (None, {"max_in_flight": "many"}, "max_in_flight must be"),
        (None, {"observe": 7}, "observe must be"),
    ],
)
def test_bad_arguments_of_a_worker_are_refused(given, options, said):
    with pytest.raises(ab.ConfigError, match=said):
        ab.OutboxWorker(ab.Outbox.memory() if given is None else given, **options)


def test_a_worker_without_handlers_and_two_of_one_name_are_refused():
    worker = ab.OutboxWorker(ab.Outbox.memory())
    with pytest.raises(ab.ConfigError, match="handlers must be added"):
        worker.run_once_blocking()
    worker.on("mail")(lambda message: None)
    with pytest.raises(ab.ConfigError, match="subscriber must be another name"):
        worker.on("mail")


@ab.testing.virtual_time
async def test_h5_a_message_comes_again_when_its_delay_is_over(clock):
    outbox = ab.Outbox.memory(clock=clock.now)
    worker = ab.OutboxWorker(outbox, max_idle_poll=3600.0)
    over = asyncio.Event()
    seen = []

    @worker.on("mail", retry=quick(4, 100.0))
    async def handle(message):
        seen.append(clock.now())
        if message.attempt < 4:
            raise OSError
        over.set()

    async with worker:
        outbox.enqueue("mail", 0)
        await over.wait()
    assert [round(at) for at in seen] == [0, 100, 200, 300]


@ab.testing.virtual_time
async def test_k8_what_a_lost_worker_held_is_handled_when_its_lease_is_over(clock):
    outbox = ab.Outbox.memory(clock=clock.now)
    worker = ab.OutboxWorker(outbox, max_idle_poll=3600.0)
    over = asyncio.Event()

    @worker.on("mail")
    async def handle(message):
        assert message.attempt == 2
        over.set()

    outbox.enqueue("mail", json.dumps({}))
    assert len(outbox.claim(lease=50.0)) == 1
    async with worker:
        await over.wait()
    # To the millisecond, which is what the store counts in.
    assert 49.999 <= clock.now() < 50.2
