"""What goes wrong around a worker: crashes of servers, databases that close, cut connections.

`make trials` runs it as a script for `DISASTERS` rounds of each (10); the tests run a round or two.
Each counts from outside, in SQL, what became of the messages. Everything is drawn from `SEED`.
"""

import asyncio
import contextlib
import os
import random
import socket
import sys
import threading

import postgres
import psycopg

import anabranch as ab

PATIENCE = 60.0
OPTIONS = {"lease": 2.0, "poll": 0.1, "max_idle_poll": 0.3, "batch": 20}


class Ledger:
    """Databases with an outbox each, and what was committed to them.

    Args:
        server: Where they are.
        count: How many.
    """

    def __init__(self, server: postgres.Server, count: int) -> None:
        self._server = server
        self.names = [server.create() for _ in range(count)]
        self.written = dict.fromkeys(self.names, 0)
        self.handled: list[tuple[str, int]] = []
        # The worker's own.
        self.outboxes: dict[str, ab.Outbox] = {}
        for name in self.names:
            with ab.Outbox(server.url(name)) as outbox:
                outbox.migrate()

    def write(self, count: int) -> None:
        """Enqueue so many in each, in a transaction of the caller's own."""
        for name in self.names:
            outbox = ab.Outbox(self._server.url(name))
            with psycopg.connect(self._server.url(name)) as conn:
                first = self.written[name]
                outbox.enqueue_many(conn, [ab.Draft("mail", first + n) for n in range(count)])
            self.written[name] += count
            outbox.close()

    def counted(self) -> dict[str, tuple[int, int]]:
        """Count in SQL what is done, and what is there still."""
        counts = {}
        for name in self.names:
            with psycopg.connect(self._server.url(name)) as conn:
                query = "select coalesce(sum(count), 0) from outbox_done"
                [done] = conn.execute(query).fetchone()
                [left] = conn.execute("select count(*) from outbox_message").fetchone()
            counts[name] = (int(done), left)
        return counts

    def check(self) -> int:
        """Raise unless every message is done, once, and was handled; return how many came again."""
        for outbox in self.outboxes.values():
            outbox.close()
        counts = self.counted()
        for name, written in self.written.items():
            handled = {number for tenant, number in self.handled if tenant == name}
            if counts[name] != (written, 0) or handled != set(range(written)):
                raise AssertionError(f"{name}: {counts[name]} of {written} messages")
        return len(self.handled) - sum(self.written.values())

    def close(self) -> None:
        for name in self.names:
            self._server.drop(name)


