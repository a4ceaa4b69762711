"""The legs of a run: each handler with the stages, and the window, in front of it."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from anabranch import _pass, _weave
from anabranch._landing import RESULTS, land
from anabranch._stages import OPERATORS, Stage
from anabranch.branch import pace

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from anabranch import _core
    from anabranch.channel import Channel
    from anabranch.failure import Failure
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
    stage: int


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
    heartbeat: float | None
    retry: Policy | None
    timeout: float | None
    grace: float
    course: int = 0
    copies: int | None = None
    target: _core.Channel | None = None
    rest: _pass.Pass | None = None
    takes: Callable[[Failure], bool] | None = None


@dataclass(slots=True)
class Legs:
    """Collects stages until a handler ends the leg.

    What takes failures is a leg of its own in between: items go past it, and what it recovers
    passes the rest of the stages in front of the next handler. The legs of a tee's copies stand
    between its own and those that the items go on to.
    """

    pipeline: str
    opened: Callable[[Stage], Callable[..., Any]]
    weaves: bool
    legs: list[Leg] = field(default_factory=list[Leg])
    fused: list[tuple[int, Stage]] = field(default_factory=list[tuple[int, Stage]])
    window: Window | None = None
    throttle: Stage | None = None
    heartbeat: Stage | None = None
    course: int = 0
    tees: int = 0
    capacity: int = _TRUNK_CAPACITY
    isolate: bool = False
    fan_leg: int | None = None
    fan_out: Stage | None = None
    fan_stage: int = 0

    def add(self, number: int, stage: Stage) -> None:
        self.course = stage.course
        if stage.kind in OPERATORS:
            self.operator(number, stage)
            return
        own_call = stage.is_async or stage.options.get("retry") is not None
        if stage.kind == "window":
            if self.window is not None or self.heartbeat is not None:
                self.forward(number)
            self.window = _window(number, stage)
        elif stage.kind in ("throttle", "heartbeat"):
            self.timed(number, stage)
        elif stage.kind in ("for_each", "collect", "to_channel", "tee") or (
            own_call and stage.kind != "fan_out"
        ):
            self.close(number, stage)
        else:
            if self.waits:
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

    def timed(self, number: int, stage: Stage) -> None:
        """Begin a leg with what goes by the clock."""
        if self.waits:
            self.forward(number)
        if stage.kind == "throttle":
            self.throttle = stage
        else:
            self.heartbeat = stage

    @property
    def waits(self) -> bool:
        """Whether a window, a throttle or a heartbeat stands in front of what comes next."""
        return not (self.window is None and self.throttle is None and self.heartbeat is None)

    def operator(self, number: int, stage: Stage) -> None:
        """Add a leg for failures."""
        if stage.kind == "recover" and self.waits:
            # What it gives does not go into a window that stands before it.
            self.forward(number)
        options = stage.options
        runs: Runs = "inline"
        if stage.is_async and stage.kind != "collect_errors":
            runs = "tasks"
        elif stage.kind == "dead_letter" and not options["inline"]:
            runs = "pool"
        retry = options.get("retry")
        leg = Leg(
            generated=None,
            woven=None,
            window=None,
            stage=number,
            role=stage.kind,
            runs=runs,
            handler=self.opened(stage),
            takes_ctx=stage.takes_ctx,
            capacity=self.capacity,
            isolate=self.isolate,
            concurrency=options.get("concurrency", 1),
            ordered=options.get("ordered", False),
            throttle=None,
            heartbeat=None,
            retry=None if retry is None else retry_policy(retry),
            timeout=options.get("timeout"),
            grace=_TIMEOUT_GRACE,
            takes=options["takes"],
            course=self.course,
        )
        self.legs.append(leg)

    def forward(self, number: int) -> None:
        """End the leg with its window, throttle or heartbeat: what follows comes behind it."""
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
        ensures = stage.kind == "ensure"
        channel: Channel[Any] | None = None
        if stage.kind == "to_channel":
            channel = stage.options["channel"]
        if stage.kind == "tee":
            self.tees += 1
        self._append(
            number,
            "map" if ensures else stage.kind,
            runs,
            _ensuring(stage) if ensures else stage.fn,
            takes_ctx=stage.takes_ctx,
            concurrency=stage.options.get("concurrency", 1),
            ordered=stage.options.get("ordered", False),
            retry=stage.options.get("retry"),
            timeout=stage.options.get("timeout"),
            woven=woven,
            copies=self.tees if stage.kind == "tee" else None,
            target=None if channel is None else channel._core,  # noqa: SLF001 - the package's
        )

    def _weaves(self, stage: Stage) -> bool:
        """Return whether this sink takes the items of the source one by one, in order.

        Not with several at once: there a chunk mapped in one go is cheaper than a call of each
        callable in between two turns of the event loop.
        """
        return (
            self.weaves
            and stage.kind == "for_each"
            and stage.is_async
            and not stage.takes_ctx
            and stage.options["concurrency"] == 1
            and stage.options["retry"] is None
            and stage.options["timeout"] is None
            and not self.legs
            and not self.waits
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
        copies: int | None = None,
        target: _core.Channel | None = None,
    ) -> None:
        # Behind the first handler every item has a history to keep.
        handled = any(leg.role not in OPERATORS for leg in self.legs)
        tracked = handled or any(it.takes_ctx for _, it in self.fused)
        self._rest(stage)
        generated = self._generate(self.fused, tracked=tracked, last_stage=stage)
        self.legs.append(
            Leg(
                generated=generated,
                woven=woven,
                window=self.window,
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
                heartbeat=None if self.heartbeat is None else self.heartbeat.options["every"],
                retry=None if retry is None else retry_policy(retry),
                timeout=timeout,
                grace=_TIMEOUT_GRACE,
                course=self.course,
                copies=copies,
                target=target,
            )
        )
        self.fused = []
        self.window = None
        self.throttle = None
        self.heartbeat = None

    def _rest(self, last: int) -> None:
        """Give what recovers failures the stages between it and the handler that now follows."""
        for at in range(len(self.legs) - 1, -1, -1):
            leg = self.legs[at]
            if leg.role not in OPERATORS or leg.course != self.course:
                return
            behind = [(number, stage) for number, stage in self.fused if number > leg.stage]
            rest = self._generate(behind, tracked=True, last_stage=last)
            self.legs[at] = replace(leg, rest=rest)

    def _generate(
        self, stages: list[tuple[int, Stage]], *, tracked: bool, last_stage: int
    ) -> _pass.Pass | None:
        fan_out = self.fan_out
        return _pass.generate(
            self.pipeline,
            stages,
            tracked=tracked,
            last_stage=last_stage,
            counted=fan_out is not None and fan_out.options["branch_policy"] != "continue",
            behind=fan_out is not None and all(stage is not fan_out for _, stage in stages),
        )

    def key_leg(self) -> Leg | None:
        """Return the leg in front of which items part by their keys."""
        behind = self.legs[len(self.legs) if self.fan_leg is None else self.fan_leg :]
        return next((leg for leg in behind if leg.role not in OPERATORS), None)

    def rekey(self) -> _pass.Pass | None:
        """Return what finds the keys of items recovered behind the fan-out."""
        if self.fan_leg is None or self.fan_out is None:
            return None
        if not any(leg.role == "recover" for leg in self.legs[self.fan_leg :]):
            return None
        stages = [(self.fan_stage, self.fan_out)]
        return _pass.generate(
            self.pipeline, stages, tracked=True, last_stage=self.fan_stage, natively=False
        )


def _ensuring(stage: Stage) -> Callable[..., Any]:
    """Make a `map` of an `ensure`."""
    fn, refusal = stage.fn, stage.options["refusal"]
    assert fn is not None  # noqa: S101 - for the type: it has one

    def judged(item: object, verdict: object) -> object:
        if not land(verdict):
            raise refusal(item)
        return item

    async def judged_later(item: object, verdict: Awaitable[object]) -> object:
        return judged(item, await verdict)

    async def ensured(item: object, **ctx: object) -> object:
        return judged(item, await fn(item, **ctx))

    def ensured_here(item: object, **ctx: object) -> object:
        verdict = fn(item, **ctx)
        # An async def that does not look like one: like all that handlers return, it is awaited.
        if inspect.isawaitable(verdict) and type(verdict) not in RESULTS:
            return judged_later(item, verdict)
        return judged(item, verdict)

    return ensured if stage.is_async else ensured_here


def _window(number: int, stage: Stage) -> Window:
    options = stage.options
    return Window(
        max_items=options["max_items"],
        max_age=options["max_age"],
        idle=options["idle"],
        max_bytes=options["max_bytes"],
        on_cancel=options["on_cancel"],
        size_of=options["size_of"],
        stage=number,
    )


def _pace(stage: Stage) -> tuple[float, int]:
    return pace(stage.options["rate"], stage.options["burst"])


def retry_policy(retry: Retry) -> Policy:
    """Return a retry policy as the extension takes it."""
    return Policy(
        options=retry.plan_options(),
        budget=retry.budget,
        retryable=retry.retryable,
        delay=None if retry.delay is None else retry.seconds_after,
    )
