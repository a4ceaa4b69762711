"""Which store an outbox is given, by its URL and its options."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeGuard

from anabranch._outbox.draft import milliseconds
from anabranch._outbox.sqlite import SqliteStore
from anabranch._outbox.store import Keep, Settings, check_prefix, check_schema
from anabranch.errors import refused

if TYPE_CHECKING:
    from anabranch._outbox.postgres import PostgresStore


def settings_of(
    prefix: object,
    ordering: object,
    archive: object,
    dedupe_for: object,
    max_payload: object,
    *,
    schema: object = None,
    keep_done: object = None,
    keep_dead: object = None,
) -> Settings:
    """Check what an outbox is made with."""
    if ordering not in ("block", "skip"):
        raise refused("ordering", ordering, "'block' or 'skip'", subject="Outbox")
    if not isinstance(archive, bool):
        raise refused("archive", archive, "a bool", subject="Outbox")
    if type(max_payload) is not int or max_payload < 1:
        raise refused("max_payload", max_payload, "an int from 1, in bytes", subject="Outbox")
    keep = milliseconds("dedupe_for", dedupe_for, subject="Outbox", positive=True)
    return Settings(
        check_prefix(prefix),
        ordering == "skip",
        archive,
        keep,
        check_schema(schema),
        Keep(_kept("keep_done", keep_done), _kept("keep_dead", keep_dead)),
    )


def _kept(argument: str, value: object) -> int | None:
    return None if value is None else milliseconds(argument, value, subject="Outbox")


def store_of(url: object, settings: Settings) -> SqliteStore | PostgresStore:
    """Return the store that a URL means; it is not opened yet."""
    if is_postgres(url):
        from anabranch._outbox.postgres import PostgresStore

        return PostgresStore(url, settings)
    if settings.schema is not None:
        allowed = "None: only PostgreSQL has schemas, SQLite has prefixes"
        raise refused("schema", settings.schema, allowed, subject="Outbox")
    return SqliteStore(sqlite_path(url), settings)


def is_postgres(url: object) -> TypeGuard[str]:
    """Whether a URL is that of a PostgreSQL database."""
    return isinstance(url, str) and url.startswith(("postgresql://", "postgres://"))


def sqlite_path(url: object, *, subject: str = "Outbox") -> str:
    """Return the file that a URL means, or refuse it."""
    # What is refused is not shown: a URL may hold a password.
    allowed = "postgresql://…, sqlite:///relative.db or sqlite:////absolute/path.db"
    shown = f"a {type(url).__name__}"
    if isinstance(url, str):
        scheme, colon, rest = url.partition("://")
        shown = f"a URL that begins with {scheme!r}" if colon else "a str that is no URL"
        if scheme == "sqlite" and rest.startswith("/"):
            path = rest[1:]
            if path and path != ":memory:" and not set(path) & set("?#\0"):
                return path
            shown = f"sqlite:///{path}"
            allowed += ", without ? and #; in memory there is Outbox.memory()"
    raise refused("url", None, allowed, subject=subject, shown=shown)
