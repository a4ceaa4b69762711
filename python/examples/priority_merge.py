"""Gold, silver and free customers share one line: who is served next is a matter of strategy.

The same jobs, five per customer and all there from the beginning, by six strategies; then a free
customer whom gold would keep waiting for ever, if jobs did not age.

- `ab.merge` reads many channels as one; it has no buffer, so that the choice is made for each item
  when it is asked for;
- a strategy of your own is a function of what every source holds, and for how long.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anabranch as ab

if TYPE_CHECKING:
    from collections.abc import Sequence

CUSTOMERS = {"gold": 5, "silver": 4, "free": 3}


def jobs() -> list[ab.Channel[str]]:
    """Return a channel of jobs for each customer."""
    channels: list[ab.Channel[str]] = []
    for customer, count in CUSTOMERS.items():
        channel: ab.Channel[str] = ab.Channel(10, name=customer)
        channel.send_many_nowait([customer[0]] * count)
        channel.close()
        channels.append(channel)
    return channels


def shortest_first(sources: Sequence[ab.SourceState]) -> int:
    """Choose whoever has least to do."""
    return min((it for it in sources if it.ready), key=lambda it: it.depth).number


STRATEGIES: dict[str, ab.Strategy] = {
    "round robin": ab.Strategy.round_robin(),
    "priority": ab.Strategy.priority([0, 1, 1]),
    "weights 3:2:1": ab.Strategy.weighted([3, 2, 1]),
    "longest queue": ab.Strategy.longest_queue(),
    "sticky": ab.Strategy.sticky(),
    "shortest first": ab.Strategy.custom(shortest_first),
}


async def impatient(strategy: ab.Strategy) -> int | None:
    """Return after how many jobs of gold, one a second, the free customer has its turn."""
    gold: ab.Channel[str] = ab.Channel(10, name="gold")
    free: ab.Channel[str] = ab.Channel(10, name="free")
    await free.send("free")
    async with ab.merge([gold, free], strategy=strategy) as merged:
        for second in range(60):
            await gold.send("gold")
            if await merged.receive() == "free":
                return second
            await ab.delay(1.0)
    return None


async def main() -> None:
    """Serve the customers."""
    for name, strategy in STRATEGIES.items():
        merged = ab.merge(jobs(), strategy=strategy)
        print(f"{name:15}", "".join([job async for job in merged]))
    print("without aging: served after", await impatient(ab.Strategy.priority([0, 1])))
    aging = ab.Strategy.priority([0, 1], aging=10.0)
    print("aging 10 s: served after", await impatient(aging))
    # A channel with lanes does the same inside one queue.
    line: ab.PriorityChannel[str] = ab.PriorityChannel(10, lanes=3)
    for lane, customer in enumerate(("gold", "silver", "free")):
        await line.send(customer, priority=2 - lane)
    print("lanes:", ", ".join(await line.receive_many()))


if __name__ == "__main__":
    ab.testing.run(main())
