"""The cases about the dashboard: how fast it draws, begins and answers, and what it holds."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING

from measure import Settings, Spread, percentile
from outcome import Outcome

ROOT = Path(__file__).parent.parent.parent
sys.path.append(str(ROOT / "tests" / "python"))

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from terminal import Terminal

BRANCHES = 10_000
MIB = 1 << 20
# Some thousand items per second, for all tenants in turn, until its input ends.
JOB = """
import sys, threading, time
import anabranch as ab

tenants = [f"tenant-{n:05d}" for n in range(int(sys.argv[1]))]
ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()

def events():
    while not ended.is_set():
        for number, name in enumerate(tenants):
            if number % 20 == 0:
                time.sleep(0.001)
            yield {"tenant": name}

def handle(event):
    global left
    left -= 1
    if left == 0:
        print("ready", flush=True)

left = len(tenants)
pipeline = ab.Pipeline("ingest").source(events()).fan_out(by="tenant")
pipeline.for_each(handle, inline=True).run_blocking()
"""


@contextmanager
def directory_of_its_own() -> Generator[Path]:
    with tempfile.TemporaryDirectory(prefix="ab-") as made:
        os.environ["ANABRANCH_RUNTIME_DIR"] = f"{made}/run"
        os.environ["ANABRANCH_OBSERVE"] = "auto"
        yield Path(made, "run")


@contextmanager
def job_of(branches: int) -> Generator[subprocess.Popen[str]]:
    """Run a pipeline of so many branches in a process of its own."""
    job = subprocess.Popen(
        [sys.executable, "-c", JOB, str(branches)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert job.stdout is not None
        assert job.stdout.readline() == "ready\n"
        yield job
    finally:
        job.kill()
        job.communicate()


def _top(*options: str, size: tuple[int, int] = (120, 40)) -> Terminal:
    # Here: only these cases need the emulator.
    from terminal import Terminal

    return Terminal("top", *options, size=size)


def _milliseconds(
    seconds: list[float], bar: float, against: str, *, of: Callable[[list[float]], float] = median
) -> Outcome:
    spread, measured = Spread.of(seconds), of(seconds)
    return Outcome(
        bar=f"<= {bar * 1000:.0f} ms",
        measured=f"{measured * 1000:.1f} ms",
        spread=f"{spread.low * 1000:.1f}-{spread.high * 1000:.1f} ms",
        ours=f"{len(seconds)} times",
        against=against,
        met=measured <= bar,
        numbers={"seconds": seconds},
    )


def _frames(size: str, bar: float) -> Outcome:
    """Dashboard 4: rows sorted, a frame built and compared with the last, all numbers new."""
    command = ["cargo", "run", "--release", "--quiet", "-p", "anabranch-tui", "--example", "frames"]
    said = subprocess.run(
        [*command, "--", "--json", size], cwd=ROOT, capture_output=True, text=True, check=True
    )
    told = json.loads(said.stdout)
    seconds = [micros / 1e6 for micros in told["micros"]]
    # On a machine that does other things as well some frames wait for a core.
    spent = percentile(told["cpu"], 99) / 1000
    outcome = _milliseconds(
        seconds, bar, f"p99 at {size}; {spent:.1f} ms of a core", of=lambda it: percentile(it, 99)
    )
    outcome.numbers.update(cpu_micros=told["cpu"], resident_mib=told["resident"])
    return outcome


def rate(settings: Settings) -> Outcome:
    """Dashboard 4: frames per second with 10 000 branches that all change."""
    seconds, bar = settings.seconds(10.0), 10.0
    with directory_of_its_own(), job_of(BRANCHES), _top() as terminal:
        terminal.press("2")
        terminal.shows(f"{BRANCHES:,}/{BRANCHES:,}", "LIVE")
        terminal.wait(1.0)
        before = terminal.written.count(b"\x1b[?25l")
        terminal.wait(seconds)
        frames = terminal.written.count(b"\x1b[?25l") - before
    measured = frames / seconds
    return Outcome(
        bar=f">= {bar:.0f} Hz",
        measured=f"{measured:.1f} Hz",
        spread="",
        ours=f"{frames} frames",
        against=f"{seconds:.0f} s",
        # A tick comes every 100 ms, and the last may be just outside.
        met=measured >= bar * 0.97,
        numbers={"frames": frames, "seconds": seconds},
    )


def idle(settings: Settings) -> Outcome:
    """Dashboard 4: nothing is drawn while nothing happens."""
    seconds = settings.seconds(10.0)
    with directory_of_its_own(), _top() as terminal:
        terminal.shows("No pipelines are running here")
        terminal.wait(0.5)
        before, spent = len(terminal.written), _spent(terminal)
        terminal.wait(seconds)
        written, spent = len(terminal.written) - before, _spent(terminal) - spent
    return Outcome(
        bar="0 bytes",
        measured=f"{written} bytes",
        spread="",
        ours=f"{spent * 1000:.0f} ms of a core",
        against=f"{seconds:.0f} s",
        met=written == 0,
        numbers={"bytes": written, "cpu_seconds": spent, "seconds": seconds},
    )


def _spent(terminal: Terminal) -> float:
    fields = Path(f"/proc/{terminal.process.pid}/stat").read_text(encoding="utf-8").split()
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _through(path: Path, place: Path, begun: list[float]) -> Generator[None]:
    """Stand between the dashboard and a monitor, and note when it connects."""
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as server:
        listener.bind(str(place))
        listener.listen()
        ends: list[socket.socket] = [server]

        def serve() -> None:
            client, _ = listener.accept()
            begun.append(perf_counter())
            ends.append(client)
            server.connect(str(path))
            back = threading.Thread(target=pump, args=(client, server))
            back.start()
            pump(server, client)
            back.join()
            client.close()

        def pump(source: socket.socket, target: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while data := source.recv(1 << 18):
                    target.sendall(data)
            for end in (source, target):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            for end in ends:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            thread.join()


def _is_whole(terminal: Terminal) -> bool:
    return f"{BRANCHES:,}/{BRANCHES:,}" in terminal.text


def first_frame(settings: Settings) -> Outcome:
    """Dashboard 5: from connecting to a frame that tells of all 10 000 branches."""
    seconds = []
    with directory_of_its_own() as directory, job_of(BRANCHES):
        (path,) = directory.glob("*.sock")
        for number in range(settings.pairs):
            begun: list[float] = []
            place = directory.parent / f"{number}.sock"
            with _through(path, place, begun), _top("--connect", f"unix:{place}") as terminal:
                terminal.press("2")
                begin = perf_counter()
                shown = begin + terminal.first(_is_whole, begin)
                seconds.append(shown - begun[0])
                terminal.press("q")
                terminal.ended()
    return _milliseconds(seconds, 0.05, f"{BRANCHES:,} branches")


def shell(settings: Settings) -> Outcome:
    """Dashboard 5: from the shell to a frame that tells of a process of 10 000 branches."""
    seconds = []
    with directory_of_its_own(), job_of(BRANCHES):
        for _ in range(settings.pairs):
            begin = perf_counter()
            with _top() as terminal:
                told = terminal.first(
                    lambda it: "LIVE" in it.text and f"{BRANCHES:,}" in it.text, begin
                )
                seconds.append(told)
                terminal.press("q")
                terminal.ended()
    # The terminal is made by an interpreter that becomes the command: it is not the command's.
    start = median(_timed([sys.executable, "-c", "import fcntl, os, termios"]) for _ in range(9))
    return _milliseconds(
        [it - start for it in seconds], 0.25, f"without {start * 1000:.0f} ms of the harness"
    )


def _timed(command: list[str]) -> float:
    begin = perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return perf_counter() - begin


def listing(settings: Settings) -> Outcome:
    """Dashboard 5: `ls` of 100 processes of which 20 are dead, beyond the interpreter's start."""
    command = str(Path(sys.executable).with_name("anabranch"))
    beyond, starts = [], []
    with directory_of_its_own() as directory, ExitStack() as stack:
        directory.mkdir(mode=0o700)
        for number in range(100):
            stem = directory / f"{number + 1000}-{number:08x}"
            marker = {"name": "job", "pid": number + 1000, "start": 1, "version": "0.1.0"}
            marker |= {"proto": [1, 1], "cwd": "/"}
            stem.with_suffix(".json").write_text(json.dumps(marker), encoding="utf-8")
            stem.with_suffix(".sock").touch()
            lock = stack.enter_context(stem.with_suffix(".lock").open("w"))
            if number % 5:
                fcntl.flock(lock, fcntl.LOCK_EX)
        told = subprocess.run([command, "ls"], check=True, capture_output=True, text=True)
        assert told.stdout.count("\n") == 81, told.stdout
        for _ in range(settings.pairs):
            start = _timed([sys.executable, "-c", "pass"])
            starts.append(start)
            beyond.append(_timed([command, "ls"]) - start)
    return _milliseconds(beyond, 0.03, f"beyond {median(starts) * 1000:.0f} ms of python -c pass")


