"""What a pipeline under construction is: its plan, its stages, and how one more is added.

The methods that add stages stand in files by subject, as parts of `Pipeline`: `_transforms` for
what is called per item, `_grouping` for branches and windows, `_courses` for copies, `_operators`
for failures, `_sinks` for the end.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from anabranch._callables import examine, name_of
from anabranch._stages import extend, info, retry_options
from anabranch.errors import refused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from anabranch import _core
    from anabranch._callables import Call
    from anabranch._stages import Kind, Settings, Stage, StageInfo
    from anabranch.pipeline import Pipeline
    from anabranch.policy import Retry
    from anabranch.report import Report

T = TypeVar("T")


class Builder(Generic[T]):
    """The part of a Pipeline that all the others stand on."""

    __slots__ = ("__weakref__", "_last_report", "_plan", "_settings", "_since", "_stages", "_turn")

    _settings: Settings
    _plan: _core.Plan
    _stages: tuple[Stage, ...]
    _last_report: Report[T] | None
    _since: datetime | None

    def _become(self, settings: Settings, plan: _core.Plan, stages: tuple[Stage, ...]) -> None:
        self._settings = settings
        self._plan = plan
        self._stages = stages
        # Taken by the run and never given back. A lock, because two threads may try.
        self._turn = threading.Lock()
        self._last_report = None
        # When its run began.
        self._since = None

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return self._settings.name

    @property
    def stages(self) -> tuple[StageInfo, ...]:
        """The stages, the source first."""
        return info(self._plan, self._stages)

    def describe(self) -> str:
        """Return the pipeline as a listing, one line per stage.

        Example:
            >>> import anabranch as ab
            >>> print(ab.Pipeline("p").source([1]).collect().describe())
            pipeline 'p': max_in_flight=256 units, threads=8, on_error=continue, grace=30 s
              1  source    list     how=sequence, label=list
              2  collect   collect
        """
        return self._plan.describe()

    def mermaid(self) -> str:
        """Return the pipeline as a Mermaid flowchart; what runs once per tenant is boxed."""
        return self._plan.mermaid()

    def __repr__(self) -> str:
        return f"<Pipeline {self.name!r}: {' > '.join(stage.name for stage in self._stages)}>"

    def _called(
        self,
        kind: Kind,
        fn: Callable[..., Any],
        name: str | None,
        retry: Retry | None,
        *,
        argument: str = "fn",
        live: Mapping[str, object] | None = None,
        **options: object,
    ) -> Pipeline[Any]:
        label = name_of(fn, otherwise=kind) if name is None else name
        flat = kind == "flat_map"
        call = examine(fn, pipeline=self.name, stage=label, argument=argument, generates=flat)
        if call.is_async and (inline := options.get("inline")):
            allowed = "False for an `async def`, which runs in the event loop"
            raise refused("inline", inline, allowed, pipeline=self.name, stage=label)
        concurrency = options.get("concurrency", 1)
        here = not call.is_async and (kind != "for_each" or options["inline"])
        if here and isinstance(concurrency, int) and concurrency > 1:
            allowed = "1 for a `def` that runs in the pipeline's own thread"
            raise refused("concurrency", concurrency, allowed, pipeline=self.name, stage=label)
        options["retry"] = retry_options(retry, pipeline=self.name, stage=label)
        options["is_async"] = call.is_async
        return self._extended(
            kind, label, options, call=call, live={"retry": retry, **(live or {})}
        )

    def _extended(
        self,
        kind: Kind,
        label: str | None,
        options: Mapping[str, object],
        *,
        call: Call | None = None,
        live: Mapping[str, object] | None = None,
    ) -> Pipeline[Any]:
        plan, stage = extend(self._plan, kind, label, options, call=call, live=live)
        self._check_channels(stage)
        return self._with(plan, (*self._stages, stage))

    def _with(self, plan: _core.Plan, stages: tuple[Stage, ...]) -> Pipeline[Any]:
        extended = object.__new__(type(self))
        extended._become(self._settings, plan, stages)
        # The one class that has all the parts.
        return cast("Pipeline[Any]", extended)

    def _check_channels(self, added: Stage) -> None:
        """See that no channel is both read and sent into: nothing would end, or go on, by itself.

        What is sent would come again; and a full channel would wait for the one who waits.
        """
        last = self._settings.letters
        stages = (*self._stages, added, *(() if last is None else (last,)))
        read = [channel for stage in stages for channel in stage.options.get("read", ())]
        for stage in stages:
            channel = stage.options.get("channel")
            if any(channel is it for it in read):
                argument = "channel" if stage.kind == "to_channel" else "target"
                if stage is last:
                    argument = "dead_letter"
                allowed = "another channel than the pipeline reads: what it sends would come again"
                of_stage = None if stage is last else stage.name
                raise refused(argument, channel, allowed, pipeline=self.name, stage=of_stage)
