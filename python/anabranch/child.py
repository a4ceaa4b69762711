"""`Child`: one child of a group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from anabranch.cancel import Cancel
from anabranch.result import Err, Ok

if TYPE_CHECKING:
    import asyncio

    from anabranch._calls import Act
    from anabranch._group import Group
    from anabranch.context import Context
    from anabranch.failure import Failure

T = TypeVar("T")


class _Pending:
    """In place of a value that is not there yet."""


_PENDING = _Pending()


class Child(Generic[T]):
    """One child of a group, as `go` returns it."""

    # What most children never have stands here, not in each of ten thousand trivial ones; the
    # context is made when somebody can see it, and the result when somebody asks for it.
    _ctx: Context | None = None
    _cancel: Cancel | None = None
    _task: asyncio.Task[None] | None = None
    _started = False
    _value: T | _Pending = _PENDING
    _failure: Failure | None = None

    def __init__(self, group: Group, call: Act, args: tuple[Any, ...], given: str | None) -> None:
        self._group = group
        self._act = call
        self._args = args
        self._given = given

    @property
    def name(self) -> str:
        """Its name: the group's and its own, joined by a dot."""
        return f"{self._group.name}.{self._given or self._act.name}"

    @property
    def result(self) -> Ok[T] | Err | None:
        """What became of it, an `Ok` or an `Err`; None while it has not ended."""
        if self._failure is not None:
            return Err(self._failure)
        return None if isinstance(self._value, _Pending) else Ok(self._value)

    def cancel(self, reason: str = "it was cancelled") -> None:
        """Cancel this child alone: what it did is undone, and its result is an `Err`.

        The group does not count it as a failure. One that has ended stays as it is.

        Args:
            reason: Why, for the error.
        """
        if self.result is None and self._cancel is None:
            self._cancel = Cancel()
            self._cancel.cancel(reason)
            self._group._cut(self)

    def __repr__(self) -> str:
        result = self.result
        return f"<Child {self.name!r}: {'running' if result is None else result!r}>"
