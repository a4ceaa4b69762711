"""`ab.Context` and `ab.Cancel` by hand (G8), and calls by hand inside a pipeline's handlers."""

import asyncio
import functools
import threading

import pytest
from support import every_sink, with_sink

import anabranch as ab

virtual = ab.testing.virtual_time
twice = ab.Retry.fixed(10.0, attempts=2)


def test_g8_one_type_covers_the_contexts_of_pipelines_and_those_made_by_hand():
    seen = []
    pipeline = ab.Pipeline("p").source([1]).for_each(lambda _, ctx: seen.append(ctx), inline=True)
    pipeline.run_blocking()
    by_hand = ab.Context("by hand", tenant="acme")
    assert isinstance(seen[0], ab.Context)
    assert isinstance(by_hand, ab.Context)
    assert seen[0].name == f"p.{seen[0].stage}"
    for told in ("tenant", "pipeline", "stage", "attempt", "deadline", "remaining", "window"):
        assert hasattr(seen[0], told)
        assert hasattr(by_hand, told)
    assert (by_hand.pipeline, by_hand.tenant, by_hand.cancelled) == ("by hand", "acme", False)


def test_g8_a_handler_is_called_by_hand_with_a_context_of_ones_own():
    ran = []

    def store(batch, ctx):
        ctx.compensate(ran.append, "unit")
        ctx.compensate(ran.append, "pipeline", level="pipeline")
        ctx.finalize(ran.append, "closed")

    with pytest.raises(OSError, match="later"), ab.Context("test") as ctx:
        store([1], ctx)
        raise OSError("later")
    assert ran == ["pipeline", "unit", "closed"]


@pytest.mark.parametrize("form", ["plain", "async"])
def test_c11_a_block_that_ends_well_commits(form):
    ran = []

    def fill(ctx):
        ctx.compensate(ran.append, "undone")
        ctx.finalize(ran.append, "closed")

    async def awaited():
        async with ab.Context("c") as ctx:
            fill(ctx)

    if form == "plain":
        with ab.Context("c") as ctx:
            fill(ctx)
    else:
        asyncio.run(awaited())
    assert ran == ["closed"]


def test_g8_a_scope_that_was_passed_in_stays_with_its_owner():
    ran = []
    scope = ab.CompensationScope()
    with ab.Context("c", scope=scope) as ctx:
        ctx.compensate(ran.append, 1)
    assert (ran, scope.pending) == ([], 1)
    scope.rollback_blocking()
    assert ran == [1]


def test_g8_a_cancel_cancels_its_children_and_not_its_parent():
    parent = ab.Cancel()
    first, second = ab.Cancel(parent), ab.Cancel(parent)
    first.cancel("enough")
    assert (first.reason, second.cancelled, parent.cancelled) == ("enough", False, False)
    parent.cancel()
    assert second.cancelled
    assert first.reason == "enough"


def test_g8_who_attaches_too_late_is_woken_all_the_same():
    parent = ab.Cancel()
    cancel = ab.Cancel(parent)
    parent.cancel()
    woken = []
    cancel._attach("key", lambda: woken.append(1))
    cancel._detach("key")
    assert woken == [1]
    assert not parent._wakers


@virtual
async def test_g8_e2_a_cancel_from_another_thread_ends_the_call_with_an_outcome(clock):
    cancel = ab.Cancel()
    ran = []

    async def work(ctx):
        ctx.compensate(ran.append, "undone")
        await asyncio.to_thread(cancel.cancel, "stop")
        await asyncio.sleep(3600.0)

    with pytest.raises(ab.Cancelled, match="stop") as caught:
        await ab.retry(work, twice, ctx=ab.Context("c", cancel=cancel))
    assert (caught.value.code, caught.value.reason, ran) == ("cancelled", "stop", ["undone"])
    assert clock.now() == 0.0
    assert asyncio.current_task().cancelling() == 0


