"""`ab.WaitGroup` and `ab.ErrGroup` (G4, G5), on the virtual clock."""

import asyncio
import functools
import gc
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import anabranch as ab

virtual = ab.testing.virtual_time
every_kind = pytest.mark.parametrize("kind", [ab.WaitGroup, ab.ErrGroup])


class World:
    def __init__(self):
        self.log = []

    async def work(self, name, seconds, fails=None, *, ctx):
        ctx.compensate(self.log.append, f"-{name}")
        self.log.append(f"+{name}")
        await asyncio.sleep(seconds)
        if fails is not None:
            raise fails
        return name


@every_kind
@virtual
async def test_g4_all_children_have_ended_when_the_block_is_left(kind, clock):
    async with kind("g") as group:
        children = [group.go(asyncio.sleep, n, n) for n in range(4)]
        assert group.running == 4
        assert [child.result for child in children] == [None] * 4
    assert clock.now() == 3.0
    assert [child.result for child in children] == [ab.Ok(n) for n in range(4)]
    assert group.running == 0


@virtual
async def test_g4_a_childs_failure_is_in_the_joined_result_and_leaves_the_others_alone(clock):
    world = World()
    with pytest.raises(ab.GroupFailed) as caught:
        async with ab.WaitGroup("g") as group:
            bad = group.go(world.work, "bad", 1.0, OSError("no"))
            good = group.go(world.work, "good", 5.0)
            also = group.go(world.work, "also", 2.0, KeyError("k"))
    assert [type(error) for error in caught.value.exceptions] == [OSError, KeyError]
    assert (bad.result.error.code, good.result, also.result.ok) == ("OSError", ab.Ok("good"), False)
    assert [failure.stage for failure in group.failures] == ["g.work", "g.work"]
    assert world.log == ["+bad", "+good", "+also", "-bad", "-also"]
    assert clock.now() == 5.0
    assert "anabranch: in 'g.work'" in caught.value.exceptions[0].__notes__
    assert isinstance(caught.value.split(OSError)[0], ab.GroupFailed)


@virtual
async def test_g4_a_failed_child_is_undone_at_once(clock):
    world = World()
    with pytest.raises(ab.GroupFailed):
        async with ab.WaitGroup("g") as group:
            group.go(world.work, "bad", 1.0, OSError("no"))
            group.go(world.work, "good", 5.0)
            await asyncio.sleep(2.0)
            assert world.log[-1] == "-bad"


@every_kind
@pytest.mark.parametrize("commit", ["child", "group"])
@virtual
async def test_g4_finished_children_commit_or_fold_into_the_group(kind, commit):
    world = World()
    with pytest.raises((OSError, ab.GroupFailed)):
        async with kind("g", commit=commit) as group:
            for n in (1, 2, 3):
                group.go(world.work, n, n)
            group.go(world.work, "bad", 2.5, OSError("no"))
    undone = [entry for entry in world.log if entry.startswith("-")]
    assert (
        undone
        == {
            ("child", ab.WaitGroup): ["-bad"],
            ("child", ab.ErrGroup): ["-bad", "-3"],
            ("group", ab.WaitGroup): ["-bad", "-3", "-2", "-1"],
            ("group", ab.ErrGroup): ["-bad", "-3", "-2", "-1"],
        }[commit, kind]
    )


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.1, 9.0), st.integers(0, 3)), min_size=1, max_size=8),
    st.booleans(),
)
def test_c2_g4_g5_a_group_is_undone_in_strict_reverse_order_over_all_children(children, by_child):
    did, undone = [], []

    async def child(number, seconds, steps, ctx):
        for step in range(steps):
            ctx.compensate(undone.append, (number, step))
            did.append((number, step))
            await asyncio.sleep(seconds)

    async def fail(ctx):
        await child(-1, 2.5, 2, ctx)
        raise OSError

    async def main():
        kind = ab.ErrGroup if by_child else ab.WaitGroup
        async with kind("g", commit="group") as group:
            for number, (seconds, steps) in enumerate(children):
                group.go(child, number, seconds, steps)
            if by_child:
                group.go(fail)
            await asyncio.sleep(5.0)
            raise OSError

    with pytest.raises(OSError):  # noqa: PT011 - that one
        ab.testing.run(main())
    assert undone == did[::-1]


@virtual
async def test_g4_c2_all_or_nothing_a_child_cancelled_alone_is_undone_at_once():
    world = World()
    async with ab.ErrGroup("g", commit="group") as group:
        group.go(world.work, "a", 5.0)
        alone = group.go(world.work, "b", 5.0)
        await asyncio.sleep(1.0)
        alone.cancel()
        await asyncio.sleep(1.0)
        assert world.log == ["+a", "+b", "-b"]
    assert world.log == ["+a", "+b", "-b"]


@every_kind
@virtual
async def test_g4_c2_a_group_that_ends_well_goes_to_its_context_in_order(kind):
    world = World()
    with pytest.raises(LookupError):
        async with ab.Context("c") as ctx:
            ctx.compensate(world.log.append, "-before")
            async with kind("g", commit="group", ctx=ctx) as group:
                group.go(world.work, "a", 2.0)
                group.go(world.work, "b", 1.0)
            ctx.compensate(world.log.append, "-after")
            raise LookupError
    assert world.log == ["+a", "+b", "-after", "-b", "-a", "-before"]


