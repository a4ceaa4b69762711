"""What can be read as one of many: the type that a `Channel` and a `Source` have in common."""

from __future__ import annotations

from typing import Generic, TypeVar

T_co = TypeVar("T_co", covariant=True)


class Readable(Generic[T_co]):
    """A `Channel` or a `Source`: in a list of both, each item is one of these to a type checker."""

    __slots__ = ()