@virtual
async def test_e2_the_callers_own_cancellation_stays_one_and_undoes():
    ran = []

    async def work(ctx):
        ctx.compensate(ran.append, "undone")
        await asyncio.sleep(3600.0)

    cancel = ab.Cancel()
    task = asyncio.create_task(ab.retry(work, twice, ctx=ab.Context("c", cancel=cancel)))
    await asyncio.sleep(1.0)
    cancel.cancel()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ran == ["undone"]


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: ab.Context(""), "name"),
        (lambda: ab.Context("c", scope=[]), "scope"),
        (lambda: ab.Context("c", clock=1.0), "clock"),
        (lambda: ab.Context("c", cancel=True), "cancel"),
        (lambda: ab.Context("c", rollback="maybe"), "rollback"),
        (lambda: ab.Context("c", rollback_deadline=-1.0), "deadline"),
        (lambda: ab.Context("c").compensate(print, level="galaxy"), "level"),
        (lambda: ab.Cancel("parent"), "parent"),
        (lambda: ab.Cancel().cancel(""), "reason"),
        (lambda: ab.retry(print, 3), "policy"),
        (lambda: ab.retry("print", twice), "fn"),
        (lambda: ab.retry(asyncio.sleep(1), twice), "fn"),
        (lambda: ab.retry(print, twice, ctx="c"), "ctx"),
        (lambda: ab.retry(ab.per_thread, twice), "fn"),
        (lambda: ab.Ok(1).map(lambda: 1), "fn"),
        (lambda: ab.Saga("s").step("a", lambda: 1), "fn"),
        (lambda: ab.Saga("s").step("a", print, undo=lambda: 1), "undo"),
        (ab.fallback, "fns"),
        (lambda: ab.fallback(print, 1), "fns[1]"),
        (lambda: asyncio.run(ab.race()), "fns"),
        (lambda: asyncio.run(ab.race(None)), "fns[0]"),
        (lambda: asyncio.run(ab.hedge(print, 0.0)), "after"),
        (lambda: asyncio.run(ab.hedge(print, 1.0, attempts=1)), "attempts"),
        (lambda: asyncio.run(ab.timeout(print, "soon")), "seconds"),
        (lambda: asyncio.run(ab.timeout(print, 1.0, grace=-1.0)), "grace"),
        (lambda: asyncio.run(ab.all_of(print, on_error="ignore")), "on_error"),
        (lambda: asyncio.run(ab.all_of(print, max_concurrency=0)), "max_concurrency"),
        (lambda: asyncio.run(ab.delay(-1.0)), "seconds"),
        (lambda: asyncio.run(ab.after(float("nan"), print)), "seconds"),
        (lambda: ab.ticker(0.0), "period"),
        (lambda: ab.ticker("often"), "period"),
        (lambda: ab.WaitGroup(""), "name"),
        (lambda: ab.ErrGroup(commit="never"), "commit"),
        (lambda: ab.ErrGroup(max_concurrency=True), "max_concurrency"),
        (lambda: ab.Saga(1), "name"),
        (lambda: ab.Saga("s").step("", print), "name"),
        (lambda: ab.Saga("s").step("a", print).step("a", print), "name"),
        (lambda: ab.Saga("s").step("a", None), "fn"),
        (lambda: ab.Saga("s").step("a", print, undo=1), "undo"),
        (lambda: ab.Saga("s").step("a", print, retry=3), "policy"),
        (lambda: ab.Saga("s").run_blocking(), "steps"),
        (lambda: ab.Saga("s").step("a", asyncio.sleep).run_blocking(), "fn"),
        (lambda: ab.Err(7), "error"),
        (lambda: ab.Err("timeout"), "code"),
        (lambda: ab.Ok(1).ensure(bool, code="cancelled"), "code"),
        (lambda: ab.Ok(1).map(1), "fn"),
        (lambda: ab.Result.try_(asyncio.sleep, 1), "fn"),
    ],
)
def test_w8_g2_bad_arguments_are_refused_by_name_before_anything_starts(make, argument):
    with pytest.raises(ab.ConfigError) as caught:
        make()
    assert caught.value.argument == argument


