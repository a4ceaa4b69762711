"""What the outbox of a table has in common with those of its tenants: the connection above all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Protocol, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable


class Line(Protocol):
    """A connection to a database; outboxes may share it, and each is one of its users."""

    users: int

    def rest(self) -> None:
        """Close it, until it is needed again."""
        ...


L = TypeVar("L", bound=Line)


class Common(Generic[L]):
    """Of one outbox, and of its tenants' parts.

    Args:
        line: The connection.
    """

    def __init__(self, line: L) -> None:
        self.line = line
        self.closed = False
        # Whether the tables were found to be of the right version.
        self.checked = False
        self._beside: dict[str, Self] = {}
        line.users += 1

    def share(self, line: L) -> None:
        """Use another connection from now on; that of before was not opened yet."""
        if line is not self.line:
            self.line = line
            line.users += 1

    def beside(self, use: str, made: Callable[[], L]) -> Self:
        """Give what those have in common who work beside for some use; it is made once for each."""
        beside = self._beside.get(use)
        if beside is None or beside.closed:
            beside = self._beside[use] = type(self)(made())
        return beside

    def close(self) -> None:
        """The outbox is closed, and so is the connection, if nobody else uses it."""
        if not self.closed:
            self.closed = True
            self.line.users -= 1
            if not self.line.users:
                self.line.rest()
