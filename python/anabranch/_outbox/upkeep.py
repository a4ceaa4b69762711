"""What a worker does for a store now and then: it says that it is there, and tidies up.

Also what is read of those who are there, and what is tidied up.
"""

from __future__ import annotations

import functools
import json
import os
import socket
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from anabranch._outbox.message import utc
from anabranch._outbox.store import CHUNK, DEAD, DONE, Which, in_chunks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from anabranch._outbox.store import Store

# Seconds until the next time: at work, and where nothing comes. A worker is forgotten after some.
_AT_WORK: Final = 20.0
_IDLE: Final = 300.0
_MISSED: Final = 3


class AtWork(NamedTuple):
    """A worker at work on an outbox, as it has told.

    Attributes:
        id: The owner of what it claims.
        name: The worker's name.
        host: The machine it runs on.
        pid: Its process there.
        subscribers: Whose messages it handles.
        in_hand: How many messages it held.
        handled: How many it has claimed since it started.
        started_at: Since when it is there.
        seen_at: When it was there the last time.
    """

    id: int
    name: str
    host: str
    pid: int
    subscribers: tuple[str, ...]
    in_hand: int
    handled: int
    started_at: datetime
    seen_at: datetime

    def told(self) -> dict[str, Any]:
        """Return what JSON tells of it."""
        times = {"started_at": self.started_at, "seen_at": self.seen_at}
        iso = {key: f"{at:%Y-%m-%dT%H:%M:%SZ}" for key, at in times.items()}
        return {**self._asdict(), "subscribers": list(self.subscribers), **iso}


def at_work(rows: Sequence[tuple[int, str, int, int, int]]) -> list[AtWork]:
    """Read what workers have told."""
    found: list[AtWork] = []
    for owner, text, started, seen, _ in rows:
        told: dict[str, Any] = json.loads(text)
        found.append(
            AtWork(
                id=owner,
                name=str(told.get("name", "")),
                host=str(told.get("host", "")),
                pid=int(told.get("pid", 0)),
                subscribers=tuple(told.get("subscribers", ())),
                in_hand=int(told.get("in_hand", 0)),
                handled=int(told.get("handled", 0)),
                started_at=utc(started),
                seen_at=utc(seen),
            )
        )
    return found


class Tidied(NamedTuple):
    """What `Outbox.tidy` has ended or removed.

    Attributes:
        leases: Messages whose lease was over.
        expired: Messages that nobody handled within their `ttl`; they are dead now.
        done: Archived messages that were kept long enough.
        dead: Dead ones.
    """

    leases: int
    expired: int
    done: int
    dead: int


def tidy(store: Store, *, leases: bool = True) -> Iterator[Tidied]:
    """End what is over and remove what was kept long enough, a bounded part at a time."""
    reaped = store.reap(leases=leases)
    yield Tidied(*reaped, 0, 0)
    for state, kept in ((DONE, store.keep.done), (DEAD, store.keep.dead)):
        if kept is not None:
            for gone in in_chunks(functools.partial(store.purge, state, Which(older_than=kept))):
                yield Tidied(0, 0, *((gone, 0) if state == DONE else (0, gone)))


class Upkeep:
    """What one worker does for one store now and then; it holds up no claim for long.

    Args:
        name: The worker's name.
        subscribers: Whose messages it handles.
    """

    def __init__(self, name: str, subscribers: Sequence[str]) -> None:
        self._fixed = {
            "name": name,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "subscribers": list(subscribers),
        }
        self._next = 0.0
        self._was_idle = False

    def is_due(self, now: float, *, idle: bool) -> bool:
        """Whether it is time; a worker that has something to do again says so soon."""
        return now >= self._next or (self._was_idle and not idle)

    def do(
        self, store: Store, owner: int, now: float, *, in_hand: int, handled: int, idle: bool
    ) -> None:
        """Do it, in whatever thread the store is worked on in."""
        self._was_idle = idle
        every = _IDLE if idle else _AT_WORK
        self._next = now + every
        told = {**self._fixed, "in_hand": in_hand, "handled": handled}
        text = json.dumps(told, ensure_ascii=False)
        store.beat(owner, text, round(_MISSED * every * 1000))
        for tidied in tidy(store, leases=False):
            if CHUNK in (tidied.done, tidied.dead):
                # There is more: others have their turn first.
                self._next = now
                return
