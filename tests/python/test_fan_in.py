"""`ab.fan_in`: many readers, and one handler for all their items."""

import asyncio
import sys
import threading

import pytest
from channels import conserved, drained, filled, in_thread, parked
from support import DEADLINE, within

import anabranch as ab


def closed(*items, name="channel", error=None):
    channel = filled(*items, name=name, capacity=max(10, len(items)))
    channel.close(error)
    return channel


async def ignore(item):
    pass


@within
async def test_f1_no_readers_are_a_success_at_once():
    report = await ab.fan_in([], ignore)
    assert (report.total, report.handled, report.faults) == (0, {}, {})


@within
async def test_f2_f6_every_item_is_handled_once_and_in_order_per_source():
    channels = [ab.Channel(3, name=str(n)) for n in range(6)]
    handled = []

    def produce(number):
        for item in range(100):
            channels[number].send_blocking((number, item))
        channels[number].close()

    async def handle(item):
        if item[1] % 7 == item[0]:
            await asyncio.sleep(0)
        handled.append(item)

    producers = [in_thread(produce, number) for number in range(6)]
    report = await ab.fan_in(channels, handle)
    for producer in producers:
        producer.result(DEADLINE)
    assert report.handled == {str(n): 100 for n in range(6)}
    for number in range(6):
        assert [item for source, item in handled if source == number] == list(range(100))
    assert all(conserved(channel).depth == 0 for channel in channels)


class StoreError(Exception):
    code = "store.full"

    def __init__(self, message, metadata):
        super().__init__(message)
        self.metadata = metadata


@within
async def test_f3_f4_a_failing_handler_stops_it_and_its_error_comes_back_unchanged():
    channel = closed(1, 2, 3, name="orders")
    raised = StoreError("no room", {"shelf": 7})

    async def handle(item):
        if item == 2:
            raise raised

    with pytest.raises(StoreError) as failed:
        await ab.fan_in([channel], handle)
    assert failed.value is raised
    failure = ab.Failure.of(raised)
    assert (failure.message, failure.metadata["shelf"]) == ("no room", 7)
    assert failed.traceback[-1].name == "handle"
    assert any("source 'orders'" in note for note in raised.__notes__)
    # F5: what was not taken stays.
    assert drained(channel) == [3]


class timeout(Exception):  # noqa: N801 - the name of a code of ours
    """An exception of the user's."""


@within
async def test_f14_a_code_of_the_user_s_is_never_one_of_ours():
    async def handle(item):
        raise timeout

    with pytest.raises(timeout) as failed:
        await ab.fan_in([closed(1)], handle)
    assert ab.Failure.of(failed.value).code not in ab.CODES


@within
async def test_f7_readers_overlap_and_one_item_per_source_is_in_flight():
    channels = [closed(*range(4), name=str(n)) for n in range(5)]
    running, most, per_source = set(), 0, []

    async def handle(item, ctx):
        nonlocal most
        source = ctx.name.rpartition(".")[2]
        per_source.append(source not in running)
        running.add(source)
        most = max(most, len(running))
        await asyncio.sleep(0)
        running.discard(source)

    await ab.fan_in(channels, handle)
    assert most == 5
    assert all(per_source)


@within
@pytest.mark.parametrize("most", [1, 2])
async def test_f7_no_more_handlers_run_at_once_than_wanted(most):
    channels = [closed(*range(4)) for _ in range(5)]
    running = highest = 0

    async def handle(item):
        nonlocal running, highest
        running += 1
        highest = max(highest, running)
        await asyncio.sleep(0)
        running -= 1

    await ab.fan_in(channels, handle, concurrency=most)
    assert highest == most


@within
async def test_f7_a_def_runs_in_a_thread():
    threads = set()

    def handle(item):
        threads.add(threading.current_thread())

    await ab.fan_in([closed(1, 2)], handle)
    assert threading.main_thread() not in threads


