"""The numbers of outboxes and workers as Prometheus reads them: rows D4 and D5."""

import contextlib
import re

import outboxes
import pytest

import anabranch as ab

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
