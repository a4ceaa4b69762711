"""Cancelling by hand: a token that calls of the toolkit look at."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from anabranch.errors import Cancelled, check_name, refused

if TYPE_CHECKING:
    from collections.abc import Callable


class Cancel:
    """Cancels what it was given to: pass it to `ab.Context(cancel=...)`.

    A call that is cut short by it ends with `ab.Cancelled`, after what it did is undone. (When the
    caller's own task is cancelled, it stays `asyncio.CancelledError`.) Any thread may cancel.

    Args:
        parent: Whose cancellation cancels this one, too; not the other way round.

    Raises:
        ConfigError: `parent` is no Cancel.

    Example:
        >>> import anabranch as ab
        >>> shop = ab.Cancel()
        >>> order = ab.Cancel(shop)
        >>> shop.cancel("closing time")
        >>> order.cancelled, order.reason
        (True, 'closing time')
    """

    __slots__ = ("_parent", "_reason", "_wakers")

    def __init__(self, parent: Cancel | None = None) -> None:
        if parent is not None and not isinstance(cast("object", parent), Cancel):
            raise refused("parent", parent, "a Cancel or None", subject="Cancel")
        self._parent = parent
        self._reason: str | None = None
        # By a key of their own: what waits goes away again, from any thread.
        self._wakers: dict[object, Callable[[], object]] = {}

    @property
    def cancelled(self) -> bool:
        """Whether it, or one it descends from, was cancelled."""
        return self.reason is not None

    @property
    def reason(self) -> str | None:
        """Why, as told to `cancel`; None while nothing is cancelled."""
        token: Cancel | None = self
        while token is not None:
            if token._reason is not None:
                return token._reason
            token = token._parent
        return None

    def cancel(self, reason: str = "it was cancelled") -> None:
        """Cancel; a second time changes nothing.

        Args:
            reason: Why, for the error.

        Raises:
            ConfigError: `reason` is no str, or empty.
        """
        check_name(reason, "Cancel", argument="reason")
        if self._reason is None:
            self._reason = reason
            for wake in tuple(self._wakers.values()):
                wake()

    def __repr__(self) -> str:
        reason = self.reason
        return "<Cancel>" if reason is None else f"<Cancel: cancelled, {reason!r}>"

    # For the package.

    def _check(self, name: str) -> None:
        """Raise if it is cancelled; `name` is what is cut short."""
        reason = self.reason
        if reason is not None:
            raise Cancelled(f"{name!r} was cancelled: {reason}", reason=reason)

    def _attach(self, key: object, wake: Callable[[], object]) -> None:
        """Have `wake` called at the cancellation, in whatever thread, perhaps twice."""
        token: Cancel | None = self
        while token is not None:
            token._wakers[key] = wake
            token = token._parent
        # Last: who cancels meanwhile does one or the other.
        if self.cancelled:
            wake()

    def _detach(self, key: object) -> None:
        token: Cancel | None = self
        while token is not None:
            token._wakers.pop(key, None)
            token = token._parent
