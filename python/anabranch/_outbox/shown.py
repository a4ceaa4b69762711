"""The outboxes of this process, as they are shown to whoever looks at it.

The monitor needs no interpreter and waits for no database, so it cannot read a store. A thread of
their own does: it sleeps until somebody looks, reads then each store about once a second, over a
connection of its own where there may be several, and carries out what operators ask for.
"""

from __future__ import annotations

import os
import select
import threading
import time
import weakref
from typing import TYPE_CHECKING, Final

from anabranch._outbox.read import Reading, carry_out
from anabranch._outbox.requeue import Requeue, is_long

if TYPE_CHECKING:
    from collections.abc import Callable

    from anabranch import _core
    from anabranch._outbox.metrics import PostRow
    from anabranch._outbox.store import Store

# Seconds between two reads; more, if a read takes more than this share of it.
_EVERY: Final = 1.0
_SHARE: Final = 20
# Seconds that the end of the process waits for a read that is under way.
_PATIENCE: Final = 1.0


def _nobody() -> PostRow | None:
    return None


class Shown:
    """An outbox with the name it is shown by, which nobody else has."""

    def __init__(self, name: str, store: Store, *, payloads: bool) -> None:
        self.name = name
        self.payloads = payloads
        # How the worker that works on it selects its stores; "" if none of this process does.
        self.selection = ""
        # Whose it is, as that worker was told.
        self.tenant = ""
        # Tells how that worker gets on with it, while there is one.
        self.post: Callable[[], PostRow | None] = _nobody
        self._store = store
        self._beside: Store | None = None

    @property
    def resting(self) -> bool:
        """Whether its worker in this process leaves it alone for a while: it does not work."""
        row = self.post()
        return row is not None and row.resting

    @property
    def store(self) -> Store:
        """The store, over a connection that the program does not wait for."""
        beside = self._beside
        if beside is None:
            beside = self._beside = self._store.beside("to be looked at")
        return beside

    def rest(self) -> None:
        """Close the connection, if it is one of its own, until it is needed again."""
        beside = self._beside
        if beside is not None and beside is not self._store:
            beside.rest()

    def close(self) -> None:
        """Close the connection, if it is one of its own."""
        beside, self._beside = self._beside, None
        if beside is not None and beside is not self._store:
            beside.close()

    def leave(self) -> object:
        """In a fork: give the parent's connection away, which nobody may use or close here."""
        beside, self._beside = self._beside, None
        return beside


# By the outbox's id(). Without a lock, which a fork could leave taken for ever: each change is a
# single operation.
_shown: dict[int, Shown] = {}
# Of outboxes that nobody has any more: closed by a reader, for a destructor must not wait.
_gone: list[Shown] = []
_readers: list[Reader] = []
# Connections of the process that this one is a fork of.
_left: list[object] = []
_may_be_steered = True


def show(outbox: object, store: Store, *, payloads: bool) -> None:
    """Show an outbox from now on, for as long as it lives and is open."""
    taken = {shown.name for shown in tuple(_shown.values())}
    _shown[id(outbox)] = Shown(_name(store.label, taken), store, payloads=payloads)
    weakref.finalize(outbox, _forget, id(outbox)).atexit = False
    for reader in tuple(_readers):
        reader.begin()


def name_shown(outbox: object, name: str) -> None:
    """Show an outbox by the name of whose it is."""
    if (shown := _shown.get(id(outbox))) is not None:
        taken = {it.name for it in tuple(_shown.values()) if it is not shown}
        shown.name = _free(name, name, taken)
        for reader in tuple(_readers):
            reader.begin()


def say_selected(
    outbox: object, selection: str, tenant: object, row: Callable[[], PostRow]
) -> None:
    """Say how the stores of a worker are selected, of which this is one, and whose it is.

    Args:
        outbox: The outbox.
        selection: How they are selected.
        tenant: Whose it is.
        row: A method that tells how the worker gets on with it; it is not kept alive by this.
    """
    if (shown := _shown.get(id(outbox))) is not None:
        shown.selection = selection
        shown.tenant = "" if tenant is None else str(tenant)
        method = weakref.WeakMethod(row)

        def told() -> PostRow | None:
            tell = method()
            return None if tell is None else tell()

        shown.post = told


def hide(outbox: object) -> None:
    """Show an outbox no more."""
    if (shown := _shown.pop(id(outbox), None)) is not None:
        shown.close()
        for reader in tuple(_readers):
            reader.begin()


