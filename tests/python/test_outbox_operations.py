"""What operators do with an outbox, on every store: rows D2 and D3."""

import asyncio
import contextlib
import os
import sqlite3

import outboxes
import psycopg
import pytest

import anabranch as ab
from anabranch._outbox.store import Keep, Which
from anabranch._outbox.upkeep import Upkeep

PATIENCE = 60.0
END, OTHER = ab.Draft("end", 1), ab.Draft("other", 1)


@pytest.fixture(params=["memory", "postgres", "sqlite"])
def side(request, tmp_path):
    with contextlib.closing(outboxes.opened(request.param, tmp_path)) as side:
        yield side


@pytest.fixture(params=["memory", "postgres", "sqlite"])
def skipping(request, tmp_path):
    with contextlib.closing(outboxes.opened(request.param, tmp_path, ordering="skip")) as side:
        yield side


def payloads(messages):
    return [message.payload for message in messages]


def write(side, *topics):
    return side.outbox.enqueue_many([ab.Draft(topic, topic) for topic in topics])


def test_d2_what_is_paused_nobody_claims_and_every_process_sees_it(side):
    write(side, "mail", "order.created")
    side.outbox.pause("mail")
    write(side, "mail")
    assert payloads(side.again.peek()) == ["order.created"]
    assert payloads(side.again.claim()) == ["order.created"]
    assert [it.topic for it in side.again.paused()] == ["mail"]
    assert side.again.counts() == {"mail": {"paused": 2}, "order.created": {"leased": 1}}
    assert side.again.resume("mail")
    assert not side.outbox.resume("mail")
    assert payloads(side.outbox.claim()) == ["mail", "mail"]


def test_d2_topics_are_paused_by_their_beginning_or_all_at_once(side):
    write(side, "order.created", "order.paid", "orders", "mail")
    side.outbox.pause("order.*")
    assert payloads(side.outbox.peek()) == ["orders", "mail"]
    side.outbox.pause()
    assert side.outbox.claim() == []
    side.outbox.resume("order.*")
    assert side.outbox.claim() == []
    side.outbox.resume()
    assert len(side.outbox.claim()) == 4


def test_d2_a_message_that_was_met_by_a_claim_while_paused_keeps_its_place(side):
    write(side, "mail", "other")
    side.pass_time(10)
    side.outbox.pause("mail")
    assert payloads(side.outbox.claim()) == ["other"]
    write(side, "later", "mail")
    assert payloads(side.outbox.claim()) == ["later"]
    assert side.outbox.claim() == []
    first, last = side.outbox.messages(topic="mail")
    assert first.status == last.status == "ready"
    assert (last.due_at - first.due_at).total_seconds() >= 10
    write(side, "later")
    side.outbox.resume("mail")
    assert payloads(side.outbox.claim()) == ["mail", "mail", "later"]


def test_d2_a_paused_message_is_due_later_retracted_and_cancelled_as_any_other(side):
    later = side.outbox.enqueue("mail", "later", delay=60.0)
    gone, dead = write(side, "mail", "mail")
    side.outbox.pause("mail")
    assert side.outbox.counts() == {"mail": {"paused": 2, "scheduled": 1}}
    assert side.outbox.retract(gone)
    assert side.outbox.cancel([dead]) == 1
    side.pass_time(61)
    assert side.outbox.claim() == []
    side.outbox.resume("mail")
    assert outboxes.ids(side.outbox.claim()) == [later]


def test_d2_what_is_being_handled_when_its_topic_is_paused_goes_on(side):
    write(side, "mail", "mail")
    [held] = side.outbox.claim(1)
    side.outbox.pause("mail")
    assert side.outbox.ack(held) == 1
    assert side.outbox.counts() == {"mail": {"done": 1, "paused": 1}}


def test_d2_k10_a_paused_message_holds_up_its_ordering_key(side):
    side.outbox.enqueue("mail", 1, ordering_key="ada")
    side.outbox.enqueue("order", 2, ordering_key="ada")
    side.outbox.pause("mail")
    assert side.outbox.claim() == []
    side.outbox.resume("mail")
    assert payloads(side.outbox.claim()) == [1]


def test_d2_k10_skip_lets_the_next_one_pass_a_paused_message(skipping):
    skipping.outbox.enqueue("mail", 1, ordering_key="ada")
    skipping.outbox.enqueue("order", 2, ordering_key="ada")
    skipping.outbox.pause("mail")
    assert payloads(skipping.outbox.claim()) == [2]


