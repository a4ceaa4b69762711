"""What the calendar says: what errors tell of the end of what they were raised for."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def moment() -> datetime:
    """Return the time in UTC: of the running loop's clock in a test, where it begins with 1970."""
    # Not imported for this: a program that runs no loop need not have it.
    asyncio = sys.modules.get("asyncio")
    loop = None if asyncio is None else asyncio._get_running_loop()  # noqa: SLF001 - a module of which only this is wanted
    clock = getattr(loop, "virtual_clock", None)
    return datetime.now(UTC) if clock is None else _EPOCH + timedelta(seconds=clock.now())
