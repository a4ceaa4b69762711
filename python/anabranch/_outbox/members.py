"""The members of joins, as every store counts them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from anabranch.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anabranch._outbox.store import Written


class NewJoin(NamedTuple):
    """A join that is not written yet, checked."""

    expected: int
    quorum: int
    tolerates: bool
    deadline: int | None
    then: Written
    otherwise: Written | None

    def columns(self) -> dict[str, Any]:
        return {
            "expected": self.expected,
            "quorum": self.quorum,
            "tolerates": int(self.tolerates),
            "deadline": self.deadline,
        }

    def follows(self, join: int) -> list[dict[str, Any]]:
        """Return what is to be enqueued when that join ends, by outcome."""
        both = ((1, self.then), (2, self.otherwise))
        return [{**it, "join": join, "outcome": outcome} for outcome, it in both if it is not None]


class Came(NamedTuple):
    """New members of a join: those that are not handled yet, and how many ended before."""

    open: list[int]
    done: int
    failed: int


def members_of(rows: Sequence[Written], ids: Sequence[int]) -> dict[int, list[int]]:
    """Return the members of each join among what was written."""
    members: dict[int, list[int]] = {}
    for row, id_ in zip(rows, ids, strict=True):
        if row["join"] is not None:
            members.setdefault(row["join"], []).append(id_)
    return members


def check_members(
    store: str, join: int, known: Sequence[Any], messages: list[int], states: Sequence[Any]
) -> None:
    """Raise a ConfigError if messages cannot be members of a join.

    Args:
        store: The store, for people.
        join: The join's id.
        known: How many members it expects and has, and the last message's id; nothing if there is
            no such join.
        messages: Their ids.
        states: Of those that are there, the id, the state and the join.
    """
    if not known:
        raise _not_so(store, f"there is no join {join}: make one with outbox.join()", join)
    for message in messages:
        if message > known[0][2]:
            raise _not_so(store, f"there is no message {message} to be a member", message)
    for message, state, other in states:
        if state == 0 and other is not None and other != join:
            advice = "a message has one join: cancel that one, or make another message"
            raise _not_so(store, f"message {message} is a member of join {other}: {advice}", other)


def sorted_members(
    store: str, join: int, known: Sequence[Any], new: Sequence[int], states: Sequence[Any]
) -> Came:
    """Tell new members apart by how far they are.

    Raises:
        ConfigError: They are more than the join expects.
    """
    expected, attached = known[0][:2]
    if attached + len(new) > expected:
        count = attached + len(new)
        raise _not_so(
            store, f"join {join} expects {expected} members: it cannot have {count}", count
        )
    state = {row[0]: row[1] for row in states}
    # What is done has left.
    each = [state.get(message, 2) for message in new]
    unended = [message for message in new if state.get(message, 2) == 0]
    return Came(unended, each.count(2), each.count(1))


def _not_so(store: str, what: str, value: object) -> ConfigError:
    return ConfigError(f"outbox {store}: {what}", argument="join", value=value)
