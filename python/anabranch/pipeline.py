"""The builder: a pipeline is described step by step, checked at each step, and then run once.

One class, and longer than a file should be: more than half of it is what editors and `help` show.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from anabranch import _core
from anabranch._callables import check_target, examine, name_of, source_kind
from anabranch._fan_out import fan_out_options
from anabranch._stages import Settings, extend, info, retry_options
from anabranch.errors import ClosedError, refused

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping
    from datetime import timedelta
    from typing import TypeGuard, Unpack

    from anabranch._callables import Call, WithCtx
    from anabranch._driver import Session
    from anabranch._running import Running
    from anabranch._stages import (
        CallOptions,
        FanOutOptions,
        Kind,
        OnFull,
        SinkOptions,
        Stage,
        StageInfo,
    )
    from anabranch._virtual import VirtualClock
    from anabranch.branch import BranchPolicy
    from anabranch.channel import Channel
    from anabranch.keys import AttrKey, ItemKey
    from anabranch.policy import Retry
    from anabranch.report import Report
    from anabranch.scope import Policy
    from anabranch.sources import TcpLines

T = TypeVar("T")
U = TypeVar("U")


class Pipeline(Generic[T]):
    """A course for items: from a source through stages, per tenant after `fan_out`, to a sink.

    Each method returns a new Pipeline with one more stage and leaves the old one as it was, so
    two pipelines can share a beginning. `Pipeline[T]` is typed by the items that leave its last
    stage. Callables may be `def` or `async def` wherever nothing else is said; one with a
    parameter named `ctx` is given the Context of its unit by that name.

    An exception in a callable never ends the pipeline (unless `on_error="stop"`): the item, or
    the window, becomes a failure, which the report counts and samples.

    A Pipeline object runs once: by `run`, `run_blocking` or `start`.

    Args:
        name: The pipeline's name, for reports, errors and drawings.
        max_in_flight: The most units (items or windows) that asynchronous and pooled callables
            work on at once, over all branches.
        threads: The size of the pool that runs `def` sinks and undo actions; 1 to 64.
        on_error: "continue" goes on after a failure; "stop" takes in no more, undoes what is
            inside and ends the run as "failed".
        grace: Seconds that what is inside has to reach its end when the pipeline is drained.
        commit: "unit" releases what undoes a unit as soon as the unit has succeeded; "end" keeps
            it to the end of the run, which then commits as a whole, or, if an item has failed or
            was given up, or the run is aborted, is undone as a whole, last action first. Memory
            grows with the number of undo actions.
        rollback: How the undo actions of one rollback follow each other: "sequential" runs them
            one after the other, the last registered first; "parallel" all at once; "none" runs
            none of them. Or a function that is called once per rollback with the actions, the
            last registered first, and returns those to run, in the order to run them in.
            Finalizers always run, one after the other.
        rollback_deadline: Seconds a rollback may take; then what has not run, or does not end, is
            stuck. None for no limit.
        seed: Makes what is random (the jitter of retries) repeatable; None draws one.
        clock: What windows, retries and deadlines go by, for tests. None: the virtual clock of
            the event loop the pipeline runs in, if it is one of `anabranch.testing`; otherwise the
            machine's monotonic clock.

    Raises:
        ConfigError: An argument is not allowed.

    Example:
        >>> import anabranch as ab
        >>> events = [{"tenant": "acme", "n": 1}, {"tenant": "globex", "n": 2}]
        >>> stored = {}
        >>> def store(batch: list[dict], ctx: ab.Context) -> None:
        ...     stored[ctx.tenant] = [event["n"] for event in batch]
        >>> pipeline = (
        ...     ab.Pipeline("ingest")
        ...     .source(events)
        ...     .fan_out(by="tenant")
        ...     .window(max_items=500, max_age=1.0)
        ...     .for_each(store)
        ... )
        >>> report = pipeline.run_blocking()
        >>> report.ok, sorted(stored.items())
        (True, [('acme', [1]), ('globex', [2])])
    """

    __slots__ = ("__weakref__", "_last_report", "_plan", "_settings", "_stages", "_turn")

    _settings: Settings
    _plan: _core.Plan
    _stages: tuple[Stage, ...]
    _last_report: Report[T] | None

    def __init__(
        self: Pipeline[None],
        name: str,
        *,
        max_in_flight: int = 256,
        threads: int = 8,
        on_error: Literal["continue", "stop"] = "continue",
        grace: float | timedelta = 30.0,
        commit: Literal["unit", "end"] = "unit",
        rollback: Literal["sequential", "parallel", "none"] | Policy = "sequential",
        rollback_deadline: float | timedelta | None = 30.0,
        seed: int | None = None,
        clock: VirtualClock | None = None,
    ) -> None:
        if clock is not None:
            _check_clock(clock, pipeline=name)
        policy = rollback if callable(rollback) else None
        plan = _core.Plan(
            name,
            max_in_flight=max_in_flight,
            threads=threads,
            on_error=on_error,
            grace=grace,
            commit=commit,
            rollback="sequential" if policy is not None else rollback,
            rollback_deadline=rollback_deadline,
            seed=seed,
        )
        settings: dict[str, Any] = plan.settings()
        self._become(Settings(**settings, clock=clock, policy=policy), plan, ())

    def _become(self, settings: Settings, plan: _core.Plan, stages: tuple[Stage, ...]) -> None:
        self._settings = settings
        self._plan = plan
        self._stages = stages
        # Taken by the run and never given back. A lock, because two threads may try.
        self._turn = threading.Lock()
        self._last_report = None

    @overload
    def source(self, src: TcpLines[U], *, name: str | None = ...) -> Pipeline[U]: ...
    @overload
    def source(self, src: AsyncIterable[U], *, name: str | None = ...) -> Pipeline[U]: ...
    @overload
    def source(self, src: Iterable[U], *, name: str | None = ...) -> Pipeline[U]: ...
    def source(self, src: object, *, name: str | None = None) -> Pipeline[Any]:
        """Take items from an iterable or async iterable, a Channel or `tcp_lines`; comes first.

        Items are taken as fast as the stages let through, no faster. A generator is closed on
        every way out; a Channel is not: what was not taken stays inside for others. A source that
        raises, or a Channel that was closed with an error, ends the run: what it gave before goes
        on to the end, and the outcome is "failed".

        Args:
            src: The source. A list or a tuple must not change while the pipeline runs.
            name: The stage's name; by default the generator's, the channel's, or the type's.

        Raises:
            ConfigError: It gives no items, is a str, bytes or mapping, or not the first stage.

        Example:
            >>> import anabranch as ab
            >>> squares = ab.Pipeline("squares").source(n * n for n in range(3)).collect()
            >>> squares.run_blocking().items
            [0, 1, 4]
        """
        label = name_of(src) if name is None else name
        how = source_kind(src, pipeline=self.name, stage=label)
        options = {"how": how, "label": name_of(src)}
        return self._extended("source", label, options, live={"source": src})

    @overload
    def map(
        self, fn: Callable[[T], Awaitable[U]], **options: Unpack[CallOptions]
    ) -> Pipeline[U]: ...
    @overload
    def map(self, fn: WithCtx[T, Awaitable[U]], **options: Unpack[CallOptions]) -> Pipeline[U]: ...
    @overload
    def map(self, fn: Callable[[T], U], **options: Unpack[CallOptions]) -> Pipeline[U]: ...
    @overload
    def map(self, fn: WithCtx[T, U], **options: Unpack[CallOptions]) -> Pipeline[U]: ...
    def map(
        self,
        fn: Callable[..., Any],
        *,
        name: str | None = None,
        concurrency: int = 1,
        ordered: bool = True,
        retry: Retry | None = None,
        timeout: float | timedelta | None = None,
    ) -> Pipeline[Any]:
        """Replace each item by what `fn(item)` returns.

        Args:
            fn: A `def`, which runs in the pipeline's own thread and should be quick, or an
                `async def`.
            name: The stage's name; the callable's by default.
            concurrency: How many calls of an `async def` may be under way at once, per branch.
            ordered: Whether items leave in the order they came. If not, each leaves when it is
                ready, and one that waits for another attempt is overtaken.
            retry: When and how often a failed call is tried again; None never.
            timeout: Seconds that one call of an `async def` may take; see `for_each`. Not for a
                `def`, which runs inline.

        Raises:
            ConfigError: An argument is not allowed, or the stage cannot stand here.

        Example:
            >>> import anabranch as ab
            >>> async def double(n: int) -> int:
            ...     return n * 2
            >>> doubles = ab.Pipeline("doubles").source([1, 2]).map(double, concurrency=8).collect()
            >>> doubles.run_blocking().items
            [2, 4]
        """
        return self._called(
            "map", fn, name, retry, concurrency=concurrency, ordered=ordered, timeout=timeout
        )

    @overload
    def filter(
        self, fn: Callable[[T], TypeGuard[U]], **options: Unpack[CallOptions]
    ) -> Pipeline[U]: ...
    @overload
    def filter(self, fn: Callable[[T], object], **options: Unpack[CallOptions]) -> Pipeline[T]: ...
    @overload
    def filter(self, fn: WithCtx[T, object], **options: Unpack[CallOptions]) -> Pipeline[T]: ...
    def filter(
        self,
        fn: Callable[..., Any],
        *,
        name: str | None = None,
        concurrency: int = 1,
        ordered: bool = True,
        retry: Retry | None = None,
        timeout: float | timedelta | None = None,
    ) -> Pipeline[Any]:
        """Keep the items for which `fn(item)` is true; the others are counted as filtered.

        Arguments and errors are those of `map`.

        Example:
            >>> import anabranch as ab
            >>> odd = ab.Pipeline("odd").source(range(5)).filter(lambda n: n % 2).collect()
            >>> report = odd.run_blocking()
            >>> report.items, report.filtered
            ([1, 3], 3)
        """
        return self._called(
            "filter", fn, name, retry, concurrency=concurrency, ordered=ordered, timeout=timeout
        )

    @overload
    def flat_map(
        self, fn: Callable[[T], Awaitable[Iterable[U]]], **options: Unpack[CallOptions]
    ) -> Pipeline[U]: ...
    @overload
    def flat_map(
        self, fn: WithCtx[T, Awaitable[Iterable[U]]], **options: Unpack[CallOptions]
    ) -> Pipeline[U]: ...
    @overload
    def flat_map(
        self,
        fn: Callable[[T], Iterable[U] | AsyncIterable[U]],
        **options: Unpack[CallOptions],
    ) -> Pipeline[U]: ...
    @overload
    def flat_map(
        self,
        fn: WithCtx[T, Iterable[U] | AsyncIterable[U]],
        **options: Unpack[CallOptions],
    ) -> Pipeline[U]: ...
    def flat_map(
        self,
        fn: Callable[..., Any],
        *,
        name: str | None = None,
        concurrency: int = 1,
        ordered: bool = True,
        retry: Retry | None = None,
        timeout: float | timedelta | None = None,
    ) -> Pipeline[Any]:
        """Replace each item by the items of the iterable that `fn(item)` returns.

        Generator functions, `async` or not, are fine, too. Of an async generator, all items of
        one call are gathered before the first goes on. An empty iterable takes the item out: it
        is counted as filtered. Arguments and errors are those of `map`.

        Example:
            >>> import anabranch as ab
            >>> words = ab.Pipeline("words").source(["a b", "c"]).flat_map(str.split).collect()
            >>> report = words.run_blocking()
            >>> report.items, report.received, report.produced
            (['a', 'b', 'c'], 2, 1)
        """
        return self._called(
            "flat_map", fn, name, retry, concurrency=concurrency, ordered=ordered, timeout=timeout
        )

    @overload
    def tap(self, fn: Callable[[T], object], **options: Unpack[CallOptions]) -> Pipeline[T]: ...
    @overload
    def tap(self, fn: WithCtx[T, object], **options: Unpack[CallOptions]) -> Pipeline[T]: ...
    def tap(
        self,
        fn: Callable[..., Any],
        *,
        name: str | None = None,
        concurrency: int = 1,
        ordered: bool = True,
        retry: Retry | None = None,
        timeout: float | timedelta | None = None,
    ) -> Pipeline[T]:
        """Call `fn(item)` and pass the item on; what it returns is ignored.

        An item at which it raises becomes a failure and goes no further. Arguments and errors
        are those of `map`.

        Example:
            >>> import anabranch as ab
            >>> seen = ab.Pipeline("seen").source(["a", "b"]).tap(print).collect()
            >>> _ = seen.run_blocking()
            a
            b
        """
        return self._called(
            "tap", fn, name, retry, concurrency=concurrency, ordered=ordered, timeout=timeout
        )

    # Overloaded, so that a lambda is not taken for an AttrKey, which can be called, too.
    @overload
    def fan_out(
        self, by: str | AttrKey | ItemKey, **options: Unpack[FanOutOptions]
    ) -> Pipeline[T]: ...
    @overload
    def fan_out(
        self, by: Callable[[T], object], **options: Unpack[FanOutOptions]
    ) -> Pipeline[T]: ...
    @overload
    def fan_out(self, by: WithCtx[T, object], **options: Unpack[FanOutOptions]) -> Pipeline[T]: ...
    def fan_out(
        self,
        by: str | AttrKey | ItemKey | Callable[..., object],
        *,
        name: str | None = None,
        capacity: int | Callable[[Any], int] = 1000,
        on_full: OnFull | Callable[[Any], OnFull] = "wait",
        isolate: bool = True,
        branch_timeout: float | timedelta | None = None,
        idle_ttl: float | timedelta | None = 300.0,
        on_branch_error: Literal["continue", "stop_pipeline"] | BranchPolicy = "continue",
        max_branches: int = 1_000_000,
        on_max_branches: Literal["reject", "overflow"] = "reject",
        close_branches: bool = True,
        on_new_branch: Callable[[Any], object] | None = None,
        on_branch_closed: Callable[[Any], object] | None = None,
    ) -> Pipeline[T]:
        """Send each item to its tenant's branch; what follows runs once per branch.

        Branches open when their tenant's first item arrives. Items of one tenant stay in order.
        Keys are the same if they are equal; a str, of a subclass, too, is compared by its text. An
        item whose key is missing or cannot be hashed becomes a failure. A pipeline fans out once.
        While it runs, `running.branch(tenant)` pauses, drains, removes or restarts a branch.

        Args:
            by: The key. A str is the name of an entry of the items (`item["tenant"]`);
                `ab.attr` and `ab.item` name an attribute or any entry: these three are looked
                up without calling Python. Or a `def` that takes the item and returns the key.
            name: The stage's name; "fan_out" by default.
            capacity: How many items a branch may hold; or a `def` that takes the tenant and
                returns that, called before its branch opens.
            on_full: What to do with an item for a branch that is full: "wait" holds the source
                back, and with it all branches; "drop_newest" drops the item, "drop_oldest" the one
                that has waited longest; "fail" makes it a failure with the code `branch.full`. Or
                a `def` that takes the tenant and returns one of these, called before its branch
                opens. There is no unbounded branch: one source for all tenants cannot be free of
                loss, bounded and never held up at once.
            isolate: With "wait": whether a full branch may take in a quarter of its capacity more
                before it holds back the source, and so the other branches.
            branch_timeout: With "wait": seconds a full branch may hold the source back; from then
                on what comes for it while it is full fails with the code `branch.timeout`, until
                half of its capacity is free. None: as long as it takes. `report.blocked` and
                each branch's `blocked` tell how long it was in all.
            idle_ttl: Seconds after its last unit that an empty branch is closed; its next item
                opens it again. Of a closed branch only its key and its counts are kept. None:
                branches stay open.
            on_branch_error: What follows when a unit of a branch has failed for good and was
                rolled back: "continue": the branch goes on; `ab.fail(after=n)`: it fails after n
                in a row; `ab.restart(backoff)`: it rests, and opens again; "stop_pipeline": the
                pipeline takes nothing more in, undoes what is inside and ends as "failed".
            max_branches: How many branches may be open at once.
            on_max_branches: What becomes of an item that would need one more: "reject" makes it a
                failure with the code `branch.limit`, which names the key; "overflow" sends it to
                one branch for all of these, whose tenant is `ab.OVERFLOW`.
            close_branches: Whether branches close when the source ends. If not, they go on, and
                what is inside leaves by age or size, until the pipeline is drained.
            on_new_branch: A `def` told of each tenant before its branch opens. If it raises, or
                `capacity` does, the item that came has failed, and the tenant's next one asks
                again.
            on_branch_closed: A `def` told of each tenant when its branch has closed; what it
                raises is logged.

        Raises:
            ConfigError: An argument is not allowed, or the stage cannot stand here.

        Example:
            >>> import anabranch as ab
            >>> pairs = [("acme", 1), ("globex", 2), ("acme", 3)]
            >>> pipeline = ab.Pipeline("p").source(pairs).fan_out(by=ab.item(0)).collect()
            >>> report = pipeline.run_blocking()
            >>> {branch.tenant: branch.received for branch in report.branches}
            {'acme': 2, 'globex': 1}
        """
        given = {
            "capacity": capacity,
            "on_full": on_full,
            "isolate": isolate,
            "branch_timeout": branch_timeout,
            "idle_ttl": idle_ttl,
            "on_branch_error": on_branch_error,
            "max_branches": max_branches,
            "on_max_branches": on_max_branches,
            "close_branches": close_branches,
            "on_new_branch": on_new_branch,
            "on_branch_closed": on_branch_closed,
        }
        stage = "fan_out" if name is None else name
        call, options, live = fan_out_options(by, given, pipeline=self.name, stage=stage)
        return self._extended("fan_out", name, options, call=call, live=live)

    def throttle(
        self, rate: float, burst: int | None = None, *, name: str | None = None
    ) -> Pipeline[T]:
        """Let so many items per second go on; after `fan_out`, of each branch.

        A token bucket by the pipeline's clock, which delays and never drops: what has to wait
        counts against the capacity of its branch, so that a full one holds the source back.
        `running.branch(tenant).throttle(...)` changes it while the pipeline runs.

        Args:
            rate: Items per second, on the average.
            burst: How many at once, after a pause; None: what comes in within a second, at least 1.
            name: The stage's name; "throttle" by default.

        Raises:
            ConfigError: An argument is not allowed, or the stage cannot stand here.

        Example:
            >>> import anabranch as ab
            >>> clock = ab.testing.VirtualClock()
            >>> pipeline = ab.Pipeline("p", clock=clock).source(range(30)).throttle(10, burst=1)
            >>> pipeline.collect().run_blocking().committed, clock.now()
            (30, 2.9)
        """
        return self._extended("throttle", name, {"rate": rate, "burst": burst})

    def window(
        self,
        *,
        max_items: int | None = None,
        max_age: float | timedelta | None = None,
        idle: float | timedelta | None = None,
        max_bytes: int | None = None,
        size_of: Callable[[T], int] | None = None,
        on_cancel: Literal["flush", "drop"] | None = None,
        name: str | None = None,
    ) -> Pipeline[list[T]]:
        """Gather items into lists; after `fan_out`, each branch has a window of its own.

        A window leaves at whichever comes first, and when the source ends. It is never empty,
        and keeps the order of the items. `ctx.window.reason` tells the handler why it left.

        Args:
            max_items: Leave with this many items.
            max_age: Leave this many seconds after the first item came in, however fast others
                follow; 0 leaves with whatever is there.
            idle: Leave when nothing has come in for this many seconds.
            max_bytes: Leave with this many bytes or more.
            size_of: A `def` that returns the bytes of one item; by default `len`.
            on_cancel: What becomes of a window still open when the run is cut short: "flush" hands
                it on, "drop" gives it up and counts its items as dropped. None: "flush" when
                draining, "drop" when aborting.
            name: The stage's name; "window" by default.

        Raises:
            ConfigError: An argument is not allowed, nothing would ever make a window leave, or
                the stage cannot stand here.

        Example:
            >>> import anabranch as ab
            >>> pairs = ab.Pipeline("pairs").source([1, 2, 3]).window(max_items=2).collect()
            >>> pairs.run_blocking().items
            [[1, 2], [3]]
        """
        if size_of is not None:
            stage = "window" if name is None else name
            call = examine(size_of, pipeline=self.name, stage=stage, argument="size_of")
            if call.is_async or call.takes_ctx or max_bytes is None:
                allowed = "a def that takes the item alone, beside max_bytes"
                shown = name_of(size_of)
                raise refused(
                    "size_of", size_of, allowed, pipeline=self.name, stage=stage, shown=shown
                )
        options = {
            "max_items": max_items,
            "max_age": max_age,
            "idle": idle,
            "max_bytes": max_bytes,
            "on_cancel": on_cancel,
        }
        return self._extended("window", name, options, live={"size_of": size_of})

    @overload
    def for_each(
        self, fn: Callable[[T], object], **options: Unpack[SinkOptions]
    ) -> Pipeline[None]: ...
    @overload
    def for_each(
        self, fn: WithCtx[T, object], **options: Unpack[SinkOptions]
    ) -> Pipeline[None]: ...
    def for_each(
        self,
        fn: Callable[..., Any],
        *,
        name: str | None = None,
        retry: Retry | None = None,
        timeout: float | timedelta | None = None,
        concurrency: int = 1,
        inline: bool = False,
    ) -> Pipeline[None]:
        """Call `fn` with each unit, an item or a window; this is a sink, the last stage.

        A unit for which it returns is committed. One for which it raises is tried again as
        `retry` says; in the end it has failed, and the undo actions registered for it by
        `ctx.compensate` are run, the latest first. Delivery is at least once: an attempt that
        fails may have had effects, which is what `ctx.compensate` is for.

        Args:
            fn: An `async def`, or a `def`, which runs on the pipeline's pool of threads; what it
                returns is ignored.
            name: The stage's name; the callable's by default.
            retry: When and how often a failed call is tried again; None never.
            timeout: Seconds that one attempt may take; None: any time. One that takes longer has
                failed with the code `timeout` (HandlerTimeout), and may be tried again. An
                `async def` is cancelled, and its attempt ends when it does; a `def` on the pool
                cannot be cancelled (`ctx.cancelled` tells it): its attempt ends at once, and what
                it does after that happens beside the next one. What has not come to its end some
                5 seconds after its timeout is left behind, listed in the report as abandoned, and
                its thread or task is replaced. A result that comes late is dropped and counted.
                Not for a `def` with `inline=True`, which nothing can interrupt.
            concurrency: How many units may be under way at once, per branch. With 1 they are
                handled in order; with more, one that waits for another attempt is overtaken.
            inline: Whether to run a `def` in the pipeline's own thread. Faster for a quick one;
                a slow one holds up everything else, and cannot be interrupted.

        Raises:
            ConfigError: An argument is not allowed, or the stage cannot stand here.

        Example:
            >>> import anabranch as ab
            >>> pipeline = ab.Pipeline("p").source([3, 4]).for_each(print, inline=True)
            >>> report = pipeline.run_blocking()
            3
            4
            >>> report.committed
            2
        """
        return self._called(
            "for_each", fn, name, retry, concurrency=concurrency, inline=inline, timeout=timeout
        )

    def collect(self, *, name: str | None = None) -> Pipeline[T]:
        """Keep what arrives for the report's `items`; this is a sink, the last stage.

        Args:
            name: The stage's name; "collect" by default.

        Raises:
            ConfigError: The stage cannot stand here.

        Example:
            >>> import anabranch as ab
            >>> ab.Pipeline("p").source((1, 2)).collect().run_blocking().items
            [1, 2]
        """
        return self._extended("collect", name, {})

    def to_channel(
        self, channel: Channel[T], *, close: bool = True, name: str | None = None
    ) -> Pipeline[None]:
        """Send what arrives into a channel; this is a sink, the last stage.

        A unit is committed once it is inside. A full channel holds the pipeline back, unless its
        `on_full` is another than "wait": what the channel drops counts as committed here and as
        dropped there, and what it refuses has failed with code `channel.full`. If the channel is
        closed by others meanwhile, the unit in hand has failed with code `channel.closed`, the
        rest is left, and the outcome is "failed".

        Args:
            channel: Where to; others may send into it, too.
            close: Whether to close it at the end of the run: without an error if the run came to
                its end, or was drained; otherwise with a PipelineFailed, so that who receives does
                not take what is missing for an end.
            name: The stage's name; the channel's by default.

        Raises:
            ConfigError: An argument is not allowed, or the stage cannot stand here.

        Example:
            >>> import anabranch as ab
            >>> squares: ab.Channel[int] = ab.Channel(10)
            >>> pipeline = ab.Pipeline("p").source(range(4)).map(lambda n: n * n)
            >>> pipeline.to_channel(squares).run_blocking().committed
            4
            >>> list(squares)
            [0, 1, 4, 9]
        """
        label = name_of(channel) if name is None else name
        check_target(channel, pipeline=self.name, stage=label)
        options = {"label": name_of(channel), "close": close}
        return self._extended("to_channel", label, options, live={"channel": channel})

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

    async def run(self) -> Report[T]:
        """Run the pipeline in the running event loop, to its end.

        A cancelled call aborts the run, and waits for its rollback. A handler that swallows its
        own cancellation is left behind after 5 s, and listed in the report; one that never
        suspends blocks the loop, and nothing can end it.

        Returns:
            The report. Failures are in it, not raised; `report.raise_for_failure()` raises them.

        Raises:
            ConfigError: There is no source or no sink.
            ClosedError: This Pipeline object has been run already.
            OSError: `tcp_lines` cannot listen on its address.
            asyncio.CancelledError: The call was cancelled; `last_report` tells how far it got.

        Example:
            >>> import asyncio
            >>> import anabranch as ab
            >>> asyncio.run(ab.Pipeline("p").source([1, 2]).collect().run()).items
            [1, 2]
        """
        return await self._begin().run()

    def run_blocking(self) -> Report[T]:
        """Run the pipeline in this thread, to its end.

        An event loop is opened only if something is asynchronous. On the main thread the first
        Ctrl-C drains, the second rolls back at once, and the third leaves.

        Returns:
            The report. Failures are in it, not raised; `report.raise_for_failure()` raises them.

        Raises:
            ConfigError: There is no source or no sink.
            ClosedError: This Pipeline object has been run already.
            OSError: `tcp_lines` cannot listen on its address.
            RuntimeError: An event loop runs in this thread.

        Example:
            >>> import anabranch as ab
            >>> ab.Pipeline("p").source([1, 2]).collect().run_blocking().items
            [1, 2]
        """
        from anabranch._driver import in_a_loop

        # Before the turn is taken: the pipeline can still be run as the message says.
        if in_a_loop():
            raise RuntimeError(
                f"pipeline {self.name!r}: run_blocking() would block the event loop that "
                "runs in this thread; use `await pipeline.run()`"
            )
        return self._begin().run_blocking()

    def start(self) -> Running[T]:
        """Start the pipeline in the running event loop, beside what follows.

        Returns:
            An async context manager. Leaving it without an error drains the pipeline within its
            grace; leaving it with one aborts it. `await running.wait()` waits for its end.

        Raises:
            ConfigError: There is no source or no sink.
            ClosedError: This Pipeline object has been run already.
            OSError: `tcp_lines` cannot listen on its address.

        Example:
            >>> import asyncio
            >>> import anabranch as ab
            >>> async def main() -> list[int]:
            ...     async with ab.Pipeline("p").source([1, 2]).collect().start() as running:
            ...         report = await running.wait()
            ...     return report.items
            >>> asyncio.run(main())
            [1, 2]
        """
        from anabranch._running import Running

        return Running(self._begin())

    @property
    def last_report(self) -> Report[T] | None:
        """The report of the run, also of a cancelled one; None before its end."""
        return self._last_report

    def __repr__(self) -> str:
        return f"<Pipeline {self.name!r}: {' > '.join(stage.name for stage in self._stages)}>"

    def _begin(self) -> Session[T]:
        self._plan.validate()
        if not self._turn.acquire(blocking=False):
            raise ClosedError(
                f"pipeline {self.name!r} has been run already: a Pipeline object runs once, "
                "so build one for each run, for instance in a function that returns it"
            )
        # Here, not above: it needs asyncio, which a program that only builds does not.
        from anabranch._driver import Session

        return Session(self)

    def _called(
        self,
        kind: Kind,
        fn: Callable[..., Any],
        name: str | None,
        retry: Retry | None,
        **options: object,
    ) -> Pipeline[Any]:
        label = name_of(fn, otherwise=kind) if name is None else name
        flat = kind == "flat_map"
        call = examine(fn, pipeline=self.name, stage=label, generates=flat)
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
        return self._extended(kind, label, options, call=call, live={"retry": retry})

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
        extended = object.__new__(type(self))
        extended._become(self._settings, plan, (*self._stages, stage))
        return extended


def _check_clock(clock: object, *, pipeline: object) -> None:
    # Imported here: whoever passes one has done so already.
    from anabranch._virtual import VirtualClock

    if not isinstance(clock, VirtualClock):
        name = pipeline if isinstance(pipeline, str) else None
        raise refused("clock", clock, "an ab.testing.VirtualClock or None", pipeline=name)
