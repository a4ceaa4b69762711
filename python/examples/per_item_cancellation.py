"""Cancel one upload of many, a tenant's, or all: a token for each, and every effect undone.

A service uploads files of several tenants, a few at a time. A user takes one upload back; a tenant
closes its account; the rest goes on. What was uploaded of the cancelled ones is removed again.

- Each tenant has an `ab.Cancel`, a child of the service's: cancelling goes down, never up.
- A child of an `ab.WaitGroup` can be cancelled alone; the group does not count it as a failure.
- A cancelled call has undone what it did before anybody hears of it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import anabranch as ab


@dataclass
class Bucket:
    """A store of parts of files."""

    parts: dict[str, int] = field(default_factory=dict[str, int])

    async def put(self, name: str, part: int) -> None:
        """Store a part; it takes a second."""
        await asyncio.sleep(1.0)
        self.parts[name] = part + 1

    def remove(self, name: str) -> None:
        """Remove a file, whatever is there of it."""
        self.parts.pop(name, None)


async def upload(bucket: Bucket, name: str, parts: int, ctx: ab.Context) -> str:
    """Upload a file part by part."""
    ctx.compensate(bucket.remove, name)  # before the effect: then no cancellation comes too early
    for part in range(parts):
        await bucket.put(name, part)
    return name


async def uploads_of(
    tenant: str, files: dict[str, int], bucket: Bucket, cancel: ab.Cancel, undo: str | None
) -> dict[str, str]:
    """Upload a tenant's files, two at a time; `undo` is taken back after 1.5 seconds."""
    ctx = ab.Context(tenant, cancel=cancel, tenant=tenant)
    children: dict[str, ab.Child[str]] = {}
    try:
        async with ab.WaitGroup("uploads", max_concurrency=2, ctx=ctx) as group:
            for name, parts in files.items():
                children[name] = group.go(upload, bucket, f"{tenant}/{name}", parts, name=name)
            if undo is not None:
                await ab.delay(1.5, ctx=ctx)
                children[undo].cancel("the user took it back")
    except ab.Cancelled as error:
        print(f"{tenant}: {error.reason}")
    return {name: told(child) for name, child in children.items()}


def told(child: ab.Child[str]) -> str:
    """Return what became of an upload."""
    match child.result:
        case ab.Ok(path):
            return f"stored as {path}"
        case ab.Err(failure):
            return failure.message
        case _:
            return "not ended"


async def main() -> None:
    """Run three tenants: one takes a file back, one closes its account, one just works."""
    service = ab.Cancel()
    tokens = {tenant: ab.Cancel(service) for tenant in ("acme", "globex", "initech")}
    bucket = Bucket()
    files = {"a.bin": 2, "b.bin": 4, "c.bin": 1}
    async with ab.ErrGroup("service") as group:
        runs = {
            tenant: group.go(
                uploads_of, tenant, files, bucket, token, "b.bin" if tenant == "acme" else None
            )
            for tenant, token in tokens.items()
        }
        group.go(ab.after, 2.5, lambda: tokens["globex"].cancel("the account is closed"))
    for tenant, run in runs.items():
        assert run.result is not None
        for name, what in run.result.unwrap().items():
            print(f"{tenant}: {name}: {what}")
    print("in the bucket:", sorted(bucket.parts))
    assert sorted(bucket.parts) == [
        "acme/a.bin",
        "acme/c.bin",
        "globex/a.bin",
        "initech/a.bin",
        "initech/b.bin",
        "initech/c.bin",
    ]


if __name__ == "__main__":
    ab.testing.run(main())
