"""The builder's stages that a course ends in: for_each, collect, results, to_channel, to_outbox."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from anabranch._builder import Builder
from anabranch._callables import check_target, name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import timedelta
    from typing import Unpack

    from anabranch._callables import WithCtx
    from anabranch._stages import OnError, SinkOptions
    from anabranch._streaming import Stream
    from anabranch.channel import Channel
    from anabranch.outbox import Outbox
    from anabranch.pipeline import Pipeline
    from anabranch.policy import Retry
    from anabranch.router import OutboxRouter

T = TypeVar("T")


class Sinks(Builder[T]):
    """The stages that a course ends in."""

    __slots__ = ()

    @overload
    def for_each(
        self, fn: Callable[[T], object], **options: Unpack[SinkOptions]
    ) -> Pipeline[None]: ...
    @overload
    def for_each(
        self, fn: WithCtx[T, object], **options: Unpack[SinkOptions]
    ) -> Pipeline[None]: ...
    def for_each(
        self,
        fn: Callable[..., Any],
        *,
        name: str | None = None,
        retry: Retry | None = None,
        timeout: float | timedelta | None = None,
        concurrency: int = 1,
        inline: bool = False,
        on_error: OnError | None = None,
    ) -> Pipeline[None]:
        """Call `fn` with each unit, an item or a window; this is a sink, the last stage.

        A unit for which it returns is committed. One for which it raises is tried again as
        `retry` says; in the end it has failed, and the undo actions registered for it by
        `ctx.compensate` are run, the latest first. Delivery is at least once: an attempt that
        fails may have had effects, which is what `ctx.compensate` is for.

        Args:
            fn: An `async def`, or a `def`, which runs on the pipeline's pool of threads; what it
                returns is ignored.
            name: The stage's name; the callable's by default.
            retry: When and how often a failed call is tried again; None never.
            timeout: Seconds that one attempt may take; None: any time. One that takes longer has
                failed with the code `timeout` (HandlerTimeout), and may be tried again. An
                `async def` is cancelled, and its attempt ends when it does; a `def` on the pool
                cannot be cancelled (`ctx.cancelled` tells it): its attempt ends at once, and what
                it does after that happens beside the next one. What has not come to its end some
                5 seconds after its timeout is left behind, listed in the report as abandoned, and
                its thread or task is replaced. A result that comes late is dropped and counted.
                Not for a `def` with `inline=True`, which nothing can interrupt.
            concurrency: How many units may be under way at once, per branch. With 1 they are
                handled in order; with more, one that waits for another attempt is overtaken.
            inline: Whether to run a `def` in the pipeline's own thread. Faster for a quick one;
                a slow one holds up everything else, and cannot be interrupted.
            on_error: As for `map`.

        Raises:
            ConfigError: An argument is not allowed, or the stage cannot stand here.

        Example:
            >>> import anabranch as ab
            >>> pipeline = ab.Pipeline("p").source([3, 4]).for_each(print, inline=True)
            >>> report = pipeline.run_blocking()
            3
            4
            >>> report.committed
            2
        """
        options: dict[str, Any] = {"concurrency": concurrency, "inline": inline, "timeout": timeout}
        return self._called("for_each", fn, name, retry, on_error=on_error, **options)

    def collect(self, *, name: str | None = None) -> Pipeline[T]:
        """Keep what arrives for the report's `items`; this is a sink, the last stage.

        Args:
            name: The stage's name; "collect" by default.

        Raises:
            ConfigError: The stage cannot stand here.

        Example:
            >>> import anabranch as ab
            >>> ab.Pipeline("p").source((1, 2)).collect().run_blocking().items
            [1, 2]
        """
        return self._extended("collect", name, {})

    def results(self, *, capacity: int = 1000) -> Stream[T]:
        """Read what becomes of each item as a Result, while the pipeline runs; this ends it.

        Args:
            capacity: How many Results may wait to be read before the pipeline waits.

        Returns:
            An async context manager that gives an async iterator.

        Raises:
            ConfigError: An argument is not allowed, or nothing can follow the last stage.

        Example:
            >>> import asyncio
            >>> import anabranch as ab
            >>> async def main() -> None:
            ...     numbers = ab.Pipeline("numbers").source(["1", "x"]).map(int)
            ...     async with numbers.results() as results:
            ...         async for result in results:
            ...             match result:
            ...                 case ab.Ok(number):
            ...                     print(number)
            ...                 case ab.Err(failure):
            ...                     print(failure.stage, failure.item, failure.code)
            >>> asyncio.run(main())
            1
            int x ValueError
        """
        # Here: it needs asyncio, which a program that only builds does not.
        from anabranch._streaming import Stream

        return Stream(cast("Pipeline[T]", self), capacity)

    def to_channel(
        self, channel: Channel[T], *, close: bool = True, name: str | None = None
    ) -> Pipeline[None]:
        """Send what arrives into a channel; this is a sink, the last stage.

        A unit is committed once it is inside. A full channel holds the pipeline back, unless its
        `on_full` is another than "wait": what the channel drops counts as committed here and as
        dropped there, and what it refuses has failed with code `channel.full`. If the channel is
        closed by others meanwhile, the unit in hand has failed with code `channel.closed`, the
        rest is left, and the outcome is "failed".

        Args:
            channel: Where to; others may send into it, too. Not one that the pipeline reads.
            close: Whether to close it at the end of the run: without an error if the run came to
                its end, or was drained; otherwise with a PipelineFailed, so that who receives does
                not take what is missing for an end.
            name: The stage's name; the channel's by default.

        Raises:
            ConfigError: An argument is not allowed, or the stage cannot stand here.

        Example:
            >>> import anabranch as ab
            >>> squares: ab.Channel[int] = ab.Channel(10)
            >>> pipeline = ab.Pipeline("p").source(range(4)).map(lambda n: n * n)
            >>> pipeline.to_channel(squares).run_blocking().committed
            4
            >>> list(squares)
            [0, 1, 4, 9]
        """
        check_target(channel, pipeline=self.name, stage="to_channel" if name is None else name)
        label = name_of(channel) if name is None else name
        options = {"label": name_of(channel), "close": close}
        return self._extended("to_channel", label, options, live={"channel": channel})

    def to_outbox(
        self,
        outbox: Outbox | OutboxRouter | Mapping[Any, Outbox],
        *,
        topic: str | Callable[[Any], str],
        key: Callable[[Any], str | None] | None = None,
        name: str | None = None,
        retry: Retry | None = None,
        on_error: OnError | None = None,
    ) -> Pipeline[None]:
        """Enqueue what arrives in an outbox; this is a sink, the last stage.

        An item is the payload of one message. The items of a window are written in one
        transaction, which is much faster. A unit is committed once its messages are durable. If it
        is undone later, with `commit="end"`, those that nobody has begun are retracted.

        Args:
            outbox: Where to; or an `OutboxRouter`, or a mapping: then it is that of the branch's
                tenant.
            topic: The messages' topic; or a `def` that takes the item and returns it.
            key: A `def` that takes the item and returns its ordering key, or None.
            name: The stage's name; "to_outbox" by default.
            retry: When and how often a failed write is tried again; None never.
            on_error: As for `map`.

        Raises:
            ConfigError: An argument is not allowed, or the stage cannot stand here.

        Example:
            >>> import anabranch as ab
            >>> outbox = ab.Outbox.memory()
            >>> pipeline = ab.Pipeline("p").source([{"id": 7}, {"id": 8}]).window(max_items=100)
            >>> pipeline.to_outbox(outbox, topic="order.created").run_blocking().committed
            2
            >>> outbox.counts()
            {'order.created': {'ready': 2}}
        """
        # Here: an outbox is of no use to most pipelines.
        from anabranch._outbox.sink import writer

        label = "to_outbox" if name is None else name
        write = writer(outbox, topic, key, pipeline=self.name, stage=label)
        return self._called(
            "for_each",
            write,
            label,
            retry,
            on_error=on_error,
            concurrency=1,
            inline=False,
            timeout=None,
        )