@within
@pytest.mark.parametrize("readers", [1, 3, 16])
async def test_f8_of_readers_that_are_always_ready_each_gets_its_share(readers):
    channels = [closed(*range(1000), name=str(n)) for n in range(readers)]
    picks = []

    async def handle(item, ctx):
        picks.append(ctx.name)
        if len(picks) == 1000:
            raise EOFError

    with pytest.raises(EOFError):
        await ab.fan_in(channels, handle, concurrency=1)
    for name in set(picks):
        assert picks.count(name) >= 1000 / (2 * readers)
    assert len(set(picks)) == readers


@within
async def test_f8_priorities_and_weights():
    async def order(strategy):
        handled = []

        async def handle(item):
            handled.append(item)

        channels = [closed(*"aaa", name="a"), closed(*"bbb", name="b")]
        await ab.fan_in(channels, handle, concurrency=1, strategy=strategy)
        return "".join(handled)

    assert await order(ab.Strategy.priority([1, 0])) == "bbbaaa"
    assert await order(ab.Strategy.weighted([2, 1])) == "aabaabb"[:3] + "abb"
    assert await order("sticky") == "aaabbb"


def test_f9_the_timeout_is_one_deadline_for_all_of_it():
    seen = []

    async def main():
        loop = asyncio.get_running_loop()
        channel = ab.Channel(10)
        for item in range(10):
            await channel.send(item)

        async def handle(item, ctx):
            seen.append((item, ctx.remaining))
            await asyncio.sleep(2.0)

        with pytest.raises(ab.HandlerTimeout) as late:
            await ab.fan_in([channel], handle, timeout=5.0)
        assert (late.value.code, late.value.timeout) == ("timeout", 5.0)
        assert loop.time() == 5.0
        return drained(channel)

    # The third was cut short, and put back.
    assert ab.testing.run(main()) == list(range(2, 10))
    assert seen == [(0, 5.0), (1, 3.0), (2, 1.0)]


@within
@pytest.mark.parametrize("seconds", [0, -1.0])
async def test_f9_no_time_is_over_before_it_begins(seconds):
    channel = closed(1)
    with pytest.raises(ab.HandlerTimeout):
        await ab.fan_in([channel], ignore, timeout=seconds)
    assert drained(channel) == [1]


@within
async def test_f9_a_timeout_of_the_handler_s_own_stays_what_it_is():
    async def handle(item):
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine"):
        await ab.fan_in([closed(1)], handle, timeout=60.0)


@within
@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.parametrize("by", ["task", "context"])
async def test_f10_cancelled_idle_or_busy_nothing_taken_is_lost(busy, by):
    channels = [ab.Channel(10, name=name) for name in "ab"]
    stop, started, undone = ab.Cancel(), asyncio.Event(), []

    async def handle(item, ctx):
        ctx.compensate(undone.append, item)
        started.set()
        await asyncio.Event().wait()

    ctx = ab.Context("job", cancel=stop)
    running = asyncio.ensure_future(ab.fan_in(channels, handle, ctx=ctx))
    if busy:
        channels[0].send_many_nowait([1, 2])
        async with asyncio.timeout(DEADLINE):
            await started.wait()
    else:
        await parked(channels[1], receivers=1)
    if by == "task":
        running.cancel()
    else:
        stop.cancel("closing time")
    with pytest.raises(asyncio.CancelledError if by == "task" else ab.Cancelled):
        await running
    assert undone == ([1] if busy else [])
    assert drained(channels[0]) == ([1, 2] if busy else [])
    for channel in channels:
        channel.send_nowait("later")
        assert drained(channel) == ["later"]
        conserved(channel)


@within
async def test_f10_the_item_of_a_peer_that_is_cancelled_is_put_back():
    slow, broken = ab.Channel(10, name="slow"), ab.Channel(10, name="broken")
    started = asyncio.Event()

    async def handle(item):
        if item == "break":
            raise ValueError(item)
        started.set()
        await asyncio.Event().wait()

    running = asyncio.ensure_future(ab.fan_in([slow, broken], handle))
    slow.send_many_nowait(["first", "second"])
    async with asyncio.timeout(DEADLINE):
        await started.wait()
    broken.send_nowait("break")
    with pytest.raises(ValueError, match="break"):
        await running
    assert drained(slow) == ["first", "second"]


