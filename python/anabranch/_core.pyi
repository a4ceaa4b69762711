"""The extension module. Private, but for `Context`, `RetryBudget` and `WindowInfo`."""

from collections.abc import Callable, Iterator
from typing import Any, Literal, final

from anabranch._build import Spec

__all__ = [
    "Channel",
    "Context",
    "Contexts",
    "Feed",
    "Job",
    "Plan",
    "Playback",
    "RetryBudget",
    "Run",
    "Scope",
    "UndoAction",
    "VirtualTime",
    "WindowInfo",
    "__version__",
    "check_channel",
    "check_retry",
    "check_tcp",
    "has_zone",
]

__version__: str

@final
class Context:
    """One attempt of one unit, as its handler sees it.

    A callable with a parameter named `ctx` is given one. It is valid during the call.

    Example:
        >>> import anabranch as ab
        >>> ledger = []
        >>> def store(n: int, ctx: ab.Context) -> None:
        ...     ledger.append(n)
        ...     ctx.compensate(ledger.remove, n)
        ...     if n == 2:
        ...         raise ValueError(n)
        >>> pipeline = ab.Pipeline("p").source([1, 2]).for_each(store, inline=True)
        >>> pipeline.run_blocking().compensated, ledger
        (1, [1])
    """

    @property
    def tenant(self) -> Any:  # noqa: ANN401 - a key can be anything hashable
        """The key of the branch; None before `fan_out`."""

    @property
    def pipeline(self) -> str:
        """The pipeline's name."""

    @property
    def stage(self) -> str:
        """The stage's name."""

    @property
    def attempt(self) -> int:
        """The number of the attempt, from 1."""

    @property
    def deadline(self) -> float | None:
        """When the attempt must have ended, in seconds since the start of the run; None: never."""

    @property
    def cancelled(self) -> bool:
        """Whether the run is being aborted, or the attempt has timed out.

        A long `def` handler looks at it now and then.
        """

    @property
    def window(self) -> WindowInfo | None:
        """The window, if the unit is one."""

    def compensate(
        self,
        fn: Callable[..., object],
        /,
        *args: object,
        level: Literal["unit", "branch", "pipeline"] = "unit",
        when: bool = True,
        name: str | None = None,
        retries: int = 0,
        timeout: float | None = 30.0,
    ) -> None:
        """Register how to undo what the handler did, or is about to do.

        If the unit fails, here or in a later stage, or is cut short, its undo actions run in
        strict reverse order of registration, those of each failed attempt before the next one.
        If it succeeds they are released. Register before the effect: an undo of something that
        did not happen is usually harmless, a missing one is not.

        What a unit with several outputs registered belongs to all of them: it runs once all have
        ended, if one of them has failed, and after what they registered themselves.

        Args:
            fn: The undo action, `def` or `async def`. A `def` runs where the handler runs: on
                the pool, or inline. One with a parameter `ctx` is given a Context, and what its
                tries register there, failed ones included, runs in a next pass (at most 16).
            args: What to call it with; keywords go through `functools.partial`.
            level: "unit"; "branch": it stays when the unit has ended, and runs if the branch
                fails, or the run fails or is aborted (before `fan_out`: the run); "pipeline": if
                the run fails or is aborted.
            when: False: check the arguments, and register nothing.
            name: What reports call it; the callable's name by default.
            retries: Further tries if it raises.
            timeout: Seconds each try of an `async def` may take, None for no limit; a `def`
                cannot be stopped. One that is still running at the rollback's deadline is stuck:
                on the pool its thread is left behind, and the run goes on; inline it holds the
                run up.

        Raises:
            ConfigError: An argument is not allowed.
            ClosedError: The unit has ended.
        """

    def finalize(
        self,
        fn: Callable[..., object],
        /,
        *args: object,
        level: Literal["unit", "branch", "pipeline"] = "unit",
        when: bool = True,
        name: str | None = None,
        retries: int = 0,
        timeout: float | None = 30.0,
    ) -> None:
        """Register what closes or releases something when the unit has ended, however it ends.

        Finalizers run after the undo actions, which may still need what they close; the last one
        registered runs first. Those of a failed attempt run before the next one.

        Args:
            fn: The finalizer, `def` or `async def`; as for `compensate`.
            args: What to call it with; keywords go through `functools.partial`.
            level: "unit"; "branch": it runs when the branch ends; "pipeline": when the run ends.
            when: False: check the arguments, and register nothing.
            name: What reports call it; the callable's name by default.
            retries: Further tries if it raises.
            timeout: Seconds each try of an `async def` may take, None for no limit; a `def`
                cannot be stopped. One that is still running at the rollback's deadline is stuck:
                on the pool its thread is left behind, and the run goes on; inline it holds the
                run up.

        Raises:
            ConfigError: An argument is not allowed.
            ClosedError: The unit has ended.

        Example:
            >>> import anabranch as ab
            >>> log = []
            >>> def store(n: int, ctx: ab.Context) -> None:
            ...     ctx.finalize(log.append, "closed")
            ...     ctx.compensate(log.append, "undone")
            ...     raise ValueError(n)
            >>> report = ab.Pipeline("p").source([1]).for_each(store, inline=True).run_blocking()
            >>> log, report.compensated, report.finalized
            (['undone', 'closed'], 1, 1)
        """

