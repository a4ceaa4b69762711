"""Telemetry at every step, without touching the stream: taps pass on what they see.

- `tap` calls something with each item and passes the item on: taps can stand anywhere, one behind
  the other, before and behind `fan_out`;
- behind `fan_out` the context tells whose item it is;
- `tap_error` sees the failures that go past; a tap that raises makes a failure of the item, and of
  no other.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import anabranch as ab

if TYPE_CHECKING:
    from collections.abc import Callable

READINGS = ["acme 20", "acme 21", "globex 99", "acme oops", "globex 19", "globex -300"]


class Telemetry:
    """What the taps have seen."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.hottest: dict[str, int] = {}
        self.codes: Counter[str] = Counter()

    def count(self, stage: str) -> Callable[[object], None]:
        """Return a tap that counts what passes it."""

        def tap(_: object) -> None:
            self.seen[stage] += 1

        return tap

    def extremes(self, reading: tuple[str, int], ctx: ab.Context) -> None:
        """Keep the highest temperature of each tenant."""
        _, degrees = reading
        if degrees < -273:
            raise ValueError(f"{degrees} is colder than cold")
        self.hottest[ctx.tenant] = max(degrees, self.hottest.get(ctx.tenant, degrees))

    def failed(self, failure: ab.Failure) -> None:
        """Count a failure by where it arose."""
        self.codes[f"{failure.stage}: {failure.code}"] += 1


def parse(line: str) -> tuple[str, int]:
    """Read one line."""
    tenant, degrees = line.split()
    return tenant, int(degrees)


def main() -> None:
    """Watch the readings go by."""
    telemetry = Telemetry()
    pipeline = (
        ab.Pipeline("readings")
        .source(READINGS)
        .tap(telemetry.count("raw"), name="count raw")
        .map(parse)
        .tap(telemetry.count("parsed"), name="count parsed")
        .fan_out(by=ab.item(0))
        .tap(telemetry.extremes)
        .tap(telemetry.count("good"), name="count good")
        .window(max_items=10)
        .collect()
        .tap_error(telemetry.failed)
    )
    report = pipeline.run_blocking()
    print("seen:", dict(telemetry.seen))
    print("hottest:", telemetry.hottest)
    print("failures:", dict(telemetry.codes))
    # Which tenant's window is first is not promised.
    print("the stream itself:", sorted(report.items))
    print("committed", report.committed, "failed", report.failed)


if __name__ == "__main__":
    main()
