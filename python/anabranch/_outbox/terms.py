"""How a worker, or a source, works on its stores: what both are told, checked at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, cast

from anabranch._callables import name_of
from anabranch._outbox.draft import milliseconds
from anabranch.errors import refused
from anabranch.outbox import Outbox
from anabranch.policy import Retry
from anabranch.router import OutboxRouter
from anabranch.selection import selection_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from anabranch.selection import Selection

    Seconds: TypeAlias = float | timedelta

# Twenty attempts, within about a day.
DEFAULT_RETRY: Final = Retry.exponential(attempts=20, base=1.0, cap=7200.0, retry_on=Exception)

_LONGEST_NAME: Final = 255


class Terms(NamedTuple):
    """How to work on the stores; see `OutboxWorker`.

    Attributes:
        selected: How the selection is called.
        name: What the worker is called.
        sounding: Whether the selection wants to know how much there is in them.
        connect: Makes the connection of `ack="inline"`.
        once: Whether to claim once from each.
    """

    batch: int
    lease: float
    poll: tuple[float, float]
    selection: Selection
    selected: str
    sounding: bool
    parallel: int
    connections: int
    seed: int | None
    name: str = "outbox"
    connect: Callable[..., Any] | None = None
    once: bool = False


def terms_of(
    subject: str,
    *,
    batch: object,
    lease: object,
    poll: object,
    max_idle_poll: object,
    selection: object,
    parallel: object,
    connections: object,
    seed: object,
) -> Terms:
    """Check how a worker or a source is to work.

    Raises:
        ConfigError: An argument is not allowed.
    """

    def seconds(argument: str, value: object) -> float:
        return milliseconds(argument, value, subject=subject, positive=True) / 1000

    def count(argument: str, value: object, least: int, most: int) -> int:
        if type(value) is not int or not least <= value <= most:
            raise refused(argument, value, f"an int from {least} to {most:_}", subject=subject)
        return value

    first, most = seconds("poll", poll), seconds("max_idle_poll", max_idle_poll)
    select, sounding = selection_of(selection, subject)
    if seed is not None and type(seed) is not int:
        raise refused("seed", seed, "an int or None", subject=subject)
    return Terms(
        batch=count("batch", batch, 1, 10_000),
        lease=seconds("lease", lease),
        poll=(first, max(first, most)),
        selection=select,
        selected=selection if isinstance(selection, str) else name_of(selection),
        sounding=sounding,
        parallel=count("parallel", parallel, 1, 1000),
        connections=count("connections", connections, 2, 10_000),
        seed=seed,
    )


def router_of(given: object, subject: str) -> OutboxRouter:
    """Return the router of what was given: an outbox, several, or a router.

    Raises:
        ConfigError: It is none of these.
    """
    if isinstance(given, OutboxRouter):
        return given
    allowed = "an Outbox, a mapping of keys to Outboxes, or an OutboxRouter"
    outboxes = {None: given} if isinstance(given, Outbox) else given
    if not isinstance(outboxes, Mapping) or not outboxes:
        raise refused("outboxes", given, allowed, subject=subject)
    for outbox in cast("Mapping[Any, object]", outboxes).values():
        if not isinstance(outbox, Outbox):
            raise refused("outboxes", outbox, allowed, subject=subject)
    return OutboxRouter._of(cast("Mapping[Any, Outbox]", outboxes))  # noqa: SLF001 - the package's


def subscriber_of(topic: object, subscriber: object, retry: object, subject: str) -> str:
    """Check who is to hear of what, and how often it tries; return its name.

    Raises:
        ConfigError: An argument is not allowed.
    """
    if not isinstance(topic, str) or not 0 < len(topic) <= _LONGEST_NAME or "*" in topic[:-1]:
        allowed = "a topic of 1 to 255 characters; * may stand at its end alone"
        raise refused("topic", topic, allowed, subject=subject)
    name = topic if subscriber is None else subscriber
    if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME:
        allowed = "a str of 1 to 255 characters or None"
        raise refused("subscriber", subscriber, allowed, subject=subject)
    if not isinstance(retry, Retry) or retry.budget is not None:
        raise refused("retry", retry, "a Retry without a budget", subject=subject)
    return name