@final
class WindowInfo:
    """The window a handler was given."""

    @property
    def reason(self) -> Literal["size", "age", "idle", "bytes", "close"]:
        """Why it left."""

    @property
    def items(self) -> int:
        """How many items it holds."""

    @property
    def age(self) -> float:
        """Seconds from its first item's arrival to its leaving."""

@final
class Channel:
    """A bounded channel of objects: what `anabranch.Channel` is made of. Nothing here waits."""

    def __new__(cls, name: str, capacity: int, on_full: str) -> Channel: ...
    @property
    def name(self) -> str: ...
    @property
    def capacity(self) -> int: ...
    @property
    def closed(self) -> bool: ...
    @property
    def failed(self) -> bool: ...
    @property
    def whole(self) -> bool: ...
    def stats(self) -> dict[str, Any]: ...
    def send(self, item: object, turn: int | None = None) -> bool: ...
    def send_many(self, items: list[Any], turn: int | None = None) -> bool: ...
    def receive(self, nothing: object, turn: int | None = None) -> Any: ...  # noqa: ANN401 - an item
    def receive_many(self, most: int | None, turn: int | None = None) -> list[Any]: ...
    def ticket(self) -> int: ...
    def join_senders(self, ticket: int, items: int, wake: Callable[[], None]) -> None: ...
    def join_receivers(self, ticket: int, wake: Callable[[], None]) -> None: ...
    def leave(self, ticket: int) -> None: ...
    def close(self, error: BaseException | None = None) -> None: ...

@final
class RetryBudget:
    """A limit on further attempts, against retry storms: a token bucket.

    When something that all tenants need goes down, every unit fails, and its retries multiply the
    load that it comes back under. Policies that name the same budget share it, over stages and
    pipelines: each further attempt takes a token, and a unit for which there is none has failed,
    with `gave_up` "budget". First attempts are free.

    Args:
        rate: Tokens that come in per second; more than 0.
        burst: Tokens it holds at most, and at the beginning; at least 1.

    Raises:
        ConfigError: An argument is not allowed.

    Example:
        >>> import anabranch as ab
        >>> budget = ab.RetryBudget(rate=10, burst=100)
        >>> ab.Retry.exponential(attempts=3, jitter="none", budget=budget).budget
        RetryBudget(rate=10.0, burst=100)
    """

    def __new__(cls, *, rate: float, burst: int) -> RetryBudget: ...
    @property
    def rate(self) -> float:
        """Tokens that come in per second."""

    @property
    def burst(self) -> int:
        """Tokens it holds at most."""

@final
class Plan:
    """The builder's plan: validated, named, drawn."""

    def __new__(
        cls,
        name: object,
        *,
        max_in_flight: object = 256,
        threads: object = 8,
        on_error: object = "continue",
        dead_letter: object = None,
        grace: object = 30.0,
        commit: object = "unit",
        rollback: object = "sequential",
        rollback_deadline: object = 30.0,
        seed: object = None,
    ) -> Plan: ...
    def stage(self, kind: str, label: str | None, options: dict[str, object]) -> Plan: ...
    def validate(self) -> None: ...
    def names(self) -> list[str]: ...
    def kinds(self) -> list[str]: ...
    def options(self, index: int) -> dict[str, object]: ...
    def settings(self) -> dict[str, object]: ...
    def describe(self) -> str: ...
    def mermaid(self) -> str: ...

@final
class Run:
    """One run of one pipeline, driven in slices by one thread."""

    def __new__(cls, spec: Spec) -> Run: ...
    def step(self, *, in_loop: bool) -> int: ...
    def timeout(self) -> float | None: ...
    def wait(self, most: float) -> None: ...
    def fileno(self) -> int: ...
    def awake(self) -> None: ...
    def drain(self) -> None: ...
    def abort(self) -> None: ...
    def copied(self) -> None: ...
    def tenants(self) -> list[Any]: ...
    def ask(
        self,
        what: str,
        tenant: object,
        argument: object,
        answer: Callable[[bool, Any], object],
    ) -> None: ...
    def attend(self) -> bool: ...
    @property
    def stopping(self) -> bool: ...
    @property
    def aborting(self) -> bool: ...
    @property
    def address(self) -> tuple[str, int] | None: ...
    def waiting(self, port: int) -> bool: ...
    def ports(self) -> list[int]: ...
    def take_overdue(self) -> list[tuple[int | None, int, bool]]: ...
    def in_time(self, attempt: int) -> None: ...
    def next_job(self) -> Job | None: ...
    def has_job(self) -> bool: ...
    def push(self, item: object) -> int: ...
    def has_room(self) -> bool: ...
    def source_ended(self, error: BaseException | None = None) -> None: ...
    def abandon(self) -> None: ...
    def report(self) -> dict[str, Any]: ...
    def close(self) -> None: ...

