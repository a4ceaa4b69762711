"""Tenants come and go while the stream runs; one fails, and only its own rows are undone.

- `ab.fan_out` opens a channel per tenant for its first order, and tells who is to read it;
- an `ab.WaitGroup` keeps the readers: each is a child with a context of its own, so what it
  registered is undone if it fails, and nobody else's;
- `branches.drain` sends a tenant home after what it still holds; its next order brings it back;
- each order is told to an outbox as it is booked: of a tenant that fails, what nobody has begun
  with is retracted, and the rest is followed by a message that takes it back.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass

import anabranch as ab


@dataclass(frozen=True)
class Order:
    """One order."""

    tenant: str
    amount: int


class Ledger:
    """The rows that are booked now, and an outbox that tells of them."""

    def __init__(self) -> None:
        self.rows: list[Order] = []
        self.outbox = ab.Outbox.memory()

    async def book(self, order: Order, ctx: ab.Context) -> None:
        """Book an order, until it is undone."""
        if order.amount < 0:
            raise ValueError(f"{order.tenant} cannot sell")
        ctx.compensate(self.rows.remove, order)
        self.rows.append(order)
        told = self.outbox.enqueue("order.booked", asdict(order))
        ctx.compensate(self.unsay, told, order)
        await asyncio.sleep(0.01)

    def unsay(self, message: int, order: Order) -> None:
        """Take back what was told, or tell that it is so no more."""
        if not self.outbox.retract(message):
            self.outbox.enqueue("order.cancelled", asdict(order))

    def of(self, tenant: str) -> list[int]:
        """Return the amounts of a tenant."""
        return [row.amount for row in self.rows if row.tenant == tenant]


async def serve(tenant: str, orders: ab.Channel[Order], shop: Shop, ctx: ab.Context) -> None:
    """Book what comes for one tenant, as one unit of work."""
    count = 0
    try:
        async for order in orders:
            await shop.ledger.book(order, ctx)
            count += 1
    except ValueError:
        # No more of it: what still comes is refused.
        shop.branches.remove(tenant)
        raise
    print(f"{tenant} leaves after {count} orders")


class Shop:
    """A stream of orders, and those who serve it."""

    def __init__(self, orders: ab.Channel[Order]) -> None:
        self.ledger = Ledger()
        self.group = ab.WaitGroup("tenants")
        self.branches = ab.fan_out(orders, by=ab.attr("tenant"), on_new_branch=self.welcome)

    def welcome(self, tenant: str, orders: ab.Channel[Order]) -> None:
        """Begin to serve a tenant."""
        print(f"{tenant} comes")
        self.group.go(serve, tenant, orders, self, name=tenant)


async def main() -> None:
    """Send orders of three tenants, of which one goes and comes back, and one fails."""
    orders: ab.Channel[Order] = ab.Channel(100)
    shop = Shop(orders)
    try:
        async with shop.group, shop.branches as branches:
            await orders.send_many([Order("acme", 1), Order("globex", 10), Order("acme", 2)])
            await ab.delay(1.0)
            # Somebody hears of these three.
            shop.ledger.outbox.ack(shop.ledger.outbox.claim())
            branches.drain("acme")
            await ab.delay(1.0)
            await orders.send_many([Order("globex", 20), Order("hooli", 7), Order("globex", -1)])
            await ab.delay(1.0)
            await orders.send_many([Order("acme", 3), Order("globex", 30), Order("hooli", 8)])
            orders.close()
            await branches.finished()
            print("open at the end:", *sorted(branches))
    except ab.GroupFailed as failed:
        (error,) = failed.exceptions
        print(f"failed: {error}")
        print("undone:", len(ab.RollbackReport.of(error).actions), "actions")
    print("refused:", shop.branches.refused)
    for tenant in ("acme", "globex", "hooli"):
        print(f"{tenant}: {shop.ledger.of(tenant)}")
    for message in shop.ledger.outbox.messages():
        print(f"{message.topic}: {message.payload['tenant']} {message.payload['amount']}")


if __name__ == "__main__":
    ab.testing.run(main())
