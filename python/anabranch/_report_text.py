"""A report in words: its summary for people, and how its errors name what they are about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from anabranch.counts import Counts
from anabranch.failure import text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anabranch.compensation import Compensation
    from anabranch.counts import Abandonment
    from anabranch.failure import Failure
    from anabranch.report import Report

COUNTS = tuple(Counts.__dataclass_fields__)

# How many codes, branches and undo actions the text names; the report itself has them all.
_SHOWN = 5


def telling(report: Report[Any]) -> list[str]:
    """Return the names of the counts worth telling."""
    always = ("received", "committed", "failed")
    return [name for name in COUNTS if name in always or getattr(report, name)]


def lines(report: Report[Any]) -> Iterator[str]:
    """Yield a report's lines for people."""
    rate = f"{report.rate:,.0f} items/s"
    yield f"pipeline {report.pipeline!r}: {report.outcome} in {report.seconds:.3g} s, {rate}"
    rows = [(name, getattr(report, name)) for name in telling(report)]
    rows += [("branches", len(report.branches))] if report.branches else []
    yield from _table(rows)
    if not report.balanced:
        yield "  these do not add up: please report it as a bug of anabranch"
    if report.codes:
        yield "failed items by code"
        yield from _table(_most(list(report.codes.items())))
    worst = [(text(branch.tenant), branch.failed) for branch in report.branches if branch.failed]
    if worst:
        yield f"failed items by branch, in {len(worst):,} of {len(report.branches):,}"
        yield from _table(_most(worst))
    if report.compensated or report.stuck:
        yield f"undo actions: {report.compensated:,} done, {report.stuck:,} stuck"
        stuck = [action for action in report.compensations if action.error is not None]
        for action in stuck[:_SHOWN]:
            yield f"  {place(action)}: {action.name}: {described(action.error)}"
    if report.abandoned:
        yield f"calls left behind because they did not end: {report.abandoned:,}"
        for row in report.abandonments[:_SHOWN]:
            yield f"  {place(row)}: attempt {row.attempt}, after {row.seconds:.3g} s"


def described(error: BaseException | None) -> str:
    """Return an exception's type and message."""
    message = text(error)
    name = type(error).__name__
    return f"{name}: {message}" if message else name


def place(of: Failure | Compensation | Abandonment) -> str:
    """Return where it happened: the stage, and the tenant."""
    tenant = "" if of.tenant is None else f", tenant {text(of.tenant)!r}"
    return f"stage {of.stage!r}{tenant}"


def many(count: int, noun: str) -> str:
    """Return a number of nouns."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def more(count: int, listed: int) -> str:
    """Return how many there are beyond those listed, if any."""
    return f", {count - listed:,} more than listed here" if count > listed else ""


def _most(rows: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """Return the rows with the largest counts, and one for the sum of the others."""
    rows = sorted(rows, key=lambda row: -row[1])
    others = rows[_SHOWN:]
    rest = [(f"{len(others):,} others", sum(count for _, count in others))] if others else []
    return rows[:_SHOWN] + rest


def _table(rows: list[tuple[str, int]]) -> Iterator[str]:
    width = max(len(name) for name, _ in rows)
    digits = max(len(f"{count:,}") for _, count in rows)
    for name, count in rows:
        yield f"  {name:<{width}}  {count:>{digits},}"
