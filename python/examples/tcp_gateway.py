"""A TCP gateway beside other work of the same event loop, into SQLite.

Run it: `python tcp_gateway.py`. Three clients send lines of their tenants, one of them nonsense,
too; when they have gone the gateway is drained. A real one would leave out `clients` and wait for
`running.wait()`: SIGTERM drains it, too.
"""

import asyncio
import sqlite3
import tempfile
from contextlib import closing
from itertools import islice
from pathlib import Path

import anabranch as ab
from anabranch.traffic import Entry, entries, parse


def build(connection: ab.PerThread[sqlite3.Connection]) -> ab.Pipeline[None]:
    # A `def` sink runs on the pipeline's threads, each of which has a connection of its own.
    def store(window: list[Entry], ctx: ab.Context) -> None:
        with connection() as own:
            own.executemany("insert into lines values (?, ?, ?)", window)
        if ctx.window is not None:
            print(f"{ctx.tenant}: {ctx.window.items} lines stored, by {ctx.window.reason}")

    retry = ab.Retry.exponential(attempts=5, base=0.05, retry_on=sqlite3.OperationalError)
    return (
        ab.Pipeline("gateway")
        .source(ab.tcp_lines("127.0.0.1", 0, max_line=4096, idle_timeout=60.0))
        .map(parse)
        .fan_out(by=ab.attr("tenant"))
        .window(max_items=1000, max_age=0.5)
        .for_each(store, retry=retry)
    )


async def client(host: str, port: int, tenant: str, lines: int) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    for entry in islice(entries([tenant]), lines):
        writer.write(entry.encode())
        await writer.drain()
    if tenant == "acme":
        writer.write(b"what is this?\n")
    # The gateway closes its side when it has read ours to the end.
    writer.write_eof()
    await reader.read()
    writer.close()
    await writer.wait_closed()


def connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=10.0, check_same_thread=False)
    connection.execute("pragma journal_mode = wal")
    connection.execute("create table if not exists lines (tenant, sequence, line)")
    return connection


async def main(path: Path) -> None:
    with ab.per_thread(lambda: connect(path)) as connection:
        async with build(connection).start() as running:
            host, port = running.address
            print(f"listening on {host}:{port}")
            tenants = {"acme": 2500, "globex": 1200, "initech": 10}
            await asyncio.gather(
                *(client(host, port, tenant, lines) for tenant, lines in tenants.items())
            )
        # Leaving the block has drained the pipeline.
        print(f"\n{running.report}")
    with closing(sqlite3.connect(path)) as database:
        stored = dict(database.execute("select tenant, count(*) from lines group by tenant"))
    print(f"\nin the database: {stored}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(main(Path(directory, "lines.db")))
