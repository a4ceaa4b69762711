"""`anabranch outbox`, end to end: the installed command on a file and on a server."""

import contextlib
import json
import re
import signal
import subprocess
import sys

import outboxes
import pytest
from terminal import COMMAND, Terminal
from test_top import anabranch

import anabranch as ab


@pytest.fixture
def side(tmp_path):
    with contextlib.closing(outboxes.opened("sqlite", tmp_path)) as side:
        yield side


def outbox(*arguments, **environment):
    return anabranch("outbox", *map(str, arguments), **environment)


def told(*arguments):
    """Run a verb with `--json`; return what it tells of the first outbox."""
    code, out, err = outbox(*arguments, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)["outboxes"][0]


def dead(side, *payloads):
    """Enqueue messages, and let them die."""
    side.outbox.enqueue_many([ab.Draft("mail", payload) for payload in payloads])
    claimed = side.outbox.claim()
    side.outbox.fail(claimed, ValueError("no such address"))
    return outboxes.ids(claimed)


def test_d1_migrate_makes_the_tables_and_says_so(tmp_path):
    url = f"sqlite:///{tmp_path}/new.db"
    assert outbox("migrate", url) == (0, f"{url}: 2 versions applied\n", "")
    assert outbox("migrate", url) == (0, f"{url}: up to date\n", "")
    assert told("migrate", url) == {"store": url, "migrated": 0}


@pytest.fixture
def server():
    """An outbox in PostgreSQL that has a prefix and a schema, and how the command is told of it."""
    with contextlib.closing(outboxes.PostgresSide()) as side:
        given = (side.url, "--prefix", "jobs_", "--schema", "public")
        with ab.Outbox(side.url, prefix="jobs_", schema="public") as jobs:
            jobs.migrate()
            yield jobs, given


def test_d1_d2_messages_of_a_server_are_looked_after(server):
    jobs, given = server
    first, second, _ = jobs.enqueue_many([ab.Draft("mail", n) for n in range(3)])
    jobs.fail(jobs.claim(2), "no")
    assert told("migrate", *given)["migrated"] == 0
    assert told("requeue", *given, "--id", first)["changed"] == 1
    assert told("cancel", *given, "--id", first)["changed"] == 1
    purge = ("purge", *given, "--status", "dead", "--id", second, "--yes")
    assert told(*purge)["changed"] == 1
    [dead] = told("dead", *given)["messages"]
    assert dead["id"] == first


def test_d2_d5_a_server_is_paused_and_examined(server):
    jobs, given = server
    jobs.enqueue("mail", 1)
    assert told("pause", *given)["paused"] == ["*"]
    status = told("status", *given)
    assert status["topics"] == {"mail": {"paused": 1}}
    assert status["store"].endswith("#public")
    [finding] = told("doctor", *given)["findings"]
    assert finding["what"].startswith("topic '*' is paused since")
    assert told("resume", *given)["paused"] == []
    assert told("workers", *given)["workers"] == []


def test_d2_status_counts_by_topic_and_status(side):
    side.outbox.enqueue("mail", 1)
    side.outbox.enqueue("mail", 2, delay=60.0)
    side.outbox.enqueue("order", 3)
    side.outbox.pause("order")
    side.pass_time(10)
    status = told("status", side.url)
    assert status["topics"] == {"mail": {"ready": 1, "scheduled": 1}, "order": {"paused": 1}}
    assert (status["totals"]["ready"], status["totals"]["dead"]) == (1, 0)
    assert status["oldest_ready_seconds"] >= 10
    assert [it["topic"] for it in status["paused"]] == ["order"]
    code, out, err = outbox("status", side.url)
    assert (code, err) == (0, "")
    head, mail, order, total, *rest = out.splitlines()
    assert head.split() == [
        "TOPIC",
        "READY",
        "SCHEDULED",
        "LEASED",
        "PAUSED",
        "PARKED",
        "DEAD",
        "DONE",
    ]
    assert mail.split() == ["mail", "1", "1", "0", "0", "0", "0", "0"]
    assert order.split()[4] == "1"
    assert total.split()[:2] == ["(all)", "1"]
    assert any(line.startswith("the first ready message waits for 1") for line in rest)


def test_d2_messages_are_listed_by_status_and_page_and_shown_with_what_they_hold(side):
    side.outbox.enqueue("mail", {"to": "ada"}, headers={"from": "shop"}, ordering_key="ada")
    [second] = dead(side, "x\x1b[31my")[-1:]
    listed = told("list", side.url, "--status", "dead")["messages"]
    assert [it["id"] for it in listed] == [1, second]
    assert [it["id"] for it in told("dead", side.url, "--after", 1)["messages"]] == [second]
    assert len(told("list", side.url, "--limit", 1)["messages"]) == 1
    [shown] = told("show", side.url, "--id", 1)["messages"]
    assert (shown["payload"], shown["headers"]) == ({"to": "ada"}, {"from": "shop"})
    assert shown["errors"][0]["error"] == "ValueError: no such address"
    code, out, _ = outbox("show", side.url, "--id", second)
    assert (code, "\x1b" in out, "payload: x\N{REPLACEMENT CHARACTER}[31my" in out) == (0, False, 1)
    code, out, _ = outbox("dead", side.url)
    assert out.splitlines()[0].split() == ["ID", "TOPIC", "DIED", "ATTEMPTS", "ERROR"]
    assert out.splitlines()[1].endswith("ValueError: no such address")
    code, _, err = outbox("show", side.url, "--id", 99)
    assert (code, "there is no message 99" in err) == (6, True)


