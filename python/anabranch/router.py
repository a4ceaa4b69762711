"""`OutboxRouter`: which outbox is whose, where each tenant has one, and which there are."""

from __future__ import annotations

import difflib
import logging
import threading
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias

from anabranch._outbox.draft import milliseconds
from anabranch._outbox.providers import (
    ByCallables,
    Place,
    StoreAt,
    StoreProvider,
    at_of,
    key_of,
    provider_of,
    same,
)
from anabranch._outbox.registry import Registry
from anabranch._outbox.shown import name_shown
from anabranch.errors import ClosedError, ConfigError, UnknownTenant
from anabranch.outbox import Outbox

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping
    from datetime import timedelta
    from types import TracebackType

    Seconds: TypeAlias = float | timedelta

__all__ = ["OutboxRouter", "StoreAt", "StoreProvider"]

_logger = logging.getLogger("anabranch")

# How many of the known tenants an error names.
_NEAREST: Final = 3


class OutboxRouter:
    """The outboxes of many tenants: each a database, a schema, or its rows of a table.

    A worker that is given a router works on all of them, and on those that come while it runs; it
    asks again which there are every `refresh` seconds, and at once when `refresh()` is called. A
    tenant that is gone is worked on no more: what was begun ends, the rest stays where it is.

    Those in one database share a connection. For tenants of one table see `Outbox.tenant`.

    There is no transaction over several outboxes: what is enqueued in one is there, whatever
    becomes of the others.

    Args:
        stores: A mapping of tenants to outboxes, or to where these are (a URL, or a `StoreAt`); it
            may be changed while the router is used. Or a `def` that takes a tenant and returns one
            of these, or None if there is no such tenant. Or a `StoreProvider`.
        tenants: With a `def`: one that returns all tenants there are now. Without it a worker works
            on those whose outbox somebody has asked for.
        refresh: Seconds after which a worker asks again which tenants there are.
        options: Further arguments of the outboxes that the router opens, as for `Outbox`.

    Raises:
        ConfigError: An argument is not allowed.

    Example:
        >>> import anabranch as ab
        >>> folder = getfixture("tmp_path")
        >>> router = ab.OutboxRouter(
        ...     lambda tenant: f"sqlite:///{folder}/{tenant}.db", tenants=lambda: ["acme", "globex"]
        ... )
        >>> for tenant in ("acme", "globex"):
        ...     _ = router.outbox(tenant).migrate()
        ...     _ = router.outbox(tenant).enqueue("order.created", {"id": 7})
        >>> worker = ab.OutboxWorker(router)
        >>> @worker.on("order.*")
        ... def bill(message: ab.Message) -> None:
        ...     print(message.tenant, message.payload)
        >>> worker.run_once_blocking()
        acme {'id': 7}
        globex {'id': 7}
        2
        >>> router.close()
    """

    def __init__(
        self,
        stores: Mapping[Any, Outbox | StoreAt | str]
        | Callable[[Any], Outbox | StoreAt | str | None]
        | StoreProvider,
        *,
        tenants: Callable[[], Iterable[Hashable]] | None = None,
        refresh: Seconds = 30.0,
        **options: Any,  # noqa: ANN401 - of several types, which Outbox checks
    ) -> None:
        self._provider = provider_of(stores, tenants)
        # Without this it cannot be told which tenants there are.
        self._discovers = not isinstance(self._provider, ByCallables) or tenants is not None
        self.refresh_every: float = (
            milliseconds("refresh", refresh, subject="OutboxRouter", positive=True) / 1000
        )
        self._options = options
        if options:
            Outbox("sqlite:///checked", **options).close()
        self._lock = threading.Lock()
        # One looks at a time: what was found out last is what is known.
        self._looking = threading.Lock()
        self._places: dict[Any, Place] = {}
        # Those there were at the latest look, and those that were asked for since then.
        self._known: dict[Any, Any] = {}
        self._watchers: list[Callable[[], object]] = []
        # Those in one database share its connection.
        self._lines: dict[str, Any] = {}
        self._closed = False

    @classmethod
    def table(
        cls,
        url: str,
        *,
        table: str = "outbox_tenant",
        refresh: Seconds = 30.0,
        **options: Any,  # noqa: ANN401 - of several types, which Outbox checks
    ) -> Self:
        """Make a router of the tenants that a table tells of.

        It has five columns: `tenant`, a text; `url`, a text, as for `Outbox`; `schema`, the schema
        of PostgreSQL that the tenant's tables are in, or null; `enabled`, whether workers work on
        it; and `weight`, a number, see `Selection`. The application writes it; the router reads it:

            create table outbox_tenant (
              tenant text primary key, url text not null, schema text,
              enabled boolean not null default true, weight real not null default 1
            )

        Args:
            url: The database of the table, as for `Outbox`.
            table: Its name.
            refresh: As for any router, and so are the options.
            options: Further arguments of the outboxes.

        Raises:
            ConfigError: An argument is not allowed.
        """
        return cls(Registry(url, table), refresh=refresh, **options)

    def __repr__(self) -> str:
        return f"OutboxRouter({len(self._known)} tenants)"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the outboxes that the router has opened; those it was given are left alone."""
        with self._lock:
            self._closed = True
            places, self._places, self._known = self._places, {}, {}
        for place in places.values():
            if place.at is not None:
                place.outbox.close()

    @property
    def tenants(self) -> list[Any]:
        """The tenants that are known."""
        with self._lock:
            return list(self._known.values())

    def outbox(self, tenant: Any, /) -> Outbox:  # noqa: ANN401 - a key can be anything hashable
        """Return a tenant's outbox: the same one each time.

        A UUID and what it is written as are the same tenant. One that no worker has heard of yet is
        asked for, and worked on from then on.

        Raises:
            UnknownTenant: There is no such tenant.
            ClosedError: The router is closed.

        Example:
            >>> import anabranch as ab
            >>> acme = ab.Outbox.memory()
            >>> router = ab.OutboxRouter({"acme": acme})
            >>> router.outbox("acme") is acme
            True
            >>> router.outbox("acmee")
            Traceback (most recent call last):
            anabranch.errors.UnknownTenant: there is no outbox for tenant 'acmee'; known ones ...
        """
        key = key_of(tenant)
        with self._lock:
            place = self._places.get(key)
            if place is not None:
                return place.outbox
            if self._closed:
                raise ClosedError("the router is closed: make another")
        place = self._resolve(key, tenant)
        if place is None:
            raise self._unknown(tenant)
        with self._lock:
            new = key not in self._known
            self._known.setdefault(key, place.tenant)
        if new:
            self._tell()
        return place.outbox

    def refresh(self) -> list[Any]:
        """Ask which tenants there are: workers begin and end with them at once.

        Returns:
            The tenants there are.

        Raises:
            ClosedError: The router is closed.
            BaseException: What the provider has raised; the tenants that are known stay.
        """
        return self._discover()

    # -- for workers

    @classmethod
    def _of(cls, outboxes: Mapping[Any, Outbox]) -> Self:
        """Make one of outboxes that stay what they are."""
        router = cls(dict(outboxes))
        router._look()
        router._discovers = False
        return router

    def _watch(self, changed: Callable[[], object]) -> Callable[[], object]:
        """Call `changed`, in whatever thread, when there are other tenants; return what ends it."""
        self._watchers.append(changed)
        return lambda: self._watchers.remove(changed)

    def _tell(self) -> None:
        for changed in tuple(self._watchers):
            changed()

    def _present(self) -> dict[Any, Place]:
        """Return those to be worked on now; nothing is asked for."""
        with self._lock:
            places = ((key, self._places.get(key)) for key in self._known)
            return {key: place for key, place in places if place is not None and place.enabled}

    def _discover(self) -> list[Any]:
        if self._closed:
            raise ClosedError("the router is closed: make another")
        if not self._discovers:
            return self.tenants
        with self._looking:
            return self._look()

    def _look(self) -> list[Any]:
        tenants = {key_of(tenant): tenant for tenant in self._provider.tenants()}
        found: dict[Any, Place] = {}
        for key, tenant in tenants.items():
            try:
                place = self._resolve(key, tenant)
            except ConfigError as error:
                # One whose place is wrong keeps nobody else from work.
                _logger.warning("tenant %r has no outbox: %s", tenant, error)
                continue
            if place is not None:
                found[key] = place
        with self._lock:
            gone = [it for key, it in self._places.items() if key not in found]
            self._places = found if not self._closed else {}
            self._known = {key: place.tenant for key, place in self._places.items()}
        for place in gone:
            self._retire(place)
        self._tell()
        return [place.tenant for place in found.values()]

    def _resolve(self, key: object, tenant: object) -> Place | None:
        """Find out where a tenant's outbox is; the one there is stays, unless it has moved."""
        given: object = self._provider.outbox(tenant)
        if given is None:
            return None
        at = at_of(given, tenant)
        with self._lock:
            before = self._places.get(key)
            if isinstance(at, Outbox):
                if before is not None and before.outbox is at:
                    return before
                place = Place(tenant, at, 1.0, enabled=True, at=None)
            elif before is not None and before.at is not None and same(before.at, at):
                place = before._replace(weight=at.weight, enabled=at.enabled, at=at)
            else:
                outbox = Outbox(at.url, **{**self._options, **(at.options or {})})
                outbox._share(self._lines)  # noqa: SLF001 - the package's
                place = Place(tenant, outbox, at.weight, at.enabled, at)
            self._places[key] = place
        if key is not None and (before is None or before.outbox is not place.outbox):
            name_shown(place.outbox, str(key))
        if before is not None and before.outbox is not place.outbox:
            self._retire(before)
        return place

    def _retire(self, place: Place) -> None:
        """A tenant is gone, or has moved; whoever works on it still writes what is in hand."""
        if place.at is not None:
            place.outbox._retire()  # noqa: SLF001 - the package's

    def _unknown(self, tenant: object) -> UnknownTenant:
        known = [str(key) for key in tuple(self._known)]
        if self._discovers:
            # Those that nobody has asked for yet may be the nearest.
            known = [str(key_of(it)) for it in self._provider.tenants()]
        near = difflib.get_close_matches(str(key_of(tenant)), known, _NEAREST, 0.3)
        shown = ", ".join(map(repr, near or sorted(known)[:_NEAREST]))
        hint = f"known ones {'like it' if near else 'are'}: {shown}" if known else "none is known"
        return UnknownTenant(f"there is no outbox for tenant {tenant!r}; {hint}", tenant=tenant)
