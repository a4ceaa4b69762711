"""How the branches of a run live, for the extension; and the user's callables around them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from anabranch.branch import OVERFLOW, BranchPolicy
from anabranch.errors import refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from anabranch._legs import Policy
    from anabranch._stages import Stage

    # Returns a branch's own capacity and on_full; None for those of the stage.
    Opening = Callable[[Any], tuple[int | None, str | None]]

# What a branch may do when it is full.
MODES: Final = ("wait", "drop_newest", "drop_oldest", "fail", "dead_letter")
# As the plan has it for a number.
_MOST_CAPACITY: Final = 2**32 - 1

_logger = logging.getLogger("anabranch")


@dataclass(frozen=True, slots=True)
class Branches:
    """How branches live, as the extension takes it; durations in seconds."""

    opening: Opening | None = None
    closing: Callable[[Any], None] | None = None
    max_branches: int = 1_000_000
    overflow: object = None
    on_full: str = "wait"
    timeout: float | None = None
    idle_ttl: float | None = None
    on_error: str = "continue"
    after: int = 1
    backoff: Policy | None = None
    stay_open: bool = False


def living(
    pipeline: str, stage: Stage, policy: Callable[[Any], Policy], *, addressed: bool
) -> Branches:
    """Describe how the branches of a `fan_out` live.

    Args:
        pipeline: The pipeline's name.
        stage: The `fan_out`.
        policy: Makes of a Retry what the extension takes.
        addressed: Whether the pipeline has a target for dead letters.
    """
    options = stage.options
    on_error = options["branch_policy"]
    backoff = on_error.backoff if isinstance(on_error, BranchPolicy) else None
    return Branches(
        opening=_opening(pipeline, stage, MODES if addressed else MODES[:-1]),
        closing=closing(pipeline, stage),
        max_branches=options["max_branches"],
        overflow=OVERFLOW if options["on_max_branches"] == "overflow" else None,
        on_full="wait" if options["mode_of"] is not None else options["on_full"],
        timeout=options["branch_timeout"],
        idle_ttl=options["idle_ttl"],
        on_error=on_error.kind if isinstance(on_error, BranchPolicy) else on_error,
        after=on_error.after if isinstance(on_error, BranchPolicy) else 1,
        backoff=None if backoff is None else policy(backoff),
        stay_open=not options["close_branches"],
    )


def _opening(pipeline: str, stage: Stage, modes: Sequence[str]) -> Opening | None:
    """Return what is called with the tenant before its branch opens; None if nobody asks.

    It raises what the user's callables raise, or ConfigError for what they may not return.
    """
    options = stage.options
    capacity_of, mode_of, told = options["capacity_of"], options["mode_of"], options["new"]
    lettered: set[object] = options["lettered"]
    if capacity_of is None and mode_of is None and told is None:
        return None

    def opens(tenant: object) -> tuple[int | None, str | None]:
        capacity = mode = None
        if capacity_of is not None:
            capacity = capacity_of(tenant)
            # A bool is an int, and surely a mistake.
            if type(capacity) is not int or not 1 <= capacity <= _MOST_CAPACITY:
                allowed = f"a callable that returns an int from 1 to {_MOST_CAPACITY}"
                raise refused("capacity", capacity, allowed, pipeline=pipeline, stage=stage.name)
        if mode_of is not None:
            mode = mode_of(tenant)
            if mode not in modes:
                allowed = f"a callable that returns {_any_of(modes)}"
                if mode == "dead_letter":
                    allowed += " where the pipeline has no dead_letter=target"
                raise refused("on_full", mode, allowed, pipeline=pipeline, stage=stage.name)
            (lettered.add if mode == "dead_letter" else lettered.discard)(tenant)
        if told is not None:
            told(tenant)
        return capacity, mode

    return opens


def _any_of(words: Iterable[str]) -> str:
    *first, last = map(repr, words)
    return f"{', '.join(first)} or {last}"


def closing(pipeline: str, stage: Stage) -> Callable[[Any], None] | None:
    """Return what is called with the tenant when its branch has closed; None if nobody asks.

    What the user's callable raises is logged.
    """
    told = stage.options["closed"]
    if told is None:
        return None

    def closed(tenant: object) -> None:
        try:
            told(tenant)
        except Exception:
            _logger.exception(
                "pipeline %r, stage %r, tenant %r: on_branch_closed raised",
                pipeline,
                stage.name,
                tenant,
            )

    return closed


def close_all(pipeline: str, stages: Iterable[Stage], tenants: Iterable[object]) -> None:
    """Tell that the branches of `tenants` have closed, with the run."""
    for stage in stages:
        told = closing(pipeline, stage) if stage.kind == "fan_out" else None
        if told is not None:
            for tenant in tenants:
                told(tenant)
