"""Counts the instructions of one way through a job, which no other process can disturb.

By valgrind's cachegrind, or, of one thread alone, by its callgrind.

As a program it is the job itself, run under valgrind by `instructions`:

    python tests/bench/counted.py {data,without,with} EVENTS
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

COUNTER = (
    *("valgrind", "--tool=cachegrind", "--cache-sim=no"),
    "--cachegrind-out-file=/dev/null",
)
BY_THREAD = ("valgrind", "--tool=callgrind", "--separate-threads=yes")


def can_count() -> bool:
    """Return whether valgrind is here."""
    return shutil.which(COUNTER[0]) is not None


def instructions(way: str, events: int) -> int:
    """Return how many instructions a fresh interpreter takes for one way through the job."""
    # The same hashes, so the same tables, each time.
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    command = [*COUNTER, sys.executable, __file__, way, str(events)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    counted = re.search(r"I\s+refs:\s+([\d,]+)", ran.stderr)
    if counted is None:
        raise RuntimeError(f"{COUNTER[0]} told no count: {ran.stderr[-500:]}")
    return int(counted[1].replace(",", ""))


def driver_instructions(*program: str, environment: Mapping[str, str]) -> int:
    """Return how many instructions the first thread of a Python program takes.

    The other threads run by the machine's time, which is no matter of a count.
    """
    with tempfile.TemporaryDirectory(prefix="ab-") as made:
        command = [*BY_THREAD, f"--callgrind-out-file={made}/out", sys.executable, *program]
        told = {**os.environ, "PYTHONHASHSEED": "0", **environment}
        subprocess.run(command, env=told, capture_output=True, check=True)
        lines = Path(made, "out-01").read_text().splitlines()
    totals = next(line for line in lines if line.startswith("totals:"))
    return int(totals.split()[1])


def main() -> None:
    """Go one way through the job: `data` only makes it."""
    import gc

    import anabranch as ab
    from data import make_events
    from undo import canonical

    way, events = sys.argv[1], make_events(int(sys.argv[2]))
    gc.collect()
    gc.freeze()
    if way != "data":
        # By a clock that stands still: the chunks that the events are taken in are sized by time.
        canonical(events, undoable=way == "with", clock=ab.testing.VirtualClock())


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
