"""Workers that are killed at random moments, and who counts from outside, in SQL, what is left.

`make trials` runs it as a script, on SQLite and PostgreSQL, for `KILLS` kills (60) of 4 workers on
4 tenants' databases; the tests run it with fewer. A worker is this file, too: it handles messages,
notes each handling, and has an effect that must happen once. Everything is drawn from `SEED`.
"""

import contextlib
import os
import queue
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import anabranch as ab

LEASE = 1.0
PATIENCE = 60.0
SCHEMA = (
    "create table handled (number integer, worker integer)",
    "create table effects (number integer)",
)


def connected(url: str):
    """Connect to a tenant's database, as a handler of its owner would."""
    if url.startswith("sqlite"):
        return sqlite3.connect(url.removeprefix("sqlite:///"), timeout=PATIENCE)
    import psycopg

    return psycopg.connect(url)


def work(urls: list[str]) -> None:
    """Be a worker, until killed; each message that is handled is a line on the standard output."""
    stores = {str(n): ab.Outbox(url) for n, url in enumerate(urls)}
    worker = ab.OutboxWorker(stores, lease=LEASE, batch=20, poll=0.2, max_idle_poll=0.5)
    retry = ab.Retry.fixed(0.1, attempts=10_000, retry_on=Exception)

    @worker.on("mail", concurrency=2, retry=retry)
    def handle(message):
        number = int(message.payload)
        with contextlib.closing(connected(urls[int(message.tenant)])) as conn:
            conn.execute(f"insert into handled values ({number}, {os.getpid()})")
            conn.commit()
            if not stores[message.tenant].seen(conn, message):
                conn.execute(f"insert into effects values ({number})")
            conn.commit()
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()

    worker.run_blocking()


class Killing:
    """Workers on some databases, and those who kill them.

    Args:
        urls: The tenants' databases; their outboxes are made.
        messages: How many each of them gets.
        workers: How many are alive at a time.
        seed: What chance is drawn from.
    """

    def __init__(self, urls: list[str], *, messages: int, workers: int, seed: int) -> None:
        self._urls = urls
        self._messages = messages
        self._chance = random.Random(seed)
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._alive: list[subprocess.Popen[str]] = []
        self._threads: list[threading.Thread] = []
        self.kills = 0
        for url in urls:
            with ab.Outbox(url) as outbox:
                outbox.migrate()
                outbox.enqueue_many([ab.Draft("mail", str(n)) for n in range(messages)])
            with contextlib.closing(connected(url)) as conn, conn:
                for statement in SCHEMA:
                    conn.execute(statement)
        for _ in range(workers):
            self._spawn()

    def _spawn(self) -> None:
        process = subprocess.Popen(
            [sys.executable, __file__, "work", *self._urls], stdout=subprocess.PIPE, text=True
        )
        thread = threading.Thread(target=self._read, args=(process,))
        thread.start()
        self._alive.append(process)
        self._threads.append(thread)

    def _read(self, process) -> None:
        for line in process.stdout:
            self._lines.put(line)

    def kill(self) -> None:
        """Kill one of them when some messages more are handled, and begin another."""
        for _ in range(self._chance.randint(1, 10)):
            self._wait()
        process = self._alive.pop(self._chance.randrange(len(self._alive)))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        self.kills += 1
        self._spawn()

    def _wait(self) -> None:
        """Wait until one message more is handled, or all are done."""
        begun = time.monotonic()
        while self.left():
            with contextlib.suppress(queue.Empty):
                self._lines.get(timeout=0.2)
                return
            if any(process.poll() is not None for process in self._alive):
                raise AssertionError("a worker has ended by itself: see what it said")
            if time.monotonic() - begun > PATIENCE:
                raise TimeoutError(f"{self.left()} messages are left")

    def left(self) -> int:
        """Count the messages that are not done yet."""
        left = 0
        for url in self._urls:
            with contextlib.closing(connected(url)) as conn:
                [(count,)] = conn.execute("select count(*) from outbox_message").fetchall()
                left += count
        return left

    def until_done(self) -> float:
        """Wait until all is done; return the seconds that took."""
        begun = time.monotonic()
        while self.left():
            self._wait()
        return time.monotonic() - begun

    def counted(self) -> list[tuple[int, int, int, int]]:
        """Count of each database: done, handlings, messages with an effect, and effects."""
        counts = []
        for url in self._urls:
            with contextlib.closing(connected(url)) as conn:
                rows = [
                    conn.execute(query).fetchone()[0]
                    for query in (
                        "select sum(count) from outbox_done",
                        "select count(*) from handled",
                        "select count(distinct number) from effects",
                        "select count(*) from effects",
                    )
                ]
            counts.append(tuple(int(row) for row in rows))
        return counts

    def close(self) -> None:
        for process in self._alive:
            process.kill()
            process.wait()
        for thread in self._threads:
            thread.join()
        for process in self._alive:
            process.stdout.close()


def trial(urls: list[str], *, messages: int, workers: int, kills: int, seed: int) -> str:
    """Kill so many, and raise unless every message is done, with one effect."""
    with contextlib.closing(
        Killing(urls, messages=messages, workers=workers, seed=seed)
    ) as killing:
        for _ in range(kills):
            if not killing.left():
                break
            killing.kill()
        took = killing.until_done()
        counts = killing.counted()
    twice = 0
    for done, handled, distinct, effects in counts:
        if (done, distinct, effects) != (messages, messages, messages) or handled < messages:
            raise AssertionError(f"{counts} of {messages} messages (SEED={seed})")
        twice += handled - messages
    total = messages * len(urls)
    return (
        f"{total} messages, {killing.kills} kills, {twice} handled again; all done {took:.1f} s "
        f"after the last kill (lease {LEASE:g} s)"
    )


def main() -> None:
    """Run the trial on both databases."""
    import postgres

    seed = int(os.environ.get("SEED", "0")) or random.randrange(2**31)
    kills = int(os.environ.get("KILLS", "60"))
    sys.stdout.write(f"SEED={seed}\n")
    options = {"messages": 20 * kills, "workers": 4, "kills": kills, "seed": seed}
    with tempfile.TemporaryDirectory() as folder:
        urls = [f"sqlite:///{Path(folder)}/{n}.db" for n in range(4)]
        sys.stdout.write(f"sqlite: {trial(urls, **options)}\n")
    server = postgres.server()
    try:
        urls = [server.url(server.create()) for _ in range(4)]
        sys.stdout.write(f"postgres: {trial(urls, **options)}\n")
    finally:
        postgres.stop_all()


if __name__ == "__main__":
    if sys.argv[1:2] == ["work"]:
        work(sys.argv[2:])
    else:
        main()
