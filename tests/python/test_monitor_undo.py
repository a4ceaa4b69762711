"""What the monitor tells of undo actions, windows, errors and single branches.

And what operators do about undo actions that are stuck.
"""

import pytest
from looker import Looker, sockets
from support import child
from test_monitor import directory, running  # noqa: F401 - a fixture

# The first three events of a tenant fail; each undo action raises when it is tried first.
STUCK = """
    import itertools, logging, os, sys, threading, time
    import anabranch as ab

    logging.getLogger("anabranch").addHandler(logging.NullHandler())
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.readline(), ended.set()), daemon=True).start()
    tried = set()
    OPTIONS = {}

    def events():
        for n in range(3):
            yield {"tenant": "acme", "n": n}
        for n in itertools.count():
            if n == 10:
                print("ready", flush=True)
            if ended.is_set():
                return
            time.sleep(0.001)
            yield {"tenant": "globex", "n": n}

    def store(event, ctx):
        if event["tenant"] == "acme":
            ctx.compensate(delete, event["n"])
            ctx.compensate(unlink, event["n"], name="unlink file")
            raise ValueError("full")

    def delete(n):
        pass

    def unlink(n):
        if n not in tried:
            tried.add(n)
            raise OSError("disk on fire")

    def pipeline():
        return ab.Pipeline("ingest", **OPTIONS).source(events()).fan_out(by="tenant")
"""
RUN = """
    report = pipeline().for_each(store, inline=True).run_blocking()
    print(report.stuck, report.compensated, report.skipped)
"""


def stuck(looker):
    """Return the scopes with an undo action that is stuck."""
    return [it for it in looker.scopes if any(a["st"] == "failed" for a in it["actions"])]


def states(looker):
    """Return the state of each action that was told of, by its number."""
    return {it["n"]: it["st"] for scope in looker.scopes for it in scope["actions"]}


def looking(looker):
    looker.watch("totals", "branches", "comp", "log", "errors", "stages")
    looker.until_told(lambda it: len(stuck(it)) == 3 and it.of("acme"))
    looker.until_told(lambda it: it.totals[0]["stuck"] == 3 and it.of("acme")["undone"] == 3)
    return looker


@pytest.fixture
def process(directory):  # noqa: F811 - the fixture
    with running(STUCK + RUN) as process:
        yield process


def test_v1_undo_actions_are_told_as_a_tree(process, directory):  # noqa: F811
    with Looker(*sockets(directory)) as looker:
        looking(looker)
        scope = looker.scopes[-1]
        acme = looker.of("acme")
        assert (scope["level"], scope["b"]) == ("unit", [0, acme["id"]])
        assert (scope["what"], scope["policy"]) == ("store ValueError", "sequential")
        assert scope["took_ms"] >= 0
        unlink, delete = scope["actions"]
        assert unlink["n"] > delete["n"], "the last registered runs first"
        assert (unlink["name"], unlink["st"]) == ("unlink file", "failed")
        assert (unlink["stage"], unlink["error"]) == ("store", "OSError: disk on fire")
        assert (unlink["attempt"], unlink["of"]) == (1, 1)
        assert scope["start"] - 60_000 < unlink["at"] <= scope["start"] + 1
        assert (delete["name"], delete["st"], delete["finalizer"]) == ("delete", "done", False)
        assert looker.totals[0]["stuck"] == 3
        assert (acme["undone"], acme["comp"], acme["stuck"]) == (3, 0, 3)
        looker.until_told(lambda it: any("are stuck" in entry["msg"] for entry in it.log))


def test_v1_a_stage_and_an_error_tell_where_it_went_wrong(process, directory):  # noqa: F811
    with Looker(*sockets(directory)) as looker:
        looking(looker)
        looker.until_told(lambda it: it.errors and it.stages)
        error = looker.errors["ValueError"]
        assert (error["stage"], error["sample"]) == ("store", ["ValueError: full"])
        assert error["branches"] == [looker.of("acme")["id"]]
        assert (error["n"], error["n1"]) == (3, 3)
        assert 0 < error["first"] <= error["last"]
        stage = looker.stages[0, 2]
        assert (stage["err"], stage["undone"], stage["lerr"]) == (3, 3, "ValueError")


