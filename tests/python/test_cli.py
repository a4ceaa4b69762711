"""The command `anabranch`: quick to start, and one line on stderr when something is wrong."""

import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from importlib.metadata import entry_points

import pytest

import anabranch
from anabranch.cli import main

COMMAND = [sys.executable, "-W", "error", "-m", "anabranch.cli"]


def run(*arguments):
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=50, check=False
    )


def refused(arguments, capfd):
    """Return what is said about wrong arguments: one line, on stderr alone."""
    try:
        code = main(arguments)
    except SystemExit as caught:
        code = caught.code
    assert code == 2
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    return said.err


def test_the_console_script_needs_the_extension_alone():
    (script,) = entry_points(group="console_scripts", name="anabranch")
    assert script.value == "anabranch_command:main"
    check = """
import sys
from anabranch_command import main
sys.argv[1:] = ["--version"]
sys.exit(main() or bool({"anabranch", "asyncio", "typing", "logging"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, f"anabranch {anabranch.__version__}\n")


def test_version_is_told_without_loading_what_runs_pipelines():
    done = run("--version")
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        f"anabranch {anabranch.__version__}\n",
        "",
    )
    check = "import sys, anabranch.cli; sys.exit('asyncio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_help_names_the_commands_and_their_options(capfd):
    assert main(["--help"]) == 0
    told = capfd.readouterr().out
    for command in ("ls", "top", "doctor", "demo"):
        assert f"\n  {command} " in told
    assert main(["top", "--help"]) == 0
    assert "--once" in capfd.readouterr().out
    with pytest.raises(SystemExit) as caught:
        main(["demo", "--help"])
    assert caught.value.code == 0
    assert "--seconds" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "no command given"),
        (["dmeo"], "dmeo"),
        (["ls", "--jsn"], "--jsn"),
        (["tpo"], "unrecognized subcommand 'tpo' (see anabranch --help)"),
        (["ctl"], "no command given (see anabranch ctl --help)"),
        (["ctl", "peek"], "were not provided: <TARGET> (see anabranch ctl peek --help)"),
        (["ctl", "throttle", "t1"], "were not provided: --rate <RATE|none> (see"),
        (
            ["ctl", "throttle", "t1", "--rate", "-1"],
            'must be items per second, above 0, or none, got "-1"',
        ),
        (["config", "x"], "invalid value 'x' for '<WHICH>'; [possible values: default]"),
        (["top", "--interval", "1h"], 'must be a time from 50ms to 60s, got "1h"'),
        (["top", "--batch", "0"], "0"),
        (["top", "--connect", "pipe:7"], "neither unix:PATH nor tcp:ADDRESS:PORT"),
        (["demo", "--second", "1"], "--second"),
        (["demo", "--seconds", "0"], "--seconds: must be seconds > 0, got '0'"),
        (["demo", "--seconds", "nan"], "--seconds: must be seconds > 0, got 'nan'"),
        (["demo", "--seconds", "soon"], "--seconds: must be seconds > 0, got 'soon'"),
        (["demo", "--tenants", "1"], "--tenants: must be an int >= 2, got '1'"),
        (["demo", "--seed", "-1"], "--seed: must be an int >= 0, got '-1'"),
        (["demo", "--port", "70000"], "--port: must be an int from 0 to 65535, got '70000'"),
    ],
)
def test_wrong_arguments_are_told_in_one_line(arguments, told, capfd):
    error = refused(arguments, capfd)
    assert error.startswith("anabranch")
    assert told in error


def test_the_demo_succeeds_and_keeps_the_database_it_is_given(tmp_path):
    path = tmp_path / "kept.db"
    done = run("demo", "--seconds", "0.2", "--tenants", "5", "--database", str(path))
    assert (done.returncode, done.stderr) == (0, "")
    assert "\nOK: " in done.stdout
    with closing(sqlite3.connect(path)) as database:
        (rows,) = database.execute("select count(*) from lines").fetchone()
    assert rows > 0


@pytest.mark.parametrize("made", ["missing/lines.db", "text.db", "used.db"])
def test_a_database_that_cannot_be_made_is_named(made, tmp_path, capsys):
    (tmp_path / "text.db").write_text("not a database " * 100)
    with closing(sqlite3.connect(tmp_path / "used.db")) as used:
        used.execute("create table lines (line text)")
    assert main(["demo", "--seconds", "0.1", "--database", str(tmp_path / made)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"anabranch: database {tmp_path / made}: ")
    assert error.count("\n") == 1


def test_a_port_in_use_is_named(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["demo", "--seconds", "0.1", "--port", str(port)]) == 1
    error = capsys.readouterr().err
    assert f"127.0.0.1:{port}" in error
    assert error.count("\n") == 1


def test_a_reader_that_has_gone_is_no_traceback():
    process = subprocess.Popen(
        [*COMMAND, "demo", "--seconds", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1
