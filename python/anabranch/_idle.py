"""`Idle`: which branches of a `fan_out` by hand nothing has come for."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class Idle:
    """Tells of each branch that was not touched for some time, by one timer of the loop.

    Args:
        ttl: Seconds.
        evict: Called with a branch that is idle; returns whether it is over. If not, it is asked
            again after as long.
    """

    def __init__(self, ttl: float, evict: Callable[[Any], bool]) -> None:
        self._ttl = ttl
        self._evict = evict
        # When each was touched, the longest ago first.
        self._touched: OrderedDict[Any, float] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None

    def touch(self, tenant: object) -> None:
        """Something has come for a branch."""
        loop = asyncio.get_running_loop()
        self._touched[tenant] = loop.time()
        self._touched.move_to_end(tenant)
        if self._timer is None:
            self._timer = loop.call_later(self._ttl, self._sweep, loop)

    def stop(self) -> None:
        """Tell nothing more."""
        if self._timer is not None:
            self._timer.cancel()
        self._touched.clear()

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        while self._touched:
            tenant, since = next(iter(self._touched.items()))
            if since + self._ttl > now:
                self._timer = loop.call_at(since + self._ttl, self._sweep, loop)
                return
            del self._touched[tenant]
            if not self._evict(tenant):
                self._touched[tenant] = now
