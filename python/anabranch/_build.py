"""From the stages of a pipeline to the legs of a run."""

from __future__ import annotations

import inspect
import secrets
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from anabranch import _branches, _callables, _failures, _pass, _weave
from anabranch._playback import arranging
from anabranch._stages import Stage
from anabranch.branch import pace
from anabranch.channel import Channel
from anabranch.keys import AttrKey, ItemKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from anabranch import _core
    from anabranch._core import UndoAction
    from anabranch._stages import Settings
    from anabranch._virtual import VirtualClock
    from anabranch.policy import Retry

# Where a handler runs; "channel" sends to the one at the end.
Runs: TypeAlias = Literal["inline", "pool", "tasks", "channel"]

# What waits in front of a stage before the fan-out.
_TRUNK_CAPACITY = 1000
# Seconds a callable has after its timeout to come to its end before it is left behind.
_TIMEOUT_GRACE = 5.0


@dataclass(frozen=True, slots=True)
class Window:
    """A window's triggers, durations in seconds."""

    max_items: int | None
    max_age: float | None
    idle: float | None
    max_bytes: int | None
    on_cancel: str | None
    size_of: Callable[[Any], int] | None


@dataclass(frozen=True, slots=True)
class Policy:
    """A retry policy: the plan's options, and what the plan cannot hold."""

    options: dict[str, object]
    budget: _core.RetryBudget | None
    retryable: Callable[[BaseException], bool]
    delay: Callable[[int, Exception], float | None] | None


@dataclass(frozen=True, slots=True)
class Leg:
    """One handler and what stands in front of it, as the extension takes it."""

    generated: _pass.Pass | None
    woven: _weave.Woven | None
    window: Window | None
    stage: int
    role: str
    runs: Runs
    handler: Callable[..., Any] | None
    takes_ctx: bool
    capacity: int
    isolate: bool
    concurrency: int
    ordered: bool
    throttle: tuple[float, int] | None
    retry: Policy | None
    timeout: float | None
    grace: float


@dataclass(frozen=True, slots=True)
class Spec:
    """A whole run, as the extension takes it."""

    name: str
    stages: list[str]
    source_kind: str
    source: object
    legs: list[Leg]
    fan_leg: int
    fan_stage: int
    branches: _branches.Branches
    key_kind: Literal["item", "attr"] | None
    key: object
    max_in_flight: int
    stop_on_error: bool
    seed: int
    policy: str
    rollback_deadline: float | None
    commit_at_end: bool
    arrange: Callable[[tuple[UndoAction, ...]], list[UndoAction]] | None
    threads: int
    target: _core.Channel | None
    grow: Callable[[], None]
    put: Callable[[Any], None]
    abandon: Callable[[Any], bool]
    other_threads: Callable[[], int]
    is_awaitable: Callable[[object], bool] = inspect.isawaitable
    inspect: Callable[[Any], tuple[str, bool, bool]] = _callables.examine_undo
    describe: Callable[..., str] = _failures.describe
    timed_out: Callable[..., BaseException] = _failures.timed_out
    undo_timed_out: Callable[..., BaseException] = _failures.undo_timed_out
    time: _core.VirtualTime | None = None


