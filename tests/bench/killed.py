"""The cases about a worker that is killed: when another one has handled what it held."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import anabranch as ab
import stores
from measure import Settings, Spread, WrongResultError, check
from outcome import Outcome
from stores import TOPIC

if TYPE_CHECKING:
    from stores import Bench

VICTIM = Path(__file__).parent / "victim.py"
LEASE = 2.0
BAR = LEASE + 0.1
HANDLED = 100
HELD = 500
TIMES = 10
# Seconds for the survivor to find nothing, and to listen; at most a third of a lease is over then.
SETTLED = 0.5


async def _killed(bench: Bench) -> tuple[float, int]:
    """Return the seconds from the kill until all is handled, and what was handled twice."""
    bench.forget()
    bench.fill(HANDLED + HELD)
    victim = await asyncio.create_subprocess_exec(
        *(sys.executable, VICTIM, bench.url, str(LEASE), str(HANDLED)),
        stdout=asyncio.subprocess.PIPE,
    )
    assert victim.stdout is not None
    before: set[int] = set()
    while (line := await victim.stdout.readline()) != b"stuck\n":
        if not line:
            raise WrongResultError("the worker to be killed has ended by itself")
        before.add(int(line))
    # What it has claimed is held, and what it has handled is acked.
    await asyncio.sleep(SETTLED)
    after: list[int] = []
    last = 0.0
    done = asyncio.Event()
    survivor = ab.OutboxWorker(bench.outbox, lease=LEASE, observe="off")

    @survivor.on(TOPIC)
    async def handle(message: ab.Message) -> None:
        nonlocal last
        after.append(message.id)
        if len(before.union(after)) == HANDLED + HELD:
            last = perf_counter()
            done.set()

    async with survivor:
        await asyncio.sleep(SETTLED)
        with contextlib.closing(bench.connect()) as conn:
            sql = "select count(*) from outbox_message"
            (unacked,) = conn.execute(sql).fetchone()
        check(after, [], "the survivor, as long as the other one lives")
        begun = perf_counter()
        victim.kill()
        async with asyncio.timeout(10 * LEASE):
            await done.wait()
    await victim.wait()
    twice = len(after) - len(set(after)) + len(before.intersection(after))
    if twice > max(0, unacked - HELD):
        message = f"{twice} messages were handled twice, though {unacked} were not acked"
        raise WrongResultError(message)
    return last - begun, twice


def _kill(settings: Settings, *, kind: str) -> Outcome:
    taken: list[float] = []
    twice = 0
    with stores.OPENED[kind]() as bench:
        for _ in range(max(1, settings.size(TIMES))):
            seconds, again = asyncio.run(_killed(bench))
            taken.append(seconds)
            twice += again
    spread = Spread.of(taken)
    return Outcome(
        bar=f"<= lease ({LEASE:.0f} s) + 0.1 s",
        measured=f"{max(taken):.2f} s",
        spread=f"{spread.low:.2f}-{spread.high:.2f}",
        ours=f"{spread.median:.2f} s, {twice} twice",
        against=f"{LEASE:.0f} s lease",
        met=max(taken) <= BAR,
        numbers={"seconds": taken, "twice": twice, "held": HELD, "lease": LEASE},
    )


CASES = {
    "outbox-killed": partial(_kill, kind="postgres"),
    "outbox-sqlite-killed": partial(_kill, kind="sqlite"),
}
