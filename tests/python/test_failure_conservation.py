"""Random pipelines with stages for failures: each item ends once, by number and by name.

An item is a tuple, its number first; `flat_map` adds a digit, windows make lists of them. What the
callables logged, and the failures the report has kept, say what became of each; the counts must
agree.
"""

import asyncio
import zlib
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from support import DRIVERS, SINKS, balanced, go

import anabranch as ab

STAGES = ("map", "filter", "flat_map", "tap", "ensure", "fan_out", "window")
OPERATORS = ("recover", "tap_error", "map_error", "dead_letter", "collect_errors")


def leaves(value):
    """The items a value stands for."""
    if isinstance(value, list):
        return [leaf for each in value for leaf in leaves(each)]
    return [] if value is None else [value]


class Course:
    """A pipeline, and a log of what became of its items."""

    def __init__(self, salt):
        self.salt = salt
        self.filtered, self.committed, self.letters = [], [], []
        self.recovered, self.seen, self.undone = [], {}, []
        self.produced = 0
        self.plain = False
        self.running = None

    def draw(self, stage, value, sides):
        text = repr((self.salt, stage, leaves(value)))
        return zlib.crc32(text.encode()) % sides

    def check(self, stage, value):
        if self.draw(stage, value, 5) == 0:
            raise (OSError, KeyError, ValueError)[self.draw(f"{stage} type", value, 3)](stage)

    def stage(self, kind, stage):
        def call(value, ctx=None):
            if ctx is not None:
                ctx.compensate(self.undone.append, (stage, tuple(leaves(value))))
            self.check(stage, value)
            if kind == "filter":
                kept = self.draw(f"{stage} kept", value, 4) > 0
                self.filtered += [] if kept else leaves(value)
                return kept
            if kind == "flat_map":
                children = [
                    (*value, child) for child in range(self.draw(f"{stage} many", value, 3))
                ]
                self.filtered += [] if children else leaves(value)
                self.produced += max(len(children) - 1, 0)
                return children
            return value if kind == "map" else True

        def plain(value):
            return call(value)

        # Fused stages have a form of their own where none of them takes a context.
        return plain if self.plain else call

    def operator(self, kind, stage):
        def call(failure):
            assert isinstance(failure, ab.Failure)
            assert failure.items == len(leaves(failure.item))
            # What failed is undone by now, all of it.
            self.check(stage, failure.item)
            if kind == "recover":
                self.recovered += leaves(failure.item)
                return failure.item
            if kind == "map_error":
                return failure.replace(code=f"mapped by {stage}")
            if kind == "dead_letter":
                self.letters += leaves(failure.item)
            else:
                self.seen.setdefault(stage, Counter())[failure.code] += failure.items
            return None

        return call

    def sink(self, value, ctx):
        self.check("sink", value)
        self.committed += leaves(value)

    async def sink_async(self, value, ctx):
        await asyncio.sleep(0)
        self.sink(value, ctx)


def awaited(call):
    async def wrapped(*args, **kwargs):
        await asyncio.sleep(0)
        return call(*args, **kwargs)

    return wrapped


def with_ctx(call):
    async def wrapped(value, ctx):
        await asyncio.sleep(0)
        return call(value, ctx)

    return wrapped


def add_stage(draw, course, pipeline, kinds):
    *before, kind = kinds
    stage = f"{kind} {len(before)}"
    if kind == "fan_out":
        if kind in before:
            return pipeline
        return pipeline.fan_out(
            by=lambda value: (leaves(value) or [(0,)])[0][0] % 3,
            capacity=draw(st.sampled_from([1, 5, 1000])),
        )
    if kind == "window":
        return pipeline.window(max_items=draw(st.sampled_from([1, 3, 100])))
    # Of a window there are no children, and of those of children too many to be kept.
    if kind == "flat_map" and {"window", "flat_map"} & set(before):
        return pipeline
    call = course.stage(kind, stage)
    wait = draw(st.booleans()) and not course.plain
    return getattr(pipeline, kind)(with_ctx(call) if wait else call, name=stage)


