"""Runs the benchmarks: each case in an interpreter of its own; prints a table, writes JSON.

    .venv/bin/python tests/bench/run.py [--case NAME] [--pairs N] [--json FILE] [--quick]

Exits with 1 only if a contestant's result is wrong, or it ends without one: a missed bar is a
number to look at, on this machine and today.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from outcome import table

if TYPE_CHECKING:
    from collections.abc import Callable

    from measure import Settings
    from outcome import Outcome

HERE = Path(__file__).parent
# A case that takes longer hangs: the slowest pair takes some seconds.
SECONDS = 600
SECONDS_PER_PAIR = 60
NAMES = (
    "canonical",
    "canonical-run",
    "async-sink",
    "async-handler",
    "async-sleep",
    "children",
    "route",
    "push",
    "ticker",
    "pool",
    "tcp",
    "memory",
    "memory-undo",
    "undo-window",
    "undo-event",
    "tenants",
    "tenants-idle",
    "throttle",
    "failing-tenant",
    "fair",
    "fan-in-100",
    "fan-in-10000",
    "channel-hop",
    "channel-hop-batches",
    "channel-hop-threads",
    "select-2",
    "select-16",
    "select-256",
    "tee",
    "watched",
    "unwatched",
    "watched-counted",
    "unwatched-counted",
    "hung-client",
    "hung-latency",
    "hung-memory",
    "sampler",
    "asleep",
    "branch-bytes",
    "first-picture",
    "top-frame",
    "top-frame-small",
    "top-frame-large",
    "top-rate",
    "top-idle",
    "top-first-frame",
    "top-shell",
    "top-key",
    "top-memory",
    "ls",
    "outbox-lease",
    "outbox-inline",
    "outbox-async",
    "outbox-two",
    "outbox-four",
    "outbox-pooled",
    "outbox-many",
    "outbox-one",
    "outbox-sqlite",
    "outbox-sqlite-many",
    "outbox-sqlite-one",
    "outbox-wake",
    "outbox-sqlite-wake",
    "outbox-idle",
    "outbox-killed",
    "outbox-sqlite-killed",
    "outbox-scheduled",
    "outbox-ended",
    "outbox-sqlite-scheduled",
    "outbox-sqlite-ended",
    "outbox-through",
    "outbox-through-held",
    "outbox-peer-pgqueuer",
    "outbox-peer-procrastinate",
    "outbox-peer-chancy",
    "outbox-peer-dbos",
    "outbox-peer-awa",
    "outbox-peer-taskito",
    "outbox-sqlite-peer-huey",
    "outbox-sqlite-peer-litequeue",
    "outbox-sqlite-peer-taskito",
    "peer-bytewax",
    "peer-asyncio",
    "peer-anyio",
    "peer-rxpy",
    "peer-aiostream",
    "peer-streamz",
)


def arguments() -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description="Run anabranch's benchmarks.")
    parser.add_argument(
        "--case", action="append", choices=NAMES, metavar="NAME", help=", ".join(NAMES)
    )
    parser.add_argument("--pairs", type=int, help="runs of each contestant (default 15)")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "latest.json")
    parser.add_argument("--quick", action="store_true", help="a smoke test: little data, 3 pairs")
    parser.add_argument("--worker", choices=NAMES, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.pairs is None:
        chosen.pairs = 3 if chosen.quick else 15
    if chosen.pairs < 1:
        parser.error(f"--pairs must be at least 1, got {chosen.pairs}")
    return chosen


def find(name: str) -> Callable[[Settings], Outcome]:
    """Return the case called `name`."""
    # Imported here: the parent, which only starts workers, stays small and needs no anabranch.
    import claims
    import dashboard
    import fair
    import hung
    import idlers
    import killed
    import latency
    import memory
    import observer
    import outbox
    import races
    import rivals
    import seen
    import tenants
    import toolkit
    import undo
    import wakes
    import watched
    import wire

    cases = {name: race.run for name, race in races.RACES.items()}
    cases |= latency.CASES | wire.CASES | memory.CASES
    cases |= outbox.CASES | wakes.CASES | killed.CASES | claims.CASES | idlers.CASES | rivals.CASES
    cases |= tenants.CASES | undo.CASES | fair.CASES | toolkit.CASES
    return (cases | watched.CASES | seen.CASES | observer.CASES | hung.CASES | dashboard.CASES)[
        name
    ]


def work(name: str, *, pairs: int, quick: bool) -> None:
    """Run one case in this interpreter and print its result as JSON."""
    from measure import Settings, WrongResultError

    try:
        result = find(name)(Settings(pairs=pairs, quick=quick)).to_dict()
    except ModuleNotFoundError as error:
        if error.name == "anabranch":
            raise
        result = {"absent": f"{error.name} is not installed"}
    except WrongResultError as error:
        result = {"wrong": str(error)}
    print(json.dumps(result))


def measure(name: str, *, pairs: int, quick: bool) -> dict[str, Any]:
    """Run one case in a fresh interpreter and return its result."""
    command = [sys.executable, __file__, "--worker", name, "--pairs", str(pairs)]
    if quick:
        command.append("--quick")
    limit = max(SECONDS, SECONDS_PER_PAIR * pairs)
    try:
        worker = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, check=False, timeout=limit
        )
    except subprocess.TimeoutExpired:
        return {"wrong": f"the case did not end within {limit} s"}
    if worker.returncode != 0:
        return {"wrong": f"the case ended with exit code {worker.returncode}"}
    result: dict[str, Any] = json.loads(worker.stdout.splitlines()[-1])
    return result


def row(name: str, result: dict[str, Any]) -> tuple[str, ...]:
    """Return a result as cells of the table."""
    if "wrong" in result:
        return (name, "", f"WRONG: {result['wrong']}", "", "", "", "")
    if "absent" in result:
        return (name, "", result["absent"], "", "", "", "")
    cells = (result[key] for key in ("bar", "measured", "spread", "ours", "against"))
    return (name, *cells, "" if result["met"] else "missed")


def main() -> int:
    """Run the chosen cases."""
    chosen = arguments()
    if chosen.worker:
        work(chosen.worker, pairs=chosen.pairs, quick=chosen.quick)
        return 0
    machine = {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "pairs": chosen.pairs,
        "quick": chosen.quick,
    }
    print("{implementation} {python}, {platform}, {cores} cores, {pairs} pairs".format(**machine))
    results: dict[str, dict[str, Any]] = {}
    for name in chosen.case or NAMES:
        print(f"{name} ...", file=sys.stderr, flush=True)
        results[name] = measure(name, pairs=chosen.pairs, quick=chosen.quick)
    print(table([row(name, result) for name, result in results.items()]))
    chosen.json.parent.mkdir(parents=True, exist_ok=True)
    chosen.json.write_text(json.dumps({**machine, "cases": results}, indent=1), encoding="utf-8")
    return 1 if any("wrong" in result for result in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
