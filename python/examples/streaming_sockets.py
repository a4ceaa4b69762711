"""A gateway for TCP and WebSocket clients: muted, fanned out, windowed, stored, reported on.

Events of many tenants come as JSON: over TCP, one per line, and over WebSockets, one per message.
Both become channels, and one pipeline reads them in turn:

- `ab.tcp_lines` serves TCP without a line of Python per connection; a WebSocket's messages are sent
  into an `ab.Channel`, which makes the client wait while it is full;
- `filter` asks a mute list that clients change while the stream runs;
- `fan_out` gives each tenant a branch of its own. Under load, when the store has one write at a
  time, `weight` gives those who pay three turns for one of the others;
- `window` gathers writes; `retry` tries again what the store refused, after `ctx.compensate` has
  taken out what was written of it;
- `collect_errors` counts what went wrong, and tells it in one piece, at most once a minute;
- `ab.ticker` is the heartbeat: every connected WebSocket is told what is stored.

Run it: `python streaming_sockets.py`. It plays the clients, too, and needs `websockets` from PyPI.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import TypedDict

from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, broadcast, serve

import anabranch as ab

PAYS = {"acme"}


class Event(TypedDict):
    """What the pipeline carries."""

    tenant: str
    number: int


class Store:
    """A store that is away at first, and busy until the rush is there."""

    def __init__(self) -> None:
        self.rows: Counter[str] = Counter()
        self.order: list[str] = []
        self.open = asyncio.Event()
        self._refusals = 2

    async def write(self, batch: list[Event], ctx: ab.Context) -> None:
        """Write a batch; one that is refused half-way is taken out again."""
        await self.open.wait()
        tenant = batch[0]["tenant"]
        for event in batch:
            ctx.compensate(self.rows.subtract, [tenant])
            self.rows[tenant] += 1
            if event == {"tenant": "globex", "number": 575} and self._refusals > 0:
                self._refusals -= 1
                raise ConnectionError("the store is away")
        self.order += [tenant] * len(batch)


class Gateway:
    """Two servers, and the pipeline behind them."""

    def __init__(self) -> None:
        self.store = Store()
        self.muted: set[str] = set()
        self.came = 0
        self.sockets: set[ServerConnection] = set()
        self.lines: ab.Channel[str] = ab.Channel(100, name="tcp")
        self.messages: ab.Channel[str] = ab.Channel(100, name="websocket")
        self.tcp = ab.Pipeline("tcp").source(ab.tcp_lines("127.0.0.1", 0)).to_channel(self.lines)
        self.pipeline = (
            ab.Pipeline("gateway", max_in_flight=1)  # as many writes as the store bears
            .merge([self.lines, self.messages])
            .tap(self.count)
            .map(self.parse)
            .filter(lambda event: event["tenant"] not in self.muted)
            .fan_out(by="tenant", weight=lambda tenant: 3 if tenant in PAYS else 1)
            .window(max_items=50, max_age=30.0)
            .for_each(self.store.write, retry=ab.Retry.fixed(0.01, retry_on=ConnectionError))
            .collect_errors(every=60.0, to=self.tell)
        )

    def count(self, _text: str) -> None:
        """Open the store once the rush is there: from then on it has more to do than it can."""
        self.came += 1
        if self.came == RUSH:
            self.store.open.set()

    def parse(self, text: str) -> Event:
        """Read an event."""
        event: Event = json.loads(text)
        return event

    def tell(self, errors: ab.ErrorSummary) -> None:
        """Tell what went wrong."""
        print("errors:", dict(errors.codes))

    async def converse(self, socket: ServerConnection) -> None:
        """Take what one WebSocket says: events, and whom to mute."""
        self.sockets.add(socket)
        try:
            async for message in socket:
                text = str(message)
                if text.startswith("mute "):
                    self.muted.add(text.removeprefix("mute "))
                else:
                    await self.messages.send(text)
        finally:
            self.sockets.discard(socket)

    async def beat(self) -> None:
        """Tell every WebSocket what is stored, twenty times a second."""
        async for tick in ab.ticker(0.05):
            said = {"beat": tick.number, "stored": +self.store.rows}
            broadcast(self.sockets, json.dumps(said))


def events(tenant: str, count: int) -> list[str]:
    """Return so many events of a tenant."""
    return [json.dumps({"tenant": tenant, "number": number}) for number in range(count)]


OVER_TCP = events("globex", 600)
OVER_WEB = [*events("spam", 100), "{nonsense", "[again", *events("acme", 600)]
RUSH = len(OVER_TCP) + len(OVER_WEB)


async def tcp_client(host: str, port: int) -> None:
    """Send all at once, and wait until the gateway has read it."""
    reader, writer = await asyncio.open_connection(host, port)
    writer.writelines(f"{line}\n".encode() for line in OVER_TCP)
    writer.write_eof()
    await reader.read()
    writer.close()
    await writer.wait_closed()


async def web_client(host: str, port: int) -> None:
    """Mute a tenant, send all, and listen until the heartbeat says that it is stored."""
    async with connect(f"ws://{host}:{port}") as socket:
        await socket.send("mute spam")
        for message in OVER_WEB:
            await socket.send(message)
        async for heartbeat in socket:
            if json.loads(heartbeat)["stored"].get("acme") == 600:
                print("the heartbeat tells that all of acme's is stored")
                return


async def main() -> None:
    """Play both sides."""
    gateway = Gateway()
    async with gateway.pipeline.start() as running, asyncio.TaskGroup() as group:
        beating = group.create_task(gateway.beat())
        async with (
            gateway.tcp.start() as tcp,
            serve(gateway.converse, "127.0.0.1", 0) as web,
            asyncio.TaskGroup() as clients,
        ):
            clients.create_task(tcp_client(*tcp.address))
            clients.create_task(web_client(*web.sockets[0].getsockname()[:2]))
        # The TCP server has drained, and closed its channel; nobody speaks to the other one.
        gateway.messages.close()
        report = await running.wait()
        beating.cancel()
    store = gateway.store
    print("stored:", dict(sorted(store.rows.items())))
    print("muted:", report.filtered, "retried:", report.retried, "balanced:", report.balanced)
    before = store.order[: len(store.order) - store.order[::-1].index("acme")].count("globex")
    print("when all of acme's was stored, so much of globex's was not:", 600 - before)


if __name__ == "__main__":
    asyncio.run(main())
