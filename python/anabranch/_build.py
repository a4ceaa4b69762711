"""From the stages of a pipeline to the legs of a run."""

from __future__ import annotations

import inspect
import secrets
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from anabranch import _branches, _failures, _observe, _pass
from anabranch._collecting import ErrorCollector
from anabranch._legs import Legs, retry_policy
from anabranch._letters import LetterFile
from anabranch._playback import arranging
from anabranch._stages import OPERATORS, Stage
from anabranch.channel import Channel
from anabranch.errors import refused
from anabranch.keys import AttrKey, ItemKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from anabranch import _core
    from anabranch._core import UndoAction
    from anabranch._legs import Leg
    from anabranch._stages import Settings
    from anabranch._virtual import VirtualClock
    from anabranch.failure import Failure


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
    grow: Callable[[], None]
    put: Callable[[Any], None]
    abandon: Callable[[Any, bool], bool]
    other_threads: Callable[[], int]
    stops: list[bool | None]
    rekey: _pass.Pass | None
    letters: list[LetterFile]
    collectors: list[ErrorCollector]
    is_awaitable: Callable[[object], bool] = inspect.isawaitable
    callbacks: _failures.Callbacks = field(default_factory=_failures.Callbacks)
    time: _core.VirtualTime | None = None
    monitor: _core.Monitor | None = None
    control: bool = False


def build(
    settings: Settings,
    stages: Sequence[Stage],
    *,
    source: object,
    grow: Callable[[], None],
    put: Callable[[Any], None],
    abandon: Callable[[Any, bool], bool],
    own_threads: Callable[[], int],
    clock: VirtualClock | None,
    now: Callable[[], float],
) -> Spec:
    """Make what the extension runs.

    Args:
        settings: The pipeline's settings.
        stages: Its stages, the source first.
        source: The live source: a sequence, an iterator, or a native source's options.
        grow: Sees to it that the pool has a thread for one more job.
        put: Hands a job to the pool.
        abandon: Replaces the thread that is stuck in a job, come what may if the run is ending;
            returns whether it did.
        own_threads: How many threads the pool has started.
        clock: The clock of a test; None for the machine's.
        now: Tells the time of the run, in seconds.

    Raises:
        ConfigError: A file for dead letters cannot be opened; its cause is the OSError.
    """
    stages = [*stages, *_last_letters(settings, stages)]
    letters: list[LetterFile] = []
    collectors: list[ErrorCollector] = []
    # A test's time passes only when the test moves it: nobody looks at it from outside.
    monitor, control = _observe.opened(settings.observe, virtual=clock is not None)

    def opened(stage: Stage) -> Callable[..., Any]:
        if stage.kind == "collect_errors":
            collectors.append(ErrorCollector(settings.name, stage, now))
            return collectors[-1]
        if "path" in stage.options:
            path = stage.options["path"]
            try:
                letters.append(LetterFile(path))
            except (OSError, ValueError) as error:  # a path with a null byte is a ValueError
                why = error.strerror if isinstance(error, OSError) else error
                allowed = f"the path of a file that can be appended to ({why})"
                name = settings.name
                raise refused("target", path, allowed, pipeline=name, stage=stage.name) from error
            return letters[-1]
        assert stage.fn is not None  # noqa: S101 - for the type: the others have one
        return stage.fn

    legs = Legs(settings.name, opened, not any(stage.kind in OPERATORS for stage in stages))
    try:
        for number, stage in enumerate(stages[1:], start=1):
            legs.add(number, stage)
    except BaseException:
        for file in letters:
            file.close()
        raise
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
            else _branches.living(
                settings.name,
                legs.fan_out,
                retry_policy,
                addressed=settings.letters is not None,
            )
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
        grow=grow,
        put=put,
        abandon=abandon,
        other_threads=other_threads,
        stops=[_stops(stage) for stage in stages],
        rekey=legs.rekey(),
        letters=letters,
        collectors=collectors,
        time=None if clock is None else clock._time,  # noqa: SLF001 - for the package
        monitor=monitor,
        control=control,
    )


def open_source(stage: Stage) -> tuple[object, Iterator[Any] | None]:
    """Return what the extension takes items from, and the iterator to be closed at the end.

    A source whose `__iter__` raises fails as one whose `__next__` does.
    """
    source = stage.options["source"]
    if isinstance(source, Channel):
        return source._core, None  # noqa: SLF001 - what it is made of is the package's
    if stage.options["how"] != "iterable":
        return source, None
    try:
        iterator = iter(source)
    except BaseException as error:  # noqa: BLE001 - raised again where it is the source's failure
        return _raising(error), None
    return iterator, iterator


def _raising(error: BaseException) -> Iterator[Any]:
    def fail() -> NoReturn:
        raise error

    return iter(fail, None)


def _last_letters(settings: Settings, stages: Sequence[Stage]) -> list[Stage]:
    """Return the stage behind all others that takes failures by `on_error` or `on_full`, if any."""
    letters = settings.letters
    if letters is None:
        return []
    there = {
        stage.name
        for stage in stages
        if (stage.options.get("on_error") or settings.on_error) == "dead_letter"
    }
    fan_out = next((stage for stage in stages if stage.kind == "fan_out"), None)
    full = fan_out
    if fan_out is not None and fan_out.options["mode_of"] is None:
        full = fan_out if fan_out.options["on_full"] == "dead_letter" else None
    if not there and full is None:
        return []
    # A name that no stage has.
    name = letters.name
    while any(stage.name == name for stage in stages):
        name += "_"

    def takes(failure: Failure) -> bool:
        if failure.stage in there:
            return True
        return (
            full is not None
            and (failure.stage, failure.code) == (full.name, "branch.full")
            and (full.options["mode_of"] is None or failure.tenant in full.options["lettered"])
        )

    return [replace(letters, name=name, options={**letters.options, "takes": takes})]


def _stops(stage: Stage) -> bool | None:
    on_error = stage.options.get("on_error")
    return None if on_error is None else on_error == "stop"


def _seed(clock: VirtualClock | None) -> int:
    return secrets.randbits(64) if clock is None else clock._draw()  # noqa: SLF001 - as above


def _native_key(legs: Legs) -> tuple[Literal["item", "attr"] | None, object]:
    if legs.fan_out is None or legs.fan_leg is None:
        return None, None
    leg = legs.key_leg()
    generated = None if leg is None else leg.generated
    if generated is not None and generated.keyed:
        return None, None
    by = legs.fan_out.options["by"]
    if isinstance(by, AttrKey):
        return "attr", by.name
    if isinstance(by, ItemKey):
        return "item", by.key
    return "item", by
