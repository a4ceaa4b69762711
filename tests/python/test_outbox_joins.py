"""Joins: rows J1 to J3, on every store."""

import asyncio
import contextlib
import random

import aiosqlite
import outboxes
import psycopg
import pytest

import anabranch as ab


@pytest.fixture(params=["memory", "postgres", "sqlite"])
def side(request, tmp_path):
    with contextlib.closing(outboxes.opened(request.param, tmp_path)) as side:
        yield side


THEN = ab.Draft("then", {"id": 7}, headers={"a": "b"}, priority=0)
OTHERWISE = ab.Draft("otherwise", "too bad")


def joined(side, count: int, **options) -> int:
    """Make a join with so many members, numbered from 0; all are claimed before what follows."""
    with side.transaction() as tx:
        join = side.outbox.join(tx, expected=count, then=THEN, otherwise=OTHERWISE, **options)
        side.outbox.enqueue_many(tx, [ab.Draft("member", n, join=join) for n in range(count)])
    return join


def follows(side) -> list[str]:
    """Tell which messages followed."""
    counts = side.outbox.counts()
    return [
        topic for topic in ("then", "otherwise") for _ in range(sum(counts.get(topic, {}).values()))
    ]


def status(side, join: int) -> str:
    [found] = [it for it in side.outbox.joins() if it.id == join]
    return found.status


def test_j1_j2_what_follows_is_enqueued_once_when_the_last_member_is_acked(side):
    join = joined(side, 3)
    for n in range(3):
        assert follows(side) == []
        [member] = side.outbox.claim(1)
        assert (member.payload, member.join) == (n, join)
        side.outbox.ack(member)
    [message] = side.outbox.messages()
    assert (message.topic, message.payload, message.headers) == ("then", {"id": 7}, {"a": "b"})
    assert (message.priority, message.status, message.join) == (0, "ready", None)
    [found] = side.outbox.joins()
    assert found[:8] == (join, "done", 3, 3, False, 3, 3, 0)
    assert found.ended_at is not None


def test_j1_a_batch_counts_each_of_its_members_in_one_ack(side):
    first, second = joined(side, 300), joined(side, 200)
    assert side.outbox.ack(side.outbox.claim(1000)) == 500
    assert follows(side) == ["then", "then"]
    assert (status(side, first), status(side, second)) == ("done", "done")


def test_j1_a_join_is_gone_with_its_transaction(side):
    with pytest.raises(KeyError), side.transaction() as tx:
        join = side.outbox.join(tx, expected=1, then=THEN)
        side.outbox.enqueue(tx, "member", 0, join=join)
        raise KeyError
    assert side.outbox.joins() == []
    assert side.outbox.messages() == []


def test_j1_a_member_is_counted_once_however_often_it_is_acked(side):
    join = joined(side, 2)
    [member] = side.outbox.claim(1)
    assert side.outbox.ack([member, member]) == 1
    assert side.outbox.ack([member]) == 0
    [lost] = side.outbox.claim(1, lease=10.0)
    side.pass_time(11.0)
    assert side.outbox.ack([lost]) == 0
    assert status(side, join) == "open"
    [again] = side.outbox.claim(1)
    side.outbox.abandon(again, delay=0)
    assert status(side, join) == "open"
    side.outbox.ack(side.outbox.claim(1))
    assert follows(side) == ["then"]


def test_j1_a_quorum_completes_it_and_the_others_are_handled_all_the_same(side):
    join = joined(side, 4, quorum=2)
    for count in range(4):
        assert follows(side) == (["then"] if count >= 2 else [])
        side.outbox.ack([it for it in side.outbox.claim(1) if it.topic == "member"])
    assert follows(side) == ["then"]
    [found] = side.outbox.joins()
    assert (found.id, found.done, found.quorum) == (join, 4, 2)


def test_j1_after_its_deadline_the_other_message_follows(side):
    join = joined(side, 2, deadline=60.0)
    side.outbox.ack(side.outbox.claim(1))
    side.pass_time(61.0)
    assert status(side, join) == "expired"
    assert sorted(it.topic for it in side.outbox.claim()) == ["member", "otherwise"]
    assert follows(side) == ["otherwise"]
    assert side.outbox.claim() == []


