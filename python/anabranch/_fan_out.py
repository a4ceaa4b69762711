"""The options of `fan_out`: what the plan checks of them, and the live objects it cannot hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from anabranch._branches import MODES
from anabranch._callables import examine, name_of
from anabranch.branch import BranchPolicy
from anabranch.errors import refused
from anabranch.keys import AttrKey, ItemKey

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anabranch._callables import Call

_HOOKS = ("on_new_branch", "on_branch_closed")


def fan_out_options(
    by: object, given: Mapping[str, Any], *, pipeline: str, stage: str
) -> tuple[Call | None, dict[str, object], dict[str, object]]:
    """Split what `fan_out` was given.

    Args:
        by: The key.
        given: The other arguments, by name.
        pipeline: The pipeline's name.
        stage: The stage's.

    Returns:
        The key callable, if it is one; the values for the plan; the live objects.

    Raises:
        ConfigError: An argument is of a kind that the plan could not tell.
    """
    call, key = _key(by, pipeline=pipeline, stage=stage)

    def hook(argument: str, value: object) -> str:
        if not callable(value):
            allowed = "a def that takes the tenant"
            raise refused(argument, value, allowed, pipeline=pipeline, stage=stage)
        call = examine(
            value,
            pipeline=pipeline,
            stage=stage,
            argument=argument,
            takes="the tenant",
            alone=True,
        )
        if call.is_async:
            allowed = "a def: it is called in between"
            shown = name_of(value)
            raise refused(argument, value, allowed, pipeline=pipeline, stage=stage, shown=shown)
        return name_of(value)

    options: dict[str, object] = {"by": key, **given}
    for argument in _HOOKS:
        value = given[argument]
        options[argument] = None if value is None else hook(argument, value)
    capacity, on_full, weight = given["capacity"], given["on_full"], given["weight"]
    _check_texts(given, pipeline=pipeline, stage=stage)
    for argument in ("capacity", "on_full", "weight"):
        if callable(given[argument]):
            options[argument] = hook(argument, given[argument])
    waits = callable(on_full) or on_full == "wait"
    if given["branch_timeout"] is not None and not waits:
        allowed = f"None where on_full is {on_full!r}: only a branch that waits holds others up"
        raise refused(
            "branch_timeout", given["branch_timeout"], allowed, pipeline=pipeline, stage=stage
        )
    on_error = given["on_branch_error"]
    options["on_branch_error"] = _policy(on_error, pipeline=pipeline, stage=stage)
    live = {
        "by": by,
        "capacity_of": capacity if callable(capacity) else None,
        "mode_of": on_full if callable(on_full) else None,
        "weight_of": weight if callable(weight) else None,
        "new": given["on_new_branch"],
        "closed": given["on_branch_closed"],
        "branch_policy": on_error,
        # The tenants whose own on_full is "dead_letter".
        "lettered": set[object](),
    }
    return call, options, live


def _check_texts(given: Mapping[str, Any], *, pipeline: str, stage: str) -> None:
    """Refuse texts where a callable may stand: as a text the plan knows a callable."""
    words = ", ".join(map(repr, MODES[:-1]))
    for argument, texts, allowed in (
        ("capacity", (), "an int >= 1"),
        ("weight", (), "an int from 1 to 1000"),
        ("on_full", MODES, f"{words} or {MODES[-1]!r}"),
    ):
        value = given[argument]
        if isinstance(value, str) and value not in texts:
            either = f"{allowed} or a def that takes the tenant"
            raise refused(argument, value, either, pipeline=pipeline, stage=stage)


def _policy(on_error: object, *, pipeline: str, stage: str) -> str:
    """The name of what follows a failure."""
    if isinstance(on_error, BranchPolicy):
        return repr(on_error)
    if isinstance(on_error, str) and on_error in ("continue", "stop_pipeline"):
        return on_error
    allowed = "'continue', 'stop_pipeline', ab.fail(...) or ab.restart(...)"
    raise refused("on_branch_error", on_error, allowed, pipeline=pipeline, stage=stage)


def _key(by: object, *, pipeline: str, stage: str) -> tuple[Call | None, str]:
    """The key callable, if it is one, and the name of the key."""
    if isinstance(by, AttrKey | ItemKey):
        return None, repr(by)
    if isinstance(by, str) and by.strip():
        return None, by
    if isinstance(by, str) or not callable(by):
        allowed = "the name of an entry, ab.attr(...), ab.item(...) or a def that takes the item"
        raise refused("by", by, allowed, pipeline=pipeline, stage=stage)
    function: Callable[..., Any] = by
    call = examine(function, pipeline=pipeline, stage=stage, argument="by")
    key = name_of(function)
    if call.is_async:
        allowed = "a def: a key is needed at once"
        raise refused("by", by, allowed, pipeline=pipeline, stage=stage, shown=key)
    return call, key