@pytest.mark.parametrize("with_ctx", [False, True])
def test_f2_f10_an_item_is_handled_or_put_back_whenever_it_is_cut_short(with_ctx):
    async def main():
        channel, done = ab.Channel(9), []
        channel.send_nowait("item")

        async def plain(item):
            await asyncio.sleep(0.5)
            done.append(item)

        async def undoing(item, ctx):
            ctx.compensate(done.remove, item)
            done.append(item)
            await asyncio.sleep(0.5)

        running = asyncio.ensure_future(ab.fan_in([channel], undoing if with_ctx else plain))
        await asyncio.sleep(0.5)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert sorted(done + drained(channel)) == ["item"]

    ab.testing.explore(main, seeds=50)


def test_f2_f16_what_is_finished_when_a_peer_fails_is_not_put_back():
    async def main():
        bad, good = closed("bad", name="bad"), closed("good", name="good")
        done = []

        async def handle(item, ctx):
            ctx.compensate(done.remove, item)
            done.append(item)
            await asyncio.sleep(0.01)
            if item == "bad":
                raise OSError(item)

        with pytest.raises(OSError, match="bad"):
            await ab.fan_in([bad, good], handle)
        assert sorted(done + drained(good)) == ["good"]

    ab.testing.explore(main, seeds=50)


@within
async def test_f10_a_def_that_is_cut_short_is_waited_for_and_its_item_is_put_back():
    channel, done, undone = filled(1), [], []
    loop, started, may_end = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def handle(item, ctx):
        ctx.compensate(undone.append, item)
        loop.call_soon_threadsafe(started.set)
        may_end.wait(DEADLINE)
        done.append((item, ctx.cancelled))

    running = asyncio.ensure_future(ab.fan_in([channel], handle))
    async with asyncio.timeout(DEADLINE):
        await started.wait()
    running.cancel()
    for _ in range(10):
        await asyncio.sleep(0)
    assert (running.done(), done) == (False, [])
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (done, undone, drained(channel)) == ([(1, True)], [1], [1])


@within
async def test_f10_a_handler_that_ignores_its_cancellation_is_given_no_other_item():
    channel, handled, started = filled(1, 2, 3), [], asyncio.Event()

    async def handle(item):
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            handled.append(item)

    running = asyncio.ensure_future(ab.fan_in([channel], handle))
    async with asyncio.timeout(DEADLINE):
        await started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, DEADLINE)
    assert handled == [1]
    assert drained(channel) == [2, 3]


@within
@pytest.mark.parametrize("policy", ["fail_fast", "drain", "quarantine"])
async def test_f11_a_fault_is_never_an_end(policy):
    handled = []

    async def handle(item):
        handled.append(item)

    faulty = closed("x", name="faulty", error=OSError("torn"))
    sound = closed(1, 2, 3, name="sound")
    if policy == "quarantine":
        report = await ab.fan_in([faulty, sound], handle, on_fault=policy)
        assert report.handled == {"faulty": 1, "sound": 3}
        assert [str(error) for error in report.faults.values()] == ["torn"]
        assert list(report.faults) == ["faulty"]
        return
    with pytest.raises(OSError, match="torn") as failed:
        await ab.fan_in([faulty, sound], handle, on_fault=policy)
    assert any("source 'faulty' of fan_in" in note for note in failed.value.__notes__)
    rest = [item for item in (1, 2, 3) if item not in handled]
    assert drained(sound) == rest
    assert (rest == []) == (policy == "drain")


@within
async def test_f13_a_source_with_items_is_not_finished_though_it_is_closed():
    handled = []

    async def handle(item):
        handled.append(item)

    urgent = ab.PriorityChannel(10)
    urgent.send_many_nowait(["low 1", "low 2"])
    urgent.send_nowait("high", priority=0)
    urgent.close()
    await ab.fan_in([urgent], handle)
    assert handled == ["high", "low 1", "low 2"]


