"""When each store has its turn: pure, `now` is an argument, and what is drawn comes from a seed.

It is Python, not Rust: a selection may be a caller's own `def`, which sees what is here, and what
is decided here is decided once per claim of up to a thousand messages.

A store waits until its time has come, is then due, has a turn when the selection says so and fewer
than `parallel` others have one, and waits again: not at all if there was more in it, for its poll
otherwise, and for longer each time that it was empty or could not be reached.
"""

from __future__ import annotations

import heapq
import itertools
import random
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from anabranch.errors import ConfigError
from anabranch.selection import StoreView

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anabranch.selection import Selection

# A store is passed over for so many rounds of those that are due, at most.
_ROUNDS: Final = 10
# Seconds that one which cannot be reached is left alone, at first and at most.
_REST: Final = 0.1
_LONGEST_REST: Final = 30.0


class Turn(NamedTuple):
    """What a turn has found.

    Attributes:
        found: "full": there is more; "some"; "none"; "blocked": nobody has room for what is there.
        due: Seconds until there is something to claim that is not now; None: there is nothing.
        depth: How many messages are ready; None: nobody has looked.
        oldest: For how many seconds the first of them has been due.
    """

    found: Literal["full", "some", "none", "blocked"]
    due: float | None = None
    depth: int | None = None
    oldest: float | None = None


class _Seat(StoreView):
    """A store, and when it has its turn."""

    __slots__ = ("at", "granted", "heard", "idle", "key", "number", "state")

    def __init__(self, key: Any, tenant: object, weight: float, number: int) -> None:  # noqa: ANN401 - anything hashable
        super().__init__(tenant, weight)
        self.key = key
        self.number = number
        self.state: Literal["waiting", "due", "running"] = "waiting"
        # When it is due; the seconds of its next wait; whether it was told of something while it
        # had its turn; how many turns there were when it became due.
        self.at = 0.0
        self.idle = 0.0
        self.heard = False
        self.granted = 0