def test_d2_dead_messages_are_requeued_one_by_topic_or_all(side):
    first, *_ = dead(side, 1, 2, 3)
    assert outbox("requeue", side.url, "--all", "--dry-run")[1].endswith(
        ": 3 would be ready again\n"
    )
    assert outbox("requeue", side.url, "--id", first)[1] == f"{side.url}: 1 is ready again\n"
    assert told("requeue", side.url, "--topic", "other")["changed"] == 0
    assert told("requeue", side.url, "--all")["changed"] == 2
    assert side.outbox.counts() == {"mail": {"ready": 3}}


def test_d2_messages_are_cancelled_with_a_reason(side):
    first, _ = side.outbox.enqueue_many([ab.Draft("mail", 1), ab.Draft("mail", 2)])
    cancelled = told("cancel", side.url, "--id", first, "--reason", "she has left")
    assert cancelled["changed"] == 1
    [message] = side.outbox.messages(status="dead")
    assert message.errors[-1].error == "Cancelled: she has left"
    assert told("cancel", side.url, "--all")["changed"] == 1


def test_d2_d3_what_is_purged_is_confirmed_by_its_name(side):
    dead(side, 1, 2)
    ask = ("purge", side.url, "--status", "dead", "--all")
    code, out, err = outbox(*ask)
    assert (code, out) == (2, f"{side.url}: 0 are gone for ever\n")
    assert "2 dead messages of" in err
    assert "add --yes" in err
    for answer, code in [("yes", 6), ("purge", 0)]:
        with Terminal("outbox", *ask, size=(140, 10)) as terminal:
            terminal.shows('Type "purge" to confirm:')
            assert side.outbox.counts() == {"mail": {"dead": 2}}
            terminal.press(answer + "\n")
            assert terminal.process.wait(timeout=20) == code
    assert side.outbox.counts() == {}


def test_d3_only_what_is_old_enough_is_purged(side):
    dead(side, 1)
    side.pass_time(7200)
    dead(side, 2)
    ask = ("purge", side.url, "--status", "dead", "--all", "--yes", "--older-than")
    assert told(*ask, "3h")["changed"] == 0
    assert told(*ask, "90min")["changed"] == 1
    assert [it.payload for it in side.outbox.messages()] == [2]


def test_d2_topics_are_paused_and_resumed(side):
    assert outbox("pause", side.url, "--topic", "order.*")[1] == f"{side.url}: paused: order.*\n"
    assert told("pause", side.url)["paused"] == ["*", "order.*"]
    assert told("resume", side.url)["paused"] == ["order.*"]
    code, out, err = outbox("resume", side.url, "--topic", "mail")
    assert (code, out) == (6, f"{side.url}: paused: order.*\n")
    assert "'mail' was not paused" in err
    assert outbox("resume", side.url, "--topic", "order.*")[1].endswith(": nothing is paused\n")


def test_d2_several_outboxes_are_told_of_one_by_one_and_what_fails_stops_no_other(side):
    side.outbox.enqueue("mail", 1)
    missing = "sqlite:////nowhere/shop.db"
    code, out, err = outbox("status", missing, side.url, "--json")
    assert code == 4
    assert "check the path" in err
    failed, worked = json.loads(out)["outboxes"]
    assert (failed["store"], failed["error"]["code"]) == (missing, "outbox.unavailable")
    assert worked["topics"] == {"mail": {"ready": 1}}
    code, out, err = outbox("status", side.url, side.url)
    assert out.splitlines()[0].split()[:2] == ["STORE", "TOPIC"]


def test_d5_doctor_says_what_is_stuck_and_what_to_do(side):
    assert outbox("doctor", side.url)[0] == 0
    side.outbox.enqueue("mail", 1)
    side.pass_time(7200)
    side.outbox.pause("order")
    code, out, err = outbox("doctor", side.url)
    assert (code, err) == (6, "")
    assert f"warning  {side.url}: a message has been ready for 2.0 h; start a worker: none" in out
    assert f"info     {side.url}: topic 'order' is paused since" in out
    findings = json.loads(outbox("doctor", side.url, "--json")[1])["outboxes"][0]["findings"]
    assert [it["level"] for it in findings][:2] == ["warning", "info"]


