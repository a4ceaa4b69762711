"""What is said to a monitor, and how its lines come: a conversation is a generator without I/O.

A conversation yields what is to be sent, or nothing, and is sent the next line that came.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

from anabranch.errors import AttachError, CommandError

if TYPE_CHECKING:
    from collections.abc import Generator

    from anabranch._snapshot import View

T = TypeVar("T")
Talk = "Generator[bytes, bytes, T]"

_PROTOCOL: Final = [1, 1]
# The longest line of the protocol.
_LONGEST: Final = 256 * 1024
# What is told of when it has been told of so often again.
_ANEW: Final = 2
# A pipeline whose numbers stand still is not waited for, in milliseconds.
_PATIENCE: Final = 500


def said(kind: str, **told: Any) -> bytes:  # noqa: ANN401 - whatever JSON has
    """Return a line."""
    return json.dumps({"t": kind, **told}).encode() + b"\n"


def entering(
    view: View, client: str, token: str | None, *, control: bool
) -> Generator[bytes, bytes, None]:
    """Say hello."""
    want = ["observe", "control", "payloads"] if control else ["observe"]
    hello = {"proto": _PROTOCOL, "client": client, "want": want}
    told = view.hear((yield said("hello", **hello, **({"token": token} if token else {}))))
    if told["t"] != "welcome":
        raise AttachError(
            told.get("msg") or "this is no monitor", reason=told.get("code", "refused")
        )


def looking(view: View, topics: list[str], interval: float) -> Generator[bytes, bytes, None]:
    """Ask for topics, and listen until all of it is newer than the question."""
    millis = max(50, round(interval * 1000))
    told = view.hear((yield said("sub", id=1, tick_ms=millis, bulk_ms=millis, topics=topics)))
    asked: dict[int, int] | None = None
    began = 0
    ready = False
    while True:
        if told["t"] == "bye":
            raise AttachError(told.get("msg") or "it has ended the session", reason=told["code"])
        if told["t"] == "tick":
            if asked is None:
                asked, began = view.sweeps(), told["ts"]
            now = view.sweeps()
            anew = all(now.get(it, began) >= before + _ANEW for it, before in asked.items())
            if ready and (view.whole or "branches" not in topics):
                return
            # The rows that have changed follow a tick.
            anew = anew and view.has_read_since(began)
            ready |= anew or told["ts"] - began >= _PATIENCE
        told = view.hear((yield b""))


def ticking(view: View) -> Generator[bytes, bytes, None]:
    """Listen until the next tick."""
    while (told := view.hear((yield b"")))["t"] != "tick":
        if told["t"] == "bye":
            raise AttachError(told.get("msg") or "it has ended the session", reason=told["code"])


def commanding(view: View, command: dict[str, Any], right: str) -> Generator[bytes, bytes, str]:
    """Give a command that needs a right; return what was told of it."""
    if right not in view.rights:
        raise CommandError("this process may only be looked at", reason="readonly")
    told = view.hear((yield said("cmd", id=1, **command)))
    while told["t"] != "done":
        if told["t"] == "bye":
            raise AttachError(told.get("msg") or "it has ended the session", reason=told["code"])
        told = view.hear((yield b""))
    failure = told.get("err")
    if failure:
        raise CommandError(failure.get("msg") or "it did not work", reason=failure["code"])
    return str(told.get("msg", "")) if view.payload is None else view.payload


def where(at: str) -> tuple[str, int] | str | None:
    """Return the address of a socket, a path or host and port; None if it is no such thing."""
    kind, _, place = at.partition(":")
    if kind != "tcp":
        return place or None
    host, _, port = place.rpartition(":")
    number = port.isascii() and port.isdigit() and 0 < int(port) <= 65_535  # noqa: PLR2004 - ports
    return (host.strip("[]"), int(port)) if host and number else None


def _place(at: str) -> tuple[str, int] | str:
    place = where(at)
    if place is None:
        raise _lost(at, "it is neither unix:PATH nor tcp:HOST:PORT")
    return place


def _lost(at: str, why: object) -> AttachError:
    return AttachError(f"{at}: {why or 'the connection was closed'}", reason="lost")


def _closed(at: str) -> AttachError:
    return AttachError(f"{at}: it was closed here", reason="closed")


def _silent(at: str, seconds: float) -> AttachError:
    return AttachError(f"{at} has not answered within {seconds:g} s", reason="timeout")


class BlockingLine:
    """A connection of a thread's."""

    def __init__(self, at: str, timeout: float) -> None:
        self._at = at
        self._timeout = timeout
        place = _place(at)
        # Whether it was hung up from here, by whatever thread.
        self._closed = False
        try:
            if isinstance(place, str):
                self._socket = socket.socket(socket.AF_UNIX)
                self._socket.settimeout(timeout)
                self._connect(place)
            else:
                self._socket = socket.create_connection(place, timeout)
        except TimeoutError:
            raise _silent(at, timeout) from None
        except OSError as error:
            raise _lost(at, error) from error
        self._lines = self._socket.makefile("rb")

    def _connect(self, path: str) -> None:
        try:
            self._socket.connect(path)
        except BaseException:
            self._socket.close()
            raise

    def hold(self, talk: Generator[bytes, bytes, T], *, most: float | None = None) -> T:
        """Hold a conversation; `most` is how long it may take in the place of the timeout."""
        limit = self._timeout if most is None else most
        end = time.monotonic() + limit
        try:
            say = next(talk)
            while True:
                self._socket.settimeout(max(0.001, end - time.monotonic()))
                if say:
                    self._socket.sendall(say)
                line = self._lines.readline(_LONGEST + 1)
                if not line.endswith(b"\n"):
                    raise self._over("")
                say = talk.send(line)
        except StopIteration as over:
            result: T = over.value
            return result
        except TimeoutError:
            raise _silent(self._at, limit) from None
        except OSError as error:
            raise self._over(error) from error

    def _over(self, why: object) -> AttachError:
        return _closed(self._at) if self._closed else _lost(self._at, why)

    def hang_up(self) -> None:
        """End it, whatever it is doing; any thread."""
        self._closed = True
        # Not `close`, which would wait for whoever reads.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Hang up."""
        self._lines.close()
        self._socket.close()