def test_j1_a_member_that_comes_after_the_deadline_completes_nothing(side):
    join = joined(side, 1, deadline=60.0)
    [member] = side.outbox.claim(lease=3600.0)
    side.pass_time(61.0)
    assert side.outbox.ack(member) == 1
    assert (status(side, join), follows(side)) == ("expired", ["otherwise"])


def test_j1_a_deadline_is_reaped_too(side):
    joined(side, 1, deadline=60.0)
    side.pass_time(61.0)
    side.outbox.reap()
    assert follows(side) == ["otherwise"]
    side.outbox.reap()
    assert follows(side) == ["otherwise"]


def test_j1_nothing_follows_a_join_that_is_cancelled(side):
    join = joined(side, 2, deadline=60.0)
    with pytest.raises(KeyError), side.transaction() as tx:
        assert side.outbox.cancel_join(tx, join)
        raise KeyError
    assert status(side, join) == "open"
    assert side.outbox.cancel_join(join)
    assert not side.outbox.cancel_join(join)
    assert side.outbox.ack(side.outbox.claim()) == 2
    side.pass_time(61.0)
    side.outbox.reap()
    assert (status(side, join), follows(side)) == ("cancelled", [])
    assert not side.outbox.cancel_join(99)


def test_j1_members_that_ended_before_they_are_attached_count(side):
    done, dead, held, ready = (side.outbox.enqueue("member", n) for n in range(4))
    claimed = side.outbox.claim(3)
    side.outbox.ack(claimed[0])
    side.outbox.fail(claimed[1], "broken")
    with side.transaction() as tx:
        join = side.outbox.join(tx, expected=4, then=THEN, failures="tolerate")
        side.outbox.attach(tx, join, [done, dead, held])
    side.outbox.attach(join, ready)
    for _ in range(2):  # again, they are not counted again
        side.outbox.attach(join, [done, dead, held, ready])
    [found] = side.outbox.joins()
    assert (found.status, found.attached, found.done, found.failed) == ("open", 4, 1, 1)
    side.outbox.ack(claimed[2])
    assert follows(side) == []
    side.outbox.ack(side.outbox.claim())
    assert follows(side) == ["then"]


def test_j1_all_of_them_ended_before_and_what_follows_is_there_at_once(side):
    ids = side.outbox.enqueue_many([ab.Draft("member", n) for n in range(2)])
    side.outbox.ack(side.outbox.claim())
    join = side.outbox.join(expected=2, then=THEN)
    side.outbox.attach(join, ids)
    assert (status(side, join), follows(side)) == ("done", ["then"])


def test_j1_who_cannot_be_a_member_is_refused(side):
    join, other = (side.outbox.join(expected=1, then=THEN) for _ in range(2))
    mine = side.outbox.enqueue("member", 0, join=join)
    with pytest.raises(ab.ConfigError, match="there is no join 99"):
        side.outbox.enqueue("member", 1, join=99)
    with pytest.raises(ab.ConfigError, match="there is no message 9999"):
        side.outbox.attach(other, 9999)
    with pytest.raises(ab.ConfigError, match=f"is a member of join {join}"):
        side.outbox.attach(other, mine)
    with pytest.raises(ab.ConfigError, match=f"join {join} expects 1 members"):
        side.outbox.enqueue("member", 2, join=join)
    # Nothing of that is left.
    assert [it.payload for it in side.outbox.messages()] == [0]
    assert [it.attached for it in side.outbox.joins()] == [1, 0]


def test_j3_one_that_dies_makes_the_join_fail_at_once(side):
    join = joined(side, 3)
    side.outbox.fail(side.outbox.claim(1), "broken")
    assert (status(side, join), follows(side)) == ("failed", ["otherwise"])
    side.outbox.ack([it for it in side.outbox.claim() if it.topic == "member"])
    assert follows(side) == ["otherwise"]