def test_d5_workers_are_listed(side):
    side.outbox._store.beat(7, '{"name": "jobs", "host": "a", "pid": 42}', 60_000)
    [worker] = told("workers", side.url)["workers"]
    assert (worker["id"], worker["name"], worker["host"], worker["pid"]) == (7, "jobs", "a", 42)
    assert outbox("workers", side.url)[1].splitlines()[1].split()[:4] == ["7", "jobs", "a", "42"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("status", "mysql://root:geheim@host/db"), "a URL that begins with 'mysql'"),
        (("status", "env:ANABRANCH_NO_SUCH"), "no environment variable 'ANABRANCH_NO_SUCH'"),
        (("show", "sqlite:///a", "sqlite:///b", "--id", "1"), "--id means a message of one"),
        (("work", "nowhere"), "give MODULE:WORKER"),
        (("work", "nowhere:worker"), "there is no module 'nowhere' here"),
        (("work", "json:loads.x"), "has no 'loads.x'"),
        (("work", "json:decoder"), "json:decoder is a module: it must be an ab.OutboxWorker"),
        (("purge", "sqlite:///a", "--status", "dead"), "(see anabranch outbox purge --help)"),
        (("status",), "(see anabranch outbox status --help)"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line_without_secrets(arguments, says):
    code, out, err = outbox(*arguments)
    assert (code, out) == (2, "")
    assert says in err
    assert "geheim" not in err
    assert err.count("\n") == 1


def test_d1_no_secret_of_a_url_is_shown_and_it_may_come_from_the_environment():
    url = "postgresql://tests:hunter2@127.0.0.1:1/shop?password=hunter2"
    code, out, err = outbox("status", "env:SHOP", "--json", SHOP=url)
    assert code == 4
    assert "see that the server runs" in err
    assert "hunter2" not in out + err


def test_d1_tables_that_are_missing_say_which_command_makes_them(tmp_path):
    path = tmp_path / "empty.db"
    path.touch()
    code, _, err = outbox("status", f"sqlite:///{path}")
    assert (code, "run `anabranch outbox migrate` once" in err) == (6, True)


def test_the_command_is_listed_and_completed():
    assert "outbox" in anabranch("--help")[1]
    code, out, _ = anabranch("outbox", "--help")
    assert code == 0
    verbs = re.findall(r"^  (\w+) ", out, re.MULTILINE)
    assert " ".join(verbs).startswith("migrate status list show dead requeue cancel purge pause")
    assert {"resume", "workers", "doctor", "work"} <= set(verbs)
    assert "requeue" in anabranch("completions", "bash")[1]


WORKER = """
import sys
import anabranch as ab

outbox = ab.Outbox({url!r})
worker = ab.OutboxWorker(outbox, poll=0.1)

@worker.on("mail")
def send(message):
    print("begin", message.payload, flush=True)
    sys.stdin.readline()
    print("end", message.payload, flush=True)

def make():
    return worker
"""


def working(side, tmp_path, *options, name="worker"):
    (tmp_path / "shop_jobs.py").write_text(WORKER.format(url=side.url))
    return subprocess.Popen(
        [COMMAND, "outbox", "work", f"shop_jobs:{name}", *options],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_h11_a_worker_runs_from_the_shell_and_the_first_ctrl_c_drains(side, tmp_path):
    side.outbox.enqueue_many([ab.Draft("mail", n) for n in range(2)])
    process = working(side, tmp_path)
    with process:
        assert process.stdout.readline() == "begin 0\n"
        process.send_signal(signal.SIGINT)
        process.stdin.write("\n\n")
        process.stdin.flush()
        assert process.stdout.readline() == "end 0\n"
        out, err = process.communicate(timeout=30)
    assert (process.returncode, "Traceback" in err) == (0, False)
    done = 1 + out.count("end")
    expected = {"done": done, "ready": 2 - done}
    assert side.outbox.counts() == {"mail": {k: v for k, v in expected.items() if v}}


def test_h11_a_worker_claims_once_and_ends(side, tmp_path):
    side.outbox.enqueue("mail", 7)
    process = working(side, tmp_path, "--once", name="make")
    out, err = process.communicate("\n", timeout=30)
    assert (process.returncode, out, err) == (0, "begin 7\nend 7\n", "")
    assert side.outbox.counts() == {"mail": {"done": 1}}


def test_h11_a_worker_whose_database_is_missing_says_so(tmp_path):
    class Missing:
        url = f"sqlite:///{tmp_path}/none.db"

    process = working(Missing, tmp_path)
    _, err = process.communicate("", timeout=30)
    assert process.returncode == 4
    assert "check the path; outbox.migrate() creates the file" in err


def test_it_is_run_by_the_module_too(tmp_path):
    command = [sys.executable, "-m", "anabranch.cli", "outbox", "migrate"]
    done = subprocess.run([*command, f"sqlite:///{tmp_path}/a.db"], check=False, timeout=30)
    assert done.returncode == 0
