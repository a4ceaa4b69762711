"""Where the monitor answers: whom it trusts, what it leaves alone, and what a fork must let go."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from looker import Looker, connect, runtime_directory, sockets, wait_for_branches
from support import child, finish
from test_monitor import ENDLESS, RUN, directory, is_locked, running  # noqa: F401 - a fixture

NOBODY = 65534

# Tells what the pipeline came to, and what was logged.
SHORT = """
    import logging
    import anabranch as ab
    logging.basicConfig(format="%(message)s", stream=__import__("sys").stdout)
    for name in "ab":
        print(ab.Pipeline(name).source([1, 2]).collect().run_blocking().committed)
"""


def refused_because(why):
    """Run two pipelines; both must work, and what is wrong must be said once."""
    code, out, err = finish(child(SHORT))
    assert (code, err) == (0, "")
    warning, *rest = out.splitlines()
    assert why in warning
    assert "cannot be looked at" in warning
    assert rest == ["2", "2"]


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_dashboard_9_a_directory_that_others_may_enter_is_refused(mode):
    with runtime_directory(mode=mode) as made:
        refused_because(f"chmod 700 {made}")
        assert list(made.iterdir()) == []


def test_dashboard_9_a_link_is_no_directory(directory, monkeypatch):  # noqa: F811 - the fixture
    link = directory.parent / "link"
    link.symlink_to(directory)
    monkeypatch.setenv("ANABRANCH_RUNTIME_DIR", str(link))
    refused_because("is not a directory")
    assert list(directory.iterdir()) == []


def test_dashboard_9_a_directory_of_another_user_is_refused(directory, monkeypatch):  # noqa: F811
    if os.geteuid() == 0:
        os.chown(directory, NOBODY, NOBODY)
        owner = NOBODY
    else:
        # Only the superuser can give one away, but all others have his to hand.
        monkeypatch.setenv("ANABRANCH_RUNTIME_DIR", "/")
        owner = 0
    refused_because(f"belongs to user {owner}")


def test_dashboard_2_a_path_that_is_too_long_is_not_used(directory, monkeypatch):  # noqa: F811
    long = directory / ("x" * 100)
    long.mkdir(mode=0o700)
    monkeypatch.setenv("ANABRANCH_RUNTIME_DIR", str(long))
    refused_because("the 103 bytes that the path of a socket may have")
    assert list(long.iterdir()) == []
    code, out, _ = anabranch("doctor")
    assert (code, f"WRONG {long} is too long for sockets" in out) == (6, True)


def test_dashboard_2_what_the_dead_have_left_is_removed_and_nothing_else(directory):  # noqa: F811
    with running() as living, running() as stopped:
        dead = child(ENDLESS + RUN)
        assert dead.stdout.readline() == "ready\n"
        dead.kill()
        dead.communicate()
        os.kill(stopped.pid, signal.SIGSTOP)
        strangers = [directory / "notes.txt", directory / "77-0000000g.lock", directory / "x.sock"]
        for stranger in strangers:
            stranger.write_text("mine")
        # A dead process whose socket somebody answers on: then it is not certain.
        unsure = directory / "77-00000001"
        unsure.with_suffix(".lock").touch()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(unsure.with_suffix(".sock")))
            listener.listen()
            names = {path.name for path in directory.iterdir()}
            assert finish(child(SHORT))[0] == 0
            gone = names - {path.name for path in directory.iterdir()}
        os.kill(stopped.pid, signal.SIGCONT)
        assert {int(name.split("-")[0]) for name in gone} == {dead.pid}
        assert len(gone) == 3
        assert living.poll() is None
    assert {path.name for path in directory.iterdir()} == {
        *(stranger.name for stranger in strangers),
        "77-00000001.lock",
        "77-00000001.sock",
    }


def test_dashboard_2_links_in_the_directory_are_not_followed(directory, tmp_path):  # noqa: F811
    """They look like what a dead process has left, and lead to what must stay."""
    precious = tmp_path / "precious"
    precious.write_text("mine")
    with running() as living:
        (at,) = sockets(directory)
        for suffix, goal in {
            "1-00000001.lock": precious,
            "2-00000002.sock": at.removeprefix("unix:"),
            "2-00000002.json": precious,
            "2-00000002.token": precious,
        }.items():
            (directory / suffix).symlink_to(goal)
        (directory / "2-00000002.lock").touch()
        assert finish(child(SHORT))[0] == 0
        assert anabranch("ls")[1].count("\n") == 2, "of the living one only"
        assert precious.read_text() == "mine"
        with Looker(at) as looker:
            looker.watch("totals")
            looker.until("tick")
        assert living.poll() is None
        assert (directory / "1-00000001.lock").is_symlink()


# A user namespace gives nobody a second user of the kernel's, and that is whom the monitor is told.
@pytest.mark.skipif(
    os.geteuid() != 0 and not os.environ.get("CI"),
    reason="only the superuser can become another user; in CI it must be he who runs this",
)
def test_dashboard_9_another_user_is_not_let_in(directory):  # noqa: F811
    """Not even if the modes let him."""
    script = """
    import json, os, socket, sys
    os.setgid(65534)
    os.setuid(65534)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(sys.argv[1])
    except PermissionError:
        print("permission")
    else:
        with connection.makefile() as lines:
            print(json.loads(lines.readline())["code"])
    connection.close()
    """
    with running():
        (at,) = sockets(directory)
        path = at.removeprefix("unix:")
        assert finish(child(script, arguments=[path])) == (0, "permission\n", "")
        directory.parent.chmod(0o755)
        directory.chmod(0o755)
        Path(path).chmod(0o666)
        assert finish(child(script, arguments=[path])) == (0, "auth\n", "")
        with Looker(at) as looker:
            looker.watch("totals")
            looker.until("tick")


def test_dashboard_2_a_fork_lets_go_of_what_is_its_parents(directory):  # noqa: F811
    """The child lives on; the parent is killed: its lock is free, and its socket refuses."""
    script = """
    import os, signal, sys, time, warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    import anabranch as ab

    ab.Pipeline("p").source([1]).collect().run_blocking()
    child = os.fork()
    if child == 0:
        os.setsid()
        print(os.getpid(), flush=True)
        if sys.argv[1] == "run":
            ab.Pipeline("child").source([1]).collect().run_blocking()
            print("ran", flush=True)
        sys.stdin.readline()
    else:
        os.waitpid(child, 0)
    """
    for what in ("wait", "run"):
        process = child(script, arguments=[what])
        forked = int(process.stdout.readline())
        if what == "run":
            assert process.stdout.readline() == "ran\n"
        try:
            mine = {path for path in directory.iterdir() if f"{process.pid}-" in path.name}
            theirs = {path for path in directory.iterdir() if f"{forked}-" in path.name}
            assert len(mine) == 3
            assert len(theirs) == (3 if what == "run" else 0), "the child opens its own"
            (lock,) = (path for path in mine if path.suffix == ".lock")
            assert is_locked(lock)
            with Looker(f"unix:{lock.with_suffix('.sock')}") as looker:
                assert looker.welcome["server"]["pid"] == process.pid
                process.kill()
                process.wait()
                assert looker.receive() is None, "the child has closed its copy"
            assert not is_locked(lock)
            with pytest.raises(ConnectionRefusedError):
                connect(f"unix:{lock.with_suffix('.sock')}")
            for path in theirs:
                if path.suffix == ".sock":
                    with Looker(f"unix:{path}") as looker:
                        assert looker.welcome["server"]["pid"] == forked
        finally:
            os.kill(forked, signal.SIGKILL)
            for pipe in (process.stdin, process.stdout, process.stderr):
                pipe.close()


def test_dashboard_2_a_process_pool_that_forks_leaves_its_parent_alone(directory):  # noqa: F811
    script = """
    import multiprocessing, warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    import anabranch as ab

    def square(n):
        inner = ab.Pipeline("inner").source([n]).map(lambda n: n * n).collect()
        return inner.run_blocking().items[0]

    if __name__ == "__main__":
        ab.Pipeline("outer").source([1]).collect().run_blocking()
        with multiprocessing.get_context("fork").Pool(2) as pool:
            print(pool.map(square, range(5)))
    """
    assert finish(child(script)) == (0, "[0, 1, 4, 9, 16]\n", "")
    alive = [path for path in directory.glob("*.lock") if is_locked(path)]
    assert alive == []


# The command.


def anabranch(*arguments, **options):
    command = [sys.executable, "-m", "anabranch.cli", *arguments]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=50, check=False, env=environment, **options
    )
    return done.returncode, done.stdout, done.stderr


def test_ls_lists_what_lives(directory):  # noqa: F811
    assert anabranch("ls") == (0, "PID  NAME  UP  VERSION  CWD  AT\n", "")
    assert anabranch("ls", "--json") == (0, "[]\n", "")
    with running() as process:
        code, out, err = anabranch("ps")
        assert (code, err) == (0, "")
        assert f"unix:{directory}/{process.pid}-" in out
        assert out.splitlines()[1].split()[:2] == [str(process.pid), "python"]
        import json

        (row,) = json.loads(anabranch("ls", "--json")[1])
        assert (row["pid"], row["at"]) == (process.pid, *sockets(directory))


@pytest.mark.parametrize("chosen", [[], ["--once"], ["python"], ["pyth"], ["PID"]])
def test_top_prints_a_table_where_there_is_no_terminal(directory, chosen):  # noqa: F811
    with running() as process:
        wait_for_branches(*sockets(directory))
        chosen = [str(process.pid) if it == "PID" else it for it in chosen]
        code, out, err = anabranch("top", *chosen, "--interval", "200ms", "--rows", "3")
        assert (code, err) == (0, "")
        head, row, _, branches, *rest = out.splitlines()
        assert head.split()[:4] == ["PROCESS", "PIPELINE", "ST", "BRANCHES"]
        assert row.split()[:4] == [f"python[{process.pid}]", "ingest", "run", "8"]
        assert branches.split()[0] == "TENANT"
        assert sum(line.startswith("t") for line in rest) == 3
        assert "... and 5 more" in rest


def test_top_as_json_tells_all(directory):  # noqa: F811
    import json

    with running() as process:
        wait_for_branches(*sockets(directory))
        code, out, err = anabranch("top", "--json", "--batch", "3", "--interval", "100ms")
        assert (code, err) == (0, "")
        pictures = [json.loads(line) for line in out.splitlines()]
        assert len(pictures) == 3
        (told,) = pictures[-1]["processes"]
        assert told["pid"] == process.pid
        (pipeline,) = told["pipelines"]
        assert (pipeline["name"], pipeline["st"]) == ("ingest", "run")
        assert pipeline["in_per_s"] > 0
        assert [stage["name"] for stage in pipeline["stages"]] == ["events", "fan_out", "store"]
        assert {it["tenant"] for it in pipeline["branches"]} == {None, *(f"t{n}" for n in range(8))}
        counts = [it["processes"][0]["pipelines"][0]["totals"]["in"] for it in pictures]
        assert counts == sorted(counts)
        assert counts[0] < counts[-1]


def test_exit_codes_tell_what_went_wrong(directory, tmp_path):  # noqa: F811
    code, out, err = anabranch("top", "--once")
    assert (code, out) == (3, "")
    assert "no process with pipelines runs here" in err
    missing = directory / "1-00000000.sock"
    assert anabranch("top", "--once", "--connect", str(missing))[0] == 4
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(directory.parent / "mute.sock"))
        mute.listen()
        code, _, err = anabranch("top", "--connect", f"unix:{directory.parent}/mute.sock")
        assert (code, "no answer" in err) == (4, True)
    with running(ENDLESS + "    OPTIONS['observe'] = 'tcp:127.0.0.1:0'\n" + RUN):
        assert anabranch("top", "nobody")[0] == 3
        assert anabranch("top", "python")[0] == 0, "the token is found"
        (marker,) = directory.glob("*.json")
        import json

        at = json.loads(marker.read_text())["at"]
        code, _, err = anabranch("top", "--connect", at)
        assert (code, "token" in err) == (5, True)
        wrong = tmp_path / "token"
        wrong.write_text("0" * 64)
        assert anabranch("top", "--connect", at, "--token-file", str(wrong))[0] == 5
        (token,) = directory.glob("*.token")
        assert anabranch("top", "--connect", at, "--token-file", str(token))[0] == 0


def test_dashboard_7_a_process_that_is_stopped_holds_up_nobody(directory):  # noqa: F811
    with running() as process:
        os.kill(process.pid, signal.SIGSTOP)
        assert anabranch("ls")[1].count("\n") == 2
        code, _, err = anabranch("top", "--once")
        assert (code, "no answer" in err) == (4, True)
        code, out, _ = anabranch("doctor")
        assert (code, "does not answer" in out) == (6, True)
        os.kill(process.pid, signal.SIGCONT)
        assert anabranch("doctor")[0] == 0


def test_top_tells_where_a_pipeline_is_stuck(directory):  # noqa: F811
    script = """
    import time
    import anabranch as ab

    def store(event):
        print("ready", flush=True)
        time.sleep(1000)

    pipeline = ab.Pipeline("p").source(["acme"]).fan_out(by=lambda name: name)
    pipeline.for_each(store, inline=True).run_blocking()
    """
    process = child(script)
    try:
        assert process.stdout.readline() == "ready\n"
        code, out, _ = anabranch("top", "--once", "--interval", "2500ms")
        assert code == 0
        assert "!! p: in stage store since " in out
    finally:
        process.kill()
        process.communicate()


def test_doctor_tells_what_is_wrong_with_the_directory():
    with runtime_directory(mode=0o755) as made:
        code, out, err = anabranch("doctor")
        assert (code, err) == (6, "")
        wrong = f"{made} is open to other users (mode 755): chmod 700 {made}"
        assert f"WRONG {wrong}" in out
        code, out, err = anabranch("ls", "--json")
        assert (code, out) == (0, "[]\n")
        assert wrong in err
    with runtime_directory() as made:
        made.rmdir()
        assert anabranch("doctor")[1].startswith(f"ok   {made} is not there yet")


def test_dashboard_4_what_cannot_be_printed_is_told_unless_nobody_reads():
    command = [sys.executable, "-m", "anabranch.cli", "completions", "bash"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=50, check=False
        )
    assert (done.returncode, "No space left" in done.stderr) == (6, True)
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as closed:  # noqa: PTH123 - it has no path
        done = subprocess.run(
            command, stdout=closed, stderr=subprocess.PIPE, text=True, timeout=50, check=False
        )
    assert (done.returncode, done.stderr) == (6, "")


def test_names_do_not_steer_the_terminal_of_whoever_looks(directory):  # noqa: F811
    script = ENDLESS.replace('f"t{n % TENANTS}"', r'"\x1b[2Jevil"') + RUN
    with running(script):
        code, out, _ = anabranch("top", "--once")
        assert (code, "[2Jevil" in out, "\x1b" in out) == (0, True, False)
