"""Writing to an outbox: rows N, on every store."""

import asyncio
import contextlib
import copy
import dataclasses
import math
import pickle
import sqlite3
from datetime import UTC, datetime, timedelta

import aiosqlite
import outboxes
import pytest

import anabranch as ab


@pytest.fixture(params=["memory", "postgres", "sqlite"])
def side(request, tmp_path):
    with contextlib.closing(outboxes.opened(request.param, tmp_path)) as side:
        yield side


def test_n1_a_message_is_there_when_the_callers_transaction_commits(side):
    with side.transaction() as tx:
        message_id = side.outbox.enqueue(tx, "order.created", {"id": 7})
        assert side.again.messages() == []
    [message] = side.again.messages()
    assert (message.id, message.payload) == (message_id, {"id": 7})


def test_n1_a_message_is_gone_when_the_callers_transaction_is_rolled_back(side):
    with pytest.raises(KeyError), side.transaction() as tx:
        side.outbox.enqueue(tx, "order.created", {"id": 7})
        raise KeyError
    assert side.outbox.messages() == []
    side.outbox.enqueue("order.created", {"id": 8})
    assert len(side.outbox.claim()) == 1


def test_n1_the_callers_connection_is_neither_committed_nor_changed(tmp_path):
    side = outboxes.SqliteSide(tmp_path)
    with contextlib.closing(side), contextlib.closing(sqlite3.connect(side.path)) as conn:
        conn.row_factory = lambda cursor, row: dict(zip("abcdefghijklmnop", row, strict=False))
        conn.execute("create table orders (id integer primary key)")
        conn.execute("insert into orders (id) values (7)")
        first = side.outbox.enqueue(conn, "order.created", {"id": 7}, dedupe_key="order-7")
        assert conn.in_transaction
        conn.rollback()
        assert conn.execute("select count(*) from orders").fetchone() == {"a": 0}
        assert side.outbox.messages() == []
        # The rolled back message does not keep its dedupe key.
        second = side.outbox.enqueue(conn, "order.created", {"id": 8}, dedupe_key="order-7")
        conn.commit()
        assert outboxes.ids(side.outbox.messages()) == [second]
        assert first in (second, second - 1)


def test_n1_no_other_connection_is_opened_for_the_callers(tmp_path, monkeypatch):
    side = outboxes.SqliteSide(tmp_path)
    with contextlib.closing(side), contextlib.closing(sqlite3.connect(side.path)) as conn:
        writer = ab.Outbox(side.url)
        monkeypatch.setattr(sqlite3, "connect", lambda *_, **__: pytest.fail("another connection"))
        writer.enqueue(conn, "mail", "hello")
        conn.commit()


def test_n1_over_aiosqlite_the_result_is_awaited(tmp_path):
    side = outboxes.SqliteSide(tmp_path)

    async def main():
        async with aiosqlite.connect(side.path) as conn:
            conn.row_factory = aiosqlite.Row
            first = await side.outbox.enqueue(conn, "mail", "a", dedupe_key="one")
            assert side.outbox.messages() == []
            await conn.commit()
            same = await side.outbox.enqueue(conn, "mail", "a", dedupe_key="one")
            more = await side.outbox.enqueue_many(conn, [ab.Draft("mail", str(n)) for n in (1, 2)])
            await conn.rollback()
            kept = await side.outbox.enqueue(conn, "mail", "b")
            assert await side.outbox.retract(conn, first)
            await conn.commit()
            return first, same, more, kept

    with contextlib.closing(side):
        first, same, more, kept = asyncio.run(main())
        assert same == first
        assert more == [first + 1, first + 2]
        assert outboxes.ids(side.outbox.messages()) == [kept]


