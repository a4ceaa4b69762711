"""One failure as operators are given it, and as reports keep it."""

from __future__ import annotations

import dataclasses
import math
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from anabranch.codes import CODES, is_code
from anabranch.errors import HandlerTimeout, RestoredError, refused

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    GaveUp: TypeAlias = Literal["error", "attempts", "total", "budget", "cancelled"]

# The most of a traceback that the JSON form keeps: its end, where the exception is.
_MOST_TRACEBACK: Final = 8192
# How far the JSON form follows lists and dicts, and exceptions of a group.
_DEEPEST: Final = 16
_MOST_CHILDREN: Final = 100

# What is not given is found out; told apart by identity.
_OF_THE_ERROR: Final[Mapping[str, object]] = MappingProxyType({})
_PLAIN: Final = ("code", "message", "stage", "items", "attempts", "delay", "gave_up")
_OF_THE_GROUP: Final[Sequence[Failure]] = []


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Failure:
    """One unit, an item or a window, that failed for good. It cannot be changed.

    Operators (`recover`, `tap_error`, `map_error`, `dead_letter`) are given one, and the report
    keeps the first of those that nobody took.

    Attributes:
        code: What happened: the type name of the exception; or a dotted or other code of ours, all
            of which are in `ab.CODES`; or what `ensure` or `map_error` gave it.
        message: The exception's text.
        stage: The stage it arose in.
        tenant: The branch's key; None before `fan_out`.
        items: How many items failed with it; more than one for a window.
        attempts: How often it was tried, the first attempt included.
        delay: Seconds waited between the attempts, in all.
        error: The exception, with its traceback; a RestoredError in a failure read from JSON.
        history: The exceptions of the attempts, the last one included: all of them, or of very
            many the first one and the latest 32.
        gave_up: Why there was no further attempt: "error": it is not worth one; "attempts": none
            was left; "total": it would have begun too late; "budget": the RetryBudget was used up;
            "cancelled": the run was cut short, and `error` is what the last attempt raised.
        metadata: What is known besides: the exception's own `metadata`, if it has such a mapping,
            or what `map_error` gave it.
        children: For an ExceptionGroup, a failure for each of its exceptions.
        item: What the callable was given: an item, or the list of a window. None for a failure
            of the source, or if it is not known.

    Example:
        >>> import anabranch as ab
        >>> report = ab.Pipeline("p").source(["1", "x"]).map(int).collect().run_blocking()
        >>> (failure,) = report.failures
        >>> failure.code, failure.stage, failure.item
        ('ValueError', 'int', 'x')
    """

    code: str
    stage: str
    tenant: object = None
    message: str = ""
    items: int = 1
    attempts: int = 1
    delay: float = 0.0
    error: BaseException
    history: Sequence[BaseException] = ()
    gave_up: GaveUp = "attempts"
    metadata: Mapping[str, object] = field(default_factory=lambda: _OF_THE_ERROR)
    children: Sequence[Failure] = field(default_factory=lambda: _OF_THE_GROUP)
    item: object = None

    def __post_init__(self) -> None:
        def be(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        be("history", tuple(self.history))
        error = self.error
        if not self.message:
            be("message", text(error))
        if self.metadata is _OF_THE_ERROR:
            be("metadata", _metadata_of(error))
        if self.children is _OF_THE_GROUP:
            be("children", _children_of(error, self.stage, self.tenant))
        be("children", tuple(self.children))
        be("metadata", MappingProxyType(dict(self.metadata)))

    @classmethod
    def of(
        cls, error: BaseException, *, stage: str = "", tenant: object = None, item: object = None
    ) -> Failure:
        """Make the failure that an exception is, with what a call by hand has kept with it.

        Args:
            error: The exception.
            stage: Where it arose.
            tenant: Whose work failed.
            item: What it failed with.

        Example:
            >>> import anabranch as ab
            >>> def ask() -> None:
            ...     raise OSError("busy")
            >>> try:
            ...     ab.retry(ask, ab.Retry.fixed(0.001, attempts=3))
            ... except OSError as error:
            ...     failure = ab.Failure.of(error)
            >>> failure.code, failure.attempts, len(failure.history), failure.gave_up
            ('OSError', 3, 3, 'attempts')
        """
        from anabranch._failures import code_of  # it imports asyncio
        from anabranch._record import record_of

        known = record_of(error)
        return cls(
            code=code_of(error),
            stage=stage,
            tenant=tenant,
            attempts=known.attempts,
            delay=known.delay,
            error=error,
            history=(*known.earlier, error),
            gave_up=known.gave_up,
            item=item,
        )

    @property
    def cause(self) -> BaseException:
        """The exception that the failure was made of: `error`."""
        return self.error

    def replace(
        self,
        *,
        code: str | None = None,
        message: str | None = None,
        metadata: Mapping[str, object] | None = None,
    ) -> Failure:
        """Return the same failure with another code, message or metadata, for `map_error`.

        Raises:
            ValueError: The code is no text, is blank, or is one of the library's own, all of which
                are in `ab.CODES`.
            ConfigError: The message is no text, or the metadata no mapping.

        Example:
            >>> import anabranch as ab
            >>> def told(failure: ab.Failure) -> ab.Failure:
            ...     return failure.replace(code="line.unreadable", metadata={"line": failure.item})
            >>> pipeline = ab.Pipeline("p").source(["x"]).map(int).collect().map_error(told)
            >>> pipeline.run_blocking().codes
            {'line.unreadable': 1}
        """
        changes: dict[str, Any] = {}
        if code is not None:
            changes["code"] = own_code(code, self.code)
        if message is not None:
            _check("message", message, str, "a str or None")
            changes["message"] = message
        if metadata is not None:
            _check("metadata", metadata, Mapping, "a mapping or None")
            changes["metadata"] = metadata
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return the failure in types that JSON has.

        What JSON has no type for becomes its `str`; an exception becomes `{"type", "message",
        "traceback"}`, the traceback shortened to its end.

        Example:
            >>> import json
            >>> import anabranch as ab
            >>> report = ab.Pipeline("p").source(["x"]).map(int).collect().run_blocking()
            >>> told = json.dumps(report.failures[0].to_dict())
            >>> again = ab.Failure.from_dict(json.loads(told))
            >>> again.code, again.item, json.dumps(again.to_dict()) == told
            ('ValueError', 'x', True)
        """
        return {
            **{name: getattr(self, name) for name in _PLAIN},
            "tenant": plain_key(self.tenant),
            "error": described(self.error),
            "history": [described(it) for it in self.history],
            "metadata": plain(dict(self.metadata)),
            "children": [child.to_dict() for child in self.children],
            "item": plain(self.item),
        }

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Failure:
        """Make a failure of what `to_dict` gave; its exceptions are RestoredErrors.

        Raises:
            ValueError: Something is missing, or is not what `to_dict` gives.
        """
        try:
            return cls(
                **{name: told[name] for name in _PLAIN},
                tenant=told["tenant"],
                metadata=told["metadata"],
                children=[cls.from_dict(child) for child in told["children"]],
                item=told["item"],
                error=_restored(told["error"]),
                history=[_restored(error) for error in told["history"]],
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not the dict of a Failure: {error!r}") from error

    def __reduce__(self) -> tuple[Any, ...]:
        # A mapping that cannot be changed cannot be pickled, either.
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return _again, ({**values, "metadata": dict(self.metadata)},)

    def __repr__(self) -> str:
        return f"<Failure {self}>"

    def __str__(self) -> str:
        tenant = "" if self.tenant is None else f", tenant {text(self.tenant)!r}"
        return f"stage {self.stage!r}{tenant}: {self.code}: {self.message}"


def by_now(failure: Failure) -> Failure:
    """Return a failure with what has become known of its timeout since it was made.

    What a call raises after its timeout comes when operators have been told of the failure.
    Metadata that a `map_error` gave it stays.
    """
    error = failure.error
    if not isinstance(error, HandlerTimeout) or failure.metadata.keys() != error.metadata.keys():
        return failure
    return dataclasses.replace(failure, metadata=error.metadata)


def own_code(code: object, before: str) -> str:
    """Return a code that a user has given a failure.

    Args:
        code: What was given.
        before: The code that the failure has.

    Raises:
        ValueError: It is no code, or one of the library's own.
    """
    if not is_code(code):
        allowed = "a text of at least one character that is not blank"
        raise ValueError(f"a code must be {allowed}, got {code!r}")
    if code in CODES and code != before:
        raise ValueError(f"the code {code!r} is one of anabranch's own: choose another")
    return code


def _check(argument: str, value: object, kind: type, allowed: str) -> None:
    if not isinstance(value, kind):
        raise refused(argument, value, allowed, subject="Failure.replace")


def _again(values: dict[str, Any]) -> Failure:
    return Failure(**values)


def plain(value: object, depth: int = 0) -> object:
    """Return `value` in types that JSON has; what it has no type for becomes its `str`."""
    if value is None or type(value) in (bool, str):
        return value
    if type(value) in (int, float):
        return _plain_number(value)
    try:
        return _plain_parts(value, depth)
    except Exception:  # noqa: BLE001 - of a container's own methods; as for its text
        return text(value)


def _plain_parts(value: object, depth: int) -> object:
    if depth < _DEEPEST and isinstance(value, list | tuple):
        return [plain(each, depth + 1) for each in cast("Sequence[object]", value)]
    if depth < _DEEPEST and isinstance(value, dict):
        items = cast("dict[object, object]", value).items()
        return {text(key): plain(each, depth + 1) for key, each in items}
    return text(value)


def _plain_number(value: object) -> object:
    """Return an int or float as it is, or as its text where JSON has no such number."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    try:
        int.__repr__(cast("int", value))
    except ValueError:  # more digits than Python writes
        return text(value)
    return value


def plain_key(tenant: object) -> object:
    """Return a tenant as JSON has it: str, numbers and None as they are."""
    if isinstance(tenant, int | float):
        return _plain_number(tenant)
    return tenant if tenant is None or isinstance(tenant, str) else text(tenant)


def described(error: BaseException) -> dict[str, str]:
    """Return an exception in types that JSON has."""
    if isinstance(error, RestoredError):
        return {"type": error.kind, "message": text(error), "traceback": error.trace}
    try:
        trace = "".join(traceback.format_exception(error))
    except Exception:  # noqa: BLE001 - of the exception's own methods; it is told of all the same
        trace = ""
    return {
        "type": type(error).__name__,
        "message": text(error),
        "traceback": trace[-_MOST_TRACEBACK:],
    }


def _restored(told: Mapping[str, str]) -> RestoredError:
    return RestoredError(told["message"], kind=told["type"], trace=told["traceback"])


def text(value: object) -> str:
    """Return `str(value)`, or something in its place if that raises."""
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - a report must not fail because of what it reports
        return f"<{type(value).__name__} without a text>"


def _metadata_of(error: BaseException) -> Mapping[str, object]:
    try:
        metadata = getattr(error, "metadata", None)
        return dict(cast("Mapping[str, object]", metadata)) if isinstance(metadata, Mapping) else {}
    except Exception:  # noqa: BLE001 - as for its text
        return {}


def _children_of(
    error: BaseException, stage: str, tenant: object, depth: int = 0
) -> tuple[Failure, ...]:
    if not isinstance(error, BaseExceptionGroup) or depth == _DEEPEST:
        return ()
    # Here: it imports asyncio, which a program that only builds does not need.
    from anabranch._failures import code_of

    group = cast("BaseExceptionGroup[BaseException]", error)
    return tuple(
        Failure(
            code=code_of(child),
            stage=stage,
            tenant=tenant,
            error=child,
            children=_children_of(child, stage, tenant, depth + 1),
        )
        for child in group.exceptions[:_MOST_CHILDREN]
    )