def test_a_context_is_not_used_after_its_end():
    with ab.Context("c") as ctx:
        pass
    assert ctx.cancelled
    for use in (
        ctx.__enter__,
        lambda: ctx.compensate(print),
        lambda: ab.retry(print, twice, ctx=ctx),
    ):
        with pytest.raises(ab.ClosedError, match="'c'"):
            use()


@virtual
async def test_g8_a_context_with_another_clock_than_the_loops_is_refused():
    ctx = ab.Context("c", clock=ab.testing.VirtualClock())
    with pytest.raises(ab.ConfigError, match=r"ab\.testing\.run"):
        await ab.delay(1.0, ctx=ctx)


def test_g8_r6_a_call_in_a_thread_goes_by_the_clock_of_its_context():
    clock = ab.testing.VirtualClock()
    with pytest.raises(ZeroDivisionError):
        ab.retry(lambda: 1 / 0, ab.Retry.fixed(60.0), ctx=ab.Context("c", clock=clock))
    assert clock.now() == 240.0


def test_g8_a_cancel_wakes_a_call_that_waits_in_a_thread():
    cancel = ab.Cancel()
    failed = threading.Event()
    outcome = []

    def work():
        failed.set()
        raise OSError("busy")

    def call():
        with pytest.raises(ab.Cancelled):
            ab.retry(work, ab.Retry.fixed(3600.0), ctx=ab.Context("c", cancel=cancel))
        outcome.append("cancelled")

    thread = threading.Thread(target=call)
    thread.start()
    assert failed.wait(20.0)
    cancel.cancel()
    thread.join(20.0)
    assert outcome == ["cancelled"]


# Inside a handler.


@every_sink
@pytest.mark.parametrize("fails", [False, True])
def test_c2_c17_what_a_call_did_in_a_handler_belongs_to_the_unit_in_order(kind, fails):
    ran = []

    def part(name, ctx):
        ctx.compensate(ran.append, name)

    def handler(unit, ctx):
        ctx.compensate(ran.append, "first")
        ab.retry(functools.partial(part, "by hand"), twice, ctx=ctx)
        ctx.compensate(ran.append, "last")
        if fails:
            raise OSError("no")

    report = with_sink(ab.Pipeline("p").source([1]), kind, handler).run_blocking()
    assert ran == (["last", "by hand", "first"] if fails else [])
    assert report.compensated == len(ran)


def test_r6_c10_a_retry_in_a_handler_goes_by_the_clock_of_the_pipeline():
    clock = ab.testing.VirtualClock()
    seen = []

    def ask(ctx):
        seen.append((clock.now(), ctx.name, ctx.attempt, ctx.tenant))
        if len(seen) < 3:
            raise OSError("busy")

    def handler(unit, ctx):
        ab.retry(ask, ab.Retry.fixed(60.0), ctx=ctx)

    pipeline = ab.Pipeline("p", clock=clock).source([{"t": "acme"}]).fan_out(by="t")
    assert pipeline.for_each(handler, name="store").run_blocking().committed == 1
    assert seen == [(60.0 * n, "p.store.ask", n + 1, "acme") for n in range(3)]


@virtual
async def test_g4_a_group_in_a_handler_is_cut_short_with_the_run(clock):
    ran = []

    async def child(ctx):
        ctx.compensate(ran.append, "child")
        await asyncio.sleep(3600.0)

    async def handler(unit, ctx):
        ctx.compensate(ran.append, "handler")
        async with ab.ErrGroup("g", ctx=ctx) as group:
            group.go(child)

    async with ab.Pipeline("p").source([1]).for_each(handler).start() as running:
        await asyncio.sleep(1.0)
        running.abort()
        report = await running.wait()
    assert ran == ["child", "handler"]
    assert report.failed + report.left == 1
    assert clock.now() < 60.0
