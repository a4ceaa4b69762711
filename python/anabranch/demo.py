"""The demo: lines of many tenants from sockets to SQLite, with retries, an undo and a verdict.

A gateway and its clients run in one event loop; the windows are stored by the pipeline's threads.
One tenant is refused after each of its windows was written, so all of them are undone; some
tenants lose their connection now and then and are saved by the retry. In the end the database is
counted from outside and compared with what was sent. Meanwhile the gateway is looked at as any
other process with pipelines would be: by the dashboard where there is a terminal, else by a printed
picture.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING

import anabranch as ab
from anabranch.traffic import Entry, entries, parse, tenant_names

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    Say = Callable[[str], None]

_CONNECTIONS = 4
# Lines per write of a client; between two writes the loop is the pipeline's.
_BURST = 100
_PROGRESS = 0.5  # seconds


class Refused(Exception):
    """Raised for the tenant that fails on purpose; trying again would not help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the demo is to do.

    Attributes:
        seconds: How long the clients send.
        tenants: How many tenants there are; at least 2.
        seed: The same seed gives the same lines.
        database: The SQLite file to make; None for a temporary one.
        port: The gateway's port; 0 picks a free one.
        rate: Lines per second that are sent; None for as many as the gateway takes.
        until: A file descriptor of which the end ends the traffic, too: then somebody else shows
            how it goes, and nothing is said of it. None if nobody does.
    """

    seconds: float = 3.0
    tenants: int = 24
    seed: int = 1
    database: Path | None = None
    port: int = 0
    rate: float | None = None
    until: int | None = None


@dataclass(frozen=True, slots=True)
class Roles:
    """Who does what in the demo.

    Attributes:
        names: All tenants, the busiest first.
        failing: The one whose windows are undone.
        flaky: Those saved by the retry.
    """

    names: Sequence[str]
    failing: str
    flaky: frozenset[str]

    @classmethod
    def cast(cls, tenants: int) -> Roles:
        """Cast so many tenants."""
        names = tenant_names(tenants)
        failing = names[min(2, tenants - 1)]
        flaky = frozenset(name for name in names[::4] if name != failing)
        return cls(names, failing, flaky)


class Store:
    """The sink: each window is one transaction in the SQLite file, under a number of its own.

    Used by the threads of the pipeline's pool, each with a connection of its own.
    """

    def __init__(self, path: Path, roles: Roles) -> None:
        self._path = path
        self._roles = roles
        self._connection = ab.per_thread(self._connect)
        # `next` of a `count` is atomic; the counters below are not.
        self._numbers = count(1)
        self._lock = threading.Lock()
        self.stored: int = 0
        self.undone: int = 0
        self.reasons: Counter[str] = Counter()

    def create(self) -> None:
        """Make the table.

        Raises:
            sqlite3.Error: The file cannot be written, or is in use already.
        """
        connection = self._connection()
        connection.execute("pragma journal_mode = wal")
        # A window's rows are found again by its number, so one tenant's undo is quick, too.
        connection.executescript(
            "create table lines (number integer, tenant text, sequence integer, line text);"
            "create index lines_by_number on lines (number);"
        )

    def store(self, window: list[Entry], ctx: ab.Context) -> None:
        """Write one window; sometimes fail after having done so."""
        number = next(self._numbers)
        # First the undo, then the deed: whatever happens in between is covered.
        ctx.compensate(self._undo, number, retries=2)
        with self._connection() as connection:
            rows = [(number, *entry) for entry in window]
            written = connection.executemany("insert into lines values (?, ?, ?, ?)", rows).rowcount
        with self._lock:
            self.stored += written
            if ctx.window is not None and ctx.attempt == 1:
                self.reasons[ctx.window.reason] += 1
        if ctx.tenant == self._roles.failing:
            raise Refused(f"{ctx.tenant} is over its quota")
        if ctx.tenant in self._roles.flaky and ctx.attempt == 1 and number % 3 == 0:
            raise ConnectionError("the connection broke after the write")

    def _undo(self, number: int) -> None:
        with self._connection() as connection:
            deleted = connection.execute("delete from lines where number = ?", (number,)).rowcount
        with self._lock:
            self.stored -= deleted
            self.undone += deleted

    def close(self) -> None:
        """Close the connections of all threads."""
        self._connection.close()

    def _connect(self) -> sqlite3.Connection:
        # Closed by the main thread. Ten seconds are the busy timeout: one writer at a time.
        connection = sqlite3.connect(self._path, timeout=10.0, check_same_thread=False)
        try:
            connection.execute("pragma synchronous = normal")
        except sqlite3.Error:  # not a database
            connection.close()
            raise
        return connection


def build(store: Store, port: int) -> ab.Pipeline[None]:
    """Build the gateway."""
    retry = ab.Retry.exponential(
        attempts=4, base=0.02, cap=0.5, retry_on=(OSError, sqlite3.OperationalError)
    )
    return (
        ab.Pipeline("gateway", threads=4)
        .source(ab.tcp_lines("127.0.0.1", port, until="disconnected"))
        .map(parse)
        .fan_out(by=ab.attr("tenant"), capacity=2000)
        .window(max_items=500, max_age=0.25)
        .for_each(store.store, retry=retry)
    )


def run(options: Options, say: Say) -> bool:
    """Run the demo.

    Args:
        options: What to do.
        say: Takes each line of the output.

    Returns:
        Whether the database holds in the end what it should.

    Raises:
        OSError: The port is in use.
        sqlite3.Error: The database cannot be made.
    """
    roles = Roles.cast(options.tenants)
    with ExitStack() as stack:
        if options.database is None:
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="anabranch-demo-"))
            path, note = Path(directory, "lines.db"), " (removed at the end; --database keeps it)"
        else:
            path, note = options.database, ""
        store = stack.enter_context(closing(Store(path, roles)))
        store.create()
        pipeline = build(store, options.port)
        say(pipeline.describe())
        say(f"database {path}{note}")
        sent = asyncio.run(_main(pipeline, store, roles, options, say))
        if pipeline.last_report is not None:
            say(f"\n{pipeline.last_report}")
        reasons = ", ".join(f"{number:,} by {reason}" for reason, number in store.reasons.items())
        say(f"windows left: {reasons or 'none'}")
        return _verdict(path, roles, sent, say)


async def _main(
    pipeline: ab.Pipeline[None], store: Store, roles: Roles, options: Options, say: Say
) -> dict[str, int]:
    """Run the gateway and its clients; return how many lines each tenant has sent."""
    sent = dict.fromkeys(roles.names, 0)
    stop = asyncio.Event()
    async with pipeline.start() as running:
        host, port = running.address
        say(f"gateway  {host}:{port}, {len(roles.names)} tenants, sending {options.seconds:g} s\n")
        with _steering(running, stop, say):
            # All before the first line: the gateway ends when all have gone.
            shares = [roles.names[first::_CONNECTIONS] for first in range(_CONNECTIONS)]
            shares = [share for share in shares if share]
            writers = [(await asyncio.open_connection(host, port))[1] for _ in shares]
            loop = asyncio.get_running_loop()
            clock = loop.call_later(options.seconds, stop.set)
            pause = 0.0 if options.rate is None else _BURST * len(shares) / options.rate
            clients = [
                _send(writer, entries(share, seed=options.seed + place), sent, stop, pause)
                for place, (writer, share) in enumerate(zip(writers, shares, strict=True))
            ]
            async with _told(store, sent, options, stop, say):
                await asyncio.gather(*clients)
                clock.cancel()
                await running.wait()
    return sent


@asynccontextmanager
async def _told(
    store: Store, sent: Mapping[str, int], options: Options, stop: asyncio.Event, say: Say
) -> AsyncGenerator[None]:
    """Say how it goes meanwhile, unless somebody else shows it: they say when it is enough."""
    if options.until is not None:
        loop = asyncio.get_running_loop()
        loop.add_reader(options.until, stop.set)
        try:
            yield
        finally:
            loop.remove_reader(options.until)
        return
    progress = asyncio.create_task(_tell(store, sent, say))
    picture = asyncio.create_task(_picture(options.seconds / 2, stop, say))
    try:
        yield
        progress.cancel()
        # Of a pipeline that is over the monitor still tells.
        await picture
    finally:
        progress.cancel()
        picture.cancel()


async def _picture(seconds: float, stop: asyncio.Event, say: Say) -> None:
    """Say after some time what others see of this process, unless it has been stopped."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
            return
    options = ("--once", "--interval", "200ms", "--rows", "6")
    command = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "anabranch.cli", "top", str(os.getpid()), *options),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        told, _ = await command.communicate()
    except asyncio.CancelledError:
        command.kill()
        await command.wait()
        raise
    say(f"\n$ anabranch top {os.getpid()} {' '.join(options)}\n{told.decode().rstrip()}\n")