@dataclass(slots=True)
class _Legs:
    """Collects stages until a handler ends the leg."""

    pipeline: str
    legs: list[Leg] = field(default_factory=list[Leg])
    fused: list[tuple[int, Stage]] = field(default_factory=list[tuple[int, Stage]])
    window: Stage | None = None
    throttle: Stage | None = None
    capacity: int = _TRUNK_CAPACITY
    isolate: bool = False
    fan_leg: int | None = None
    fan_out: Stage | None = None
    fan_stage: int = 0

    def add(self, number: int, stage: Stage) -> None:
        own_call = stage.is_async or stage.options.get("retry") is not None
        if stage.kind == "window":
            if self.window is not None:
                self.forward(number)
            self.window = stage
        elif stage.kind == "throttle":
            if self.window is not None or self.throttle is not None:
                self.forward(number)
            self.throttle = stage
        elif stage.kind in ("for_each", "collect", "to_channel") or (
            own_call and stage.kind != "fan_out"
        ):
            self.close(number, stage)
        else:
            if self.window is not None or self.throttle is not None:
                self.forward(number)
            self.fused.append((number, stage))
            if stage.kind == "fan_out":
                self.fan_leg = len(self.legs)
                self.fan_out = stage
                self.fan_stage = number
                capacity = stage.options["capacity"]
                # A callable tells each tenant's own.
                self.capacity = capacity if isinstance(capacity, int) else _TRUNK_CAPACITY
                self.isolate = stage.options["isolate"]

    def forward(self, number: int) -> None:
        """End the leg with its window, or its throttle: what follows comes behind it."""
        self._append(number - 1, "forward", "inline", None, takes_ctx=False)

    def close(self, number: int, stage: Stage) -> None:
        """End the leg with a handler."""
        runs: Runs = "inline"
        if stage.kind == "to_channel":
            runs = "channel"
        elif stage.is_async:
            runs = "tasks"
        elif stage.kind == "for_each" and not stage.options["inline"]:
            runs = "pool"
        woven = None
        if self._weaves(stage):
            woven = _weave.weave(self.pipeline, self.fused, (number, stage))
        if woven is not None:
            self.fused = []
        self._append(
            number,
            stage.kind,
            runs,
            stage.fn,
            takes_ctx=stage.takes_ctx,
            concurrency=stage.options.get("concurrency", 1),
            ordered=stage.options.get("ordered", False),
            retry=stage.options.get("retry"),
            timeout=stage.options.get("timeout"),
            woven=woven,
        )

    def _weaves(self, stage: Stage) -> bool:
        """Return whether this sink takes the items of the source one by one, in order.

        Not with several at once: there a chunk mapped in one go is cheaper than a call of each
        callable in between two turns of the event loop.
        """
        return (
            stage.kind == "for_each"
            and stage.is_async
            and not stage.takes_ctx
            and stage.options["concurrency"] == 1
            and stage.options["retry"] is None
            and stage.options["timeout"] is None
            and not self.legs
            and self.window is None
            and self.throttle is None
            and self.fan_leg is None
        )

    def _append(
        self,
        stage: int,
        role: str,
        runs: Runs,
        handler: Callable[..., Any] | None,
        *,
        takes_ctx: bool,
        concurrency: int = 1,
        ordered: bool = False,
        retry: Retry | None = None,
        woven: _weave.Woven | None = None,
        timeout: float | None = None,
    ) -> None:
        # Behind the first leg every item has a history to keep.
        tracked = bool(self.legs) or any(it.takes_ctx for _, it in self.fused)
        generated = _pass.generate(self.pipeline, self.fused, tracked=tracked, last_stage=stage)
        self.legs.append(
            Leg(
                generated=generated,
                woven=woven,
                window=None if self.window is None else _window(self.window),
                stage=stage,
                role=role,
                runs=runs,
                handler=handler,
                takes_ctx=takes_ctx,
                capacity=self.capacity,
                isolate=self.isolate,
                concurrency=concurrency,
                ordered=ordered,
                throttle=None if self.throttle is None else _pace(self.throttle),
                retry=None if retry is None else _policy(retry),
                timeout=timeout,
                grace=_TIMEOUT_GRACE,
            )
        )
        self.fused = []
        self.window = None
        self.throttle = None