class Proxy:
    """Passes on what comes for a port, and cuts a connection after so many bytes.

    Args:
        port: Where the server is.
        chance: What each connection's end is drawn from; None: none is cut.
    """

    def __init__(self, port: int, chance: random.Random | None) -> None:
        self._to = port
        self._chance = chance
        self.cuts = 0
        # Nothing is passed on any more, and nobody is told.
        self.silent = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._begin(self._accept)

    def _begin(self, work, *args) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._to))
                self._open += [client, server]
                # A handshake takes some hundred bytes each way.
                left = self._chance.randint(1_500, 60_000) if self._chance else None
                allowed = [left]
                self._begin(self._pass, client, server, allowed)
                self._begin(self._pass, server, client, allowed)

    def _pass(self, source, target, allowed) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(4096):
                if self.silent:
                    continue
                if allowed[0] is not None:
                    allowed[0] -= len(data)
                    if allowed[0] < 0:
                        # In the middle of whatever this is.
                        target.sendall(data[: len(data) // 2])
                        self.cuts += 1
                        break
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        # Who waits in accept() is not told of a close.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(PATIENCE)
        self._listener.close()
        for end in self._open:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        for thread in self._threads:
            thread.join(PATIENCE)


def at_work(ledger: Ledger, urls: dict[str, str]):
    """Make a worker on the databases, and something to wait for with it."""
    ledger.outboxes = {name: ab.Outbox(url) for name, url in urls.items()}
    worker = ab.OutboxWorker(ledger.outboxes, **OPTIONS)
    came = asyncio.Event()

    @worker.on("mail", retry=ab.Retry.fixed(0.05, attempts=1000, retry_on=Exception))
    async def handle(message: ab.Message) -> None:
        ledger.handled.append((message.tenant, message.payload))
        came.set()

    async def until(holds) -> None:
        async with asyncio.timeout(PATIENCE):
            while not holds():
                came.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(came.wait(), 0.2)

    return worker, until


def crashes(rounds: int, seed: int) -> str:
    """Let a server crash under load and come back, again and again."""
    chance = random.Random(seed)
    server = postgres.Server()
    try:
        ledger = Ledger(server, 2)
        worker, until = at_work(ledger, {name: server.url(name) for name in ledger.names})

        async def main() -> None:
            async with worker:
                for _ in range(rounds):
                    ledger.write(200)
                    some = len(ledger.handled) + chance.randint(1, 300)
                    await until(lambda some=some: len(ledger.handled) >= some)
                    await asyncio.to_thread(server.stop, "immediate")
                    await asyncio.to_thread(server.start)
                await until(lambda: all(left == 0 for _, left in ledger.counted().values()))

        asyncio.run(main())
        again = ledger.check()
    finally:
        server.close()
    return f"{rounds} crashes, {again} handled again"


def closes(rounds: int, seed: int) -> str:
    """Close one of four databases; the others' messages are done meanwhile, and its own later."""
    chance = random.Random(seed)
    server = postgres.server()
    ledger = Ledger(server, 4)
    worker, until = at_work(ledger, {name: server.url(name) for name in ledger.names})

    def let(name: str, *, connect: bool) -> None:
        with psycopg.connect(server.url("postgres"), autocommit=True) as conn:
            conn.execute(f"alter database {name} allow_connections {connect}")
            if not connect:
                conn.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s",
                    [name],
                )

    async def main() -> None:
        async with worker:
            for _ in range(rounds):
                ledger.write(100)
                down = chance.choice(ledger.names)
                let(down, connect=False)
                try:
                    others = {name: ledger.written[name] for name in ledger.names if name != down}
                    await until(
                        lambda others=others: all(
                            len({n for name, n in ledger.handled if name == other}) == count
                            for other, count in others.items()
                        )
                    )
                finally:
                    let(down, connect=True)
            await until(lambda: all(left == 0 for _, left in ledger.counted().values()))

    asyncio.run(main())
    again = ledger.check()
    ledger.close()
    return f"{rounds} closed, {again} handled again"


def cuts(rounds: int, seed: int) -> str:
    """Cut connections in the middle of what they carry."""
    server = postgres.server()
    ledger = Ledger(server, 2)
    proxy = Proxy(server.port, random.Random(seed))
    urls = {
        name: server.url(name).replace(f":{server.port}", f":{proxy.port}") for name in ledger.names
    }
    worker, until = at_work(ledger, urls)

    async def main() -> None:
        async with worker:
            for number in range(rounds):
                ledger.write(300)
                await until(lambda number=number: proxy.cuts > 2 * number)
            await until(lambda: all(left == 0 for _, left in ledger.counted().values()))

    try:
        asyncio.run(main())
    finally:
        proxy.close()
    again = ledger.check()
    ledger.close()
    return f"{proxy.cuts} cuts, {again} handled again"


DISASTERS = {"crashes": crashes, "closes": closes, "cuts": cuts}


def main() -> None:
    """Run all of them at length."""
    seed = int(os.environ.get("SEED", "0")) or random.randrange(2**31)
    rounds = int(os.environ.get("DISASTERS", "10"))
    sys.stdout.write(f"SEED={seed}\n")
    try:
        for name, disaster in DISASTERS.items():
            sys.stdout.write(f"{name}: {disaster(rounds, seed)}\n")
    finally:
        postgres.stop_all()


if __name__ == "__main__":
    main()