def add_operator(draw, course, pipeline, kinds):
    stage = f"{kinds[-1]} {len(kinds)}"
    kind = kinds[-1]
    only = draw(
        st.sampled_from([{}, {}, {"types": OSError}, {"codes": ("KeyError", "ValueError")}])
    )
    if kind == "collect_errors":
        return pipeline.collect_errors(name=stage, **only)
    call = course.operator(kind, stage)
    wait = draw(st.booleans())
    return getattr(pipeline, kind)(awaited(call) if wait else call, name=stage, **only)


@st.composite
def courses(draw):
    """A course, its pipeline, how many items there are, and how to run or to end it."""
    course = Course(draw(st.integers(0, 10_000)))
    course.plain = draw(st.booleans())
    count = draw(st.sampled_from([1, 7, 60]))
    end = draw(st.sampled_from([*DRIVERS, *DRIVERS, "drain", "abort"]))
    commit = draw(st.sampled_from(["unit", "unit", "end"]))
    options = draw(
        st.sampled_from(
            [
                {},
                {"on_error": "stop"},
                {"on_error": "dead_letter", "dead_letter": course.operator("dead_letter", "last")},
            ]
        )
    )

    def items():
        for n in range(count):
            if n == count // 2 and course.running is not None:
                getattr(course.running, end)()
            yield (n,)

    source = [(n,) for n in range(count)] if draw(st.booleans()) and end in DRIVERS else items()
    pipeline = ab.Pipeline("p", seed=1, threads=2, commit=commit, **options).source(source)
    kinds = []
    for kind in draw(st.lists(st.sampled_from(STAGES + OPERATORS), min_size=1, max_size=7)):
        kinds.append(kind)
        add = add_operator if kind in OPERATORS else add_stage
        pipeline = add(draw, course, pipeline, kinds)
    kind = draw(st.sampled_from(SINKS))
    fn = course.sink_async if kind == "async" else course.sink
    pipeline = pipeline.for_each(fn, inline=kind == "inline", name="sink")
    for kind in draw(st.lists(st.sampled_from(OPERATORS), max_size=2)):
        kinds.append(kind)
        pipeline = add_operator(draw, course, pipeline, kinds)
    return course, pipeline, count, end


async def ended(course, pipeline):
    course.running = pipeline.start()
    async with course.running as running:
        return await running.wait()


@given(courses())
@settings(max_examples=400)
def test_e8_every_item_ends_once_whatever_becomes_of_its_failures(drawn):
    course, pipeline, count, end = drawn
    report = go(pipeline, end) if end in DRIVERS else asyncio.run(ended(course, pipeline))
    balanced(report)
    failed = [leaf for failure in report.failures for leaf in leaves(failure.item)]
    # By number.
    behind_the_sink = report.committed - len(course.committed)
    assert behind_the_sink >= 0  # recovered where nothing follows
    assert (report.filtered, report.failed) == (len(course.filtered), len(failed))
    assert report.dead_lettered == len(course.letters)
    assert report.produced == course.produced
    assert report.recovered <= len(course.recovered)
    assert sum(report.codes.values()) == report.failed
    assert sum(failure.items for failure in report.failures) == report.failed
    for name, summary in report.errors.items():
        assert set(summary.codes.values()) != {0}, name
    # By name: what was not recovered at the end ended once, and nowhere else.
    logged = Counter(course.committed) + Counter(course.filtered)
    logged += Counter(course.letters) + Counter(failed)
    assert not logged or max(logged.values()) == 1, logged
    if report.outcome == "completed":
        assert (report.received, report.left, report.dropped) == (count, 0, 0)
        assert len(logged) + behind_the_sink == count + report.produced
        assert report.recovered == len(course.recovered)
    # A unit that committed is never undone; none is undone twice.
    assert max(Counter(course.undone).values(), default=1) == 1
    assert report.stuck == 0
