"""Retry policies: how often, after what delay, and for which errors a unit is tried again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from anabranch import _core
from anabranch._callables import is_async
from anabranch.errors import refused

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    RetryOn: TypeAlias = (
        type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool] | None
    )

# A second attempt meets the same mistake in the program.
_PROGRAMMING_ERRORS = (
    TypeError,
    AttributeError,
    NameError,
    ImportError,
    SyntaxError,
    AssertionError,
    NotImplementedError,
)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Retry:
    """How often, after what delay, and for which errors a unit is tried again.

    Made by `Retry.fixed` and `Retry.exponential`. Each failed attempt's own undo actions run
    before the next attempt.

    Attributes:
        kind: "fixed" or "exponential".
        attempts: Attempts in all, the first included.
        base: Seconds before the second attempt.
        factor: What each delay is multiplied by to give the next one.
        cap: The longest delay, in seconds.
        jitter: "full": anything from zero to the delay; "none": the delay as it is.
        seed: Makes the jitter repeatable.
        retry_on: Which errors are tried again; None for all but programming errors.

    Example:
        >>> import anabranch as ab
        >>> ab.Retry.exponential(attempts=3, base=0.1, retry_on=OSError)
        Retry.exponential(attempts=3, base=0.1, factor=2.0, cap=30.0, jitter='full', retry_on=OSError)
    """  # noqa: E501 - the example's output is one line

    kind: Literal["fixed", "exponential"]
    attempts: int
    base: float
    factor: float
    cap: float
    jitter: Literal["full", "none"]
    seed: int | None
    retry_on: RetryOn

    @classmethod
    def fixed(
        cls, delay: float | timedelta, *, attempts: int = 5, retry_on: RetryOn = None
    ) -> Retry:
        """Wait the same time before each further attempt.

        Args:
            delay: Seconds between two attempts; 0 tries again at once.
            attempts: Attempts in all, the first included; at least 1.
            retry_on: An exception type, a tuple of types, or a `def` that takes the exception and
                returns whether to try again. None: every Exception but programming errors
                (TypeError, AttributeError, NameError, ImportError, SyntaxError, AssertionError,
                NotImplementedError). Cancellation, KeyboardInterrupt and SystemExit never.

        Raises:
            ConfigError: An argument is not allowed.

        Example:
            >>> import anabranch as ab
            >>> ab.Retry.fixed(0.5, attempts=2)
            Retry.fixed(0.5, attempts=2)
        """
        _check(retry_on)
        options: dict[str, object] = {"kind": "fixed", "attempts": attempts, "delay": delay}
        checked: dict[str, Any] = _core.check_retry(options)
        return cls(
            kind="fixed",
            attempts=checked["attempts"],
            base=checked["delay"],
            factor=1.0,
            cap=checked["delay"],
            jitter="none",
            seed=None,
            retry_on=retry_on,
        )

    @classmethod
    def exponential(
        cls,
        *,
        attempts: int = 5,
        base: float | timedelta = 0.2,
        factor: float = 2.0,
        cap: float | timedelta = 30.0,
        jitter: Literal["full", "none"] = "full",
        seed: int | None = None,
        retry_on: RetryOn = None,
    ) -> Retry:
        """Wait `base`, `base * factor`, `base * factor**2`, ... but never longer than `cap`.

        Args:
            attempts: Attempts in all, the first included; at least 1.
            base: Seconds before the second attempt.
            factor: What each delay is multiplied by to give the next one; at least 1.
            cap: The longest delay, in seconds.
            jitter: "full" waits anything from zero to the delay, all equally likely, so that
                units that failed together do not return together; "none" waits the delay itself.
            seed: Makes the jitter repeatable; None draws a seed for each run.
            retry_on: Which errors to try again; see `fixed`.

        Raises:
            ConfigError: An argument is not allowed.

        Example:
            >>> import anabranch as ab
            >>> ab.Retry.exponential(base=1, jitter="none").base
            1.0
        """
        _check(retry_on)
        options: dict[str, object] = {
            "kind": "exponential",
            "attempts": attempts,
            "base": base,
            "factor": factor,
            "cap": cap,
            "jitter": jitter,
            "seed": seed,
        }
        checked: dict[str, Any] = _core.check_retry(options)
        return cls(retry_on=retry_on, **checked)

    def retryable(self, error: BaseException) -> bool:
        """Return whether a unit that failed with `error` may be tried again.

        A `retry_on` that raises counts as a no, and leaves a note on `error`.
        """
        if not isinstance(error, Exception):
            return False
        rule = self.retry_on
        if rule is None:
            return not isinstance(error, _PROGRAMMING_ERRORS)
        if isinstance(rule, type | tuple):
            return isinstance(error, rule)
        try:
            return bool(rule(error))
        except Exception as own:  # noqa: BLE001 - the unit's error must not be lost to this one
            error.add_note(f"not retried: retry_on raised {type(own).__name__}: {own}")
            return False

    def plan_options(self) -> dict[str, object]:
        """Return the policy as the plan takes it, without `retry_on`."""
        options: dict[str, object] = {"kind": self.kind, "attempts": self.attempts}
        if self.kind == "fixed":
            return options | {"delay": self.base}
        return options | {
            "base": self.base,
            "factor": self.factor,
            "cap": self.cap,
            "jitter": self.jitter,
            "seed": self.seed,
        }

    def __repr__(self) -> str:
        options = self.plan_options()
        del options["kind"]
        delay = [f"{options.pop('delay')}"] if self.kind == "fixed" else []
        named = [f"{key}={value!r}" for key, value in options.items() if value is not None]
        if self.retry_on is not None:
            shown = getattr(self.retry_on, "__name__", None) or repr(self.retry_on)
            named.append(f"retry_on={shown}")
        return f"Retry.{self.kind}({', '.join(delay + named)})"


def _check(rule: object) -> None:
    """Raise a ConfigError unless `rule` can tell errors apart."""
    if rule is None or _are_types(rule):
        return
    if callable(rule) and not isinstance(rule, type) and not is_async(rule):
        return
    allowed = "an Exception type, a tuple of them, or a def that takes the exception"
    raise refused("retry_on", rule, allowed, subject="retry")


def _are_types(rule: object) -> bool:
    types = cast("tuple[object, ...]", rule) if isinstance(rule, tuple) else (rule,)
    return bool(types) and all(
        isinstance(each, type) and issubclass(each, Exception) for each in types
    )