@virtual
async def test_g4_g8_children_are_named_after_their_parent():
    names = []

    async def child(ctx):
        names.append(ctx.name)

    async with ab.WaitGroup("g", ctx=ab.Context("p", tenant="acme")) as group:
        first = group.go(child)
        group.go(child, name="x")
        group.go(functools.partial(child))
    assert names == ["p.g.child", "p.g.x", "p.g.child"]
    assert (first.name, group.name) == ("p.g.child", "p.g")


@every_kind
@pytest.mark.parametrize("by", ["task", "cancel", "body"])
@virtual
async def test_g4_e2_cancel_reaches_children_and_none_outlives_the_group(kind, by, clock):
    world = World()
    cancel = ab.Cancel()

    async def main():
        async with kind("g", ctx=ab.Context("c", cancel=cancel)) as group:
            group.go(world.work, "a", 60.0)
            group.go(world.work, "b", 60.0)
            if by == "body":
                await asyncio.sleep(1.0)
                raise ValueError("body")
            await asyncio.sleep(120.0)

    task = asyncio.create_task(main())
    await asyncio.sleep(1.0)
    if by == "task":
        task.cancel()
    elif by == "cancel":
        cancel.cancel("stop")
    expected = {"task": asyncio.CancelledError, "cancel": ab.Cancelled, "body": ValueError}[by]
    with pytest.raises(expected):
        await task
    assert sorted(world.log[2:]) == ["-a", "-b"]
    assert clock.now() == 1.0
    assert len(asyncio.all_tasks()) == 1


@virtual
async def test_g4_what_a_child_has_committed_when_its_group_ends_is_its_result():
    world = World()
    with pytest.raises(OSError, match="no"):
        async with ab.ErrGroup("g") as group:
            first = group.go(world.work, "a", 1.0)
            group.go(world.work, "b", 1.0, OSError("no"))
            last = group.go(world.work, "c", 1.0)
    assert first.result == ab.Ok("a")
    assert "-a" not in world.log
    undone = "-c" in world.log
    assert (last.result == ab.Ok("c")) is not undone


