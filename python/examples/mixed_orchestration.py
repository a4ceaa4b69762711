"""A trip is booked: a saga of steps, one of which is a group, one of which is retried.

Reserve a seat; then book the hotel and the car at the same time; then pay, which may take several
attempts. If anything fails for good, or the customer hangs up, everything is undone in reverse:
the payment, the car and the hotel, the seat.

- `ab.Saga` gives the steps names, and each the results of those before it;
- `ab.ErrGroup(commit="group")` makes hotel and car one thing: both or none;
- `ab.Retry` is the policy a pipeline's stage would have;
- all of them hand on what they did to the context they are part of: nobody keeps a list.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import anabranch as ab

Results = Mapping[str, Any]


class Agency:
    """Everything that can be booked, and what is booked now."""

    def __init__(self, *, busy: int = 0, broke: bool = False) -> None:
        self.booked: list[str] = []
        self.busy = busy
        self.broke = broke

    async def book(self, what: str, ctx: ab.Context) -> str:
        """Book something; it takes a second."""
        ctx.compensate(self.cancel, what)
        await asyncio.sleep(1.0)
        self.booked.append(what)
        return what

    async def cancel(self, what: str) -> None:
        """Take a booking back; nothing happens to what was not booked."""
        await asyncio.sleep(0.1)
        if what in self.booked:
            self.booked.remove(what)
            print(f"    {what} is given back")

    async def seat(self, _: Results, ctx: ab.Context) -> str:
        """The first step."""
        return await self.book("seat 7", ctx)

    async def stay(self, results: Results, ctx: ab.Context) -> list[str]:
        """The second: two bookings at once."""
        async with ab.ErrGroup("stay", commit="group", ctx=ctx) as group:
            hotel = group.go(self.book, f"hotel for {results['seat']}", name="hotel")
            car = group.go(self.book, "car", name="car")
        assert hotel.result is not None
        assert car.result is not None
        return [hotel.result.unwrap(), car.result.unwrap()]

    async def pay(self, results: Results, ctx: ab.Context) -> int:
        """The third: the bank is busy at times."""
        if self.busy > 0:
            self.busy -= 1
            raise ConnectionError("the bank is busy")
        if self.broke:
            raise PermissionError("no money")
        await self.book("payment", ctx)
        return 100 * (1 + len(results["stay"]))


def trip(agency: Agency) -> ab.Saga:
    """Describe the trip."""
    patient = ab.Retry.exponential(attempts=4, base=0.5, jitter="none", retry_on=ConnectionError)
    return (
        ab.Saga("trip")
        .step("seat", agency.seat)
        .step("stay", agency.stay)
        .step("pay", agency.pay, retry=patient)
    )


async def main() -> None:
    """Book it with a busy bank, without money, and with a customer who hangs up."""
    agency = Agency(busy=2)
    results = await trip(agency).run()
    print("booked:", results)
    assert agency.booked == ["seat 7", "hotel for seat 7", "car", "payment"]

    agency = Agency(broke=True)
    result = await ab.Result.try_async(trip(agency).run)
    if isinstance(result, ab.Err):
        print("not booked:", result.error.code, result.error.message)
        print("    with the notes:", *result.error.error.__notes__, sep="\n    ")
    assert agency.booked == []

    agency = Agency(busy=9)
    async with ab.WaitGroup("call") as group:
        booking = group.go(trip(agency).run, name="trip")
        # In the back-off after the second attempt to pay.
        group.go(ab.after, 3.0, lambda: booking.cancel("the customer hung up"))
    assert booking.result is not None
    print("not booked:", booking.result)
    assert agency.booked == []


if __name__ == "__main__":
    ab.testing.run(main())
