"""Catalogues are pages, and pages are books: one item becomes many, or none.

- `flat_map` takes what a callable returns or generates apart; async generators, too;
- an item that becomes nothing is counted as filtered, and every sum of the report adds up;
- the pages of one shop stay in order though several shops are asked at once.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import anabranch as ab

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

PAGES = {
    "acme": [["Emma", "Persuasion"], ["Sanditon"]],
    "globex": [[], ["Ulysses"]],
    "hooli": [],
}


async def pages(shop: str) -> AsyncIterator[dict[str, Any]]:
    """Ask a shop for its pages, one after the other."""
    if shop not in PAGES:
        raise LookupError(f"no shop is called {shop}")
    for number, titles in enumerate(PAGES[shop]):
        await asyncio.sleep(0.1)
        yield {"shop": shop, "page": number, "titles": titles}


def books(page: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Take a page apart."""
    for title in page["titles"]:
        yield {"shop": page["shop"], "page": page["page"], "title": title}


async def main() -> None:
    """Read the catalogues of four shops, of which one is not there."""
    shelves: dict[str, list[str]] = {}

    def shelve(book: dict[str, Any], ctx: ab.Context) -> None:
        shelves.setdefault(ctx.tenant, []).append(f"{book['page']}:{book['title']}")

    pipeline = (
        ab.Pipeline("catalogue")
        .source(["acme", "globex", "hooli", "initech"])
        .flat_map(pages, concurrency=4)
        .flat_map(books)
        .fan_out(by="shop")
        .for_each(shelve, inline=True)
    )
    report = await pipeline.run()
    for shop, titles in sorted(shelves.items()):
        print(f"{shop}: {', '.join(titles)}")
    print("received", report.received, "and made", report.produced, "more")
    print("committed", report.committed, "filtered", report.filtered, "failed", report.failed)
    print("balanced:", report.balanced, "codes:", report.codes)


if __name__ == "__main__":
    ab.testing.run(main())
