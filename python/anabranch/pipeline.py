"""The builder: a pipeline is described step by step, checked at each step, and then run once.

Here are its beginning and its running; the stages stand in files by subject, see `_builder`.
"""

from __future__ import annotations

import inspect
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from anabranch import _core
from anabranch._callables import check_def, name_of, source_kind
from anabranch._courses import Courses
from anabranch._grouping import Grouping
from anabranch._moment import moment
from anabranch._observe import checked
from anabranch._operators import Operators, last_letters, letters
from anabranch._sinks import Sinks
from anabranch._stages import Settings
from anabranch._stateful import Stateful
from anabranch._transforms import Transforms
from anabranch.errors import ClosedError, refused

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Iterable
    from datetime import datetime, timedelta
    from pathlib import PurePath

    from anabranch._driver import Session
    from anabranch._operators import Target
    from anabranch._readable import Readable
    from anabranch._readers import OnFault
    from anabranch._running import Running
    from anabranch._stages import Stage
    from anabranch._virtual import VirtualClock
    from anabranch.report import Report
    from anabranch.scope import Policy
    from anabranch.sources import TcpLines
    from anabranch.strategy import Chooser, Strategy
    from anabranch.tailing import Tail
    from anabranch.tcp import TcpClient

T = TypeVar("T")
U = TypeVar("U")


