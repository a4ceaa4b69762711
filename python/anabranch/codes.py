"""The catalogue of failure codes: every code of the library's own, in one place.

A failure of a callable of yours has the name of its exception's type as its code, or the one that
`ensure` and `map_error` give it. No code of yours can be one of these: an exception type with
such a name is counted with its module's name before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypeGuard


@dataclass(frozen=True, slots=True)
class Code:
    """One code.

    Attributes:
        name: The code.
        description: What has happened, in one sentence.
    """

    name: str
    description: str


_ALL: Final = (
    Code(
        "cancelled", "The call was cut short because the run was, or its coroutine was cancelled."
    ),
    Code("timeout", "An attempt took longer than its stage's timeout."),
    Code("ensure.failed", "The predicate of an ensure() was false, and the stage names no code."),
    Code("callable.not_awaited", "A def returned an awaitable to a stage that awaits nothing."),
    Code("dead_letter.failed", "The dead-letter file could not be written."),
    Code("source.failed", "The source raised; what it gave before goes on."),
    Code("source.truncated", "A stream was cut off in the middle of a line."),
    Code("source.line_too_long", "A line was longer than max_line."),
    Code("source.invalid_utf8", "A line was not UTF-8."),
    Code("source.disconnected", "A tcp_client has lost its server, and connects again."),
    Code("branch.failed", "The item's branch has failed."),
    Code("branch.removed", "The item's branch was removed."),
    Code("branch.full", "The item's branch was full, and its on_full is 'fail'."),
    Code("branch.timeout", "The item's branch was full for longer than its branch_timeout."),
    Code("branch.limit", "The item would have needed one branch more than max_branches."),
    Code("channel.closed", "The channel at the end was closed while the pipeline ran."),
    Code("channel.full", "The channel at the end was full, and its on_full is 'fail'."),
    Code("channel.empty", "Nothing was there to be received from a channel."),
    Code("select.drained", "All channels of a select were closed and empty."),
    Code("all.failed", "None of the alternatives of a race, a fallback or a hedge succeeded."),
    Code("group.failed", "Children of a WaitGroup failed."),
    Code("attach.failed", "A process could not be looked at, or not any more."),
    Code("command.refused", "A command to a process that is looked at was not carried out."),
    Code("outbox.unavailable", "An outbox's database could not be reached, or refused to work."),
    Code("outbox.tenant", "A router was asked for a tenant that has no outbox."),
    Code("outbox.schema", "An outbox's tables were missing, or of another version."),
    Code("outbox.lease_lost", "A message of an outbox was not its claimer's any more."),
    Code("outbox.duplicate", "A dedupe key was given again, with another topic or payload."),
    Code("ResultError", "An Err without a code of its own was unwrapped."),
    Code("ConfigError", "A callable, or a hook, gave what is not allowed."),
    Code("BranchError", "A callable asked of a branch what does not fit its state."),
    Code("ClosedError", "A callable used something of anabranch's after its end."),
    Code("ForkedProcessError", "A callable used a pipeline in a fork of its process."),
    Code("CompensationError", "Undo actions of a scope inside a callable failed."),
    Code("PipelineFailed", "A pipeline that was run inside a callable failed."),
    Code("HandlerError", "A callable raised a HandlerError, of another pipeline's report."),
    Code("StandstillError", "In virtual time, all that was left waited for what cannot happen."),
    Code("OutboxError", "A callable raised a plain OutboxError."),
    Code("AnabranchError", "A callable raised a plain AnabranchError."),
)

CODES: Final[Mapping[str, Code]] = MappingProxyType({code.name: code for code in _ALL})
"""The catalogue, by name.

Example:
    >>> import anabranch as ab
    >>> ab.CODES["timeout"].description
    "An attempt took longer than its stage's timeout."
"""


def is_code(code: object) -> TypeGuard[str]:
    """Return whether a failure may have it: a str that is not blank, and has a form in UTF-8."""
    # Half of a surrogate pair has none.
    halved = isinstance(code, str) and any("\ud800" <= it <= "\udfff" for it in code)
    return isinstance(code, str) and bool(code.strip()) and not halved
