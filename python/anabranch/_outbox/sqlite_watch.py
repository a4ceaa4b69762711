"""Hears of what others commit to a file of SQLite."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote
from weakref import WeakKeyDictionary

from anabranch import _core

if TYPE_CHECKING:
    from collections.abc import Callable

# Seconds between two looks, where nobody tells of writes. Looking takes some 2 microseconds: 0.1 %
# of a core, and half of this is what a message waits.
_EVERY: Final = 0.005
# The same where somebody does, soon after a write and long after it. A write is told of before its
# commit can be seen, which is when the disk has it. How much later that is nobody knows: each wait
# is an eighth of the time that has passed.
_SOON: Final = 0.0005
_SELDOM: Final = 0.5
_SHARE: Final = 1 / 8


class FileWatch:
    """Looks whether somebody has committed to a file, soon after it was written to.

    Of a running event loop. Where the system does not tell of writes, it looks all the time.

    Args:
        path: The file.
        heard: Called when somebody has committed.
        others: Tells something else once others than its owner have; None: it cannot just now.
    """

    def __init__(
        self, path: str, heard: Callable[[], object], others: Callable[[], object] = lambda: None
    ) -> None:
        self._heard = heard
        self._others = others
        self._known_others: object = None
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._connection: sqlite3.Connection | None = None
        self._written_at = self._loop.time()
        self._end = _tell(path, self._written)
        # Somebody may hold the file just now.
        self._known: int | None = None
        self._known = self._version()
        self._timer = self._loop.call_later(_EVERY, self._look)

    def close(self) -> None:
        """Look no more."""
        self._timer.cancel()
        self._deaf()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _deaf(self) -> None:
        end, self._end = self._end, None
        if end is not None:
            end()

    def _written(self) -> None:
        self._written_at = self._loop.time()
        # One write after another does not put it off.
        if self._timer.when() > self._written_at + _SOON:
            self._timer.cancel()
            self._timer = self._loop.call_later(_SOON, self._look)

    def _look(self) -> None:
        since = self._loop.time() - self._written_at
        version = self._version()
        if version != self._known:
            self._known = version
            if since > _SELDOM / _SHARE:
                # It was not told of this: writes from afar, or to some file systems, are not.
                self._deaf()
            others, self._known_others = self._known_others, self._others()
            if others is None or others != self._known_others:
                self._heard()
        wait = _EVERY if self._end is None else min(max(_SOON, since * _SHARE), _SELDOM)
        self._timer = self._loop.call_later(wait, self._look)

    def _version(self) -> int | None:
        try:
            if self._connection is None:
                uri = f"file:{quote(self._path)}?mode=ro"
                self._connection = sqlite3.connect(uri, uri=True, timeout=0, isolation_level=None)
            version: int = self._connection.execute("pragma data_version").fetchone()[0]
        except sqlite3.Error:
            # The worker's own claims tell what is wrong; it asks without being told, too.
            return self._known if self._connection is not None else None
        return version


class _Writes:
    """Who is to be told of writes to which files; one for an event loop, as a user has few."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._folders = _core.Folders()
        self._told: dict[int, dict[str, list[Callable[[], object]]]] = {}
        loop.add_reader(self._folders.fileno(), self._read)

    def add(self, file: Path, told: Callable[[], object]) -> Callable[[], object]:
        """Call `told` when a database is written to; return what ends that."""
        folder = self._folders.watch(str(file.parent))
        files = self._told.setdefault(folder, {})
        names = (file.name, f"{file.name}-wal")
        for name in names:
            files.setdefault(name, []).append(told)

        def end() -> None:
            for name in names:
                files[name].remove(told)
                if not files[name]:
                    del files[name]
            if not files:
                self._told.pop(folder, None)
                self._folders.leave(folder)
            if not self._told:
                _writes.pop(self._loop, None)
                self._loop.remove_reader(self._folders.fileno())

        return end

    def _read(self) -> None:
        for written in self._folders.written():
            if written is None:
                files = [told for named in self._told.values() for told in named.values()]
            else:
                folder, name = written
                files = [self._told.get(folder, {}).get(name, [])]
            for told in files:
                for each in tuple(told):
                    each()


_writes: WeakKeyDictionary[asyncio.AbstractEventLoop, _Writes] = WeakKeyDictionary()


def _tell(path: str, told: Callable[[], object]) -> Callable[[], object] | None:
    """Call `told` when a database is written to; return what ends that; None: nobody can."""
    loop = asyncio.get_running_loop()
    try:
        # Its log stands beside the file itself.
        file = Path(path).resolve()
        writes = _writes.get(loop)
        if writes is None:
            writes = _writes[loop] = _Writes(loop)
        return writes.add(file, told)
    except (OSError, NotImplementedError):
        # There are too many, or this system has no such thing, or the event loop cannot wait.
        return None
