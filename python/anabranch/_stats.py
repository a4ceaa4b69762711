"""The sums over all pipelines of this process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from anabranch import _core

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """What has come of all pipelines of this process so far, in items where nothing else is said.

    Attributes:
        pipelines: Runs that were begun.
        running: Those of them that have not ended.
        dropped: Given up by policy, or filtered out.
        failed: Failed for good: each once, where it arose, however often it was tried or handed on.
        retried: Attempts after the first, in units.
        compensated: Undo actions that have run.
        stuck: Undo actions that could not be done.
        codes: Failed items by code.
    """

    pipelines: int
    running: int
    received: int
    committed: int
    failed: int
    dropped: int
    dead_lettered: int
    retried: int
    compensated: int
    stuck: int
    codes: Mapping[str, int]


def stats() -> Stats:
    """Return the sums over all pipelines of this process, those that have ended included.

    Of a pipeline that runs they are as old as its last sweep, a second at most in general; one with
    `observe="off"`, or in virtual time, is in them once it has ended. To ask holds up none of them.
    A fork begins with nothing.

    Example:
        >>> import anabranch as ab
        >>> before = ab.stats()
        >>> report = ab.Pipeline("p").source(range(10)).collect().run_blocking()
        >>> ab.stats().committed - before.committed
        10
    """
    return Stats(**_core.stats())
