"""Outboxes on the dashboard: their stores are told of, and operators act on their dead letters."""

import asyncio
import json
import sqlite3

import pytest
from looker import Looker, sockets
from terminal import Terminal
from test_ctl import ctl
from test_monitor import ENDLESS, RUN, directory, running  # noqa: F401 - a fixture
from test_top import anabranch

import anabranch as ab

# An outbox with five messages: three are dead, one is leased, one is ready. Each line that comes by
# stdin is answered by how many there are of each status.
MAIL = (
    ENDLESS.replace(
        "sys.stdin.readline(), ended.set()",
        "tell(), ended.set()",
    ).replace(
        "ended = threading.Event()",
        """
    def tell():
        for line in sys.stdin:
            if line == "end\\n":
                return
            if line == "another\\n":
                outbox.requeue([1])
                taken = {it.id: it for it in outbox.claim(2)}
                outbox.fail(taken[5], "again")
                outbox.release(taken[1])
            counts = outbox.counts()["mail"]
            print(" ".join(f"{it}={counts[it]}" for it in sorted(counts)), flush=True)

    ended = threading.Event()""",
    )
    + """
    outbox = OUTBOX
    outbox.migrate()
    for n in range(5):
        outbox.enqueue("mail", {"to": f"ada-{n}"})
    for message in outbox.claim(3):
        outbox.fail(message, ValueError(f"no such address: {message.id}"))
    leased = outbox.claim(1)
"""
)
MEMORY = MAIL.replace("OUTBOX", "ab.Outbox.memory(expose_payloads=True)")


@pytest.fixture(params=["memory", "sqlite"])
def store(request, tmp_path):
    """Give what makes the outbox, and the name it is shown by."""
    if request.param == "memory":
        return MEMORY + RUN, "memory"
    made = f'ab.Outbox("sqlite:///{tmp_path}/shop.db", expose_payloads=True)'
    return MAIL.replace("OUTBOX", made) + RUN, "shop.db"