class Schedule:
    """Whose turn it is.

    Args:
        selection: Which of those that are due is next.
        parallel: How many have a turn at once.
        poll: Seconds until one that is idle has its next turn, at first and at most.
        seed: Of what spreads the polls.
    """

    def __init__(
        self, selection: Selection, *, parallel: int, poll: tuple[float, float], seed: int | None
    ) -> None:
        self._select = selection
        self._parallel = parallel
        self._poll = poll
        self._random = random.Random(seed)  # noqa: S311 - it spreads the polls
        self._seats: dict[Any, _Seat] = {}
        self._heap: list[tuple[float, int, _Seat]] = []
        self._numbers = itertools.count()
        # In the order in which they became due.
        self._due: dict[int, _Seat] = {}
        self._running = 0
        # Those with a turn that could not be reached before: they get a quarter of the turns, so
        # that the others never wait for a database that does not answer.
        self._suspects = 0
        self._turns = 0
        self._share = 0.0

    def __contains__(self, key: object) -> bool:
        return key in self._seats

    def view(self, key: object) -> StoreView:
        """Return what a selection sees of a store."""
        return self._seats[key]

    def add(self, key: object, now: float, *, tenant: object = None, weight: float = 1.0) -> None:
        """Give a store turns from now on; one that is there keeps what is known of it."""
        seat = self._seats.get(key)
        if seat is not None:
            seat.weight = weight
            return
        seat = self._seats[key] = _Seat(key, tenant, weight, next(self._numbers))
        seat.idle = self._poll[0]
        self._wait(seat, now)

    def remove(self, key: object) -> None:
        """Give a store no more turns, in whatever state it is."""
        seat = self._seats.pop(key, None)
        if seat is not None:
            self._leave(seat)
            seat.state = "waiting"
            # What still stands in the heap is passed over.
            seat.at = -1.0

    def hear(self, key: object, now: float) -> None:
        """Something may have been enqueued: it is due, and will be asked often for a while."""
        seat = self._seats.get(key)
        if seat is None:
            return
        seat.depth = seat.oldest = None
        seat.idle = self._poll[0]
        # One that cannot be reached rests, whatever is said of it.
        if not seat.failures:
            self.hint(key, now)

    def hint(self, key: object, at: float) -> None:
        """A turn at `at` would be of use, at the latest."""
        seat = self._seats.get(key)
        if seat is None:
            return
        if seat.state == "running":
            # What its turn has seen may be older than this.
            seat.heard = True
            seat.at = at if seat.at < 0 else min(seat.at, at)
        elif seat.state == "waiting" and at < seat.at:
            self._wait(seat, at)

    def begin(self, now: float) -> list[Any]:
        """Return the stores whose turn begins now."""
        while self._heap and self._heap[0][0] <= now:
            at, _, seat = heapq.heappop(self._heap)
            if seat.state == "waiting" and seat.at == at:
                self._make_due(seat)
        begun: list[Any] = []
        while self._running < self._parallel:
            due = self._may_begin()
            if not due:
                break
            seat = self._next(due)
            del self._due[seat.number]
            seat.state = "running"
            seat.heard = False
            seat.at = -1.0
            self._running += 1
            self._suspects += seat.failures > 0
            self._turns += 1
            seat.served = self._turns
            seat.turns += 1
            # Those that become due later begin where the others are.
            self._share = max(self._share, min(it.share for it in due))
            seat.share += 1.0 / seat.weight
            begun.append(seat.key)
        return begun

    def until(self) -> float | None:
        """Tell when a turn is due next; None: not before a turn ends, or somebody is heard."""
        while self._heap:
            at, _, seat = self._heap[0]
            if seat.state == "waiting" and seat.at == at:
                return at
            heapq.heappop(self._heap)
        return None

    def end(self, key: object, now: float, turn: Turn) -> None:
        """A turn has ended."""
        seat = self._ended(key)
        if seat is None:
            return
        seat.failures = 0
        if not seat.heard:
            seat.depth, seat.oldest = turn.depth, turn.oldest
        if turn.found == "full":
            seat.idle = self._poll[0]
            self._make_due(seat)
            return
        if turn.found == "some":
            seat.idle = self._poll[0]
        # On their way to the longest wait stores that began at once are spread over it.
        spread = 0.5 if self._poll[0] < seat.idle < self._poll[1] else 0.1
        wait = seat.idle * (1.0 - spread * self._random.random())
        if turn.found == "none" and not seat.heard:
            seat.idle = min(self._poll[1], seat.idle * 2)
        if turn.due is not None:
            wait = min(wait, turn.due)
        at = now + max(0.0, wait)
        self._wait(seat, min(at, seat.at) if seat.heard else at)

    def fail(self, key: object, now: float) -> float:
        """A store could not be reached; return for how many seconds it is left alone."""
        seat = self._ended(key)
        if seat is None:
            seat = self._seats.get(key)
            if seat is None:
                return _LONGEST_REST
            self._leave(seat)
        seat.failures += 1
        longest = min(_LONGEST_REST, _REST * 2 ** min(seat.failures, 20))
        rest: float = longest * (0.5 + self._random.random() / 2)
        self._wait(seat, now + rest)
        return rest

    def _ended(self, key: object) -> _Seat | None:
        seat = self._seats.get(key)
        if seat is None or seat.state != "running":
            return None
        self._leave(seat)
        return seat

    def _leave(self, seat: _Seat) -> None:
        if seat.state == "running":
            self._running -= 1
            self._suspects -= seat.failures > 0
        self._due.pop(seat.number, None)

    def _wait(self, seat: _Seat, at: float) -> None:
        seat.state = "waiting"
        seat.at = at
        heapq.heappush(self._heap, (at, next(self._numbers), seat))

    def _make_due(self, seat: _Seat) -> None:
        seat.state = "due"
        seat.granted = self._turns
        seat.share = max(seat.share, self._share)
        self._due[seat.number] = seat

    def _may_begin(self) -> Sequence[_Seat]:
        if self._suspects < max(1, self._parallel // 4):
            return list(self._due.values())
        return [seat for seat in self._due.values() if not seat.failures]

    def _next(self, due: Sequence[_Seat]) -> _Seat:
        first = due[0]
        if len(due) == 1 or self._turns - first.granted >= _ROUNDS * len(due):
            return first
        chosen = self._select(due)
        if not isinstance(chosen, _Seat) or self._due.get(chosen.number) is not chosen:
            raise ConfigError(
                "OutboxWorker: selection must return one of the stores it was given, got "
                f"{chosen!r}",
                argument="selection",
                value=chosen,
            )
        return chosen