def test_n1_a_connection_in_autocommit_is_refused_unless_a_transaction_is_open(tmp_path):
    side = outboxes.SqliteSide(tmp_path)
    connect = sqlite3.connect(side.path, isolation_level=None)
    with contextlib.closing(side), contextlib.closing(connect) as conn:
        with pytest.raises(ab.ConfigError, match="execute 'BEGIN' first"):
            side.outbox.enqueue(conn, "mail", "hello")
        conn.execute("begin")
        side.outbox.enqueue(conn, "mail", "hello")
        conn.execute("commit")
        assert len(side.outbox.messages()) == 1


def test_n1_a_connection_of_another_driver_or_outbox_is_refused_by_name(side):
    with pytest.raises(ab.ConfigError, match=r"enqueue: conn must be a .*got <object"):
        side.outbox.enqueue(object(), "mail", "hello")
    with (
        ab.Outbox.memory().transaction() as foreign,
        pytest.raises(ab.ConfigError, match="conn must be"),
    ):
        side.outbox.enqueue(foreign, "mail", "hello")


def test_n1_a_transaction_in_memory_is_over_after_its_block(side):
    if side.kind != "memory":
        with pytest.raises(ab.ConfigError, match="enqueue over your own connection"):
            side.outbox.transaction()
        return
    with side.outbox.transaction() as tx:
        mine = side.outbox.enqueue(tx, "mail", "mine")
        assert side.outbox.retract(tx, mine)
    with pytest.raises(ab.ClosedError, match="begin another"):
        side.outbox.enqueue(tx, "mail", "late")
    assert side.outbox.messages() == []
    kept = side.outbox.transaction()
    for payload in ("once", "twice"):
        with kept:
            side.outbox.enqueue(kept, "mail", payload)
    assert [message.payload for message in side.outbox.messages()] == ["once", "twice"]


def test_n2_a_message_enqueued_alone_is_there_on_return(side):
    message_id = side.outbox.enqueue("mail", "hello")
    assert outboxes.ids(side.again.messages()) == [message_id]


def test_n3_enqueue_many_writes_thousands_in_the_order_of_their_ids(side):
    before = side.outbox.enqueue("mail", "before")
    written = side.outbox.enqueue_many(ab.Draft("mail", n) for n in range(5000))
    assert written == list(range(before + 1, before + 5001))
    [last] = side.outbox.messages(after=written[-2])
    assert (last.id, last.payload) == (written[-1], 4999)
    assert side.outbox.enqueue_many([]) == []


@pytest.mark.parametrize("differs", ["nothing", "topic", "format", "priority", "delay", "key"])
def test_n3_n5_many_messages_may_differ_in_anything_and_be_alike_in_the_rest(side, differs):
    """What is the same in all is said once, and is that of each for all that."""

    def draft(n):
        return ab.Draft(
            f"mail.{n}" if differs == "topic" else "mail",
            b"7" if differs == "format" and n else 7,
            priority=n if differs == "priority" else 3,
            delay=60.0 * n if differs == "delay" else 0.0,
            ordering_key=f"key-{n}" if differs == "key" and n else None,
            ttl=3600.0,
        )

    ids = side.outbox.enqueue_many([draft(n) for n in range(3)])
    found = side.outbox.messages()
    assert [message.id for message in found] == ids
    for n, message in enumerate(found):
        wanted = draft(n)
        assert message.topic == wanted.topic
        assert message.payload == wanted.payload
        assert message.priority == wanted.priority
        assert message.ordering_key == wanted.ordering_key
        assert message.due_at - message.enqueued_at == timedelta(seconds=wanted.delay)
        assert message.expires_at - message.enqueued_at == timedelta(hours=1)


