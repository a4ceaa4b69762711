"""One object per thread: for connections and clients that may not be shared between threads."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from anabranch.errors import ClosedError, refused

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

T = TypeVar("T")


class PerThread(Generic[T]):
    """Calls give each thread an object of its own; `close` closes them all.

    Made by `per_thread`.
    """

    def __init__(self, factory: Callable[[], T]) -> None:
        self._factory = factory
        # The objects of all threads, in the order they were made. Owned here, not by the threads:
        # a thread that ends has no moment to close what it used.
        self._made: list[T] = []
        self._local = threading.local()
        self._lock = threading.Lock()
        self._closed = False

    def __call__(self) -> T:
        """Return the calling thread's object, made at its first call.

        Raises:
            ClosedError: After `close`.
            Exception: What the factory raises; the next call tries again.
        """
        if not self._closed:
            try:
                own: T = self._local.own
            except AttributeError:
                return self._make()
            return own
        raise self._refusal()

    def _make(self) -> T:
        own = self._factory()
        with self._lock:
            closed = self._closed
            if not closed:
                self._made.append(own)
        if closed:  # while the factory ran
            _close(own)
            raise self._refusal()
        self._local.own = own
        return own

    def _refusal(self) -> ClosedError:
        return ClosedError(f"{self!r} is closed; make another one with per_thread(...)")

    def close(self) -> None:
        """Close all objects made so far, the latest first, from the calling thread.

        Objects without a `close` method are let go. A second call does nothing.

        Raises:
            Exception: What an object's `close` raised, after all have been tried; an
                ExceptionGroup if several did.
        """
        with self._lock:
            self._closed = True
            made, self._made = self._made, []
        self._local = threading.local()
        errors: list[Exception] = []
        while made:
            try:
                _close(made.pop())
            except Exception as error:  # noqa: BLE001 - raised below, when all are closed
                errors.append(error)
        if len(errors) == 1:
            raise errors[0]
        if errors:
            raise ExceptionGroup(f"{self!r} could not close {len(errors)} objects", errors)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"per_thread({getattr(self._factory, '__name__', self._factory)})"


def per_thread(factory: Callable[[], T]) -> PerThread[T]:
    """Give each thread an object of its own, made when the thread first asks for it.

    `def` sinks and undo actions run on the threads of the pipeline's pool. What may not be used
    by two threads at once, such as a database connection, is made once per thread this way.

    `close` (or leaving the `with` block) closes them all, also those of threads that have ended.
    It does so from the thread that calls it. Call it when the pipeline is done. `sqlite3`
    connections allow this only if made with `check_same_thread=False`.

    Args:
        factory: Makes one object; called without arguments, in the thread that asks.

    Returns:
        A callable without arguments: each thread gets its own object.

    Raises:
        ConfigError: `factory` cannot be called.

    Example:
        >>> import sqlite3
        >>> import anabranch as ab
        >>> def connect() -> sqlite3.Connection:
        ...     return sqlite3.connect(":memory:", check_same_thread=False)
        >>> with ab.per_thread(connect) as connection:
        ...     connection().execute("select 1 + 1").fetchone()
        (2,)
    """
    if not callable(factory):
        raise refused("factory", factory, "a callable without arguments", subject="per_thread")
    return PerThread(factory)


def _close(made: Any) -> None:  # noqa: ANN401 - whatever a factory makes
    close = getattr(made, "close", None)
    if callable(close):
        close()
