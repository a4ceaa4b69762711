"""A file of dead letters: one line of JSON for each failure, written before the next one."""

from __future__ import annotations

import json
import os
import threading
from typing import TYPE_CHECKING, Final

from anabranch.errors import DeadLetterError

if TYPE_CHECKING:
    from anabranch.failure import Failure

_MODE: Final = 0o644


class LetterFile:
    """A file that failures are appended to.

    Called from the pipeline's threads, several at once. Each line goes to the system in one piece
    and without a buffer of ours, so that lines of two processes do not mix. A line that was cut
    short, by a full disk for instance, is ended before the next one.

    Args:
        path: The file; it is made if it is not there.

    Raises:
        OSError: It cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._file: int | None = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, _MODE)
        self._torn = False

    def __call__(self, failure: Failure) -> None:
        """Append a failure.

        Raises:
            DeadLetterError: It cannot be written.
        """
        line = json.dumps(failure.to_dict(), allow_nan=False).encode() + b"\n"
        with self._lock:
            try:
                self._write(line)
            except OSError as error:
                message = f"dead letters: cannot write to {self._path!r}: {error}"
                raise DeadLetterError(message, path=self._path) from error

    def _write(self, line: bytes) -> None:
        if self._file is None:
            raise OSError("the file is closed")
        rest = b"\n" + line if self._torn else line
        while rest:
            written = os.write(self._file, rest)
            rest = rest[written:]
            self._torn = bool(rest)

    def close(self) -> None:
        """Close the file; further failures are refused."""
        with self._lock:
            if self._file is not None:
                os.close(self._file)
                self._file = None
