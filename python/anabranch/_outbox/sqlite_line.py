"""The connection to a file of SQLite that the outboxes in it share, and who watches the file."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from anabranch._outbox.sqlite_watch import FileWatch
from anabranch.errors import ForkedProcessError

if TYPE_CHECKING:
    from collections.abc import Callable

# Seconds to wait for another writer.
PATIENCE: Final = 5.0
# Of `pragma synchronous`: each commit waits for the disk.
_FULL: Final = 2


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
        # Whether its commits wait for the disk, and need not: a log loses the latest ones at most.
        self.may_hurry = False
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
            self.may_hurry = _is_logged(self._connection) and _waits(self._connection)
        if self._pid != os.getpid():
            raise ForkedProcessError(
                f"outbox {label} was opened in process {self._pid}, before the fork: make "
                "another in this one"
            )
        return self._connection

    def version(self) -> tuple[sqlite3.Connection, int] | None:
        """Tell what changes when others commit, not over this connection; None: it is not known."""
        if not self.lock.acquire(blocking=False):
            return None
        try:
            if self._connection is None:
                return None
            (version,) = self._connection.execute("pragma data_version").fetchone()
        except sqlite3.Error:
            return None
        else:
            return self._connection, version
        finally:
            self.lock.release()

    def listen(self, heard: Callable[[], object]) -> Callable[[], object]:
        """Call `heard` when somebody has committed to the file; see `Store`."""
        loop = asyncio.get_running_loop()
        watched = self._watches.get(loop)
        if watched is None:
            watched = self._watches[loop] = _Watched(self)
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


def _is_logged(connection: sqlite3.Connection) -> bool:
    (mode,) = connection.execute("pragma journal_mode").fetchone()
    return bool(mode == "wal")


def _waits(connection: sqlite3.Connection) -> bool:
    (level,) = connection.execute("pragma synchronous").fetchone()
    return bool(level == _FULL)


class _Watched:
    """The one watch on a file, and all who want to hear of it."""

    def __init__(self, line: SqliteLine) -> None:
        self.heard: list[Callable[[], object]] = []
        self.watch = FileWatch(line.path, self._tell, line.version)

    def _tell(self) -> None:
        for heard in tuple(self.heard):
            heard()
