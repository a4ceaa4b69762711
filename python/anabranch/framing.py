"""Where one line of a stream of bytes ends and the next begins: what `framing=` takes.

A line is whatever the framing cuts: text up to a line feed, by default, or what a `Delimiter`
ends, or a message that comes after its length, a `LengthPrefix`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

from anabranch.errors import refused

_SIZES = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True)
class Delimiter:
    r"""Lines that end with these bytes.

    A line ends the first time they come, read from its beginning. They are no part of the item;
    CR and LF, unless they are meant, are bytes like any other.

    Attributes:
        end: The bytes; at least one.

    Raises:
        ConfigError: They are none, or no bytes.

    Example:
        >>> import anabranch as ab
        >>> source = ab.tcp_lines("127.0.0.1", 9400, framing=ab.Delimiter(b"\0"))
        >>> source.framing
        Delimiter(end=b'\x00')
    """

    end: bytes

    def __post_init__(self) -> None:
        end = cast("object", self.end)
        if not isinstance(end, bytes) or not end:
            raise refused("end", end, "non-empty bytes", subject="Delimiter")


@dataclass(frozen=True, slots=True)
class LengthPrefix:
    """Lines, of any bytes, that come after their length: an unsigned integer.

    The length does not count itself. One that is longer than `max_line` is a failure item, told
    when the length has come, and so many bytes are skipped.

    Attributes:
        size: How many bytes the length has: 1, 2, 4 or 8.
        byteorder: "big", the network's, or "little".

    Raises:
        ConfigError: An argument is not allowed.

    Example:
        >>> import anabranch as ab
        >>> framing = ab.LengthPrefix(2)
        >>> source = ab.tcp_lines("127.0.0.1", 9400, framing=framing, encoding=None)
        >>> source.framing
        LengthPrefix(size=2, byteorder='big')
    """

    size: Literal[1, 2, 4, 8] = 4
    byteorder: Literal["big", "little"] = "big"

    def __post_init__(self) -> None:
        size = cast("object", self.size)
        if type(size) is not int or size not in _SIZES:
            raise refused("size", size, "1, 2, 4 or 8", subject="LengthPrefix")
        order = cast("object", self.byteorder)
        if order not in ("big", "little"):
            raise refused("byteorder", order, "'big' or 'little'", subject="LengthPrefix")


Framing: TypeAlias = Literal["lines"] | Delimiter | LengthPrefix
"""What `framing=` takes: "lines" end with LF, and one CR before it is removed with it."""


def check_framing(framing: object, subject: str) -> None:
    """Find out whether that is a framing.

    Raises:
        ConfigError: It is not.
    """
    if framing != "lines" and not isinstance(framing, Delimiter | LengthPrefix):
        allowed = "'lines', a Delimiter or a LengthPrefix"
        raise refused("framing", framing, allowed, subject=subject)
