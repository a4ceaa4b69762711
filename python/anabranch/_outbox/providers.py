"""What tells a router which tenants there are, and where the outbox of each is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast
from uuid import UUID

from anabranch._callables import is_async
from anabranch.errors import refused
from anabranch.outbox import Outbox

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreAt:
    """Where a tenant's outbox is, for an `OutboxRouter`.

    Args:
        url: As for `Outbox`.
        weight: How many turns it gets for one of a store of weight 1; see `Selection`.
        enabled: Whether workers work on it. What is enqueued in one that is not waits.
        options: Further arguments of `Outbox`, as `{"prefix": "acme_"}`.

    Example:
        >>> import anabranch as ab
        >>> ab.StoreAt(url="sqlite:////var/lib/shop/acme.db", weight=3.0).enabled
        True
    """

    url: str
    weight: float = 1.0
    enabled: bool = True
    options: Mapping[str, Any] | None = None


class StoreProvider(Protocol):
    """Tells which tenants there are, and where the outbox of each is.

    Both methods are called in threads, and may wait for a database. What they raise is raised to
    whoever has asked for an outbox; a worker goes on with the tenants it knows, and asks again
    soon.

    Example:
        >>> import anabranch as ab
        >>> class Customers:
        ...     def tenants(self):
        ...         return ["acme", "globex"]
        ...     def outbox(self, tenant):
        ...         return f"sqlite:////var/lib/shop/{tenant}.db"
        >>> ab.OutboxRouter(Customers()).outbox("acme")
        Outbox('sqlite:////var/lib/shop/acme.db')
    """

    def tenants(self) -> Iterable[Hashable]:
        """Return all tenants there are now."""
        ...

    def outbox(self, tenant: Any, /) -> Outbox | StoreAt | str | None:  # noqa: ANN401 - any key
        """Return a tenant's outbox, or where it is; None: there is no such tenant."""
        ...


class Place(NamedTuple):
    """A tenant's outbox, as the router has it."""

    tenant: Any
    outbox: Outbox
    weight: float
    enabled: bool
    # Where it is, if the router has opened it.
    at: StoreAt | None


class ByMapping:
    """The tenants of a mapping; what is added to it later is there after the next look."""

    def __init__(self, outboxes: Mapping[Any, Outbox | StoreAt | str]) -> None:
        self._outboxes = outboxes

    def tenants(self) -> list[Any]:
        return list(self._outboxes)

    def outbox(self, tenant: Any, /) -> Outbox | StoreAt | str | None:  # noqa: ANN401 - any key
        found = self._outboxes.get(tenant)
        if found is None and isinstance(tenant, (UUID, str)):
            # A UUID, and what it is written as, are one tenant.
            known = {key_of(it): it for it in self._outboxes}
            found = self._outboxes.get(known.get(key_of(tenant)))
        return found


class ByCallables:
    """The tenants that two callables tell of."""

    def __init__(
        self,
        outbox: Callable[[Any], Outbox | StoreAt | str | None],
        tenants: Callable[[], Iterable[Hashable]] | None,
    ) -> None:
        self.outbox = outbox
        self._tenants = tenants

    def tenants(self) -> Iterable[Hashable]:
        return () if self._tenants is None else self._tenants()


def key_of(tenant: object) -> object:
    """Return what a tenant is known by: a UUID and what it is written as are the same."""
    try:
        hash(tenant)
    except TypeError:
        raise refused("tenant", tenant, "hashable", subject="OutboxRouter") from None
    return str(tenant) if isinstance(tenant, UUID) else tenant


def same(one: StoreAt, other: StoreAt) -> bool:
    return one.url == other.url and (one.options or {}) == (other.options or {})


def at_of(given: object, tenant: object) -> Outbox | StoreAt:
    if isinstance(given, Outbox):
        return given
    at = StoreAt(url=given) if isinstance(given, str) else given
    if not isinstance(at, StoreAt):
        allowed = "an Outbox, a URL or a StoreAt"
        # What it is is not shown: it may hold a password.
        shown = f"a {type(given).__name__} for tenant {tenant!r}"
        raise refused("stores", None, allowed, subject="OutboxRouter", shown=shown)
    weight: object = cast("object", at.weight)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < 1e9:  # noqa: PLR2004 - a sane bound
        raise refused("weight", weight, "a number above 0", subject="StoreAt")
    return at


def provider_of(stores: object, tenants: object) -> StoreProvider:
    allowed = "a mapping of tenants to Outboxes or URLs, a def that takes a tenant, or a provider"
    if isinstance(stores, Mapping):
        given = cast("Mapping[Any, object]", stores)
        for tenant, one in given.items():
            if one is not None:
                at_of(one, tenant)
        provider: StoreProvider = ByMapping(cast("Mapping[Any, Outbox]", given))
    elif callable(getattr(stores, "tenants", None)) and callable(getattr(stores, "outbox", None)):
        provider = cast("StoreProvider", stores)
    elif callable(stores) and not is_async(stores):
        if tenants is not None and (not callable(tenants) or is_async(tenants)):
            refusal = "None, or a def that returns all tenants"
            raise refused("tenants", tenants, refusal, subject="OutboxRouter")
        return ByCallables(cast("Callable[[Any], Outbox]", stores), cast("Any", tenants))
    else:
        shown = f"a {type(stores).__name__}"
        raise refused("stores", None, allowed, subject="OutboxRouter", shown=shown)
    if tenants is not None:
        raise refused("tenants", tenants, "given with a def only", subject="OutboxRouter")
    return provider