class Pipeline(Transforms[T], Stateful[T], Grouping[T], Courses[T], Operators[T], Sinks[T]):
    """A course for items: from a source through stages, per tenant after `fan_out`, to a sink.

    Each method returns a new Pipeline with one more stage and leaves the old one as it was, so
    two pipelines can share a beginning. `Pipeline[T]` is typed by the items that leave its last
    stage. Callables may be `def` or `async def` wherever nothing else is said; one with a
    parameter named `ctx` is given the Context of its unit by that name. A stage whose name is taken
    gets a number behind it, `parse_2` for instance; reports and errors use that.

    An exception in a callable never ends the pipeline (unless `on_error="stop"`): the item, or
    the window, becomes a failure, which the report counts and samples. So does one for which a
    callable returns an `ab.Err`, or that comes from the source as one; an `ab.Ok` goes on as its
    value, as by `unwrap`: what it carries goes to the `ctx` it was begun with.

    A Pipeline object runs once: by `run`, `run_blocking` or `start`.

    Args:
        name: The pipeline's name, for reports, errors and drawings.
        max_in_flight: The most units (items or windows) that asynchronous and pooled callables
            work on at once, over all branches.
        threads: The size of the pool that runs `def` sinks and undo actions; 1 to 64.
        on_error: What becomes of a failure that no stage behind it takes: "continue" counts it;
            "stop" takes in no more, undoes what is inside and ends the run as "failed";
            "dead_letter" hands it to the target of that name. A stage may say otherwise.
        dead_letter: Where failures go by `on_error="dead_letter"`, of the pipeline or of a stage:
            what the stage `dead_letter` takes as its target.
        grace: Seconds that what is inside has to reach its end when the pipeline is drained.
        commit: "unit" releases what undoes a unit as soon as the unit has succeeded; "end" keeps
            it to the end of the run, which then commits as a whole if every item was committed,
            filtered or dead-lettered. If one has failed, was dropped or is left, if a branch or the
            source has failed, or the run is aborted, all is undone, last action first, and the
            run has failed (or was aborted). What is undone earlier, as a failure that was
            recovered, stays so. Memory grows with the number of undo actions.
        rollback: How the undo actions of one rollback follow each other: "sequential" runs them
            one after the other, the last registered first; "parallel" all at once; "none" runs
            none of them. Or a function that is called once per rollback with the actions, the
            last registered first, and returns those to run, in the order to run them in.
            Finalizers always run, one after the other.
        rollback_deadline: Seconds a rollback may take; then what has not run, or does not end, is
            stuck. None for no limit.
        seed: Makes what is random (the jitter of retries) repeatable; None draws one.
        clock: What windows, retries and deadlines go by, for tests. None: the virtual clock of
            the event loop the pipeline runs in, if it is one of `anabranch.testing`; otherwise the
            machine's monotonic clock.
        observe: Who may look at the pipeline while it runs, with `anabranch top`, `anabranch ls` or
            `anabranch.attach`, and steer it. "auto": this user, unless the environment variable
            `ANABRANCH_OBSERVE` says otherwise; "ro": this user, and only look; "off": nobody. A
            path: this user, at a socket there. "tcp:127.0.0.1:0": whoever has the token, which
            stands in a file that only this user can read, and only look ("+control" behind it lets
            him steer, "+remote" lets an address be one that other machines reach). What goes
            wrong with it is logged, once, and the pipeline runs all the same. With a virtual clock
            nobody looks.

    Raises:
        ConfigError: An argument is not allowed.

    Example:
        >>> import anabranch as ab
        >>> events = [{"tenant": "acme", "n": 1}, {"tenant": "globex", "n": 2}]
        >>> stored = {}
        >>> def store(batch: list[dict], ctx: ab.Context) -> None:
        ...     stored[ctx.tenant] = [event["n"] for event in batch]
        >>> pipeline = (
        ...     ab.Pipeline("ingest")
        ...     .source(events)
        ...     .fan_out(by="tenant")
        ...     .window(max_items=500, max_age=1.0)
        ...     .for_each(store)
        ... )
        >>> report = pipeline.run_blocking()
        >>> report.ok, sorted(stored.items())
        (True, [('acme', [1]), ('globex', [2])])
    """

    __slots__ = ()

    def __init__(
        self: Pipeline[None],
        name: str,
        *,
        max_in_flight: int = 256,
        threads: int = 8,
        on_error: Literal["continue", "stop", "dead_letter"] = "continue",
        dead_letter: Target | None = None,
        grace: float | timedelta = 30.0,
        commit: Literal["unit", "end"] = "unit",
        rollback: Literal["sequential", "parallel", "none"] | Policy = "sequential",
        rollback_deadline: float | timedelta | None = 30.0,
        seed: int | None = None,
        clock: VirtualClock | None = None,
        observe: str | PurePath = "auto",
    ) -> None:
        if clock is not None:
            _check_clock(clock, pipeline=name)
        policy = None
        allowed = "'sequential', 'parallel', 'none' or a def that takes the undo actions"
        if callable(rollback):
            policy = rollback
            check_def(policy, (), argument="rollback", allowed=allowed, pipeline=name)
        elif rollback not in ("sequential", "parallel", "none"):
            raise refused("rollback", rollback, allowed, pipeline=name)
        target = None
        if dead_letter is not None:
            target = letters(dead_letter, pipeline=name, stage="dead_letter")
        plan = _core.Plan(
            name,
            max_in_flight=max_in_flight,
            threads=threads,
            on_error=on_error,
            dead_letter=None if target is None else target[0],
            grace=grace,
            commit=commit,
            rollback="sequential" if policy is not None else rollback,
            rollback_deadline=rollback_deadline,
            seed=seed,
        )
        settings: dict[str, Any] = plan.settings()
        stage = None if target is None else last_letters(*target[1:])
        observed = checked(observe, pipeline=name)
        self._become(
            Settings(**settings, clock=clock, policy=policy, letters=stage, observe=observed),
            plan,
            (),
        )

    @overload
    def source(
        self, src: TcpLines[U] | TcpClient[U] | Tail[U], *, name: str | None = ...
    ) -> Pipeline[U]: ...
    @overload
    def source(self, src: AsyncIterable[U], *, name: str | None = ...) -> Pipeline[U]: ...
    @overload
    def source(self, src: Iterable[U], *, name: str | None = ...) -> Pipeline[U]: ...
    def source(self, src: object, *, name: str | None = None) -> Pipeline[Any]:
        """Take items from an iterable or async iterable, a Channel or a native source; comes first.

        The native sources are `tcp_lines`, `tcp_client` and `tail`.

        Items are taken as fast as the stages let through, no faster, but ahead of those who handle
        them: up to 1000 wait in front of a handler, behind `fan_out` as many as its `capacity` says
        per branch, and beside them what is taken at once, some 250, and of an async source as many
        again. Of a Channel that others read, too, a pipeline so takes more than it works on. What
        was taken and not begun when the run is aborted is counted as `left`, and not put back.

        A generator is closed on every way out; a Channel is not: what was not taken stays inside
        for others. A source that raises, or a Channel that was closed with an error, ends the run:
        what it gave before goes on to the end, and the outcome is "failed".

        Args:
            src: The source. A list or a tuple must not change while the pipeline runs.
            name: The stage's name; by default the generator's, the channel's, or the type's.

        Raises:
            ConfigError: It gives no items, is a str, bytes or mapping, or not the first stage.

        Example:
            >>> import anabranch as ab
            >>> squares = ab.Pipeline("squares").source(n * n for n in range(3)).collect()
            >>> squares.run_blocking().items
            [0, 1, 4]
        """
        label = name_of(src) if name is None else name
        how = source_kind(src, pipeline=self.name, stage=label)
        options = {"how": how, "label": name_of(src)}
        read = (src,) if how == "channel" else ()
        pipeline = self._extended("source", label, options, live={"source": src, "read": read})
        # A source whose items are acked has a stage that sees to that.
        acking = getattr(src, "_first_stage", None)
        return pipeline if acking is None else acking(pipeline, self._settings.commit)

    def merge(
        self,
        readers: Iterable[Readable[U]],
        *,
        strategy: str | Strategy | Chooser = "round_robin",
        on_fault: OnFault = "fail_fast",
        name: str | None = None,
    ) -> Pipeline[U]:
        """Take items from many channels, read as one; comes first, in the place of `source`.

        Args:
            readers: The channels, each once. What was not taken stays in them.
            strategy: Which of those that have something is read next: see `ab.Strategy`.
            on_fault: What the error of a channel does, see `ab.merge`; with "quarantine" it is a
                failure of the run, which goes on.
            name: The stage's name; "merge" by default.

        Raises:
            ConfigError: An argument is not allowed, or it is not the first stage.

        Example:
            >>> import anabranch as ab
            >>> one, two = ab.Channel(10), ab.Channel(10)
            >>> one.send_many_nowait([1, 2])
            >>> two.send_many_nowait([10, 20])
            >>> one.close()
            >>> two.close()
            >>> ab.Pipeline("p").merge([one, two]).collect().run_blocking().items
            [1, 10, 2, 20]
        """
        from anabranch._merge import MergedSource
        from anabranch.source import sources_of

        given = list(readers) if hasattr(readers, "__iter__") else readers

        def begin() -> MergedSource[U]:
            return MergedSource(given, strategy, on_fault)

        def fresh(stage: Stage, _want: Callable[[int], object]) -> Stage:
            return replace(stage, options={**stage.options, "source": begin()})

        begin()  # checks the arguments
        label = "merge" if name is None else name
        options = {"how": "async", "label": "merge"}
        read = tuple(source.reader for source in sources_of(given, "merge"))
        live = {"source": None, "fresh": fresh, "read": read}
        return self._extended("source", label, options, live=live)

    async def run(self) -> Report[T]:
        """Run the pipeline in the running event loop, to its end.

        A cancelled call aborts the run, and waits for its rollback. A handler that swallows its
        own cancellation, or is stuck in a thread, is left behind after 5 s, and listed in the
        report, as is an async source; one that never suspends blocks the loop, and nothing can end
        it.

        Returns:
            The report. Failures are in it, not raised; `report.raise_for_failure()` raises them.

        Raises:
            ConfigError: There is no source or no sink.
            ClosedError: This Pipeline object has been run already.
            OSError: `tcp_lines` cannot listen on its address, or `tail` cannot read its file.
            asyncio.CancelledError: The call was cancelled; `last_report` tells how far it got.

        Example:
            >>> import asyncio
            >>> import anabranch as ab
            >>> asyncio.run(ab.Pipeline("p").source([1, 2]).collect().run()).items
            [1, 2]
        """
        return await self._begin().run()

    def run_blocking(self) -> Report[T]:
        """Run the pipeline in this thread, to its end.

        An event loop is opened only if something is asynchronous. On the main thread the first
        Ctrl-C or SIGTERM drains, the second rolls back at once, and the third leaves: it raises
        KeyboardInterrupt, and `last_report` tells what was left. A handler that does not end is
        left behind 5 s after the second, and listed in the report, as is an async source; one that
        runs inline cannot be.

        Returns:
            The report. Failures are in it, not raised; `report.raise_for_failure()` raises them.

        Raises:
            ConfigError: There is no source or no sink.
            ClosedError: This Pipeline object has been run already.
            OSError: `tcp_lines` cannot listen on its address, or `tail` cannot read its file.
            RuntimeError: An event loop runs in this thread.
            KeyboardInterrupt: At the third signal.

        Example:
            >>> import anabranch as ab
            >>> ab.Pipeline("p").source([1, 2]).collect().run_blocking().items
            [1, 2]
        """
        from anabranch._driver import in_a_loop

        # Before the turn is taken: the pipeline can still be run as the message says.
        if in_a_loop():
            raise RuntimeError(
                f"pipeline {self.name!r}: run_blocking() would block the event loop that "
                "runs in this thread; use `await pipeline.run()`"
            )
        return self._begin().run_blocking()

    def start(self) -> Running[T]:
        """Start the pipeline in the running event loop, beside what follows.

        Returns:
            An async context manager. Leaving it without an error drains the pipeline within its
            grace; leaving it with one aborts it. `await running.wait()` waits for its end. What
            asks for the end of the process in a handler, as `sys.exit()`, aborts the run, and is
            raised by who waits for it and where the block is left; the block is not interrupted.
            The first items may be handled before `async with` has bound the name behind `as`: a
            callable that uses it takes it from `running = pipeline.start()`, entered afterwards.

        Raises:
            ConfigError: There is no source or no sink.
            ClosedError: This Pipeline object has been run already.
            OSError: `tcp_lines` cannot listen on its address, or `tail` cannot read its file.

        Example:
            >>> import asyncio
            >>> import anabranch as ab
            >>> async def main() -> list[int]:
            ...     async with ab.Pipeline("p").source([1, 2]).collect().start() as running:
            ...         report = await running.wait()
            ...     return report.items
            >>> asyncio.run(main())
            [1, 2]
        """
        from anabranch._running import Running

        return Running(self._begin())

    @property
    def last_report(self) -> Report[T] | None:
        """The report of the run, also of a cancelled one; None before its end."""
        return self._last_report

    def _begin(self) -> Session[T]:
        self._plan.validate()
        self._check_source()
        if not self._turn.acquire(blocking=False):
            raise ClosedError(
                f"pipeline {self.name!r} has been run already: a Pipeline object runs once, "
                "so build one for each run, for instance in a function that returns it",
                since=self._since,
            )
        self._since = moment()
        self._take_source()
        # Here, not above: it needs asyncio, which a program that only builds does not.
        from anabranch._driver import Session

        return Session(self)

    def _check_source(self) -> None:
        """Raise if the source is a generator that has been used up, or that another run uses."""
        source = self._stages[0].options["source"]
        if _is_generator(source) and source in _taken:
            raise ClosedError(
                f"pipeline {self.name!r}: its source {name_of(source)!r} is a generator that "
                "another run has taken its items from, and a generator gives each once: make a "
                "new one for each pipeline, or run one that gives several the same items, by "
                "tee(...), broadcast(...) or share(...)",
                since=_taken[source],
            )

    def _take_source(self) -> None:
        source = self._stages[0].options["source"]
        if _is_generator(source):
            _taken[source] = moment()


def _is_generator(source: object) -> bool:
    return inspect.isgenerator(source) or inspect.isasyncgen(source)


# The generators that some run has taken items from, and since when.
_taken: weakref.WeakKeyDictionary[Any, datetime] = weakref.WeakKeyDictionary()


def _check_clock(clock: object, *, pipeline: object) -> None:
    # Imported here: whoever passes one has done so already.
    from anabranch._virtual import VirtualClock

    if not isinstance(clock, VirtualClock):
        name = pipeline if isinstance(pipeline, str) else None
        raise refused("clock", clock, "an ab.testing.VirtualClock or None", pipeline=name)
