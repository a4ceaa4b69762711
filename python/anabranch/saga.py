"""`Saga`: steps one after the other, of which all are undone, or none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from anabranch._calls import (
    Act,
    Rest,
    act,
    attempt,
    attempt_blocking,
    begun,
    check_context,
    conduct,
    conduct_blocking,
)
from anabranch._record import note
from anabranch._retry import Tries, check_policy
from anabranch._watch import check
from anabranch.context import child_of
from anabranch.errors import check_name, refused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anabranch.context import Context
    from anabranch.policy import Retry


class _Step(NamedTuple):
    name: str
    call: Act
    undo: Callable[..., object] | None
    retry: Retry | None


class Saga:
    """Named steps that run one after the other; if one fails, what all did is undone, in reverse.

    A description: it can be run any number of times, also at the same time. A failing step's own
    undo actions run, too, those of each attempt before the next one. A cancellation undoes
    everything as well, wherever it comes: in a step, between two of them, in a back-off.

    Args:
        name: What errors and contexts begin with, after the name of `ctx`.

    Raises:
        ConfigError: The name is no str, or empty.

    Example:
        >>> import anabranch as ab
        >>> log = []
        >>> def reserve(results: dict) -> str:
        ...     return "seat 7"
        >>> def pay(results: dict) -> str:
        ...     raise OSError(f"no money for {results['reserve']}")
        >>> saga = ab.Saga("trip").step("reserve", reserve, undo=log.append).step("pay", pay)
        >>> try:
        ...     saga.run_blocking()
        ... except OSError as error:
        ...     print(error, log)
        no money for seat 7 ['seat 7']
    """

    def __init__(self, name: str) -> None:
        check_name(name, "Saga")
        self._name = name
        self._steps: tuple[_Step, ...] = ()

    @property
    def name(self) -> str:
        """Its name."""
        return self._name

    @property
    def steps(self) -> tuple[str, ...]:
        """The names of its steps, in order."""
        return tuple(step.name for step in self._steps)

    def step(
        self,
        name: str,
        fn: Callable[..., object],
        *,
        undo: Callable[..., object] | None = None,
        retry: Retry | None = None,
    ) -> Saga:
        """Return a saga with one step more; this one stays as it is.

        Args:
            name: The key of its result; each is used once.
            fn: Takes the results of the steps before it, a mapping by name, and perhaps `ctx`,
                where it can register how to undo what it does. What it returns is its result, an
                `ab.Ok` unwrapped; an `ab.Err` is a failure.
            undo: Undoes the step, once it has succeeded: takes its result. A step that may fail
                half-way registers with `ctx` instead.
            retry: Its policy; None for one attempt.

        Raises:
            ConfigError: An argument is not allowed.
        """
        subject = f"saga {self._name!r}: step"
        check_name(name, subject)
        if name in self.steps:
            raise refused("name", name, "not the name of another step", subject=subject)
        call = act(fn, subject, args=({},), gives="the results so far")
        if undo is not None:
            act(undo, subject, argument="undo", args=(None,), gives="the step's result")
        if retry is not None:
            check_policy(retry, subject)
        longer = Saga(self._name)
        longer._steps = (*self._steps, _Step(name, call, undo, retry))
        return longer

    async def run(self, *, ctx: Context | None = None) -> dict[str, Any]:
        """Run the steps, and return their results by name.

        A `def` runs in the event loop's thread.

        Args:
            ctx: What the call is a part of: what the steps registered goes to it.

        Raises:
            ConfigError: `ctx` is no Context, or the saga has no steps.
            Cancelled: `ctx` was cancelled; all is undone.
            Exception: That of the step that failed; all is undone.

        Example:
            >>> import asyncio
            >>> import anabranch as ab
            >>> async def greet(results: dict) -> str:
            ...     return f"hello {results['name']}"
            >>> saga = ab.Saga("greeting").step("name", lambda _: "Ada").step("text", greet)
            >>> asyncio.run(saga.run())
            {'name': 'Ada', 'text': 'hello Ada'}
        """
        self._check(ctx)
        return await conduct(begun(ctx, self._name), self._run, "Saga")

    def run_blocking(self, *, ctx: Context | None = None) -> dict[str, Any]:
        """Run the steps in this thread; all are `def`s. As `run` otherwise.

        Raises:
            ConfigError: A step is an `async def`, or as for `run`.
        """
        self._check(ctx)
        for step in self._steps:
            if step.call.is_async:
                allowed = f"a def for run_blocking (await saga.run() instead), step {step.name!r}"
                raise refused("fn", step.call.fn, allowed, subject=f"saga {self._name!r}")
        results: dict[str, Any] = conduct_blocking(
            begun(ctx, self._name), self._run_blocking, "Saga"
        )
        return results

    def _check(self, ctx: object) -> None:
        if not self._steps:
            raise refused("steps", (), "one or more: add them by step()", subject=repr(self))
        check_context(ctx, f"saga {self._name!r}")

    async def _run(self, call: Context) -> dict[str, Any]:
        results: dict[str, Any] = {}
        for step in self._steps:
            # Between two steps nothing is awaited: nobody could have cancelled the task.
            check(call)
            with _Noted(self, step):
                one = child_of(call, step.name)
                part = _given(step.call, results)
                value = await (
                    attempt(part, one) if step.retry is None else Tries(part, step.retry).run(one)
                )
                self._completed(step, one, results, value)
        return results

    def _run_blocking(self, call: Context) -> dict[str, Any]:
        results: dict[str, Any] = {}
        for step in self._steps:
            check(call)
            with _Noted(self, step):
                one = child_of(call, step.name)
                part = _given(step.call, results)
                if step.retry is None:
                    value = attempt_blocking(part, one)
                else:
                    value = Tries(part, step.retry).run_blocking(one)
                if isinstance(value, Rest):
                    value.close()
                    allowed = f"a def that returns no coroutine, step {step.name!r}"
                    raise refused("fn", step.call.fn, allowed, subject=f"saga {self._name!r}")
                self._completed(step, one, results, value)
        return results

    def _completed(self, step: _Step, one: Context, results: dict[str, Any], value: object) -> None:
        if step.undo is not None:
            one.compensate(step.undo, value, name=f"{step.name}.undo")
        one._hand_over()
        results[step.name] = value

    def __repr__(self) -> str:
        return f"Saga({self._name!r}, steps={list(self.steps)})"


class _Noted:
    """Notes on an exception which step it comes from."""

    __slots__ = ("_saga", "_step")

    def __init__(self, saga: Saga, step: _Step) -> None:
        self._saga = saga
        self._step = step

    def __enter__(self) -> None:
        """Begin the step."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Note it."""
        if error is not None:
            note(error, f"in saga {self._saga.name!r}, step {self._step.name!r}")


def _given(call: Act, results: Mapping[str, Any]) -> Act:
    # A copy: what a step keeps, or changes, is its own.
    return Act(call.fn, call.name, (dict(results),), awaits=call.is_async, ctx=call.takes_ctx)
