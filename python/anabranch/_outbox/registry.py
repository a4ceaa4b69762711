"""Tenants that a table of a database tells of: the registry of an `OutboxRouter`."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from anabranch._outbox.providers import StoreAt, key_of
from anabranch._outbox.url import is_postgres, sqlite_path
from anabranch.errors import ConfigError, StoreUnavailable, refused

if TYPE_CHECKING:
    from collections.abc import Sequence

# Seconds to wait for the database to answer.
_PATIENCE: Final = 10
_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}(\.[a-z_][a-z0-9_]{0,62})?")


class Registry:
    """A table with the columns tenant, url, schema, enabled and weight.

    It is read over a connection that is open for as long as that takes.

    Args:
        url: Its database, as for `Outbox`.
        table: Its name.
    """

    def __init__(self, url: object, table: object) -> None:
        self._path = None if is_postgres(url) else sqlite_path(url, subject="OutboxRouter")
        self._url = str(url)
        if not isinstance(table, str) or not _NAME.fullmatch(table):
            allowed = "the name of a table, in lower case, perhaps with that of its schema"
            raise refused("table", table, allowed, subject="OutboxRouter")
        self._table = table
        self._sql = f"select tenant, url, schema, enabled, weight from {table}"  # noqa: S608 - it is a name
        self._places: dict[Any, StoreAt] = {}

    def tenants(self) -> list[str]:
        """Read the table."""
        rows = self._rows()
        self._places = {key_of(row[0]): _place(row) for row in rows}
        return [str(row[0]) for row in rows]

    def outbox(self, tenant: Any, /) -> StoreAt | None:  # noqa: ANN401 - any key
        """Return what the table says, as it was read last; it is read again for a new tenant."""
        key = key_of(tenant)
        if key not in self._places:
            self.tenants()
        return self._places.get(key)

    def _rows(self) -> Sequence[Any]:
        if self._path is not None:
            uri = f"file:{quote(self._path)}?mode=ro"
            try:
                with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
                    return connection.execute(self._sql).fetchall()
            except sqlite3.Error as error:
                raise self._unavailable(error) from error
        psycopg = _psycopg()
        try:
            with psycopg.connect(self._url, autocommit=True, connect_timeout=_PATIENCE) as on:
                rows: Sequence[Any] = on.execute(self._sql).fetchall()
                return rows
        except psycopg.Error as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> StoreUnavailable:
        text = " ".join(str(error).split())
        return StoreUnavailable(
            f"the table {self._table} of tenants cannot be read: {text}; see that it is there, "
            "with the columns tenant, url, schema, enabled and weight"
        )


def _psycopg() -> Any:  # noqa: ANN401 - it may be missing
    try:
        import psycopg
    except ImportError as error:
        raise ConfigError(
            "a table of tenants in PostgreSQL needs psycopg 3: pip install 'psycopg[binary]'"
        ) from error
    return psycopg


def _place(row: Sequence[Any]) -> StoreAt:
    _, url, schema, enabled, weight = row
    options = {} if schema is None else {"schema": schema}
    # What is wrong with one of them is said when its outbox is made.
    return StoreAt(
        url=url,
        weight=1.0 if weight is None else weight,
        enabled=enabled is None or bool(enabled),
        options=options,
    )