@pytest.mark.parametrize("count", [2, 99, 100, 101, 250])
@pytest.mark.parametrize("kind", [bytes, str, list])
def test_n3_many_messages_that_differ_by_their_payload_alone(side, count, kind):
    """They are cut out of one text, or written by the hundred: none is another's, or shorter."""
    payloads = [kind(b"\0\xff,{}'\\\"" * n if kind is bytes else "é\n" * n) for n in range(count)]
    with side.transaction() as tx:
        ids = side.outbox.enqueue_many(tx, [ab.Draft("mail", payload) for payload in payloads])
    assert ids == sorted(set(ids))
    found = side.outbox.messages(limit=1000)
    assert [(it.id, it.payload) for it in found] == list(zip(ids, payloads, strict=True))
    assert {(it.topic, it.priority, it.tenant, it.ordering_key) for it in found} == {
        ("mail", 5, None, None)
    }
    assert outboxes.ids(side.outbox.claim(1000)) == ids
    part = side.outbox.tenant("acme")
    part.enqueue_many([ab.Draft("mail", payload) for payload in payloads])
    assert {it.tenant for it in part.claim(1000)} == {"acme"}


def test_n3_n4_one_payload_too_large_among_many_is_refused_by_name(side):
    side.outbox._max_payload = 10
    with pytest.raises(ab.ConfigError, match=r"payload must be 10 bytes at most .*, got 11 bytes"):
        side.outbox.enqueue_many([ab.Draft("mail", b"x" * size) for size in (9, 10, 11)])
    assert side.outbox.counts() == {}


def test_n3_enqueue_many_writes_all_or_none(side):
    side.outbox.enqueue("mail", "a", dedupe_key="one")
    drafts = [ab.Draft("mail", "x"), ab.Draft("mail", "b", dedupe_key="one")]
    with pytest.raises(ab.DuplicateConflict):
        side.outbox.enqueue_many(drafts)
    assert [message.payload for message in side.outbox.messages()] == ["a"]


@pytest.mark.parametrize(
    ("topic", "payload", "options", "said"),
    [
        ("", "x", {}, "topic must be a str of 1 to 255 characters, .*, got ''"),
        ("t" * 256, "x", {}, "topic must be"),
        ("mail", None, {}, "payload must be bytes, a str or what JSON can hold, not None"),
        ("mail", object(), {}, "payload must be .*not JSON serializable"),
        ("mail", math.nan, {}, "payload must be"),
        ("mail", "\ud800", {}, "payload must be"),
        ("mail", "x", {"delay": math.nan}, "delay must be seconds"),
        ("mail", "x", {"delay": -1}, "delay must be seconds"),
        ("mail", "x", {"ttl": 0}, "ttl must be seconds .* above 0, got 0"),
        ("mail", "x", {"due": datetime(2030, 1, 1)}, "due must be a datetime with a time zone"),  # noqa: DTZ001 - refused
        ("mail", "x", {"due": datetime.now(UTC), "delay": 1}, "due must be given without delay"),
        ("mail", "x", {"priority": 10}, "priority must be an int from 0 to 9, got 10"),
        ("mail", "x", {"priority": True}, "priority must be"),
        ("mail", "x", {"headers": {"a": 1}}, "headers must be a dict of str to str"),
        ("mail", "x", {"headers": 7}, "headers must be"),
        ("mail", "x", {"ordering_key": ""}, "ordering_key must be"),
        ("mail", "x", {"dedupe_key": 7}, "dedupe_key must be"),
        ("mail", "x", {"traceparent": "00-1-2-3"}, "traceparent must be a W3C"),
    ],
)
def test_n4_arguments_are_checked_before_any_sql(side, topic, payload, options, said):
    with pytest.raises(ab.ConfigError, match=f"enqueue: {said}"):
        side.outbox.enqueue(topic, payload, **options)
    assert side.outbox.messages() == []


@pytest.mark.parametrize(
    "payload",
    [b"", "", b"\x00\xff" * 524_288, "grüße 🦦", {"id": 7, "of": [1, 2.5, None]}, [], 0, False],
    ids=["no bytes", "no text", "1 MiB", "text", "json", "list", "zero", "false"],
)
def test_n4_a_payload_comes_back_as_it_was(side, payload):
    side.outbox.enqueue("mail", payload)
    [message] = side.outbox.claim()
    assert message.payload == payload
    assert type(message.payload) is type(payload)