async def _send(
    writer: asyncio.StreamWriter,
    traffic: Iterator[Entry],
    sent: dict[str, int],
    stop: asyncio.Event,
    pause: float,
) -> None:
    """Send lines, some at once, with pauses of so many seconds, until told to stop."""
    try:
        while not stop.is_set():
            burst = list(islice(traffic, _BURST))
            writer.write(b"".join([entry.encode() for entry in burst]))
            for entry in burst:
                sent[entry.tenant] += 1
            await writer.drain()
            # `drain` does not wait where there is room.
            await asyncio.sleep(pause)
        writer.close()
        await writer.wait_closed()
    except ConnectionError:
        # The gateway has been told to end at once. What it did not take will be missed below.
        writer.close()


async def _tell(store: Store, sent: Mapping[str, int], say: Say) -> None:
    began = time.monotonic()
    while True:
        await asyncio.sleep(_PROGRESS)
        say(
            f"{time.monotonic() - began:5.1f} s  sent {sum(sent.values()):>9,}"
            f"  stored {store.stored:>9,}  undone {store.undone:>8,}"
        )


@contextmanager
def _steering(running: ab.Running[None], stop: asyncio.Event, say: Say) -> Generator[None]:
    """Let the first signal end the traffic, the second the pipeline, the third all."""
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)

    def steer() -> None:
        if not stop.is_set():
            say("stopping: what was sent will be stored (once more: roll back at once)")
            stop.set()
            return
        running.abort()
        for number in signals:
            loop.remove_signal_handler(number)

    on_main = threading.current_thread() is threading.main_thread()
    for number in signals if on_main else ():
        loop.add_signal_handler(number, steer)
    try:
        yield
    finally:
        for number in signals if on_main else ():
            loop.remove_signal_handler(number)