@within
async def test_f16_what_is_finished_is_committed_and_a_later_failure_leaves_it():
    undone, contexts = [], []
    scope = ab.CompensationScope()

    async def handle(item, ctx):
        contexts.append(ctx)
        ctx.compensate(undone.append, item)
        if item == 3:
            raise ValueError(item)

    with pytest.raises(ValueError, match="3"):
        await ab.fan_in([closed(1, 2, 3)], handle, ctx=ab.Context("job", scope=scope))
    assert undone == [3]
    assert not scope.has_actions


@within
async def test_f17_ack_after_the_commit_and_nack_after_the_rollback():
    told = []

    async def handle(item, ctx):
        ctx.finalize(told.append, f"settled {item}")
        ctx.compensate(told.append, f"undone {item}")
        if item == 2:
            raise ValueError(item)

    async def ack(item):
        told.append(f"ack {item}")

    source = ab.Source(
        closed(1, 2),
        name="orders",
        ack=ack,
        nack=lambda item, error: told.append(f"nack {item} {error!r}"),
        close=lambda: told.append("close"),
    )
    with pytest.raises(ValueError, match="2"):
        await ab.fan_in([source], handle)
    assert told == [
        "settled 1",
        "ack 1",
        "undone 2",
        "settled 2",
        "nack 2 ValueError(2)",
        "close",
    ]


@within
async def test_f17_a_handler_cut_short_nacks_too_and_its_item_is_not_put_back():
    told, started = [], asyncio.Event()
    channel = ab.Channel(10)

    async def handle(item):
        started.set()
        await asyncio.Event().wait()

    async def nack(item, error):
        await asyncio.sleep(0)
        told.append((item, type(error)))

    source = ab.Source(channel, nack=nack)
    running = asyncio.ensure_future(ab.fan_in([source], handle))
    channel.send_nowait(1)
    async with asyncio.timeout(DEADLINE):
        await started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert told == [(1, asyncio.CancelledError)]
    assert drained(channel) == []


@within
async def test_f17_an_ack_that_fails_is_an_error_and_undoes_nothing():
    undone = []

    async def handle(item, ctx):
        ctx.compensate(undone.append, item)

    def ack(item):
        raise ConnectionError("the broker is gone")

    with pytest.raises(ConnectionError, match="broker") as failed:
        await ab.fan_in([ab.Source(closed(1), name="orders", ack=ack)], handle)
    assert undone == []
    assert "anabranch: in the ack of source 'orders' in 'fan_in'" in failed.value.__notes__


@within
@pytest.mark.parametrize("by", ["task", "context", "peer"])
async def test_f17_an_ack_is_not_cut_short(by):
    acking, told, may_end = asyncio.Event(), [], asyncio.Event()
    orders, other = ab.Channel(10, name="orders"), ab.Channel(10, name="other")
    stop = ab.Cancel()

    async def handle(item, ctx):
        ctx.finalize(told.append, "settled")
        ctx.compensate(told.append, "undone")
        if item == "break":
            raise OSError(item)

    async def ack(item):
        acking.set()
        await may_end.wait()
        told.append(f"ack {item}")

    readers = [ab.Source(orders, ack=ack), other]
    ctx = ab.Context("job", cancel=stop)
    running = asyncio.ensure_future(ab.fan_in(readers, handle, ctx=ctx))
    orders.send_many_nowait([1, 2])
    async with asyncio.timeout(DEADLINE):
        await acking.wait()
    if by == "task":
        running.cancel()
    elif by == "context":
        stop.cancel("closing time")
    else:
        other.send_nowait("break")
    for _ in range(10):
        await asyncio.sleep(0)
    may_end.set()
    ends = {"task": asyncio.CancelledError, "context": ab.Cancelled, "peer": OSError}
    with pytest.raises(ends[by]):
        await running
    assert [it for it in told if it not in ("undone", "settled")] == ["ack 1"]
    assert told.count("undone") == (by == "peer")
    assert drained(orders) == [2]