def test_n4_a_payload_that_is_too_large_is_refused_by_name(tmp_path):
    outbox = ab.Outbox.memory(max_payload=10)
    outbox.enqueue("mail", b"x" * 10)
    with pytest.raises(ab.ConfigError, match=r"10 bytes at most .`max_payload` .*got 11 bytes"):
        outbox.enqueue("mail", b"x" * 11)


def test_n5_all_that_was_said_comes_back_on_the_claimed_message(side):
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    side.outbox.enqueue(
        "mail",
        "hello",
        headers={"source": "shop", "é": "ü"},
        correlation_id="c-1",
        traceparent=trace,
        ordering_key="ada",
        dedupe_key="welcome-ada",
        priority=9,
        ttl=60.0,
    )
    [message] = side.outbox.claim()
    assert (message.topic, message.payload) == ("mail", "hello")
    assert message.headers == {"source": "shop", "é": "ü"}
    assert (message.correlation_id, message.traceparent) == ("c-1", trace)
    assert (message.ordering_key, message.dedupe_key) == ("ada", "welcome-ada")
    assert (message.priority, message.attempt, message.status) == (9, 1, "leased")
    assert message.expires_at - message.enqueued_at == timedelta(seconds=60)
    assert message.due_at == message.enqueued_at
    assert message.store in repr(side.outbox)


@pytest.mark.parametrize("says", ["little", "all"])
def test_n5_a_claimed_message_is_what_is_listed(side, says):
    """A claim is told in brief: what is left out is put back as it is in the table."""
    more = {
        "headers": {"source": "shop"},
        "correlation_id": "c-1",
        "traceparent": f"00-{'a' * 32}-{'b' * 16}-01",
        "ordering_key": "ada",
        "dedupe_key": "welcome-ada",
        "priority": 9,
        "ttl": 600.0,
        "tenant": "acme",
        "join": side.outbox.join(expected=1, then=ab.Draft("done", 1)),
    }
    side.outbox.enqueue("mail", "hello", **(more if says == "all" else {}))
    if says == "all":
        side.outbox.abandon(side.outbox.claim(), error=OSError('é: "down"'), delay=0)
        [held] = side.outbox.claim()
        receipt = held._receipt()
        progress = '{"failed": {"mailer": 1}}'
        side.outbox._store.divide([(*receipt, 0, ["mailer"], progress, None, True)])
    [claimed] = side.outbox.claim(lease=60.0)
    [listed] = side.outbox._store.rows(status="leased", topic=None, after=0, limit=10)
    now = 19
    assert claimed._row[:now] == listed[:now]
    assert claimed._row[now + 1 :] == listed[now + 1 :]
    assert claimed._row[now] == claimed._row[18] - 60_000
    assert claimed.status == "leased"


def test_n5_a_message_is_due_after_its_delay_or_at_its_time(side):
    now = side.outbox.messages(after=side.outbox.enqueue("clock", "x") - 1)[0].enqueued_at
    side.outbox.ack(side.outbox.claim())
    later = side.outbox.enqueue("mail", "in a minute", delay=timedelta(minutes=1))
    fixed = side.outbox.enqueue("mail", "at a time", due=now + timedelta(minutes=2))
    assert side.outbox.claim() == []
    assert {message.status for message in side.outbox.messages()} == {"scheduled"}
    side.pass_time(61)
    assert outboxes.ids(side.outbox.claim()) == [later]
    side.pass_time(60)
    assert fixed in outboxes.ids(side.outbox.claim())


def test_n5_a_message_nobody_took_in_time_is_not_handled_but_dead(side):
    side.outbox.enqueue("mail", "hello", ttl=60.0)
    side.pass_time(61)
    assert side.outbox.claim() == []
    assert side.outbox.reap() == (0, 1)
    [dead] = side.outbox.messages(status="dead")
    assert dead.errors[0].error == "Expired: nobody handled it in time"


