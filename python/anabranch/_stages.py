"""A pipeline's stages as the driver gets them: values from the plan, live objects from the user."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypedDict

from anabranch.errors import refused
from anabranch.policy import Retry

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from datetime import timedelta

    from anabranch import _core
    from anabranch._callables import Call
    from anabranch._virtual import VirtualClock
    from anabranch.branch import BranchPolicy
    from anabranch.scope import Policy

Kind: TypeAlias = Literal[
    "source",
    "map",
    "filter",
    "flat_map",
    "tap",
    "tee",
    "ensure",
    "tap_error",
    "recover",
    "map_error",
    "collect_errors",
    "dead_letter",
    "fan_out",
    "throttle",
    "heartbeat",
    "window",
    "for_each",
    "collect",
    "to_channel",
]
OnError: TypeAlias = Literal["continue", "stop", "dead_letter"]

# The stages that take failures, and let items pass.
OPERATORS: Final[frozenset[Kind]] = frozenset(
    {"tap_error", "recover", "map_error", "collect_errors", "dead_letter"}
)
SINKS: Final[frozenset[Kind]] = frozenset({"for_each", "collect", "to_channel"})


class CallOptions(TypedDict, total=False):
    """The options of `map`, `filter`, `flat_map` and `tap`."""

    name: str | None
    concurrency: int
    ordered: bool
    retry: Retry | None
    timeout: float | timedelta | None
    on_error: OnError | None


class EnsureOptions(CallOptions, total=False):
    """The options of `ensure`."""

    code: str
    message: str | None


class OperatorOptions(TypedDict, total=False):
    """The options of `tap_error`, `recover` and `map_error`."""

    codes: str | Collection[str] | None
    types: type[BaseException] | Collection[type[BaseException]] | None
    name: str | None
    concurrency: int
    ordered: bool
    retry: Retry | None
    timeout: float | timedelta | None


OnFull: TypeAlias = Literal["wait", "drop_newest", "drop_oldest", "fail", "dead_letter"]


class FanOutOptions(TypedDict, total=False):
    """The options of `fan_out`."""

    name: str | None
    capacity: int | Callable[[Any], int]
    on_full: OnFull | Callable[[Any], OnFull]
    isolate: bool
    weight: int | Callable[[Any], int]
    branch_timeout: float | timedelta | None
    idle_ttl: float | timedelta | None
    on_branch_error: Literal["continue", "stop_pipeline"] | BranchPolicy
    max_branches: int
    on_max_branches: Literal["reject", "overflow"]
    close_branches: bool
    on_new_branch: Callable[[Any], object] | None
    on_branch_closed: Callable[[Any], object] | None


class SinkOptions(TypedDict, total=False):
    """The options of `for_each`."""

    name: str | None
    concurrency: int
    retry: Retry | None
    timeout: float | timedelta | None
    inline: bool
    on_error: OnError | None


@dataclass(frozen=True, slots=True)
class StageInfo:
    """One stage, for people and programs that look at a pipeline.

    Attributes:
        kind: The builder method that added it.
        name: Its name, unique within the pipeline; reports and errors use it.
        is_async: Whether its callable is an `async def`, or the source an async iterable.
        takes_ctx: Whether its callable takes `ctx`.
        course: The name of the `tee` whose copies it works on; None for the items themselves.
        options: The options of its builder method, durations in float seconds.
    """

    kind: Kind
    name: str
    is_async: bool
    takes_ctx: bool
    course: str | None
    options: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage, for the driver.

    Attributes:
        kind: The builder method that added it.
        name: Its name, unique within the pipeline.
        fn: The user's callable, for `fan_out` a key callable; None where there is none.
        is_async: Whether `fn` returns awaitables.
        takes_ctx: Whether `fn` is to be called with `ctx=`.
        options: The plan's options of the stage, and its live objects: for a source "source",
            and "read", the channels it takes items from, for callables "retry", for `fan_out`
            "by", for a window "size_of", for what sends into one "channel", for what is closed with
            the run "closes", for what takes failures "takes", for `dead_letter` "path".
        course: Which course it belongs to: 0 for that of the items themselves, or the number of
            the tee whose copies it works on.
    """

    kind: Kind
    name: str
    fn: Callable[..., Any] | None
    is_async: bool
    takes_ctx: bool
    options: Mapping[str, Any]
    course: int = 0


@dataclass(frozen=True, slots=True)
class Settings:
    """What the pipeline as a whole was told; the arguments of `Pipeline`, times in seconds.

    `policy` is the user's own, if `rollback` was one; `letters` the stage that failures go to in
    the end whose stage, or whose pipeline, says so.
    """

    name: str
    max_in_flight: int
    threads: int
    on_error: OnError
    dead_letter: str | None
    grace: float
    commit: Literal["unit", "end"]
    rollback: Literal["sequential", "parallel", "none"]
    rollback_deadline: float | None
    seed: int | None
    clock: VirtualClock | None
    policy: Policy | None = None
    letters: Stage | None = None
    observe: str = "auto"


def extend(
    plan: _core.Plan,
    kind: Kind,
    label: str | None,
    options: Mapping[str, object],
    *,
    call: Call | None = None,
    live: Mapping[str, object] | None = None,
) -> tuple[_core.Plan, Stage]:
    """Add a stage to `plan`, which checks its options and its place.

    Args:
        plan: The plan so far; it stays as it is.
        kind: The builder method.
        label: What the stage would like to be called; the plan makes it unique.
        options: The values the plan checks, fills in and draws.
        call: The user's callable.
        live: Objects that the plan cannot hold, by option.

    Raises:
        ConfigError: The stage cannot stand there, or an option is not allowed.
    """
    plan = plan.stage(kind, label, dict(options))
    names = plan.names()
    checked: dict[str, Any] = plan.options(len(names) - 1)
    stage = Stage(
        kind=kind,
        name=names[-1],
        fn=None if call is None else call.fn,
        is_async=call is not None and call.is_async,
        takes_ctx=call is not None and call.takes_ctx,
        options=MappingProxyType({**checked, **(live or {})}),
        course=plan.courses()[len(names) - 1],
    )
    return plan, stage


def info(plan: _core.Plan, stages: tuple[Stage, ...]) -> tuple[StageInfo, ...]:
    """Describe `stages` without their live objects."""
    # Found out, not chosen: they have attributes of their own.
    found = ("is_async", "how", "label")
    tees = [None, *(stage.name for stage in stages if stage.kind == "tee")]
    return tuple(
        StageInfo(
            kind=stage.kind,
            name=stage.name,
            is_async=stage.is_async or stage.options.get("how") == "async",
            takes_ctx=stage.takes_ctx,
            course=tees[stage.course],
            options=MappingProxyType(
                {key: value for key, value in plan.options(index).items() if key not in found}
            ),
        )
        for index, stage in enumerate(stages)
    )


def retry_options(retry: object, *, pipeline: str, stage: str) -> dict[str, object] | None:
    """Return the values of a policy for the plan.

    Raises:
        ConfigError: It is no policy.
    """
    if retry is None:
        return None
    if not isinstance(retry, Retry):
        raise refused("retry", retry, "a Retry or None", pipeline=pipeline, stage=stage)
    return retry.plan_options()