def test_d2_k9_claims_pass_over_paused_messages_once(side):
    """What was met is set aside: so a claim reads no more than on an empty table."""
    if side.kind == "memory":
        return
    side.outbox.pause("bulk")
    side.outbox.enqueue_many([ab.Draft("bulk", 0, priority=9)] * 3000)
    written = side.outbox.enqueue("mail", 0)
    assert outboxes.ids(side.outbox.claim(10)) == [written]
    for _ in range(2):
        assert side.outbox.claim(10) == []
    due = "select count(*) from outbox_message where due_at < 1000000000000000"
    if side.kind == "postgres":
        with psycopg.connect(side.url) as conn:
            assert conn.execute(due).fetchone() == (1,)
    else:
        with contextlib.closing(sqlite3.connect(side.path)) as conn:
            assert conn.execute(due).fetchone() == (1,)
    side.outbox.resume("bulk")
    assert len(side.outbox.claim(5000)) == 3000


def test_d2_workers_that_run_heed_a_pause_and_hear_of_its_end(side):
    worker = ab.OutboxWorker(side.outbox, poll=3600.0, max_idle_poll=3600.0)
    seen = asyncio.Queue()

    @worker.on("*")
    async def handle(message):
        seen.put_nowait(message.payload)

    async def main():
        async with worker:
            side.outbox.pause("mail")
            write(side, "mail", "other")
            assert await asyncio.wait_for(seen.get(), PATIENCE) == "other"
            assert seen.empty()
            await asyncio.to_thread(side.again.resume, "mail")
            assert await asyncio.wait_for(seen.get(), PATIENCE) == "mail"

    asyncio.run(main())


@pytest.mark.parametrize("topic", ["", "a*b", "*a", "x" * 256, None, 7])
def test_d2_what_is_no_topic_is_not_paused(side, topic):
    for act in (side.outbox.pause, side.outbox.resume):
        with pytest.raises(ab.ConfigError, match="topic must be a topic of 1 to 255 characters"):
            act(topic)


def test_d2_only_what_nobody_has_begun_with_is_cancelled(side):
    held, ready = write(side, "mail", "mail")
    later = side.outbox.enqueue("mail", "later", delay=60.0)
    [claimed] = side.outbox.claim(1)
    assert side.outbox.cancel([held, ready, later, later, 999], reason="wrong address") == 2
    dead = side.outbox.messages(status="dead")
    assert outboxes.ids(dead) == [ready, later]
    assert dead[0].errors[-1].error == "Cancelled: wrong address"
    assert dead[0].ended_at is not None
    assert side.outbox.ack(claimed) == 1
    assert side.outbox.cancel(topic="mail") == 0
    assert side.outbox.requeue() == 2
    assert outboxes.ids(side.outbox.claim()) == [ready, later]


def test_d2_to_cancel_everything_must_be_said(side):
    with pytest.raises(ab.ConfigError, match="cancel: messages must be given, or a topic"):
        side.outbox.cancel()


def test_d2_many_are_changed_a_thousand_at_a_time(side):
    side.outbox.enqueue_many([ab.Draft("mail", 0)] * 2500)
    assert list(side.outbox._cancelled(Which(), "x")) == [1000, 1000, 500]


def test_d2_d5_the_oldest_messages_tell_how_long_they_wait(side):
    assert side.outbox.ages() == (None, None)
    side.outbox.enqueue("mail", 1)
    side.outbox.enqueue("mail", 2, delay=3600.0)
    side.pass_time(100)
    assert 100 <= side.outbox.ages().ready < 100 + PATIENCE
    [message] = side.outbox.claim()
    assert side.outbox.ages().ready is None
    assert side.outbox.ages().held < PATIENCE
    side.outbox.release(message)
    side.outbox.pause("mail")
    assert side.outbox.ages() == (None, None)


def test_d5_who_works_on_it_is_listed_until_it_is_gone(side):
    store = side.outbox._store
    first, second = store.owner(), store.owner()
    store.beat(first, '{"name": "jobs", "host": "a", "pid": 7, "subscribers": ["mail"]}', 60_000)
    store.beat(second, '{"name": "jobs"}', 600_000)
    assert [(it.id, it.name, it.subscribers) for it in side.again.workers()] == [
        (second, "jobs", ()),
        (first, "jobs", ("mail",)),
    ]
    side.pass_time(61)
    assert [it.id for it in side.again.workers()] == [second]
    store.leave(second)
    assert side.again.workers() == []


