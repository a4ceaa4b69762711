"""`outbox_source`: the messages of outboxes as the source of any pipeline.

What the pipeline's scopes do is all that is needed: the first stage registers for each message what
to do when its unit is undone, and when it has ended. So it is acked when all that came of it is
committed, or was filtered, and abandoned when that was undone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from anabranch._outbox.delivery import BACK, DONE
from anabranch._outbox.office import Office
from anabranch._outbox.taker import Subscribed, Taker
from anabranch._outbox.terms import DEFAULT_RETRY, router_of, subscriber_of, terms_of
from anabranch.errors import LeaseLost, refused

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping
    from datetime import timedelta

    from anabranch._outbox.delivery import Delivery
    from anabranch._outbox.message import Message
    from anabranch._outbox.terms import Terms
    from anabranch.context import Context
    from anabranch.outbox import Outbox
    from anabranch.pipeline import Pipeline
    from anabranch.policy import Retry
    from anabranch.router import OutboxRouter
    from anabranch.selection import Selection, SelectionName

    Seconds: TypeAlias = float | timedelta

# Seconds that stores have to take what became of messages, once the run has ended.
_PATIENCE: Final = 5.0


class OutboxSource:
    """The messages of outboxes, for `Pipeline.source`; made by `outbox_source`."""

    def __init__(self, router: OutboxRouter, terms: Terms, subscribed: Subscribed) -> None:
        self._router = router
        self._terms = terms
        self._subscribed = subscribed
        self.__name__ = "outbox"

    def __repr__(self) -> str:
        return f"<outbox_source {self._subscribed.pattern!r}>"

    def __aiter__(self) -> AsyncIterator[Message]:
        return _Reading(self._router, self._terms, self._subscribed).messages()

    def _first_stage(self, pipeline: Pipeline[Any], commit: str) -> Pipeline[Message]:
        """Add the stage that sees to the acks; see `Pipeline.source`."""
        if commit == "end":
            allowed = "'unit' with a source of outboxes: what is acked cannot be undone any more"
            raise refused("commit", "end", allowed, pipeline=pipeline.name)
        return pipeline.map(_receive, name="receive")


def _receive(message: Message, ctx: Context) -> Message:
    delivery = cast("Delivery", message)
    cast("_Reading", delivery.lane).receive(delivery, ctx)
    return delivery


class _Reading(Taker):
    """One run over the messages: what was claimed waits here until the pipeline takes it."""

    def __init__(self, router: OutboxRouter, terms: Terms, subscribed: Subscribed) -> None:
        super().__init__(subscribed, terms.seed)
        self._waiting: deque[Delivery] = deque()
        self._came = asyncio.Event()
        # Whether the pipeline is going to say when its run has ended.
        self._registered = False
        self._office = Office(router, {self.name: self}, terms)
        self._task: asyncio.Task[None] | None = None

    def give(self, deliveries: list[Delivery]) -> None:
        self._waiting.extend(deliveries)
        self._came.set()

    async def messages(self) -> AsyncGenerator[Message]:
        office = self._office
        self._task = asyncio.get_running_loop().create_task(office.run())
        self._task.add_done_callback(lambda _: self._came.set())
        office.on_claimed(self._came.set)
        handed = False
        well = False
        try:
            while True:
                self._came.clear()
                while self._waiting:
                    handed = True
                    yield self._waiting.popleft()
                if self._task.done():
                    self._task.result()
                    break
                if office.has_claimed:
                    break
                await self._came.wait()
            well = True
        finally:
            self.stopping = True
            while self._waiting:
                back = self._waiting.popleft()
                back.post.settled(back, BACK)
            office.stop()
            if not self._registered and not (well and handed):
                await self.finish()

    def receive(self, delivery: Delivery, ctx: Context) -> None:
        """The pipeline has taken a message."""
        if not self._registered:
            self._registered = True
            ctx.finalize(self.finish, level="pipeline", name="outbox_source")
        if delivery.lost:
            raise LeaseLost(
                f"outbox {delivery.store}: message {delivery.id} was given back before it was "
                "begun: it will be claimed again",
                store=delivery.store,
                id=delivery.id,
            )
        delivery.begun = True
        ctx.compensate(self._undone, delivery, ctx.pipeline, name="abandon")
        ctx.finalize(self._ended, delivery, name="ack")

    def _undone(self, delivery: Delivery, pipeline: str) -> None:
        error = _Undone(f"its unit in pipeline {pipeline!r} has failed, and was undone")
        delivery.post.settled(delivery, self.verdict(delivery, error))

    def _ended(self, delivery: Delivery) -> None:
        # If it was undone, that was said before, and only the first word counts.
        delivery.post.settled(delivery, DONE)

    async def finish(self) -> None:
        """The run has ended: what is in hand goes back, and what became of the rest is written."""
        office, task = self._office, self._task
        self.stopping = True
        office.stop()
        office.give_back()
        if task is not None:
            await asyncio.wait([task], timeout=_PATIENCE)
            task.cancel()
            await asyncio.wait([task])
        await office.close()


class _Undone(Exception):
    """What is kept with a message whose unit has failed: the report tells why."""


def outbox_source(
    outboxes: Outbox | Mapping[Any, Outbox] | OutboxRouter,
    *,
    topic: str = "*",
    subscriber: str | None = None,
    retry: Retry = DEFAULT_RETRY,
    selection: SelectionName | Selection = "round_robin",
    parallel: int = 8,
    connections: int = 16,
    batch: int = 1000,
    lease: Seconds = 60.0,
    poll: Seconds = 1.0,
    max_idle_poll: Seconds = 30.0,
    seed: int | None = None,
    once: bool = False,
) -> OutboxSource:
    """Take a pipeline's items from outboxes: `pipeline.source(ab.outbox_source(router))`.

    Each item is a `Message`; `fan_out(by=ab.attr("tenant"))` gives each outbox a branch. A message
    is acked when its unit has ended well: it was committed, filtered, or dropped as a full branch
    was told to. When its unit has failed for good, and all it did is undone, it is tried again
    later, or dead, as `retry` says. If the run is cut short, what was begun is tried again, too,
    and the rest is as if it was never claimed. Delivery is at least once.

    A source of outboxes has no end: drain the pipeline, or say `once`. Its pipeline cannot have
    `commit="end"`: what is acked could not be undone any more.

    Args:
        outboxes: As for `OutboxWorker`.
        topic: The topic; `"order.*"` means all that begin with `order.`, `"*"` all.
        subscriber: As for `OutboxWorker.on`; by default the topic.
        retry: As for `OutboxWorker.on`.
        selection: As for `OutboxWorker`, and so are the following ones.
        parallel: From how many outboxes is claimed at once.
        connections: How many connections are open at once.
        batch: How many messages of each outbox may be in the pipeline.
        lease: Seconds that a claim holds; it is renewed until the message's unit has ended.
        poll: Seconds after which an outbox is asked for messages though nobody has told of any.
        max_idle_poll: The same of one that has been idle for long.
        seed: Makes the delays between attempts repeatable.
        once: Claim once from each outbox, and end.

    Raises:
        ConfigError: An argument is not allowed.

    Example:
        >>> import anabranch as ab
        >>> outbox = ab.Outbox.memory()
        >>> _ = outbox.enqueue_many(ab.Draft("order", {"amount": n}) for n in (5, 0, 7))
        >>> pipeline = (
        ...     ab.Pipeline("bill")
        ...     .source(ab.outbox_source(outbox, topic="order", once=True))
        ...     .map(lambda message: message.payload["amount"])
        ...     .filter(lambda amount: amount > 0)
        ...     .collect()
        ... )
        >>> pipeline.run_blocking().items
        [5, 7]
        >>> outbox.counts()
        {'order': {'done': 3}}
    """
    terms = terms_of(
        "outbox_source",
        selection=selection,
        parallel=parallel,
        connections=connections,
        batch=batch,
        lease=lease,
        poll=poll,
        max_idle_poll=max_idle_poll,
        seed=seed,
    )
    if not isinstance(cast("object", once), bool):
        raise refused("once", once, "a bool", subject="outbox_source")
    name = subscriber_of(topic, subscriber, retry, "outbox_source")
    subscribed = Subscribed(subscriber=name, pattern=topic, retry=retry)
    router = router_of(outboxes, "outbox_source")
    return OutboxSource(router, terms._replace(once=once), subscribed)