@within
async def test_f17_an_ack_that_fails_while_it_is_cut_short_is_told_of():
    acking = asyncio.Event()

    async def ack(item):
        acking.set()
        await asyncio.sleep(0)
        raise ConnectionError("gone")

    source = ab.Source(filled(1), name="orders", ack=ack)
    running = asyncio.ensure_future(ab.fan_in([source], ignore))
    async with asyncio.timeout(DEADLINE):
        await acking.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError) as cut:
        await running
    assert (
        "anabranch: and the ack of source 'orders' raised ConnectionError('gone')"
        in cut.value.__notes__
    )


@within
async def test_f10_a_handler_that_is_cancelled_by_itself_has_failed_and_is_undone():
    channel, undone = closed(1, 2), []

    async def handle(item, ctx):
        ctx.compensate(undone.append, item)
        raise asyncio.CancelledError

    with pytest.raises(ab.Cancelled, match="handle' was cancelled") as failed:
        await ab.fan_in([channel], handle)
    assert any("item of source" in line for line in failed.value.__notes__)
    assert (undone, drained(channel)) == ([1], [2])


@within
async def test_f17_an_ack_is_a_task_of_its_own_whether_or_not_it_waits():
    tasks, waits = [], iter([False, True])

    async def handle(item):
        tasks.append(asyncio.current_task())

    async def ack(item):
        tasks.append(asyncio.current_task())
        async with asyncio.timeout(DEADLINE):
            if next(waits):
                await asyncio.sleep(0)
        tasks.append(asyncio.current_task())

    await ab.fan_in([ab.Source(closed(1, 2), ack=ack)], handle)
    worker, first, same, again, second, still = tasks
    assert (worker, first, second) == (again, same, still)
    assert len({worker, first, second}) == 3


@within
async def test_f17_an_ack_that_need_not_wait_holds_up_nobody():
    async def handle(item):
        pass

    async def ack(item):
        pass

    async def turns_of(**options):
        turns, loop = 0, asyncio.get_running_loop()

        def turn():
            nonlocal turns, handle_of_turn
            turns += 1
            handle_of_turn = loop.call_soon(turn)

        handle_of_turn = loop.call_soon(turn)
        await ab.fan_in([ab.Source(closed(*range(50)), **options)], handle)
        handle_of_turn.cancel()
        return turns

    alone, acked = await turns_of(), await turns_of(ack=ack)
    # Before 3.12 every task waits for its turn.
    assert acked == alone if sys.version_info >= (3, 12) else acked > alone


@within
async def test_f17_an_ack_that_is_cancelled_by_itself_is_a_failure():
    async def ack(item):
        raise asyncio.CancelledError

    source = ab.Source(closed(1), name="orders", ack=ack)
    with pytest.raises(ab.Cancelled, match="ack' was cancelled") as failed:
        await ab.fan_in([source], ignore)
    assert "anabranch: in the ack of source 'orders' in 'fan_in'" in failed.value.__notes__


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_e4_f17_what_an_ack_ends_the_process_with_is_raised_once(error):
    channel, undone = closed(1), []

    async def handle(item, ctx):
        ctx.compensate(undone.append, item)

    async def ack(item):
        await asyncio.sleep(0)
        raise error

    with pytest.raises(error) as stopped:
        asyncio.run(ab.fan_in([ab.Source(channel, ack=ack)], handle))
    assert stopped.value.__context__ is None
    assert (undone, drained(channel)) == ([], [])


@pytest.mark.parametrize("ack_fails", [False, True])
def test_e4_f17_what_a_finalizer_ends_the_process_with_comes_after_the_ack(ack_fails):
    told, channel = [], closed(1)

    def stop():
        raise KeyboardInterrupt

    def handle(item, ctx):
        ctx.finalize(stop)

    def ack(item):
        told.append(item)
        if ack_fails:
            raise ConnectionError("gone")

    with pytest.raises(KeyboardInterrupt) as stopped:
        ab.fan_in_blocking([ab.Source(channel, name="orders", ack=ack)], handle)
    assert told == [1]
    assert drained(channel) == []
    said = "anabranch: and the ack of source 'orders' raised ConnectionError('gone')"
    assert (said in getattr(stopped.value, "__notes__", [])) == ack_fails


