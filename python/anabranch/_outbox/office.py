"""All stores of a worker: which there are, whose turn it is, and how many connections are open."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, TypeVar
from weakref import WeakKeyDictionary

from anabranch._outbox.inline import InlinePost, store_with_driver
from anabranch._outbox.places import Ears, Places
from anabranch._outbox.post import Post
from anabranch._outbox.schedule import Schedule
from anabranch._outbox.shown import say_selected

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anabranch._outbox.metrics import PostRow
    from anabranch._outbox.providers import Place
    from anabranch._outbox.schedule import Turn
    from anabranch._outbox.store import Store
    from anabranch._outbox.taker import Taker
    from anabranch._outbox.terms import Terms
    from anabranch.router import OutboxRouter

T = TypeVar("T")

_logger = logging.getLogger("anabranch")

# Seconds until stores that could not be told of are asked for again; it doubles.
_SOON: Final = 1.0


class Office:
    """Sees to the posts of a worker; everything in the event loop's thread, unless said otherwise.

    Args:
        router: The stores.
        lanes: Those who handle, by the name of their subscriber.
        terms: How to work.
    """

    def __init__(self, router: OutboxRouter, lanes: Mapping[str, Taker], terms: Terms) -> None:
        self._router = router
        self._lanes = lanes
        self._terms = terms
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._schedule = Schedule(
            terms.selection,
            parallel=min(terms.parallel, terms.connections),
            poll=terms.poll,
            seed=terms.seed,
        )
        # Nearly half of the connections listen. The others work: those of stores that are listened
        # to stay open, and two are left for all that are asked now and then.
        ears = max(1, terms.connections // 2 - 1)
        self._ears = Ears(ears)
        self._places = Places(terms.connections - ears, self.aside, self._ears.__contains__)
        self._threads: ThreadPoolExecutor | None = None
        self._posts: dict[Any, tuple[Place, Post | InlinePost]] = {}
        # Those whose store is worked on no more, but which have not ended yet.
        self._leaving: set[Post | InlinePost] = set()
        self._ends: dict[Post | InlinePost, Callable[[], object]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._writing: WeakKeyDictionary[Any, asyncio.Lock] = WeakKeyDictionary()
        self._timer: asyncio.TimerHandle | None = None
        self._stopping = False
        # Whether it is known which stores there are.
        self._attended = False
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._claimed = 0
        # Told once nothing more is going to be claimed.
        self._when_claimed: Callable[[], object] = int

    @property
    def name(self) -> str:
        """What the worker is called."""
        return self._terms.name

    @property
    def is_crowded(self) -> bool:
        """Whether more connections are wanted than there may be."""
        inline = self._terms.connect is not None
        # Of those that work in the user's own transactions each has one.
        return (len(self._posts) if inline else self._lines) > self._terms.connections

    @property
    def is_roomy(self) -> bool:
        """Whether there is a second connection beside each."""
        return 2 * self._lines <= self._places.most

    @property
    def _lines(self) -> int:
        """How many connections the stores have, some of which share theirs."""
        return len({post.store.line for _, post in self._posts.values()})

    @property
    def claimed(self) -> int:
        """How many messages were claimed to be handled."""
        return self._claimed + sum(post.claimed for _, post in self._posts.values())

    def rows(self) -> list[PostRow]:
        """Tell how the posts are; from any thread."""
        return [post.row() for _, post in list(self._posts.values())]

    # -- its course

    async def run(self) -> None:
        """Work until told to stop, and nothing is left in hand; once: until all had a turn.

        Raises:
            AnabranchError: The only outbox does not work from the beginning on.
        """
        unwatch = self._router._watch(self._changed)  # noqa: SLF001 - the package's
        refresher: asyncio.Task[None] | None = None
        try:
            if self._terms.once and self._router._discovers:  # noqa: SLF001 - as above
                await self.aside(self._router._discover)  # noqa: SLF001 - as above
            elif self._router._discovers:  # noqa: SLF001 - as above
                refresher = self._loop.create_task(self._refresh())
                refresher.add_done_callback(self._ended_task)
            self._attend()
            await self._over
        finally:
            unwatch()
            if refresher is not None:
                refresher.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await refresher

    def stop(self) -> None:
        """Claim nothing more, and end when what was claimed has ended."""
        self._stopping = True
        for _, post in self._posts.values():
            post.stop()
        self._look_whether_over()

    def give_back(self) -> None:
        """Nobody handles any more: give back what is in hand."""
        for post in self._all():
            post.give_back()

    async def close(self) -> None:
        """Write what could not be written yet, and let go of all connections."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._timer is not None:
            self._timer.cancel()
        for post in self._all():
            await post.close()
        self._ears.close()
        await self._let_go(*self._all())
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _all(self) -> list[Post | InlinePost]:
        return [post for _, post in self._posts.values()] + list(self._leaving)

    @property
    def has_claimed(self) -> bool:
        """Whether nothing more is going to be claimed."""
        if self._stopping:
            return True
        return self._attended and self._terms.once and all(it.stopping for it in self._all())

    def on_claimed(self, told: Callable[[], object]) -> None:
        """Call `told` when nothing more is going to be claimed, perhaps."""
        self._when_claimed = told

    def _look_whether_over(self) -> None:
        if not (self._stopping or self._terms.once) or self._over.done():
            return
        if all(post.over for post in self._all()):
            self._over.set_result(None)

    def _ended_task(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or self._over.done():
            return
        error = task.exception()
        if error is not None:
            self._over.set_exception(error)
        else:
            self._look_whether_over()

    # -- which stores there are

    def _changed(self) -> None:
        """Other stores are there than before; from any thread."""
        self._loop.call_soon_threadsafe(self._attend)

    async def _refresh(self) -> None:
        """Ask for the stores that there are, now and then."""
        every = self._router.refresh_every
        soon = _SOON
        while True:
            try:
                await self.aside(self._router._discover)  # noqa: SLF001 - the package's
                wait, soon = every, _SOON
            except Exception as error:  # noqa: BLE001 - whatever the provider has raised
                _logger.warning(
                    "the stores of %r could not be found out, those known go on: %s: %s",
                    self._router,
                    type(error).__name__,
                    error,
                )
                wait, soon = min(every, soon), soon * 2
            await asyncio.sleep(wait)

    def _attend(self) -> None:
        """Work on the stores there are, and on no others."""
        if self._stopping:
            return
        present = self._router._present()  # noqa: SLF001 - the package's
        for key in [
            key
            for key, (place, _) in self._posts.items()
            if key not in present or present[key].outbox is not place.outbox
        ]:
            self._retire(key)
        now = self._loop.time()
        for key, place in present.items():
            if key not in self._posts:
                self._open(key, place)
            _, post = self._posts[key]
            self._schedule.add(post, now, tenant=place.tenant, weight=place.weight)
        self._attended = True
        self._pump()
        self._when_claimed()
        self._look_whether_over()

    def _open(self, key: object, place: Place) -> None:
        post = self._post(place) if self._terms.connect is None else self._inline(place)
        post.heard = self._hearing(post)
        self._posts[key] = (place, post)
        self._ends[post] = place.outbox._listen(post.heard)  # noqa: SLF001 - the package's
        say_selected(place.outbox, self._terms.selected, place.tenant, post.row)
        if not self._terms.once:
            # As long as there is room; those that have messages are listened to rather.
            self._ears.warm(post.store, float("-inf"), post.heard)

    def _post(self, place: Place) -> Post:
        terms = self._terms
        return Post(
            place.outbox._store,  # noqa: SLF001 - the package's
            place.tenant,
            self._lanes,
            self,
            batch=terms.batch,
            lease=terms.lease,
            once=terms.once,
            sounding=terms.sounding,
        )

    def _inline(self, place: Place) -> InlinePost:
        terms = self._terms
        connect: Any = terms.connect
        if place.tenant is not None:
            connect = functools.partial(connect, place.tenant)
        return InlinePost(
            store_with_driver(place),
            connect,
            place.tenant,
            self._lanes,
            self,
            batch=terms.batch,
            once=terms.once,
            sounding=terms.sounding,
        )

    def _retire(self, key: object) -> None:
        _, post = self._posts.pop(key)
        self._schedule.remove(post)
        self._ears.leave(post.store)
        self._leaving.add(post)
        self._claimed += post.claimed
        post.retire()

    async def _let_go(self, *ended: Post | InlinePost) -> None:
        """Posts have ended: nobody needs their connections, but those who share them."""
        for post in ended:
            self._leaving.discard(post)
            if (end := self._ends.pop(post, None)) is not None:
                end()
        needed = {store.line for it in self._all() if it not in ended for store in it.stores}
        for line in {store.line for it in ended for store in it.stores} - needed:
            await self._places.leave(line)

    # -- turns

    def _pump(self) -> None:
        """Give turns to those whose time has come, and come back when there are others."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._stopping:
            return
        try:
            for post in self._schedule.begin(self._loop.time()):
                post.grant()
        except Exception as error:  # noqa: BLE001 - of a selection: it ends the worker
            if not self._over.done():
                self._over.set_exception(error)
            return
        until = self._schedule.until()
        if until is not None:
            self._timer = self._loop.call_at(until, self._pump)

    def _hearing(self, post: Post | InlinePost) -> Callable[[], None]:
        def heard() -> None:
            # From any thread; told a thousand times, it looks once.
            if not post.told:
                post.told = True
                if threading.get_ident() == self._thread:
                    self._hear(post)
                else:
                    self._loop.call_soon_threadsafe(self._hear, post)

        return heard

    def _hear(self, post: Post | InlinePost) -> None:
        post.told = False
        post.hear()
        self._schedule.hear(post, self._loop.time())
        self._pump()

    # -- what posts ask for

    def awake(self, post: Post | InlinePost) -> None:
        """There may be something to do for a post: run it."""
        task = self._loop.create_task(self._run(post))
        self._tasks.add(task)
        task.add_done_callback(self._ended_task)

    async def _run(self, post: Post | InlinePost) -> None:
        await post.run()
        if post in self._leaving and post.over:
            await self._let_go(post)

    def hint(self, post: Post, at: float) -> None:
        """A turn at this time would be of use to a post, at the latest."""
        self._schedule.hint(post, at)
        self._pump()

    def ended(self, post: Post | InlinePost, turn: Turn) -> None:
        """A post's turn is over."""
        now = self._loop.time()
        if turn.found in ("full", "some") and not self._terms.once and not post.retired:
            self._ears.warm(post.store, now, post.heard)
        if post.stopping:
            self._schedule.remove(post)
            self._when_claimed()
        else:
            self._schedule.end(post, now, turn)
        self._pump()

    def failed(self, post: Post | InlinePost) -> float:
        """A post's store does not work; return for how many seconds it is left alone."""
        rest = self._schedule.fail(post, self._loop.time())
        self._loop.call_soon(self._when_claimed)
        self._pump()
        return rest

    def writing(self, store: Store) -> asyncio.Lock:
        """Let those write one after another, in transactions they wait in, who share a file."""
        # Elsewhere a server keeps them apart.
        return self._writing.setdefault(store.line if store.is_quick else store, asyncio.Lock())

    async def call(self, store: Store, call: Callable[[], T]) -> T:
        """Ask a store, over one of the connections that there may be."""
        if not store.costs:
            return call()
        async with self._places.of(store.line):
            return call() if store.is_quick else await self.aside(call)

    async def aside(self, call: Callable[[], T]) -> T:
        """Call what may wait in a thread of its own."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(
                self._terms.connections, thread_name_prefix="anabranch-outbox"
            )
        return await self._loop.run_in_executor(self._threads, call)
