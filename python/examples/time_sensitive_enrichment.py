"""A price within 150 ms, whatever happens: a race of two regions, a cache, the list price.

A shop shows a product page. The price service runs in two regions, of which one is slow now and
then, and sometimes both are down. The page has 150 ms in all: what is late is of no use.

- `ab.race` asks both regions, and takes the first answer;
- `ab.timeout` gives that 80 of the 150 ms;
- `ab.fallback` goes on to the cache, and in the end to the list price;
- a second `ab.timeout` around it all keeps the promise.

Each of these calls is itself a callable that takes `ctx`: `functools.partial` joins them.
A lease that a region has handed out is given back if its answer is not the one that is used.
"""

from __future__ import annotations

import asyncio
from functools import partial

import anabranch as ab

BUDGET = 0.150
LIST_PRICE = 24.0


class Region:
    """A price service in one place."""

    def __init__(self, name: str, seconds: float, *, down: bool = False) -> None:
        self.name = name
        self.seconds = seconds
        self.down = down
        self.leases: list[str] = []

    async def price(self, title: str, ctx: ab.Context) -> float:
        """Lease a quote, and answer."""
        self.leases.append(title)
        ctx.compensate(self.leases.remove, title)  # unless this is the answer that is used
        await asyncio.sleep(self.seconds)
        if self.down:
            raise ConnectionError(f"{self.name} is down")
        return 19.99


class Cache:
    """Yesterday's prices."""

    def __init__(self, **prices: float) -> None:
        self.prices = prices

    async def price(self, title: str) -> ab.Result[float]:
        """Answer, or say why not: an `Err` is a failure like any other."""
        await asyncio.sleep(0.010)
        if title not in self.prices:
            return ab.Err("price.unknown", f"no price of {title} yesterday")
        return ab.Ok(self.prices[title])


async def price_of(title: str, near: Region, far: Region, cache: Cache) -> tuple[float, str]:
    """Return the best price that can be had in time, and where it is from."""
    regions = partial(ab.race, partial(near.price, title), partial(far.price, title))

    async def fresh(ctx: ab.Context) -> tuple[float, str]:
        return await ab.timeout(regions, 0.080, ctx=ctx), "fresh"

    async def yesterdays() -> tuple[float, str]:
        return (await cache.price(title)).unwrap(), "cached"

    async def listed() -> tuple[float, str]:
        return LIST_PRICE, "list price"

    async def best(ctx: ab.Context) -> tuple[float, str]:
        return await ab.fallback(fresh, yesterdays, listed, ctx=ctx)

    return await ab.timeout(best, BUDGET)


async def main() -> None:
    """Ask on a good day, on a slow one, and on a bad one."""
    loop = asyncio.get_running_loop()
    cache = Cache(Emma=18.0)
    days = {
        "good": (Region("near", 0.020), Region("far", 0.060)),
        "slow": (Region("near", 0.500), Region("far", 0.060)),
        "late": (Region("near", 0.500), Region("far", 0.900)),
        "bad": (Region("near", 0.020, down=True), Region("far", 0.060, down=True)),
    }
    for day, (near, far) in days.items():
        for title in ("Emma", "Persuasion"):
            began = loop.time()
            price, source = await price_of(title, near, far, cache)
            took = loop.time() - began
            assert took <= BUDGET
            print(f"{day}: {title} {price} ({source}) after {took * 1000:.0f} ms")
        # Both regions of a good day were asked; the loser has its lease back.
        print(f"{day}: leases {len(near.leases)} near, {len(far.leases)} far")


if __name__ == "__main__":
    # In virtual time the figures are the same each time; `asyncio.run(main())` does it for real.
    ab.testing.run(main())
