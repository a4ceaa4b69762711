"""Branches that are removed when nothing is in them any more: more of row B4."""

import pytest
from support import Live, balanced

import anabranch as ab


@pytest.mark.parametrize("evicted", ["drained", "idle"])
@ab.testing.virtual_time
async def test_b4_a_branch_that_was_evicted_and_is_removed_refuses_what_comes(clock, evicted):
    log, source = [], Live()
    pipeline = ab.Pipeline("p").source(source)
    pipeline = pipeline.fan_out(by=lambda item: item[0], on_new_branch=log.append, idle_ttl=60.0)
    async with pipeline.for_each(log.append, inline=True).start() as running:
        source.put("a1")
        await clock.advance(0.0)
        acme = running.branch("a")
        if evicted == "drained":
            acme.drain()
        await clock.advance(60.0)
        assert acme.state == "evicted"
        acme.remove()
        source.put("a2", "b1", "a3")
        await clock.advance(0.0)
        assert (acme.state, acme.counts.generation) == ("removed", 1)
        running.add_branch("a")
        source.put("a4")
        await clock.advance(0.0)
        assert (acme.state, acme.counts.generation) == ("open", 2)
        source.end()
        report = balanced(await running.wait())
    assert log == ["a", "a1", "b", "b1", "a", "a4"]
    assert (report.codes, report.committed) == ({"branch.removed": 2}, 3)
