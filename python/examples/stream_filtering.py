"""Muted tenants are filtered out, and an audit sees everything all the same.

- `ab.broadcast` gives the same stream to two pipelines, in the same order; neither knows the other;
- `filter` drops what does not match, and keeps failures: a line that cannot be read is counted as
  failed, not as filtered;
- the mute list may change while the stream runs.
"""

from __future__ import annotations

import json
from typing import Any

import anabranch as ab

LINES = [
    '{"tenant": "acme", "n": 1}',
    '{"tenant": "spam", "n": 2}',
    "not json",
    '{"tenant": "acme", "n": 3}',
    '{"tenant": "spam", "n": 4}',
]


class Audit:
    """Everything that came, as it came."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, line: str) -> None:
        """Keep a line."""
        self.lines.append(line)


def main_pipeline(lines: ab.Channel[str], muted: set[str], stored: list[Any]) -> ab.Pipeline[None]:
    """Describe what is done with the lines."""
    return (
        ab.Pipeline("main")
        .source(lines)
        .map(json.loads, name="parse")
        .filter(lambda event: event["tenant"] not in muted, name="muted")
        .fan_out(by="tenant")
        .for_each(stored.append, inline=True)
    )


async def main() -> None:
    """Send the lines twice; in between a tenant is muted no more."""
    lines: ab.Channel[str] = ab.Channel(100)
    audit, muted, stored = Audit(), {"spam"}, list[Any]()
    async with ab.broadcast(lines, ["main", "audit"]) as (to_main, to_audit):
        filtering = main_pipeline(to_main, muted, stored)
        auditing = ab.Pipeline("audit").source(to_audit).for_each(audit.write, inline=True)
        async with filtering.start() as running, auditing.start() as beside:
            await lines.send_many(LINES)
            await ab.delay(1.0)
            muted.clear()
            await lines.send_many(LINES)
            lines.close()
            report = await running.wait()
            await beside.wait()
    print("audit saw", len(audit.lines), "lines, in order:", audit.lines == LINES * 2)
    print("stored", [event["n"] for event in stored])
    print("filtered", report.filtered, "failed", report.failed, report.codes)
    assert report.received == report.committed + report.filtered + report.failed


if __name__ == "__main__":
    ab.testing.run(main())
