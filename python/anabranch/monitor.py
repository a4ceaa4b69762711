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

import uuid
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from anabranch import _core
from anabranch._snapshot import (
    BranchRow,
    ErrorRow,
    LogRow,
    PipelineRow,
    ProcessInfo,
    RollbackRow,
    Snapshot,
    StageRow,
    UndoRow,
    View,
    WindowRow,
)
from anabranch._talk import AsyncLine, BlockingLine, commanding, entering, looking, ticking
from anabranch.errors import AttachError, refused

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

__all__ = [
    "Attached",
    "BranchRow",
    "ErrorRow",
    "LogRow",
    "Operation",
    "PipelineRow",
    "ProcessInfo",
    "RollbackRow",
    "Snapshot",
    "StageRow",
    "UndoRow",
    "WindowRow",
    "attach",
]

Operation = Literal[
    "branch.pause",
    "branch.resume",
    "branch.drain",
    "branch.cancel",
    "branch.throttle",
    "branch.restart",
    "comp.retry",
    "comp.skip",
    "pipeline.drain",
    "pipeline.cancel",
]
"""What may be asked of a pipeline or of one of its branches."""

# What cannot be taken back.
_DANGEROUS: Final = frozenset(get_args(Operation)) - {
    "branch.pause",
    "branch.resume",
    "branch.throttle",
    "branch.restart",
}
_CLIENT: Final = f"anabranch-python/{_core.__version__}"
_ALWAYS: Final = ["totals", "stages", "windows", "comp", "errors", "log"]
# How long the next tick of a process that hangs is waited for, beyond the interval.
_LATE: Final = 5.0


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
        ConfigError: The timeout is no number of seconds.

    Example:
        >>> import anabranch as ab
        >>> ab.attach(0)
        Traceback (most recent call last):
        anabranch.errors.AttachError: no process with pipelines is 0: none runs here, or ...
    """
    _check_seconds("timeout", timeout, "attach")
    if isinstance(target, str) and target.startswith(("unix:", "tcp:")):
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

    Each call opens a connection of its own and closes it, so there is nothing to close here, and
    an object may be used by several threads and loops. At most eight clients look at once.

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

    @property
    def at(self) -> str:
        """Where it answers."""
        return self._at

    async def look(self, *, branches: bool = True) -> Snapshot:
        """Return what the process tells of its pipelines now.

        A pipeline that is held up by a callable tells its last numbers.

        Args:
            branches: Whether there are rows of the branches.

        Raises:
            AttachError: It does not answer, or does not let us in.
        """
        view = View()
        line = await self._entered(view, control=False)
        try:
            await line.hold(looking(view, _topics(branches=branches), 0.05))
        finally:
            await line.close()
        return view.snapshot(self._only)

    def look_blocking(self, *, branches: bool = True) -> Snapshot:
        """Return what the process tells of its pipelines now; see `look`."""
        view = View()
        line = self._entered_blocking(view, control=False)
        try:
            line.hold(looking(view, _topics(branches=branches), 0.05))
        finally:
            line.close()
        return view.snapshot(self._only)

    async def watch(
        self, *, interval: float = 1.0, branches: bool = True
    ) -> AsyncGenerator[Snapshot]:
        """Yield what the process tells, again and again, until it ends or the caller has enough.

        Args:
            interval: Seconds from one to the next; 0.05 at least.
            branches: Whether there are rows of the branches.

        Raises:
            AttachError: It does not answer, or not any more.
            ConfigError: The interval is too short, or too long.
        """
        _check_interval(interval)
        view = View()
        line = await self._entered(view, control=False)
        try:
            await line.hold(
                looking(view, _topics(branches=branches), interval), most=_patience(interval)
            )
            while True:
                yield view.snapshot(self._only)
                await line.hold(ticking(view), most=_patience(interval))
        finally:
            await line.close()

    def watch_blocking(
        self, *, interval: float = 1.0, branches: bool = True
    ) -> Generator[Snapshot]:
        """Yield what the process tells, again and again; see `watch`."""
        _check_interval(interval)
        view = View()
        line = self._entered_blocking(view, control=False)
        try:
            line.hold(looking(view, _topics(branches=branches), interval), most=_patience(interval))
            while True:
                yield view.snapshot(self._only)
                line.hold(ticking(view), most=_patience(interval))
        finally:
            line.close()

    async def command(
        self,
        operation: Operation,
        *,
        pipeline: str | None = None,
        tenant: str | None = None,
        rollback: int | None = None,
        action: int | None = None,
        rate: float | None = None,
        burst: int | None = None,
        generation: int | None = None,
        dry: bool = False,
        confirm: str | None = None,
    ) -> str:
        """Ask something of a pipeline, or of one of its branches.

        It is carried out once, even if the connection is lost meanwhile and it is sent again. It
        leaves a line in the process' log, and on the screens of those who look at it.

        Args:
            operation: What is to be done. `comp.retry` tries stuck undo actions again, `comp.skip`
                leaves them out for good.
            pipeline: The pipeline's name; not needed if there is only one.
            tenant: The branch, by its tenant as it is shown.
            rollback: The only rollback whose actions are meant, by its number.
            action: The only action that is meant, by its number.
            rate: Items per second of `branch.throttle`; None for no limit.
            burst: Items at once of `branch.throttle`.
            generation: That of the branch when it was looked at: if it has another one now, nothing
                is done.
            dry: Whether it is only to be told what would be done.
            confirm: What cannot be taken back (all but pause, resume, throttle and restart) is done
                only if this is the tenant's name or, where no tenant is meant, the pipeline's.

        Returns:
            What was done, or would be, as a sentence.

        Raises:
            ConfigError: The operation is unknown, or not confirmed.
            CommandError: It was not carried out; its `reason` says why.
            AttachError: The process does not answer, or does not let us in.
        """
        wanted = self._command(
            operation,
            (pipeline, tenant, rollback, action),
            (rate, burst),
            generation,
            confirm,
            dry=dry,
        )
        for again in (True, False):
            view = View()
            line = await self._entered(view, control=True)
            try:
                return str((await line.hold(commanding(view, wanted))).get("msg", ""))
            except AttachError as error:
                if not (again and error.reason == "lost"):
                    raise
            finally:
                await line.close()
        raise AssertionError  # the second time it has returned or raised

    def command_blocking(
        self,
        operation: Operation,
        *,
        pipeline: str | None = None,
        tenant: str | None = None,
        rollback: int | None = None,
        action: int | None = None,
        rate: float | None = None,
        burst: int | None = None,
        generation: int | None = None,
        dry: bool = False,
        confirm: str | None = None,
    ) -> str:
        """Ask something of a pipeline, or of one of its branches; see `command`."""
        wanted = self._command(
            operation,
            (pipeline, tenant, rollback, action),
            (rate, burst),
            generation,
            confirm,
            dry=dry,
        )
        for again in (True, False):
            view = View()
            line = self._entered_blocking(view, control=True)
            try:
                return str(line.hold(commanding(view, wanted)).get("msg", ""))
            except AttachError as error:
                if not (again and error.reason == "lost"):
                    raise
            finally:
                line.close()
        raise AssertionError  # as above

    def _command(
        self,
        operation: str,
        about: tuple[str | None, str | None, int | None, int | None],
        pace: tuple[float | None, int | None],
        generation: int | None,
        confirm: str | None,
        *,
        dry: bool,
    ) -> dict[str, Any]:
        if operation not in get_args(Operation):
            allowed = "one of " + ", ".join(get_args(Operation))
            raise refused("operation", operation, allowed, subject="command")
        pipeline, tenant, rollback, action = about
        if operation in _DANGEROUS and not dry:
            name = pipeline if tenant is None else tenant
            if name is None:
                allowed = "the name of the pipeline, which is confirmed by it"
                raise refused("pipeline", pipeline, allowed, subject=f"command {operation!r}")
            if confirm != name:
                allowed = f"{name!r}, for it cannot be taken back"
                raise refused("confirm", confirm, allowed, subject=f"command {operation!r}")
        if self._only is not None:
            pipeline = None
        on = {"p": self._only, "pipeline": pipeline, "tenant": tenant}
        on |= {"scope": rollback, "action": action}
        rate, burst = pace
        return {
            "op": operation,
            "on": {key: value for key, value in on.items() if value is not None},
            "args": {
                key: value for key, value in (("rate", rate), ("burst", burst)) if value is not None
            },
            "if_gen": generation,
            "key": uuid.uuid4().hex,
            "dry": dry,
        }

    async def _entered(self, view: View, *, control: bool) -> AsyncLine:
        line = await AsyncLine.open(self._at, self._timeout)
        try:
            await line.hold(entering(view, _CLIENT, self._token, control=control))
        except BaseException:
            await line.close()
            raise
        return line

    def _entered_blocking(self, view: View, *, control: bool) -> BlockingLine:
        line = BlockingLine(self._at, self._timeout)
        try:
            line.hold(entering(view, _CLIENT, self._token, control=control))
        except BaseException:
            line.close()
            raise
        return line

    def __repr__(self) -> str:
        return f"<Attached to {self._at}>"


def _topics(*, branches: bool) -> list[str]:
    return [*_ALWAYS, "branches"] if branches else _ALWAYS


def _patience(interval: float) -> float:
    # It listens until all has been told of twice, or three ticks have come.
    return 4 * interval + _LATE


def _check_interval(interval: float) -> None:
    _check_seconds("interval", interval, "watch")
    if not 0.05 <= interval <= 60:  # noqa: PLR2004 - what the server keeps
        raise refused("interval", interval, "seconds from 0.05 to 60", subject="watch")


def _check_seconds(argument: str, given: object, subject: str) -> None:
    if isinstance(given, bool) or not isinstance(given, int | float) or not given > 0:
        raise refused(argument, given, "seconds > 0", subject=subject)
