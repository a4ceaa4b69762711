"""What `to_outbox` calls with each unit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from anabranch._callables import is_async
from anabranch._outbox.draft import LONGEST_NAME
from anabranch.errors import refused
from anabranch.outbox import Draft, Outbox
from anabranch.router import OutboxRouter

if TYPE_CHECKING:
    from collections.abc import Callable

    from anabranch.context import Context

_ALLOWED: Final = "an Outbox, an OutboxRouter, or a mapping of tenants to Outboxes"


def writer(
    outbox: object, topic: object, key: object, *, pipeline: str, stage: str
) -> Callable[..., None]:
    """Return a `def` that enqueues what it is given: an item, or each of a window's.

    Raises:
        ConfigError: An argument is not allowed.
    """

    def refuse(argument: str, value: object, allowed: str) -> Exception:
        return refused(argument, value, allowed, pipeline=pipeline, stage=stage)

    one, router = _given(outbox, refuse)
    if not isinstance(topic, str) and (not callable(topic) or is_async(topic)):
        raise refuse("topic", topic, "a str, or a def that takes the item and returns one")
    if key is not None and (not callable(key) or is_async(key)):
        raise refuse("key", key, "None, or a def that takes the item and returns a str or None")
    if isinstance(topic, str) and (not 0 < len(topic) <= LONGEST_NAME or "*" in topic):
        raise refuse("topic", topic, "a str of 1 to 255 characters, none of them a *")
    topic_of = None if isinstance(topic, str) else cast("Callable[[Any], str]", topic)
    key_of = cast("Callable[[Any], str | None] | None", key)

    def draft(item: object) -> Draft:
        about = cast("str", topic) if topic_of is None else topic_of(item)
        return Draft(about, item, ordering_key=None if key_of is None else key_of(item))

    def write(unit: Any, ctx: Context) -> None:  # noqa: ANN401 - an item, or a window
        to = router.outbox(ctx.tenant) if one is None else one
        drafts = [draft(unit)] if ctx.window is None else [draft(item) for item in unit]
        for message in to.enqueue_many(drafts):
            ctx.compensate(to.retract, message)

    return write


def _given(
    outbox: object, refuse: Callable[[str, object, str], Exception]
) -> tuple[Outbox | None, OutboxRouter]:
    """Return the one outbox there is, or the router of several."""
    if isinstance(outbox, OutboxRouter):
        return None, outbox
    if isinstance(outbox, Mapping):
        given = cast("Mapping[Any, object]", outbox)
        for one in given.values():
            if not isinstance(one, Outbox):
                raise refuse("outbox", one, _ALLOWED)
        return None, OutboxRouter(cast("Mapping[Any, Outbox]", given))
    if not isinstance(outbox, Outbox):
        raise refuse("outbox", outbox, _ALLOWED)
    return outbox, OutboxRouter({})
