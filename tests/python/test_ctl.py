"""`anabranch ctl`: the actions of the dashboard for scripts, on pipelines in other processes."""

import json
import os
import signal
import socket

import pytest
from looker import Looker, sockets, wait_for_branches
from support import finish
from terminal import Terminal
from test_monitor import ENDLESS, RUN, directory, running  # noqa: F401 - a fixture
from test_monitor_undo import RUN as UNDONE
from test_monitor_undo import STUCK, looking, stuck
from test_top import TELLING, anabranch, tells


def ctl(*arguments):
    return anabranch("ctl", *arguments)


def test_b14_a_branch_is_paused_and_resumed(directory):  # noqa: F811
    with running(TELLING) as process:
        assert ctl("pause", "ingest/t3") == (0, "ingest/t3: branch 't3' is paused\n", "")
        assert tells(process, "t3") == "paused"
        code, out, _ = ctl("resume", "t3", "--process", str(process.pid))
        assert (code, out.startswith("ingest/t3: branch 't3' is ")) == (0, True)
        assert tells(process, "t3") != "paused"


def test_a_dry_run_tells_and_does_nothing(directory):  # noqa: F811
    with running(TELLING) as process:
        code, out, err = ctl("pause", "t0", "--dry-run")
        assert (code, err) == (0, "")
        assert out.startswith("dry run: ingest/t0: branch 't0' is ")
        assert tells(process, "t0") != "paused"


def test_as_json_all_is_told(directory):  # noqa: F811
    with running() as process:
        code, out, err = ctl("throttle", "ingest/t1", "--rate", "5", "--burst", "2", "--json")
        assert (code, err) == (0, "")
        told = json.loads(out)
        assert (told["op"], told["target"], told["ok"]) == ("branch.throttle", "ingest/t1", True)
        assert told["process"]["pid"] == process.pid
        assert told["dry"] is False
        assert told["msg"] == "branch 't1' is limited to 5 a second"
        without = (0, "ingest/t1: branch 't1' has no limit\n", "")
        assert ctl("throttle", "ingest/t1", "--rate", "none") == without


def test_what_cannot_be_taken_back_is_not_done_unasked(directory):  # noqa: F811
    with running(TELLING) as process:
        code, out, err = ctl("cancel", "ingest/t2")
        assert (code, out) == (2, "")
        assert "branch.cancel of ingest/t2 in python[" in err
        assert "add --yes" in err
        assert tells(process, "t2") != "failed"
        for answer, code in [("t2", 6), ("ingest/t2", 0)]:
            with Terminal("ctl", "cancel", "ingest/t2", size=(100, 10)) as terminal:
                terminal.shows('Type "ingest/t2" to confirm:')
                assert tells(process, "t2") != "failed"
                terminal.press(f"{answer}\r")
                assert terminal.ended() == code
        assert tells(process, "t2") == "failed"
        assert ctl("restart", "ingest/t2")[0] == 0
        assert tells(process, "t2") != "failed"


def test_a_branch_and_a_pipeline_are_drained_to_the_end(directory):  # noqa: F811
    with running() as process:
        for target in ("ingest/t4", "ingest"):
            done = (0, f"{target}: drain is done\n", "")
            assert ctl("drain", target, "--yes", "--wait") == done
        assert finish(process)[0] == 0


def test_dashboard_4_a_variable_that_is_not_set_is_no_tenant(directory):  # noqa: F811
    with running(ENDLESS.replace('f"t{n % TENANTS}"', '""') + RUN):
        wait_for_branches(*sockets(directory), count=1)
        code, out, err = ctl("pause", "")
        assert (code, out) == (2, "")
        assert 'a tenant whose name is empty is PIPELINE/""' in err
        assert '\n""      ingest ' in anabranch("top", "--once")[1]
        assert ctl("pause", 'ingest/""') == (0, "ingest/\"\": branch '' is paused\n", "")
        assert ctl("resume", "ingest/")[0] == 0


def test_every_order_is_in_the_log(directory):  # noqa: F811
    with running(), Looker(*sockets(directory)) as looker:
        looker.watch("log", "totals", "branches")
        looker.until_told(lambda it: it.of("t5") and it.of("t6"))
        for order in (["pause", "t5"], ["drain", "t6", "--dry-run"], ["resume", "t5"]):
            code, _, err = ctl(*order)
            assert (code, err) == (0, "")
        looker.until_told(lambda it: len(it.audits()) == 3)
        ops = [it["op"] for it in looker.audits()]
        assert ops == ["branch.pause", "branch.drain", "branch.resume"]
        assert all(it["peer"]["client"].startswith("anabranch-ctl/") for it in looker.audits())
        dry = [it["msg"].startswith("dry run: ") for it in looker.audits()]
        assert dry == [False, True, False], "nobody takes it for done"


