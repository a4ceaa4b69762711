"""`tcp_client`: lines from a server, which is connected to again whenever it is gone."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar, cast, overload

from anabranch import _core
from anabranch.errors import refused
from anabranch.framing import check_framing
from anabranch.policy import Retry

if TYPE_CHECKING:
    from datetime import timedelta

    from anabranch._legs import Policy
    from anabranch.framing import Framing

ItemT = TypeVar("ItemT")

# For ever: a feed that was away for a night goes on in the morning.
_FOR_EVER: Final = Retry.exponential(attempts=(1 << 32) - 1)


@dataclass(frozen=True, slots=True)
class TcpClient(Generic[ItemT]):
    """What `tcp_client` was told; a pipeline connects while it runs.

    It cannot be iterated: without a pipeline there is nothing to hold the server back. The
    attributes are the arguments of `tcp_client`, durations as float seconds.
    """

    host: str
    port: int
    greeting: bytes
    framing: Framing
    max_line: int
    connect_timeout: float
    idle_timeout: float | None
    encoding: Literal["utf-8"] | None
    errors: Literal["strict", "replace"]
    retry: Retry | None
    until: float | Literal["disconnected"] | None

    @property
    def policy(self) -> Policy | None:
        """The retry policy as the extension takes it."""
        # Here: it imports what a program that only builds does not need.
        from anabranch._legs import retry_policy

        return None if self.retry is None else retry_policy(self.retry)

    @property
    def seed(self) -> int:
        """What the jitter begins with."""
        seed = None if self.retry is None else self.retry.seed
        return random.getrandbits(64) if seed is None else seed


@overload
def tcp_client(
    host: str,
    port: int,
    *,
    greeting: str | bytes = ...,
    framing: Framing = ...,
    max_line: int = ...,
    connect_timeout: float | timedelta = ...,
    idle_timeout: float | timedelta | None = ...,
    encoding: Literal["utf-8"] = ...,
    errors: Literal["strict", "replace"] = ...,
    retry: Retry | None = ...,
    until: float | timedelta | Literal["disconnected"] | None = ...,
) -> TcpClient[str]: ...
@overload
def tcp_client(
    host: str,
    port: int,
    *,
    greeting: str | bytes = ...,
    framing: Framing = ...,
    max_line: int = ...,
    connect_timeout: float | timedelta = ...,
    idle_timeout: float | timedelta | None = ...,
    encoding: None,
    errors: Literal["strict", "replace"] = ...,
    retry: Retry | None = ...,
    until: float | timedelta | Literal["disconnected"] | None = ...,
) -> TcpClient[bytes]: ...
def tcp_client(
    host: str,
    port: int,
    *,
    greeting: str | bytes = b"",
    framing: Framing = "lines",
    max_line: int = 65_536,
    connect_timeout: float | timedelta = 10.0,
    idle_timeout: float | timedelta | None = None,
    encoding: Literal["utf-8"] | None = "utf-8",
    errors: Literal["strict", "replace"] = "strict",
    retry: Retry | None = _FOR_EVER,
    until: float | timedelta | Literal["disconnected"] | None = None,
) -> TcpClient[Any]:
    r"""Connect to a server; each line it sends is an item. The twin of `tcp_lines`.

    A connection that is lost is a failure item with code `source.disconnected`; then the client
    connects again, as `retry` says. What the server sends in between is not heard. A line that the
    loss cut off is a failure besides (`source.truncated`); other lines that cannot be items are
    failures as with `tcp_lines`. A pipeline that cannot keep up stops reading, so the server's
    sends block.

    It says nothing but its greeting. To ask and to hear over one connection, the source is an async
    generator of one's own, which `ab.retry` connects again: see the example `duplex_sockets.py`.

    Args:
        host: The server's name or address; a name is looked up each time.
        port: Its port.
        greeting: What is sent first on each connection, as it is, e.g. a subscription.
        framing: What a line is: "lines" end with LF; an `ab.Delimiter` names other bytes, and after
            an `ab.LengthPrefix` come so many of any.
        max_line: The longest line, in bytes, without its end or its length.
        connect_timeout: Seconds that an attempt to connect, and to greet, may take.
        idle_timeout: Seconds after which a server that says nothing is taken for gone; None never.
        encoding: "utf-8" gives str items; None gives bytes.
        errors: What to do with invalid UTF-8: "strict" makes the line a failure item, "replace"
            puts U+FFFD in the place of each bad sequence.
        retry: How often in a row, and how patiently, it connects; by default for ever, after 0.2 s
            at first and at most 30 s. A connection that brought a line begins anew. When the policy
            ends, the source has failed, with an OSError. None: one attempt, and no other. The
            policy is asked outside the interpreter, so it has neither a `retry_on` nor functions.
        until: When the source ends by itself: after so many seconds, or, with "disconnected",
            when the server closes the connection properly. None: not before `running.drain()`
            or SIGTERM.

    Returns:
        The source, to be passed to `Pipeline.source`. Nothing is connected before the pipeline
        runs.

    Raises:
        ConfigError: An argument is not allowed.

    Example:
        >>> import asyncio
        >>> import anabranch as ab
        >>> async def feed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ...     topic = (await reader.readline()).decode().strip()
        ...     writer.write(f"first of {topic}\nsecond of {topic}\n".encode())
        ...     writer.close()
        ...     await writer.wait_closed()
        >>> async def main() -> list[str]:
        ...     async with await asyncio.start_server(feed, "127.0.0.1", 0) as server:
        ...         host, port = server.sockets[0].getsockname()
        ...         lines = ab.tcp_client(host, port, greeting="news\n", until="disconnected")
        ...         report = await ab.Pipeline("feed").source(lines).collect().run()
        ...     return report.items
        >>> asyncio.run(main())
        ['first of news', 'second of news']
    """
    subject = "tcp_client"
    if not isinstance(cast("object", greeting), str | bytes):
        raise refused("greeting", greeting, "a str or bytes", subject=subject)
    check_framing(framing, subject)
    _check_retry(retry, subject)
    options: dict[str, object] = {
        "host": host,
        "port": port,
        "max_line": max_line,
        "connect_timeout": connect_timeout,
        "idle_timeout": idle_timeout,
        "encoding": encoding,
        "errors": errors,
        "until": until,
    }
    checked: dict[str, Any] = _core.check_tcp_client(options)
    said = greeting.encode() if isinstance(greeting, str) else greeting
    return TcpClient(greeting=said, framing=framing, retry=retry, **checked)


def _check_retry(retry: object, subject: str) -> None:
    if retry is None:
        return
    if not isinstance(retry, Retry):
        raise refused("retry", retry, "a Retry or None", subject=subject)
    if retry.kind == "custom" or retry.retry_on is not None:
        allowed = "a Retry without retry_on, and not of the kind 'custom'"
        raise refused("retry", retry, allowed, subject=subject)
