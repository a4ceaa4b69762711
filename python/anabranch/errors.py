"""The exceptions anabranch raises, and the one wording for a refused argument."""

from __future__ import annotations

import math
import reprlib
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    ExcT = TypeVar("ExcT", bound=Exception)


# Every error takes its message alone, too: that is how exceptions are pickled, their attributes
# follow by themselves.
class AnabranchError(Exception):
    """The base of all errors of this library."""


class ConfigError(AnabranchError, ValueError):
    """An argument, or the order of the stages, is not allowed.

    Attributes:
        pipeline: The pipeline's name, if there is one yet.
        stage: The stage's name, if the error is about one.
        argument: The argument's name, if the error is about one.
        value: What was passed for it.
    """

    def __init__(
        self,
        message: str,
        *,
        pipeline: str | None = None,
        stage: str | None = None,
        argument: str | None = None,
        value: object = None,
    ) -> None:
        super().__init__(message)
        self.pipeline = pipeline
        self.stage = stage
        self.argument = argument
        self.value = value


class ClosedError(AnabranchError):
    """The object was used after its end: it was closed, or has run already.

    Attributes:
        since: When it ended, in UTC (virtual time begins with 1970); its message says so, too.
            None: it has not ended, e.g. not begun, or it is not known when.
    """

    def __init__(self, message: str, *, since: datetime | None = None) -> None:
        if since is not None:
            message = f"{message} (since {since.isoformat(' ', 'milliseconds')})"
        super().__init__(message)
        self.since = since


class ChannelClosed(ClosedError):
    """The channel is closed: nothing more can be sent, or nothing is left to be received.

    For a sender its cause is the error the channel was closed with, if it was closed with one.

    Attributes:
        code: `channel.closed`.
    """

    code: Final = "channel.closed"


class ChannelEmpty(AnabranchError):
    """Nothing is there to be received now; more may come.

    Attributes:
        code: `channel.empty`.
    """

    code: Final = "channel.empty"


class ChannelFull(AnabranchError):
    """There is no room now.

    Attributes:
        code: `channel.full`.
    """

    code: Final = "channel.full"


class SelectDrained(ClosedError):
    """All channels of a `select` are closed and empty, and it has no default.

    Attributes:
        code: `select.drained`.
    """

    code: Final = "select.drained"


class BranchError(AnabranchError):
    """What was asked of a branch does not fit: it is in another state, or there is none.

    Attributes:
        tenant: The branch's key.
        state: Its state (see `Branch.state`); None if there is no such branch.
    """

    def __init__(self, message: str, *, tenant: object = None, state: str | None = None) -> None:
        super().__init__(message)
        self.tenant = tenant
        self.state = state


class BranchRefused(AnabranchError):
    """A branch did not let an item in; the item has failed.

    Attributes:
        code: Why: `branch.failed`, `branch.removed`, `branch.full` (its `on_full` is "fail"),
            `branch.timeout` (it was full for longer than `branch_timeout`) or `branch.limit`
            (there are `max_branches` already; `Running.add_branch` raises that, too).
    """

    def __init__(self, message: str, *, code: str = "branch.failed") -> None:
        super().__init__(message)
        self.code = code


class ForkedProcessError(AnabranchError):
    """The object was made before a fork and used in the child process."""


