"""The connections that `Outbox.enqueue` writes over, as type checkers tell them apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable


class Blocking(Protocol):
    """A connection, or a session, whose methods block: of sqlite3, psycopg or SQLAlchemy."""

    def commit(self) -> None: ...


class Awaited(Protocol):
    """One whose methods are awaited: of aiosqlite, psycopg or SQLAlchemy."""

    def commit(self) -> Awaitable[None]: ...


class Asyncpg(Protocol):
    """A connection of asyncpg."""

    def is_in_transaction(self) -> bool: ...
