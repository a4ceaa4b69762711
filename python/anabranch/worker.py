"""`OutboxWorker`: handlers for the messages of outboxes, each subscriber a pipeline."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, TypeVar

from anabranch._callables import examine, name_of
from anabranch._outbox.draft import milliseconds
from anabranch._outbox.inline import check_inline
from anabranch._outbox.lane import Handler, Lane
from anabranch._outbox.metrics import worker_text
from anabranch._outbox.run import Run
from anabranch._outbox.terms import DEFAULT_RETRY, router_of, subscriber_of, terms_of
from anabranch.errors import ClosedError, check_name, refused
from anabranch.pipeline import Pipeline

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import timedelta
    from types import TracebackType

    from anabranch._outbox.metrics import PostRow
    from anabranch._rows import PipelineRow
    from anabranch.outbox import Outbox
    from anabranch.policy import Retry
    from anabranch.report import Report
    from anabranch.router import OutboxRouter
    from anabranch.selection import Selection, SelectionName

    Seconds: TypeAlias = float | timedelta

F = TypeVar("F", bound="Callable[..., Any]")


class OutboxWorker:
    """Handles what was enqueued: each message by every subscriber of its topic, at least once.

    A subscriber is a pipeline: from what was claimed for it, over a branch for each outbox, to its
    handler. When the handler has returned and what it did is committed, the message is acked; when
    it has raised and what it did is undone, the message is due again after a delay, or dead. A
    process that dies loses nothing: its messages are handled again by others once their lease is
    over.

    Subscribers are remembered in the outbox. A message that has several is ended when all of them
    are done with it, each with attempts of its own; one that comes later gets what is enqueued
    from then on. Messages that nobody has a handler for are parked until somebody has.

    Args:
        outboxes: An outbox; or a mapping of keys to outboxes, which are worked on side by side; or
            an `OutboxRouter`, whose tenants may come and go.
        selection: Which outbox is claimed from next, where more of them have something than may be
            claimed from at once: see `Selection`.
        parallel: From how many outboxes is claimed at once. One that could not be reached gets no
            more than a quarter of that, and is asked less and less often, until it works again.
        connections: How many connections are open at once, at most, those that listen included.
            With more outboxes than that, the ones that are idle are connected to when their poll
            is due; those that had messages last are listened to. Where there is room for it, one
            at work has a second connection, for its acks.
        name: What the pipelines' names begin with.
        batch: How many messages are claimed at once, at most, and how many a subscriber may have
            in hand of each outbox before no more of its topics are claimed there.
        ack: "lease": messages are claimed for a time, and acked when their handlers are done.
            "inline": claim, handlers and ack are one transaction over a connection that `connect`
            makes, and that each handler gets as `message.connection`: what it does over that
            happens exactly once, with the ack; see below.
        connect: For `ack="inline"`: makes a connection to the outbox's database, of psycopg,
            sqlite3 (with `check_same_thread=False`), aiosqlite, asyncpg or SQLAlchemy; called with
            the key if there is a mapping of outboxes.
        lease: Seconds that a claim holds; it is renewed while a handler is at work. A worker that
            was killed is followed by another one after that time.
        poll: Seconds after which an outbox is asked for messages though nobody has told of any.
        max_idle_poll: The same of one that has been idle for long.
        grace: Seconds that handlers have to end once the worker was told to stop.
        seed: Makes the delays between attempts repeatable.
        options: Further arguments of the pipelines: `max_in_flight`, `threads`, `observe`, `clock`.

    With `ack="inline"` a batch of messages is one transaction. If one of them fails, all of it is
    rolled back, and redone one by one. Handlers are called one after another, and leave commit and
    rollback to the worker. Nothing is renewed and nothing waits for a lease: if the worker dies,
    the database rolls back, and the attempt is not counted. What a handler does elsewhere still
    happens at least once.

    Raises:
        ConfigError: An argument is not allowed.

    Example:
        >>> import anabranch as ab
        >>> outbox = ab.Outbox.memory()
        >>> worker = ab.OutboxWorker(outbox)
        >>> @worker.on("order.*")
        ... def publish(message: ab.Message) -> None:
        ...     print(message.topic, message.payload)
        >>> _ = outbox.enqueue("order.created", {"id": 7})
        >>> worker.run_once_blocking()
        order.created {'id': 7}
        1
        >>> outbox.counts()
        {'order.created': {'done': 1}}
    """

    def __init__(
        self,
        outboxes: Outbox | Mapping[Any, Outbox] | OutboxRouter,
        *,
        selection: SelectionName | Selection = "round_robin",
        parallel: int = 8,
        connections: int = 16,
        name: str = "outbox",
        batch: int = 1000,
        ack: Literal["lease", "inline"] = "lease",
        connect: Callable[..., Any] | None = None,
        lease: Seconds = 60.0,
        poll: Seconds = 1.0,
        max_idle_poll: Seconds = 30.0,
        grace: Seconds = 30.0,
        seed: int | None = None,
        **options: Any,  # noqa: ANN401 - of several types, which Pipeline checks
    ) -> None:
        check_name(name, "OutboxWorker")
        self._router = router_of(outboxes, "OutboxWorker")
        self._name = name
        terms = terms_of(
            "OutboxWorker",
            batch=batch,
            lease=lease,
            poll=poll,
            max_idle_poll=max_idle_poll,
            selection=selection,
            parallel=parallel,
            connections=connections,
            seed=seed,
        )
        places = self._router._present().values()  # noqa: SLF001 - the package's
        connect = check_inline(ack, connect, places)
        self._terms = terms._replace(name=name, connect=connect)
        self._options: dict[str, Any] = {"grace": grace, **options}
        # Checks what the pipelines check.
        Pipeline(name, **self._options)
        self._handlers: dict[str, Handler] = {}
        self._run: Run | None = None
        self._latest: Run | None = None

    def on(
        self,
        topic: str,
        *,
        subscriber: str | None = None,
        retry: Retry = DEFAULT_RETRY,
        timeout: Seconds | None = None,
        concurrency: int = 1,
        batch: int | None = None,
        inline: bool = False,
    ) -> Callable[[F], F]:
        """Make what is decorated the handler of a topic.

        It is called with a Message, and with `ctx` if it has such a parameter: `ctx.tenant` is the
        outbox's key, and what `ctx.compensate` registers is run if the attempt fails.
        Returning is success, but for an `ab.Err`, which fails as raising does. Raising is a failed
        attempt; `ab.Reject` makes the message dead at once, and `ab.RetryLater` asks for another
        attempt without counting this one.

        Args:
            topic: The topic; `"order.*"` means all that begin with `order.`, `"*"` all.
            subscriber: Whose messages these are: the name that the outbox remembers how far each
                message has come by. By default the topic, as it is written here: a second handler
                of the same one needs a name of its own.
            retry: When and how often a message is tried again: the outbox keeps it meanwhile. By
                default 20 attempts within about a day, whatever was raised. An attempt that was
                cut off, with its process, counts.
            timeout: Seconds an attempt may take; see `Pipeline.for_each`. None: any time.
            concurrency: How many messages of each outbox are handled at once. With 1 they are
                handled in order.
            batch: Up to so many messages are handed to the handler at once, as a list. It returns
                nothing, or a list with a result for each of them: an exception or an `ab.Err` for
                one that has failed.
            inline: As for `Pipeline.for_each`, for a `def`: in the event loop's thread.

        Raises:
            ConfigError: An argument is not allowed, or there is such a subscriber already.
            ClosedError: The worker runs.
        """
        name = subscriber_of(topic, subscriber, retry, "on")
        if name in self._handlers:
            allowed = "another name than that of a subscriber this worker has already"
            raise refused("subscriber", name, allowed, subject="on")
        if self._terms.connect is not None and concurrency != 1:
            allowed = "1: with ack='inline' they are handled in one transaction, one after another"
            raise refused("concurrency", concurrency, allowed, subject="on")
        if self._run is not None:
            raise ClosedError(f"worker {self._name!r} runs: add handlers before it does")

        def decorate(fn: F) -> F:
            call = examine(fn, pipeline=self._name, stage=name_of(fn), takes="a message")
            handler = Handler(
                subscriber=name,
                pattern=topic,
                call=call,
                retry=retry,
                timeout=None if timeout is None else _seconds("timeout", timeout),
                concurrency=concurrency,
                batch=batch,
                inline=inline,
            )
            self._lane(handler)  # checks what the pipeline checks
            self._handlers[name] = handler
            return fn

        return decorate

    def _lane(self, handler: Handler) -> Lane:
        return Lane(f"{self._name}.{handler.subscriber}", handler, self._options, self._terms.seed)

    async def run(self) -> dict[str, Report[Any]]:
        """Work until `stop` is called, or the process is told to end (SIGTERM).

        Cancelling the call stops handlers at once, and undoes what they did.

        Returns:
            The report of each subscriber's pipeline.

        Raises:
            ConfigError: There is no handler.
            ClosedError: It runs already.
            BaseException: What a handler has raised to end the process, as KeyboardInterrupt.
        """
        return await self._begin(once=False).run()

    async def run_once(self) -> int:
        """Claim once from each outbox, and handle that; return how many messages it was.

        Raises:
            ConfigError: As for `run`, and so are the others.
            ClosedError: It runs already.
        """
        run = self._begin(once=True)
        await run.run()
        return run.claimed

    def run_blocking(self) -> dict[str, Report[Any]]:
        """Work in this thread; the first Ctrl-C stops, the second stops at once.

        Raises:
            ConfigError: As for `run`, and so are the others.
            ClosedError: It runs already.
            RuntimeError: An event loop runs in this thread.
        """
        return asyncio.run(self._signalled())

    async def _signalled(self) -> dict[str, Report[Any]]:
        import signal

        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        asked = False

        def interrupt() -> None:
            nonlocal asked
            if asked and task is not None:
                task.cancel()
            asked = True
            self.stop()

        with contextlib.ExitStack() as stack:
            with contextlib.suppress(ValueError, RuntimeError):  # not in the main thread
                loop.add_signal_handler(signal.SIGINT, interrupt)
                stack.callback(loop.remove_signal_handler, signal.SIGINT)
            return await self.run()

    def run_once_blocking(self) -> int:
        """Claim once from each outbox, and handle that in this thread.

        Raises:
            ConfigError: As for `run`, and so are the others.
            ClosedError: It runs already.
            RuntimeError: An event loop runs in this thread.
        """
        return asyncio.run(self.run_once())

    def metrics(self) -> str:
        """Return the numbers of this worker as text that Prometheus reads; from any thread.

        How long claims and acks took, what became of messages and which stores rest because they
        do not work; and of each subscriber's pipeline how long handlers took. What waits in the
        outboxes themselves is told by `Outbox.metrics`. It costs the worker nothing. After the end
        they are those of the latest run.

        Raises:
            ClosedError: It has not run yet.

        Example:
            >>> import anabranch as ab
            >>> outbox = ab.Outbox.memory()
            >>> worker = ab.OutboxWorker(outbox)
            >>> @worker.on("mail")
            ... def send(message: ab.Message) -> None: ...
            >>> _ = outbox.enqueue("mail", {"to": "ada"})
            >>> _ = worker.run_once_blocking()
            >>> print(worker.metrics().splitlines()[5])
            anabranch_outbox_claimed_total{worker="outbox",outbox="memory"} 1
        """
        if self._latest is None:
            raise ClosedError(f"worker {self._name!r} has not run yet: it has no numbers")
        return worker_text(self._name, *self._latest.rows())

    @property
    def name(self) -> str:
        """What it was called."""
        return self._name

    def _rows(self) -> tuple[list[PostRow], list[PipelineRow]]:
        return ([], []) if self._latest is None else self._latest.rows()

    def stop(self) -> None:
        """Stop: claim nothing more, give back what was not begun, let handlers end; any thread."""
        if self._run is not None:
            self._run.stop()

    async def __aenter__(self) -> Self:
        """Begin to work beside what follows."""
        run = self._begin(once=False)
        run.task = asyncio.get_running_loop().create_task(run.run())
        await asyncio.sleep(0)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop, and wait for the end."""
        run = self._run
        if run is None or run.task is None:
            return
        if error is None:
            run.stop()
        else:
            run.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await run.task

    def _begin(self, *, once: bool) -> Run:
        if not self._handlers:
            raise refused("handlers", None, "added by @worker.on(topic)", subject="OutboxWorker")
        if self._run is not None:
            raise ClosedError(f"worker {self._name!r} runs already")
        lanes = {handler.subscriber: self._lane(handler) for handler in self._handlers.values()}
        self._run = self._latest = Run(
            self._ended, self._router, lanes, self._terms._replace(once=once)
        )
        return self._run

    def _ended(self) -> None:
        self._run = None


def _seconds(argument: str, value: object) -> float:
    return milliseconds(argument, value, subject="OutboxWorker", positive=True) / 1000
