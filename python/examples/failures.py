"""Failures are items: recover some, look at others, keep the rest, and bring a failed tenant back.

Run it: `python failures.py`. Orders of three tenants come as lines. Broken lines are counted,
prices without a currency are recovered, what cannot be stored goes to a file of dead letters. One
tenant's store is out of order until somebody repairs it and restarts the tenant's branch.
"""

import asyncio
import json
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypedDict

import anabranch as ab


class Order(TypedDict):
    """What the pipeline carries."""

    tenant: str
    id: int
    price: str


class Store:
    """Stands for a database per tenant; that of hooli is out of order at first."""

    def __init__(self) -> None:
        self.rows: dict[int, Order] = {}
        self.broken = {"hooli"}

    async def write(self, order: Order) -> None:
        """Write one order."""
        if order["tenant"] in self.broken:
            raise ConnectionError(f"the store of {order['tenant']} is out of order")
        self.rows[order["id"]] = order


def parse(line: str) -> Order:
    order: Order = json.loads(line)
    if " " not in order["price"]:
        raise LookupError("no currency")
    return order


def in_euros(failure: ab.Failure) -> Order:
    """Make an order of a line whose price has no currency."""
    order: Order = json.loads(str(failure.item))
    return {**order, "price": order["price"] + " EUR"}


def line(number: int, tenant: str) -> str:
    """Make an order as it comes: some broken, some without a currency."""
    if number % 10 == 3:
        return "what?"
    price = "7" if number % 10 == 4 else "9 EUR"
    return json.dumps({"tenant": tenant, "id": number, "price": price})


async def main() -> None:
    """Run it."""
    store, seen = Store(), Counter[str]()
    failed, repaired = asyncio.Event(), asyncio.Event()
    letters = Path(tempfile.mkdtemp()) / "letters.jsonl"

    async def lines() -> AsyncIterator[str]:
        for number in range(30):
            yield line(number, ["acme", "globex", "hooli"][number % 3])
        # The second half comes when the branch has been restarted.
        await repaired.wait()
        for number in range(30, 60):
            yield line(number, ["acme", "globex", "hooli"][number % 3])

    def look(failure: ab.Failure) -> None:
        seen[failure.code] += failure.items
        if failure.code == "branch.failed":
            failed.set()

    pipeline = (
        ab.Pipeline("failures")
        .source(lines())
        .map(parse)
        .recover(in_euros, types=LookupError)
        .collect_errors(name="broken lines")
        .fan_out(by="tenant", on_branch_error=ab.fail(after=3))
        .for_each(store.write, on_error="continue")
        .tap_error(look)
        .dead_letter(letters, types=(ConnectionError, ValueError))
    )
    async with pipeline.start() as running:
        await failed.wait()
        branch = running.branch("hooli")
        print(f"hooli is {branch.state} after {seen['ConnectionError']} failures in a row")
        store.broken.clear()
        branch.restart()
        # It opens once the failures of what came before have been heard.
        while branch.state != "open":  # noqa: ASYNC110 - branches set no events
            await asyncio.sleep(0.001)
        repaired.set()
        report = await running.wait()

    print(report)
    print("broken lines:", dict(report.errors["broken lines"].codes))
    print("dead letters:", len(letters.read_text(encoding="utf-8").splitlines()))
    print("stored:", dict(sorted(Counter(row["tenant"] for row in store.rows.values()).items())))


if __name__ == "__main__":
    asyncio.run(main())