def counts(process):
    process.stdin.write("counts\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


class Clerk(Looker):
    """A client that is told of the outboxes."""

    def __init__(self, at, want=("observe", "control", "payloads")):
        self.stores, self.letters, self.shown = {}, {}, {}
        super().__init__(at, want=want)
        self.watch("outbox", "log")

    def _take_topic(self, kind, message):
        match kind:
            case "outbox":
                self.stores = {it["store"]: it for it in message["r"]}
            case "dead" if any("payload" in it for it in message["r"]):
                self.shown = {it["id"]: it for it in message["r"]}
            case "dead":
                self.letters[message["store"]] = message
            case _:
                super()._take_topic(kind, message)

    def until_read(self, name):
        """Listen until the store was read."""
        self.until_told(lambda it: it.stores.get(name, {}).get("st") == "up")
        return self.stores[name]


def test_dashboard_outbox_a_store_and_its_dead_letters_are_told_of(directory, store):  # noqa: F811
    script, name = store
    with running(script), Clerk(*sockets(directory)) as clerk:
        told = clerk.until_read(name)
        depths = {it: told[it] for it in ("ready", "leased", "retry", "dead")}
        assert depths == {"ready": 1, "leased": 1, "retry": 0, "dead": 3}
        assert told["lag_ms"] >= 0
        assert told["expires"] > told["polled"]
        clerk.until_told(lambda it: it.letters)
        letters = clerk.letters[name]
        assert letters["all"] == 3
        assert [it["id"] for it in letters["r"]] == ["1", "2", "3"]
        first = letters["r"][0]
        assert (first["topic"], first["attempts"]) == ("mail", 1)
        assert first["error"] == "ValueError: no such address: 1"
        assert "payload" not in first
        assert first["tenant"] == told.get("tenant", "")


def test_dashboard_10_dead_letters_are_requeued_shown_and_discarded(directory, store):  # noqa: F811
    script, name = store
    with running(script) as process, Clerk(*sockets(directory)) as clerk:
        clerk.until_read(name)
        done = clerk.command("dl.requeue", on={"store": name}, dry=True)
        assert (done["ok"], done["n"]) == (True, 3)
        assert f"3 dead letters of {name} would be ready again" in done["msg"]
        assert counts(process) == "dead=3 leased=1 ready=1"
        done = clerk.command("dl.requeue", on={"store": name, "ids": ["2", "4", "77"]})
        assert (done["ok"], done["n"]) == (True, 1)
        assert done["msg"] == f"1 dead letter of {name} is ready again; 2 not dead any more"
        assert counts(process) == "dead=2 leased=1 ready=2"
        clerk.until_told(lambda it: it.letters[name]["all"] == 2)
        done = clerk.command("dl.peek", on={"store": name, "ids": ["3"]})
        assert done["ok"], done
        assert json.loads(clerk.shown["3"]["payload"]) == {"to": "ada-2"}
        done = clerk.command("dl.discard", on={"store": name, "ids": ["3"]})
        assert (done["ok"], done["msg"]) == (True, f"1 dead letter of {name} is gone")
        done = clerk.command("dl.peek", on={"store": name, "ids": ["3"]})
        assert done["err"]["code"] == "not_found"
        assert counts(process) == "dead=1 leased=1 ready=2"
        done = clerk.command("dl.discard", on={"store": name}, if_gen=2)
        assert done["err"] == {
            "code": "conflict",
            "msg": f"1 letters of {name} are dead now, not 2",
        }
        done = clerk.command("dl.discard", on={"store": name}, if_gen=1)
        assert (done["ok"], done["n"]) == (True, 1)
        clerk.until_told(lambda it: len(it.audits()) == 7)
        audits = [(it["op"], it["ok"]) for it in clerk.audits()]
        assert audits[1:4] == [("dl.requeue", True), ("dl.peek", True), ("dl.discard", True)]
        assert ("dl.peek", False) in audits


@pytest.mark.parametrize(
    ("op", "on", "code"),
    [
        ("dl.requeue", {"store": "nobody"}, "not_found"),
        ("dl.requeue", {"store": "memory", "ids": ["x"]}, "invalid"),
        ("dl.discard", {"store": "memory", "ids": ["1"] * 1025}, "invalid"),
        ("dl.peek", {"store": "memory"}, "invalid"),
        ("dl.peek", {"store": "memory", "ids": ["5"]}, "not_found"),
    ],
)
def test_a_command_about_letters_that_makes_no_sense_is_told_why(directory, op, on, code):  # noqa: F811
    with running(MEMORY + RUN), Clerk(*sockets(directory)) as clerk:
        done = clerk.command(op, on=on)
        assert (done["ok"], done["err"]["code"]) == (False, code)


def test_dashboard_10_who_may_only_look_touches_no_letter(directory):  # noqa: F811
    with running(MEMORY + RUN) as process:
        with Clerk(*sockets(directory), want=("observe",)) as clerk:
            clerk.until_read("memory")
            for op in ("dl.requeue", "dl.discard", "dl.peek"):
                done = clerk.command(op, on={"store": "memory", "ids": ["1"]})
                assert done["err"]["code"] == "readonly", op
        assert counts(process) == "dead=3 leased=1 ready=1"


@pytest.mark.parametrize("how", ["environment", "pipeline"])
def test_dashboard_10_a_process_that_may_only_be_looked_at_keeps_its_letters(
    directory,  # noqa: F811
    monkeypatch,
    how,
):
    script = MEMORY
    if how == "environment":
        monkeypatch.setenv("ANABRANCH_OBSERVE", "ro")
    else:
        script += "    OPTIONS['observe'] = 'ro'\n"
    with running(script + RUN) as process, Clerk(*sockets(directory)) as clerk:
        clerk.until_read("memory")
        done = clerk.command("dl.requeue", on={"store": "memory"})
        assert done["err"]["code"] == "readonly"
        assert counts(process) == "dead=3 leased=1 ready=1"


def test_what_letters_hold_is_not_shown_unless_the_process_says_so(directory):  # noqa: F811
    script = MAIL.replace("OUTBOX", "ab.Outbox.memory()")
    with running(script + RUN), Clerk(*sockets(directory)) as clerk:
        clerk.until_read("memory")
        done = clerk.command("dl.peek", on={"store": "memory", "ids": ["1"]})
        assert done["err"]["code"] == "readonly"
        assert "expose_payloads" in done["err"]["msg"]
        assert clerk.shown == {}


def test_an_outbox_whose_database_is_not_there_is_down_and_the_others_are_told_of(directory):  # noqa: F811
    script = MEMORY + '    lost = ab.Outbox("sqlite:////nowhere/lost.db")\n' + RUN
    with running(script), Clerk(*sockets(directory)) as clerk:
        clerk.until_read("memory")
        assert clerk.stores["lost.db"]["st"] == "down"
        done = clerk.command("dl.requeue", on={"store": "lost.db"})
        assert done["err"]["code"] == "failed"


def test_outboxes_of_one_name_are_told_apart_and_one_that_is_closed_goes(directory):  # noqa: F811
    script = (
        MEMORY + "    other = ab.Outbox.memory()\n    gone = ab.Outbox.memory()\n    gone.close()\n"
    )
    with running(script + RUN), Clerk(*sockets(directory)) as clerk:
        clerk.until_read("memory#2")
        assert sorted(clerk.stores) == ["memory", "memory#2"]


def test_dashboard_outbox_the_stores_of_a_router_are_told_of_by_tenant(directory):  # noqa: F811
    script = (
        MEMORY
        + """
    tenants = {"acme": outbox, "globex": ab.Outbox.memory(), "lost": "sqlite:////nowhere/lost.db"}
    router = ab.OutboxRouter(tenants)
    worker = ab.OutboxWorker(router, selection="oldest_first")
    worker.on("mail")(lambda message: None)
    at_work = threading.Thread(target=worker.run_blocking)
    at_work.start()
"""
    )
    end = """
    worker.stop()
    at_work.join()
"""
    with running(script + RUN + end), Clerk(*sockets(directory)) as clerk:
        told = clerk.until_read("acme")
        clerk.until_told(lambda it: it.stores["lost"]["st"] == "down")
        clerk.until_told(lambda it: it.stores["acme"]["selection"] == "oldest_first")
        assert (told["dead"], told["leased"]) == (3, 1)
        assert sorted(clerk.stores) == ["acme", "globex", "lost"]
        done = clerk.command("dl.discard", on={"store": "acme"})
        assert (done["ok"], done["n"]) == (True, 3)


def test_dashboard_10_no_letter_is_touched_twice_over_a_reconnect(directory):  # noqa: F811
    with running(MEMORY + RUN) as process:
        for _ in range(2):
            with Clerk(*sockets(directory)) as clerk:
                done = clerk.command("dl.requeue", on={"store": "memory"}, key="once")
                assert (done["ok"], done["n"]) == (True, 3)
        assert counts(process) == "leased=1 ready=4"


def test_reading_a_store_holds_up_no_writer(directory, tmp_path):  # noqa: F811
    """The stores are read over a connection of the reader's own, in short transactions."""
    path = tmp_path / "shop.db"
    script = MAIL.replace("OUTBOX", f'ab.Outbox("sqlite:///{path}")')
    with running(script + RUN) as process, Clerk(*sockets(directory)) as clerk:
        clerk.until_read("shop.db")
        conn = sqlite3.connect(path, isolation_level=None)
        conn.execute("begin immediate")
        done = clerk.command("dl.requeue", on={"store": "shop.db"}, dry=True)
        assert done["n"] == 3, "a look waits for no writer"
        conn.execute("commit")
        conn.close()
        assert counts(process) == "dead=3 leased=1 ready=1"


def test_dashboard_10_ctl_acts_on_dead_letters(directory, store):  # noqa: F811
    script, name = store
    with running(script) as process:
        code, out, err = ctl("requeue", name, "--dry-run")
        assert (code, err) == (0, "")
        assert f"3 dead letters of {name} would be ready again" in out
        assert ctl("requeue", name)[0] == 2, "it asks"
        assert ctl("peek", name, "--id", "1")[:2] == (
            0,
            f'{name}: message 1 of {name} holds 14 bytes\n{{"to":"ada-0"}}\n',
        )
        assert counts(process) == "dead=3 leased=1 ready=1"
        assert ctl("requeue", name, "--id", "1", "--yes")[0] == 0
        code, out, _ = ctl("discard", name, "--yes", "--json")
        assert (code, json.loads(out)["n"]) == (0, 2)
        assert counts(process) == "leased=1 ready=2"
        code, _, err = ctl("discard", "nobody", "--yes")
        assert (code, "(not_found)" in err) == (6, True)


def test_dashboard_10_the_dashboard_acts_on_dead_letters(directory):  # noqa: F811
    with running(MEMORY + RUN) as process, Terminal("top") as terminal:
        terminal.shows("ingest", "LIVE")
        terminal.press("5")
        terminal.shows("outbox stores 1", "memory", "dead letters of memory 3", "no such address")
        terminal.press("\r")
        terminal.shows("outbox > memory > dead letters 3")
        terminal.press("\r")
        terminal.shows('{"to":"ada-0"}')
        terminal.press("Q")
        terminal.shows("Requeue dead letters", "1 dead letter of memory would be ready again")
        terminal.press("1")
        terminal.wait(0.4)  # Enter counts once the question can have been read
        terminal.press("\r")
        terminal.shows("dead letters 2")
        assert counts(process) == "dead=2 leased=1 ready=2"
        terminal.press("\x1b")
        terminal.shows("outbox stores 1")
        terminal.press("Q")
        terminal.shows("2 dead letters of memory would be ready again")
        terminal.press("memory")
        terminal.wait(0.4)
        terminal.press("\r")
        terminal.shows("OK")
        terminal.until(lambda _: counts(process) == "leased=1 ready=4", "all are ready again")
        terminal.press("q")
        assert terminal.ended() == 0


@pytest.mark.parametrize("blocking", [True, False])
def test_dashboard_outbox_is_told_of_from_python(directory, store, blocking):  # noqa: F811
    script, name = store
    with running(script) as process, ab.attach(process.pid) as job:
        now = job.look_blocking() if blocking else asyncio.run(job.look())
        row = now.outbox()
        assert row is now.outbox(name)
        assert (row.state, row.ready, row.leased, row.scheduled, row.dead) == ("up", 1, 1, 0, 3)
        assert row.lag >= 0
        assert now.at - 60 < row.read <= now.at + 1
        assert row.lease_expires > row.read
        assert [it.id for it in row.letters] == [1, 2, 3]
        first = row.letters[0]
        assert (first.topic, first.attempts) == ("mail", 1)
        assert first.error == "ValueError: no such address: 1"
        assert now.at - 60 < first.at <= now.at + 1
        with pytest.raises(KeyError):
            now.outbox("nobody")
        assert job.look_blocking(outboxes=False).outboxes == ()


@pytest.mark.parametrize("blocking", [True, False])
def test_dashboard_10_dead_letters_are_acted_on_from_python(directory, store, blocking):  # noqa: F811
    def command(*arguments, **options):
        if blocking:
            return job.command_blocking(*arguments, **options)
        return asyncio.run(job.command(*arguments, **options))

    script, name = store
    with running(script) as process, ab.attach(process.pid) as job:
        told = command("dl.requeue", dry=True)
        assert told.startswith(f"3 dead letters of {name} would be ready again")
        assert json.loads(command("dl.peek", messages=[2])) == {"to": "ada-1"}
        for outbox, confirm, wrong in [(None, None, "outbox"), (name, "ingest", "confirm")]:
            with pytest.raises(ab.ConfigError) as refused:
                command("dl.discard", outbox=outbox, confirm=confirm)
            assert refused.value.argument == wrong
        for odd in ([], ["1"], [True]):
            with pytest.raises(ab.ConfigError, match="messages must be ids of messages"):
                command("dl.discard", outbox=name, messages=odd, confirm=name)
        assert counts(process) == "dead=3 leased=1 ready=1"
        told = command("dl.discard", outbox=name, messages=[2], confirm=name)
        assert told == f"1 dead letter of {name} is gone"
        assert command("dl.requeue", outbox=name, confirm=name).startswith("2 dead letters")
        assert counts(process) == "leased=1 ready=3"
        assert job.look_blocking().outbox().letters == ()
        with pytest.raises(ab.CommandError) as gone:
            command("dl.peek", messages=[2])
        assert gone.value.reason == "not_found"


def test_who_looks_again_later_sees_the_letters_of_then(directory):  # noqa: F811
    """As many as before, and others: what was told to those who looked before is old."""
    with running(MEMORY + RUN) as process, ab.attach(process.pid) as job:
        assert [it.id for it in job.look_blocking().outbox().letters] == [1, 2, 3]
        process.stdin.write("another\n")
        process.stdin.flush()
        assert process.stdout.readline() == "dead=3 leased=1 ready=1\n"
        assert [it.id for it in job.look_blocking().outbox().letters] == [2, 3, 5]


def test_dashboard_10_ctl_lists_the_letters_that_its_other_verbs_name(directory, store):  # noqa: F811
    script, name = store
    with running(script):
        code, out, err = ctl("peek", name)
        assert (code, err) == (0, "")
        head, *rows = out.splitlines()
        assert head.split() == ["ID", "TOPIC", "TRIES", "AGE", "LAST", "ERROR"]
        assert [row.split()[:3] for row in rows] == [[str(n), "mail", "1"] for n in (1, 2, 3)]
        assert rows[0].endswith("ValueError: no such address: 1")
        told = json.loads(ctl("peek", name, "--json")[1])
        assert (told["all"], [it["id"] for it in told["letters"]]) == (3, ["1", "2", "3"])
        assert ctl("discard", name, "--id", "2", "--yes")[0] == 0
        code, out, _ = ctl("peek", name)
        assert (code, [row.split()[0] for row in out.splitlines()[1:]]) == (0, ["1", "3"])
        assert ctl("discard", name, "--yes")[0] == 0
        assert ctl("peek", name) == (0, f"{name}: no dead letters\n", "")
        code, out, err = ctl("peek", "nobody")
        assert (code, out) == (6, "")
        assert 'no outbox is called "nobody": python[' in err
        assert f"has {name}" in err


def test_dashboard_outbox_is_printed_with_the_rest(directory, store):  # noqa: F811
    script, name = store
    with running(script) as process:
        code, out, err = anabranch("top", "--once")
        assert (code, err) == (0, "")
        (row,) = (line.split() for line in out.splitlines() if line.startswith(name))
        assert row[:7] == [name, f"python[{process.pid}]", "up", "1", "1", "0", "3"]
        (told,) = json.loads(anabranch("top", "--json")[1])["processes"]
        (shown,) = told["outboxes"]
        assert (shown["store"], shown["dead"]) == (name, 3)
        assert {it["code"] for it in told["pipelines"][0]["errors"]} <= {"OSError"}


def test_dashboard_outbox_tells_whose_it_is_and_how_its_worker_selects(directory):  # noqa: F811
    script = (
        MEMORY
        + """
    worker = ab.OutboxWorker({"acme": outbox}, selection="weighted")
    worker.on("other")(print)
    worker.run_once_blocking()
"""
    )
    with running(script + RUN), Clerk(*sockets(directory)) as clerk:
        told = clerk.until_read("acme")
        assert (told["tenant"], told["selection"]) == ("acme", "weighted")
        with Terminal("top", size=(160, 40)) as terminal:
            terminal.press("5")
            terminal.until(lambda it: "acme" in (it.line("weighted") or ""), "whose the outbox is")
