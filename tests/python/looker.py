"""A client of the monitor for tests: the protocol by hand, so that it is tested, too."""

import contextlib
import json
import os
import socket
import tempfile
import time
from pathlib import Path

import pytest

DEADLINE = 20.0


class Looker:
    """A connection, with all that was told so far."""

    def __init__(self, at, *, say_hello=True, want=("observe", "control"), proto=(1, 1), **hello):
        self.socket = connect(at)
        self.lines = self.socket.makefile("rb")
        self.heard = []
        self.rows, self.names, self.pipes, self.totals = {}, {}, {}, {}
        self.log, self.errors = [], {}
        self.scopes, self.windows, self.detail, self.stages = [], [], None, {}
        self.columns = []
        self.commands = 0
        if say_hello:
            self.send("hello", proto=proto, client="test", want=want, **hello)
            self.welcome = self.until("welcome")
            self.columns = self.welcome["cols"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.lines.close()
        self.socket.close()

    def send(self, kind, **message):
        self.socket.sendall(json.dumps({"t": kind, **message}).encode() + b"\n")

    def receive(self):
        """Return the next message; None at the end."""
        line = self.lines.readline()
        if not line:
            return None
        assert len(line) <= 256 * 1024
        message = json.loads(line)
        self.heard.append(message)
        self._take(message["t"], message)
        return message

    def _take(self, kind, message):
        match kind:
            case "pipe":
                self.pipes[message["p"]] = message
            case "names":
                self.names.update({(p, id_): name for p, id_, name in message["r"]})
            case "stages":
                self.stages.update({(it["p"], it["s"]): it for it in message["r"]})
            case "rows" | "tick":
                for row in message["r"]:
                    told = dict(zip(self.columns, row, strict=True))
                    self.rows[told["p"], told["id"]] = told
        if kind == "tick":
            self.totals = {it["p"]: it for it in message["tot"]}
        self._take_topic(kind, message)

    def _take_topic(self, kind, message):
        match kind:
            case "comp":
                self.scopes = message["r"]
            case "wins":
                self.windows = message["r"]
            case "detail":
                self.detail = message
            case "log":
                self.log += message["r"]
            case "errors":
                self.errors = {it["code"]: it for it in message["r"]}

    def until(self, kind, fits=lambda _: True):
        """Return the next message of a kind that fits."""
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            message = self.receive()
            assert message is not None, f"the end instead of {kind}; heard {self.heard[-5:]}"
            if message["t"] == kind and fits(message):
                return message
        pytest.fail(f"no {kind} in time; heard {self.heard[-5:]}")
        return None

    def watch(self, *topics, tick_ms=50, bulk_ms=50, **options):
        self.send("sub", id=1, tick_ms=tick_ms, bulk_ms=bulk_ms, topics=topics, **options)

    def until_told(self, fits):
        """Listen until what was told so far fits."""
        end = time.monotonic() + DEADLINE
        while not fits(self):
            assert time.monotonic() < end, (self.rows, self.totals)
            assert self.receive() is not None
        return self

    def command(self, op, **message):
        """Give a command; return how it ended."""
        self.commands += 1
        self.send("cmd", id=self.commands, op=op, **message)
        return self.until("done", lambda it: it["id"] == self.commands)

    def audits(self):
        """Return what operators did, as far as it was told."""
        return [entry for entry in self.log if entry["kind"] == "audit"]

    def of(self, tenant):
        """Return the row of a tenant; None if there is none yet."""
        key = next((key for key, name in self.names.items() if name == tenant), None)
        return self.rows.get(key)


def wait_for_branches(at, count=8):
    """Wait until so many branches are told of: a pipeline is found before all of it is."""
    with Looker(at) as looker:
        looker.watch("totals", "branches")
        looker.until_told(lambda it: sum(branch > 0 for _, branch in it.rows) >= count)


def connect(at):
    kind, _, where = at.partition(":")
    if kind == "tcp":
        host, _, port = where.rpartition(":")
        return socket.create_connection((host, int(port)), timeout=DEADLINE)
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(DEADLINE)
    try:
        connection.connect(where)
    except OSError:
        connection.close()
        raise
    return connection


def sockets(directory):
    """Return where the processes answer whose sockets are in a directory."""
    return sorted(f"unix:{path}" for path in Path(directory).glob("*.sock"))


@contextlib.contextmanager
def runtime_directory(*, mode=0o700):
    """Make the directory where processes are found, for this test and its children."""
    before = os.environ["ANABRANCH_RUNTIME_DIR"]
    with tempfile.TemporaryDirectory(prefix="ab-") as made:
        directory = Path(made, "run")
        directory.mkdir(mode=mode)
        directory.chmod(mode)
        os.environ["ANABRANCH_RUNTIME_DIR"] = str(directory)
        try:
            yield directory
        finally:
            os.environ["ANABRANCH_RUNTIME_DIR"] = before
