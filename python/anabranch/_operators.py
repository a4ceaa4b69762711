"""The builder's stages for failures: recover, tap_error, map_error, dead_letter, collect_errors.

A failure goes past windows, keys and callables to the first of these behind the place where it
arose; items go past these. They may stand behind the sink, too.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from anabranch._builder import Builder
from anabranch._callables import Call, examine, name_of
from anabranch._stages import Stage, retry_options
from anabranch.channel import Channel
from anabranch.codes import is_code
from anabranch.errors import refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping
    from datetime import timedelta
    from typing import TypeAlias, Unpack

    from anabranch._callables import WithCtx
    from anabranch._stages import Kind, OperatorOptions
    from anabranch.counts import ErrorSummary
    from anabranch.failure import Failure
    from anabranch.pipeline import Pipeline
    from anabranch.policy import Retry

    Types: TypeAlias = type[BaseException] | Collection[type[BaseException]]
    Target: TypeAlias = (
        Callable[[Failure], object]
        | WithCtx[Failure, object]
        | str
        | os.PathLike[str]
        | Channel[Failure]
    )

T = TypeVar("T")
U = TypeVar("U")


class Operators(Builder[T]):
    """The stages that take failures."""

    __slots__ = ()

    @overload
    def recover(
        self, fn: Callable[[Failure], Awaitable[U]], **options: Unpack[OperatorOptions]
    ) -> Pipeline[T | U]: ...
    @overload
    def recover(
        self, fn: WithCtx[Failure, Awaitable[U]], **options: Unpack[OperatorOptions]
    ) -> Pipeline[T | U]: ...
    @overload
    def recover(
        self, fn: Callable[[Failure], U], **options: Unpack[OperatorOptions]
    ) -> Pipeline[T | U]: ...
    @overload
    def recover(
        self, fn: WithCtx[Failure, U], **options: Unpack[OperatorOptions]
    ) -> Pipeline[T | U]: ...
    def recover(
        self,
        fn: Callable[..., Any],
        *,
        codes: str | Collection[str] | None = None,
        types: Types | None = None,
        name: str | None = None,
        concurrency: int = 1,
        ordered: bool = True,
        retry: Retry | None = None,
        timeout: float | timedelta | None = None,
    ) -> Pipeline[Any]:
        """Make an item of each failure from before: what `fn(failure)` returns goes on from here.

        What the unit had done was undone before. Its items count as recovered, not as failed, and
        once more where they end: a window that was recovered goes on as one value, and counts all
        its items. Behind the sink there is nothing to go on to: there they are committed.

        A failure that arose before `fan_out` and is recovered behind it goes to the branch of the
        key that the new item has.

        Args:
            fn: A `def`, which runs in the pipeline's own thread, or an `async def`; it is given a
                Failure. If it raises, that is a failure, whose cause is the exception it was
                given; it goes on to the stages for failures behind this one.
            codes: Only failures with this code, or one of these; `types` adds to them.
            types: Only failures whose exception is of this type, or one of these.
            name: The stage's name; the callable's by default.
            concurrency: How many calls of an `async def` may be under way at once, per branch.
            ordered: Whether what is recovered leaves in the order it came.
            retry: When and how often a failed call is tried again; None never.
            timeout: Seconds that one call of an `async def` may take; see `for_each`.

        Raises:
            ConfigError: An argument is not allowed, or the stage cannot stand here.

        Example:
            >>> import anabranch as ab
            >>> pipeline = ab.Pipeline("p").source(["1", "x", "3"]).map(int)
            >>> pipeline = pipeline.recover(lambda failure: 0, types=ValueError).collect()
            >>> report = pipeline.run_blocking()
            >>> report.items, report.failed, report.recovered
            ([1, 3, 0], 0, 1)
        """
        only = _Only(codes, types)
        options = {"ordered": ordered, "timeout": timeout}
        return self._taking(
            "recover", fn, name, only, retry=retry, concurrency=concurrency, **options
        )

    @overload
    def tap_error(
        self, fn: Callable[[Failure], object], **options: Unpack[OperatorOptions]
    ) -> Pipeline[T]: ...
    @overload
    def tap_error(
        self, fn: WithCtx[Failure, object], **options: Unpack[OperatorOptions]
    ) -> Pipeline[T]: ...
    def tap_error(
        self,
        fn: Callable[..., Any],
        *,
        codes: str | Collection[str] | None = None,
        types: Types | None = None,
        name: str | None = None,
        concurrency: int = 1,
        ordered: bool = True,
        retry: Retry | None = None,
        timeout: float | timedelta | None = None,
    ) -> Pipeline[T]:
        """Call `fn(failure)` for each failure from before, and pass it on.

        Arguments and errors are those of `recover`.

        Example:
            >>> import anabranch as ab
            >>> pipeline = ab.Pipeline("p").source(["1", "x"]).map(int).collect().tap_error(print)
            >>> report = pipeline.run_blocking()
            stage 'int': ValueError: invalid literal for int() with base 10: 'x'
            >>> report.items, report.failed
            ([1], 1)
        """
        only = _Only(codes, types)
        options = {"ordered": ordered, "timeout": timeout}
        return self._taking(
            "tap_error", fn, name, only, retry=retry, concurrency=concurrency, **options
        )

    @overload
    def map_error(
        self,
        fn: Callable[[Failure], Failure | Exception | Awaitable[Failure | Exception]],
        **options: Unpack[OperatorOptions],
    ) -> Pipeline[T]: ...
    @overload
    def map_error(
        self,
        fn: WithCtx[Failure, Failure | Exception | Awaitable[Failure | Exception]],
        **options: Unpack[OperatorOptions],
    ) -> Pipeline[T]: ...
    def map_error(
        self,
        fn: Callable[..., Any],
        *,
        codes: str | Collection[str] | None = None,
        types: Types | None = None,
        name: str | None = None,
        concurrency: int = 1,
        ordered: bool = True,
        retry: Retry | None = None,
        timeout: float | timedelta | None = None,
    ) -> Pipeline[T]:
        """Replace what each failure from before tells by what `fn(failure)` returns.

        It returns an exception, whose cause becomes the one it was given, or a Failure, mostly
        `failure.replace(code=..., message=..., metadata=...)`. Where it arose, and what failed
        with it, stays. Other arguments and errors are those of `recover`.

        Example:
            >>> import anabranch as ab
            >>> class Unreadable(Exception): ...
            >>> pipeline = ab.Pipeline("p").source(["x"]).map(int).collect()
            >>> pipeline = pipeline.map_error(lambda failure: Unreadable(failure.item))
            >>> report = pipeline.run_blocking()
            >>> report.codes, type(report.failures[0].error.__cause__)
            ({'Unreadable': 1}, <class 'ValueError'>)
        """
        only = _Only(codes, types)
        options = {"ordered": ordered, "timeout": timeout}
        return self._taking(
            "map_error", fn, name, only, retry=retry, concurrency=concurrency, **options
        )

    def dead_letter(
        self,
        target: Target,
        *,
        codes: str | Collection[str] | None = None,
        types: Types | None = None,
        name: str | None = None,
        concurrency: int = 1,
        retry: Retry | None = None,
        timeout: float | timedelta | None = None,
        inline: bool = False,
    ) -> Pipeline[T]:
        """Hand each failure from before to `target`; its items count as dead-lettered.

        A failure that the target does not take (it raises, the file cannot be written, the channel
        is closed) has failed, with the exception it was given as the cause.

        Args:
            target: A `def`, which runs on the pipeline's pool of threads, or an `async def`; it is
                given a Failure. Or the path of a file: each failure is appended to it as one line
                of JSON (`Failure.to_dict`), and written before the next one; an item without a JSON
                form as its text, and where it has none as `<Type without a text>`. Or a Channel
                of Failures, but none that the pipeline reads: a full one is waited for, unless it
                drops (what it drops counts as dead-lettered), and it stays open at the end.
            codes: Only failures with this code, or one of these; `types` adds to them.
            types: Only failures whose exception is of this type, or one of these.
            name: The stage's name; by default the callable's, the channel's, or "dead_letter".
            concurrency: How many calls may be under way at once, per branch.
            retry: When and how often a failed call is tried again; None never.
            timeout: Seconds that one call may take; see `for_each`.
            inline: Whether to run a `def` in the pipeline's own thread.

        Raises:
            ConfigError: An argument is not allowed, or the stage cannot stand here.
            ConfigError: Of the run: the file cannot be opened; its cause is the OSError.

        Example:
            >>> import anabranch as ab
            >>> letters = []
            >>> pipeline = ab.Pipeline("p").source(["1", "x"]).map(int).collect()
            >>> report = pipeline.dead_letter(letters.append, inline=True).run_blocking()
            >>> report.ok, report.dead_lettered, [failure.item for failure in letters]
            (True, 1, ['x'])
        """
        label, call, live = letters(target, pipeline=self.name, stage=name or "dead_letter")
        return self._takes(
            "dead_letter",
            call,
            label if name is None else name,
            _Only(codes, types),
            live,
            {
                "label": label,
                "retry": retry,
                "concurrency": concurrency,
                "timeout": timeout,
                "inline": inline,
            },
        )

    def collect_errors(
        self,
        *,
        every: float | timedelta | None = None,
        to: Callable[[ErrorSummary], object] | None = None,
        samples: int = 10,
        codes: str | Collection[str] | None = None,
        types: Types | None = None,
        name: str | None = None,
    ) -> Pipeline[T]:
        """Count the failures from before by code, keep the first of them, and pass all on.

        What it has seen in the whole run is in `report.errors`, by the stage's name.

        Args:
            every: Seconds between two calls of `to`, by the pipeline's clock; each is given what
                came since the last one, if anything did. None: one call at the end.
            to: A `def` or an `async def` that is given an ErrorSummary; at the end it is called
                once more with the rest. What it raises is logged.
            samples: The most failures that one summary keeps; 0 to 1000.
            codes: Only failures with this code, or one of these; `types` adds to them.
            types: Only failures whose exception is of this type, or one of these.
            name: The stage's name; "collect_errors" by default.

        Raises:
            ConfigError: An argument is not allowed, or the stage cannot stand here.

        Example:
            >>> import anabranch as ab
            >>> pipeline = ab.Pipeline("p").source(["1", "x", "y"]).map(int).collect_errors()
            >>> report = pipeline.recover(lambda failure: 0).collect().run_blocking()
            >>> report.failed, dict(report.errors["collect_errors"].codes)
            (0, {'ValueError': 2})
        """
        stage = "collect_errors" if name is None else name
        call: Call | None = None
        if to is not None:
            call = examine(
                to,
                pipeline=self.name,
                stage=stage,
                argument="to",
                takes="the ErrorSummary",
                alone=True,
            )
        only, takes = _Only(codes, types).check(pipeline=self.name, stage=stage)
        options = {
            "only": only,
            "every": every,
            "to": None if to is None else name_of(to),
            "samples": samples,
            "is_async": call is not None and call.is_async,
        }
        live = {"takes": takes, "told": to}
        extended = self._extended("collect_errors", name, options, call=call, live=live)
        # Last: a period that is none has been refused as such.
        if to is None and every is not None:
            allowed = "a callable that takes the ErrorSummary, where `every` is given"
            raise refused("to", to, allowed, pipeline=self.name, stage=stage)
        return extended

    def _taking(
        self,
        kind: Kind,
        fn: Callable[..., Any],
        name: str | None,
        only: _Only,
        *,
        retry: Retry | None,
        concurrency: int,
        **options: object,
    ) -> Pipeline[Any]:
        label = name_of(fn, otherwise=kind) if name is None else name
        call = examine(fn, pipeline=self.name, stage=label, takes="a Failure")
        options |= {"retry": retry, "concurrency": concurrency}
        return self._takes(kind, call, label, only, {}, options)

    def _takes(  # noqa: PLR0917 - all of it is what each of them has
        self,
        kind: Kind,
        call: Call,
        name: str,
        only: _Only,
        live: Mapping[str, object],
        options: Mapping[str, object],
    ) -> Pipeline[Any]:
        shown, takes = only.check(pipeline=self.name, stage=name)
        retry, concurrency = options["retry"], options["concurrency"]
        here = not call.is_async and options.get("inline", kind != "dead_letter")
        if here and isinstance(concurrency, int) and concurrency > 1:
            allowed = "1 for a `def` that runs in the pipeline's own thread"
            raise refused("concurrency", concurrency, allowed, pipeline=self.name, stage=name)
        options = {
            **options,
            "only": shown,
            "retry": retry_options(retry, pipeline=self.name, stage=name),
            "is_async": call.is_async,
        }
        live = {**live, "retry": retry, "takes": takes}
        return self._extended(kind, name, options, call=call, live=live)


def letters(target: object, *, pipeline: str, stage: str) -> tuple[str, Call, dict[str, object]]:
    """Find out how failures are handed to `target`: its name, the call, and what is opened.

    Raises:
        ConfigError: It takes no failures.
    """
    if isinstance(target, Channel):
        channel = cast("Channel[Failure]", target)
        call = Call(channel.send, is_async=True, takes_ctx=False)
        return channel.name, call, {"channel": channel}
    if isinstance(target, str | os.PathLike):
        path: str = os.fspath(cast("os.PathLike[str]", target))
        if not path:
            allowed = "the path of a file"
            raise refused("target", path, allowed, pipeline=pipeline, stage=stage)
        return "dead_letter", Call(_unopened, is_async=False, takes_ctx=False), {"path": path}
    label = name_of(target, otherwise="dead_letter")
    if not callable(target):
        allowed = "a callable that takes a Failure, the path of a file, or a Channel"
        raise refused("target", target, allowed, pipeline=pipeline, stage=label)
    call = examine(target, pipeline=pipeline, stage=label, argument="target", takes="a Failure")
    return label, call, {}


def last_letters(call: Call, live: Mapping[str, object]) -> Stage:
    """Return the stage that no builder method has added: failures end there by `on_error`."""
    options = {"inline": False, "concurrency": 1, "retry": None, "timeout": None, "takes": None}
    return Stage(
        kind="dead_letter",
        name="on_error",
        fn=call.fn,
        is_async=call.is_async,
        takes_ctx=call.takes_ctx,
        options={**options, **live},
    )


def _unopened(failure: Failure) -> None:
    """Stand for a file until the run opens it."""
    raise AssertionError(failure)


@dataclass(frozen=True, slots=True)
class _Only:
    """Which failures an operator takes: with one of the codes, or one of the types; None: all."""

    codes: object
    types: object

    def check(
        self, *, pipeline: str, stage: str
    ) -> tuple[str | None, Callable[[Failure], bool] | None]:
        """Return it in words, and as a predicate; None for all.

        Raises:
            ConfigError: One of the two is neither what it says nor several of that.
        """
        if self.codes is None and self.types is None:
            return None, None
        codes = _several(self.codes)
        if self.codes is not None and not (codes and all(map(is_code, codes))):
            allowed = "a code, or several of them"
            raise refused("codes", self.codes, allowed, pipeline=pipeline, stage=stage)
        types = _several(self.types)
        if self.types is not None and not (types and all(_is_exception(it) for it in types)):
            allowed = "an exception type, or several of them"
            raise refused("types", self.types, allowed, pipeline=pipeline, stage=stage)

        def takes(failure: Failure) -> bool:
            return failure.code in codes or isinstance(failure.error, types)

        return " or ".join((*codes, *(kind.__name__ for kind in types))), takes


def _several(given: Any) -> tuple[Any, ...]:  # noqa: ANN401 - whatever was passed
    if given is None or isinstance(given, str | type):
        return () if given is None else (given,)
    return tuple(given) if hasattr(given, "__iter__") else ()


def _is_exception(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseException)
