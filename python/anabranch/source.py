"""`Source`: a reader, with what is to be told to where its items come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

from anabranch._readable import Readable
from anabranch.channel import Channel
from anabranch.errors import check_name, refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from anabranch._calls import Act

T = TypeVar("T")


class Source(Readable[T]):
    """A reader for `fan_in`, and what its items' origin is told.

    Args:
        reader: The channel.
        name: What errors and reports call it; the channel's name by default.
        ack: Called with an item once its handler has succeeded and what it did is committed.
            It is not cut short: one that may hang needs a timeout of its own.
        nack: Called with an item, and the exception, once what its handler did is undone. Without
            it the item of a handler that was cut short is put back into the channel.
        close: Called once, when the fan-in has ended, however it did.

    The callables may be `def`, called in the event loop's thread, or `async def`.

    Raises:
        ConfigError: An argument is not allowed.

    Example:
        >>> import anabranch as ab
        >>> orders: ab.Channel[str] = ab.Channel(10, name="orders")
        >>> ab.Source(orders, ack=print).name
        'orders'
    """

    __slots__ = ("_ack", "_close", "_nack", "_name", "_reader")

    _ack: Act | None
    _nack: Act | None
    _close: Act | None

    def __init__(
        self,
        reader: Channel[T],
        *,
        name: str | None = None,
        ack: Callable[[T], object] | None = None,
        nack: Callable[[T, BaseException], object] | None = None,
        close: Callable[[], object] | None = None,
    ) -> None:
        if not isinstance(cast("object", reader), Channel):
            raise refused("reader", reader, "a Channel", subject="Source")
        if name is not None:
            check_name(name, "Source")
        self._reader = reader
        self._name = reader.name if name is None else name
        # Mostly there are none, and the readers are many.
        self._ack = self._nack = self._close = None
        if ack is not None:
            self._ack = self._checked(ack, "ack", 1, "an item")
        if nack is not None:
            self._nack = self._checked(nack, "nack", 2, "an item and an exception")
        if close is not None:
            self._close = self._checked(close, "close", 0, "nothing")

    def _checked(self, fn: object, argument: str, count: int, gives: str) -> Act:
        # Here: it imports asyncio, which a program that only builds does not need.
        from anabranch._calls import act

        subject = f"source {self._name!r}"
        return act(fn, subject, argument=argument, args=(None,) * count, gives=gives)

    @property
    def reader(self) -> Channel[T]:
        """The channel."""
        return self._reader

    @property
    def name(self) -> str:
        """What errors and reports call it."""
        return self._name

    def _callables(self) -> list[tuple[str, Act]]:
        calls = (("ack", self._ack), ("nack", self._nack), ("close", self._close))
        return [(verb, call) for verb, call in calls if call is not None]

    def __repr__(self) -> str:
        return f"<Source {self._name!r}: {self._reader!r}>"


def sources_of(readers: Iterable[object], subject: str) -> list[Source[Any]]:
    """Return the sources that were given, bare readers among them.

    Raises:
        ConfigError: One is neither a source nor a reader, or is there twice.
    """
    if isinstance(readers, Channel | Source | str) or not hasattr(readers, "__iter__"):
        raise refused("readers", readers, "an iterable of Channels and Sources", subject=subject)
    sources: list[Source[Any]] = []
    given: list[Any] = list(readers)
    for at, reader in enumerate(given):
        if isinstance(cast("object", reader), Source):
            sources.append(reader)
        elif isinstance(cast("object", reader), Channel):
            sources.append(Source(reader))
        else:
            allowed = "a Channel or a Source"
            raise refused(f"readers[{at}]", reader, allowed, subject=subject)
    seen: set[int] = set()
    for at, source in enumerate(sources):
        if id(source.reader) in seen:
            allowed = "another channel than those before it"
            raise refused(f"readers[{at}]", source, allowed, subject=subject)
        seen.add(id(source.reader))
    return sources
