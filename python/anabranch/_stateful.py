"""The builder's stages that remember, or work on many at once: scan, distinct, take, map_batch."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, cast

from anabranch._builder import Builder
from anabranch._callables import Call, check_def, examine, examine_undo, is_async, name_of
from anabranch._landing import plain, true
from anabranch._stages import extend
from anabranch.errors import refused
from anabranch.keys import ItemKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import timedelta

    from anabranch._stages import Kind, OnError, Stage
    from anabranch.keys import AttrKey
    from anabranch.pipeline import Pipeline

T = TypeVar("T")
U = TypeVar("U")
S = TypeVar("S")
# Items that are taken from a source at once, at most.
_CHUNK: Final = 1024
# Makes the callable of one run, given what bounds what is taken from the run's source.
Make: TypeAlias = "Callable[[Callable[[int], object]], Callable[..., Any]]"


class Stateful(Builder[T]):
    """The stages that remember what came before, and those that work on many items at once."""

    __slots__ = ()

    def scan(
        self,
        fn: Callable[[S, T], S],
        initial: S,
        *,
        name: str | None = None,
        on_error: OnError | None = None,
    ) -> Pipeline[S]:
        """Replace each item by `fn(state, item)`, which is also the next state.

        Behind `fan_out` each tenant has a state of its own, kept to the end of the run. An item at
        which it raises leaves the state as it is.

        Args:
            fn: A `def` that is given the state and the item.
            initial: The first state. It is not copied: `fn` returns a new one, and changes none.
            name: The stage's name; the callable's by default.
            on_error: As for `map`.

        Raises:
            ConfigError: An argument is not allowed, or the stage cannot stand here.

        Example:
            >>> import anabranch as ab
            >>> sums = ab.Pipeline("sums").source([1, 2, 3]).scan(lambda sum, n: sum + n, 0)
            >>> sums.collect().run_blocking().items
            [1, 3, 6]
        """
        label = name_of(fn, otherwise="scan") if name is None else name
        self._check_fold(fn, label)

        def alone(_want: Callable[[int], object]) -> Callable[..., Any]:
            state = initial

            def scan(item: T) -> S:
                nonlocal state
                state = plain(fn(state, item))
                return state

            return scan

        def each(_want: Callable[[int], object]) -> Callable[..., Any]:
            states: dict[Any, S] = {}

            def scan(item: T, ctx: Any) -> S:  # noqa: ANN401 - a Context
                tenant = ctx.tenant
                states[tenant] = plain(fn(states.get(tenant, initial), item))
                return states[tenant]

            return scan

        return self._remembering("map", label, alone, each, on_error)

    def distinct(
        self,
        by: str | Callable[[T], object] | ItemKey | AttrKey | None = None,
        *,
        max_keys: int = 100_000,
        name: str | None = None,
        on_error: OnError | None = None,
    ) -> Pipeline[T]:
        """Keep the first item of each key; the others are counted as filtered.

        Behind `fan_out` each tenant has keys of its own. Memory is bounded: only the latest keys
        are remembered, and one that has been forgotten passes again.

        Args:
            by: The key: a name, as for `fan_out`, or a `def` that is given the item; None: the
                item itself.
            max_keys: How many keys are remembered, per tenant; at least 1. A key that comes again
                counts as new among them.
            name: The stage's name; "distinct" by default.
            on_error: As for `map`.

        Raises:
            ConfigError: An argument is not allowed, or the stage cannot stand here.

        Example:
            >>> import anabranch as ab
            >>> report = ab.Pipeline("p").source([*"abacab"]).distinct().collect().run_blocking()
            >>> report.items, report.filtered
            (['a', 'b', 'c'], 3)
        """
        label = "distinct" if name is None else name
        if type(max_keys) is not int or max_keys < 1:
            raise refused("max_keys", max_keys, "an int >= 1", pipeline=self.name, stage=label)
        if isinstance(by, str) and not by.strip():
            allowed = (
                "the name of an entry, ab.attr(...), ab.item(...) or a def that takes the item"
            )
            raise refused("by", by, allowed, pipeline=self.name, stage=label)
        key: Any = ItemKey(by) if isinstance(by, str) else by
        if key is not None:
            self._check_key(key, label)

        def first(seen: OrderedDict[object, None], item: T) -> bool:
            one = item if key is None else true(key(item))
            known = one in seen
            seen[one] = None
            seen.move_to_end(one)
            if len(seen) > max_keys:
                seen.popitem(last=False)
            return not known

        def alone(_want: Callable[[int], object]) -> Callable[..., Any]:
            seen: OrderedDict[object, None] = OrderedDict()

            def distinct(item: T) -> bool:
                return first(seen, item)

            return distinct

        def each(_want: Callable[[int], object]) -> Callable[..., Any]:
            seen: dict[Any, OrderedDict[object, None]] = {}

            def distinct(item: T, ctx: Any) -> bool:  # noqa: ANN401 - a Context
                return first(seen.setdefault(ctx.tenant, OrderedDict()), item)

            return distinct

        return self._remembering("filter", label, alone, each, on_error)

    def take(self, count: int, *, name: str | None = None) -> Pipeline[T]:
        """Let the first items through, and end the source: it has brought enough.

        The run completes, as it does when the source ends by itself. No more is taken from it than
        can be let through; what there is more for all that, behind `flat_map` or of an async
        source, is counted as filtered. Behind `fan_out` these are the first items of each tenant,
        and of copies (see `tee`) the first ones: there the source goes on.

        Args:
            count: How many items, at least 1.
            name: The stage's name; "take" by default.

        Raises:
            ConfigError: An argument is not allowed, or the stage cannot stand here.

        Example:
            >>> import itertools
            >>> import anabranch as ab
            >>> ab.Pipeline("p").source(itertools.count()).take(3).collect().run_blocking().items
            [0, 1, 2]
        """
        label = "take" if name is None else name
        if type(count) is not int or count < 1:
            raise refused("count", count, "an int >= 1", pipeline=self.name, stage=label)
        of_copies = self._plan.courses()[-1] > 0

        def alone(want: Callable[[int], object]) -> Callable[..., Any]:
            left = count
            if of_copies:
                want = _unasked
            want(left)

            def take(_item: T) -> bool:
                nonlocal left
                if left == 0:
                    return False
                left -= 1
                # More than that are not taken at once.
                if left < _CHUNK:
                    want(left)
                return True

            return take

        def each(_want: Callable[[int], object]) -> Callable[..., Any]:
            left: dict[Any, int] = {}

            def take(_item: T, ctx: Any) -> bool:  # noqa: ANN401 - a Context
                before = left.get(ctx.tenant, count)
                left[ctx.tenant] = max(0, before - 1)
                return before > 0

            return take

        return self._remembering("filter", label, alone, each, None)

    def map_batch(
        self,
        fn: Callable[[list[T]], Iterable[U]],
        *,
        max_items: int | None = None,
        max_age: float | timedelta | None = None,
        idle: float | timedelta | None = None,
        name: str | None = None,
        concurrency: int = 1,
    ) -> Pipeline[U]:
        """Gather items into lists, and replace each list by the items that `fn(list)` returns.

        It is `window` with `flat_map` behind it: for what is faster with many at once. Behind
        `fan_out` each branch has lists of its own. A list succeeds or fails as a whole: of a
        generator all is taken before any of it goes on.

        Args:
            fn: A `def`, an `async def`, or a generator function, that is given a list.
            max_items: A list leaves with this many items;
            max_age: or this many seconds after its first item;
            idle: or when nothing has come for this many seconds.
            name: The stage's name; the callable's by default.
            concurrency: How many calls of an `async def` may be under way at once, per branch.

        Raises:
            ConfigError: An argument is not allowed, or the stage cannot stand here.

        Example:
            >>> import anabranch as ab
            >>> def ranks(batch: list[str]) -> list[tuple[int, str]]:
            ...     return list(enumerate(sorted(batch)))
            >>> ranked = ab.Pipeline("p").source(["b", "a", "c"]).map_batch(ranks, max_items=2)
            >>> ranked.collect().run_blocking().items
            [(0, 'a'), (1, 'b'), (0, 'c')]
        """
        limits = {"max_items": max_items, "max_age": max_age, "idle": idle}
        label = name_of(fn, otherwise="map_batch") if name is None else name
        if not isinstance(cast("object", label), str) or not label:
            allowed = "a non-empty str"
            raise refused("name", name, allowed, pipeline=self.name, stage="map_batch")
        if all(limit is None for limit in limits.values()):
            allowed = "an int >= 1 where neither max_age nor idle is given"
            raise refused("max_items", None, allowed, pipeline=self.name, stage=label)
        options = {"max_bytes": None, "on_cancel": None, **limits}
        # What is wrong with a limit is told of this stage: the window is no word of the caller's.
        extend(self._plan, "window", label, options)
        gathered = self._extended("window", None, options, live={"size_of": None})
        more: dict[str, Any] = {"ordered": True, "timeout": None, "on_error": None}
        flat: Pipeline[Any] = gathered._called(  # noqa: SLF001 - one more of its own kind
            "flat_map", _whole(fn), label, None, concurrency=concurrency, **more
        )
        return flat

    def _check_fold(self, fn: object, label: str) -> None:
        allowed = "a def that is given the state and the item"
        check_def(fn, None, None, argument="fn", allowed=allowed, pipeline=self.name, stage=label)
        if callable(fn) and examine_undo(fn)[2]:
            raise refused("fn", fn, allowed, pipeline=self.name, stage=label, shown=name_of(fn))

    def _check_key(self, fn: object, label: str) -> None:
        name = self.name
        if examine(fn, pipeline=name, stage=label, argument="by", alone=True).is_async:
            allowed = "a def: a key is needed at once"
            raise refused("by", fn, allowed, pipeline=name, stage=label, shown=name_of(fn))

    def _remembering(
        self,
        kind: Kind,
        label: str,
        alone: Make,
        each: Make,
        on_error: OnError | None,
    ) -> Pipeline[Any]:
        """Add a stage whose callable is made anew for each run, and may bound its source."""
        routed = any(stage.kind == "fan_out" for stage in self._stages)
        make = each if routed else alone

        def fresh(stage: Stage, want: Callable[[int], object]) -> Stage:
            return replace(stage, fn=make(want))

        options: dict[str, object] = {
            "concurrency": 1,
            "ordered": True,
            "timeout": None,
            "on_error": on_error,
            "retry": None,
            "is_async": False,
        }
        call = Call(make(lambda _items: None), is_async=False, takes_ctx=routed)
        return self._extended(kind, label, options, call=call, live={"retry": None, "fresh": fresh})


def _unasked(_items: int) -> None:
    pass


def _whole(fn: object) -> Any:  # noqa: ANN401 - whatever was given is checked behind this
    """Return `fn`, with all taken of the iterator that it may return."""
    if not callable(fn) or is_async(fn):
        return fn

    @functools.wraps(fn)
    def whole(*args: Any, **kwargs: Any) -> object:  # noqa: ANN401 - as `fn` has them
        made = fn(*args, **kwargs)
        return list(cast("Iterator[object]", made)) if isinstance(made, Iterator) else made

    return whole


def fresh(stages: tuple[Stage, ...], want: Callable[[int], object]) -> tuple[Stage, ...]:
    """Return the stages for one run: what remembers begins anew; `want` bounds its source."""
    return tuple(
        cast("Stage", stage.options["fresh"](stage, want)) if "fresh" in stage.options else stage
        for stage in stages
    )
