"""The channel that a merge or a fan-in sends to: which may be given, and what it is closed with."""

from __future__ import annotations

from anabranch.channel import Channel
from anabranch.errors import Cancelled, refused


def check_destination(destination: object, close_destination: object, subject: str) -> None:
    """Raise a ConfigError unless these say where to send items, and whether to close it."""
    if not isinstance(destination, Channel):
        raise refused("destination", destination, "a Channel", subject=subject)
    if not isinstance(close_destination, bool):
        raise refused("close_destination", close_destination, "True or False", subject=subject)


def ending(error: BaseException, subject: str) -> Exception:
    """Return the error that a destination is closed with."""
    if isinstance(error, Exception):
        return error
    return Cancelled(f"{subject!r} was cancelled", reason="it was cancelled")
