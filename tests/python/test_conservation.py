"""Nothing is ever lost silently: random pipelines, failures and ends, reconciled item by item.

Each item is a tuple, its number first; `flat_map` adds a digit, a window makes a list of them. A
logged call says what ought to become of the items it was given, and the report must agree.
"""

import asyncio
import functools
import inspect
import zlib
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from support import DRIVERS, SINKS, balanced, go

import anabranch as ab

FLAVOURS = ("def", "ctx", "async", "async ctx", "retried")
KINDS = ("map", "filter", "tap", "flat_map", "fan_out", "throttle", "window", "mark")
# What is asked of a branch at once; what does not fit its state is logged.
COMMANDS = (
    ("pause", "resume"),
    ("drain",),
    ("remove",),
    ("restart",),
    ("fail",),
    ("fail", "restart"),
)
AGAIN = ab.Retry.fixed(0, attempts=2, retry_on=OSError)


def leaves(value):
    """The items a value stands for."""
    if isinstance(value, list):
        return [leaf for each in value for leaf in leaves(each)]
    return [value]


class Course:
    """A pipeline and a log of what its callables did."""

    def __init__(self, salt, failing):
        self.salt = salt
        self.failing = failing
        self.failed, self.filtered, self.committed = [], [], []
        self.produced = 0
        self.registered, self.undone, self.attempts = [], [], Counter()
        self.sink_failed, self.sink_undone, self.sink_retries = [], [], False
        self.waiting = {}
        self.running = None
        # Whether there is a fan_out, so that there are branches to command.
        self.parted = False
        self.stops = False
        self.taken = 0

    def draw(self, stage, value, sides):
        text = repr((self.salt, stage, leaves(value)))
        return zlib.crc32(text.encode()) % sides

    def check(self, stage, value, *, retries):
        """Fail for good, fail once, or not."""
        fate = self.draw(stage, value, 7) if self.failing else 6
        unit = (stage, tuple(leaves(value)))
        self.waiting.pop(unit, None)
        self.attempts[unit] += 1
        if fate == 0 or (fate == 1 and retries and self.attempts[unit] == 1):
            if retries and self.attempts[unit] == 1:
                # Should the run be cut short now, this was its last attempt.
                self.waiting[unit] = leaves(value)
            else:
                self.failed += leaves(value)
            raise OSError(stage)

    def act(self, kind, stage, value, *, retries=False):
        self.check(stage, value, retries=retries)
        if kind == "filter":
            kept = self.draw(f"{stage} kept", value, 3) > 0
            self.filtered += [] if kept else leaves(value)
            return kept
        if kind == "flat_map":
            children = [(*value, child) for child in range(self.draw(f"{stage} many", value, 4))]
            self.filtered += [] if children else leaves(value)
            self.produced += max(len(children) - 1, 0)
            return children
        return value

    def callable(self, kind, stage, flavour):
        retries = flavour == "retried"

        def plain(value):
            return self.act(kind, stage, value, retries=retries)

        def with_ctx(value, ctx):
            return self.act(kind, stage, value)

        async def awaited(value):
            await asyncio.sleep(0)
            return self.act(kind, stage, value)

        async def awaited_with_ctx(value, ctx):
            return self.act(kind, stage, value)

        calls = (plain, with_ctx, awaited, awaited_with_ctx, plain)
        return dict(zip(FLAVOURS, calls, strict=True))[flavour]

    def mark(self, value, ctx):
        self.registered += leaves(value)
        ctx.compensate(self.undone.extend, leaves(value))
        return value

    def sink(self, value, ctx):
        attempt = (ctx.attempt, *leaves(value))
        ctx.compensate(self.sink_undone.append, attempt)
        try:
            self.check("sink", value, retries=self.sink_retries)
        except OSError:
            self.sink_failed.append(attempt)
            raise
        self.committed += leaves(value)

    async def sink_async(self, value, ctx):
        await asyncio.sleep(0)
        self.sink(value, ctx)

    def stopper(self, after, way):
        self.stops = True

        def count(value):
            self.taken += 1
            if self.taken == after and self.running is not None:
                getattr(self.running, way)()

        return count

    def commander(self, commands):
        self.stops = True

        def command(value):
            self.taken += 1
            for after, words, tenant in commands:
                if self.taken == after and self.running is not None and self.parted:
                    branch = self.running.branch(tenant)
                    for word in words:
                        getattr(branch, word)()

        return command


def source_of(draw, count, end):
    """Items 0 to count: a list, a generator, an async generator; perhaps with a fault."""

    def items():
        for n in range(count):
            yield (n,)
        if end == "fault":
            raise ConnectionError("the source")

    async def items_async():
        for item in items():
            yield item

    how = draw(st.sampled_from(["list", "generator", "async"]))
    if how == "list" and end != "fault":
        return [(n,) for n in range(count)]
    return items_async() if how == "async" else items()


def fan_out(draw, course, pipeline, stage, kinds):
    keyed = course.callable("key", stage, "def")
    by = ab.item(0)
    # Lists of lists have no hash.
    if kinds.count("window") > 1 or draw(st.booleans()):
        by = functools.partial(lambda keyed, value: leaves(keyed(value))[0][0] % 5, keyed)
    capacity = draw(st.sampled_from([1, 4, 1000]))
    policies = ["continue", "continue", ab.fail(after=2), ab.restart(ab.Retry.fixed(0, attempts=3))]
    return pipeline.fan_out(
        by=by,
        capacity=capacity,
        isolate=draw(st.booleans()),
        on_full=draw(st.sampled_from(["wait", "wait", "drop_newest", "drop_oldest", "fail"])),
        on_branch_error=draw(st.sampled_from(policies)),
        max_branches=draw(st.sampled_from([2, 1000, 1000])),
        on_max_branches=draw(st.sampled_from(["reject", "overflow"])),
    )