class HandlerError(AnabranchError):
    """A callable of yours failed for good; its own exception is the `__cause__`.

    Attributes:
        code: The failure's code: the type name of your exception, or a dotted one of ours.
        stage: The stage it arose in.
        tenant: The branch's key; None before `fan_out`.
        attempts: How often it was tried, the first attempt included.
        delay: Seconds waited between the attempts, in all.
        history: The exceptions of the attempts, the last one included: all of them, or of very
            many the first one and the latest 32.
        gave_up: Why there was no further attempt; see `Failure.gave_up`.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        stage: str = "",
        tenant: object = None,
        attempts: int = 1,
        delay: float = 0.0,
        history: Sequence[BaseException] = (),
        gave_up: str = "attempts",
    ) -> None:
        super().__init__(message)
        self.code = code
        self.stage = stage
        self.tenant = tenant
        self.attempts = attempts
        self.delay = delay
        self.history: tuple[BaseException, ...] = tuple(history)
        self.gave_up = gave_up


class HandlerTimeout(AnabranchError, TimeoutError):
    """A callable of yours took too long.

    An attempt took longer than its stage's `timeout`, or an undo action longer than its own, or
    than the deadline of its rollback leaves it.

    Attributes:
        code: "timeout".
        timeout: The seconds it was given.
        late: What it raised after that, if it did; a result it gave after that is dropped.
        abandoned: Whether it did not even end within a grace of some seconds: then it was left
            behind, and another worker has taken its place.
    """

    code = "timeout"

    def __init__(self, message: str, *, timeout: float = 0.0) -> None:
        super().__init__(message)
        self.timeout = timeout
        self.late: BaseException | None = None
        self.abandoned = False

    @property
    def metadata(self) -> dict[str, object]:
        """What a Failure made of it tells besides."""
        return {"timeout": self.timeout, "late": self.late, "abandoned": self.abandoned}


class Cancelled(AnabranchError):
    """A call by hand was cut short by its `ab.Cancel`; what it did has been undone.

    Attributes:
        code: `cancelled`.
        reason: Why, as told to `Cancel.cancel`.
    """

    code: Final = "cancelled"

    def __init__(self, message: str, *, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class ResultError(AnabranchError):
    """An `ab.Err` that was not made of an exception of its own was unwrapped.

    Its cause is the exception it was made of, if there is one.

    Attributes:
        code: The code of the `Err`.
        metadata: Its metadata.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        metadata: Mapping[str, object] = MappingProxyType({}),
    ) -> None:
        super().__init__(message)
        self.code = code
        self.metadata: dict[str, object] = dict(metadata)


class EnsureError(AnabranchError):
    """The predicate of an `ensure` was false for an item.

    Attributes:
        code: The stage's code; `ensure.failed` by default.
    """

    def __init__(self, message: str, *, code: str = "ensure.failed") -> None:
        super().__init__(message)
        self.code = code


class NotAwaited(AnabranchError, TypeError):
    """A `def` has returned what should have been awaited, where nothing is.

    An `async def` behind a lambda, or behind a decorator that hides what it is, looks like that.
    The item, or the call, has failed. Pass the `async def` itself, or wrap it:
    `async def call(item): return await fn(item)`. On Python 3.12 and later
    `inspect.markcoroutinefunction` tells what it is.

    The stages between two handlers look at the first item of each chunk, and at the first one
    behind each failure: to look at all would cost 5 to 9 % of the instructions. A `def` that
    returns a coroutine only now and then is not noticed each time: what it returns then is an
    item, or true, and Python warns that it was never awaited.

    Attributes:
        code: `callable.not_awaited`.
    """

    code: Final = "callable.not_awaited"


class DeadLetterError(AnabranchError):
    """The dead-letter file could not be written: the failure counts as failed.

    Its cause is the OSError.

    Attributes:
        code: `dead_letter.failed`.
        path: The file.
    """

    code: Final = "dead_letter.failed"

    def __init__(self, message: str, *, path: str = "") -> None:
        super().__init__(message)
        self.path = path


class RestoredError(AnabranchError):
    """An exception that was read from JSON: what is left of it is text.

    Attributes:
        code: The name of the exception's type.
        kind: The same.
        trace: Its traceback, as Python prints it.
    """

    def __init__(self, message: str, *, kind: str = "", trace: str = "") -> None:
        super().__init__(message)
        self.code: str = kind
        self.kind: str = kind
        self.trace: str = trace


