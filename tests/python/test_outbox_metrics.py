"""The numbers of outboxes and workers as Prometheus reads them: rows D4 and D5."""

import contextlib
import re

import outboxes
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

import anabranch as ab
from anabranch import otel

PATIENCE = 60.0
LINE = re.compile(r'[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? [-+.e\d]+')


def well_formed(text):
    """Check the format, and return the samples by name and labels."""
    assert text.endswith("\n")
    lines = text.splitlines()
    names = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(names) == len(set(names))
    samples = [line for line in lines if not line.startswith("#")]
    assert all(LINE.fullmatch(line) for line in samples), samples
    return dict(line.rsplit(" ", 1) for line in samples)


@pytest.mark.parametrize("kind", ["memory", "postgres", "sqlite"])
def test_d4_d5_an_outbox_tells_depths_ages_pauses_and_workers(kind, tmp_path):
    with contextlib.closing(outboxes.opened(kind, tmp_path)) as side:
        outbox = side.outbox
        outbox.enqueue_many([ab.Draft("mail", n) for n in range(4)])
        outbox.enqueue("mail", 5, delay=3600.0)
        done, dead, _ = outbox.claim(3)
        outbox.ack(done)
        outbox.fail(dead, "no")
        side.pass_time(30)
        outbox.pause('or"der')
        outbox._store.beat(7, "{}", 60_000)
        samples = well_formed(outbox.metrics().replace('or\\"der', "order"))
        store = f'outbox="{outbox._store.label}"'
        kinds = {"ready": "1", "leased": "1", "scheduled": "1", "dead": "1"}
        for status, count in kinds.items():
            name = f'anabranch_outbox_messages{{{store},topic="mail",status="{status}"}}'
            assert samples[name] == count
        assert samples[f'anabranch_outbox_done_total{{{store},topic="mail"}}'] == "1"
        for name in ("oldest_ready", "longest_held"):
            age = float(samples[f"anabranch_outbox_{name}_seconds{{{store}}}"])
            assert 30 <= age < 30 + PATIENCE
        assert samples[f'anabranch_outbox_paused{{{store},topic="order"}}'] == "1"
        assert samples[f"anabranch_outbox_workers{{{store}}}"] == "1"


def test_d4_a_worker_tells_what_it_does_and_how_long_that_takes():
    acme, globex = ab.Outbox.memory(), ab.Outbox.memory()
    worker = ab.OutboxWorker({"acme": acme, "globex": globex}, name="jobs")

    @worker.on("mail")
    def send(message):
        if message.payload == 1:
            raise ab.Reject("no")

    acme.enqueue_many([ab.Draft("mail", n) for n in range(3)])
    assert worker.run_once_blocking() == 3
    samples = well_formed(worker.metrics())
    who = 'worker="jobs",outbox="memory",tenant="acme"'
    assert samples[f'anabranch_outbox_outcomes_total{{{who},outcome="done"}}'] == "2"
    assert samples[f'anabranch_outbox_outcomes_total{{{who},outcome="dead"}}'] == "1"
    assert float(samples[f"anabranch_outbox_claim_seconds_total{{{who}}}"]) > 0
    assert float(samples[f"anabranch_outbox_write_seconds_total{{{who}}}"]) > 0
    assert samples[f"anabranch_outbox_in_hand{{{who}}}"] == "0"
    assert samples[f"anabranch_outbox_claimed_total{{{who.replace('acme', 'globex')}}}"] == "0"


def test_d4_while_it_works_its_handlers_times_are_told_too():
    outbox = ab.Outbox.memory()
    worker = ab.OutboxWorker(outbox, name="jobs")
    told = []

    @worker.on("mail")
    def send(message):
        told.append(worker.metrics())

    outbox.enqueue("mail", 1)
    worker.run_once_blocking()
    samples = well_formed(told[0])
    assert samples['anabranch_outbox_in_hand{worker="jobs",outbox="memory"}'] == "1"
    assert any('pipeline="jobs.mail"' in name for name in samples)


def test_d4_who_has_not_run_has_no_numbers():
    worker = ab.OutboxWorker(ab.Outbox.memory(), name="jobs")
    with pytest.raises(ab.ClosedError, match="worker 'jobs' has not run yet"):
        worker.metrics()


@pytest.fixture
def collected():
    """A meter provider, and what its reader finds: by name and attributes."""
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader])

    def read():
        data = reader.get_metrics_data()
        found = data.resource_metrics[0].scope_metrics[0].metrics if data else []
        return {
            (
                metric.name.removeprefix("anabranch."),
                *sorted(point.attributes.values()),
            ): point.value
            for metric in found
            for point in metric.data.data_points
        }

    yield provider, read
    provider.shutdown()


@pytest.mark.parametrize("kind", ["memory", "postgres", "sqlite"])
def test_d4_opentelemetry_reads_an_outbox_and_a_tenants_part_of_one(kind, tmp_path, collected):
    provider, read = collected
    with contextlib.closing(outboxes.opened(kind, tmp_path)) as side:
        acme = side.outbox.tenant("acme")
        with otel.export(side.outbox, acme, meter_provider=provider):
            acme.enqueue("mail", 1)
            side.outbox.enqueue("mail", 2, tenant="globex")
            acme.ack(acme.claim())
            acme.pause("post")
            inside = read()
        whole, part = side.outbox._store.label, acme._store.label
        assert inside["outbox_messages", *sorted([whole, "mail", "ready"])] == 1
        assert inside["outbox_done", *sorted([whole, "mail"])] == 1
        assert inside["outbox_done", *sorted([part, "mail"])] == 1
        assert ("outbox_messages", *sorted([part, "mail", "ready"])) not in inside
        assert inside["outbox_paused", *sorted([part, "post"])] == 1
        assert inside["outbox_workers", whole] == 0
        assert read() == {}


def test_d4_of_an_outbox_that_does_not_answer_opentelemetry_reads_nothing(
    tmp_path, collected, caplog
):
    provider, read = collected
    outbox = ab.Outbox(f"sqlite:///{tmp_path}/nowhere.db")
    with otel.export(outbox, meter_provider=provider):
        assert read() == {}
    assert caplog.records == []


def test_d4_opentelemetry_reads_a_worker_and_its_pipelines(collected):
    provider, read = collected
    outbox = ab.Outbox.memory()
    worker = ab.OutboxWorker({"acme": outbox}, name="jobs")
    worker.on("mail")(lambda message: None)
    outbox.enqueue_many([ab.Draft("mail", n) for n in range(3)])
    with otel.export(worker, meter_provider=provider):
        assert read() == {}
        worker.run_once_blocking()
        inside = read()
    assert inside["outbox_claimed", "acme", "jobs", "memory"] == 3
    assert inside["outbox_outcomes", "acme", "done", "jobs", "memory"] == 3
    assert inside["received", "jobs.mail"] == 3
    assert read() == {}