def key(settings: Settings) -> Outcome:
    """Dashboard 7: a key is answered while the target is stopped, killed, and reached again."""
    seconds: list[float] = []

    def press(terminal: Terminal) -> None:
        for _ in range(settings.pairs):
            for keys, word in ("?", "esc leaves"), ("?", "attention ("), ("7", "[7 Log]"):
                seconds.append(terminal.answer(keys, lambda it, word=word: word in it.text))
            seconds.append(terminal.answer("1", lambda it: "attention (" in it.text))

    with directory_of_its_own(), job_of(BRANCHES) as job, _top() as terminal:
        terminal.shows("LIVE", f"{BRANCHES:,}")
        os.kill(job.pid, signal.SIGSTOP)
        terminal.shows("SILENT")
        press(terminal)
        os.kill(job.pid, signal.SIGCONT)
        terminal.shows("LIVE")
        job.kill()
        terminal.shows("LOST")
        press(terminal)
    return _milliseconds(seconds, 0.05, "the slowest answer", of=max)


def memory(settings: Settings) -> Outcome:
    """Dashboard 6: what the dashboard holds at 10 000 branches, each with a history."""
    bar = 40.0
    with directory_of_its_own(), job_of(BRANCHES), _top() as terminal:
        terminal.press("2")
        terminal.shows(f"{BRANCHES:,}/{BRANCHES:,}", "LIVE")
        terminal.wait(settings.seconds(20.0))
        status = Path(f"/proc/{terminal.process.pid}/status").read_text(encoding="utf-8")
    told = dict(line.split(":", 1) for line in status.splitlines())
    resident, own = (int(told[it].split()[0]) / 1024 for it in ("VmRSS", "RssAnon"))
    return Outcome(
        bar=f"<= {bar:.0f} MiB",
        measured=f"{resident:.1f} MiB",
        spread=f"{own:.1f} MiB its own",
        ours=f"{BRANCHES:,} branches",
        against="the interpreter included",
        met=resident <= bar,
        numbers={"resident_mib": resident, "anonymous_mib": own},
    )


CASES = {
    "top-frame": lambda _: _frames("120x40", 0.005),
    "top-frame-small": lambda _: _frames("80x24", 0.005),
    "top-frame-large": lambda _: _frames("300x100", 0.01),
    "top-rate": rate,
    "top-idle": idle,
    "top-first-frame": first_frame,
    "top-shell": shell,
    "top-key": key,
    "top-memory": memory,
    "ls": listing,
}