class AsyncLine:
    """A connection of a coroutine's."""

    def __init__(
        self,
        at: str,
        timeout: float,
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._at = at
        self._timeout = timeout
        self._reader, self._writer = streams
        # Whether it was hung up from here, by whatever thread.
        self._closed = False

    @classmethod
    async def open(cls, at: str, timeout: float) -> AsyncLine:  # noqa: ASYNC109 - kept for each conversation
        """Connect."""
        place = _place(at)
        try:
            async with asyncio.timeout(timeout):
                if isinstance(place, str):
                    streams = await asyncio.open_unix_connection(place, limit=2 * _LONGEST)
                else:
                    streams = await asyncio.open_connection(*place, limit=2 * _LONGEST)
        except TimeoutError:
            raise _silent(at, timeout) from None
        except OSError as error:
            raise _lost(at, error) from error
        return cls(at, timeout, streams)

    async def hold(self, talk: Generator[bytes, bytes, T], *, most: float | None = None) -> T:
        """Hold a conversation; `most` is how long it may take in the place of the timeout."""
        limit = self._timeout if most is None else most
        try:
            async with asyncio.timeout(limit):
                say = next(talk)
                while True:
                    if say:
                        self._writer.write(say)
                        await self._writer.drain()
                    line = await self._reader.readline()
                    if not line.endswith(b"\n"):
                        raise self._over("")
                    say = talk.send(line)
        except StopIteration as over:
            result: T = over.value
            return result
        except TimeoutError:
            raise _silent(self._at, limit) from None
        except OSError as error:
            raise self._over(error) from error

    def _over(self, why: object) -> AttachError:
        return _closed(self._at) if self._closed else _lost(self._at, why)

    def hang_up(self) -> None:
        """End it, whatever it is doing; any thread."""
        self._closed = True
        # The transport may only be closed by its loop's thread, which hears of the end so.
        with contextlib.suppress(OSError):
            self._writer.get_extra_info("socket").shutdown(socket.SHUT_RDWR)

    async def close(self) -> None:
        """Hang up."""
        self._writer.close()
        # Lost or not: it is over.
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
