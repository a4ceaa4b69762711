"""The connection to a file of SQLite that the outboxes in it share, and who watches the file."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from anabranch._outbox_sqlite_watch import FileWatch
from anabranch.errors import ForkedProcessError

if TYPE_CHECKING:
    from collections.abc import Callable

# Seconds to wait for another writer.
PATIENCE: Final = 5.0


class SqliteLine:
    """One connection, opened when it is needed, and used by one at a time.

    Args:
        path: The file.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        # Who does several things together has it already.
        self.lock = threading.RLock()
        self.users = 0
        self._connection: sqlite3.Connection | None = None
        self._pid = 0
        self._watches: dict[asyncio.AbstractEventLoop, _Watched] = {}

    def opened(self, label: str, *, creates: bool) -> sqlite3.Connection:
        """Return the connection, to who holds the lock; `label` is the outbox that asks for it."""
        if self._connection is None:
            # Connecting would create a file; an empty one is made by migrate alone.
            mode = "rwc" if creates else "rw"
            uri = f"file:{quote(self.path)}?mode={mode}"
            self._connection = sqlite3.connect(
                uri, uri=True, timeout=PATIENCE, isolation_level=None, check_same_thread=False
            )
            self._pid = os.getpid()
        if self._pid != os.getpid():
            raise ForkedProcessError(
                f"outbox {label} was opened in process {self._pid}, before the fork: make "
                "another in this one"
            )
        return self._connection

    def listen(self, heard: Callable[[], object]) -> Callable[[], object]:
        """Call `heard` when somebody has committed to the file; see `Store`."""
        loop = asyncio.get_running_loop()
        watched = self._watches.get(loop)
        if watched is None:
            watched = self._watches[loop] = _Watched(self.path)
        watched.heard.append(heard)

        def ended() -> None:
            watched.heard.remove(heard)
            if not watched.heard and self._watches.get(loop) is watched:
                del self._watches[loop]
                watched.watch.close()

        return ended

    def rest(self) -> None:
        """Close the connection, until it is needed again."""
        with self.lock:
            connection, self._connection = self._connection, None
            if connection is not None and self._pid == os.getpid():
                connection.close()


class _Watched:
    """The one watch on a file, and all who want to hear of it."""

    def __init__(self, path: str) -> None:
        self.heard: list[Callable[[], object]] = []
        self.watch = FileWatch(path, self._tell)

    def _tell(self) -> None:
        for heard in tuple(self.heard):
            heard()
