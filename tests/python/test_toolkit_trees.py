"""C2 and C21 over the toolkit: random trees of groups, sagas, races, retries and failure points.

They run on the virtual clock, and on a reference model that has neither tasks nor scopes. A leaf
waits for a time that no sum of other leaves' makes, and then does its effect: so no two effects, or
failures, are at the same instant, and the model needs nothing but a recursion over intervals.
"""

import asyncio
import collections
import math

from hypothesis import example, given, settings
from hypothesis import strategies as st

import anabranch as ab

FOREVER = math.inf
UNIT = 1e-6
leaves = st.builds(lambda fails: ("leaf", fails), st.sampled_from([0, 0, 0, 1, 2, 99]))
SEVERAL = ("saga", "fallback", "race", "all", "wait child", "wait group", "err child", "err group")


def nodes(children):
    several = st.lists(children, min_size=1, max_size=3)
    retry = st.tuples(st.just("retry"), st.just(2), st.lists(children, min_size=1, max_size=1))
    return retry | st.tuples(st.sampled_from(SEVERAL), st.just(0), several)


trees = st.recursive(leaves, nodes, max_leaves=7)


def numbered(node, counter):
    """Give each leaf a number, by which its time is its own."""
    if node[0] == "leaf":
        counter.append(0)
        return ("leaf", node[1], len(counter) - 1)
    return (*node[:2], [numbered(child, counter) for child in node[2]])


class Failed(Exception):
    pass


# The reference model. An effect is (when it was done, by which leaf).


class Model:
    def __init__(self, calls=()):
        self.calls = collections.Counter(calls)
        self.undone = []  # (when, what, the number of the first rollback that came before inside)

    def undo(self, at, kept, inside):
        if kept:
            self.undone.append((at, sorted(kept, reverse=True), inside))

    def run(self, node, now, cut):
        """Return how the node ends, "ok", "failed" or "cut", when, and what it has to undo."""
        kind, number, rest = node
        inside = len(self.undone)
        if kind == "leaf":
            now += 16**rest
            if now > cut:
                return "cut", cut, []
            self.calls[rest] += 1
            how, kept = ("failed" if self.calls[rest] <= number else "ok"), [(now, rest)]
        elif kind in ("saga", "fallback", "retry"):
            how, kept = "ok", []
            for child in rest * (number or 1):
                how, now, more = self.run(child, now, cut)
                kept += more
                if how == "cut" or (how == "ok") == (kind != "saga"):
                    break
        else:
            how, now, kept = self.at_once(kind, rest, now, cut)
        if how != "ok":
            self.undo(now, kept, inside)
            kept = []
        return how, now, kept

    def at_once(self, kind, children, now, cut):
        ends = [Model(self.calls).run(child, now, cut)[:2] for child in children]
        ending = {"race": "ok", "all": "failed", "err": "failed"}.get(kind.split()[0])
        first = min((end for how, end in ends if how == ending), default=FOREVER)
        if first < FOREVER:
            cut = first
        done = [self.run(child, now, cut) for child in children]
        last, hows = max(end for _, end, _ in done), {how for how, _, _ in done}
        if first < FOREVER:
            how = ending
        elif "cut" in hows:
            how = "cut"
        else:
            how = "failed" if kind == "race" or "failed" in hows else "ok"
        kept = [] if kind.endswith("child") else [it for _, _, kept in done for it in kept]
        return how, last, kept


# The toolkit.


class World:
    def __init__(self, clock):
        self.clock = clock
        self.calls = collections.Counter()
        self.undone = []

    def now(self):
        return round(self.clock.now() / UNIT * 2) / 2

    def callable_of(self, node):
        kind, number, rest = node

        async def leaf(ctx):
            await asyncio.sleep(16**rest * UNIT)
            effect = (self.now(), rest)
            ctx.compensate(lambda: self.undone.append((self.now(), effect)))
            self.calls[rest] += 1
            if self.calls[rest] <= number:
                raise Failed

        async def saga(ctx):
            saga = ab.Saga("saga")
            for at, child in enumerate(parts):
                saga = saga.step(str(at), lambda results, ctx, child=child: child(ctx))
            await saga.run(ctx=ctx)

        async def group(ctx):
            of = ab.WaitGroup if kind.startswith("wait") else ab.ErrGroup
            async with of("group", commit=kind.split()[1], ctx=ctx) as group:
                for child in parts:
                    group.go(child)

        if kind == "leaf":
            return leaf
        parts = [self.callable_of(child) for child in rest]
        policy = ab.Retry.fixed(0.0, attempts=max(number, 1))
        return {
            "saga": saga,
            "retry": lambda ctx: ab.retry(parts[0], policy, ctx=ctx),
            "fallback": lambda ctx: ab.fallback(*parts, ctx=ctx),
            "race": lambda ctx: ab.race(*parts, ctx=ctx),
            "all": lambda ctx: ab.all_of(*parts, ctx=ctx),
        }.get(kind, group)

    async def run(self, tree, cut, *, late):
        async def main():
            async with ab.Context("top") as ctx:
                await self.callable_of(tree)(ctx=ctx)
                if late:
                    raise Failed

        task = asyncio.create_task(main())
        if cut < FOREVER:
            asyncio.get_running_loop().call_later(cut * UNIT, task.cancel)
        await asyncio.wait([task])
        assert len(asyncio.all_tasks()) == 1, "nothing outlives the call"
        if task.cancelled():
            return "cut"
        return "ok" if task.exception() is None else "failed"


@settings(max_examples=100, deadline=None)
@given(tree=trees, late=st.booleans(), cut=st.none() | st.integers(1, 16**4))
@example(
    tree=("race", 0, [("leaf", 0), ("saga", 0, [("leaf", 0), ("leaf", 99)])]), late=True, cut=None
)
def test_c2_c21_any_tree_undoes_what_the_reference_model_does_in_its_order(tree, late, cut):
    tree = numbered(tree, [])
    cut = FOREVER if cut is None else cut + 0.5
    model = Model()
    how, now, kept = model.run(tree, 0.0, cut)
    if how == "ok" and late:
        how = "failed"
        model.undo(now, kept, 0)

    clock = ab.testing.VirtualClock()
    world = World(clock)
    assert ab.testing.run(world.run(tree, cut, late=late), clock=clock) == how
    assert world.calls == model.calls

    expected = [(at, effect) for at, effects, _ in model.undone for effect in effects]
    assert collections.Counter(world.undone) == collections.Counter(expected)
    # Of scopes that are rolled back at the same instant, those inside come before those around
    # them; in each it is the last effect first. Siblings are at once: their order is free.
    place = {entry: number for number, entry in enumerate(world.undone)}
    spans = [[place[at, effect] for effect in effects] for at, effects, _ in model.undone]
    for number, (_, _, inside) in enumerate(model.undone):
        assert spans[number] == sorted(spans[number])
        assert all(max(span) < min(spans[number]) for span in spans[inside:number])
