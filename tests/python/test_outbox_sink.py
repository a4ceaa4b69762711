"""`to_outbox`: the end of a pipeline, on every store."""

import contextlib

import outboxes
import pytest

import anabranch as ab


@pytest.fixture(params=["memory", "postgres", "sqlite"])
def side(request, tmp_path):
    with contextlib.closing(outboxes.opened(request.param, tmp_path)) as side:
        yield side


def test_n2_each_item_is_a_message(side):
    items = [{"id": 7, "kind": "created"}, {"id": 8, "kind": "paid"}]
    pipeline = ab.Pipeline("p").source(items)
    report = pipeline.to_outbox(
        side.outbox,
        topic=lambda item: f"order.{item['kind']}",
        key=lambda item: f"order-{item['id']}",
    ).run_blocking()
    assert report.committed == 2
    claimed = side.again.claim()
    assert [(it.topic, it.payload, it.ordering_key) for it in claimed] == [
        ("order.created", items[0], "order-7"),
        ("order.paid", items[1], "order-8"),
    ]


def test_n3_the_items_of_a_window_are_written_at_once_in_their_order(side):
    pipeline = ab.Pipeline("p").source(range(250)).window(max_items=100)
    report = pipeline.to_outbox(side.outbox, topic="number").run_blocking()
    assert report.committed == 250
    assert [it.payload for it in side.again.claim(1000)] == list(range(250))


def test_a11_what_is_undone_later_is_retracted(side):
    def items():
        yield from range(3)
        raise OSError("the source broke")

    pipeline = ab.Pipeline("p", commit="end").source(items())
    report = pipeline.to_outbox(side.outbox, topic="number").run_blocking()
    assert (report.outcome, report.compensated) == ("failed", 3)
    assert side.outbox.messages() == []


def test_x8_x9_each_tenant_has_its_own_outbox():
    acme, globex = ab.Outbox.memory(), ab.Outbox.memory()
    items = [{"tenant": tenant} for tenant in ("acme", "globex", "acme", "initech")]
    pipeline = ab.Pipeline("p").source(items).fan_out(by="tenant")
    report = pipeline.to_outbox({"acme": acme, "globex": globex}, topic="t").run_blocking()
    assert (report.committed, report.failed) == (3, 1)
    assert "no outbox for tenant 'initech'; known ones are: 'acme', 'globex'" in str(
        report.failures[0]
    )
    assert (acme.counts(), globex.counts()) == ({"t": {"ready": 2}}, {"t": {"ready": 1}})


@pytest.mark.parametrize(
    ("outbox", "options", "said"),
    [
        (7, {"topic": "t"}, "outbox must be an Outbox"),
        (None, {"topic": 7}, "topic must be a str"),
        (None, {"topic": "t*"}, "topic must be a str of 1 to 255 characters, none of them a"),
        (None, {"topic": ""}, "topic must be a str of 1 to 255 characters, none of them a"),
        ({"acme": "sqlite:///a.db"}, {"topic": "t"}, "outbox must be an Outbox"),
        (None, {"topic": "t", "key": "id"}, "key must be None, or a def"),
    ],
)
def test_bad_arguments_are_refused(outbox, options, said):
    given = ab.Outbox.memory() if outbox is None else outbox
    with pytest.raises(ab.ConfigError, match=said):
        ab.Pipeline("p").source([1]).to_outbox(given, **options)