@within
async def test_m5_an_exception_in_the_strategy_ends_it():
    def broken(sources):
        raise LookupError("which one?")

    channel = closed(1)
    with pytest.raises(LookupError):
        await ab.fan_in([channel], ignore, strategy=broken)
    assert drained(channel) == [1]


@within
async def test_a_handler_that_never_suspends_does_not_starve_the_loop():
    channel = closed(*range(10_000))
    turns = 0
    running = asyncio.ensure_future(ab.fan_in([channel], ignore))
    while not running.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns > 50


def test_f2_f17_in_a_thread_it_is_the_same():
    told, threads = [], set()

    def handle(item, ctx):
        ctx.compensate(told.append, f"undone {item}")
        threads.add(threading.current_thread())
        if item == "b2":
            raise ValueError(item)

    a = ab.Source(closed("a1", "a2", name="a"), ack=lambda item: told.append(f"ack {item}"))
    b = ab.Source(
        closed("b1", "b2", "b3", name="b"),
        nack=lambda item, _: told.append(f"nack {item}"),
        close=lambda: told.append("close"),
    )
    with pytest.raises(ValueError, match="b2"):
        ab.fan_in_blocking([a, b], handle)
    assert threads == {threading.current_thread()}
    assert told == ["ack a1", "ack a2", "undone b2", "nack b2", "close"]
    assert drained(b.reader) == ["b3"]


def test_f9_f10_f11_in_a_thread_it_ends_for_the_same_reasons():
    with pytest.raises(ab.HandlerTimeout):
        ab.fan_in_blocking([ab.Channel()], print, timeout=0.01)
    with pytest.raises(ab.HandlerTimeout):
        ab.fan_in_blocking([closed(1)], print, timeout=0)
    with pytest.raises(OSError, match="torn"):
        ab.fan_in_blocking([closed(error=OSError("torn"))], print)
    stop, channel = ab.Cancel(), ab.Channel()
    waiting = in_thread(ab.fan_in_blocking, [channel], print, ctx=ab.Context("job", cancel=stop))
    asyncio.run(parked(channel, receivers=1))
    stop.cancel("enough")
    with pytest.raises(ab.Cancelled):
        waiting.result(DEADLINE)
    assert channel.stats().receivers == 0
    assert ab.fan_in_blocking([closed(1, 2)], lambda item: None).total == 2
    with pytest.raises(ab.ConfigError, match="await fan_in"):
        ab.fan_in_blocking([], ignore)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ab.fan_in([], 1), "fan_in: handler must be a callable, got 1"),
        (lambda: ab.fan_in([], lambda: 1), "handler must be a callable that takes an item"),
        (lambda: ab.fan_in([], ignore, concurrency=0), "concurrency must be an int >= 1 or None"),
        (lambda: ab.fan_in([], ignore, timeout="1"), "timeout must be a number of seconds"),
        (lambda: ab.fan_in([], ignore, ctx=1), "ctx must be a Context or None"),
        (lambda: ab.fan_in([], ignore, on_fault="stop"), "on_fault must be"),
        (lambda: ab.fan_in([1], ignore), r"readers\[0\] must be a Channel or a Source, got 1"),
    ],
)
def test_a_bad_argument_is_refused(make, said):
    with pytest.raises(ab.ConfigError, match=said):
        asyncio.run(make())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"reader": [1]}, r"reader must be a Channel, got \[1\]"),
        ({"name": ""}, "name must be a str that is not empty"),
        ({"ack": 1}, "ack must be a callable"),
        ({"nack": lambda item: 1}, "nack must be a callable that takes an item and an exception"),
        ({"close": lambda item: 1}, "close must be a callable that takes nothing"),
    ],
)
def test_a_source_checks_what_it_is_given(options, said):
    with pytest.raises(ab.ConfigError, match=said):
        ab.Source(**{"reader": ab.Channel(), **options})
