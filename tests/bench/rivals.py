"""The cases of the outbox beside other libraries: as many messages, and a handler that counts."""

from __future__ import annotations

import importlib
from functools import partial
from typing import TYPE_CHECKING

from outbox import LEASE, Case, Way

if TYPE_CHECKING:
    from stores import Bench


def _ready(name: str, bench: Bench, count: int) -> None:
    importlib.import_module(f"peers.outbox_{name}").ready(bench, count)


def _run(name: str, bench: Bench, count: int) -> int:
    handled: int = importlib.import_module(f"peers.outbox_{name}").run(bench, count)
    return handled


def _case(kind: str, name: str, *, messages: int, bar: float = 1.0) -> Case:
    """Beside one of the others: fewer messages where they would take minutes otherwise."""
    theirs = Way(name, partial(_ready, name), partial(_run, name))
    return Case(kind, LEASE, theirs, bar, messages=messages)


CASES = {
    "outbox-peer-pgqueuer": _case("postgres", "pgqueuer", messages=20_000, bar=5.0).run,
    "outbox-peer-procrastinate": _case("postgres", "procrastinate", messages=5000).run,
    "outbox-peer-chancy": _case("postgres", "chancy", messages=20_000).run,
    "outbox-peer-dbos": _case("postgres", "dbos", messages=2000).run,
    "outbox-peer-awa": _case("postgres", "awa", messages=20_000).run,
    "outbox-peer-taskito": _case("postgres", "taskito", messages=2000).run,
    "outbox-sqlite-peer-huey": _case("sqlite", "huey", messages=20_000).run,
    "outbox-sqlite-peer-litequeue": _case("sqlite", "litequeue", messages=20_000).run,
    "outbox-sqlite-peer-taskito": _case("sqlite", "taskito", messages=2000).run,
}
