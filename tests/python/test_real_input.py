"""Real logs through real sockets into a real database, reconciled line by line.

Every system in the folder of logs is a tenant. The folder is not part of the project; where it is
missing, lines of the project's own generator serve. ANABRANCH_LOGHUB names another one.
"""

import json
import os
import random
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import count, islice
from pathlib import Path
from queue import Queue
from threading import Thread

import pytest

from anabranch.traffic import entries, tenant_names

HERE = Path(__file__).parent
LOGHUB = Path(os.environ.get("ANABRANCH_LOGHUB", HERE.parents[2] / "shared/data/loghub"))
REPEATS = 20
CONNECTIONS = 4
# Odd on purpose: a line's parts, even a CR and its LF, come in different packets.
CHUNKS = (1, 7, 61, 977, 4_099, 16_381, 65_521)
PATIENCE = 30.0  # seconds


def read_logs():
    """Return the raw lines of each system, without LF and with the CR where there is one."""
    logs = {}
    for path in sorted(LOGHUB.glob("*.log")):
        lines = path.read_bytes().split(b"\n")
        logs[path.stem] = lines if lines[-1] else lines[:-1]
    return logs or generate_logs()


def generate_logs():
    logs = defaultdict(list)
    for entry in islice(entries(tenant_names(8), seed=8), 16_000):
        end = b"\r" if entry.sequence % 3 else b""
        logs[entry.tenant].append(entry.line.encode() + end)
    return dict(logs)


def wire(tenant, lines, first):
    """Return lines as they are sent, numbered from `first`."""
    name = tenant.encode()
    return b"".join(
        b"%s\t%d\t%s\n" % (name, number, line) for number, line in enumerate(lines, first)
    )


def stream(address, data, seed):
    """Send in odd pieces; return when the gateway has read it all."""
    pick = random.Random(seed).choice
    with socket.create_connection(address, timeout=PATIENCE) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        view, start = memoryview(data), 0
        while start < len(view):
            size = pick(CHUNKS)
            connection.sendall(view[start : start + size])
            start += size
        connection.shutdown(socket.SHUT_WR)
        # The gateway closes its side when it has read ours to the end.
        assert connection.recv(1) == b""


class Gateway:
    """The process under test, and what it says."""

    def __init__(self, database, flaky):
        command = [sys.executable, str(HERE / "gateway.py"), str(database), flaky]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._said = Queue()
        self._errors = ""
        self._readers = [Thread(target=self._read_output), Thread(target=self._read_errors)]
        for reader in self._readers:
            reader.start()
        self.address = tuple(self.hear()["address"])

    def _read_output(self):
        for line in self.process.stdout:
            self._said.put(json.loads(line))
        self._said.put(None)

    def _read_errors(self):
        self._errors = self.process.stderr.read()

    def hear(self):
        """Return the next thing it says."""
        said = self._said.get(timeout=PATIENCE)
        assert said is not None, f"the gateway ended early: {self._errors}"
        return said

    def terminate(self):
        """Send SIGTERM; return the last thing it says."""
        self.process.send_signal(signal.SIGTERM)
        while "report" not in (said := self.hear()):
            pass
        assert self.process.wait(timeout=PATIENCE) == 0
        for reader in self._readers:
            reader.join(PATIENCE)
        assert "Traceback" not in self._errors
        return said

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for reader in self._readers:
            reader.join(PATIENCE)
        self.process.stdout.close()
        self.process.stderr.close()


@pytest.fixture(scope="module")
def logs():
    return read_logs()


@pytest.fixture
def database(tmp_path):
    return tmp_path / "lines.db"


def stored_rows(database):
    """Return every row as {(tenant, sequence): line}, and those that are there more than once."""
    with closing(sqlite3.connect(database)) as connection:
        rows = connection.execute("select tenant, sequence, line from lines").fetchall()
    often = Counter((tenant, sequence) for tenant, sequence, _ in rows)
    doubled = [key for key, times in often.items() if times > 1]
    return {(tenant, sequence): line for tenant, sequence, line in rows}, doubled


def assert_adds_up(counts):
    """E8: every item is accounted for."""
    ends = ("committed", "filtered", "failed", "dropped", "dead_lettered", "returned", "left")
    assert counts["received"] + counts["produced"] == sum(counts[end] for end in ends)


