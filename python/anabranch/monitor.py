"""Looking at pipelines from Python, in this process or another one: what the dashboard sees, typed.

Example:
    ```python
    import anabranch as ab

    job = ab.attach("ingest.py")              # or a pid, or where it answers
    now = job.look_blocking()                 # in a coroutine: await job.look()
    for row in now.pipeline("ingest").branches:
        print(row.tenant, row.state, row.queued)
    job.command_blocking("comp.retry", pipeline="ingest", tenant="acme", confirm="acme")
    ```
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self

from anabranch import _core
from anabranch._orders import (
    Operation,
    Order,
    check_interval,
    check_seconds,
    patience,
    topics_of,
)
from anabranch._rows import (
    BranchRow,
    ErrorRow,
    LetterRow,
    LogRow,
    OutboxRow,
    PipelineRow,
    ProcessInfo,
    RollbackRow,
    Snapshot,
    StageRow,
    UndoRow,
    WindowRow,
)
from anabranch._snapshot import View
from anabranch._talk import AsyncLine, BlockingLine, commanding, entering, looking, ticking, where
from anabranch.errors import AttachError, refused

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Iterable

__all__ = [
    "Attached",
    "BranchRow",
    "ErrorRow",
    "LetterRow",
    "LogRow",
    "Operation",
    "OutboxRow",
    "PipelineRow",
    "ProcessInfo",
    "RollbackRow",
    "Snapshot",
    "StageRow",
    "UndoRow",
    "WindowRow",
    "attach",
]

_CLIENT: Final = f"anabranch-python/{_core.__version__}"
_TARGETS: Final = "a pid, the name of a process, or where it answers: unix:PATH or tcp:HOST:PORT"


def attach(
    target: int | str | None = None, *, token: str | None = None, timeout: float = 5.0
) -> Attached:
    """Find a process of this user with pipelines, to look at it and to steer it.

    Args:
        target: Its pid, its name, or where it answers: `unix:PATH` or `tcp:HOST:PORT`. None, if
            there is only one.
        token: What lets in over TCP; that of a process of this machine is found.
        timeout: Seconds the process may take for each answer.

    Raises:
        AttachError: There is no such process, or there are several.
        ConfigError: The target is none of these, or the timeout is no number of seconds.

    Example:
        >>> import anabranch as ab
        >>> ab.attach(0)
        Traceback (most recent call last):
        anabranch.errors.AttachError: no process with pipelines is 0: none runs here, or ...
    """
    check_seconds("timeout", timeout, "attach")
    if target is not None and type(target) not in (int, str):
        raise refused("target", target, _TARGETS, subject="attach")
    if isinstance(target, str) and target.startswith(("unix:", "tcp:")):
        if where(target) is None:
            raise refused("target", target, _TARGETS, subject="attach")
        found = [it for it in _core.processes() if it[3] == target]
        known = found[0][4] if found else None
        return Attached(target, token=token or known, timeout=timeout)
    found = [
        it for it in _core.processes() if target is None or target in (it[0], str(it[0]), it[1])
    ]
    shown = "here" if target is None else str(target)
    if not found:
        message = (
            f"no process with pipelines is {shown}: none runs here, or its observe is 'off'; "
            "`anabranch ls` lists them, `anabranch doctor` tells what is wrong"
        )
        raise AttachError(message, reason="not_found")
    if len(found) > 1:
        pids = ", ".join(str(it[0]) for it in found)
        message = f"{len(found)} processes with pipelines are {shown}: name one by its pid ({pids})"
        raise AttachError(message, reason="ambiguous")
    return Attached(found[0][3], token=token or found[0][4], timeout=timeout)


class Attached:
    """A process with pipelines, as `attach` has found it.

    Each call opens a connection of its own and closes it. So an object may be used by several
    threads and loops, and there is nothing to close but what is still watched: leaving a `with`
    block, or `close`, ends that, too. At most eight clients look at a process at once.

    Args:
        at: Where it answers.
        token: What lets in over TCP.
        timeout: Seconds the process may take for each answer.
        pipeline: The number of the only pipeline that is shown, if it is only one.
    """

    def __init__(
        self,
        at: str,
        *,
        token: str | None = None,
        timeout: float = 5.0,
        pipeline: int | None = None,
    ) -> None:
        self._at = at
        self._token = token
        self._timeout = float(timeout)
        self._only = pipeline
        self._lines: set[AsyncLine | BlockingLine] = set()
        self._closed = False

    @property
    def at(self) -> str:
        """Where it answers."""
        return self._at

    def close(self) -> None:
        """Look at it no more; any thread.

        What is under way, and what is still watched, ends with an AttachError whose reason is
        `closed`, and so does every later call.
        """
        self._closed = True
        for line in tuple(self._lines):
            line.hang_up()

    def __enter__(self) -> Self:
        """Return it; it is closed at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        """Return it; it is closed at the end of the block."""
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def look(self, *, branches: bool = True, outboxes: bool = True) -> Snapshot:
        """Return what the process tells of its pipelines now.

        A pipeline that is held up by a callable tells its last numbers.

        Args:
            branches: Whether there are rows of the branches.
            outboxes: Whether there are rows of the outboxes. They are read by a thread of the
                process, over connections of its own, while somebody asks for them.

        Raises:
            AttachError: It does not answer, or does not let us in.
        """
        view = View()
        line = await self._entered(view, control=False)
        try:
            topics = topics_of(branches=branches, outboxes=outboxes)
            await line.hold(looking(view, topics, 0.05))
        finally:
            await self._left(line)
        return view.snapshot(self._only)

    def look_blocking(self, *, branches: bool = True, outboxes: bool = True) -> Snapshot:
        """Return what the process tells of its pipelines now; see `look`."""
        view = View()
        line = self._entered_blocking(view, control=False)
        try:
            line.hold(looking(view, topics_of(branches=branches, outboxes=outboxes), 0.05))
        finally:
            self._left_blocking(line)
        return view.snapshot(self._only)

    async def watch(
        self, *, interval: float = 1.0, branches: bool = True, outboxes: bool = True
    ) -> AsyncGenerator[Snapshot]:
        """Yield what the process tells, again and again, until it ends or the caller has enough.

        Args:
            interval: Seconds from one to the next; 0.05 at least.
            branches: Whether there are rows of the branches.
            outboxes: Whether there are rows of the outboxes. They are read by a thread of the
                process, over connections of its own, while somebody asks for them.

        Raises:
            AttachError: It does not answer, or not any more.
            ConfigError: The interval is too short, or too long.
        """
        check_interval(interval)
        view = View()
        line = await self._entered(view, control=False)
        try:
            topics = topics_of(branches=branches, outboxes=outboxes)
            await line.hold(looking(view, topics, interval), most=patience(interval))
            while True:
                yield view.snapshot(self._only)
                await line.hold(ticking(view), most=patience(interval))
        finally:
            await self._left(line)

    def watch_blocking(
        self, *, interval: float = 1.0, branches: bool = True, outboxes: bool = True
    ) -> Generator[Snapshot]:
        """Yield what the process tells, again and again; see `watch`."""
        check_interval(interval)
        view = View()
        line = self._entered_blocking(view, control=False)
        try:
            topics = topics_of(branches=branches, outboxes=outboxes)
            line.hold(looking(view, topics, interval), most=patience(interval))
            while True:
                yield view.snapshot(self._only)
                line.hold(ticking(view), most=patience(interval))
        finally:
            self._left_blocking(line)

    async def command(
        self,
        operation: Operation,
        *,
        pipeline: str | None = None,
        tenant: str | None = None,
        rollback: int | None = None,
        action: int | None = None,
        outbox: str | None = None,
        messages: Iterable[int] | None = None,
        rate: float | None = None,
        burst: int | None = None,
        generation: int | None = None,
        dry: bool = False,
        confirm: str | None = None,
    ) -> str:
        """Ask something of a pipeline, of one of its branches, or about dead letters of an outbox.

        It is carried out once, even if the connection is lost meanwhile and it is sent again. It
        leaves a line in the process' log, and on the screens of those who look at it.

        Args:
            operation: What is to be done. `comp.retry` tries stuck undo actions again, `comp.skip`
                leaves them out for good. `dl.requeue` makes dead letters ready again, all at once,
                `dl.discard` throws them away, and `dl.peek` tells what a single one holds.
            pipeline: The pipeline's name; not needed if there is only one.
            tenant: The branch, by its tenant as it is shown.
            rollback: The only rollback whose actions are meant, by its number.
            action: The only action that is meant, by its number.
            outbox: The outbox whose dead letters are meant, by its name; not needed if there is
                only one and nothing is to be confirmed.
            messages: The ids of those that are meant; None for all.
            rate: Items per second of `branch.throttle`; None for no limit.
            burst: Items at once of `branch.throttle`.
            generation: That of the branch when it was looked at: if it has another one now, nothing
                is done. Of all dead letters of an outbox: how many there were.
            dry: Whether it is only to be told what would be done.
            confirm: What cannot be taken back (all but pause, resume, throttle, restart and peek)
                is done only if this is the name of what it is done to: the tenant or, where none is
                meant, the pipeline; the outbox.

        Returns:
            What was done, or would be, as a sentence; of `dl.peek`, what the message holds.

        Raises:
            ConfigError: The operation is unknown, or not confirmed.
            CommandError: It was not carried out; its `reason` says why.
            AttachError: The process does not answer, or does not let us in.
        """
        order = Order(
            operation=operation,
            pipeline=pipeline,
            tenant=tenant,
            rollback=rollback,
            action=action,
            outbox=outbox,
            messages=messages,
            rate=rate,
            burst=burst,
            generation=generation,
            dry=dry,
            confirm=confirm,
        )
        wanted = order.said(self._only)
        for again in (True, False):
            view = View()
            line = await self._entered(view, control=True)
            try:
                return await line.hold(commanding(view, wanted, order.right))
            except AttachError as error:
                if not (again and error.reason == "lost"):
                    raise
            finally:
                await self._left(line)
        raise AssertionError  # the second time it has returned or raised

    def command_blocking(
        self,
        operation: Operation,
        *,
        pipeline: str | None = None,
        tenant: str | None = None,
        rollback: int | None = None,
        action: int | None = None,
        outbox: str | None = None,
        messages: Iterable[int] | None = None,
        rate: float | None = None,
        burst: int | None = None,
        generation: int | None = None,
        dry: bool = False,
        confirm: str | None = None,
    ) -> str:
        """Ask something of a pipeline, a branch, or about dead letters; see `command`."""
        order = Order(
            operation=operation,
            pipeline=pipeline,
            tenant=tenant,
            rollback=rollback,
            action=action,
            outbox=outbox,
            messages=messages,
            rate=rate,
            burst=burst,
            generation=generation,
            dry=dry,
            confirm=confirm,
        )
        wanted = order.said(self._only)
        for again in (True, False):
            view = View()
            line = self._entered_blocking(view, control=True)
            try:
                return line.hold(commanding(view, wanted, order.right))
            except AttachError as error:
                if not (again and error.reason == "lost"):
                    raise
            finally:
                self._left_blocking(line)
        raise AssertionError  # as above

    async def _entered(self, view: View, *, control: bool) -> AsyncLine:
        line = await AsyncLine.open(self._at, self._timeout)
        self._admit(line)
        try:
            await line.hold(entering(view, _CLIENT, self._token, control=control))
        except BaseException:
            await self._left(line)
            raise
        return line

    def _entered_blocking(self, view: View, *, control: bool) -> BlockingLine:
        line = BlockingLine(self._at, self._timeout)
        self._admit(line)
        try:
            line.hold(entering(view, _CLIENT, self._token, control=control))
        except BaseException:
            self._left_blocking(line)
            raise
        return line

    def _admit(self, line: AsyncLine | BlockingLine) -> None:
        self._lines.add(line)
        if self._closed:
            line.hang_up()

    async def _left(self, line: AsyncLine) -> None:
        self._lines.discard(line)
        await line.close()

    def _left_blocking(self, line: BlockingLine) -> None:
        self._lines.discard(line)
        line.close()

    def __repr__(self) -> str:
        return f"<Attached to {self._at}>"
