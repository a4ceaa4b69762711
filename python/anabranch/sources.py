"""Native sources: `tcp_lines`, served by the extension without a thread of Python's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from anabranch import _core
from anabranch.framing import check_framing

if TYPE_CHECKING:
    from datetime import timedelta

    from anabranch.framing import Framing

ItemT = TypeVar("ItemT")


@dataclass(frozen=True, slots=True)
class TcpLines(Generic[ItemT]):
    """What `tcp_lines` was told; a pipeline serves it while it runs.

    It cannot be iterated: without a pipeline there is nothing to hold the clients back. The
    attributes are the arguments of `tcp_lines`, durations as float seconds.
    """

    host: str
    port: int
    framing: Framing
    max_line: int
    max_connections: int
    idle_timeout: float | None
    encoding: Literal["utf-8"] | None
    errors: Literal["strict", "replace"]
    peer: bool
    until: float | Literal["disconnected"] | None


@overload
def tcp_lines(
    host: str,
    port: int,
    *,
    framing: Framing = ...,
    max_line: int = ...,
    max_connections: int = ...,
    idle_timeout: float | timedelta | None = ...,
    encoding: Literal["utf-8"] = ...,
    errors: Literal["strict", "replace"] = ...,
    peer: Literal[False] = ...,
    until: float | timedelta | Literal["disconnected"] | None = ...,
) -> TcpLines[str]: ...
@overload
def tcp_lines(
    host: str,
    port: int,
    *,
    framing: Framing = ...,
    max_line: int = ...,
    max_connections: int = ...,
    idle_timeout: float | timedelta | None = ...,
    encoding: Literal["utf-8"] = ...,
    errors: Literal["strict", "replace"] = ...,
    peer: Literal[True],
    until: float | timedelta | Literal["disconnected"] | None = ...,
) -> TcpLines[tuple[str, str]]: ...
@overload
def tcp_lines(
    host: str,
    port: int,
    *,
    framing: Framing = ...,
    max_line: int = ...,
    max_connections: int = ...,
    idle_timeout: float | timedelta | None = ...,
    encoding: None,
    errors: Literal["strict", "replace"] = ...,
    peer: Literal[False] = ...,
    until: float | timedelta | Literal["disconnected"] | None = ...,
) -> TcpLines[bytes]: ...
@overload
def tcp_lines(
    host: str,
    port: int,
    *,
    framing: Framing = ...,
    max_line: int = ...,
    max_connections: int = ...,
    idle_timeout: float | timedelta | None = ...,
    encoding: None,
    errors: Literal["strict", "replace"] = ...,
    peer: Literal[True],
    until: float | timedelta | Literal["disconnected"] | None = ...,
) -> TcpLines[tuple[str, bytes]]: ...
def tcp_lines(
    host: str,
    port: int,
    *,
    framing: Framing = "lines",
    max_line: int = 65_536,
    max_connections: int = 1024,
    idle_timeout: float | timedelta | None = None,
    encoding: Literal["utf-8"] | None = "utf-8",
    errors: Literal["strict", "replace"] = "strict",
    peer: bool = False,
    until: float | timedelta | Literal["disconnected"] | None = None,
) -> TcpLines[Any]:
    r"""Listen on a TCP address; each line a client sends is an item.

    A line ends with LF; one CR before it is removed with it; or it is what `framing` says. What a
    client sends after its last LF is an item, too, if it closes the connection properly; if the
    connection breaks, it is a failure with code `source.truncated`. A pipeline that cannot keep
    up stops reading, so the clients' sends block: nothing is lost and memory stays bounded.

    A line that cannot be an item is a failure item, and the connection goes on: too long
    (`source.line_too_long`) or not UTF-8 (`source.invalid_utf8`).

    Args:
        host: The address to listen on, e.g. "127.0.0.1", "::1" or "0.0.0.0".
        port: The port; 0 picks a free one, which `running.address` tells.
        framing: What a line is: "lines" end with LF; an `ab.Delimiter` names other bytes, and after
            an `ab.LengthPrefix` come so many of any.
        max_line: The longest line, in bytes, without its end or its length.
        max_connections: How many clients are served at once; more wait to be accepted.
        idle_timeout: Seconds after which a client that says nothing is disconnected; None never.
        encoding: "utf-8" gives str items; None gives bytes.
        errors: What to do with invalid UTF-8: "strict" makes the line a failure item, "replace"
            puts U+FFFD in the place of each bad sequence.
        peer: Whether items are pairs `(peer, line)`, with the client as "ip:port".
        until: When the source ends by itself: after so many seconds, or, with "disconnected",
            when at least one client came and all have gone. None: not before `running.drain()`
            or SIGTERM.

    Returns:
        The source, to be passed to `Pipeline.source`. Nothing listens before the pipeline runs.

    Raises:
        ConfigError: An argument is not allowed.

    Example:
        >>> import asyncio
        >>> import anabranch as ab
        >>> async def main() -> list[str]:
        ...     lines = ab.tcp_lines("127.0.0.1", 0, until="disconnected")
        ...     pipeline = ab.Pipeline("lines").source(lines).collect()
        ...     async with pipeline.start() as running:
        ...         _, client = await asyncio.open_connection(*running.address)
        ...         client.write(b"one\r\ntwo")
        ...         client.close()
        ...         await client.wait_closed()
        ...         report = await running.wait()
        ...     return report.items
        >>> asyncio.run(main())
        ['one', 'two']
    """
    check_framing(framing, "tcp_lines")
    options: dict[str, object] = {
        "host": host,
        "port": port,
        "max_line": max_line,
        "max_connections": max_connections,
        "idle_timeout": idle_timeout,
        "encoding": encoding,
        "errors": errors,
        "peer": peer,
        "until": until,
    }
    checked: dict[str, Any] = _core.check_tcp(options)
    return TcpLines(framing=framing, **checked)
