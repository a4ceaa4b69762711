"""What may be asked of a process: to be told of, and to be done; checked, and how it is said."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from anabranch.errors import refused

if TYPE_CHECKING:
    from collections.abc import Iterable

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
    "dl.requeue",
    "dl.discard",
    "dl.peek",
]
"""What may be asked of a pipeline, of one of its branches, or about dead letters of an outbox."""

# What cannot be taken back.
_DANGEROUS: Final = frozenset(get_args(Operation)) - {
    "branch.pause",
    "branch.resume",
    "branch.throttle",
    "branch.restart",
    "dl.peek",
}

_ALWAYS: Final = ["totals", "stages", "windows", "comp", "errors", "log"]
# How long the next tick of a process that hangs is waited for, beyond the interval.
_LATE: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is asked for, as it was given."""

    operation: str
    pipeline: str | None = None
    tenant: str | None = None
    rollback: int | None = None
    action: int | None = None
    outbox: str | None = None
    messages: Iterable[int] | None = None
    rate: float | None = None
    burst: int | None = None
    generation: int | None = None
    dry: bool = False
    confirm: str | None = None

    @property
    def right(self) -> str:
        """What one must be allowed to do."""
        return "payloads" if self.operation == "dl.peek" else "control"

    def said(self, only: int | None) -> dict[str, Any]:
        """Return it as it is said; `only` is the number of the only pipeline that is meant.

        Raises:
            ConfigError: The operation is unknown, or not confirmed, or lacks what it is about.
        """
        if self.operation not in get_args(Operation):
            allowed = "one of " + ", ".join(get_args(Operation))
            raise refused("operation", self.operation, allowed, subject="command")
        messages = self._messages()
        if self.operation in _DANGEROUS and not self.dry:
            self._check_confirmed()
        on: dict[str, object] = {"store": self.outbox, "ids": messages}
        if not self.operation.startswith("dl."):
            on = {
                "p": only,
                "pipeline": self.pipeline if only is None else None,
                "tenant": self.tenant,
                "scope": self.rollback,
                "action": self.action,
            }
        args = {"rate": self.rate, "burst": self.burst}
        return {
            "op": self.operation,
            "on": {key: value for key, value in on.items() if value is not None},
            "args": {key: value for key, value in args.items() if value is not None},
            "if_gen": self.generation,
            "key": uuid.uuid4().hex,
            "dry": self.dry,
        }

    def _messages(self) -> list[str] | None:
        if self.messages is None:
            return None
        ids = list(self.messages)
        # No message is not all of them.
        if not ids or any(type(it) is not int for it in ids):
            allowed = "ids of messages, or None for all dead letters"
            raise self._refused("messages", self.messages, allowed)
        return [str(it) for it in ids]

    def _check_confirmed(self) -> None:
        if self.operation.startswith("dl."):
            what, name = "outbox", self.outbox
        elif self.tenant is None:
            what, name = "pipeline", self.pipeline
        else:
            what, name = "tenant", self.tenant
        if name is None:
            raise self._refused(what, name, f"the name of the {what}, which is confirmed by it")
        if self.confirm != name:
            raise self._refused("confirm", self.confirm, f"{name!r}, for it cannot be taken back")

    def _refused(self, argument: str, given: object, allowed: str) -> Exception:
        return refused(argument, given, allowed, subject=f"command {self.operation!r}")


def topics_of(*, branches: bool, outboxes: bool) -> list[str]:
    return _ALWAYS + ["branches"] * branches + ["outbox"] * outboxes


def patience(interval: float) -> float:
    # It listens until all has been told of twice, or three ticks have come.
    return 4 * interval + _LATE


def check_interval(interval: float) -> None:
    check_seconds("interval", interval, "watch")
    if not 0.05 <= interval <= 60:  # noqa: PLR2004 - what the server keeps
        raise refused("interval", interval, "seconds from 0.05 to 60", subject="watch")


def check_seconds(argument: str, given: object, subject: str) -> None:
    if isinstance(given, bool) or not isinstance(given, int | float) or not given > 0:
        raise refused(argument, given, "seconds > 0", subject=subject)
