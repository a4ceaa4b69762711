"""The hand-written line server: an asyncio protocol that splits, parses and counts in place."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from data import parse

if TYPE_CHECKING:
    from collections.abc import Callable

    from data import Event


class Lines(asyncio.Protocol):
    """One connection. Keeps the tail of the last packet, counts its connection in and out."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection in."""
        del transport
        self._server.open += 1

    def data_received(self, data: bytes) -> None:
        """Hand every whole line to the sink."""
        *lines, self._tail = (self._tail + data).split(b"\n")
        sink = self._server.sink
        for line in lines:
            sink(parse(line.decode()))

    def connection_lost(self, exc: Exception | None) -> None:
        """Count the connection out; the last one ends the job."""
        del exc
        self._server.open -= 1
        if not self._server.open:
            self._server.done.set()


class Server:
    """What the connections share."""

    def __init__(self, sink: Callable[[Event], object]) -> None:
        self.sink = sink
        self.open = 0
        self.done = asyncio.Event()


async def run(sink: Callable[[Event], object], connect: Callable[[int], object]) -> None:
    """Serve on a free loopback port, tell it to `connect`, end when all clients have gone."""
    server = Server(sink)
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(lambda: Lines(server), "127.0.0.1", 0)
    async with listener:
        connect(listener.sockets[0].getsockname()[1])
        await server.done.wait()
