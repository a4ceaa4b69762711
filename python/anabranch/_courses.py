"""The builder's stages that give each item to several: tee, broadcast, share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

from anabranch._builder import Builder
from anabranch._callables import check_target, name_of
from anabranch._stages import SINKS
from anabranch.errors import refused

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from anabranch.channel import Channel
    from anabranch.pipeline import Pipeline

T = TypeVar("T")
U = TypeVar("U")

if TYPE_CHECKING:
    # Describes what becomes of copies: it is given the pipeline, and adds their stages.
    Course: TypeAlias = Callable[[Pipeline[T]], Pipeline[Any]]


class Courses(Builder[T]):
    """The stages that give each item to several."""

    __slots__ = ()

    def tee(self, course: Course[T], *, name: str | None = None) -> Pipeline[T]:
        """Give a copy of each item a course of its own, up to a sink; the item itself goes on.

        Both see all items, in the same order, and the same object: what one changes in it the
        other sees. A copy counts as produced, and comes to an end of its own. What was registered
        by `ctx.compensate` before the `tee` belongs to both: it is released when both have ended
        well, and undone once both have ended, if one of them has failed for good. What each
        registers afterwards is its own.

        A course that is full holds back what stands before the `tee`, and so in the end the other
        one: nothing is dropped. A failure in a course goes to the stages for failures in it; the
        stages behind the last sink of the pipeline take those of all courses.

        Args:
            course: A `def` or a lambda that is given the pipeline, adds the stages of the copies,
                ends them in a sink, and returns what it has got. It is called once, now.
            name: The stage's name; by default the name of `course`, or "tee" for a lambda.

        Raises:
            ConfigError: `course` returns something else, or the stage cannot stand here.

        Example:
            >>> import anabranch as ab
            >>> log = []
            >>> prices = ab.Pipeline("prices").source([3, 5])
            >>> prices = prices.tee(lambda s: s.map(str).for_each(log.append, inline=True))
            >>> report = prices.map(lambda price: price * 2).collect().run_blocking()
            >>> report.items, log, report.produced
            ([6, 10], ['3', '5'], 2)
        """
        label = name
        if label is None:
            label = name_of(course, otherwise="tee")
            label = "tee" if label == "lambda" else label
        begun = self._extended("tee", label, {})
        ended = _course(begun, course, argument="course", label=label)
        return ended._with(ended._plan.leave(), ended._stages)  # noqa: SLF001 - one of its own kind

    def broadcast(self, /, **courses: Course[T]) -> Pipeline[Any]:
        """Give each item to several courses, each up to a sink: the pipeline ends in them.

        It is `tee` for all but the last, which the items themselves go on to; that one may
        `fan_out`. One of them may `collect`.

        Args:
            **courses: At least two, by name: for each a `def` or a lambda, as for `tee`.

        Raises:
            ConfigError: A course returns something else than the pipeline with a sink.

        Example:
            >>> import anabranch as ab
            >>> orders = ab.Pipeline("orders").source(["book", "pen"])
            >>> pipeline = orders.broadcast(
            ...     audit=lambda s: s.for_each(print, inline=True),
            ...     main=lambda s: s.map(str.upper).collect(),
            ... )
            >>> report = pipeline.run_blocking()
            book
            pen
            >>> report.items, report.committed
            (['BOOK', 'PEN'], 4)
        """
        if len(courses) < 2:  # noqa: PLR2004 - with one there is nothing to copy
            allowed = "at least two, by name: broadcast(audit=lambda s: ..., main=lambda s: ...)"
            raise refused("courses", list(courses), allowed, pipeline=self.name, stage="broadcast")
        *copies, (last, course) = courses.items()
        pipeline = cast("Pipeline[T]", self)
        for label, each in copies:
            pipeline = pipeline.tee(each, name=label)
        return _course(pipeline, course, argument=last, label="broadcast")

    def share(self, *channels: Channel[T], close: bool = True, name: str = "share") -> Pipeline[T]:
        """Give each item to these channels, too, for others to read; the item itself goes on.

        It is `tee(lambda s: s.to_channel(channel))` for each: so that several may consume what the
        pipeline makes, which is run once. A channel that nobody reads holds the pipeline back when
        it is full.

        Args:
            channels: At least one, each once.
            close: Whether to close them at the end of the run; see `to_channel`.
            name: What the stages that copy are called.

        Raises:
            ConfigError: An argument is not allowed, or the stage cannot stand here.

        Example:
            >>> import anabranch as ab
            >>> audit: ab.Channel[int] = ab.Channel(10)
            >>> numbers = ab.Pipeline("numbers").source([1, 2]).share(audit).collect()
            >>> numbers.run_blocking().items, list(audit)
            ([1, 2], [1, 2])
        """
        for channel in channels:
            check_target(channel, pipeline=self.name, stage=name)
        if not channels or len({id(channel) for channel in channels}) < len(channels):
            allowed = "channels, at least one and each once"
            raise refused("channels", channels, allowed, pipeline=self.name, stage=name)
        pipeline = cast("Pipeline[T]", self)
        for channel in channels:
            to = _to(channel, close=close)
            pipeline = pipeline.tee(to, name=name)
        return pipeline


def _to(channel: Channel[T], *, close: bool) -> Course[T]:
    return lambda pipeline: pipeline.to_channel(channel, close=close)


def _course(begun: Pipeline[T], course: object, *, argument: str, label: str) -> Pipeline[Any]:
    """Let `course` add its stages to `begun`; return what it has got.

    Raises:
        ConfigError: It returns something else, or has not ended in a sink.
    """
    allowed = (
        "a def that is given the pipeline, and returns it with more stages, the last of which is a "
        "sink: for_each(...), collect(), to_channel(...) or to_outbox(...)"
    )

    def refuse(value: object, shown: str | None = None) -> Exception:
        return refused(argument, value, allowed, pipeline=begun.name, stage=label, shown=shown)

    if not callable(course):
        raise refuse(course)
    ended = course(begun)
    given = f"one that returned {ended!r}"
    if not isinstance(ended, type(begun)):
        raise refuse(course, given)
    before, stages = begun._stages, ended._stages  # noqa: SLF001 - of its own kind
    number = begun._plan.courses()[-1]  # noqa: SLF001 - as above
    grown = len(stages) > len(before) and all(
        one is other for one, other in zip(before, stages, strict=False)
    )
    ends = any(stage.kind in SINKS and stage.course == number for stage in stages)
    if not grown or not ends or ended._plan.courses()[-1] != number:  # noqa: SLF001 - as above
        raise refuse(course, given)
    return cast("Pipeline[Any]", ended)
