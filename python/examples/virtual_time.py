"""A day of a sensor, tested in no time: virtual time for a pipeline and for plain asyncio code.

Nothing in the code under test knows of it: `hourly` would run for a day in production.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import anabranch as ab

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# The code under test.


async def readings() -> AsyncIterator[int]:
    """Give a reading every ten minutes."""
    for n in range(6 * 24):
        yield n
        await asyncio.sleep(600.0)


class Archive:
    """Stores windows; out of order from six to nine o'clock."""

    def __init__(self) -> None:
        self.stored: dict[float, int] = {}

    async def store(self, window: list[int]) -> None:
        """Store a window."""
        now = asyncio.get_running_loop().time()
        if 6 * 3600.0 <= now < 9 * 3600.0:
            raise ConnectionError("the archive is being cleaned")
        self.stored[now] = len(window)


def hourly(archive: Archive) -> ab.Pipeline[None]:
    """Build the pipeline."""
    return (
        ab.Pipeline("hourly")
        .source(readings())
        .window(max_age=3600.0)
        .for_each(archive.store, retry=ab.Retry.fixed(1800.0, attempts=10))
    )


# The tests; pytest would collect them without any plugin.


@ab.testing.virtual_time
async def test_a_day_is_archived_in_spite_of_the_cleaning(clock: ab.testing.VirtualClock) -> None:
    """Time passes by itself."""
    archive = Archive()
    report = await hourly(archive).run()
    assert report.committed == 144
    assert clock.now() == 24 * 3600.0
    assert not [at for at in archive.stored if 6 * 3600.0 <= at < 9 * 3600.0]
    print(report)


@ab.testing.virtual_time(auto_advance=False)
async def test_nothing_is_stored_before_an_hour_is_over(clock: ab.testing.VirtualClock) -> None:
    """Time passes by hand."""
    archive = Archive()
    async with hourly(archive).start() as running:
        await clock.advance(3599.0)
        assert not archive.stored
        await clock.advance(1.0)
        assert list(archive.stored) == [3600.0]
        running.abort()


if __name__ == "__main__":
    test_nothing_is_stored_before_an_hour_is_over()
    test_a_day_is_archived_in_spite_of_the_cleaning()
