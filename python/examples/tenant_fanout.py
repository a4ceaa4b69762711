"""Fan out per tenant, gather windows, store each with retry, and undo what failed.

Run it: `python tenant_fanout.py`. Events of four tenants go to a repository that stands for your
database. Now and then it is away, which the retry gets over; it is full for one tenant, whose
batches are undone while the others go on.
"""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Iterator
from typing import TypedDict

import anabranch as ab


class Event(TypedDict):
    """What the pipeline carries."""

    tenant: str
    id: int
    value: float


class Repository:
    """Stands for a database; it needs a moment for each call."""

    def __init__(self) -> None:
        self.rows: dict[int, Event] = {}
        self._chance = random.Random(7)

    async def write_batch(self, batch: list[Event]) -> None:
        """Write all of them, and fail now and then."""
        for event in batch:
            self.rows[event["id"]] = event
        await asyncio.sleep(0.002)
        if self._chance.random() < 0.2:
            raise ConnectionError("the database is away")
        if any(event["tenant"] == "initech" for event in batch):
            raise PermissionError("initech has no space left")

    async def delete_batch(self, ids: list[int]) -> None:
        """Delete those that are there."""
        await asyncio.sleep(0.001)
        for number in ids:
            self.rows.pop(number, None)


def make_lines(count: int) -> Iterator[str]:
    """Make lines as they would come from a file or a socket; some of them are broken."""
    chance = random.Random(1)
    for number in range(count):
        tenant = chance.choice(["acme", "globex", "initech", "hooli"])
        line = json.dumps({"tenant": tenant, "id": number, "value": chance.random()})
        yield line if number % 1000 else line[:-1]


def parse(line: str) -> Event:
    event: Event = json.loads(line)
    return event


def build(repository: Repository) -> ab.Pipeline[None]:
    muted = {"hooli"}

    async def store(batch: list[Event], ctx: ab.Context) -> None:
        # Runs only if this batch fails: first the undo, then the deed.
        ctx.compensate(repository.delete_batch, [event["id"] for event in batch])
        await repository.write_batch(batch)

    retry = ab.Retry.exponential(attempts=5, base=0.01, seed=3, retry_on=ConnectionError)
    return (
        ab.Pipeline("ingest")
        .source(make_lines(20_000))
        .map(parse)  # an exception becomes a failure item
        .filter(lambda event: event["tenant"] not in muted)
        .fan_out(by="tenant", capacity=1000)  # one bounded branch per tenant
        .window(max_items=500, max_age=1.0)
        .for_each(store, retry=retry)
    )


async def main() -> None:
    repository = Repository()
    pipeline = build(repository)
    print(pipeline.describe())
    report = await pipeline.run()
    print(f"\n{report}")
    stored = Counter(event["tenant"] for event in repository.rows.values())
    print(f"\nin the repository: {dict(sorted(stored.items()))}")


if __name__ == "__main__":
    asyncio.run(main())
