"""The connection to a PostgreSQL database that the outboxes in it share, and who listens there."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING, Any, Final

from anabranch._outbox.postgres_listen import Listener
from anabranch.errors import ConfigError, ForkedProcessError

if TYPE_CHECKING:
    from collections.abc import Callable

# Seconds to wait for the database to answer a connect.
_PATIENCE: Final = 10


class PostgresLine:
    """One connection of psycopg's, opened when it is needed, and used by one at a time.

    Tenants of one table have it in common, and so have those whose schemas are in one database: the
    number of connections is that of the databases, not that of the tenants.

    Args:
        url: The database.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.lock = threading.Lock()
        self.users = 0
        self._connection: Any = None
        self._pid = 0
        self._listeners: dict[asyncio.AbstractEventLoop, Listener] = {}

    def opened(self, label: str) -> Any:  # noqa: ANN401 - psycopg's, which may be missing
        """Return the connection, to who holds the lock; `label` is the outbox that asks for it."""
        if self._connection is not None and self._pid != os.getpid():
            raise ForkedProcessError(
                f"outbox {label} was opened in process {self._pid}, before the fork: make "
                "another in this one"
            )
        if self._connection is None or self._connection.closed:
            self._connection = psycopg_of().connect(
                self.url, autocommit=True, connect_timeout=_PATIENCE, application_name="anabranch"
            )
            # It compiles what looks expensive: a claim of 10 ms took 3 s, once the table was large.
            # And where it believes that little is due, it sorts all of that for each claim, though
            # an index has it in order.
            self._connection.execute("set jit = off; set enable_sort = off")
            self._pid = os.getpid()
        return self._connection

    def listen(
        self, channel: str, tenant: str | None, heard: Callable[[], object]
    ) -> Callable[[], object]:
        """Call `heard` when something is said on a channel of a tenant, or of all; see `Store`."""
        loop = asyncio.get_running_loop()
        listener = self._listeners.get(loop)
        if listener is None:
            listener = self._listeners[loop] = Listener(self.url)
        end = listener.add(channel, tenant, heard)

        def ended() -> None:
            end()
            if not listener.is_wanted and self._listeners.get(loop) is listener:
                del self._listeners[loop]
                listener.close()

        return ended

    def rest(self) -> None:
        """Close the connection, until it is needed again."""
        with self.lock:
            connection, self._connection = self._connection, None
            if connection is not None and self._pid == os.getpid():
                connection.close()


def psycopg_of() -> Any:  # noqa: ANN401 - it may be missing
    """Return the module, or raise a ConfigError."""
    try:
        import psycopg
    except ImportError as error:
        raise ConfigError(
            "an outbox in PostgreSQL needs psycopg 3: pip install 'psycopg[binary]'"
        ) from error
    return psycopg
