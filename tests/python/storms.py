"""Random pipelines over virtual time, and what must come of their undo actions: the rows E8, C21.

A trial is drawn from a seed, built by the real builder, run over `VirtualClock`, and compared with
a reference that knows nothing of the engine, `reckoning`.

    .venv/bin/python tests/python/storms.py    # TRIALS runs, 20 000 by default, from SEED

Items are tuples: the number of their root, and the way through each `flat_map` and `tee`. A window
is a list.
"""

import asyncio
import contextlib
import os
import random
import sys

from reckoning import Action, Reckoning, leaves

import anabranch as ab

CODES = (OSError, KeyError, ValueError)


class Storm(Reckoning):
    """One trial."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.now = 0
        self.actions = []
        # When an item has failed, whatever became of it later.
        self.failures = []
        self.filtered, self.committed, self.letters = [], [], []
        self.children = {}
        self.broken_undos = self.beats = 0
        # When a branch was told to fail; and those that were told to end, well if they can.
        self.broken, self.closed, self.failed = {}, set(), False
        # When a handler was called last: the run was not over then.
        self.called = 0
        self.running = None

    def chance(self, share):
        return self.random.random() < share

    def tick(self):
        self.now += 1
        return self.now

    # What the callables do.

    def register(self, value, ctx):
        """Register some actions; return those of the unit."""
        own = []
        self.called = self.tick()
        for _ in range(self.random.choice([0, 1, 1, 2])):
            wide = ["branch", "pipeline"] if ctx.tenant is None else ["branch"] * 3 + ["pipeline"]
            level = self.random.choice(["unit"] * 6 + wide)
            finalizer = self.chance(0.2)
            action = Action(self.tick(), leaves(value), level, finalizer, ctx.tenant)
            self.actions.append(action)
            add = ctx.finalize if finalizer else ctx.compensate
            add(self.undo_async if self.chance(0.3) else self.undo, action, level=level)
            own.append(action)
        return own

    @contextlib.contextmanager
    def attempt(self, value, ctx):
        """Marks the actions of an attempt that fails, however it does."""
        own = self.register(value, ctx)
        try:
            yield own
        except BaseException:
            for action in own:
                action.failed = True
            raise

    def undo(self, action):
        action.ran.append(self.tick())
        if self.chance(0.1):
            self.broken_undos += 1
            raise RuntimeError("undo")

    async def undo_async(self, action):
        await asyncio.sleep(self.random.choice([0, 0.1, 1]))
        self.undo(action)

    def may_fail(self):
        if self.chance(0.15):
            raise self.random.choice(CODES)("by chance")

    def end(self, kind, value):
        """Return what the handler of a stage of this kind returns."""
        self.may_fail()
        if kind == "filter":
            if self.chance(0.8):
                return True
            self.filtered += leaves(value)
            return False
        if kind == "flat_map":
            children = [(*value, n) for n in range(self.random.choice([0, 1, 1, 2, 3]))]
            self.filtered += [] if children else [value]
            self.children[value] = children
            return children
        if kind == "sink":
            self.committed += leaves(value)
        return value

    def handler(self, kind, *, awaits):
        if not awaits:

            def call(value, ctx):
                with self.attempt(value, ctx):
                    return self.end(kind, value)

            return call

        async def call_async(value, ctx):
            with self.attempt(value, ctx) as own:
                try:
                    await asyncio.sleep(self.random.choice([0, 0, 0.1, 0.5, 2]))
                except asyncio.CancelledError:
                    # It takes its time to end, and may yet register what it does meanwhile.
                    if self.chance(0.3):
                        await asyncio.sleep(self.random.choice([0.5, 3]))
                        own.extend(self.register(value, ctx))
                    raise
                return self.end(kind, value)

        return call_async

    def operator(self, kind):
        def call(failure):
            if kind in ("recover", "dead_letter"):
                # All that was registered for them so far has been undone, or will be with what they
                # share it with.
                self.failures.append((self.tick(), leaves(failure.item)))
            self.may_fail()
            if kind == "dead_letter":
                self.letters += leaves(failure.item)
            return failure.item if kind == "recover" else None

        async def call_async(failure):
            await asyncio.sleep(self.random.choice([0, 0.1]))
            return call(failure)

        return call_async if self.chance(0.3) else call

    # The pipeline.

    def source(self):
        count = self.random.choice([1, 3, 10, 30])
        fault = self.chance(0.1)

        def items():
            for n in range(count):
                yield (n,)
            if fault:
                raise ConnectionError("the source")

        async def items_async():
            for item in items():
                await asyncio.sleep(self.random.choice([0, 0, 0.2]))
                yield item

        return items_async() if self.chance(0.5) else items()

    def retry(self):
        attempts = self.random.choice([2, 3])
        return ab.Retry.fixed(self.random.choice([0, 0.3]), attempts=attempts)

    def tee(self, pipeline):
        """A course of copies: each item has two children from then on, itself and its copy."""

        def parts(value):
            for leaf in leaves(value):
                self.children[leaf] = [(*leaf, "own"), (*leaf, "copy")]
            return value

        def renames(name):
            def rename(value):
                if isinstance(value, list):
                    return [rename(each) for each in value]
                return (*value, name)

            return rename

        windowed = self.windowed

        def course(copies):
            copies = copies.map(renames("copy"))
            for _ in range(self.random.randrange(3)):
                copies = self.stage(
                    copies, self.random.choice(["map", "filter", "window", "tap_error"])
                )
            copies = self.sink(copies)
            if self.chance(0.2):
                copies = self.stage(copies, "dead_letter")
            return copies

        pipeline = pipeline.map(parts).tee(course).map(renames("own"))
        self.windowed = windowed
        return pipeline

    def heartbeat(self, pipeline):
        """Heartbeats among the items, which become items like others, of roots below zero."""

        def named(value):
            if isinstance(value, ab.Heartbeat):
                self.beats += 1
                return (-self.beats,)
            return value

        return pipeline.heartbeat(every=self.random.choice([0.7, 5.0])).map(named)

    def stage(self, pipeline, kind):
        draw = self.random.choice
        own = {
            "tee": self.tee,
            "heartbeat": self.heartbeat,
            "collect_errors": ab.Pipeline.collect_errors,
        }
        if kind in own:
            return own[kind](pipeline)
        if kind == "fan_out":
            self.fanned = True
            policies = ["continue"] * 3 + [ab.fail(after=2), ab.restart(self.retry())]
            self.on_branch_error, self.idle_ttl = draw(policies), draw([None, 0.5])
            return pipeline.fan_out(
                by=lambda value: leaves(value)[0][0] % 3,
                capacity=draw([1, 3, 1000]),
                isolate=draw([True, False]),
                on_full=draw(["wait"] * 3 + ["drop_newest", "drop_oldest", "fail"]),
                on_branch_error=self.on_branch_error,
                idle_ttl=self.idle_ttl,
            )
        if kind == "throttle":
            return pipeline.throttle(draw([2, 50]), burst=draw([1, 5]))
        if kind == "window":
            self.windowed = True
            age = draw([None, 0.3, 5.0])
            on_cancel = draw([None, "flush", "drop"])
            return pipeline.window(max_items=draw([1, 2, 5]), max_age=age, on_cancel=on_cancel)
        if kind in ("recover", "dead_letter", "tap_error"):
            return getattr(pipeline, kind)(self.operator(kind))
        awaits = self.chance(0.5)
        options = {"concurrency": draw([1, 3]), "ordered": draw([True, False])} if awaits else {}
        if awaits and self.chance(0.3):
            options["timeout"] = 0.35
        if self.chance(0.3):
            options["retry"] = self.retry()
        return getattr(pipeline, kind)(self.handler(kind, awaits=awaits), **options)

    def build(self):
        draw = self.random.choice
        self.fanned = self.windowed = False
        self.commit = draw(["unit", "unit", "end"])
        self.policy = draw(["sequential"] * 4 + ["parallel", "none"])
        pipeline = ab.Pipeline(
            "storm",
            commit=self.commit,
            rollback=self.policy,
            rollback_deadline=None,
            on_error=draw(["continue"] * 3 + ["stop"]),
            max_in_flight=draw([1, 3, 256]),
            grace=draw([0.0, 1.0, 30.0]),
            seed=1,
        ).source(self.source())
        kinds = ["map", "filter", "flat_map", "fan_out", "throttle", "window"]
        kinds += ["recover", "dead_letter", "tap_error", "collect_errors", "tee", "heartbeat"]
        for _ in range(self.random.randrange(6)):
            kind = draw(kinds)
            # Values of windows have no children, and one fan-out is enough.
            if not (kind == "flat_map" and self.windowed) and not (
                kind == "fan_out" and self.fanned
            ):
                pipeline = self.stage(pipeline, kind)
        pipeline = self.sink(pipeline)
        if self.chance(0.2):
            pipeline = self.stage(pipeline, "dead_letter")
        return pipeline

    def sink(self, pipeline):
        draw = self.random.choice
        awaits = self.chance(0.5)
        options = {"concurrency": draw([1, 2])} if awaits else {"inline": draw([True, False])}
        if self.chance(0.3):
            options["retry"] = self.retry()
        return pipeline.for_each(self.handler("sink", awaits=awaits), **options)

    # The run.

    async def disturb(self, running):
        words = ("pause", "resume", "drain", "remove", "restart", *["fail"] * 5)
        for _ in range(self.random.choice([0, 0, 1, 3])):
            await asyncio.sleep(self.random.choice([0, 0.1, 0.4, 1, 2]))
            if not self.fanned:
                continue
            tenant = self.random.randrange(3)
            branch = running.branch(tenant)
            try:
                word = self.random.choice([*words, "throttle"])
                branch.throttle(5) if word == "throttle" else getattr(branch, word)()
            except (ab.BranchError, ab.ClosedError):
                continue
            self.failed |= word == "fail"
            if word == "fail" and tenant not in self.closed:
                self.broken[tenant] = self.tick()
            if word in ("drain", "remove", "restart"):
                # What is not broken yet ends well before it begins anew.
                self.closed.add(tenant)
        await asyncio.sleep(self.random.choice([0, 0.5, 3, 20]))
        way = self.random.choice(["", "", "drain", "abort", "both"])
        if way in ("drain", "both"):
            running.drain()
        if way in ("abort", "both"):
            await asyncio.sleep(self.random.choice([0, 0.5]))
            running.abort()
        # A paused branch would wait for ever.
        await asyncio.sleep(1000)
        running.drain()
        await asyncio.sleep(1000)
        running.abort()

    async def main(self):
        pipeline = self.build()
        cancels = self.chance(0.1)
        async with pipeline.start() as running:
            disturber = asyncio.create_task(self.disturb(running))
            try:
                if cancels:
                    async with asyncio.timeout(self.random.choice([0, 0.3, 2])):
                        await running.wait()
                else:
                    await running.wait()
            except TimeoutError:
                running.abort()
                await running.wait()
            finally:
                disturber.cancel()
        return pipeline.last_report


def storm(seed):
    """Run one trial, and raise AssertionError if it does not hold."""
    trial = Storm(seed)
    clock = ab.testing.VirtualClock()
    trial.check(ab.testing.run(trial.main(), clock=clock))


def storms(trials, seed):
    """Run trials from a seed on; the one that fails tells how to run it by itself."""
    sys.stdout.write(f"E8, C21: {trials} pipelines, SEED={seed}\n")
    for trial in range(seed, seed + trials):
        try:
            storm(trial)
        except BaseException as error:
            error.add_note(f"SEED={trial} TRIALS=1 {sys.executable} {__file__}")
            raise


def seed():
    """The seed asked for, or another one each time."""
    return int(os.environ.get("SEED", random.SystemRandom().randrange(1 << 48)))


if __name__ == "__main__":
    storms(int(os.environ.get("TRIALS", "20000")), seed())
