"""Three transports lead to one handler; what it did is committed or undone item by item.

Each order takes a lease, publishes an event, and is stored. Some fail after the event and before
the end: their event is withdrawn and their lease stays, for whoever tries again. What comes twice
is known by its token, and not stored twice.

- `ab.fan_in` has one order of each transport in hand at a time, and keeps the order per transport;
- `ab.Source` tells a transport: `ack` after the commit, `nack` after the rollback;
- the first error ends a fan-in; what is to go on sets its failures aside, here those of a call by
  hand, `ab.timeout`, which are undone before they are told.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from functools import partial

import anabranch as ab

MANY = 2_000


@dataclass(frozen=True)
class Order:
    """One order; its token is the same however often it comes."""

    token: str
    broken: bool = False


class Shop:
    """Leases, events and rows."""

    def __init__(self) -> None:
        self.leases: set[str] = set()
        self.events: list[str] = []
        self.rows: dict[str, str] = {}
        self.told: Counter[str] = Counter()
        self.scope = ab.CompensationScope()

    async def handle(self, order: Order, ctx: ab.Context) -> None:
        """Handle one order, all of it or nothing."""
        if order.token in self.rows:
            self.told["known"] += 1
            return
        self.leases.add(order.token)
        event = f"accepted {order.token}"
        ctx.compensate(self.events.remove, event, name="withdraw")
        self.events.append(event)
        await asyncio.sleep(0)
        if order.broken:
            raise ConnectionError(f"the store is gone at {order.token}")
        self.rows[order.token] = ctx.name
        # The last thing, and only on success.
        self.leases.discard(order.token)

    async def attempt(self, order: Order, ctx: ab.Context) -> None:
        """Handle one order within its time; if it fails, it is undone, and set aside."""
        try:
            await ab.timeout(partial(self.handle, order), 5.0, ctx=ctx)
        except ConnectionError:
            self.told["set aside"] += 1


def transport(name: str, shop: Shop, orders: list[Order]) -> ab.Source[Order]:
    """Return a transport that has these orders, and ends."""
    channel: ab.Channel[Order] = ab.Channel(len(orders), name=name)
    channel.send_many_nowait(orders)
    channel.close()
    return ab.Source(channel, ack=lambda _: shop.told.update(["acked"]))


async def main() -> None:
    """Fan three transports in; one repeats what another has sent."""
    shop = Shop()
    web = [Order(f"web-{n}", broken=n % 500 == 499) for n in range(MANY)]
    queue = [Order(f"queue-{n}") for n in range(MANY)]
    files = [Order(f"file-{n}") for n in range(MANY)] + queue[:100]
    sources = [
        transport("web", shop, web),
        transport("queue", shop, queue),
        transport("files", shop, files),
    ]
    ctx = ab.Context("shop", scope=shop.scope)
    report = await ab.fan_in(sources, shop.attempt, ctx=ctx)
    print("handled:", report.handled)
    print("told:", dict(sorted(shop.told.items())))
    print("stored:", len(shop.rows), "events:", len(shop.events))
    print("leases left:", sorted(shop.leases))
    print("left to undo:", shop.scope.pending)

    # And where the first failure is to end it all: the error comes back as it is.
    try:
        await ab.fan_in([transport("web", shop, [Order("web-x", broken=True)])], shop.handle)
    except ConnectionError as error:
        print("ended:", error)
        print("undone:", [action.name for action in ab.RollbackReport.of(error).actions])
    print("the event is withdrawn:", "accepted web-x" not in shop.events)
    print("the lease is there:", "web-x" in shop.leases)


if __name__ == "__main__":
    asyncio.run(main())
