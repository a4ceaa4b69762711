"""Whose turn it is, of the branches that wait: the row B12."""

from __future__ import annotations

import asyncio
import itertools

import pytest

import anabranch as ab

# A thousand items of one tenant, and behind them one of each of two others.
CROWD = [("hot", n) for n in range(1000)] + [("acme", 0), ("globex", 0)]


def crowded(items=CROWD, **options: object) -> ab.Pipeline[tuple[str, int]]:
    """A pipeline with one unit in flight at a time."""
    pipeline = ab.Pipeline("p", max_in_flight=1).source(items)
    return pipeline.fan_out(by=ab.item(0), **options)


def served(pipeline: ab.Pipeline[tuple[str, int]]) -> list[str]:
    """Whose items were handled, in this order, by a handler that takes a second for each."""
    order: list[str] = []

    async def handle(item: tuple[str, int]) -> None:
        order.append(item[0])
        await asyncio.sleep(1.0)

    ab.testing.run(pipeline.for_each(handle).run()).raise_for_failure()
    return order


def test_b12_a_tenant_with_a_thousand_items_does_not_hold_up_those_with_one():
    order = served(crowded())
    # What the source has brought before theirs came is begun; then each has its turn.
    assert max(order.index("acme"), order.index("globex")) <= 260
    assert sorted(order) == sorted(tenant for tenant, _ in CROWD)


def test_b12_weight_says_how_many_units_a_turn_has():
    items = [(tenant, n) for n in range(30) for tenant in ("acme", "globex")]
    order = served(crowded(items, weight={"acme": 3, "globex": 1}.__getitem__))
    both = order[: order.index("globex", 20)]
    assert both.count("acme") == pytest.approx(3 * both.count("globex"), abs=3)


def test_b12_one_weight_for_all_changes_nothing_between_them_but_how_long_a_turn_is():
    items = [(tenant, n) for n in range(40) for tenant in ("acme", "globex")]
    for weight in (1, 5):
        order = served(crowded(items, weight=weight))
        assert abs(order[:40].count("acme") - order[:40].count("globex")) <= weight
        turns = [len(list(turn)) for _, turn in itertools.groupby(order)]
        assert max(turns) == weight


@pytest.mark.parametrize("weight", [0, 1001, -1, True, 1.5, None, "2"])
def test_b12_a_weight_that_is_none_is_refused_at_once(weight: object):
    with pytest.raises(ab.ConfigError) as refused:
        crowded(weight=weight)
    assert str(refused.value).startswith(
        "pipeline 'p', stage 'fan_out': weight must be an int from 1 to 1000 or a def that takes "
        "the tenant, got "
    )


@pytest.mark.parametrize("weight", [0, 1001, True, "2", None])
def test_b12_what_the_callable_may_not_return_fails_the_item(weight: object):
    pipeline = crowded([("acme", 1)], weight=lambda _tenant: weight)
    report = pipeline.for_each(print, inline=True).run_blocking()
    (failure,) = report.failures
    assert isinstance(failure.error, ab.ConfigError)
    allowed = "weight must be a callable that returns an int from 1 to 1000, got"
    assert allowed in str(failure.error)