def test_j3_with_a_quorum_it_fails_when_that_is_out_of_reach(side):
    join = joined(side, 3, quorum=2)
    side.outbox.fail(side.outbox.claim(1), "broken")
    assert status(side, join) == "open"
    side.outbox.fail(side.outbox.claim(1), "broken")
    assert (status(side, join), follows(side)) == ("failed", ["otherwise"])


def test_j3_what_is_tolerated_counts_like_what_is_done(side):
    join = joined(side, 3, failures="tolerate")
    side.outbox.fail(side.outbox.claim(1), "broken")
    side.outbox.ack(side.outbox.claim(2))
    assert (status(side, join), follows(side)) == ("done", ["then"])
    # Requeued and done, it is not counted again.
    side.outbox.requeue()
    side.outbox.ack([it for it in side.outbox.claim() if it.topic == "member"])
    [found] = side.outbox.joins()
    assert (found.done, found.failed) == (2, 1)


@pytest.mark.parametrize("end", ["retracted", "expired", "retracted at once"])
def test_j3_a_member_that_is_taken_back_or_expires_has_failed(side, end):
    with side.transaction() as tx:
        join = side.outbox.join(tx, expected=1, then=THEN, otherwise=OTHERWISE)
        member = side.outbox.enqueue(tx, "member", 0, join=join, ttl=60.0)
        if end == "retracted at once":
            assert side.outbox.retract(tx, member)
    if end == "retracted":
        assert side.outbox.retract(member)
    if end == "expired":
        side.pass_time(61.0)
        side.outbox.reap()
    assert (status(side, join), follows(side)) == ("failed", ["otherwise"])


def test_j2_many_who_ack_at_once_enqueue_what_follows_once(side):
    joins = [joined(side, 40) for _ in range(3)]

    def work(number):
        outbox = side.outbox if number % 2 else side.again
        draw = random.Random(number)
        while claimed := [it for it in outbox.claim(draw.randint(1, 9)) if it.topic == "member"]:
            outbox.ack(claimed)

    outboxes.in_threads(6, work)
    assert [status(side, join) for join in joins] == ["done"] * 3
    assert follows(side) == ["then"] * 3
    assert [it.done for it in side.outbox.joins()] == [40] * 3


def test_j2_a_worker_handles_the_members_and_what_follows(side):
    worker = ab.OutboxWorker(side.outbox)
    log = []
    worker.on("member")(lambda message: log.append(message.payload))
    worker.on("then")(lambda message: log.append("then"))
    joined(side, 3)
    while worker.run_once_blocking():
        pass
    assert log == [0, 1, 2, "then"]


def test_j2_a_member_with_two_subscribers_counts_when_both_are_done(side):
    worker = ab.OutboxWorker(side.outbox)
    log = []

    def late(message):
        log.append(message.attempt)
        if message.attempt < 3:
            raise OSError

    worker.on("member", subscriber="quick")(lambda message: None)
    retry = ab.Retry.fixed(0.0, attempts=3, retry_on=Exception)
    worker.on("member", subscriber="late", retry=retry)(late)
    worker.on("then")(lambda message: log.append("then"))
    joined(side, 1)
    while worker.run_once_blocking():
        pass
    assert log == [1, 2, 3, "then"]


def test_j3_a_member_that_is_dead_for_one_of_its_subscribers_has_failed(side):
    worker = ab.OutboxWorker(side.outbox)
    worker.on("member", subscriber="well")(lambda message: None)
    retry = ab.Retry.fixed(0.0, attempts=1, retry_on=Exception)
    worker.on("member", subscriber="ill", retry=retry)(lambda message: 1 / 0)
    join = joined(side, 1)
    while worker.run_once_blocking():
        pass
    assert (status(side, join), follows(side)) == ("failed", ["otherwise"])


@ab.testing.virtual_time
async def test_j1_z3_a_join_whose_last_member_takes_long_ends_when_it_does(clock):
    outbox = ab.Outbox.memory(clock=clock.now)
    worker = ab.OutboxWorker(outbox, max_idle_poll=3600.0)
    over = asyncio.Event()
    seen = []

    @worker.on("member", concurrency=3)
    async def member(message):
        await asyncio.sleep(message.payload)

    @worker.on("then")
    async def then(message):
        seen.append(round(clock.now()))
        over.set()

    with outbox.transaction() as tx:
        join = outbox.join(tx, expected=3, then=THEN)
        outbox.enqueue_many(tx, [ab.Draft("member", n, join=join) for n in (1, 2, 60)])
    async with worker:
        await over.wait()
    assert seen == [60]


