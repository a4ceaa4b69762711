"""The hand-written loops that hand each event to an `async def` handler."""

from __future__ import annotations

from asyncio import Semaphore, TaskGroup
from typing import TYPE_CHECKING

from data import Event, double, keep

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    Handler = Callable[[Event], Awaitable[object]]


async def inline(events: Iterable[Event], handler: Handler) -> None:
    """Await the handler in the loop itself: one event at a time."""
    for event in events:
        mapped = double(event)
        if keep(mapped):
            await handler(mapped)


async def children(events: Iterable[Event], handler: Handler) -> None:
    """Give each event a task of one TaskGroup, all at once."""
    async with TaskGroup() as group:
        for event in events:
            mapped = double(event)
            if keep(mapped):
                group.create_task(handler(mapped))


async def task_group(events: Iterable[Event], handler: Handler, concurrency: int) -> None:
    """Give each event a task, never more than `concurrency` at once.

    The semaphore is taken before the task is made: taken inside, all tasks would exist at once.
    """
    slots = Semaphore(concurrency)

    async def one(event: Event) -> None:
        try:
            await handler(event)
        finally:
            slots.release()

    async with TaskGroup() as group:
        for event in events:
            mapped = double(event)
            if keep(mapped):
                await slots.acquire()
                group.create_task(one(mapped))