def _forget(outbox: int) -> None:
    if (shown := _shown.pop(outbox, None)) is not None:
        _gone.append(shown)


def attend(monitor: _core.Monitor) -> None:
    """Tell a monitor of the outboxes there are, and will be."""
    outboxes = monitor.outboxes()
    if outboxes is not None:
        _readers.append(reader := Reader(outboxes))
        if not _may_be_steered:
            outboxes.only_look()
        if _shown:
            reader.begin()


def only_look() -> None:
    """Let operators of this process do no more than look at its outboxes."""
    global _may_be_steered  # noqa: PLW0603 - of the process
    _may_be_steered = False
    for reader in tuple(_readers):
        reader.outboxes.only_look()


def join() -> None:
    """Wait, for a moment, until the readers have ended; their monitors are closed."""
    until = time.monotonic() + _PATIENCE
    for reader in tuple(_readers):
        reader.join(until - time.monotonic())
    _readers.clear()


def _name(label: str, taken: set[str]) -> str:
    """Return what a store is called: by the last part of its label, if that is enough."""
    return _free(label.rpartition("/")[2] or label, label, taken)


def _free(short: str, label: str, taken: set[str]) -> str:
    names = (short, label, *(f"{short}#{number}" for number in range(2, len(taken) + 3)))
    return next(name for name in names if name not in taken)


class Reader:
    """The thread that reads the stores for one monitor."""

    def __init__(self, outboxes: _core.Outboxes) -> None:
        self.outboxes = outboxes
        self._thread: threading.Thread | None = None
        self._reading = Reading(outboxes)
        # Orders that take long, of which a part is carried out now and then.
        self._requeues: list[Requeue] = []

    def begin(self) -> None:
        """There is an outbox to be shown: its name at once, the rest when somebody looks."""
        self._reading.name(tuple(_shown.values()))
        if self._thread is None:
            # A daemon: the interpreter does not wait for a database. It holds nothing of ours.
            self._thread = threading.Thread(target=self._run, name="anabranch-outbox", daemon=True)
            self._thread.start()

    def join(self, most: float) -> None:
        if self._thread is not None:
            self._thread.join(max(0.0, most))

    def _milliseconds(self, due: float) -> float | None:
        """Tell for how long there is nothing to do; None: until somebody asks for something."""
        times = [it.due for it in self._requeues]
        if self.outboxes.wanted:
            times.append(due)
        return max(0.0, min(times) - time.monotonic()) * 1000 if times else None

    def _go_on(self) -> None:
        """Carry out the next part of what takes long."""
        present = tuple(_shown.values())
        for requeue in tuple(self._requeues):
            closed = requeue.shown not in present
            if closed:
                requeue.leave("not_found", f"outbox {requeue.shown.name!r} was closed")
            if closed or requeue.go_on(time.monotonic()):
                self._requeues.remove(requeue)

    def _run(self) -> None:
        outboxes = self.outboxes
        ready = select.poll()
        ready.register(outboxes.fileno(), select.POLLIN)
        due = soonest = 0.0
        while not outboxes.closed:
            now = time.monotonic()
            if outboxes.wanted and now >= due:
                self._reading.read(tuple(_shown.values()))
                took = time.monotonic() - now
                soonest = now + took * _SHARE
                due = max(now + _EVERY, soonest)
            if ready.poll(self._milliseconds(due)):
                # Somebody looks who has not looked before, or asks for something: what is there now
                # is told soon.
                self._reading.forget()
                due = soonest
            outboxes.clear()
            while _gone:
                _gone.pop().close()
            for request in outboxes.requests():
                by_name = {shown.name: shown for shown in _shown.values()}
                shown = by_name.get(request[2])
                if shown is not None and is_long(request):
                    self._requeues.append(Requeue(outboxes, request, shown, time.monotonic()))
                else:
                    carry_out(outboxes, request, shown)
                # What has changed is seen at once.
                due = 0.0
            self._go_on()
        for requeue in self._requeues:
            requeue.leave("ended", "the process ends")
        for shown in tuple(_shown.values()):
            shown.close()


def _in_child() -> None:
    # The thread is the parent's. A pipeline of the child opens a monitor of its own.
    _readers.clear()
    _left.extend(shown.leave() for shown in (*_shown.values(), *_gone))
    _gone.clear()


os.register_at_fork(after_in_child=_in_child)
