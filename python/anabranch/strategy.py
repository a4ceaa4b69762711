"""`Strategy`: which of many readers that have something is read next."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from anabranch.errors import refused

if TYPE_CHECKING:
    from datetime import timedelta

_PLAIN: Final = ("round_robin", "longest_queue", "oldest_first", "drain_first", "sticky")
_MOST_LEVEL: Final = 2**32 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceState:
    """A source, as a strategy of your own sees it.

    Attributes:
        number: Its place among the sources, from 0.
        name: Its name.
        ready: Whether it has something to be read.
        depth: How many items are inside it.
        age: Seconds for which it has been ready; 0.0 if it is not.
        ended: Whether nothing more will come.
    """

    number: int
    name: str
    ready: bool
    depth: int
    age: float
    ended: bool


Chooser: TypeAlias = Callable[[Sequence[SourceState]], "int | None"]
"""A strategy of your own: given all sources, it returns the number of the one to be read, or None
to wait until another one, which has not ended, is ready."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """Which of the sources that have something is read next; for `merge` and `fan_in`.

    Made by its methods. Those without an argument can be given by their names: `"round_robin"`,
    `"longest_queue"`, `"oldest_first"`, `"drain_first"`, `"sticky"`; a callable is `custom`.

    Only sources that have something are chosen among, so one that has nothing holds up nobody.

    Attributes:
        kind: The name of the method that made it.
        levels: The levels of `priority`.
        aging: That of `priority`, in seconds.
        weights: Those of `weighted`.
        call: The callable of `custom`, or `oldest_first`.

    Example:
        >>> import anabranch as ab
        >>> ab.Strategy.priority([0, 1, 1], aging=5.0).aging
        5.0
    """

    kind: str
    levels: tuple[int, ...] | None = None
    aging: float | None = None
    weights: tuple[float, ...] | None = None
    call: Callable[[Any], Any] | None = None

    @classmethod
    def round_robin(cls) -> Strategy:
        """Whoever has been ready longest: sources that are always ready take turns."""
        return cls(kind="round_robin")

    @classmethod
    def priority(cls, levels: Sequence[int], *, aging: float | timedelta | None = None) -> Strategy:
        """The one with the lowest level; those of one level take turns.

        Args:
            levels: One for each source, in their order; 0 is the most urgent.
            aging: Seconds by which a level comes after the one before it, so that none waits for
                ever; None: it waits as long as that one has something.

        Raises:
            ConfigError: An argument is not allowed.
        """
        given = _listed(levels, "levels", "ints >= 0", "strategy 'priority'")
        for level in given:
            if type(level) is not int or not 0 <= level <= _MOST_LEVEL:
                raise refused("levels", levels, "ints >= 0", subject="strategy 'priority'")
        seconds = None
        if aging is not None:
            from anabranch._calls import check_seconds

            seconds = check_seconds(aging, "aging", "strategy 'priority'", exclusive=True)
        return cls(kind="priority", levels=cast("tuple[int, ...]", given), aging=seconds)

    @classmethod
    def weighted(cls, weights: Sequence[float]) -> Strategy:
        """In turn, as many items each as its weight says: deficit round-robin.

        Args:
            weights: One for each source, in their order, more than 0; only how they relate counts.

        Raises:
            ConfigError: An argument is not allowed.
        """
        given = _listed(weights, "weights", "numbers > 0", "strategy 'weighted'")
        for weight in given:
            if (
                isinstance(weight, bool)
                or not isinstance(weight, int | float)
                or not 0 < weight < math.inf
            ):
                raise refused("weights", weights, "numbers > 0", subject="strategy 'weighted'")
        return cls(kind="weighted", weights=tuple(float(cast("float", it)) for it in given))

    @classmethod
    def longest_queue(cls) -> Strategy:
        """The one that holds most items."""
        return cls(kind="longest_queue")

    @classmethod
    def oldest_first(cls, by: Callable[[Any], float] | None = None) -> Strategy:
        """The one whose next item is the oldest: sources in order become one stream in order.

        It does not wait for sources that have nothing: an older item may come later from those.

        Args:
            by: Returns the time of an item, a number, and no NaN; called once for the next item of
                each source. None: by when the sources became ready.

        Raises:
            ConfigError: `by` cannot be called, or is async.
        """
        if by is not None:
            from anabranch._calls import check_def

            check_def(by, "by", "strategy 'oldest_first'", args=(None,), gives="an item")
        return cls(kind="oldest_first", call=by)

    @classmethod
    def drain_first(cls) -> Strategy:
        """The first of those that have something, in the order of the sources."""
        return cls(kind="drain_first")

    @classmethod
    def sticky(cls) -> Strategy:
        """The one that was read last, as long as it has something; then whoever waited longest."""
        return cls(kind="sticky")

    @classmethod
    def custom(cls, choose: Chooser) -> Strategy:
        """The one that a callable of yours says.

        It is asked whenever something is to be read and at least one source is ready. If it names
        one that is not ready, or has ended, whoever has been ready longest is read; if it returns
        None, it is asked again when another source has become ready. What it raises ends the
        merge, and so does a number that is none of a source, or None where each source is ready or
        has ended: there is no other to wait for.

        Args:
            choose: Given a sequence of `ab.SourceState`, returns a source's number or None.

        Raises:
            ConfigError: It cannot be called, or is async.

        Example:
            >>> import anabranch as ab
            >>> def youngest(sources):
            ...     return min((s for s in sources if s.ready), key=lambda s: s.age).number
            >>> ab.Strategy.custom(youngest).kind
            'custom'
        """
        from anabranch._calls import check_def

        check_def(choose, "choose", "strategy 'custom'", args=(None,), gives="the sources")
        return cls(kind="custom", call=choose)


def strategy_of(given: Any, sources: int, subject: str) -> Strategy:  # noqa: ANN401 - whatever was passed
    """Return the strategy that was meant, for so many sources.

    Raises:
        ConfigError: There is no such one, or it is for another number of sources.
    """
    plain = cast("object", given)
    if isinstance(plain, str) and plain in _PLAIN:
        return Strategy(kind=plain)
    if isinstance(plain, Strategy):
        for name, many in (("levels", plain.levels), ("weights", plain.weights)):
            if many is not None and len(many) != sources:
                allowed = f"a strategy with one of its {name} for each of the {sources} sources"
                raise refused("strategy", given, allowed, subject=subject, shown=repr(plain))
        return plain
    if callable(plain):
        return Strategy.custom(given)
    names = ", ".join(repr(name) for name in _PLAIN)
    raise refused("strategy", given, f"a Strategy, a callable or one of {names}", subject=subject)


def _listed(given: Any, argument: str, allowed: str, subject: str) -> tuple[object, ...]:  # noqa: ANN401 - whatever was passed
    plain = cast("object", given)
    if isinstance(plain, str) or not isinstance(plain, Sequence) or not given:
        raise refused(argument, given, f"a sequence of {allowed}", subject=subject)
    return tuple(given)
