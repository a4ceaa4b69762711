"""Retry policies: how often, after what delay, and for which errors a unit is tried again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast

from anabranch import _core
from anabranch._callables import check_def, name_of
from anabranch._core import RetryBudget
from anabranch._retryable import check_rule, is_hopeless
from anabranch.errors import ConfigError, refused, shown_as

if TYPE_CHECKING:
    from collections.abc import Callable

    RetryOn: TypeAlias = (
        type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool] | None
    )
    DelayOf: TypeAlias = Callable[[int, Exception], float | timedelta]

# The methods that make one.
_KINDS: Final = ("fixed", "exponential", "decorrelated", "cron", "custom")
# The longest time that can be asked for, as in the plan.
_FOREVER = 1e9


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Retry:
    """How often, after what delay, and for which errors a unit is tried again.

    Made by `Retry.fixed`, `Retry.exponential`, `Retry.decorrelated`, `Retry.cron` and
    `Retry.custom`. Each failed attempt's own undo actions run before the next attempt. A unit
    that waits for its next attempt when the run is cut short has failed with the code
    `cancelled`.

    Attributes:
        kind: The method that made it.
        attempts: Attempts in all, the first included.
        retry_on: Which errors are tried again; None for all but programming errors.
        total: How many seconds after the beginning of the first attempt another one may be due;
            None: any time.
        budget: What each further attempt is paid from; None: nothing.
        base: Seconds before the second attempt; for "decorrelated" the shortest delay.
        factor: What each delay is multiplied by to give the next one.
        cap: The longest delay, in seconds.
        jitter: "full": anything from zero to the delay; "none": the delay as it is.
        seed: Makes the jitter repeatable.
        expression: The calendar of "cron".
        tz: The time zone of the calendar; None for UTC.
        delay: What "custom" goes by.

    Example:
        >>> import anabranch as ab
        >>> ab.Retry.exponential(attempts=3, base=0.1, retry_on=OSError)
        Retry.exponential(attempts=3, base=0.1, factor=2.0, cap=30.0, jitter='full', retry_on=OSError)
    """  # noqa: E501 - the example's output is one line

    kind: Literal["fixed", "exponential", "decorrelated", "cron", "custom"]
    attempts: int
    retry_on: RetryOn = None
    total: float | None = None
    budget: RetryBudget | None = None
    base: float = 0.0
    factor: float = 1.0
    cap: float = 0.0
    jitter: Literal["full", "none"] = "none"
    seed: int | None = None
    expression: str | None = None
    tz: str | None = None
    delay: DelayOf | None = None

    def __post_init__(self) -> None:
        # Made by hand, or by `dataclasses.replace`.
        if self.kind not in _KINDS:
            allowed = f"{', '.join(map(repr, _KINDS[:-1]))} or {_KINDS[-1]!r}"
            raise refused("kind", self.kind, allowed, subject="retry")
        if self.kind == "custom":
            _check_delay(self.delay)
        try:
            _checked(self.plan_options(), self.retry_on, self.budget)
        except ConfigError as error:
            if self.kind != "fixed" or error.argument != "delay":
                raise
            allowed = "a number of seconds >= 0"
            raise refused("base", self.base, allowed, subject="retry") from None
        _check_zone(self.tz)

    @classmethod
    def fixed(
        cls,
        delay: float | timedelta,
        *,
        attempts: int = 5,
        retry_on: RetryOn = None,
        total: float | timedelta | None = None,
        budget: RetryBudget | None = None,
    ) -> Retry:
        """Wait the same time before each further attempt.

        Args:
            delay: Seconds between two attempts; 0 tries again at once.
            attempts: Attempts in all, the first included; at least 1.
            retry_on: An exception type, a tuple of types, or a `def` that takes the exception and
                returns whether to try again. None: every Exception but programming errors
                (TypeError, AttributeError, NameError, ImportError, SyntaxError, AssertionError,
                NotImplementedError), groups with such an error in them, and cancellations.
                `asyncio.CancelledError`, KeyboardInterrupt and SystemExit never.
            total: Seconds for all attempts and the delays between them: another attempt is made
                only if it is due within this time after the first began. One under way is not cut
                short; that is what the stage's `timeout` is for. None: no limit.
            budget: Shared by all policies that name it: each further attempt takes a token from
                it, and where there is none, the unit has failed.

        Raises:
            ConfigError: An argument is not allowed.

        Example:
            >>> import anabranch as ab
            >>> ab.Retry.fixed(0.5, attempts=2)
            Retry.fixed(0.5, attempts=2)
        """
        options: dict[str, object] = {
            "kind": "fixed",
            "attempts": attempts,
            "delay": delay,
            "total": total,
        }
        checked = _checked(options, retry_on, budget)
        checked["base"] = checked["cap"] = checked.pop("delay")
        return cls(retry_on=retry_on, budget=budget, **checked)

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
        total: float | timedelta | None = None,
        budget: RetryBudget | None = None,
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
            total: Seconds for all attempts; see `fixed`.
            budget: What further attempts are paid from; see `fixed`.

        Raises:
            ConfigError: An argument is not allowed.

        Example:
            >>> import anabranch as ab
            >>> ab.Retry.exponential(base=1, jitter="none").base
            1.0
        """
        options: dict[str, object] = {
            "kind": "exponential",
            "attempts": attempts,
            "base": base,
            "factor": factor,
            "cap": cap,
            "jitter": jitter,
            "seed": seed,
            "total": total,
        }
        checked = _checked(options, retry_on, budget)
        return cls(retry_on=retry_on, budget=budget, **checked)

    @classmethod
    def decorrelated(
        cls,
        *,
        attempts: int = 5,
        base: float | timedelta = 0.2,
        cap: float | timedelta = 30.0,
        seed: int | None = None,
        retry_on: RetryOn = None,
        total: float | timedelta | None = None,
        budget: RetryBudget | None = None,
    ) -> Retry:
        """Wait anything from `base` to three times the delay before, but never longer than `cap`.

        The "decorrelated jitter" of Marc Brooker, "Exponential Backoff And Jitter", AWS
        Architecture Blog, 2015: it grows like `exponential`, but never tries again at once.

        Args:
            attempts: Attempts in all, the first included; at least 1.
            base: The shortest delay, in seconds.
            cap: The longest delay, in seconds.
            seed: Makes the delays repeatable; None draws a seed for each run.
            retry_on: Which errors to try again; see `fixed`.
            total: Seconds for all attempts; see `fixed`.
            budget: What further attempts are paid from; see `fixed`.

        Raises:
            ConfigError: An argument is not allowed.

        Example:
            >>> import anabranch as ab
            >>> ab.Retry.decorrelated(base=0.5, seed=1)
            Retry.decorrelated(attempts=5, base=0.5, cap=30.0, seed=1)
        """
        options: dict[str, object] = {
            "kind": "decorrelated",
            "attempts": attempts,
            "base": base,
            "cap": cap,
            "seed": seed,
            "total": total,
        }
        checked = _checked(options, retry_on, budget)
        return cls(retry_on=retry_on, budget=budget, **checked)

    @classmethod
    def cron(
        cls,
        expression: str,
        *,
        attempts: int = 5,
        tz: str | None = None,
        retry_on: RetryOn = None,
        total: float | timedelta | None = None,
        budget: RetryBudget | None = None,
    ) -> Retry:
        """Wait until the next instant of a calendar: for services with known hours.

        Args:
            expression: Five fields as in crontab(5): minute, hour, day of month, month, day of
                week; or six, with seconds first. Lists (`1,15`), ranges (`mon-fri`), steps
                (`*/5`) and English names are understood; Sunday is 0 or 7. If both days are
                restricted, one of them suffices. The instant is always in the future: what fails
                at the very second waits for the next one.
            attempts: Attempts in all, the first included; at least 1.
            tz: The time zone of the expression, such as "Europe/Berlin", from this machine's
                database; None is UTC. A local time that is skipped when clocks change does not come
                that day, one that is repeated comes twice.
            retry_on: Which errors to try again; see `fixed`.
            total: Seconds for all attempts; see `fixed`.
            budget: What further attempts are paid from; see `fixed`.

        Raises:
            ConfigError: An argument is not allowed.

        Example:
            >>> import anabranch as ab
            >>> ab.Retry.cron("0 6 * * mon-fri", attempts=3)
            Retry.cron('0 6 * * mon-fri', attempts=3)
        """
        options: dict[str, object] = {
            "kind": "cron",
            "attempts": attempts,
            "expression": expression,
            "tz": tz,
            "total": total,
        }
        checked = _checked(options, retry_on, budget)
        return cls(retry_on=retry_on, budget=budget, **checked)

    @classmethod
    def custom(
        cls,
        delay: DelayOf,
        *,
        attempts: int = 5,
        retry_on: RetryOn = None,
        total: float | timedelta | None = None,
        budget: RetryBudget | None = None,
    ) -> Retry:
        """Wait as long as a function of yours says.

        Args:
            delay: A `def` that takes the number of the attempt that failed (the first is 1) and
                its exception, and returns seconds (an int or a float) or a timedelta. It is
                called in the pipeline's own thread, once per failed attempt that another one may
                follow, and should be quick. If it raises, or returns anything else, the unit is
                not tried again, and a note on its exception says why.
            attempts: Attempts in all, the first included; at least 1.
            retry_on: Which errors to try again; see `fixed`.
            total: Seconds for all attempts; see `fixed`.
            budget: What further attempts are paid from; see `fixed`.

        Raises:
            ConfigError: An argument is not allowed.

        Example:
            >>> import anabranch as ab
            >>> def as_told(attempt: int, error: Exception) -> float:
            ...     return getattr(error, "retry_after", 0.5 * attempt)
            >>> ab.Retry.custom(as_told, attempts=3)
            Retry.custom(as_told, attempts=3)
        """
        _check_delay(delay)
        options: dict[str, object] = {
            "kind": "custom",
            "attempts": attempts,
            "by": name_of(delay),
            "total": total,
        }
        checked = _checked(options, retry_on, budget)
        del checked["by"]
        return cls(delay=delay, retry_on=retry_on, budget=budget, **checked)

    def retryable(self, error: BaseException) -> bool:
        """Return whether a unit that failed with `error` may be tried again.

        A `retry_on` that raises counts as a no, and leaves a note on `error`.
        """
        if not isinstance(error, Exception):
            return False
        rule = self.retry_on
        if rule is None:
            return not is_hopeless(error)
        if isinstance(rule, type | tuple):
            return isinstance(error, rule)
        try:
            return bool(rule(error))
        except Exception as own:  # noqa: BLE001 - the unit's error must not be lost to this one
            error.add_note(f"not retried: retry_on raised {type(own).__name__}: {own}")
            return False

    def seconds_after(self, attempt: int, error: Exception) -> float | None:
        """Return the delay that a custom policy asks for after `attempt` failed with `error`.

        None if it cannot say; a note on `error` tells why.
        """
        assert self.delay is not None  # noqa: S101 - for the type: asked of custom policies only
        try:
            asked = cast("object", self.delay(attempt, error))
        except Exception as own:  # noqa: BLE001 - the unit's error must not be lost to this one
            error.add_note(f"not retried: delay raised {type(own).__name__}: {own}")
            return None
        seconds = asked.total_seconds() if isinstance(asked, timedelta) else asked
        # A bool is a slip, as it is for an argument.
        if (
            not isinstance(seconds, bool)
            and isinstance(seconds, int | float)
            and 0 <= seconds <= _FOREVER
        ):
            return float(seconds)
        error.add_note(
            f"not retried: delay must return a number of seconds from 0 to {_FOREVER:.0f}, "
            f"or a timedelta, got {shown_as(asked)}"
        )
        return None

    def plan_options(self) -> dict[str, object]:
        """Return the policy as the plan takes it, without its live objects."""
        options: dict[str, object] = {"kind": self.kind, "attempts": self.attempts}
        if self.kind == "fixed":
            options["delay"] = self.base
        elif self.kind == "cron":
            options |= {"expression": self.expression, "tz": self.tz}
        elif self.kind == "custom":
            options["by"] = name_of(self.delay)
        else:
            if self.kind == "exponential":
                options |= {"factor": self.factor, "jitter": self.jitter}
            options |= {"base": self.base, "cap": self.cap, "seed": self.seed}
        return options | {"total": self.total}

    def __repr__(self) -> str:
        shown = {
            "fixed": ("attempts",),
            "exponential": ("attempts", "base", "factor", "cap", "jitter", "seed"),
            "decorrelated": ("attempts", "base", "cap", "seed"),
            "cron": ("attempts", "tz"),
            "custom": ("attempts",),
        }[self.kind]
        first = {
            "fixed": f"{self.base}",
            "cron": f"{self.expression!r}",
            "custom": name_of(self.delay),
        }.get(self.kind)
        named = [(key, getattr(self, key)) for key in (*shown, "total", "budget")]
        parts = [] if first is None else [first]
        parts += [f"{key}={value!r}" for key, value in named if value is not None]
        if self.retry_on is not None:
            rule = getattr(self.retry_on, "__name__", None) or repr(self.retry_on)
            parts.append(f"retry_on={rule}")
        return f"Retry.{self.kind}({', '.join(parts)})"


def _checked(options: dict[str, object], retry_on: object, budget: object) -> dict[str, Any]:
    """Check a policy's arguments; return the plan's options with defaults filled in.

    Raises:
        ConfigError: One of them is not allowed.
    """
    check_rule(retry_on)
    if budget is not None and not isinstance(budget, RetryBudget):
        raise refused("budget", budget, "a RetryBudget or None", subject="retry")
    return _core.check_retry(options)


def _check_delay(delay: object) -> None:
    allowed = "a def that takes the attempt and the exception, and returns seconds"
    check_def(delay, 1, None, argument="delay", allowed=allowed, subject="retry")


def _check_zone(tz: str | None) -> None:
    if tz is not None and not _core.has_zone(tz):
        allowed = "the name of a time zone that this machine knows, such as 'Europe/Berlin'"
        raise refused("tz", tz, allowed, subject="retry")
