"""The builder's stages where items part and gather: fan_out, window."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from anabranch._builder import Builder
from anabranch._callables import examine, name_of
from anabranch.errors import refused
from anabranch.keys import AttrKey, ItemKey

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta
    from typing import Unpack

    from anabranch._callables import Call, WithCtx
    from anabranch._stages import FanOutOptions
    from anabranch.pipeline import Pipeline

T = TypeVar("T")


class Grouping(Builder[T]):
    """The stages where items part and gather."""

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
        on_full: Literal["wait"] = "wait",
        isolate: bool = True,
        on_new_branch: Callable[[Any], object] | None = None,
        on_branch_closed: Callable[[Any], object] | None = None,
    ) -> Pipeline[T]:
        """Send each item to its tenant's branch; what follows runs once per branch.

        Branches open when their tenant's first item arrives. Items of one tenant stay in order.
        Keys are the same if they are equal; a str, of a subclass, too, is compared by its text. An
        item whose key is missing or cannot be hashed becomes a failure. A pipeline fans out once.

        Args:
            by: The key. A str is the name of an entry of the items (`item["tenant"]`);
                `ab.attr` and `ab.item` name an attribute or any entry: these three are looked
                up without calling Python. Or a `def` that takes the item and returns the key.
            name: The stage's name; "fan_out" by default.
            capacity: How many items a branch may hold; or a `def` that takes the tenant and
                returns that, called before its branch opens.
            on_full: What to do when a branch is full: "wait" holds the source back.
            isolate: Whether a full branch may take in a quarter of its capacity more before it
                holds back the source, and so the other branches.
            on_new_branch: A `def` told of each tenant before its branch opens. If it raises, or
                `capacity` does, the item that came has failed, and the tenant's next one asks
                again.
            on_branch_closed: A `def` told of each tenant when its branch has closed, at the end of
                the run; what it raises is logged.

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
        stage = "fan_out" if name is None else name
        call: Call | None = None
        if isinstance(by, AttrKey | ItemKey):
            key = repr(by)
        elif isinstance(by, str) and by.strip():
            key = by
        elif isinstance(by, str) or not callable(by):
            allowed = (
                "the name of an entry, ab.attr(...), ab.item(...) or a def that takes the item"
            )
            raise refused("by", by, allowed, pipeline=self.name, stage=stage)
        else:
            call = examine(by, pipeline=self.name, stage=stage, argument="by")
            key = name_of(by)
            if call.is_async:
                allowed = "a def: a key is needed at once"
                raise refused("by", by, allowed, pipeline=self.name, stage=stage, shown=key)
        options: dict[str, object] = {"by": key, "on_full": on_full, "isolate": isolate}
        hooks = {
            "capacity": capacity if callable(capacity) else None,
            "on_new_branch": on_new_branch,
            "on_branch_closed": on_branch_closed,
        }
        for argument, hook in hooks.items():
            options[argument] = self._hook(argument, hook, stage)
        number: object = capacity
        if isinstance(number, str):  # as which the plan knows a callable
            allowed = "an int >= 1 or a def that takes the tenant"
            raise refused("capacity", number, allowed, pipeline=self.name, stage=stage)
        if not callable(capacity):
            options["capacity"] = number
        live = {
            "by": by,
            "capacity_of": hooks["capacity"],
            "new": on_new_branch,
            "closed": on_branch_closed,
        }
        return self._extended("fan_out", name, options, call=call, live=live)

    def _hook(self, argument: str, hook: Callable[[Any], object] | None, stage: str) -> str | None:
        """Check a callable that takes the tenant; return its name for the plan."""
        if hook is None:
            return None
        if examine(hook, pipeline=self.name, stage=stage, argument=argument).is_async:
            allowed = "a def: it is called in between"
            shown = name_of(hook)
            raise refused(argument, hook, allowed, pipeline=self.name, stage=stage, shown=shown)
        return name_of(hook)

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