@ab.testing.virtual_time
async def test_j1_an_idle_worker_wakes_at_a_deadline(clock):
    outbox = ab.Outbox.memory(clock=clock.now)
    worker = ab.OutboxWorker(outbox, max_idle_poll=3600.0)
    over = asyncio.Event()
    seen = []

    @worker.on("otherwise")
    async def otherwise(message):
        seen.append(round(clock.now()))
        over.set()

    outbox.join(expected=1, then=THEN, otherwise=OTHERWISE, deadline=500.0)
    async with worker:
        await over.wait()
    assert seen == [500]


def test_j1_over_a_connection_that_is_awaited_the_answers_are_awaited(tmp_path):
    async def main(side, conn):
        join = await side.outbox.join(conn, expected=2, then=THEN)
        await side.outbox.enqueue(conn, "member", 0, join=join)
        [more] = await side.outbox.enqueue_many(conn, [ab.Draft("member", 1)])
        await side.outbox.attach(conn, join, [more])
        other = await side.outbox.join(conn, expected=2, then=THEN)
        assert await side.outbox.cancel_join(conn, other)
        await conn.commit()

    async def over_sqlite(side):
        async with aiosqlite.connect(side.path) as conn:
            await main(side, conn)

    async def over_postgres(side):
        async with await psycopg.AsyncConnection.connect(side.url) as conn:
            await main(side, conn)

    for kind, over in (("sqlite", over_sqlite), ("postgres", over_postgres)):
        with contextlib.closing(outboxes.opened(kind, tmp_path)) as side:
            asyncio.run(over(side))
            assert [it.status for it in side.outbox.joins()] == ["open", "cancelled"]
            side.outbox.ack(side.outbox.claim())
            assert follows(side) == ["then"]


def test_j1_a_join_that_has_ended_is_forgotten_after_a_week(side):
    joined(side, 1)
    opened = side.outbox.join(expected=1, then=THEN)
    side.outbox.ack(side.outbox.claim(1))
    side.pass_time(6 * 86_400.0)
    side.outbox.reap()
    assert len(side.outbox.joins()) == 2
    side.pass_time(2 * 86_400.0)
    side.outbox.reap()
    assert [it.id for it in side.outbox.joins()] == [opened]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"expected": 0}, "join: expected must be an int from 1"),
        ({"expected": True}, "join: expected must be an int from 1"),
        ({"quorum": 4}, "join: quorum must be an int from 1 to 3"),
        ({"deadline": 0}, "join: deadline must be seconds"),
        ({"failures": "ignore"}, "join: failures must be 'fail' or 'tolerate'"),
        ({"then": "order.ready"}, "join: then must be an ab.Draft"),
        ({"then": ab.Draft("a", 1, dedupe_key="b")}, "join: then must be an ab.Draft without"),
        ({"otherwise": ab.Draft("a", 1, join=1)}, "join: otherwise must be an ab.Draft without"),
    ],
)
def test_j1_bad_arguments_of_a_join_are_refused(options, said):
    outbox = ab.Outbox.memory()
    with pytest.raises(ab.ConfigError, match=said):
        outbox.join(**{"expected": 3, "then": THEN, **options})
    assert outbox.joins() == []


@pytest.mark.parametrize("join", [0, -1, True, "1"])
def test_j1_what_is_no_join_is_refused(join):
    outbox = ab.Outbox.memory()
    with pytest.raises(ab.ConfigError, match="join must be a join's id"):
        outbox.enqueue("member", 0, join=join)
    with pytest.raises(ab.ConfigError, match="attach: join must be a join's id"):
        outbox.attach(join, 1)
    with pytest.raises(ab.ConfigError, match="cancel_join: join must be a join's id"):
        outbox.cancel_join(join)
