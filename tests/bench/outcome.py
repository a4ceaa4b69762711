"""Owns what a case reports: one row of the table, and the numbers behind it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """The result of one case, in words for the table and in `numbers` for the JSON file."""

    bar: str
    measured: str
    spread: str
    ours: str
    against: str
    met: bool
    numbers: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def rate(items: int, seconds: float) -> str:
    """Return items per second in words: `2.05 M/s`."""
    per_second = items / seconds
    if per_second < 1e4:
        return f"{per_second / 1e3:.1f} k/s"
    return f"{per_second / 1e6:.2f} M/s" if per_second >= 1e6 else f"{per_second / 1e3:.0f} k/s"


HEAD = ("case", "bar", "measured", "quartiles", "ours", "against", "")


def table(rows: list[tuple[str, ...]]) -> str:
    """Return `rows` under their head, in aligned columns."""
    lines = [HEAD, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
