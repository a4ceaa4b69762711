"""What a select is made of, and what it comes to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from anabranch.errors import HandlerTimeout, SelectDrained

if TYPE_CHECKING:
    from anabranch._calls import Act
    from anabranch.channel import Channel
    from anabranch.context import Context

T = TypeVar("T")


# A tuple: of what cannot be changed it costs the least to make.
class Selected(NamedTuple, Generic[T]):
    """What a select has come to.

    Attributes:
        case: The number of the case among those that receive, in the order they were given in;
            "default" or "after" for these.
        reader: The channel that was received from; None for "default" and "after".
        item: The item; None for "default" and "after".
        value: What the case's handler returned; the item if it has none.
    """

    case: int | str
    reader: Channel[T] | None
    item: T | None
    value: Any


@dataclass(frozen=True, slots=True)
class Case:
    reader: Channel[Any]
    handler: Act | None
    priority: int


@dataclass(frozen=True, slots=True)
class After:
    seconds: float
    handler: Act | None


def named(call: Context | None) -> str:
    return "select" if call is None else call.name


def drained(call: Context | None) -> SelectDrained:
    return SelectDrained(
        f"{named(call)!r}: all of its channels are closed, and nothing is left in them"
    )


def overran(name: str, limit: float) -> HandlerTimeout:
    return HandlerTimeout(
        f"{name!r}: nothing was ready within its timeout of {limit:g} s", timeout=limit
    )
