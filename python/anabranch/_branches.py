"""How the branches of a run live, for the extension; and the user's callables around them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from anabranch._landing import plain
from anabranch.branch import OVERFLOW, BranchPolicy
from anabranch.errors import refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from anabranch._legs import Policy
    from anabranch._stages import Stage
    from anabranch.errors import ConfigError

    # Returns a branch's own capacity, on_full and weight; None for those of the stage.
    Opening = Callable[[Any], tuple[int | None, str | None, int | None]]

# What a branch may do when it is full.
MODES: Final = ("wait", "drop_newest", "drop_oldest", "fail", "dead_letter")
# As the plan has it for a number.
_MOST_CAPACITY: Final = 2**32 - 1
_MOST_WEIGHT: Final = 1000

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
    weight: int = 1


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
        weight=1 if options["weight_of"] is not None else options["weight"],
    )


def _opening(pipeline: str, stage: Stage, modes: Sequence[str]) -> Opening | None:
    """Return what is called with the tenant before its branch opens; None if nobody asks.

    It raises what the user's callables raise, or ConfigError for what they may not return.
    """
    options = stage.options
    capacity_of, mode_of, weight_of = (
        options[of] for of in ("capacity_of", "mode_of", "weight_of")
    )
    told = options["new"]
    if capacity_of is mode_of is weight_of is told is None:
        return None
    answer = _Answer(pipeline, stage.name, modes)
    lettered: set[object] = options["lettered"]

    def opens(tenant: object) -> tuple[int | None, str | None, int | None]:
        capacity = mode = weight = None
        if capacity_of is not None:
            capacity = answer.number("capacity", capacity_of(tenant), _MOST_CAPACITY)
        if weight_of is not None:
            weight = answer.number("weight", weight_of(tenant), _MOST_WEIGHT)
        if mode_of is not None:
            mode = answer.mode(mode_of(tenant))
            (lettered.add if mode == "dead_letter" else lettered.discard)(tenant)
        if told is not None:
            plain(told(tenant))
        return capacity, mode, weight

    return opens


@dataclass(frozen=True, slots=True)
class _Answer:
    """Checks what the user's callables say of a branch."""

    pipeline: str
    stage: str
    modes: Sequence[str]

    def number(self, argument: str, given: object, most: int) -> int:
        # A bool is an int, and surely a mistake.
        if type(given) is not int or not 1 <= given <= most:
            raise self._refused(argument, given, f"an int from 1 to {most}")
        return given

    def mode(self, given: object) -> str:
        if isinstance(given, str) and given in self.modes:
            return given
        *first, last = map(repr, self.modes)
        allowed = f"{', '.join(first)} or {last}"
        if given == "dead_letter":
            allowed += " where the pipeline has no dead_letter=target"
        raise self._refused("on_full", given, allowed)

    def _refused(self, argument: str, given: object, allowed: str) -> ConfigError:
        allowed = f"a callable that returns {allowed}"
        return refused(argument, given, allowed, pipeline=self.pipeline, stage=self.stage)


def closing(pipeline: str, stage: Stage) -> Callable[[Any], None] | None:
    """Return what is called with the tenant when its branch has closed; None if nobody asks.

    What the user's callable raises is logged, unless it ends the process.
    """
    told = stage.options["closed"]
    if told is None:
        return None

    def closed(tenant: object) -> None:
        try:
            plain(told(tenant))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:
            _logger.exception(
                "pipeline %r, stage %r, tenant %r: on_branch_closed raised",
                pipeline,
                stage.name,
                tenant,
            )

    return closed


def close_all(pipeline: str, stages: Iterable[Stage], tenants: Iterator[object]) -> None:
    """Tell that the branches of `tenants` have closed, with the run.

    An iterator: called again, this goes on behind the one that has ended the process.
    """
    for stage in stages:
        told = closing(pipeline, stage) if stage.kind == "fan_out" else None
        if told is not None:
            for tenant in tenants:
                told(tenant)
