"""The case about one worker for hundreds of databases in which nothing happens, but in one."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import anabranch as ab
import stores
import wakes
from measure import Settings, percentile
from outcome import Outcome

DATABASES = 500
# Until each has been found empty so often that it is asked as seldom as may be.
CALM = 75.0
SECONDS = 30.0
CORE_BAR = 0.03
CONNECTIONS_BAR = 16
WAKE_BARS_MS = (2.0, 5.0)
_CONNECTIONS = "select count(*) from pg_stat_activity where application_name like 'anabranch%'"


def _databases(server: Any, count: int) -> list[str]:
    """Make databases with the tables of an outbox, each a copy of the first."""
    import psycopg

    first = server.create()
    with ab.Outbox(server.url(first)) as outbox:
        outbox.migrate()
    names = [f"{first}_{number}" for number in range(count)]
    with psycopg.connect(server.url("postgres"), autocommit=True) as conn:
        for name in names:
            conn.execute(f"create database {name} template {first}")
    return [server.url(name) for name in names]


async def _idle(server: Any, seconds: float) -> tuple[float, int]:
    """Return what share of a core this process takes, and how many connections workers have."""
    import psycopg

    most = 0
    with contextlib.closing(psycopg.connect(server.url("postgres"), autocommit=True)) as conn:
        await asyncio.sleep(CALM)
        begun, spent = time.monotonic(), time.process_time()
        while time.monotonic() < begun + seconds:
            await asyncio.sleep(1.0)
            most = max(most, conn.execute(_CONNECTIONS).fetchone()[0])
        return (time.process_time() - spent) / (time.monotonic() - begun), most


def idle(settings: Settings) -> Outcome:
    """Idle, and then with messages in one of them."""
    count = settings.size(DATABASES)
    with stores.server() as server:
        urls = _databases(server, count)
        outboxes = {url: ab.Outbox(url) for url in urls}
        share, connections = 0.0, 0

        async def measure() -> None:
            nonlocal share, connections
            share, connections = await _idle(server, settings.seconds(SECONDS))

        messages = wakes.WARM_UP + settings.size(wakes.MESSAGES)
        late = asyncio.run(
            wakes.woken(outboxes, "postgres", urls[0], messages, before=measure)
        ).since_commit
    p50, p99 = percentile(late, 50), percentile(late, 99)
    return Outcome(
        bar=f"<= {CORE_BAR:.0%}, <= {CONNECTIONS_BAR} connections, p50 <= 2, p99 <= 5 ms",
        measured=f"{share:.1%}, {connections}, {p50:.1f}, {p99:.1f} ms",
        spread=f"max {late[-1]:.1f} ms",
        ours=f"{share:.1%} of a core",
        against=f"{count} databases",
        met=share <= CORE_BAR
        and connections <= CONNECTIONS_BAR
        and p50 <= WAKE_BARS_MS[0]
        and p99 <= WAKE_BARS_MS[1],
        numbers={"databases": count, "share": share, "connections": connections, "late_ms": late},
    )


CASES = {"outbox-idle": idle}
