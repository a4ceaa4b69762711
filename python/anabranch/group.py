"""Groups: children that run at once, of which none outlives the block.

A `WaitGroup` lets all of them end, whatever becomes of the others; in an `ErrGroup` the first error
ends the rest.
"""

from __future__ import annotations

from anabranch._group import Group
from anabranch.errors import GroupFailed


class WaitGroup(Group):
    """Children that run at once, each on its own: the failure of one leaves the others alone.

    When the block is left, all have ended. A child that failed has been undone at once; if any did,
    `GroupFailed` tells of all. When the block raises, or is cancelled, the children are cancelled.

    Args:
        name: What the children's names begin with, after that of `ctx`.
        max_concurrency: How many run at once; None for all, but of `def` children as many as the
            loop's executor has threads, by default `min(32, cores + 4)`. Where they wait for each
            other give it more: `loop.set_default_executor`.
        commit: When what a child did is settled: "child": when it has succeeded; "group": with the
            group, all or nothing, undone in strict reverse order over all children but those that
            had failed before by themselves; if it ends well it goes to `ctx`, if there is one.
        ctx: What the group is a part of.

    Raises:
        ConfigError: An argument is not allowed.
        GroupFailed: Children failed.

    Example:
        >>> import asyncio
        >>> import anabranch as ab
        >>> async def greet(name: str) -> str:
        ...     if not name:
        ...         raise ValueError("nobody")
        ...     return f"hello {name}"
        >>> async def main() -> None:
        ...     try:
        ...         async with ab.WaitGroup("greetings") as group:
        ...             children = [group.go(greet, name) for name in ("Ada", "", "Bob")]
        ...     except ab.GroupFailed as error:
        ...         print(error.exceptions)
        ...     print([child.result.unwrap_or("-") for child in children])
        >>> asyncio.run(main())
        (ValueError('nobody'),)
        ['hello Ada', '-', 'hello Bob']
    """

    def _sum(self) -> Exception | None:
        if not self._failed:
            return None
        errors = [error for _, error in self._failed]
        return GroupFailed(f"{self.name!r}: {len(errors)} children failed", errors)


class ErrGroup(Group):
    """Children that run at once and stand or fall together: the first error ends the others.

    The first error of a child is raised, as it is, when all have ended: the others were cancelled,
    and what they did is undone. `failures` tells of them all. When the block raises, or is
    cancelled, the children are cancelled, too.

    The arguments are those of `WaitGroup`. With `commit="child"`, the default, children that have
    succeeded before the error stay as they are; with `commit="group"` they are undone, too, when
    all have ended, in strict reverse order over all children, the one that failed included.

    Example:
        >>> import asyncio
        >>> import anabranch as ab
        >>> stored = []
        >>> async def store(n: int, ctx: ab.Context) -> None:
        ...     ctx.compensate(stored.remove, n)
        ...     stored.append(n)
        ...     if n == 3:
        ...         raise OSError("disk full")
        >>> async def main() -> None:
        ...     async with ab.ErrGroup("store", commit="group") as group:
        ...         for n in range(5):
        ...             group.go(store, n)
        >>> try:
        ...     asyncio.run(main())
        ... except OSError as error:
        ...     print(error, stored)
        disk full []
    """

    _stops_at_error = True

    def _sum(self) -> Exception | None:
        return self._failed[0][1] if self._failed else None
