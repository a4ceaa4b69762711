"""`Heartbeat`: the item that tells of a branch in which nothing has come for a while."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Nothing has come for a tenant; made by the stage `heartbeat`.

    Attributes:
        tenant: The branch's key; None before `fan_out`.
        silent: The seconds since the last item.
        number: Which it is since then, from 1; more than one further if some were left out.
    """

    tenant: object
    silent: float
    number: int
