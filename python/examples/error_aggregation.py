"""Check a hundred shops at once, and say what is wrong in one answer: all errors, by code.

A nightly check asks every shop for its stock. Some are down, some answer nonsense, one is not
allowed. Nobody wants the first error only, and nobody wants a hundred tracebacks.

- `ab.all_of(..., on_error="collect")` gives an `Ok` or an `Err` for each, in order;
- an `Err` has a code, a message and metadata, goes to JSON and back, and keeps its exception;
- a `WaitGroup` raises all of them as one `ExceptionGroup`, which `except*` takes apart.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from functools import partial

import anabranch as ab


async def stock_of(shop: int) -> ab.Result[int]:
    """Ask a shop: what it answers may be no number."""
    await asyncio.sleep(0.010 * (shop % 7))
    if shop % 20 == 3:
        raise ConnectionError(f"shop {shop} does not answer")
    answer = "nothing" if shop % 25 == 0 else str(shop * 2)
    return (
        ab.Result.try_(int, answer)
        .map_error(
            lambda failure: failure.replace(code="stock.unreadable", metadata={"shop": shop})
        )
        .ensure(
            lambda count: count != 14, code="stock.suspicious", message=f"shop {shop}: 14 again"
        )
    )


async def check(shops: range) -> list[ab.Result[int]]:
    """Ask all, ten at a time; those that do not answer three times."""
    policy = ab.Retry.fixed(0.5, attempts=3, retry_on=ConnectionError)
    asked = [partial(ab.retry, partial(stock_of, shop), policy) for shop in shops]
    return await ab.all_of(*asked, on_error="collect", max_concurrency=10)


async def main() -> None:
    """Check, and tell."""
    results = await check(range(100))
    stock = sum(result.unwrap_or(0) for result in results)
    failures = [result.error for result in results if isinstance(result, ab.Err)]
    codes = Counter(failure.code for failure in failures)
    print(f"stock: {stock}, of {len(results) - len(failures)} shops")
    print("codes:", dict(sorted(codes.items())))
    assert codes == {"ConnectionError": 5, "stock.unreadable": 4, "stock.suspicious": 1}

    down = next(failure for failure in failures if failure.code == "ConnectionError")
    print(f"the first that is down: {down.message}, after {down.attempts} attempts, {down.delay} s")

    # To another process, and back.
    sent = json.dumps([failure.to_dict() for failure in failures])
    received = [ab.Failure.from_dict(told) for told in json.loads(sent)]
    assert [failure.code for failure in received] == [failure.code for failure in failures]

    # As exceptions: what is handled goes, what is not stays.
    try:
        async with ab.WaitGroup("shops") as group:
            for shop in (3, 7, 25):
                group.go(stock_of, shop, name=f"shop {shop}")
    except* ConnectionError as down_now:
        print("down:", *down_now.exceptions)
    except* ab.AnabranchError as wrong:
        print("wrong:", *wrong.exceptions, sep="\n  ")


if __name__ == "__main__":
    ab.testing.run(main())
