"""The user's callables around a branch: asked and told when it opens, told when it has closed."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from anabranch.errors import refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from anabranch._stages import Stage

# As the plan has it for a number.
_MOST_CAPACITY: Final = 2**32 - 1

_logger = logging.getLogger("anabranch")


def opening(pipeline: str, stage: Stage) -> Callable[[Any], int | None] | None:
    """Return what is called with the tenant before its branch opens; None if nobody asks.

    Args:
        pipeline: The pipeline's name.
        stage: The `fan_out`.

    Returns:
        A callable that returns the branch's capacity, None for that of the stage, and raises what
        the user's callables raise, or ConfigError for a capacity that is not allowed.
    """
    capacity_of, told = stage.options["capacity_of"], stage.options["new"]
    if capacity_of is None and told is None:
        return None

    def opens(tenant: object) -> int | None:
        capacity = None
        if capacity_of is not None:
            capacity = capacity_of(tenant)
            # A bool is an int, and surely a mistake.
            if type(capacity) is not int or not 1 <= capacity <= _MOST_CAPACITY:
                allowed = f"a callable that returns an int from 1 to {_MOST_CAPACITY}"
                raise refused("capacity", capacity, allowed, pipeline=pipeline, stage=stage.name)
        if told is not None:
            told(tenant)
        return capacity

    return opens


def closed(pipeline: str, stages: Iterable[Stage], tenants: Iterable[object]) -> None:
    """Tell that the branches of `tenants` have closed; what the callable raises is logged."""
    for stage in stages:
        told = stage.options["closed"] if stage.kind == "fan_out" else None
        if told is None:
            continue
        for tenant in tenants:
            try:
                told(tenant)
            except Exception:
                _logger.exception(
                    "pipeline %r, stage %r, tenant %r: on_branch_closed raised",
                    pipeline,
                    stage.name,
                    tenant,
                )
