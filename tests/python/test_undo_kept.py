"""What is kept of undo actions: nothing that outlives their run, nor what the collector cannot see.

The function that was registered last is remembered, with what was found out about it.
"""

import gc
import weakref

import pytest
from support import every_sink, with_sink, within

import anabranch as ab


class Marker:
    """Something an undo action refers to."""


@every_sink
@within
async def test_c11_a_run_that_is_over_keeps_no_undo_action_though_it_may_be_looked_at(kind):
    markers = []

    def store(item, ctx):
        marker = Marker()
        markers.append(weakref.ref(marker))

        def undo():
            return marker

        ctx.compensate(undo)

    pipeline = with_sink(ab.Pipeline("p").source([1, 2]), kind, store)
    async with pipeline.start() as running:
        report = await running.wait()
    gc.collect()
    assert (report.committed, [marker() for marker in markers]) == (2, [None, None])
    assert running.report is report


def referred_to(ends):
    """A scope whose own undo action refers to it, by a reference that keeps it not."""
    scope = ab.CompensationScope()

    def undo():
        return scope

    scope.compensate(undo)
    if ends is not None:
        getattr(scope, f"{ends}_blocking")()
    return weakref.ref(scope)


@pytest.mark.parametrize("ends", ["commit", "rollback", None])
def test_c22_a_scope_that_its_own_undo_action_refers_to_is_collected(ends):
    # A cycle: the scope knows the function, whose closure knows the scope.
    scope = referred_to(ends)
    gc.collect()
    assert scope() is None