def test_e8_all_logs_reach_the_database_once_through_sockets(logs, database, capsys):
    """B3, C10, E8: nothing is lost, nothing doubled, and a failed window leaves nothing."""
    *others, flaky, cut = logs
    assert others
    parts = [
        (tenant, lines, repeat * len(lines))
        for repeat in range(REPEATS)
        for tenant, lines in logs.items()
        if (tenant, repeat) != (cut, 0)  # that one takes the broken connection
    ]
    random.Random(20).shuffle(parts)
    loads = [b"".join(wire(*part) for part in parts[n::CONNECTIONS]) for n in range(CONNECTIONS)]

    with closing(Gateway(database, flaky)) as gateway, ThreadPoolExecutor(CONNECTIONS + 1) as pool:
        began = time.perf_counter()
        streams = [pool.submit(stream, gateway.address, load, n) for n, load in enumerate(loads)]
        kill_in_mid_line(gateway, database, cut, logs[cut])
        again = wire(cut, logs[cut][100:], 100)
        streams.append(pool.submit(stream, gateway.address, again, 99))
        for sent in streams:
            sent.result(timeout=PATIENCE)
        said = gateway.terminate()
        seconds = time.perf_counter() - began

    given_up = [(flaky, sequence) for window in said["given_up"] for sequence in window]
    expected = {
        (tenant, repeat * len(lines) + number): line.decode().removesuffix("\r")
        for tenant, lines in logs.items()
        for repeat in range(REPEATS)
        for number, line in enumerate(lines)
    }
    total = len(expected)
    for key in given_up:
        del expected[key]
    stored, doubled = stored_rows(database)
    assert doubled == []
    assert sorted(expected.keys() - stored.keys())[:5] == [], "lost"
    assert sorted(stored.keys() - expected.keys())[:5] == [], "not undone, or never sent"
    assert [key for key, line in expected.items() if stored[key] != line][:5] == []

    report = said["report"]
    counts = report["counts"]
    assert report["outcome"] == "drained"
    assert_adds_up(counts)
    assert counts["received"] == total + 1
    assert counts["committed"] == len(stored)
    assert given_up, "no window failed for good"
    assert report["codes"] == {"source.truncated": 1, "ConnectionError": len(given_up)}
    # What failed and was not given up was saved by the retry.
    assert said["failures"] > 3 * len(said["given_up"])
    assert report["compensations"]["done"] == said["failures"]
    assert report["compensations"]["failed"] == 0
    for branch in report["branches"]:
        assert_adds_up(branch)
        lost = len(given_up) if branch["tenant"] == flaky else 0
        assert branch["received"] == REPEATS * len(logs[branch["tenant"]])
        assert branch["failed"] == lost
    assert {branch["tenant"] for branch in report["branches"]} == set(logs)

    with capsys.disabled():
        rate = total / seconds
        sys.stdout.write(f"\n{total:,} lines to SQLite in {seconds:.1f} s: {rate:,.0f} lines/s\n")


def kill_in_mid_line(gateway, database, tenant, lines):
    """Send 100 lines and a half, wait until they are stored, and reset the connection."""
    connection = socket.create_connection(gateway.address, timeout=PATIENCE)
    connection.sendall(wire(tenant, lines[:100], 0) + wire(tenant, lines[100:101], 100)[:-9])
    with closing(sqlite3.connect(database)) as look:
        query = "select count(*) from lines where tenant = ? and sequence < 100"
        while look.execute(query, (tenant,)).fetchone()[0] < 100:
            gateway.hear()
    # To linger for no time at all means to send a reset instead of a proper end.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def test_e8_sigterm_in_the_middle_keeps_what_was_taken(logs, database):
    """A drain stops taking lines; those taken are stored, and the report tells how many."""
    tenant, lines = next(iter(logs.items()))
    with closing(Gateway(database, "nobody")) as gateway, ThreadPoolExecutor(1) as pool:
        sending = pool.submit(send_until_cut, gateway.address, tenant, lines)
        gateway.hear()  # the first window is stored
        said = gateway.terminate()
        sending.result(timeout=PATIENCE)
    counts, codes = said["report"]["counts"], said["report"]["codes"]
    assert said["report"]["outcome"] == "drained"
    assert_adds_up(counts)
    stored, doubled = stored_rows(database)
    assert doubled == []
    assert set(codes) <= {"source.truncated"}
    assert (
        counts["committed"] == len(stored) == counts["received"] - codes.get("source.truncated", 0)
    )
    # One connection keeps its order: what was taken are the first lines.
    assert max(sequence for _, sequence in stored) == len(stored) - 1


def send_until_cut(address, tenant, lines):
    with socket.create_connection(address, timeout=PATIENCE) as connection:
        try:
            for first in count(0, len(lines)):
                connection.sendall(wire(tenant, lines, first))
        except ConnectionError:
            pass  # the gateway takes no more
