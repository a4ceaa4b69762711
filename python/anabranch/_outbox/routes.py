"""Who is to get the messages of a topic, as the subscriptions of one store say."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

from anabranch._outbox.store import Subscription, matches

if TYPE_CHECKING:
    from anabranch._outbox.store import Row

_logger = logging.getLogger("anabranch")


class Routes:
    """The subscriptions of one store, and what is known of its topics.

    Args:
        label: The store, for people.
    """

    def __init__(self, label: str) -> None:
        self._label = label
        # Of the subscriptions; None: not asked yet.
        self.version: int | None = None
        self._subscriptions: list[Subscription] = []
        self._routes: dict[str, list[Subscription]] = {}
        # Topics nobody here has a handler for, and those that were warned of.
        self._foreign: set[str] = set()
        self._warned: set[str] = set()

    def learn(self, version: int, rows: list[tuple[str, str, int]]) -> None:
        """Somebody has come or gone."""
        self.version = version
        self._subscriptions = [Subscription(*row) for row in rows]
        self._routes.clear()
        self._foreign.clear()

    def to(self, topic: str) -> list[Subscription]:
        """Return who hears of a topic."""
        route = self._routes.get(topic)
        if route is None:
            given = (it for it in self._subscriptions if matches(it.pattern, topic))
            # One subscriber, heard once, though several of its patterns mean the topic.
            first: dict[str, Subscription] = {}
            for it in sorted(given, key=lambda it: it.since):
                first.setdefault(it.subscriber, it)
            route = self._routes[topic] = list(first.values())
        return route

    def without(self, full: set[str]) -> list[str]:
        """Return the topics not to claim: those of others, and of subscribers that are full."""
        topics = list(self._foreign)
        if full:
            topics += [
                topic
                for topic, route in self._routes.items()
                if any(it.subscriber in full for it in route)
            ]
        return topics

    def shun(self, topic: str, *, parked: bool) -> None:
        """Claim no more of a topic; if nobody hears of it at all, say so once."""
        self._foreign.add(topic)
        if parked and topic not in self._warned:
            self._warned.add(topic)
            _logger.warning(
                "outbox %s: no handler for topic %r: its messages are parked until one comes",
                self._label,
                topic,
            )


def waited_for(row: Row, route: list[Subscription]) -> list[str]:
    """Return whom a message waits for: those who were there before it, or else all."""
    if row[21] is not None:
        names: list[str] = json.loads(row[21])
        return names
    before = [it[0] for it in route if it[2] < row[0]]
    return before or [it[0] for it in route]