class SourceError(AnabranchError):
    """The source failed, or gave something that is no item.

    Attributes:
        code: What happened, e.g. `source.failed` or `source.line_too_long`.
        peer: Where it came from: the client or server as "ip:port", or the file; None if nowhere.
    """

    def __init__(
        self, message: str, *, code: str = "source.failed", peer: str | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.peer = peer

    @property
    def metadata(self) -> dict[str, object]:
        """What a Failure made of it tells besides."""
        return {} if self.peer is None else {"peer": self.peer}


class OutboxError(AnabranchError):
    """The base of what goes wrong with an outbox.

    Attributes:
        store: The outbox: its URL without the password, or "memory".
    """

    def __init__(self, message: str, *, store: str | None = None) -> None:
        super().__init__(message)
        self.store = store


class StoreUnavailable(OutboxError):
    """The outbox's database cannot be reached, or refuses to work; its cause tells why.

    Attributes:
        code: `outbox.unavailable`.
        reason: Why, in a word: `unreachable`, `denied` (the user may not log in, or lacks a right),
            `missing` (there is no such database), `busy`, `full`, or `failed`.
    """

    code: Final = "outbox.unavailable"

    def __init__(self, message: str, *, store: str | None = None, reason: str = "failed") -> None:
        super().__init__(message, store=store)
        self.reason = reason


class UnknownTenant(OutboxError, LookupError):
    """A router has no outbox for a tenant; its message names those it is like.

    Attributes:
        code: `outbox.tenant`.
        tenant: The tenant.
    """

    code: Final = "outbox.tenant"

    def __init__(self, message: str, *, tenant: object = None) -> None:
        super().__init__(message)
        self.tenant = tenant


class SchemaMismatch(OutboxError):
    """The outbox's tables are missing, or of another version than this anabranch works on.

    Attributes:
        code: `outbox.schema`.
        found: The version of the tables there; None: unknown, 0: there are none.
        needed: The version this anabranch works on.
    """

    code: Final = "outbox.schema"

    def __init__(
        self,
        message: str,
        *,
        store: str | None = None,
        found: int | None = None,
        needed: int | None = None,
    ) -> None:
        super().__init__(message, store=store)
        self.found = found
        self.needed = needed


# A hundred years, in seconds.
_CENTURY = 100 * 366 * 86_400.0


class Reject(Exception):
    """Raised by a handler of an outbox's worker: the message is dead now, without another attempt.

    Args:
        reason: Why; it is kept with the message.

    Example:
        >>> import anabranch as ab
        >>> outbox = ab.Outbox.memory()
        >>> worker = ab.OutboxWorker(outbox)
        >>> @worker.on("mail")
        ... def send(message: ab.Message) -> None:
        ...     raise ab.Reject("no such address")
        >>> _ = outbox.enqueue("mail", {"to": "nobody"})
        >>> worker.run_once_blocking()
        1
        >>> outbox.messages(status="dead")[0].errors[-1].error
        'Reject: no such address'
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class RetryLater(Exception):
    """Raised by a handler of an outbox's worker: it is to be called again, and this does not count.

    Args:
        delay: Seconds until then, up to a hundred years.

    Raises:
        ConfigError: They are no such number.
    """

    def __init__(self, delay: float) -> None:
        given = cast("object", delay)
        number = isinstance(given, int | float) and not isinstance(given, bool)
        if not number or not 0 <= delay <= _CENTURY:
            raise refused("delay", delay, "seconds from 0 to a hundred years", subject="RetryLater")
        super().__init__(f"again in {delay:g} s")
        self.delay = delay


class LeaseLost(OutboxError):
    """The message is not yours any more: its lease was over, or it was ended already.

    Attributes:
        code: `outbox.lease_lost`.
        id: The message's id.
    """

    code: Final = "outbox.lease_lost"

    def __init__(self, message: str, *, store: str | None = None, id: int | None = None) -> None:  # noqa: A002 - as it is called everywhere
        super().__init__(message, store=store)
        self.id = id


class DuplicateConflict(OutboxError):
    """A dedupe key was given again, with another topic or payload.

    Attributes:
        code: `outbox.duplicate`.
        dedupe_key: The key.
        id: The message that was enqueued with it.
    """

    code: Final = "outbox.duplicate"

    def __init__(
        self,
        message: str,
        *,
        store: str | None = None,
        dedupe_key: str | None = None,
        id: int | None = None,  # noqa: A002 - as it is called everywhere
    ) -> None:
        super().__init__(message, store=store)
        self.dedupe_key = dedupe_key
        self.id = id


class StandstillError(AnabranchError):
    """In virtual time: all that is left waits for what can never happen.

    Attributes:
        now: The virtual time at which everything stands still, in seconds.
        waiting: What waits, and where: tasks, pipelines, functions in threads.
    """

    def __init__(self, message: str, *, now: float = math.nan, waiting: Sequence[str] = ()) -> None:
        self.now = now
        self.waiting: tuple[str, ...] = tuple(waiting)
        if self.waiting:
            message = f"at {now} s of virtual time {message}; what waits:"
            message = "\n  ".join((message, *self.waiting))
        super().__init__(message)


class CompensationError(AnabranchError, ExceptionGroup[Exception]):
    """Undo actions failed: one error for each."""

    def derive(self, excs: Sequence[ExcT], /) -> CompensationError:  # type: ignore[override]  # typeshed's is generic
        """Make the group that `split` and `except*` hand on."""
        return CompensationError(self.message, excs)


class AllFailed(AnabranchError, ExceptionGroup[Exception]):
    """None of the alternatives of a `race`, a `fallback` or a `hedge` succeeded.

    It holds one error for each that was tried, in the order they were given in.

    Attributes:
        code: `all.failed`.
    """

    code: Final = "all.failed"

    def derive(self, excs: Sequence[ExcT], /) -> AllFailed:  # type: ignore[override]  # typeshed's is generic
        """Make the group that `split` and `except*` hand on."""
        return AllFailed(self.message, excs)


class AttachError(AnabranchError):
    """A process cannot be looked at, or not any more.

    Attributes:
        code: `attach.failed`.
        reason: Why, in a word: `not_found`, `ambiguous`, `lost`, `timeout`, `off`, `closed` (by
            `Attached.close`), or what the process has refused with (`auth`, `busy`, `proto`).
    """

    code: Final = "attach.failed"

    def __init__(self, message: str, *, reason: str = "lost") -> None:
        super().__init__(message)
        self.reason = reason


class CommandError(AnabranchError):
    """A command to a pipeline that is looked at was not carried out.

    Attributes:
        code: `command.refused`.
        reason: Why, in a word: `readonly`, `not_found`, `ambiguous`, `conflict` (the branch has
            changed since it was looked at), `state`, `unsupported`, `invalid`, `timeout`, `busy`,
            `ended` or `failed`.
    """

    code: Final = "command.refused"

    def __init__(self, message: str, *, reason: str = "failed") -> None:
        super().__init__(message)
        self.reason = reason


class GroupFailed(AnabranchError, ExceptionGroup[Exception]):
    """Children of a `WaitGroup` failed: one error for each, in the order they were begun in.

    Attributes:
        code: `group.failed`.
    """

    code: Final = "group.failed"

    def derive(self, excs: Sequence[ExcT], /) -> GroupFailed:  # type: ignore[override]  # typeshed's is generic
        """Make the group that `split` and `except*` hand on."""
        return GroupFailed(self.message, excs)


class PipelineFailed(AnabranchError, ExceptionGroup[Exception]):
    """A run failed in whole or in part: one error for each failure its report has kept."""

    def derive(self, excs: Sequence[ExcT], /) -> PipelineFailed:  # type: ignore[override]  # typeshed's is generic
        """Make the group that `split` and `except*` hand on."""
        return PipelineFailed(self.message, excs)


def check_name(name: object, subject: str, *, argument: str = "name") -> None:
    """Raise a ConfigError unless `name` is a str that is not empty."""
    if not isinstance(name, str) or not name:
        raise refused(argument, name, "a str that is not empty", subject=subject)


def shown_as(value: object) -> str:
    """Return the shortened `repr` of a value, for a message."""
    try:
        return reprlib.repr(value)
    except ValueError:  # an int with more digits than Python turns into text
        return f"<{type(value).__name__} object>"


def refused(
    argument: str,
    value: object,
    allowed: str,
    *,
    pipeline: str | None = None,
    stage: str | None = None,
    subject: str = "pipeline",
    shown: str | None = None,
) -> ConfigError:
    """Say which argument is refused, and what is allowed, in the words the plan uses.

    Args:
        argument: The argument's name.
        value: What was passed for it.
        allowed: What may be passed, to follow "must be".
        pipeline: The pipeline's name, if there is one.
        stage: The stage's name, if there is one.
        subject: What is being configured where there is no pipeline.
        shown: `value` for people; its shortened `repr` by default.
    """
    place = subject if pipeline is None else f"pipeline {pipeline!r}"
    if stage is not None:
        place = f"{place}, stage {stage!r}"
    return ConfigError(
        f"{place}: {argument} must be {allowed}, got {shown or shown_as(value)}",
        pipeline=pipeline,
        stage=stage,
        argument=argument,
        value=value,
    )
