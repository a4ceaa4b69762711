"""What lanes have in hand of one store: messages from their claim until what became of them."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from anabranch._outbox.delivery import BACK, DONE, Delivery, Share, Verdict
from anabranch._outbox.outcomes import parts_of, receipt_of
from anabranch._outbox.routes import waited_for

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anabranch._outbox.outcomes import Outcomes
    from anabranch._outbox.post import Post
    from anabranch._outbox.routes import Routes
    from anabranch._outbox.store import Receipt, Row, Subscription
    from anabranch._outbox.taker import Taker


class Hand:
    """Messages that were claimed and have not ended; it asks no store, and knows no clock.

    Args:
        post: Where they were claimed, and hear what became of them.
        lanes: Those who handle, by the name of their subscriber.
        routes: Who is to get what.
        outcomes: Where what became of them goes.
        most: How many of them each lane may have before nothing more is claimed for it.
    """

    def __init__(
        self,
        post: Post,
        lanes: Mapping[str, Taker],
        routes: Routes,
        outcomes: Outcomes,
        *,
        most: int,
    ) -> None:
        # How many were claimed to be handled, all in all.
        self.claimed = 0
        # Written by any thread, read by the event loop's.
        self.settled: deque[tuple[Delivery, Verdict]] = deque()
        # Whether one with an ordering key has ended; whoever makes use of that says so here.
        self.keyed = False
        self._post = post
        self._lanes = lanes
        self._routes = routes
        self._outcomes = outcomes
        self._most = most
        self._open: dict[int, Delivery | Share] = {}
        self._counts = dict.fromkeys(lanes, 0)

    def __len__(self) -> int:
        return len(self._open)

    def full(self) -> set[str]:
        """Return the lanes that have no room."""
        return {name for name, count in self._counts.items() if count > self._most}

    # -- what was claimed

    def deal(self, rows: Sequence[Row]) -> int:
        """Give messages to the lanes; return how many there were for them."""
        gifts: dict[str, list[Delivery]] = {}
        before = self.claimed
        topic = lane = None
        route: list[Subscription] = []
        gift: list[Delivery] = []
        post, held = self._post, self._open
        for row in rows:
            if row[1] != topic:
                topic = row[1]
                route = self._routes.to(topic)
                lane = self._lanes.get(route[0][0]) if len(route) == 1 else None
                if lane is not None:
                    gift = gifts.setdefault(lane.name, [])
            if lane is not None and row[21] is None:
                delivery = Delivery(row, post, lane, row[15])
                if row[0] in held:
                    self._take_away(row[0])
                held[row[0]] = delivery
                self.claimed += 1
                if row[15] <= lane.attempts:
                    gift.append(delivery)
                else:
                    self._add(gifts, delivery)
            else:
                self._divide(row, route, gifts)
        for name, deliveries in gifts.items():
            if deliveries:
                self._counts[name] += len(deliveries)
                self._lanes[name].give(deliveries)
        return self.claimed - before

    def _divide(
        self, row: Row, route: list[Subscription], gifts: dict[str, list[Delivery]]
    ) -> None:
        """Give a message to those of several subscribers that are here and wait for it."""
        waiting = waited_for(row, route)
        here = [name for name in waiting if name in self._lanes]
        receipt = (row[0], row[17], row[20])
        if not waiting and row[21] is not None:
            self._outcomes.acks.append(receipt)
            return
        if not here:
            self._routes.shun(row[1], parked=not waiting)
            self._outcomes.releases.append(receipt)
            return
        share = Share(row, waiting)
        for name in here:
            if share.is_due(name):
                delivery = Delivery(row, self._post, self._lanes[name], share.attempt(name))
                delivery.share = share
                share.parts[name] = delivery
        if not share.parts:
            self._outcomes.divided.append(share.postponed())
            return
        if row[0] in self._open:
            self._take_away(row[0])
        self._open[row[0]] = share
        self.claimed += 1
        for delivery in share.parts.values():
            self._add(gifts, delivery)

    def _add(self, gifts: dict[str, list[Delivery]], delivery: Delivery) -> None:
        lane = delivery.lane
        if delivery.attempt > lane.attempts:
            # The attempts before were cut off each time, with those who made them.
            error = f"Poison: {delivery.attempt - 1} attempts, the last of them without an end"
            self._counts[lane.name] += 1
            self.settled.append((delivery, Verdict("dead", error=error)))
            return
        gifts.setdefault(lane.name, []).append(delivery)

    # -- what became of it

    def sort(self, elapsed: int) -> list[int]:
        """Take what has ended to the outcomes, so many milliseconds after the latest claim.

        Returns:
            In how many milliseconds parts of messages are due again.
        """
        settled, held, counts = self.settled, self._open, self._counts
        acks = self._outcomes.acks
        due: list[int] = []
        while settled:
            delivery, verdict = settled.popleft()
            row, share = delivery._row, delivery.share  # noqa: SLF001 - the package's
            if held.get(row[0]) is not (delivery if share is None else share):
                continue
            self.keyed |= row[7] is not None
            if share is None:
                counts[delivery.lane.name] -= 1
                del held[row[0]]
                if verdict is DONE:
                    acks.append((row[0], row[17], row[20]))
                else:
                    self._outcomes.take(delivery, verdict)
            elif not share.settled(delivery.lane.name):
                counts[delivery.lane.name] -= 1
                if share.settle(delivery.lane.name, verdict):
                    del held[row[0]]
                    delay = self._outcomes.add(share, elapsed)
                    if delay is not None:
                        due.append(delay)
        return due

    def give_back(self) -> None:
        """Nobody is at work any more: it ends, or is as if it was never claimed."""
        for entry in list(self._open.values()):
            for delivery in parts_of(entry):
                cut = Verdict("again", error="Stopped: the worker stopped while it was handled")
                self.settled.append((delivery, cut if delivery.begun else BACK))

    # -- leases

    def receipts(self) -> dict[int, Receipt]:
        """Return by what each is held."""
        return {id_: receipt_of(entry) for id_, entry in self._open.items()}

    def lose(self, lost: Mapping[int, Receipt]) -> None:
        """Take from their handlers what is held no more, unless it has ended or come again."""
        for id_, receipt in lost.items():
            entry = self._open.get(id_)
            if entry is None or receipt_of(entry) != receipt:
                continue
            self._take_away(id_)

    def _take_away(self, id_: int) -> None:
        """Its lease is lost; or it is claimed again, as a server that crashed forgets claims."""
        for delivery in parts_of(self._open.pop(id_)):
            self._counts[delivery.lane.name] -= 1
            delivery.lost = True
            if delivery.task is not None:
                delivery.task.cancel()
