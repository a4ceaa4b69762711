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
    want = ["observe", "control"] if control else ["observe"]
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
            ready |= anew or told["ts"] - began >= _PATIENCE
        told = view.hear((yield b""))


def ticking(view: View) -> Generator[bytes, bytes, None]:
    """Listen until the next tick."""
    while (told := view.hear((yield b"")))["t"] != "tick":
        if told["t"] == "bye":
            raise AttachError(told.get("msg") or "it has ended the session", reason=told["code"])


def commanding(view: View, command: dict[str, Any]) -> Generator[bytes, bytes, dict[str, Any]]:
    """Give a command; return how it ended."""
    if "control" not in view.rights:
        raise CommandError("this process may only be looked at", reason="readonly")
    told = view.hear((yield said("cmd", id=1, **command)))
    while told["t"] != "done":
        if told["t"] == "bye":
            raise AttachError(told.get("msg") or "it has ended the session", reason=told["code"])
        told = view.hear((yield b""))
    failure = told.get("err")
    if failure:
        raise CommandError(failure.get("msg") or "it did not work", reason=failure["code"])
    return told


def _where(at: str) -> tuple[str, int] | str:
    """Return the address of a socket: a path, or host and port."""
    kind, _, place = at.partition(":")
    if kind != "tcp":
        return place
    host, _, port = place.rpartition(":")
    return host.strip("[]"), int(port)


def _lost(at: str, why: object) -> AttachError:
    return AttachError(f"{at}: {why or 'the connection was closed'}", reason="lost")


def _silent(at: str, seconds: float) -> AttachError:
    return AttachError(f"{at} has not answered within {seconds:g} s", reason="timeout")


class BlockingLine:
    """A connection of a thread's."""

    def __init__(self, at: str, timeout: float) -> None:
        self._at = at
        self._timeout = timeout
        where = _where(at)
        try:
            if isinstance(where, str):
                self._socket = socket.socket(socket.AF_UNIX)
                self._socket.settimeout(timeout)
                self._connect(where)
            else:
                self._socket = socket.create_connection(where, timeout)
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
                    raise _lost(self._at, "")
                say = talk.send(line)
        except StopIteration as over:
            result: T = over.value
            return result
        except TimeoutError:
            raise _silent(self._at, limit) from None
        except OSError as error:
            raise _lost(self._at, error) from error

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

    @classmethod
    async def open(cls, at: str, timeout: float) -> AsyncLine:  # noqa: ASYNC109 - kept for each conversation
        """Connect."""
        where = _where(at)
        try:
            async with asyncio.timeout(timeout):
                if isinstance(where, str):
                    streams = await asyncio.open_unix_connection(where, limit=2 * _LONGEST)
                else:
                    streams = await asyncio.open_connection(*where, limit=2 * _LONGEST)
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
                        raise _lost(self._at, "")
                    say = talk.send(line)
        except StopIteration as over:
            result: T = over.value
            return result
        except TimeoutError:
            raise _silent(self._at, limit) from None
        except OSError as error:
            raise _lost(self._at, error) from error

    async def close(self) -> None:
        """Hang up."""
        self._writer.close()
        # Lost or not: it is over.
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
