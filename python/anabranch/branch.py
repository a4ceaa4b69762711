"""Branches while the pipeline runs: a handle to look at one and to command it, and its policies."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from anabranch.counts import BranchReport
from anabranch.errors import BranchRefused, refused
from anabranch.policy import Retry

if TYPE_CHECKING:
    from anabranch._driver import Session

# As the plan has it for a number.
_MOST: Final = 2**32 - 1


class Overflow(enum.Enum):
    """The type of `OVERFLOW`."""

    OVERFLOW = "overflow"

    def __repr__(self) -> str:
        return "ab.OVERFLOW"

    def __str__(self) -> str:
        return "overflow"


OVERFLOW: Final = Overflow.OVERFLOW
"""The tenant of the branch that takes the items of all tenants beyond `max_branches`.

It opens when that is first reached, beside the others, and counts as one of them while it is open:
there may be `max_branches` and one. As long as it is open, one more of the others has to close
before a new tenant gets a branch of its own.
"""


@dataclass(frozen=True, slots=True)
class BranchPolicy:
    """What follows when a unit of a branch has failed for good; made by `fail` and `restart`.

    Attributes:
        kind: The function that made it.
        after: For "fail": after how many failures in a row.
        backoff: For "restart": when the branch opens again, and how often.
    """

    kind: Literal["fail", "restart"]
    after: int = 1
    backoff: Retry | None = None

    def __repr__(self) -> str:
        shown = f"after={self.after}" if self.backoff is None else repr(self.backoff)
        return f"{self.kind}({shown})"


def fail(*, after: int = 1) -> BranchPolicy:
    """Let a branch fail once one of its stages has failed so often in a row.

    In a row: with nothing that succeeded at that stage in between. Each handler counts by itself,
    and so do the inline stages in front of it, which count as one: items that pass them, or that a
    `filter` takes out, say nothing of the handler, and what the handler makes of other items says
    nothing of them. A failure counts where it ends, as failed or as a dead letter; one that
    `recover` turns into an item neither counts nor ends the row. An attempt that is followed by
    another one does not count, and neither does an item that the branch has refused.

    What the branch has not begun, and what comes for it, then fails at once with the code
    `branch.failed`, instead of waiting for what is not going to work; inline stages are not called
    for it. `Branch.restart` opens it again.

    Args:
        after: How many failures in a row: of units, which are items or windows.

    Raises:
        ConfigError: It is no int of at least 1.

    Example:
        >>> import anabranch as ab
        >>> def store(n: int) -> None:
        ...     raise OSError("disk full")
        >>> pipeline = (
        ...     ab.Pipeline("p")
        ...     .source(range(100))
        ...     .fan_out(by=lambda n: "acme", on_branch_error=ab.fail(after=3))
        ...     .for_each(store, inline=True)
        ... )
        >>> pipeline.run_blocking().codes
        {'OSError': 3, 'branch.failed': 97}
    """
    if type(after) is not int or not 1 <= after <= _MOST:  # a bool is a mistake
        raise refused("after", after, f"an int from 1 to {_MOST}", subject="fail")
    return BranchPolicy("fail", after=after)


def restart(backoff: Retry) -> BranchPolicy:
    """Let a branch rest when one of its units has failed for good, and then open again.

    What was registered for the branch is undone, and `on_branch_closed` told; what waits, and what
    comes, stays until the back-off is over. Then `on_new_branch` is told, and the branch goes on.
    If that raises, what waits fails with its code, as the first item of a tenant does, and the
    next item asks again.

    A failure that `recover` turns into an item lets nothing rest. What fails while the branch
    rests belongs to the failure that it rests for.

    Args:
        backoff: How long it rests, and how often: after `attempts` failures of one stage in a row,
            as `fail` counts them, the branch has failed. Its `retry_on`, `total` and `budget` have
            no meaning here.

    Raises:
        ConfigError: It is no Retry, or a `Retry.custom`.

    Example:
        >>> import anabranch as ab
        >>> ab.restart(ab.Retry.fixed(5.0, attempts=3))
        restart(Retry.fixed(5.0, attempts=3))
    """
    if not _tells_by_itself(backoff):
        raise refused("backoff", backoff, "a Retry, but not Retry.custom", subject="restart")
    return BranchPolicy("restart", backoff=backoff)


def _tells_by_itself(backoff: object) -> bool:
    return isinstance(backoff, Retry) and backoff.kind != "custom"


class Branch:
    """The branch of one tenant in a pipeline that runs; made by `Running.branch`.

    May be used from any thread. In the event loop of the pipeline nothing here waits; another
    thread waits until the pipeline's own has carried out what it asks, which takes about a
    millisecond. Called from a callable that runs in the pipeline's own thread (a `def` in `map`,
    a key, a sink with `inline=True`), a command is carried out when the chunk of items under way
    has gone its course (at most 256 items, about a millisecond's worth if the callables are
    quick): until then nothing of it is felt. A misfit is then logged instead of raised.

    Every command raises BranchError if it does not fit the branch's state, ClosedError once the
    run is over, and ForkedProcessError in a fork of the process that runs it. What each of them
    does in each state ("-": BranchError):

    | | open, paused | draining | restarting | failed | evicted | removed |
    |---|---|---|---|---|---|---|
    | `pause`, `resume` | the other | - | - | - | - | - |
    | `drain` | drains, is evicted | - | - | - | - | - |
    | `remove` | drains, is removed | is then removed | - | removed | removed | - |
    | `restart` | drains, opens | opens then (1) | opens (2) | opens (3) | opens | opens |
    | `fail` | failed | failed | failed | - | - | - |
    | `throttle` | yes | yes | yes | (4) | - | - |
    | `Running.add_branch` | - | opens then (1) | - | - | opens | opens |

    (1) If it was to be removed. (2) The rest of its back-off is spared. (3) It is draining while
    something that was begun is under way. (4) Only while something that was begun is under way.

    Of commands in a row the later one wins: after `fail()` and `restart()` what was inside has
    failed, and what comes behind them waits until the branch is open again.

    What comes for a branch: waits in it while it is paused or rests; waits for the next opening
    while it drains or is evicted; fails at once while it is failed, removed or about to be. Inline
    stages right behind `fan_out` run in front of the branch: they are called for what will wait,
    and not for what fails at once (but for the rest of a chunk in which the state has changed).

    The pipeline's grace bounds the draining of the run, not of a branch: a branch drains for as
    long as its handlers take. If the run is drained and its grace ends while something waits or is
    under way in a branch, that is rolled back, and the run's outcome is "aborted".

    Failures of a branch are told by the report (`codes`, `failures`, `branch(tenant).state`), not
    logged one by one. The logger "anabranch" has, at level WARNING, the codes of a run that ended
    with failures; at ERROR, what `on_branch_closed` has raised, and a command from within a
    callable that did not fit.

    A branch that is closed keeps its key, its counts and its state for the rest of the run, some
    350 bytes beside the key itself: `max_branches` bounds those that are open, not those ever seen.

    Example:
        >>> import asyncio
        >>> import anabranch as ab
        >>> async def main() -> list[str]:
        ...     orders: ab.Channel[str] = ab.Channel(10)
        ...     pipeline = ab.Pipeline("p").source(orders).fan_out(by=lambda order: order[0])
        ...     async with pipeline.collect().start() as running:
        ...         acme = running.add_branch("a")
        ...         acme.pause()
        ...         await orders.send_many(["a1", "b1", "a2"])
        ...         orders.close()
        ...         while acme.counts.left < 2:
        ...             await asyncio.sleep(0)
        ...         acme.resume()
        ...         report = await running.wait()
        ...     return report.items
        >>> asyncio.run(main())
        ['b1', 'a1', 'a2']
    """

    __slots__ = ("_session", "_tenant")

    def __init__(self, session: Session[Any], tenant: object) -> None:
        self._session = session
        self._tenant = tenant

    @property
    def tenant(self) -> object:
        """The branch's key."""
        return self._tenant

    @property
    def state(
        self,
    ) -> Literal["open", "paused", "draining", "restarting", "failed", "evicted", "removed"]:
        """What it is doing.

        "open"; "paused": items come in and wait; "draining": what is inside is finished, what
        comes waits; "restarting": it rests after a failure; "failed" and "removed": what comes
        fails at once; "evicted": it was drained, or idle for `idle_ttl`, and its next item opens it
        again.

        Raises:
            BranchError: The tenant has no branch.
        """
        return self.counts.state

    @property
    def counts(self) -> BranchReport:
        """What has become of its items so far.

        Raises:
            BranchError: The tenant has no branch.
        """
        return BranchReport(**self._ask("look"))

    def pause(self) -> None:
        """Hand nothing out until `resume`; what has been begun goes on.

        Items come in, and wait, until the branch is full. A run that is drained waits for it no
        longer than its grace; one that is aborted does not wait.
        """
        self._ask("pause")

    def resume(self) -> None:
        """Go on after `pause`."""
        self._ask("resume")

    def drain(self) -> None:
        """Finish what is inside, partial windows too, and close; the next item opens it again.

        What comes meanwhile waits for that. What was registered with `level="branch"` is released.
        It takes as long as its handlers do: the pipeline's grace is for a run that is drained.
        """
        self._ask("drain")

    def remove(self) -> None:
        """Finish what is inside and close for good, until `Running.add_branch` or `restart`.

        What comes from now on fails at once with the code `branch.removed`.
        """
        self._ask("remove")

    def restart(self) -> None:
        """Open again: at once if it is closed or has failed, else when what is inside is finished.

        Raises:
            BranchError: It does not fit the branch's state.
            Exception: What `on_new_branch`, or another callable that is asked first, raises.
        """
        self._ask("restart")

    def fail(self, reason: str | BaseException = "failed by command") -> None:
        """Give up what no handler has begun, and whatever comes: code `branch.failed`.

        What was begun goes to its end, but is not tried again; then what was registered with
        `level="branch"` is undone, and what was committed stays counted so. `restart` opens it
        again.

        Args:
            reason: For the failures: a text, or an exception to be their cause.

        Raises:
            ConfigError: The reason is neither.
            BranchError: It does not fit the branch's state.
        """
        if not _is_reason(reason):
            subject = f"pipeline {self._session.name!r}, branch {self._tenant!r}, fail"
            raise refused("reason", reason, "a text or an exception", subject=subject)
        message = f"branch {self._tenant!r}: {reason}"
        error = BranchRefused(message, code="branch.failed")
        if isinstance(reason, BaseException):
            error.__cause__ = reason
        self._ask("fail", error)

    def throttle(self, rate: float | None, burst: int | None = None) -> None:
        """Change how fast items go on: at the stage `throttle`, or, without one, at the first.

        It lasts as long as the branch: when that closes and opens again, it is as in the pipeline.

        Args:
            rate: Items per second; None: as fast as can be.
            burst: How many at once, after a pause; None: what comes in within a second.

        Raises:
            ConfigError: An argument is not allowed.
            BranchError: The branch is closed.
        """
        subject = f"pipeline {self._session.name!r}, branch {self._tenant!r}, throttle"
        if rate is not None:
            self._ask("throttle", pace(rate, burst, subject=subject))
        elif burst is not None:
            raise refused("burst", burst, "None where rate is None", subject=subject)
        else:
            self._ask("throttle")

    def __repr__(self) -> str:
        return f"<Branch {self._tenant!r} of pipeline {self._session.name!r}>"

    def _ask(self, what: str, argument: object = None) -> dict[str, Any]:
        answer: dict[str, Any] = self._session.ask(what, self._tenant, argument)
        return answer


def _is_reason(value: object) -> bool:
    return isinstance(value, str | BaseException)


def pace(rate: object, burst: object, *, subject: str = "throttle") -> tuple[float, int]:
    """Return a rate and a burst as the extension takes them.

    Args:
        rate: Items per second.
        burst: How many at once; None: what comes in within a second.
        subject: What is throttled, for the error.

    Raises:
        ConfigError: One of them is not allowed.
    """
    number = type(rate) in (int, float)
    if not number or not 0 < rate < float("inf"):  # type: ignore[operator]  # a number
        raise refused("rate", rate, "a finite number > 0", subject=subject)
    assert isinstance(rate, int | float)  # noqa: S101 - for the type: looked at above
    if burst is None:
        return float(rate), max(1, min(int(rate), _MOST))
    if type(burst) is not int or not 1 <= burst <= _MOST:
        raise refused("burst", burst, f"an int from 1 to {_MOST}, or None", subject=subject)
    return float(rate), burst