def add_stage(draw, course, pipeline, kinds, flavour):
    """Add a stage of the last of these kinds, if it may stand there."""
    *before, kind = kinds
    stage = f"{kind} {len(before)}"
    if kind == "fan_out":
        return pipeline if kind in before else fan_out(draw, course, pipeline, stage, kinds)
    if kind == "throttle":
        return pipeline.throttle(100_000, burst=draw(st.integers(1, 5)))
    if kind == "window":
        on_cancel = draw(st.sampled_from([None, "flush", "drop"]))
        size = draw(st.sampled_from([1, 2, 5, 1000]))
        return pipeline.window(max_items=size, max_age=60.0, on_cancel=on_cancel)
    # Undo actions are reconciled by name: those of an item with children go with the first.
    if kind == "mark":
        return pipeline if {"mark", "flat_map"} & set(before) else pipeline.map(course.mark)
    if kind == "flat_map" and {"window", "mark"} & set(before):
        return pipeline
    fn = course.callable(kind, stage, flavour)
    return getattr(pipeline, kind)(
        fn,
        concurrency=draw(st.sampled_from([1, 4])) if inspect.iscoroutinefunction(fn) else 1,
        ordered=draw(st.booleans()),
        retry=AGAIN if flavour == "retried" else None,
    )


def add_sink(draw, course, pipeline):
    kind = draw(st.sampled_from(SINKS))
    course.sink_retries = draw(st.booleans())
    return pipeline.for_each(
        course.sink_async if kind == "async" else course.sink,
        inline=kind == "inline",
        concurrency=1 if kind == "inline" else draw(st.sampled_from([1, 3])),
        retry=AGAIN if course.sink_retries else None,
    )


@st.composite
def courses(draw):
    """A course, its pipeline, and how to run or to end it."""
    course = Course(draw(st.integers(0, 10_000)), draw(st.booleans()))
    count = draw(st.sampled_from([0, 1, 2, 7, 50, 300]))
    end = draw(st.sampled_from(["complete", "complete", "fault", "drain", "abort", "command"]))
    pipeline = ab.Pipeline(
        "p",
        on_error=draw(st.sampled_from(["continue", "continue", "stop"])),
        max_in_flight=draw(st.sampled_from([1, 3, 256])),
        threads=2,
        seed=1,
    ).source(source_of(draw, count, end))
    if end in ("drain", "abort"):
        pipeline = pipeline.tap(course.stopper(draw(st.integers(1, 40)), end))
    if end == "command":
        command = st.tuples(st.integers(1, 60), st.sampled_from(COMMANDS), st.integers(0, 4))
        pipeline = pipeline.tap(course.commander(draw(st.lists(command, min_size=1, max_size=5))))
    kinds = []
    # Fused stages have a form of their own where none of them takes a context.
    flavours = draw(st.sampled_from([FLAVOURS, FLAVOURS, ("def",)]))
    stages = st.lists(st.tuples(st.sampled_from(KINDS), st.sampled_from(flavours)), max_size=6)
    for kind, flavour in draw(stages):
        kinds.append(kind)
        pipeline = add_stage(draw, course, pipeline, kinds, flavour)
    course.parted = "fan_out" in kinds
    pipeline = add_sink(draw, course, pipeline)
    return course, pipeline, end if course.stops else draw(st.sampled_from(DRIVERS))


async def stopped(course, pipeline):
    running = pipeline.start()
    course.running = running
    async with running:
        return await running.wait()


@given(courses())
@settings(max_examples=400)
def test_e8_every_item_is_accounted_for_by_number_and_by_name(drawn):
    course, pipeline, driver = drawn
    if driver in DRIVERS:
        report = balanced(go(pipeline, driver))
    else:
        report = balanced(asyncio.run(stopped(course, pipeline)))
    cancelled = report.codes.get("cancelled", 0)
    refused = sum(count for code, count in report.codes.items() if code.startswith("branch."))
    # By number: what the callables did is what was counted.
    assert report.committed == len(course.committed)
    assert report.filtered == len(course.filtered)
    assert report.produced == course.produced
    failed = course.failed + [leaf for unit in course.waiting.values() for leaf in unit]
    # One that had failed once may have been cancelled in its second attempt.
    sure = len(course.failed if cancelled else failed)
    assert sure <= report.failed - cancelled - refused <= len(failed)
    # By name: each item ended once.
    ended = Counter(course.committed) + Counter(course.filtered) + Counter(failed)
    assert not ended or max(ended.values()) == 1, ended
    whole = report.left == report.dropped == cancelled == refused == 0
    if report.outcome == "completed":
        assert report.left == 0
    if whole:
        roots = {item[0] for item in ended}
        assert roots == set(range(report.received))
    # What failed, was left or dropped is undone, and nothing else.
    held = set(course.undone)
    assert len(held) == len(course.undone)
    assert held <= set(course.registered)
    assert not held & (set(course.committed) | set(course.filtered))
    if "cancelled" not in report.codes:
        good = set(course.committed) | set(course.filtered)
        assert set(course.registered) - good == held
    assert sorted(course.sink_failed) == sorted(course.sink_undone)
    assert report.stuck == 0
    assert sum(branch.committed for branch in report.branches) <= report.committed