TWICE = (
    ENDLESS
    + """
    other = threading.Thread(target=lambda: pipeline().run_blocking())
    other.start()
    pipeline().run_blocking()
    other.join()
"""
)


def test_a_target_that_is_not_one_thing_is_refused(directory):  # noqa: F811
    with running(TWICE):
        wait_for_branches(*sockets(directory), count=16)
        code, out, err = ctl("pause", "ingest/t1")
        assert (code, out) == (2, "")
        assert "may be ingest/t1 in python[" in err
    with running():
        code, _, err = ctl("pause", "nobody")
        assert (code, 'no branch or pipeline is called "nobody"' in err) == (6, True)
        code, _, err = ctl("pause", "ingest")
        assert (code, '"ingest" is a pipeline, and pause is for a branch' in err) == (6, True)
        code, _, err = ctl("resume", "ingest/t1")
        assert code in (0, 6)


def test_exit_codes_tell_why_it_was_not_done(directory):  # noqa: F811
    assert ctl("pause", "t1")[0] == 3
    assert ctl("pause")[0] == 2
    assert ctl("throttle", "t1")[0] == 2
    assert ctl("throttle", "t1", "--rate", "-1")[0] == 2
    assert ctl("pause", "t1", "--connect", str(directory / "1-00000000.sock"))[0] == 4
    with running(ENDLESS + "    OPTIONS['observe'] = 'ro'\n" + RUN):
        code, out, err = ctl("pause", "t1")
        assert (code, out) == (5, "")
        assert "(readonly)" in err
    with running():
        code, _, err = ctl("requeue", "orders-db", "--yes")
        assert (code, "(unsupported)" in err) == (6, True)


def test_dashboard_7_a_process_that_is_stopped_is_told_of(directory):  # noqa: F811
    with running() as process:
        os.kill(process.pid, signal.SIGSTOP)
        code, _, err = ctl("pause", "t1")
        assert (code, "no answer" in err) == (4, True)
        os.kill(process.pid, signal.SIGCONT)


def test_dashboard_10_a_branch_that_has_changed_is_left_alone(directory):  # noqa: F811
    """The command carries the generation that was seen: a monitor that knows another refuses."""
    path = str(directory.parent / "fake.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        import threading

        heard = []
        server = threading.Thread(target=answer, args=(listener, heard))
        server.start()
        code, out, err = ctl("pause", "t1", "--connect", f"unix:{path}")
        server.join()
    assert (code, out) == (6, "")
    assert "(conflict)" in err
    (cmd,) = (it for it in heard if it["t"] == "cmd")
    assert cmd["if_gen"] == 7
    assert cmd["key"]


def answer(listener, heard):
    connection, _ = listener.accept()
    with connection, connection.makefile("rb") as lines:

        def say(kind, **message):
            connection.sendall(json.dumps({"t": kind, **message}).encode() + b"\n")

        for line in lines:
            message = json.loads(line)
            heard.append(message)
            match message["t"]:
                case "hello":
                    caps = ["observe", "control"]
                    server = {"pid": 1, "start": 1, "name": "fake"}
                    say("welcome", proto=1, server=server, caps=caps, cols=[])
                case "sub":
                    say("pipe", p=0, name="p", st="run", fan_leg=0, control=True)
                    say("names", r=[[0, 1, "t1"]])
                    row = {"p": 0, "id": 1, "gen": 7, "st": "run"}
                    cells = [row.get(column, 0) for column in message["cols"]]
                    say("rows", seq=1, full=True, more=False, r=[cells])
                case "cmd":
                    err = {"code": "conflict", "msg": "it is in generation 8"}
                    say("done", id=message["id"], ok=False, err=err)


@pytest.mark.parametrize("verb", ["pause", "resume", "drain", "cancel", "restart", "retry", "skip"])
def test_each_verb_has_a_help(verb):
    code, out, err = ctl(verb, "--help")
    assert (code, err) == (0, "")
    assert "--dry-run" in out


def test_dashboard_10_stuck_undo_actions_are_tried_again_and_given_up(directory):  # noqa: F811
    with running(STUCK + UNDONE) as process:
        with Looker(*sockets(directory)) as looker:
            looking(looker)
            assert ctl("retry", "ingest/acme", "--dry-run")[0] == 0
            assert ctl("retry", "ingest/acme")[0] == 2, "it asks"
            code, out, err = ctl("retry", "ingest/acme", "--yes", "--json")
            assert (code, err, json.loads(out)["n"]) == (0, "", 3)
            looker.until_told(lambda it: not stuck(it))
        out, _ = process.communicate("end\n")
        assert out.startswith("0 ")
