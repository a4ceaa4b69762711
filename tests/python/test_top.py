"""The dashboard, from the installed wheel on a real terminal, with pipelines in other processes."""

import json
import os
import re
import signal
import subprocess
import time

import pytest
from looker import DEADLINE, Looker, sockets
from terminal import COMMAND, Terminal
from test_monitor import ENDLESS, RUN, directory, running  # noqa: F401 - a fixture
from test_monitor_undo import RUN as UNDONE
from test_monitor_undo import STUCK

# Tells the state of a branch for each line that comes by stdin, from within the process.
TELLING = (
    ENDLESS.replace("sys.stdin.readline(), ended.set()", "tell(), ended.set()").replace(
        "ended = threading.Event()",
        """
    def tell():
        for line in sys.stdin:
            if line == "end\\n":
                return
            print(current.branch(line.strip()).state, flush=True)

    ended = threading.Event()""",
    )
    + """
    import asyncio

    async def main():
        global current
        async with pipeline().start() as current:
            await current.wait()

    asyncio.run(main())
"""
)


def tells(process, tenant):
    """Ask a process that runs TELLING for the state of a branch."""
    process.stdin.write(f"{tenant}\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def anabranch(*arguments, **environment):
    process = subprocess.run(
        [COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        stdin=subprocess.DEVNULL,
        env=os.environ | environment,
    )
    return process.returncode, process.stdout, process.stderr


def test_v1_the_dashboard_shows_what_runs_elsewhere(directory):  # noqa: F811
    with running() as process, Terminal("top") as terminal:
        terminal.shows(f"python[{process.pid}]", "ingest", "LIVE", "attention")
        terminal.press("\r")
        terminal.shows("branches 8/8", *(f"t{n} " for n in range(8)))
        terminal.until(lambda it: re.search(r"in [\d.]+k?/s", it.text), "a rate")
        for key, title in [
            ("3", "[3 Windows]"),
            ("4", "[4 Compensations]"),
            ("5", "[5 Outbox]"),
            ("6", "[6 Errors]"),
            ("7", "[7 Log]"),
        ]:
            terminal.press(key)
            terminal.shows(title)
        terminal.shows("the pipeline has begun")
        terminal.press("6")
        terminal.shows("OSError")
        terminal.press("?")
        terminal.shows("j moves, / searches, esc leaves")
        terminal.press("q")
        terminal.press("q")
        assert terminal.ended() == 0
        assert terminal.is_restored()


def test_dashboard_8_the_terminal_is_given_back_whatever_ends_the_dashboard(directory):  # noqa: F811
    with running():
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            with Terminal("top", "--mouse") as terminal:
                terminal.shows("ingest")
                terminal.process.send_signal(number)
                assert terminal.ended() == -number
                assert terminal.is_restored(), number


def test_dashboard_8_a_panic_gives_the_terminal_back_before_it_is_told(directory):  # noqa: F811
    """Through the installed command: the interpreter is there to the end, and tells of it."""
    with running(), Terminal("top", "--mouse", "--panic") as terminal:
        assert terminal.ended() == 1
        assert terminal.is_restored()
        told = terminal.written.rpartition(b"\x1b[?1049l")[2].decode()
        assert "on purpose, by --panic" in told
        assert "Traceback (most recent call last)" in told


def test_dashboard_8_a_target_that_is_killed_stays_on_the_screen_and_comes_back(directory):  # noqa: F811
    with Terminal("top") as terminal:
        terminal.shows("No pipelines are running here")
        with running() as first:
            terminal.shows(f"python[{first.pid}]", "LIVE")
            terminal.press("2")
            terminal.shows("t7 ")
            first.kill()
            first.wait()
            terminal.shows("LOST", "t7 ")
        terminal.press("1")
        terminal.shows(f"python[{first.pid}] process lost (")
        assert "os error" not in terminal.text
        with running() as second:
            terminal.shows(f"python[{second.pid}]", "LIVE", f"python[{first.pid}]", "LOST")
        terminal.press("q")
        assert terminal.ended() == 0
        assert terminal.is_restored()


def test_dashboard_7_keys_are_answered_while_the_target_is_stopped(directory):  # noqa: F811
    with running() as process, Terminal("top") as terminal:
        terminal.shows("ingest", "LIVE")
        os.kill(process.pid, signal.SIGSTOP)
        terminal.shows("SILENT")
        slowest = 0.0
        for key, words in [
            ("?", "esc leaves"),
            ("?", "attention ("),
            ("7", "[7 Log]"),
            ("1", "[1 Pipes]"),
        ] * 5:
            terminal.press(key)
            slowest = max(slowest, terminal.shows(words))
        # A dashboard that waits for the target would take seconds; `make bench` tells more.
        assert slowest < 0.5
        os.kill(process.pid, signal.SIGCONT)
        terminal.shows("LIVE")
        terminal.no_longer_shows("SILENT")
        terminal.press("q")
        assert terminal.ended() == 0


def test_b14_a_branch_is_paused_from_the_keyboard_and_goes_on(directory):  # noqa: F811
    with running(TELLING) as process, Terminal("top", "--sort", "tenant") as terminal:
        terminal.shows("ingest", "LIVE")
        terminal.press("\r")
        terminal.shows("t0 ")
        assert tells(process, "t0") != "paused"
        terminal.press("P")
        terminal.shows("Units wait", "branch 't0' is", DIALOG)  # the dry run
        assert tells(process, "t0") != "paused", "nothing was done yet"
        answer(terminal)
        assert tells(process, "t0") != "paused", "Enter is no, unless yes was chosen"
        terminal.press("P\t")
        terminal.shows(DIALOG)
        answer(terminal)
        terminal.until(lambda it: "paus" in (it.line("t0 ") or ""), "t0 that is paused")
        assert tells(process, "t0") == "paused"
        with Looker(*sockets(directory)) as looker:
            looker.watch("log")
            looker.until_told(lambda it: any("is paused" in entry["msg"] for entry in it.audits()))
            assert all(it["peer"]["client"].startswith("anabranch-top/") for it in looker.audits())
        terminal.press("U\t")
        terminal.shows("Units go on", DIALOG)
        answer(terminal)
        terminal.until(lambda it: "paus" not in (it.line("t0 ") or "paus"), "t0 that runs")
        assert tells(process, "t0") != "paused"


DIALOG = "Tab chooses, Enter takes it"


def answer(terminal):
    """Press Enter once it counts: 300 ms after the question."""
    terminal.wait(0.4)
    terminal.press("\r")
    terminal.no_longer_shows(DIALOG)


def test_dashboard_10_stuck_undo_actions_are_tried_again_from_the_keyboard(directory):  # noqa: F811
    with running(STUCK + UNDONE) as process, Terminal("top") as terminal:
        terminal.shows("3 compensations are stuck")
        terminal.press("4")
        terminal.shows("acme", "unlink file")
        terminal.press("jR")
        terminal.shows("3 stuck undo actions would be tried again")
        terminal.press("acm")
        terminal.wait(0.4)
        terminal.press("\r")
        terminal.press("e")
        terminal.wait(0.4)
        terminal.press("\r")
        terminal.no_longer_shows("would be tried again")
        terminal.press("1")
        terminal.no_longer_shows("are stuck")
        terminal.press("q")
        assert terminal.ended() == 0
        out, _ = process.communicate("end\n")
        assert out.startswith("0 ")


@pytest.mark.parametrize(
    ("options", "observe", "told"),
    [
        (["--read-only"], "auto", "this dashboard is read-only"),
        ([], "ro", "lets nobody act"),
    ],
)
def test_v4_nothing_is_done_where_it_is_read_only(directory, options, observe, told):  # noqa: F811
    script = ENDLESS + f"    OPTIONS['observe'] = {observe!r}\n" + RUN
    with running(script), Terminal("top", *options) as terminal:
        terminal.shows("ingest", "LIVE", " ro ")
        terminal.press("\rP")
        terminal.shows(told)


def test_options_say_what_is_shown_and_how(directory):  # noqa: F811
    options = ["--sort", "tenant:desc", "--filter", "!t1 pipeline:ing", "--ascii"]
    options += ["--columns", "tenant,state,queue", "--theme", "mono", "--interval", "200ms"]
    with running() as process, Terminal("top", str(process.pid), *options) as terminal:
        terminal.shows("5Hz")
        terminal.press("\r")
        terminal.shows("branches 7/8", "filter: !t1 pipeline:ing", "sort: tenant", "theme mono")
        rows = [line.split()[0] for line in terminal.text.splitlines() if " run " in line]
        names = [name for name in rows if re.fullmatch(r"t\d", name)]
        assert names == sorted(names, reverse=True)
        head = terminal.line("TENANT")
        assert head.split() == ["TENANT", "ST", "QUEUE"]
        assert terminal.text.isascii()


def test_what_a_configuration_says_holds_and_mistakes_in_it_are_told(directory, tmp_path):  # noqa: F811
    place = tmp_path / "anabranch"
    place.mkdir()
    (place / "top.toml").write_text(
        "theme = 'cb'\nfilter = '!t3'\nsize = 3\n[keymap]\nquit = ['Z']\n"
    )
    with running(), Terminal("top", XDG_CONFIG_HOME=str(tmp_path)) as terminal:
        terminal.shows("size: unknown, and left out")
        terminal.press("2")
        terminal.shows("branches 7/8", "theme cb")
        terminal.press("Z")
        assert terminal.ended() == 0


COLOUR = re.compile(rb"\x1b\[[\d;]*\b(3[0-8]|4[0-8]|9[0-7]|10[0-7])\b[\d;]*m")


def test_colours_and_signs_are_what_the_terminal_can_show(directory):  # noqa: F811
    with running():
        for environment, coloured, plain in [
            ({}, True, False),
            ({"NO_COLOR": "1"}, False, False),
            ({"LANG": "C"}, True, True),
            ({"LC_ALL": "POSIX", "NO_COLOR": "1"}, False, True),
        ]:
            with Terminal("top", size=(80, 24), **environment) as terminal:
                terminal.shows("ingest", "LIVE")
                terminal.press("2")
                terminal.shows("t7 ")
                assert bool(COLOUR.search(terminal.written)) is coloured, environment
                assert terminal.written.isascii() is plain, environment
                terminal.press("q")
                assert terminal.ended() == 0


def test_a_terminal_that_cannot_be_drawn_on_gets_a_table(directory):  # noqa: F811
    with running() as process, Terminal("top", TERM="dumb") as terminal:
        assert terminal.ended() == 0
        assert b"\x1b" not in terminal.written
        assert f"python[{process.pid}]".encode() in terminal.written


def test_another_size_is_drawn_at_once(directory):  # noqa: F811
    with running(), Terminal("top", "--sort", "tenant", size=(120, 40)) as terminal:
        terminal.shows("LIVE")
        terminal.press("\r")
        terminal.shows("▸ t0", "t7 ")
        terminal.press("jj")
        terminal.shows("▸ t2")
        terminal.resize(60, 16)
        terminal.shows("▸ t2", "[2 Branches]")
        terminal.resize(50, 12)
        terminal.shows("terminal too small: 50x12, need 60x16")
        terminal.resize(130, 40)
        terminal.shows("▸ t2", "compensations (reverse order)")


def test_a_recording_is_shown_again_on_a_terminal_and_printed(directory, tmp_path):  # noqa: F811
    file = tmp_path / "session.jsonl"
    with running() as process:
        with Terminal("top", "--record", str(file)) as terminal:
            terminal.shows("ingest", "LIVE")
            terminal.press("2")
            terminal.shows("branches 8/8")
            terminal.press("q")
            assert terminal.ended() == 0
        label = f"python[{process.pid}]"
        code, out, err = anabranch("top", "--once", "--record", str(file))
        assert (code, out) == (2, "")
        with Terminal("top", "--record", str(file)) as terminal:
            assert terminal.ended() == 6
            assert b"session.jsonl" in terminal.written
    with Terminal("replay", str(file), "--speed", "100") as terminal:
        terminal.shows(label, "ingest", "the recording is over", " ro ")
        terminal.press("q")
        assert terminal.ended() == 0
    code, out, err = anabranch("replay", str(file))
    assert (code, err) == (0, "")
    assert label in out
    told = json.loads(anabranch("replay", str(file), "--json")[1])
    (pipeline,) = told["processes"][0]["pipelines"]
    assert {it["tenant"] for it in pipeline["branches"]} == {f"t{n}" for n in range(8)}
    assert anabranch("replay", str(tmp_path / "none"))[0] == 6
    code, _, err = anabranch("replay", __file__)
    assert (code, "is no recording" in err) == (6, True)


def test_what_is_printed_is_filtered_and_sorted_too(directory):  # noqa: F811
    with running():
        options = ("--once", "--interval", "100ms", "--filter", "!t1 rate:>0")
        rows, wanted = [], [f"t{n}" for n in range(7, -1, -1) if n != 1]
        until = time.monotonic() + DEADLINE
        # On a busy machine a tenth of a second may pass without an item.
        while rows != wanted and time.monotonic() < until:
            code, out, _ = anabranch("top", *options, "--sort", "tenant:desc")
            assert code == 0
            rows = [line.split()[0] for line in out.splitlines() if re.match(r"t\d ", line)]
        assert rows == wanted
        code, out, _ = anabranch("top", *options[:-2], "--json", "--filter", "^t5")
        (pipeline,) = json.loads(out)["processes"][0]["pipelines"]
        assert [it["tenant"] for it in pipeline["branches"]] == ["t5"]
        assert anabranch("top", "--once", "--filter", "pipeline:other")[1].count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--sort", "mood"], "use tenant, pipeline, state"),
        (["--filter", "mood:good"], "unknown key mood: use st, queue"),
        (["--columns", "tenant,mood"], "use tenant, pipeline, state"),
        (["--theme", "pink"], "use ansi, cb, mono, light, dark"),
    ],
)
def test_options_that_make_no_sense_say_what_does(arguments, told):
    code, out, err = anabranch("top", *arguments)
    assert (code, out) == (2, "")
    assert told in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "elvish", "powershell"])
def test_completions_are_printed(shell):
    code, out, err = anabranch("completions", shell)
    assert (code, err) == (0, "")
    assert "read-only" in out
    assert "throttle" in out


def test_the_default_configuration_is_printed_and_read_without_a_warning(directory, tmp_path):  # noqa: F811
    code, out, _ = anabranch("config", "default")
    assert code == 0
    assert 'quit = ["q", "ctrl-c"]' in out
    place = tmp_path / "anabranch"
    place.mkdir()
    (place / "top.toml").write_text(out)
    with running(), Terminal("top", XDG_CONFIG_HOME=str(tmp_path)) as terminal:
        terminal.shows("ingest", "LIVE")
        assert "top.toml" not in terminal.text
