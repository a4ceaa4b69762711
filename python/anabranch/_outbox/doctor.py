"""What is wrong with an outbox, and what to do: for `anabranch outbox doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from anabranch._outbox.command_told import plain, span

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anabranch.outbox import Outbox

# Seconds that a message may wait, and a lease may last by renewal, before it looks stuck.
WAITS: Final = 60.0
HELD: Final = 900.0
# Seconds that a snapshot may be open, and how many dead rows beside how many live ones are many.
_SNAPSHOT: Final = 60.0
_MANY: Final = 50_000
_TIMES: Final = 5


class Finding(NamedTuple):
    """Something about an outbox that an operator should know.

    Attributes:
        level: "warning": something is stuck, or will be; "info": it is meant so, by somebody.
        what: What was found.
        advice: What to do.
    """

    level: Literal["info", "warning"]
    what: str
    advice: str


def examine(outbox: Outbox) -> list[Finding]:
    """Look for what is stuck, or slows it down."""
    return [*_waiting(outbox), *_database(outbox)]


def _waiting(outbox: Outbox) -> Iterator[Finding]:
    ages = outbox.ages()
    counts = outbox.counts()
    at_work = bool(outbox.workers())
    if ages.ready is not None and ages.ready > WAITS:
        advice = "start more workers, or see what holds up their handlers"
        if not at_work:
            advice = "start a worker: none is at work"
        yield Finding("warning", f"a message has been ready for {span(ages.ready)}", advice)
    if ages.held is not None and ages.held > HELD:
        advice = "see with `list --status leased` which it is, and whether its handler still works"
        yield Finding("warning", f"a lease was renewed for {span(ages.held)}", advice)
    for topic, by_status in counts.items():
        if parked := by_status.get("parked"):
            advice = "add a handler for it, or cancel its messages"
            what = f"nobody hears of topic {plain(topic)!r}: {parked:,} parked"
            yield Finding("warning", what, advice)
    dead = sum(by_status.get("dead", 0) for by_status in counts.values())
    if dead:
        yield Finding("info", f"dead messages: {dead:,}", "see them with `dead`")
    for pause in outbox.paused():
        since = f"{pause.since:%Y-%m-%d %H:%M:%SZ}"
        what = f"topic {plain(pause.topic)!r} is paused since {since}"
        yield Finding("info", what, "let it go on with `resume`")


def _database(outbox: Outbox) -> Iterator[Finding]:
    found = outbox._store.inspect()  # noqa: SLF001 - the command is the package's
    if found.snapshot is not None and found.snapshot.seconds > _SNAPSHOT:
        it = found.snapshot
        who = f"process {it.pid} ({plain(it.application) or 'without a name'}, {plain(it.state)})"
        what = f"{who} keeps a snapshot open for {span(it.seconds)}"
        advice = "end its transaction: until then no dead row is removed, and claims get slower"
        yield Finding("warning", what, advice)
    live, dead = found.rows
    if dead > max(_MANY, _TIMES * live):
        what = f"the table has {dead:,} dead rows beside {live:,} live ones"
        advice = "let autovacuum run (or `vacuum` it now), and look for long transactions"
        yield Finding("warning", what, advice)
    if found.journal not in (None, "wal"):
        what = f"its journal mode is {found.journal}: whoever writes waits for all who read"
        yield Finding("info", what, "run `pragma journal_mode = wal` once")
