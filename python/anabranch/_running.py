"""A pipeline that runs beside its caller, as the caller holds it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from anabranch import _core
from anabranch._signals import steering
from anabranch.branch import Branch
from anabranch.errors import AttachError, ClosedError, ConfigError, refused

if TYPE_CHECKING:
    from types import TracebackType

    from anabranch._driver import Session
    from anabranch._rows import PipelineRow
    from anabranch.monitor import Attached
    from anabranch.report import Report

T = TypeVar("T")


class Running(Generic[T]):
    """A pipeline that runs in the event loop beside the caller; made by `Pipeline.start`.

    An async context manager: leaving it without an error drains the pipeline within its grace,
    leaving it with one aborts it.

    Example:
        >>> import asyncio
        >>> import anabranch as ab
        >>> async def main() -> int:
        ...     async with ab.Pipeline("p").source(range(10)).collect().start() as running:
        ...         report = await running.wait()
        ...     return report.committed
        >>> asyncio.run(main())
        10
    """

    def __init__(self, session: Session[T]) -> None:
        self._session = session
        self._task: asyncio.Task[Report[T]] | None = None
        self._steering: Any = None

    async def __aenter__(self) -> Running[T]:
        """Start the pipeline."""
        if self._task is not None:
            raise self._closed("has been started already")
        self._steering = steering(self._session, interrupts=False)
        self._steering.__enter__()
        try:
            self._task = self._session.spawn()
            # The driver's first step has run when the caller's next line does.
            await asyncio.sleep(0)
        except BaseException as error:
            # Cancelled on the way in: nobody would be left to end the run.
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Drain, or abort, and wait for the end; in a fork there is nothing to end."""
        if self._session.forked:
            return
        try:
            if kind is None:
                self._session.drain()
            else:
                self._session.abort()
            await self._joined()
        finally:
            self._steering.__exit__(None, None, None)

    @property
    def address(self) -> tuple[str, int]:
        """Where the source listens: (host, port), with the port that 0 has picked.

        Raises:
            ClosedError: The source does not listen.
        """
        address = self._session.address
        if address is None:
            raise self._closed("has no source that listens")
        return address

    @property
    def report(self) -> Report[T] | None:
        """The report; None before the end."""
        return self._session._pipeline.last_report  # noqa: SLF001 - both are the pipeline's

    def attach(self) -> Attached:
        """Look at this pipeline as others may: its branches, rollbacks, errors, and the log.

        What answers is a thread beside the pipeline, which takes none of its locks. In the event
        loop's thread use `look`, not `look_blocking`, which would hold up the pipeline meanwhile.

        Raises:
            AttachError: Nobody may look: `observe="off"`, in virtual time, or before the start.
        """
        from anabranch.monitor import Attached

        run, monitor = self._session.watched()
        at = None if monitor is None else monitor.at
        if run is None or at is None:
            raise self._unseen()
        token = next((it[4] for it in _core.processes() if it[3] == at), None)
        return Attached(at, token=token, pipeline=run.number)

    def metrics(self, *, branches: bool = False) -> str:
        """Return the numbers of this pipeline as text that Prometheus reads.

        They are as old as the last sweep over the branches, a second at most in general; to ask
        costs the pipeline nothing.

        Args:
            branches: Whether there are lines for each tenant, too: with many of them it is much.

        Raises:
            AttachError: Nobody may look: `observe="off"`, in virtual time, or before the start.

        Example:
            >>> import asyncio
            >>> import anabranch as ab
            >>> async def main() -> str:
            ...     async with ab.Pipeline("p").source(range(10)).collect().start() as running:
            ...         await running.wait()
            ...         return running.metrics()
            >>> print(asyncio.run(main()).splitlines()[2])
            anabranch_received_total{pipeline="p"} 10
        """
        from anabranch._metrics import exposition

        return exposition(self.snapshot(branches=branches), branches=branches)

    def snapshot(self, *, branches: bool = True) -> PipelineRow:
        """Return the numbers of this pipeline, as old as the last sweep over its branches.

        There are no rollbacks, windows and log in it: `attach` shows them.

        Args:
            branches: Whether there are rows of the branches.

        Raises:
            AttachError: Nobody may look: `observe="off"`, in virtual time, or before the start.
        """
        from anabranch._snapshot import View

        run, monitor = self._session.watched()
        number = None if run is None else run.number
        if monitor is None or number is None:
            raise self._unseen()
        view = View()
        view.hear_all(monitor.picture(number, branches=branches))
        found = view.snapshot().pipelines
        if not found:
            raise self._unseen()
        return found[0]

    def _unseen(self) -> AttachError:
        return AttachError(
            f"pipeline {self._session.name!r} cannot be looked at: it has not begun, its observe "
            "is 'off', or its time is virtual",
            reason="off",
        )

    def branch(self, tenant: object) -> Branch:
        """Return a handle of a tenant's branch, to look at it and to command it.

        Args:
            tenant: The branch's key; there need not be a branch yet.

        Raises:
            ConfigError: The tenant cannot be hashed, or the pipeline has no `fan_out`.
        """
        self._check_key(tenant)
        return Branch(self._session, tenant)

    def add_branch(self, tenant: object) -> Branch:
        """Open a branch before its first item comes, or one that was drained, evicted or removed.

        May be called from any thread; see `Branch`.

        Args:
            tenant: The branch's key.

        Raises:
            ConfigError: The tenant cannot be hashed, or the pipeline has no `fan_out`.
            BranchError: The branch is open, or has failed (`restart` opens it then).
            BranchRefused: There are `max_branches` already, whatever `on_max_branches` says: the
                tenant gets no branch of its own, and no handle.
            Exception: What `on_new_branch`, or another callable that is asked first, raises.
            ClosedError: The run has not begun, or is over.
            ForkedProcessError: In a fork of the process that runs the pipeline.
        """
        self._check_key(tenant)
        self._session.ask("add", tenant)
        return Branch(self._session, tenant)

    def _check_key(self, tenant: object) -> None:
        if not self._session.fans_out:
            name = self._session.name
            raise ConfigError(f"pipeline {name!r}: there are no branches without a fan_out")
        try:
            hash(tenant)
        except TypeError as error:
            name = self._session.name
            raise refused("tenant", tenant, f"a key ({error})", pipeline=name) from None

    @property
    def blocking(self) -> tuple[Any, ...]:
        """The tenants whose branches are full and hold the source back now.

        Raises:
            ClosedError: The run has not begun, or is over.
        """
        return tuple(self._session.ask("blocking", None))

    def drain(self) -> None:
        """Stop intake and finish what is inside, within the pipeline's grace; does not wait.

        May be called from any thread.

        Raises:
            ClosedError: Its event loop was closed while it ran. What it did is undone, as far as
                that needs no loop, when the pipeline is let go of, or the process ends.
            ForkedProcessError: In a fork of the process that runs the pipeline.
        """
        self._session.check_reach()
        self._session.drain()

    def abort(self) -> None:
        """Give up what was not begun and roll back what is under way; does not wait.

        May be called from any thread.

        Raises:
            ClosedError: Its event loop was closed while it ran. What it did is undone, as far as
                that needs no loop, when the pipeline is let go of, or the process ends.
            ForkedProcessError: In a fork of the process that runs the pipeline.
        """
        self._session.check_reach()
        self._session.abort()

    async def wait(self) -> Report[T]:
        """Wait for the end of the run.

        Returns:
            The report. Cancelling this call does not stop the pipeline.

        Raises:
            ClosedError: The pipeline was not started, or in another event loop.
            ForkedProcessError: In a fork of the process that runs the pipeline.
        """
        self._session.check_process()
        if self._task is None:
            raise self._closed("is not running: use `async with pipeline.start() as running:`")
        if self._task.get_loop() is not asyncio.get_running_loop():
            raise self._closed("runs in another event loop")
        await asyncio.wait([self._task])
        return self._session.outcome(self._task)

    async def _joined(self) -> None:
        if self._task is None:
            return
        cancelled: asyncio.CancelledError | None = None
        while not self._task.done():
            try:
                await asyncio.wait([self._task])
            except asyncio.CancelledError as error:
                cancelled = error
                self._session.abort()
        self._session.outcome(self._task)
        if cancelled is not None:
            raise cancelled

    def _closed(self, what: str) -> ClosedError:
        name = self._session._settings.name  # noqa: SLF001 - both are the pipeline's
        return ClosedError(f"pipeline {name!r} {what}")