@every_kind
@virtual
async def test_g4_a_cancel_while_the_group_waits_undoes_slow_children_to_the_end(kind, clock):
    async def slow_end():
        try:
            await asyncio.sleep(60.0)
        finally:
            await asyncio.sleep(5.0)

    async def main():
        async with kind("g") as group:
            group.go(slow_end)

    task = asyncio.create_task(main())
    await asyncio.sleep(1.0)
    task.cancel()
    await asyncio.sleep(1.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert clock.now() == 6.0


@virtual
async def test_g5_the_first_error_wins_and_peers_are_cancelled_and_undone(clock):
    world = World()
    first = OSError("first")
    with pytest.raises(OSError, match="first") as caught:
        async with ab.ErrGroup("g") as group:
            done = group.go(world.work, "done", 0.5)
            group.go(world.work, "first", 1.0, first)
            peer = group.go(world.work, "peer", 60.0)
            await asyncio.sleep(120.0)
    assert caught.value is first
    assert clock.now() == 1.0
    assert (done.result, peer.result.error.code) == (ab.Ok("done"), "cancelled")
    assert world.log == ["+done", "+first", "+peer", "-first", "-peer"]
    assert asyncio.current_task().cancelling() == 0
    await asyncio.sleep(1.0)


@virtual
async def test_g5_c14_peers_are_compensated_by_the_policy_of_the_context():
    world = World()
    with pytest.raises(OSError, match="no"):
        async with ab.ErrGroup("g", ctx=ab.Context("c", rollback="none")) as group:
            group.go(world.work, "bad", 1.0, OSError("no"))
            group.go(world.work, "peer", 60.0)
    assert world.log == ["+bad", "+peer"]


@virtual
async def test_g5_errors_after_the_first_are_told():
    async def ugly():
        try:
            await asyncio.sleep(60.0)
        finally:
            raise KeyError("late")

    async def bad():
        raise OSError("first")

    with pytest.raises(OSError, match="first"):
        async with ab.ErrGroup("g") as group:
            group.go(ugly)
            await asyncio.sleep(1.0)
            group.go(bad)
    assert [failure.code for failure in group.failures] == ["OSError", "KeyError"]


@every_kind
@virtual
async def test_g5_never_more_children_run_than_allowed(kind, clock):
    running, most = [], []

    async def child():
        running.append(1)
        most.append(len(running))
        await asyncio.sleep(1.0)
        running.pop()

    async with kind("g", max_concurrency=3) as group:
        for _ in range(10):
            group.go(child)
        assert group.running == 10
    assert (max(most), clock.now()) == (3, 4.0)


@virtual
async def test_g5_children_that_wait_for_their_turn_never_begin_after_an_error():
    called = []

    async def bad():
        raise LookupError

    with pytest.raises(LookupError):
        async with ab.ErrGroup("g", max_concurrency=1) as group:
            group.go(bad)
            waiting = group.go(called.append, 1)
            await asyncio.sleep(1.0)
    assert (called, waiting.result.error.code) == ([], "cancelled")


@every_kind
@pytest.mark.parametrize("when", ["new", "waiting", "running", "over"])
@virtual
async def test_g4_one_child_is_cancelled_alone_and_is_no_failure(kind, when):
    world = World()
    async with kind("g", max_concurrency=1 if when == "waiting" else None) as group:
        peer = group.go(world.work, "peer", 5.0)
        child = group.go(world.work, "child", 2.0)
        if when != "new":
            await asyncio.sleep(10.0 if when == "over" else 1.0)
        child.cancel("not needed")
    assert peer.result == ab.Ok("peer")
    if when == "over":
        assert child.result == ab.Ok("child")
    else:
        assert child.result.error.code == "cancelled"
        assert "not needed" in child.result.error.message
    assert ("-child" in world.log) == (when == "running")


@every_kind
@virtual
async def test_t12_an_err_is_a_failed_child(kind):
    async def answer(result):
        return result

    with pytest.raises((ab.ResultError, ab.GroupFailed)):
        async with kind("g") as group:
            good = group.go(answer, ab.Ok(1))
            group.go(answer, ab.Err("stock.empty"))
    assert good.result == ab.Ok(1)
    assert [failure.code for failure in group.failures] == ["stock.empty"]


def test_g4_a_def_runs_in_a_thread_and_is_waited_for():
    seen = []

    def child(ctx):
        while not ctx.cancelled:
            threading.Event().wait(0.001)
        seen.append(threading.current_thread() is threading.main_thread())

    async def bad():
        raise LookupError

    async def main():
        async with ab.ErrGroup("g") as group:
            group.go(child)
            group.go(bad)

    with pytest.raises(LookupError):
        asyncio.run(main())
    assert seen == [False]


@virtual
async def test_g4_children_may_begin_children():
    seen = []

    async def child(group, depth):
        seen.append(depth)
        if depth:
            group.go(child, group, depth - 1)

    async with ab.WaitGroup("g") as group:
        group.go(child, group, 3)
    assert seen == [3, 2, 1, 0]


@every_kind
@virtual
async def test_a_group_is_used_once_and_by_its_block(kind):
    group = kind("g")
    with pytest.raises(ab.ClosedError, match="has not begun"):
        group.go(print)
    async with group:
        pass
    with pytest.raises(ab.ClosedError, match="used once"):
        group.go(print)
    with pytest.raises(ab.ClosedError, match="used once"):
        async with group:
            pass
    cancel = ab.Cancel()
    cancel.cancel()
    with pytest.raises(ab.Cancelled):
        async with kind("g", ctx=ab.Context("c", cancel=cancel)):
            pass


class Strange(BaseException):
    pass


@every_kind
@pytest.mark.parametrize("fatal", [Strange, GeneratorExit, SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("run", [asyncio.run, ab.testing.run])
def test_g4_e4_what_is_no_exception_ends_the_block_and_is_told_once(kind, fatal, run, caplog):
    undone = []

    async def other(ctx):
        ctx.compensate(undone.append, "other")
        await asyncio.Event().wait()

    async def child(ctx):
        # In an undo action only these two are more than stuck.
        if issubclass(fatal, (SystemExit, KeyboardInterrupt)):
            ctx.compensate(fail)
            raise ValueError
        fail()

    def fail():
        raise fatal

    children = []

    async def main():
        async with kind("g") as group:
            children.extend([group.go(other), group.go(child)])
            await asyncio.Event().wait()

    with pytest.raises(fatal):
        run(main())
    assert undone == ["other"]
    assert [it.result.error.code for it in children] == ["cancelled", fatal.__name__]
    children.clear()
    gc.collect()
    assert "never retrieved" not in caplog.text


@virtual
async def test_c11_ten_thousand_children_leave_nothing_behind():
    async def child():
        pass

    async with ab.ErrGroup("g") as group:
        for _ in range(10_000):
            group.go(child)
    assert group.running == 0
    assert not group._running


@every_kind
@virtual
async def test_g4_what_a_block_raises_tells_of_the_children_that_failed(kind):
    async def bad():
        raise ConnectionError("the real reason")

    async def block(group):
        group.go(bad)
        try:
            await asyncio.sleep(1.0)
        finally:
            raise KeyError("the clean-up")

    with pytest.raises(KeyError, match="the clean-up") as raised:
        async with kind("g") as group:
            await block(group)
    said = "anabranch: and the child 'g.bad' raised ConnectionError('the real reason')"
    assert said in raised.value.__notes__


@every_kind
@virtual
async def test_g4_a_child_that_ends_with_a_cancelled_error_is_not_told_the_groups_end(kind):
    async def stop():
        raise asyncio.CancelledError

    async with kind("g") as group:
        child, other = group.go(stop), group.go(asyncio.sleep, 1.0, "done")
    assert other.result == ab.Ok("done")
    assert child.result.error.error.reason == "a CancelledError came out of it"