def build(
    settings: Settings,
    stages: Sequence[Stage],
    *,
    source: object,
    grow: Callable[[], None],
    put: Callable[[Any], None],
    abandon: Callable[[Any], bool],
    own_threads: Callable[[], int],
    clock: VirtualClock | None,
) -> Spec:
    """Make what the extension runs.

    Args:
        settings: The pipeline's settings.
        stages: Its stages, the source first.
        source: The live source: a sequence, an iterator, or a native source's options.
        grow: Sees to it that the pool has a thread for one more job.
        put: Hands a job to the pool.
        abandon: Replaces the thread that is stuck in a job; returns whether it did.
        own_threads: How many threads the pool has started.
        clock: The clock of a test; None for the machine's.
    """
    legs = _Legs(settings.name)
    for number, stage in enumerate(stages[1:], start=1):
        legs.add(number, stage)
    kind, key = _native_key(legs)
    seed = settings.seed
    if seed is None:
        policies = (stage.options.get("retry") for stage in stages)
        seed = next((it.seed for it in policies if it is not None and it.seed is not None), None)

    def other_threads() -> int:
        # Beside the driving one.
        return max(0, threading.active_count() - own_threads() - 1)

    return Spec(
        name=settings.name,
        stages=[stage.name for stage in stages],
        source_kind=stages[0].options["how"],
        source=source,
        legs=legs.legs,
        fan_leg=len(legs.legs) if legs.fan_leg is None else legs.fan_leg,
        fan_stage=legs.fan_stage,
        branches=(
            _branches.Branches()
            if legs.fan_out is None
            else _branches.living(settings.name, legs.fan_out, _policy)
        ),
        key_kind=kind,
        key=key,
        max_in_flight=settings.max_in_flight,
        stop_on_error=settings.on_error == "stop",
        seed=_seed(clock) if seed is None else seed,
        policy=settings.rollback if settings.policy is None else "custom",
        rollback_deadline=settings.rollback_deadline,
        commit_at_end=settings.commit == "end",
        arrange=None if settings.policy is None else arranging(settings.policy),
        threads=settings.threads,
        target=_target(stages[-1]),
        grow=grow,
        put=put,
        abandon=abandon,
        other_threads=other_threads,
        time=None if clock is None else clock._time,  # noqa: SLF001 - for the package
    )


def open_source(stage: Stage) -> tuple[object, Iterator[Any] | None]:
    """Return what the extension takes items from, and the iterator to be closed at the end.

    Raises:
        Exception: What the source's `__iter__` raises.
    """
    source = stage.options["source"]
    if isinstance(source, Channel):
        return source._core, None  # noqa: SLF001 - what it is made of is the package's
    if stage.options["how"] != "iterable":
        return source, None
    iterator = iter(source)
    return iterator, iterator


def _target(sink: Stage) -> _core.Channel | None:
    channel: Channel[Any] | None = sink.options.get("channel")
    return None if channel is None else channel._core  # noqa: SLF001 - as in open_source


def _seed(clock: VirtualClock | None) -> int:
    return secrets.randbits(64) if clock is None else clock._draw()  # noqa: SLF001 - as above


def _native_key(legs: _Legs) -> tuple[Literal["item", "attr"] | None, object]:
    if legs.fan_out is None or legs.fan_leg is None:
        return None, None
    generated = legs.legs[legs.fan_leg].generated
    if generated is not None and generated.keyed:
        return None, None
    by = legs.fan_out.options["by"]
    if isinstance(by, AttrKey):
        return "attr", by.name
    if isinstance(by, ItemKey):
        return "item", by.key
    return "item", by


def _window(stage: Stage) -> Window:
    options = stage.options
    return Window(
        max_items=options["max_items"],
        max_age=options["max_age"],
        idle=options["idle"],
        max_bytes=options["max_bytes"],
        on_cancel=options["on_cancel"],
        size_of=options["size_of"],
    )


def _pace(stage: Stage) -> tuple[float, int]:
    return pace(stage.options["rate"], stage.options["burst"])


def _policy(retry: Retry) -> Policy:
    return Policy(
        options=retry.plan_options(),
        budget=retry.budget,
        retryable=retry.retryable,
        delay=None if retry.delay is None else retry.seconds_after,
    )
