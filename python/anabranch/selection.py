"""`Selection`: which of the stores that wait for a turn a worker claims from next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias, cast

from anabranch.errors import refused

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Selection", "SelectionName", "StoreView"]

SelectionName: TypeAlias = Literal[
    "round_robin", "drain_first", "weighted", "longest_backlog", "oldest_first"
]


class StoreView:
    """A store that waits for a turn, as a `Selection` sees it.

    Attributes:
        tenant: The key it is known by; None: there is but one.
        weight: How many turns it gets for one of a store of weight 1, where they are weighted.
        depth: How many messages were ready when it was last looked at, up to 10 000; None: that
            was never, or something was enqueued since then.
        oldest: For how many seconds the first of them had been due; None: as for `depth`, or there
            was none.
        failures: How often in a row it could not be reached.
        turns: How many turns it has had.
        served: The number of its latest turn among those of all stores; 0: it had none yet.
        share: Its turns by its weight, counted from when it began to wait; the least is next where
            stores are weighted.
    """

    __slots__ = ("depth", "failures", "oldest", "served", "share", "tenant", "turns", "weight")

    def __init__(self, tenant: object, weight: float = 1.0) -> None:
        self.tenant: Any = tenant
        self.weight: float = weight
        self.depth: int | None = None
        self.oldest: float | None = None
        self.failures: int = 0
        self.turns: int = 0
        self.served: int = 0
        self.share: float = 0.0

    def __repr__(self) -> str:
        return (
            f"StoreView({self.tenant!r}, depth={self.depth}, oldest={self.oldest}, "
            f"failures={self.failures}, turns={self.turns})"
        )


class Selection(Protocol):
    """Which store is next, where more of them wait than may be worked on at once.

    A `def` of one's own, or the name of one there is:

    - "round_robin": the one whose latest turn is longest ago;
    - "drain_first": the one that had the latest turn, until there is nothing left in it;
    - "weighted": each in proportion to its weight;
    - "longest_backlog": the one with the most messages that are ready;
    - "oldest_first": the one whose first message has been due for longest.

    Whatever it says, one that was passed over for ten rounds of all who wait is next.

    Example:
        >>> import anabranch as ab
        >>> def least_trouble(stores):
        ...     return min(stores, key=lambda it: (it.failures, it.served))
        >>> router = ab.OutboxRouter({"acme": ab.Outbox.memory()})
        >>> worker = ab.OutboxWorker(router, selection=least_trouble)
    """

    def __call__(self, stores: Sequence[StoreView], /) -> StoreView:
        """Return one of the stores; there are two or more."""
        ...


def _longest_ago(stores: Sequence[StoreView]) -> StoreView:
    return min(stores, key=lambda it: it.served)


def _latest(stores: Sequence[StoreView]) -> StoreView:
    return max(stores, key=lambda it: it.served)


def _least_share(stores: Sequence[StoreView]) -> StoreView:
    return min(stores, key=lambda it: (it.share, it.served))


# One that was not looked at comes first: it may have more than all the others.
_UNKNOWN: Final = float("inf")


def _deepest(stores: Sequence[StoreView]) -> StoreView:
    return max(stores, key=lambda it: (_UNKNOWN if it.depth is None else it.depth, -it.served))


def _oldest(stores: Sequence[StoreView]) -> StoreView:
    def age(it: StoreView) -> float:
        return _UNKNOWN if it.depth is None else it.oldest or 0.0

    return max(stores, key=lambda it: (age(it), -it.served))


_BY_NAME: Final[dict[str, Callable[[Sequence[StoreView]], StoreView]]] = {
    "round_robin": _longest_ago,
    "drain_first": _latest,
    "weighted": _least_share,
    "longest_backlog": _deepest,
    "oldest_first": _oldest,
}
# Those that need not know how much there is in a store.
_BLIND: Final = frozenset({"round_robin", "drain_first", "weighted"})


def selection_of(given: object, subject: str = "OutboxWorker") -> tuple[Selection, bool]:
    """Return a selection, and whether it wants to know how much there is in the stores.

    Raises:
        ConfigError: It is none.
    """
    if isinstance(given, str) and given in _BY_NAME:
        return _BY_NAME[given], given not in _BLIND
    if isinstance(given, str) or not callable(given):
        allowed = f"one of {', '.join(map(repr, _BY_NAME))}, or a def that takes a list of stores"
        raise refused("selection", given, allowed, subject=subject)
    return cast("Selection", given), True
