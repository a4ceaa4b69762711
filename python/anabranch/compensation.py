"""What became of an undo action."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from anabranch.errors import AnabranchError

if TYPE_CHECKING:
    from anabranch._core import UndoAction
    from anabranch._playback import Played


@dataclass(frozen=True, slots=True, kw_only=True)
class Compensation:
    """One undo action, or a finalizer that is stuck, and what became of it.

    Attributes:
        name: Its name; the function's if it was given none.
        stage: The stage that registered it; None for a scope by itself.
        tenant: The branch's key; None before `fan_out`.
        outcome: "done"; "failed" if it is stuck, because it raised or never had its turn;
            "skipped" if the rollback's policy left it out.
        seconds: How long it took.
        error: Why it is stuck, if it is.
        action: The action itself, if it is stuck.
    """

    name: str
    stage: str | None
    tenant: object
    outcome: Literal["done", "failed", "skipped"]
    seconds: float
    error: BaseException | None = None
    action: UndoAction | None = field(default=None, repr=False, compare=False)

    def __reduce__(self) -> tuple[Any, ...]:
        # In another process nothing can be tried again.
        names = [name for name in self.__dataclass_fields__ if name != "action"]
        return _restored, ({name: getattr(self, name) for name in names},)


def _restored(told: dict[str, Any]) -> Compensation:
    return Compensation(**told)


def compensation_of(played: Played) -> Compensation:
    """Tell of an action that was played outside a run."""
    action = played.action
    return compensation(
        name=action.name,
        stage=action.stage,
        tenant=action.tenant,
        outcome=played.outcome,
        seconds=played.seconds,
        error=played.error,
        action=action if played.outcome in ("failed", "unrun") else None,
    )


def compensation(*, outcome: str, error: BaseException | None, **told: Any) -> Compensation:  # noqa: ANN401 - fields
    """Make the record from what the core tells."""
    if outcome == "unrun":
        outcome = "failed"
        error = AnabranchError(
            "it had no turn: the rollback's deadline or a third signal came first, or it was "
            "registered in the last pass there is"
        )
    return Compensation(outcome=outcome, error=error, **told)  # type: ignore[arg-type]  # the core's
