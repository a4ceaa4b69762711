"""How `anabranch outbox` tells what it has found: lines, tables, questions and progress."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final, Self, cast

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from types import TracebackType

    from anabranch._outbox.message import Message

_USAGE: Final = 2
_FAILED: Final = 6
# Characters of a cell: an error may be long.
_WIDEST: Final = 80
_BAR: Final = 20


def say(text: str) -> None:
    """Print what was asked for."""
    print(text, flush=True)


def complain(text: str) -> None:
    """Print what went wrong."""
    print(f"anabranch: {plain(text)}", file=sys.stderr, flush=True)


def plain(text: object) -> str:
    """Return a text in one line that does nothing to a terminal, whoever has written it."""
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in str(text))


def when(time: datetime | None) -> str | None:
    """Return a time as JSON has it."""
    return None if time is None else time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table; numbers stand at the right."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [
        max([len(name), *(len(row[column]) for row in cells)]) for column, name in enumerate(head)
    ]
    right = [
        bool(rows) and all(isinstance(row[column], int) for row in rows)
        for column in range(len(head))
    ]
    lines = [head, *cells]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if to_the_right else cell.ljust(width)
            for cell, width, to_the_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    )


def _cell(value: object) -> str:
    text = f"{value:,}" if isinstance(value, int) else plain(value)
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"


def words(told: dict[str, Any]) -> str:
    """Put into words what a verb has done to an outbox, or what is known of a message."""
    if "migrated" in told:
        count = told["migrated"]
        return "up to date" if not count else f"{count} version{'' if count == 1 else 's'} applied"
    if "would" in told:
        return f"{told['would']:,} would be {told['done']}"
    if "changed" in told:
        return f"{told['changed']:,} {'is' if told['changed'] == 1 else 'are'} {told['done']}"
    if "totals" in told:
        return _status(told)
    if "paused" in told:
        topics = ", ".join(plain(topic) for topic in told["paused"])
        return f"paused: {topics}" if topics else "nothing is paused"
    return "\n".join(f"{name}: {_value(value)}" for name, value in told.items() if value)


def _status(told: dict[str, Any]) -> str:
    lines: list[str] = []
    if told["oldest_ready_seconds"] is not None:
        lines.append(f"the first ready message waits for {span(told['oldest_ready_seconds'])}")
    if told["longest_held_seconds"] is not None:
        lines.append(f"the longest lease lasts for {span(told['longest_held_seconds'])}")
    lines += [f"paused: {plain(it['topic'])} since {it['since']}" for it in told["paused"]]
    return "\n".join(lines)


def _value(value: object) -> str:
    if isinstance(value, list):
        return "".join(f"\n  {_attempt(one)}" for one in cast("list[object]", value))
    return plain(value)


def _attempt(one: object) -> str:
    if not isinstance(one, dict):
        return plain(one)
    one = cast("dict[str, object]", one)
    return plain(f"attempt {one['attempt']} at {one['at']}: {one['error']}")


def span(seconds: float) -> str:
    """Return how long something takes, in the unit that fits."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def shown_message(message: Message, *, payload: bool = False) -> dict[str, Any]:
    """Return what JSON tells of a message."""
    told: dict[str, Any] = {
        "id": message.id,
        "topic": message.topic,
        "tenant": message.tenant,
        "status": message.status,
        "priority": message.priority,
        "attempt": message.attempt,
        "enqueued_at": when(message.enqueued_at),
        "due_at": when(message.due_at),
        "expires_at": when(message.expires_at),
        "ended_at": when(message.ended_at),
        "leased_until": when(message.leased_until),
        "ordering_key": message.ordering_key,
        "dedupe_key": message.dedupe_key,
        "correlation_id": message.correlation_id,
        "errors": [
            {"attempt": it.attempt, "at": when(it.at), "error": it.error} for it in message.errors
        ],
    }
    if payload:
        value = message.payload
        told["headers"] = dict(message.headers)
        if isinstance(value, bytes):
            told["payload_hex"] = value.hex()
        else:
            told["payload"] = value
    return told


def confirmed(verb: str, what: str) -> int | None:
    """Ask whether to go on: None, or the exit code of a no."""
    if not sys.stdin.isatty():
        complain(f"{verb}: {what}; that is not done unasked: add --yes")
        return _USAGE
    print(f'{verb}: {what}\nType "{verb}" to confirm: ', end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().rstrip("\n") == verb:
        return None
    complain("nothing was done")
    return _FAILED


class Progress:
    """How far something has come that takes a while; for a terminal alone.

    Args:
        what: What it is.
        total: How many there are to do.
    """

    def __init__(self, what: str, total: int) -> None:
        self._what = what
        self._total = max(1, total)
        self._shown = sys.stderr.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def tell(self, done: int) -> None:
        """Show that so many are done."""
        if self._shown:
            full = min(_BAR, _BAR * done // self._total)
            bar = "#" * full + "-" * (_BAR - full)
            text = f"\r{self._what} [{bar}] {done:,} of {self._total:,}"
            print(text, end="", file=sys.stderr, flush=True)
