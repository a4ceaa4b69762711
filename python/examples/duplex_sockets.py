"""Requests and replies over one connection: correlated by number, and sent again when it breaks.

A price service answers on the same socket it is asked on, each question when it is ready, and hangs
up now and then in the middle of a reply. Two pipelines share the connection:

- "replies" reads it. Its source is an async generator that connects, under `ab.retry`, and yields
  lines until the connection is lost; then it connects again, and sends again whatever has no reply.
  A pipeline ends a generator on every way out, so nothing is left open;
- "questions" asks: a `map` with `concurrency` has many questions under way, and gives the answers
  in the order of the questions, in whatever order the replies came. What gets no reply in time has
  failed, and `ctx.compensate` forgets it, so that it is not sent again for ever;
- the number of a question is also its idempotency token: the service may hear it twice, and counts
  it once.

A feed that is only listened to needs none of this: `ab.tcp_client` connects again by itself.

Run it: `python duplex_sockets.py`.
"""

from __future__ import annotations

import asyncio
import json
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, TypedDict

import anabranch as ab

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LOST = (ConnectionError, asyncio.IncompleteReadError)


class Reply(TypedDict):
    """What the service says."""

    number: int
    price: int


class Service:
    """Takes its time for each answer, and hangs up after every so many."""

    def __init__(self, *, hangs_up_after: int) -> None:
        self.heard: list[int] = []
        self.counted: set[int] = set()
        self.connections = 0
        self._patience = hangs_up_after

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self.connections += 1
        left = self._patience

        async def answer(number: int, title: str) -> None:
            nonlocal left
            await asyncio.sleep(0.002 * (number % 3))
            if title == "Unwritten":
                return  # no reply, ever
            reply = Reply(number=number, price=len(title))
            if left > 0:
                writer.write(f"{json.dumps(reply)}\n".encode())
            left -= 1
            if left == 0:
                writer.write(b'{"number": ')  # in the middle of a reply
                writer.close()

        async with asyncio.TaskGroup() as answers:
            while line := await reader.readline():
                question = json.loads(line)
                self.heard.append(question["number"])
                self.counted.add(question["number"])
                answers.create_task(answer(**question))
        writer.close()


class Connection:
    """The client's end: what was asked, and who waits for it."""

    def __init__(self, host: str, port: int) -> None:
        self._open = partial(asyncio.open_connection, host, port)
        self._numbers = count(1)
        self._writer: asyncio.StreamWriter | None = None
        self.pending: dict[int, tuple[bytes, asyncio.Future[int]]] = {}

    async def ask(self, title: str, ctx: ab.Context) -> tuple[str, int]:
        """Ask, and wait for the reply, however often the connection breaks meanwhile."""
        number = next(self._numbers)
        line = f"{json.dumps({'number': number, 'title': title})}\n".encode()
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        ctx.compensate(self.pending.pop, number, None)
        self.pending[number] = (line, answer)
        if self._writer is not None:
            self._writer.write(line)
        return title, await answer

    async def replies(self) -> AsyncIterator[bytes]:
        """Yield what the service says, connection after connection."""
        patience = ab.Retry.exponential(attempts=100, base=0.01, cap=1.0, retry_on=OSError)
        while True:
            reader, writer = await ab.retry(self._open, patience)
            # What has no reply may not have been heard.
            writer.writelines(line for line, _ in self.pending.values())
            self._writer = writer
            try:
                while True:
                    yield await reader.readuntil(b"\n")
            except LOST as lost:
                print("lost:", type(lost).__name__)
            finally:
                self._writer = None
                writer.close()

    def settle(self, reply: Reply) -> None:
        """Hand a reply to who waits for it; a second one finds nobody."""
        _, answer = self.pending.pop(reply["number"], (b"", None))
        if answer is not None and not answer.done():
            answer.set_result(reply["price"])


def parse(line: bytes) -> Reply:
    """Read a reply."""
    reply: Reply = json.loads(line)
    return reply


async def main() -> None:
    """Ask forty questions, of which one is never answered."""
    service = Service(hangs_up_after=15)
    async with await asyncio.start_server(service.serve, "127.0.0.1", 0) as server:
        connection = Connection(*server.sockets[0].getsockname())
        replies = (
            ab.Pipeline("replies")
            .source(connection.replies())
            .map(parse)
            .for_each(connection.settle, inline=True)
        )
        titles = ["x" * n for n in range(1, 40)] + ["Unwritten"]
        questions = (
            ab.Pipeline("questions")
            .source(titles)
            .map(connection.ask, concurrency=8, timeout=2.0)
            .collect()
        )
        async with replies.start():
            report = await questions.run()
    print("answered:", len(report.items), "in order:", report.items == list(prices(titles[:-1])))
    print("not answered:", dict(report.codes), "still pending:", len(connection.pending))
    print("connections:", service.connections)
    print("asked again:", len(service.heard) > len(titles), "counted:", len(service.counted))


def prices(titles: list[str]) -> list[tuple[str, int]]:
    """Return what the right answers are."""
    return [(title, len(title)) for title in titles]


if __name__ == "__main__":
    # In virtual time nobody waits for the timeout; `asyncio.run(main())` does it for real.
    ab.testing.run(main())