@pytest.mark.parametrize("kind", ["memory", "postgres", "sqlite"])
def test_d3_what_was_kept_long_enough_is_tidied_up(kind, tmp_path):
    options = {"archive": True, "keep_done": 60.0, "keep_dead": 3600.0, "dedupe_for": 60.0}
    with contextlib.closing(outboxes.opened(kind, tmp_path, **options)) as side:
        side.outbox.enqueue("mail", 0, dedupe_key="a")
        side.outbox.enqueue_many([ab.Draft("mail", n) for n in range(3)])
        claimed = side.outbox.claim()
        side.outbox.ack(claimed[:2])
        side.outbox.fail(claimed[2:], "no")
        side.outbox.enqueue("mail", 4, ttl=10.0)
        assert side.outbox.tidy() == (0, 0, 0, 0)
        side.pass_time(61)
        assert side.outbox.tidy() == (0, 1, 2, 0)
        assert side.outbox.counts() == {"mail": {"done": 2, "dead": 3}}
        assert side.outbox.enqueue("mail", "another", dedupe_key="a", delay=7200.0) > 4
        side.pass_time(3600)
        assert side.outbox.tidy() == (0, 0, 0, 3)
        assert side.outbox.counts() == {"mail": {"done": 2, "scheduled": 1}}


def test_d3_what_has_ended_is_kept_for_ever_unless_said_otherwise(side):
    side.outbox.enqueue("mail", 0)
    side.outbox.fail(side.outbox.claim(), "no")
    side.pass_time(10 * 365 * 86_400)
    assert side.outbox.tidy() == (0, 0, 0, 0)
    assert side.outbox.counts() == {"mail": {"dead": 1}}


def test_d3_upkeep_removes_a_bounded_part_and_comes_again_soon(side):
    store = side.outbox._store
    upkeep = Upkeep("jobs", ["mail"])
    side.outbox.enqueue_many([ab.Draft("mail", 0)] * 1500)
    side.outbox.cancel(topic="mail")
    store.keep = Keep(dead=0)
    owner = store.owner()
    assert upkeep.is_due(7.0, idle=False)
    upkeep.do(store, owner, 7.0, in_hand=3, handled=9, idle=False)
    assert side.outbox.counts() == {"mail": {"dead": 500}}
    assert upkeep.is_due(7.0, idle=False)
    upkeep.do(store, owner, 8.0, in_hand=0, handled=9, idle=True)
    assert side.outbox.counts() == {}
    assert not upkeep.is_due(200.0, idle=True)
    assert upkeep.is_due(200.0, idle=False)
    assert upkeep.is_due(308.0, idle=True)
    [worker] = side.again.workers()
    assert (worker.id, worker.name, worker.subscribers) == (owner, "jobs", ("mail",))
    assert (worker.in_hand, worker.handled, worker.pid) == (0, 9, os.getpid())


@pytest.mark.parametrize("argument", ["keep_done", "keep_dead"])
@pytest.mark.parametrize("value", [-1.0, "7d", True])
def test_d3_what_is_no_time_is_no_retention(argument, value):
    with pytest.raises(ab.ConfigError, match=f"Outbox: {argument} must be seconds"):
        ab.Outbox.memory(**{argument: value})


def test_d2_j1_a_cancelled_member_of_a_join_counts_as_one_that_has_failed(side):
    if side.kind == "memory":
        with side.outbox.transaction() as tx:
            join = side.outbox.join(tx, expected=1, then=END, otherwise=OTHER)
            member = side.outbox.enqueue(tx, "pick", 1, join=join)
    else:
        join = side.outbox.join(expected=1, then=END, otherwise=OTHER)
        member = side.outbox.enqueue("pick", 1, join=join)
    assert side.outbox.cancel([member]) == 1
    assert [it.topic for it in side.outbox.claim()] == ["other"]
    assert side.outbox.requeue() == 1
    assert [it.topic for it in side.outbox.claim()] == ["pick"]


@pytest.mark.parametrize("ack", ["lease", "inline"])
def test_d5_a_worker_is_listed_while_it_works(side, ack):
    if side.kind == "memory" and ack == "inline":
        return  # it has no driver

    def connect():
        if side.kind == "postgres":
            return psycopg.connect(side.url)
        return sqlite3.connect(side.path, check_same_thread=False)

    options = {"ack": ack, "connect": connect} if ack == "inline" else {}
    worker = ab.OutboxWorker(side.outbox, name="jobs", **options)
    seen = asyncio.Queue()

    @worker.on("mail", subscriber="sender")
    async def handle(message):
        seen.put_nowait(side.again.workers())

    async def main():
        async with worker:
            side.outbox.enqueue("mail", 1)
            return await asyncio.wait_for(seen.get(), PATIENCE)

    [found] = asyncio.run(main())
    assert (found.name, found.subscribers, found.pid) == ("jobs", ("sender",), os.getpid())
    assert side.again.workers() == []