def test_n6_enqueues_with_one_dedupe_key_at_once_are_one_message(side):
    written = []

    def work(_):
        with side.transaction() as tx:
            written.append(side.outbox.enqueue(tx, "mail", "hello", dedupe_key="one"))

    outboxes.in_threads(8, work)
    assert len(written) == 8
    assert set(written) == set(outboxes.ids(side.outbox.messages()))
    assert len(set(written)) == 1


def test_n6_the_same_key_for_something_else_is_a_conflict(side):
    first = side.outbox.enqueue("mail", "hello", dedupe_key="one")
    for topic, payload in (("mail", "other"), ("post", "hello"), ("mail", b"hello")):
        with pytest.raises(ab.DuplicateConflict, match="'one' belongs to message") as caught:
            side.outbox.enqueue(topic, payload, dedupe_key="one")
        assert (caught.value.id, caught.value.dedupe_key) == (first, "one")


def test_n6_a_key_is_remembered_for_a_day_whatever_becomes_of_the_message(side):
    first = side.outbox.enqueue("mail", "hello", dedupe_key="one")
    side.outbox.ack(side.outbox.claim())
    side.pass_time(86_000)
    assert side.outbox.enqueue("mail", "hello", dedupe_key="one") == first
    side.pass_time(500)
    assert side.outbox.enqueue("mail", "other", dedupe_key="one") > first


def test_n7_messages_of_one_transaction_are_claimed_in_enqueue_order(side):
    with side.transaction() as tx:
        one_by_one = [side.outbox.enqueue(tx, "mail", n) for n in range(20)]
        together = side.outbox.enqueue_many(tx, [ab.Draft("mail", n) for n in range(20)])
    assert outboxes.ids(side.outbox.claim(30)) == (one_by_one + together)[:30]
    assert outboxes.ids(side.outbox.claim(30)) == together[10:]


def test_n4_a_name_of_the_package_is_looked_for_once():
    """Thousands of drafts are made by it; who asks for a Result is looked at each time."""
    assert ab.Draft is vars(ab)["Draft"]
    assert ab.Ok
    assert "Ok" not in vars(ab)


def test_n4_a_draft_is_a_value():
    draft = ab.Draft("mail", {"to": "ada"}, priority=9)
    assert draft == ab.Draft("mail", {"to": "ada"}, priority=9) != ab.Draft("mail", {"to": "ada"})
    for same in (copy.copy(draft), copy.deepcopy(draft), pickle.loads(pickle.dumps(draft))):
        assert same == draft
    plain = dataclasses.replace(draft, priority=5)
    assert plain == ab.Draft("mail", {"to": "ada"})
    assert "priority=5, delay=0.0" in repr(plain)
    with pytest.raises(dataclasses.FrozenInstanceError):
        draft.priority = 3
    with pytest.raises(TypeError, match=r"Draft\(\) got an unexpected keyword argument 'prio'"):
        ab.Draft("mail", 7, prio=9)
    with pytest.raises(ab.ConfigError, match="priority must be an int from 0 to 9"):
        dataclasses.replace(draft, priority=10)


@pytest.mark.parametrize("given", [7, None, "abc", [7], [("a", 1)], ab.Draft("a", 1)])
def test_n4_what_is_no_draft_is_refused_before_anything_is_written(side, given):
    with pytest.raises(ab.ConfigError, match="drafts must be an iterable of"):
        side.outbox.enqueue_many(given)
    assert side.outbox.counts() == {}


@pytest.mark.parametrize("topic", ["order.*", "*", "t*", "a*b"])
def test_n4_h2_a_topic_is_no_pattern(side, topic):
    with pytest.raises(ab.ConfigError, match=r"enqueue: topic must be .* none of them a \*"):
        side.outbox.enqueue(topic, 1)


def test_enqueue_wants_two_or_three_positional_arguments(side):
    with pytest.raises(TypeError, match=r"\(conn, topic, payload\) or \(topic, payload\)"):
        side.outbox.enqueue("mail")
    with pytest.raises(ab.ConfigError, match=r"drafts must be an iterable of ab\.Draft"):
        side.outbox.enqueue_many(["mail"])
