"""Batches of 500 lines, or of what has come within two seconds, written in whole or not at all.

Two shops send orders: the market all day long, the corner shop now and then. One insert per order
would be slow, so orders are gathered; but nobody waits for a full batch longer than two seconds.

- `window(max_items=500, max_age=2.0)` cuts at 500 items, or two seconds after the first of them
  came, whichever is earlier; `ctx.window.reason` tells which it was;
- each shop has its windows to itself: the market's flood does not hurry the corner shop's;
- a batch that fails is rolled back: `ctx.compensate` takes out the rows that were written, before
  each further attempt, and for good where there is none;
- all of it is in virtual time, so the figures are the same each time; `asyncio.run(main())` does it
  for real, in eight seconds.

Run it: `python batching_windows.py`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anabranch as ab

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@dataclass(frozen=True)
class Order:
    """One order."""

    shop: str
    number: int


async def orders() -> AsyncIterator[Order]:
    """1200 orders of the market at once, and one of the corner shop each 1.5 seconds."""
    for number in range(1200):
        yield Order("market", number)
    for number in range(5):
        yield Order("corner", number)
        await asyncio.sleep(1.5)


class Table:
    """A table that takes rows one by one, and fails at some."""

    def __init__(self) -> None:
        self.rows: set[Order] = set()
        self.cleared = 0
        self._away = True

    async def insert(self, batch: list[Order]) -> None:
        """Insert a batch; what is in before it fails stays in."""
        for order in batch:
            if order == Order("market", 750) and self._away:
                self._away = False
                raise ConnectionError("the table is away in the middle of a batch")
            if order == Order("corner", 3):
                raise PermissionError("the corner shop has no space left")
            self.rows.add(order)

    def clear(self, batch: list[Order]) -> None:
        """Take out whatever is in of a batch."""
        self.cleared += len(self.rows.intersection(batch))
        self.rows.difference_update(batch)


def build(table: Table) -> ab.Pipeline[None]:
    """Build the pipeline."""

    async def store(batch: list[Order], ctx: ab.Context) -> None:
        ctx.compensate(table.clear, batch)  # first the undo, then the deed
        await table.insert(batch)
        assert ctx.window is not None
        at = asyncio.get_running_loop().time()
        print(f"{at:.2f} s  {ctx.tenant}: {len(batch)} by {ctx.window.reason}")

    return (
        ab.Pipeline("batches")
        .source(orders())
        .fan_out(by=ab.attr("shop"))
        .window(max_items=500, max_age=2.0)
        .for_each(store, retry=ab.Retry.fixed(0.25, attempts=2, retry_on=ConnectionError))
    )


async def main() -> None:
    """Store all that can be stored."""
    table = Table()
    report = await build(table).run()
    stored = Counter(order.shop for order in table.rows)
    print("stored:", dict(sorted(stored.items())))
    print("taken out again:", table.cleared)
    print("failed:", report.failed, dict(report.codes))
    print("retried:", report.retried, "balanced:", report.balanced)


if __name__ == "__main__":
    ab.testing.run(main())
