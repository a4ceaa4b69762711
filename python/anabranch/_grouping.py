"""The builder's stages where items part, wait and gather: fan_out, throttle, window."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from anabranch._builder import Builder
from anabranch._callables import examine, name_of
from anabranch._fan_out import fan_out_options
from anabranch.errors import refused

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta
    from typing import Unpack

    from anabranch._callables import WithCtx
    from anabranch._stages import FanOutOptions, OnFull
    from anabranch.branch import BranchPolicy
    from anabranch.heartbeat import Heartbeat
    from anabranch.keys import AttrKey, ItemKey
    from anabranch.pipeline import Pipeline

T = TypeVar("T")


class Grouping(Builder[T]):
    """The stages where items part, wait and gather."""

    __slots__ = ()

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
        weight: int | Callable[[Any], int] = 1,
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
        While it runs, `running.branch(tenant)` pauses, drains, removes or restarts a branch. An
        inline `def` stage right behind this one runs in front of the branch: it is called for what
        will wait in a branch that is paused, drains or is full, but not for what is refused because
        the branch has failed or was removed, or because there are `max_branches`. (For the rest of
        a chunk of at most 256 items in which that has come about it still is.)

        Args:
            by: The key. A str is the name of an entry of the items (`item["tenant"]`);
                `ab.attr` and `ab.item` name an attribute or any entry: these three are looked
                up without calling Python. Or a `def` that takes the item and returns the key.
            name: The stage's name; "fan_out" by default.
            capacity: How many items a branch may hold; or a `def` that takes the tenant and
                returns that, called before its branch opens.
            on_full: What to do with an item for a branch that is full: "wait" holds the source
                back, and with it all branches; "drop_newest" drops the item, "drop_oldest" the one
                that has waited longest; "fail" makes it a failure with the code `branch.full`,
                and "dead_letter" hands that failure to the target of `Pipeline(dead_letter=...)`.
                Or a `def` that takes the tenant and returns one of these, called before its branch
                opens. There is no unbounded branch: one source for all tenants cannot be free of
                loss, bounded and never held up at once.
            isolate: With "wait": whether a full branch may take in a quarter of its capacity more
                before it holds back the source, and so the other branches.
            weight: How often a branch has its turn, from 1 to 1000; or a `def` that takes the
                tenant and returns that, called before its branch opens. Branches that wait for
                their handler take turns, so that one with a thousand items waiting does not
                hold up one with a single item: each hands out one unit a turn (an item, or a
                window), or `weight` of them. (Items that a handler is done with at once it is
                given up to 64 at a time.)
            branch_timeout: Only with "wait": seconds a full branch may hold the source back; from
                then on what comes for it while it is full fails with the code `branch.timeout`,
                until half of its capacity is free. None: as long as it takes. `report.blocked` and
                each branch's `blocked` tell how long it was in all.
            idle_ttl: Seconds after its last unit that an empty branch is closed; its next item
                opens it again. Of a closed branch only its key and its counts are kept. None:
                branches stay open.
            on_branch_error: What follows when a unit of a branch has failed for good, was rolled
                back and is recovered by nobody: "continue": the branch goes on; `ab.fail(after=n)`:
                it fails once one of its stages has failed n times in a row; `ab.restart(backoff)`:
                it rests, and opens again; "stop_pipeline": the pipeline takes nothing more in,
                undoes what is inside and ends as "failed".
            max_branches: How many branches may be open at once. With "overflow", a tenant that had
                a branch of its own gets it back beyond that.
            on_max_branches: What becomes of an item that would need one more: "reject" makes it a
                failure with the code `branch.limit`, which names the key; "overflow" sends it to
                one branch for all of these, whose tenant is `ab.OVERFLOW`.
            close_branches: Whether branches close when the source ends. If not, they go on, and
                what is inside leaves by age or size, until the pipeline is drained.
            on_new_branch: A `def` told of each tenant before its branch opens, for the first time
                or again. If it raises, or `capacity` does, the item that came, and whatever has
                waited for that, has failed with its code, and the tenant's next one asks again.
            on_branch_closed: A `def` told of each tenant when its branch has closed, and its undo
                actions and finalizers have run; what it raises is logged.

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
            "weight": weight,
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

    def heartbeat(
        self, *, every: float | timedelta, name: str | None = None
    ) -> Pipeline[T | Heartbeat]:
        """Add a Heartbeat where nothing has come for a while; after `fan_out`, of each branch.

        The first one says that a branch has become idle, and the next ones that it still is. They
        come at multiples of `every` after the last item that came here, by the pipeline's clock;
        the first item of a branch begins it. There are none while the branch is paused or drains,
        or has items waiting here, and none once the source has ended. Those of a branch end when
        it has been silent for `idle_ttl`, and it is evicted when that has passed again.

        A Heartbeat is an item like others: it goes through the stages that follow, and counts as
        produced.

        Args:
            every: Seconds.
            name: The stage's name; "heartbeat" by default.

        Raises:
            ConfigError: An argument is not allowed, or the stage cannot stand here.

        Example:
            >>> import asyncio
            >>> import anabranch as ab
            >>> async def source():
            ...     yield "acme"
            ...     await asyncio.sleep(25.0)
            ...     yield "acme"
            >>> pipeline = ab.Pipeline("p").source(source()).fan_out(by=lambda it: it)
            >>> pipeline = pipeline.heartbeat(every=10.0).collect()
            >>> for item in ab.testing.run(pipeline.run()).items:
            ...     print(item)
            acme
            Heartbeat(tenant='acme', silent=10.0, number=1)
            Heartbeat(tenant='acme', silent=20.0, number=2)
            acme
        """
        return self._extended("heartbeat", name, {"every": every})

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
            size_of: A `def` that returns the bytes of one item; by default `len`. An item for which
                it raises, or returns no int >= 0, fails in this stage.
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
            call = examine(size_of, pipeline=self.name, stage=stage, argument="size_of", alone=True)
            if call.is_async or max_bytes is None:
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