@final
class VirtualTime:
    """The time of a test, in nanoseconds."""

    def __new__(cls, nanos: int) -> VirtualTime: ...
    @property
    def nanos(self) -> int: ...
    def reach(self, nanos: int) -> None: ...

@final
class Feed:
    """One worker's end of the feed of a leg."""

    def __new__(cls, run: Run, leg: int, *, woven: bool) -> Feed: ...
    def __iter__(self) -> Feed: ...
    def __next__(self) -> Any: ...  # noqa: ANN401 - a unit can be anything
    def batch(self) -> Iterator[Any] | None: ...
    def copied(self) -> None: ...
    def context(self) -> Context | None: ...
    def yielded(self) -> bool: ...
    def expire(self, attempt: int) -> bool: ...
    def abandon(self, attempt: int) -> bool: ...
    def was_cancelled(self) -> bool: ...
    def abandoned(self) -> bool: ...
    def forsake(self, error: BaseException, seconds: float) -> bool: ...
    def acquit(self) -> None: ...
    def done(self, result: object) -> None: ...
    def failed(self, error: BaseException, stage: int | None = None) -> bool: ...
    @property
    def filtered(self) -> list[int] | None: ...

@final
class Job:
    """A unit or an undo action in the hands of a pool thread or of a coroutine."""

    @property
    def timeout(self) -> float | None: ...
    @property
    def undo(self) -> bool: ...
    @property
    def timed(self) -> bool: ...
    def expire(self, attempt: int) -> bool: ...
    def abandon(self, attempt: int) -> bool: ...
    def was_cancelled(self) -> bool: ...
    def acquit(self) -> None: ...
    def overran(self) -> BaseException | None: ...
    def forsake(self, error: BaseException, seconds: float) -> bool: ...
    def parts(self) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]: ...
    def awaitable(self) -> Any: ...  # noqa: ANN401 - any awaitable, or None
    def done(self, result: object = None) -> None: ...
    def failed(self, error: BaseException) -> None: ...

@final
class UndoAction:
    """An undo action or finalizer, as a rollback policy sees it."""

    @property
    def name(self) -> str:
        """Its name; the function's if it was given none."""

    @property
    def stage(self) -> str | None:
        """The stage that registered it; None for a scope by itself."""

    @property
    def pipeline(self) -> str | None:
        """The pipeline of that stage; None for a scope by itself."""

    @property
    def tenant(self) -> Any:  # noqa: ANN401 - a key can be anything hashable
        """The key of the branch it was registered in; None before `fan_out`."""

    @property
    def call(self) -> Callable[..., Any]:
        """What is called."""

    @property
    def args(self) -> tuple[Any, ...]:
        """What it is called with."""

    @property
    def finalizer(self) -> bool:
        """Whether it runs however its scope ends."""

    @property
    def is_async(self) -> bool:
        """Whether it is an `async def`."""

    @property
    def takes_ctx(self) -> bool:
        """Whether it takes `ctx`."""

    @property
    def retries(self) -> int:
        """Further tries if it raises."""

    @property
    def timeout(self) -> float | None:
        """Seconds each try may take; None for no limit."""

    @property
    def pending(self) -> bool:
        """Whether it may be run: nobody has begun to."""

    def context(self, attempt: int) -> Context | None:
        """Make the context of one try, if it is from a run and takes one."""

@final
class Scope:
    """What was registered with one `CompensationScope`."""

    def __new__(cls, inspect: Callable[[Any], tuple[str, bool, bool]]) -> Scope: ...
    def register(
        self,
        fn: Callable[..., object],
        args: tuple[object, ...],
        *,
        finalizer: bool,
        when: bool,
        name: str | None,
        retries: int,
        timeout: float | None,
    ) -> None: ...
    def pending(self) -> tuple[int, int]: ...
    def absorb(self, other: Scope) -> None: ...
    def end(self, well: bool, policy: str) -> Playback: ...

@final
class Playback:
    """The playback of a scope: what to run next."""

    @staticmethod
    def of(actions: list[UndoAction]) -> Playback: ...
    def next(self) -> UndoAction | None: ...
    def ran(self, registered: list[Scope | Context]) -> None: ...
    def unarranged(self) -> list[UndoAction]: ...
    def arranged(self, actions: list[UndoAction]) -> None: ...
    def give_up(self) -> None: ...
    def abandoned(self) -> list[UndoAction]: ...
    @property
    def over(self) -> bool: ...

@final
class Contexts:
    """Makes the contexts of the items of one chunk."""

    def __call__(self, index: int, stage: int, tenant: object = None) -> Context: ...

def check_channel(options: dict[str, object]) -> dict[str, object]: ...
def check_retry(options: dict[str, object]) -> dict[str, object]: ...
def check_tcp(options: dict[str, object]) -> dict[str, object]: ...
def has_zone(name: str) -> bool: ...