def _verdict(path: Path, roles: Roles, sent: Mapping[str, int], say: Say) -> bool:
    """Count the database from outside; return whether it is as it should be."""
    stored, wrong = dict.fromkeys(roles.names, 0), list[str]()
    for tenant, rows, different, last in _counted(path):
        stored[tenant] = rows
        if rows != different or last >= sent[tenant]:
            wrong.append(f"{tenant} has rows that were not sent, or not so often")
    for tenant, rows in stored.items():
        due = 0 if tenant == roles.failing else sent[tenant]
        if rows != due:
            wrong.append(f"{tenant} has {rows:,} rows instead of {due:,}")
    steady = set(roles.names) - roles.flaky - {roles.failing}
    parts: list[tuple[str, AbstractSet[str]]] = [
        (f"{roles.failing}, which fails", {roles.failing}),
        (f"{len(roles.flaky)} flaky", roles.flaky),
        (f"{len(steady)} steady", steady),
    ]
    say(f"\n{'counted in the database':<26}{'sent':>10}{'stored':>10}")
    for label, tenants in parts:
        figures = (sum(counts[tenant] for tenant in tenants) for counts in (sent, stored))
        say(f"  {label:<24}" + "".join(f"{figure:>10,}" for figure in figures))
    for problem in wrong:
        say(f"WRONG: {problem}")
    if not wrong:
        say(f"OK: every line of the others is there, once; all of {roles.failing}'s were undone")
    return not wrong


def _counted(path: Path) -> list[tuple[str, int, int, int]]:
    """Return tenant, rows, different lines and highest sequence, for each tenant with rows."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(
            "select tenant, count(*), count(distinct sequence), max(sequence)"
            " from lines group by tenant"
        ).fetchall()
