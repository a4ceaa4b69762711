"""Five customers with a database each, one billing handler for all; a sixth comes meanwhile.

- Each customer's orders, and the messages that tell of them, are in that customer's own database,
  written in one transaction. A table says which customers there are, and where.
- One worker bills the orders of all of them, from several databases at a time. Hooli floods it with
  orders; the others are billed nevertheless, for customers take turns.
- The database of Globex is not there at first: its orders wait, nobody else's do.
- Umbrella becomes a customer while the worker runs: its row in the table is all that takes. Its
  orders are billed a moment later.
- Initech ends its contract. Its row is disabled: what it orders from then on stays where it is.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections import Counter
from contextlib import closing
from pathlib import Path

import anabranch as ab

CUSTOMERS = ("acme", "globex", "hooli", "initech", "stark")
REGISTRY = """
create table outbox_tenant (
  tenant text primary key, url text not null, schema text,
  enabled boolean not null default true, weight real not null default 1
)
"""


class Shop:
    """What the application has: the customers' databases, and the table of customers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.registry = f"sqlite:///{folder}/registry.db"
        self.execute("registry", REGISTRY)
        self.router = ab.OutboxRouter.table(self.registry)

    def execute(self, database: str, sql: str, *values: object) -> None:
        """Run one statement in one of the databases."""
        with closing(sqlite3.connect(self.folder / f"{database}.db")) as conn, conn:
            conn.execute(sql, values)

    def register(self, customer: str) -> None:
        """Write a customer into the table."""
        place = f"sqlite:///{self.folder}/{customer}.db"
        new = "insert into outbox_tenant (tenant, url) values (?, ?)"
        self.execute("registry", new, customer, place)

    def found(self, customer: str) -> None:
        """Make a customer's database: its orders, and its outbox."""
        self.execute(customer, "create table orders (id integer primary key, amount integer)")
        self.router.outbox(customer).migrate()

    def order(self, customer: str, *amounts: int) -> None:
        """Write orders and their messages, in one transaction of the customer's database."""
        outbox = self.router.outbox(customer)
        with closing(sqlite3.connect(self.folder / f"{customer}.db")) as conn, conn:
            for amount in amounts:
                conn.execute("insert into orders (amount) values (?)", (amount,))
                outbox.enqueue(conn, "order.created", {"amount": amount})


class Billing:
    """One handler, for the orders of all customers."""

    def __init__(self, worker: ab.OutboxWorker) -> None:
        self.billed: Counter[str] = Counter()
        self.order: list[str] = []
        self.changed = asyncio.Event()
        worker.on("order.*")(self.bill)

    async def bill(self, message: ab.Message) -> None:
        """Bill one order; `message.tenant` says whose it is."""
        self.billed[message.tenant] += message.payload["amount"]
        self.order.append(message.tenant)
        self.changed.set()

    async def until(self, **amounts: int) -> None:
        """Wait until so much was billed."""
        while any(self.billed[customer] < amount for customer, amount in amounts.items()):
            self.changed.clear()
            await self.changed.wait()


async def work(shop: Shop) -> None:
    """Bill what is ordered, while customers come and go."""
    worker = ab.OutboxWorker(shop.router, name="billing", parallel=2, batch=20)
    billing = Billing(worker)
    async with worker:
        await billing.until(acme=10, stark=30, initech=60)
        first = [customer for customer in billing.order[:200] if customer != "hooli"]
        print(f"{len(set(first))} customers are billed while hooli's 500 orders are")

        shop.found("globex")
        shop.order("globex", 7)
        await billing.until(globex=7, hooli=500)
        print("globex is billed once its database is there")

        shop.register("umbrella")
        shop.found("umbrella")
        shop.order("umbrella", 40, 2)
        shop.router.refresh()  # at once; without it within 30 seconds
        await billing.until(umbrella=42)
        print("umbrella, the sixth customer, is billed")

        ended = "update outbox_tenant set enabled = false where tenant = ?"
        shop.execute("registry", ended, "initech")
        shop.router.refresh()
        shop.order("initech", 1000)
        shop.order("acme", 5)
        await billing.until(acme=15)
    for customer in sorted(billing.billed):
        print(f"{customer}: {billing.billed[customer]}")
    print("initech's outbox:", shop.router.outbox("initech").counts())


def main() -> None:
    """Set the shop up, and let the worker work."""
    with tempfile.TemporaryDirectory() as folder:
        shop = Shop(Path(folder))
        with shop.router:
            for customer in CUSTOMERS:
                shop.register(customer)
                if customer != "globex":
                    shop.found(customer)
            shop.order("hooli", *[1] * 500)
            shop.order("acme", 10)
            shop.order("initech", 20, 40)
            shop.order("stark", 30)
            asyncio.run(work(shop))


if __name__ == "__main__":
    main()
