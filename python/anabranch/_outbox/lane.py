"""A subscriber of a worker: a pipeline from what was claimed for it to its handler."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from anabranch._landing import land
from anabranch._outbox.delivery import BACK, DONE, Delivery
from anabranch._outbox.taker import Subscribed, Taker
from anabranch._running import Running
from anabranch.channel import Channel
from anabranch.errors import AttachError, LeaseLost
from anabranch.keys import attr
from anabranch.pipeline import Pipeline
from anabranch.result import Err

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anabranch._callables import Call
    from anabranch._rows import PipelineRow
    from anabranch.failure import Failure
    from anabranch.report import Report

# What was claimed for it is bounded where it is claimed; the channel only hands it on.
_ROOMY: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler(Subscribed):
    """What `OutboxWorker.on` was told."""

    call: Call
    timeout: float | None
    concurrency: int
    batch: int | None
    inline: bool


class Lane(Taker):
    """A handler at work: its messages go in through `give`, verdicts go to where they are from.

    Args:
        name: The pipeline's name.
        handler: What was asked for.
        options: Further arguments of the pipeline.
        seed: Of the jitter; None draws one.
    """

    def __init__(
        self, name: str, handler: Handler, options: dict[str, Any], seed: int | None
    ) -> None:
        super().__init__(handler, seed)
        self.does = handler
        self._running: Running[Any] | None = None
        self._channel: Channel[Delivery] = Channel(_ROOMY, name="claimed")
        pipeline: Pipeline[Any] = Pipeline(name, **options).source(self._channel)
        pipeline = pipeline.fan_out(by=attr("branch"), capacity=_ROOMY)
        fn = _handling(self)
        if handler.batch is not None:
            pipeline = pipeline.window(max_items=handler.batch, max_age=0.0)
        self.pipeline = pipeline.for_each(
            fn,
            name=handler.subscriber,
            concurrency=handler.concurrency,
            timeout=handler.timeout,
            inline=handler.inline,
        ).dead_letter(self._failed, name="failed", inline=True)

    async def run(self) -> Report[Any]:
        """Run the pipeline, to its end."""
        self._running = Running(self.pipeline._begin())  # noqa: SLF001 - both are the package's
        return await self._running._session.run()  # noqa: SLF001 - as above

    def row(self) -> PipelineRow | None:
        """Tell the numbers of the pipeline; None: nobody may look."""
        try:
            return None if self._running is None else self._running.snapshot(branches=False)
        except AttachError:
            return None

    def give(self, deliveries: list[Delivery]) -> None:
        """Hand over what was claimed; a channel that was closed leaves it to its lease."""
        if not self._channel.closed:
            self._channel.send_many_nowait(deliveries)

    def stop(self) -> None:
        """Begin nothing more: what has not begun goes back, and the rest has the grace to end."""
        self.stopping = True
        if not self._channel.closed:
            for delivery in self._channel.receive_many_nowait() if self._channel.depth else ():
                delivery.post.settled(delivery, BACK)
            self._channel.close()
        if self._running is not None:
            self._running.drain()

    def _failed(self, failure: Failure) -> None:
        """A unit has failed, and is undone: another attempt, or the end."""
        item = failure.item
        given = cast("list[Delivery]", item) if isinstance(item, list) else [item]
        for delivery in given:
            if isinstance(delivery, Delivery):
                delivery.post.settled(delivery, self.verdict(delivery, failure.error))


def lost(delivery: Delivery) -> LeaseLost:
    """Say that a message was taken from its handler."""
    return LeaseLost(
        f"outbox {delivery.store}: the lease of message {delivery.id} was over while it was "
        "handled: another worker may have it now; ask for a longer lease, or see what held this "
        "one up",
        store=delivery.store,
        id=delivery.id,
    )


def _cut(delivery: Delivery) -> None:
    """A handler was cancelled: if that was because the lease was lost, say so instead."""
    task = delivery.task
    if delivery.lost and task is not None:
        task.uncancel()
        raise lost(delivery)


def _handling(lane: Lane) -> Callable[..., Any]:
    """Return what the pipeline calls with each message, or with each batch."""
    handler = lane.does
    if handler.batch is not None:
        inner = _batches_async(lane) if handler.call.is_async else _batches(lane)
    else:
        inner = _singles_async(lane) if handler.call.is_async else _singles(lane)
    if not handler.call.takes_ctx:
        return inner
    # With `ctx` in its signature, the pipeline makes one; without, none is passed on.
    if handler.call.is_async:

        async def with_ctx_async(given: Any, ctx: object) -> None:  # noqa: ANN401 - one or several
            await inner(given, ctx=ctx)

        return with_ctx_async

    def with_ctx(given: Any, ctx: object) -> None:  # noqa: ANN401 - as above
        inner(given, ctx=ctx)

    return with_ctx


def _singles_async(lane: Lane) -> Callable[..., Any]:
    fn = lane.does.call.fn

    async def handle(delivery: Delivery, **ctx: object) -> None:
        if lane.begin(delivery):
            delivery.task = asyncio.current_task()
            try:
                land(await fn(delivery, **ctx))
            except asyncio.CancelledError:
                _cut(delivery)
                raise
            finally:
                delivery.task = None
            delivery.post.settled(delivery, DONE)

    return handle


def _singles(lane: Lane) -> Callable[..., Any]:
    fn = lane.does.call.fn
    if lane.does.call.takes_ctx:

        def handle_with(delivery: Delivery, *, ctx: object) -> None:
            if lane.begin(delivery):
                land(fn(delivery, ctx=ctx))
                delivery.post.settled(delivery, DONE)

        return handle_with

    def handle(delivery: Delivery) -> None:
        if lane.begin(delivery):
            land(fn(delivery))
            delivery.post.settled(delivery, DONE)

    return handle


def _batches_async(lane: Lane) -> Callable[..., Any]:
    fn = lane.does.call.fn

    async def handle(deliveries: list[Delivery], **ctx: object) -> None:
        begun = [delivery for delivery in deliveries if lane.begin(delivery)]
        if begun:
            _several(lane, begun, land(await fn(begun, **ctx)))

    return handle


def _batches(lane: Lane) -> Callable[..., Any]:
    fn = lane.does.call.fn

    def handle(deliveries: list[Delivery], **ctx: object) -> None:
        begun = [delivery for delivery in deliveries if lane.begin(delivery)]
        if begun:
            _several(lane, begun, land(fn(begun, **ctx)))

    return handle


def _several(lane: Lane, given: list[Delivery], results: object) -> None:
    """Note what a handler of batches has returned: nothing, or a result per message."""
    if results is None:
        for delivery in given:
            delivery.post.settled(delivery, DONE)
        return
    each = cast("Sequence[object]", results)
    if not isinstance(results, list | tuple) or len(each) != len(given):
        raise TypeError(
            f"subscriber {lane.name!r}: a handler of batches returns None, or a list with one "
            f"result per message ({len(given)}), got {type(each).__name__}"
        )
    errors = [result.error.error if isinstance(result, Err) else result for result in each]
    strange = next((it for it in errors if isinstance(it, type)), None)
    if strange is not None:
        raise TypeError(
            f"subscriber {lane.name!r}: a result of a batch is an exception for each message that "
            f"has failed, got the class {strange.__name__}: make an instance of it"
        )
    for delivery, error in zip(given, errors, strict=True):
        verdict = lane.verdict(delivery, error) if isinstance(error, BaseException) else DONE
        delivery.post.settled(delivery, verdict)