def test_dashboard_10_what_is_stuck_is_tried_again(process, directory):  # noqa: F811
    with Looker(*sockets(directory)) as looker:
        looking(looker)
        acme = looker.of("acme")["id"]
        scope = looker.scopes[0]["id"]
        one = {"p": 0, "branch": acme, "scope": scope}
        dry = looker.command("comp.retry", on=one, dry=True, if_gen=1)
        assert (dry["ok"], dry["n"]) == (True, 1)
        assert dry["msg"] == "1 stuck undo action would be tried again"
        assert looker.totals[0]["stuck"] == 3
        other = looker.command("comp.retry", on=one, if_gen=2)
        assert other["err"]["code"] == "conflict"
        assert looker.command("comp.retry", on=one, if_gen=1)["n"] == 1
        looker.until_told(lambda it: it.totals[0]["stuck"] == 2)
        assert looker.command("comp.retry", on=one)["err"]["code"] == "state"
        everything = looker.command("comp.retry", on={"p": 0})
        assert everything["n"] == 2
        looker.until_told(lambda it: it.totals[0]["stuck"] == 0 and not stuck(it))
        looker.until_told(lambda it: sum(a["ok"] for a in it.audits()) == 3)
    process.stdin.write("end\n")
    process.stdin.flush()
    assert process.stdout.readline() == "0 6 0\n"


def test_dashboard_10_what_is_stuck_is_left_out_once(process, directory):  # noqa: F811
    with Looker(*sockets(directory)) as looker:
        looking(looker)
        action = stuck(looker)[0]["actions"][0]["n"]
        one = {"p": 0, "tenant": "acme", "action": action}
        assert looker.command("comp.skip", on=one, key="once")["n"] == 1
        assert looker.command("comp.skip", on=one, key="once")["n"] == 1
        looker.until_told(lambda it: it.totals[0]["stuck"] == 2)
        looker.until_told(lambda it: states(it)[action] == "skipped")
        looker.until_told(Looker.audits)
        assert [it["op"] for it in looker.audits()] == ["comp.skip"]
    process.stdin.write("end\n")
    process.stdin.flush()
    assert process.stdout.readline() == "2 3 1\n"


@pytest.mark.parametrize("op", ["comp.retry", "comp.skip"])
def test_dashboard_10_the_server_decides_who_deals_with_it(process, directory, op):  # noqa: F811
    with Looker(*sockets(directory), want=["observe"]) as looker:
        done = looker.command(op, on={"p": 0})
        assert (done["ok"], done["err"]["code"]) == (False, "readonly")


def test_v3_a_pipeline_that_is_stuck_in_c_is_shown_and_told_to_stop(directory):  # noqa: F811
    """A call in C holds the interpreter, and no Python runs in the process any more."""
    script = (
        STUCK
        + """
    import ctypes

    def store(event, ctx):
        if event["tenant"] == "globex" and event["n"] == 9:
            print("ready", flush=True)
            ctypes.PyDLL(None).sleep(1000)

    pipeline().for_each(store, inline=True).run_blocking()
    """
    )
    process = child(script)
    try:
        assert process.stdout.readline() == "ready\n"
        with Looker(*sockets(directory)) as looker:
            looker.watch("totals", "branches", "comp", "windows", "errors", "log", detail=[0, 1])
            looker.until_told(lambda it: it.totals and it.totals[0].get("call"))
            assert looker.totals[0]["call"]["stage"] == "store"
            before = looker.totals[0]["at"]
            looker.until("tick", lambda it: it["ts"] - before > 300)
            assert looker.totals[0]["at"] == before
            looker.send("cmd", id=1, op="pipeline.drain", on={"p": 0})
            assert looker.until("ack")["state"] == "accepted"
    finally:
        process.kill()
        process.communicate()


def test_v5_a_branch_is_measured_while_somebody_looks_at_it(process, directory):  # noqa: F811
    with Looker(*sockets(directory)) as looker:
        looking(looker)
        acme, globex = looker.of("acme")["id"], looker.of("globex")["id"]
        assert (looker.of("acme")["p99"], looker.of("globex")["p99"]) == (None, None)
        looker.watch("branches", visible=[[0, globex]], detail=[0, globex])
        looker.until_told(lambda it: it.of("globex")["p99"] is not None)
        assert looker.of("acme")["p99"] is None
        looker.until_told(lambda it: it.detail and sum(it.detail.get("hist", ())) > 3)
        assert (looker.detail["id"], looker.detail["legs"][0]["qcap"]) == (globex, 1000)
        looker.watch("branches", visible=[[0, acme]])
        looker.until_told(lambda it: it.of("globex")["p99"] is None)
        looker.watch("branches", detail=[0, acme])
        looker.until_told(lambda it: it.detail["id"] == acme)
        assert looker.detail["error"] == "ValueError"


def test_v1_open_windows_tell_why_the_one_before_left(directory):  # noqa: F811
    script = (
        STUCK
        + """
    report = pipeline().window(max_items=7, max_age=60.0).for_each(len).run_blocking()
    """
    )
    with running(script), Looker(*sockets(directory)) as looker:
        looker.watch("windows", "branches")
        looker.until_told(lambda it: any(win.get("last") for win in it.windows))
        (globex,) = (win for win in looker.windows if win.get("last"))
        assert (globex["last"], globex["max"], globex["max_age_ms"]) == ("size", 7, 60_000)
        assert 1 <= globex["n"] <= 7
