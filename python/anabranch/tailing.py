"""`tail`: what is appended to a file, line by line, through rotation and truncation."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast, overload

from anabranch import _core
from anabranch.errors import refused

if TYPE_CHECKING:
    from datetime import timedelta

ItemT = TypeVar("ItemT")


@dataclass(frozen=True, slots=True)
class Tail(Generic[ItemT]):
    """What `tail` was told; a pipeline follows the file while it runs.

    The attributes are the arguments of `tail`, durations as float seconds.
    """

    path: str
    from_start: bool
    max_line: int
    encoding: Literal["utf-8"] | None
    errors: Literal["strict", "replace"]
    poll: float
    until: float | None


@overload
def tail(
    path: str | os.PathLike[str],
    *,
    from_start: bool = ...,
    max_line: int = ...,
    encoding: Literal["utf-8"] = ...,
    errors: Literal["strict", "replace"] = ...,
    poll: float | timedelta = ...,
    until: float | timedelta | None = ...,
) -> Tail[str]: ...
@overload
def tail(
    path: str | os.PathLike[str],
    *,
    from_start: bool = ...,
    max_line: int = ...,
    encoding: None,
    errors: Literal["strict", "replace"] = ...,
    poll: float | timedelta = ...,
    until: float | timedelta | None = ...,
) -> Tail[bytes]: ...
def tail(
    path: str | os.PathLike[str],
    *,
    from_start: bool = False,
    max_line: int = 65_536,
    encoding: Literal["utf-8"] | None = "utf-8",
    errors: Literal["strict", "replace"] = "strict",
    poll: float | timedelta = 0.1,
    until: float | timedelta | None = None,
) -> Tail[Any]:
    r"""Follow a file that grows, e.g. a log; each line that is appended is an item.

    A file that is not there yet is waited for, and read from its beginning. When another file takes
    its place (a log is rotated), the old one is read to its end, and then the new one, as soon as
    there is something in it. A file that gets shorter was truncated, and is read from its
    beginning. A line is an item once it is ended by LF (one CR before it is removed with it), or by
    the rotation; what the end of the run, or a truncation, cuts off is a failure item
    (`source.truncated`), as are lines that are too long (`source.line_too_long`) or not UTF-8
    (`source.invalid_utf8`). A file that cannot be read any more ends the source with its OSError.

    The file is looked at every `poll` seconds of the machine's time, also under a virtual clock. It
    is not watched through the system, whose notifications do not come from every file system. What
    is written, and gone again by rotation or truncation, between two looks is not seen.

    Args:
        path: The file.
        from_start: Whether what is in the file when the pipeline starts is read, too; otherwise
            it begins with the line that is not ended by then, if there is one.
        max_line: The longest line, in bytes, without its end.
        encoding: "utf-8" gives str items; None gives bytes.
        errors: What to do with invalid UTF-8: "strict" makes the line a failure item, "replace"
            puts U+FFFD in the place of each bad sequence.
        poll: Seconds from a look that brought nothing to the next.
        until: Seconds after which the source ends by itself; None: not before `running.drain()`
            or SIGTERM.

    Returns:
        The source, to be passed to `Pipeline.source`. Nothing is opened before the pipeline runs,
        which raises OSError if there is something at `path` that cannot be read.

    Raises:
        ConfigError: An argument is not allowed.

    Example:
        >>> import pathlib
        >>> import tempfile
        >>> import anabranch as ab
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     log = pathlib.Path(directory, "app.log")
        ...     _ = log.write_text("one\ntwo\nthr")
        ...     lines = ab.tail(log, from_start=True, until=0.0)
        ...     report = ab.Pipeline("tail").source(lines).collect().run_blocking()
        >>> report.items, report.codes
        (['one', 'two'], {'source.truncated': 1})
    """
    if not isinstance(cast("object", path), str | os.PathLike):
        raise refused("path", path, "a str or a path", subject="tail")
    options: dict[str, object] = {
        "path": os.fspath(path),
        "from_start": from_start,
        "max_line": max_line,
        "encoding": encoding,
        "errors": errors,
        "poll": poll,
        "until": until,
    }
    checked: dict[str, Any] = _core.check_tail(options)
    return Tail(**checked)
