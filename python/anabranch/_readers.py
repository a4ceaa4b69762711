"""Many sources read as one: what `merge` and `fan_in` share."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast

from anabranch import _core
from anabranch._record import audible, note
from anabranch.errors import ConfigError, refused
from anabranch.source import sources_of
from anabranch.strategy import SourceState, Strategy, strategy_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

OnFault: TypeAlias = Literal["fail_fast", "drain", "quarantine"]

_ON_FAULT: Final = ("fail_fast", "drain", "quarantine")
# What the extension gives where there is nothing; an item can be anything else.
NOTHING: Final = object()


class Readers:
    """Sources, of which one at a time is read, as a strategy says.

    Attributes:
        sources: The sources.
        subject: What reads them, for errors.
        read: How many items were taken of each.
        faults: The errors that sources have ended with, by their names.
        quarantined: Those that are set aside, for who wants to hear of them as they come.
        error: What all of it ends with, where something has failed.
        left: How many sources have not ended.
    """

    def __init__(
        self, readers: Iterable[object], strategy: object, on_fault: object, subject: str
    ) -> None:
        self.sources = sources_of(readers, subject)
        if on_fault not in _ON_FAULT:
            allowed = "'fail_fast', 'drain' or 'quarantine'"
            raise refused("on_fault", on_fault, allowed, subject=subject)
        self.subject = subject
        self.read = [0] * len(self.sources)
        self.faults: dict[str, Exception] = {}
        self.quarantined: deque[Exception] = deque()
        self.error: Exception | None = None
        self.left = len(self.sources)
        self._strategy = strategy_of(strategy, len(self.sources), subject)
        self._on_fault = on_fault
        self._began = False

    def begin(self, time: _core.VirtualTime | None) -> None:
        """Go by this clock from here on."""
        it = self._strategy
        self._began = True
        self.core = _core.Readers(
            [source.reader._core for source in self.sources],
            it.kind,
            levels=None if it.levels is None else list(it.levels),
            aging=it.aging,
            weights=None if it.weights is None else list(it.weights),
            call=self._asked if it.kind == "custom" else None if it.call is None else self._stamped,
            time=time,
        )

    def take(self, done: int | None) -> tuple[int, Any, bool] | None:
        """Take the next item; None if there is none now, or no more at all.

        Args:
            done: The source that may be read again.

        Returns:
            The number of its source, the item, and whether there is more.

        Raises:
            Exception: A source has failed, or the strategy.
        """
        while self.error is None:
            try:
                event = self.core.take(NOTHING, done)
            except (StopIteration, StopAsyncIteration) as error:
                self.error = audible(error)
                note(self.error, f"in the strategy of {self.subject}")
                raise self.error from error
            except Exception as error:
                note(error, f"in the strategy of {self.subject}")
                self.error = error
                raise
            done = None
            if event is None:
                return None
            number, item, fault, more = event
            if item is not NOTHING:
                self.read[number] += 1
                return number, item, more
            self._end(number, fault)
        raise self.error

    @property
    def over(self) -> bool:
        """Whether all sources have ended."""
        return self.left == 0

    def conclude(self) -> None:
        """Raise what it ends with, if it has failed."""
        if self.error is None and self._on_fault == "drain":
            self.error = next(iter(self.faults.values()), None)
            for name, late in self.faults.items():
                if self.error is not None and late is not self.error:
                    note(self.error, f"and source {name!r} ended with {late!r}")
        if self.error is not None:
            raise self.error

    def leave(self) -> None:
        """Read no more: what was promised is the others'."""
        if self._began:
            self.core.leave()

    def check_not_read(self, destination: object) -> None:
        """Raise a ConfigError if all that is read would come round to be read again."""
        if any(source.reader is destination for source in self.sources):
            allowed = "a channel that is not one of the sources"
            raise refused("destination", destination, allowed, subject=self.subject)

    def put_back(self, number: int, item: object) -> None:
        """Put an item back where it was taken from."""
        self.read[number] -= 1
        self.core.put_back(number, item)

    def _end(self, number: int, error: Exception | None) -> None:
        self.left -= 1
        if error is None:
            return
        source = self.sources[number]
        if isinstance(error, StopIteration | StopAsyncIteration):
            error = audible(error)
        note(error, f"in source {source.name!r} of {self.subject}")
        self.faults.setdefault(source.name, error)
        if self._on_fault == "fail_fast":
            self.error = error
        elif self._on_fault == "quarantine":
            self.quarantined.append(error)

    def _asked(self, looks: Sequence[tuple[bool, int, float, bool]]) -> int | None:
        """Ask a strategy of the user's."""
        states = [
            SourceState(
                number=number,
                name=self.sources[number].name,
                ready=ready,
                depth=depth,
                age=age,
                ended=ended,
            )
            for number, (ready, depth, age, ended) in enumerate(looks)
        ]
        choose = self._strategy.call
        assert choose is not None  # noqa: S101 - for the type
        answer: object = choose(states)
        if answer is None:
            if all(state.ready or state.ended for state in states):
                raise _nothing_to_wait_for(self._strategy, self.subject)
            return None
        if type(answer) is not int or not 0 <= answer < len(states):
            raise _no_source(answer, self._strategy, len(states), self.subject)
        return answer

    def _stamped(self, item: object) -> float:
        """Ask the key of `oldest_first`."""
        by = self._strategy.call
        assert by is not None  # noqa: S101 - for the type
        answer: object = by(item)
        # Nothing is older than what is no number, or younger.
        if not hasattr(type(answer), "__float__") or math.isnan(
            stamp := float(cast("Any", answer))
        ):
            what = f"what the key {_name(by)} of 'oldest_first' returns"
            raise refused(what, answer, "a number", subject=self.subject)
        return stamp


def _name(fn: Callable[..., object] | None) -> str:
    return getattr(fn, "__qualname__", "it")


def _nothing_to_wait_for(strategy: Strategy, subject: str) -> ConfigError:
    allowed = "the number of a source where no other can become ready"
    return refused(
        f"what the strategy {_name(strategy.call)} returns", None, allowed, subject=subject
    )


def _no_source(answer: object, strategy: Strategy, sources: int, subject: str) -> ConfigError:
    name = _name(strategy.call)
    allowed = f"None or the number of a source, an int from 0 to {sources - 1}"
    return refused(f"what the strategy {name} returns", answer, allowed, subject=subject)
