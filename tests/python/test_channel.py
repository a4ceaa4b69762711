"""`ab.Channel` by itself: between tasks, threads and event loops."""

import asyncio
import functools
import gc
import random
import threading
import weakref
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import DEADLINE, child, finish, turns, within

import anabranch as ab

LONG = DEADLINE / 2


def filled(*items, capacity=10, **options):
    channel = ab.Channel(capacity, **options)
    for item in items:
        channel.send_nowait(item)
    return channel


def drained(channel):
    items = []
    while True:
        try:
            items.append(channel.receive_nowait())
        except (ab.ChannelEmpty, ab.ChannelClosed):
            return items


def conserved(channel):
    """Nothing is lost: checked against the channel's own counts."""
    stats = channel.stats()
    assert stats.sent == stats.received + stats.dropped + stats.depth, stats
    assert stats.depth <= stats.capacity or stats.capacity == 0, stats
    return stats


async def parked(channel, *, senders=0, receivers=0):
    """Wait until so many wait at the channel, whatever loop or thread they are in."""
    async with asyncio.timeout(DEADLINE):
        while True:
            stats = channel.stats()
            if (stats.senders, stats.receivers) == (senders, receivers):
                return
            await asyncio.sleep(0)


def in_thread(fn, *args, **options):
    """Run `fn` in a thread; return the future."""
    pool = ThreadPoolExecutor(1)
    future = pool.submit(fn, *args, **options)
    pool.shutdown(wait=False)
    return future


# What it is told.


@pytest.mark.parametrize(
    ("options", "argument", "message"),
    [
        ({"capacity": 0}, "capacity", "channel: capacity must be an int >= 1, got 0"),
        ({"capacity": True}, "capacity", "channel: capacity must be an int >= 1, got True"),
        ({"name": ""}, "name", "channel: name must be a non-empty str, got ''"),
        (
            {"on_full": "block"},
            "on_full",
            "channel: on_full must be 'wait', 'drop_newest', 'drop_oldest' or 'fail', got 'block'",
        ),
    ],
)
def test_w8_bad_options_are_refused_by_name(options, argument, message):
    with pytest.raises(ab.ConfigError) as caught:
        ab.Channel(**options)
    assert (str(caught.value), caught.value.argument) == (message, argument)


@within
async def test_w8_bad_arguments_are_refused_by_name():
    channel = ab.Channel(2, name="orders")
    with pytest.raises(ab.ConfigError, match=r"channel 'orders': timeout must be .*, got nan"):
        await channel.send(1, timeout=float("nan"))
    with pytest.raises(ab.ConfigError, match=r"timeout must be .*, got 'soon'"):
        channel.receive_blocking(timeout="soon")
    with pytest.raises(ab.ConfigError, match=r"max_items must be an int >= 1 or None, got 0"):
        channel.receive_many_nowait(0)
    with pytest.raises(ab.ConfigError, match=r"error must be an Exception or None, got 'why'"):
        channel.close("why")
    with pytest.raises(ab.ConfigError, match="an Exception or None"):
        channel.close(KeyboardInterrupt())
    large = r"items must be at most 2 items, for they go in together, got 3 items"
    with pytest.raises(ab.ConfigError, match=large):
        await channel.send_many(range(3))
    assert channel.stats().sent == 0


def test_it_says_what_it_is():
    channel = filled(1, 2, capacity=5, name="orders")
    assert repr(channel) == "<Channel 'orders': 2 of 5 items, open>"
    channel.close()
    assert repr(channel) == "<Channel 'orders': 2 of 5 items, closed>"
    assert (channel.name, channel.capacity, channel.closed) == ("orders", 5, True)


# Order, bound, overflow.


@within
async def test_b1_items_leave_in_the_order_they_came_whatever_they_are():
    items = [None, 0, [], (), "", None]
    channel = ab.Channel(10)
    await channel.send_many(items)
    assert [await channel.receive() for _ in items] == items


def test_b5_wait_holds_at_most_its_capacity():
    channel = filled(1, 2, capacity=2, name="orders")
    message = r"channel 'orders' has no room for an item: 2 of 2 are inside"
    with pytest.raises(ab.ChannelFull, match=message) as caught:
        channel.send_nowait(3)
    assert caught.value.code == "channel.full"
    with pytest.raises(ab.ChannelFull, match="no room for 2 items"):
        channel.send_many_nowait([3, 4])
    assert drained(channel) == [1, 2]


def test_b5_drop_newest_drops_what_arrives_and_counts_it():
    channel = filled(*range(5), capacity=2, on_full="drop_newest")
    channel.send_many_nowait([7, 8])
    assert conserved(channel).dropped == 5
    assert drained(channel) == [0, 1]
    channel.send_many_nowait([7, 8, 9])
    assert drained(channel) == [7, 8]


def test_b5_drop_oldest_drops_what_waits_and_counts_it():
    channel = filled(*range(5), capacity=2, on_full="drop_oldest")
    assert conserved(channel).dropped == 3
    channel.send_many_nowait([7, 8, 9])
    assert conserved(channel).dropped == 6
    assert drained(channel) == [8, 9]


@within
async def test_b5_fail_tells_the_sender():
    channel = filled(1, capacity=1, on_full="fail", name="orders")
    for send in (channel.send_nowait, channel.send_blocking):
        with pytest.raises(ab.ChannelFull, match="channel 'orders' is full"):
            send(2)
    with pytest.raises(ab.ChannelFull):
        await channel.send(2)
    assert conserved(channel).sent == 1


class Loud:
    """Sends to its channel as it dies."""

    def __init__(self, channel):
        self.channel = channel

    def __del__(self):
        self.channel.send_nowait("dead")


def test_an_item_that_is_dropped_may_use_the_channel_as_it_dies():
    channel = ab.Channel(2, on_full="drop_oldest")
    channel.send_nowait(Loud(channel))
    channel.send_many_nowait([1, 2])
    assert drained(channel) == [2, "dead"]


# Waiting.


@within
async def test_b5_a_sender_waits_for_room_and_the_wait_is_counted():
    channel = filled(1, capacity=1)
    sender = asyncio.create_task(channel.send(2))
    await parked(channel, senders=1)
    assert channel.stats().blocked > 0
    assert await channel.receive() == 1
    await sender
    blocked = channel.stats().blocked
    assert await channel.receive() == 2
    assert channel.stats().blocked == blocked


@within
async def test_those_who_wait_are_served_in_order_and_nobody_overtakes():
    channel = ab.Channel(2)
    got = []

    async def take(number):
        got.append((number, await channel.receive()))

    takers = [asyncio.create_task(take(number)) for number in range(3)]
    await parked(channel, receivers=3)
    channel.send_many_nowait("ab")
    # Promised to the first two, though they have not come yet.
    with pytest.raises(ab.ChannelEmpty):
        channel.receive_nowait()
    await channel.send("c")
    await asyncio.gather(*takers)
    assert got == [(0, "a"), (1, "b"), (2, "c")]


@within
async def test_a_batch_goes_in_whole_and_is_not_starved_by_single_items():
    channel = filled(1, 2, 3, capacity=3)
    batch = asyncio.create_task(channel.send_many("xyz"))
    await parked(channel, senders=1)
    single = asyncio.create_task(channel.send("s"))
    await parked(channel, senders=2)
    assert channel.receive_nowait() == 1
    with pytest.raises(ab.ChannelFull, match="2 of 3 are inside, and 2 wait for room"):
        channel.send_nowait("t")
    assert await channel.receive_many() == [2, 3]
    await batch
    assert await channel.receive_many(2) == ["x", "y"]
    await single
    assert await channel.receive_many(10) == ["z", "s"]


@within
async def test_one_wake_up_brings_a_receiver_all_that_came_meanwhile():
    channel = ab.Channel(10)
    taker = asyncio.create_task(channel.receive_many())
    await parked(channel, receivers=1)
    for number in range(4):
        channel.send_nowait(number)
    assert await taker == [0, 1, 2, 3]


# Timeouts and cancellation.


@within
async def test_f9_a_timeout_is_seconds_and_loses_nothing():
    channel = ab.Channel(1, name="orders")
    message = r"channel 'orders': no item within 0.001 s"
    with pytest.raises(TimeoutError, match=message):
        await channel.receive(timeout=0.001)
    with pytest.raises(TimeoutError, match=message):
        await asyncio.to_thread(channel.receive_blocking, timeout=timedelta(milliseconds=1))
    with pytest.raises(TimeoutError, match="no item within -1 s"):
        await channel.receive_many(timeout=-1)
    await channel.send(1, timeout=0)
    with pytest.raises(TimeoutError, match="no room for an item within 0 s"):
        await channel.send(2, timeout=0)
    with pytest.raises(TimeoutError, match="no room for 1 items within"):
        await asyncio.to_thread(channel.send_many_blocking, [2], timeout=0.001)
    assert await channel.receive(timeout=LONG) == 1
    stats = conserved(channel)
    assert (stats.sent, stats.senders, stats.receivers) == (1, 0, 0)


@within
async def test_f10_what_was_promised_to_a_cancelled_receiver_goes_to_the_next():
    channel = ab.Channel(5)
    first = asyncio.create_task(channel.receive())
    second = asyncio.create_task(channel.receive())
    await parked(channel, receivers=2)
    channel.send_nowait("it")
    # It is the first one's now, which is woken, but has not run yet.
    first.cancel()
    assert await second == "it"
    with pytest.raises(asyncio.CancelledError):
        await first
    assert conserved(channel).receivers == 0


@within
async def test_f10_a_cancelled_sender_has_sent_nothing_and_the_next_one_may():
    channel = filled(1, capacity=1)
    first = asyncio.create_task(channel.send(2))
    second = asyncio.create_task(channel.send(3))
    await parked(channel, senders=2)
    assert channel.receive_nowait() == 1
    first.cancel()
    await second
    with pytest.raises(asyncio.CancelledError):
        await first
    assert drained(channel) == [3]


@within
async def test_f10_a_cancelled_batch_lets_those_behind_it_in():
    channel = filled(1, capacity=2)
    batch = asyncio.create_task(channel.send_many([2, 3]))
    single = asyncio.create_task(channel.send(4))
    await parked(channel, senders=2)
    batch.cancel()
    await single
    assert drained(channel) == [1, 4]


# The end.


@within
async def test_b8_receivers_drain_what_is_inside_and_then_get_the_end():
    channel = filled(1, 2, name="orders")
    channel.close()
    channel.close(ValueError("too late"))
    assert [await channel.receive(), channel.receive_blocking()] == [1, 2]
    for receive in (channel.receive_nowait, channel.receive_blocking, channel.receive_many_nowait):
        with pytest.raises(ab.ChannelClosed, match="channel 'orders' is closed, and") as caught:
            receive()
        assert caught.value.code == "channel.closed"
    with pytest.raises(ab.ChannelClosed):
        await channel.receive_many(timeout=LONG)


@within
async def test_f11_receivers_get_the_very_error_it_was_closed_with():
    channel = filled(1)
    error = ConnectionResetError("the peer is gone")
    channel.close(error)
    assert await channel.receive() == 1
    frames = set()
    for _ in range(20):
        with pytest.raises(ConnectionResetError) as caught:
            channel.receive_nowait()
        assert caught.value is error
        frames.add(len(caught.traceback))
    # Raising it again and again does not make it grow.
    assert len(frames) == 1
    with pytest.raises(ConnectionResetError):
        await channel.receive(timeout=LONG)


@within
async def test_f12_senders_are_refused_with_the_error_as_the_cause():
    channel = filled(1, capacity=1, name="orders")
    waiting = asyncio.create_task(channel.send(2))
    in_another = in_thread(channel.send_blocking, 3)
    await parked(channel, senders=2)
    error = ValueError("why")
    channel.close(error)
    message = "channel 'orders' is closed: nothing more can be sent"
    with pytest.raises(ab.ChannelClosed, match=message) as caught:
        await waiting
    assert caught.value.__cause__ is error
    with pytest.raises(ab.ChannelClosed, match=message):
        in_another.result(DEADLINE)
    with pytest.raises(ab.ChannelClosed, match=message):
        channel.send_nowait(4)
    assert drained_until_error(channel, ValueError) == [1]
    assert conserved(channel).sent == 1


def drained_until_error(channel, kind):
    items = []
    with pytest.raises(kind):
        for item in channel:
            items.append(item)
    return items


@within
async def test_closing_wakes_everybody_who_waits_for_an_item():
    channel = ab.Channel(1)
    waiting = [asyncio.create_task(channel.receive()) for _ in range(3)]
    in_another = in_thread(channel.receive_many_blocking)
    await parked(channel, receivers=4)
    channel.close()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [ab.ChannelClosed] * 3
    with pytest.raises(ab.ChannelClosed):
        in_another.result(DEADLINE)


@within
async def test_b8_the_end_waits_for_the_item_a_cancelled_receiver_may_give_back():
    channel = ab.Channel(1)
    first = asyncio.create_task(channel.receive())
    second = asyncio.create_task(channel.receive())
    await parked(channel, receivers=2)
    channel.send_nowait("last")
    channel.close()
    first.cancel()
    assert await second == "last"
    assert conserved(channel).depth == 0


# Iterating.


@within
async def test_t9_iterating_ends_at_the_end_in_both_worlds():
    assert [item async for item in ended(1, 2)] == [1, 2]
    assert list(ended(3, 4)) == [3, 4]


def ended(*items, error=None):
    channel = filled(*items)
    channel.close(error)
    return channel


@pytest.mark.parametrize("error", [ValueError("why"), ab.ChannelClosed("another one")])
@within
async def test_f11_iterating_never_takes_an_error_for_an_end(error):
    seen = []
    with pytest.raises(type(error), match=str(error)):
        async for item in ended(1, error=error):
            seen.append(item)
    with pytest.raises(type(error), match=str(error)):
        for item in ended(2, error=error):
            seen.append(item)
    assert seen == [1, 2]


# Threads and loops.


@within
async def test_blocking_a_running_loop_is_refused():
    channel = filled(1, capacity=1)
    message = "waiting here would block the event loop"
    with pytest.raises(RuntimeError, match=message):
        channel.send_blocking(2)
    assert channel.receive_blocking() == 1
    with pytest.raises(RuntimeError, match=message):
        channel.receive_blocking()
    stats = channel.stats()
    assert (stats.senders, stats.receivers) == (0, 0)


def test_f2_many_threads_and_several_loops_share_one_channel():
    channel = ab.Channel(3)
    senders, count = 6, 300
    lock, got = threading.Lock(), []

    def sends(sender):
        for number in range(count):
            channel.send_blocking((sender, number), timeout=DEADLINE)

    async def sends_async(sender):
        for number in range(count):
            await channel.send((sender, number), timeout=DEADLINE)

    def keep(items):
        with lock:
            got.append(items)

    def takes():
        keep(list(channel))

    async def takes_async():
        keep([item async for item in channel])

    async def takes_many():
        items = []
        try:
            while True:
                items += await channel.receive_many(7, timeout=DEADLINE)
        except ab.ChannelClosed:
            keep(items)

    with ThreadPoolExecutor(12) as pool:
        takers = [pool.submit(takes), pool.submit(takes)]
        takers += [pool.submit(lambda fn=fn: asyncio.run(fn())) for fn in (takes_async, takes_many)]
        pairs = zip(range(senders), (sends, sends_async) * 3, strict=False)
        sending = [
            pool.submit(fn, n) if fn is sends else pool.submit(lambda n=n: asyncio.run(sends_async(n)))
            for n, fn in pairs
        ]
        for future in sending:
            future.result(DEADLINE)
        channel.close()
        for future in takers:
            future.result(DEADLINE)
    everything = [item for items in got for item in items]
    assert Counter(everything) == Counter((s, n) for s in range(senders) for n in range(count))
    # Each receiver sees each sender's items in order.
    for items in got:
        for sender in range(senders):
            numbers = [number for who, number in items if who == sender]
            assert numbers == sorted(numbers)
    assert conserved(channel).received == senders * count


def test_f10_a_receiver_whose_loop_is_closed_is_passed_over():
    channel = ab.Channel(5)
    loop = asyncio.new_event_loop()
    task = loop.create_task(channel.receive())
    loop.run_until_complete(turns(3))
    assert channel.stats().receivers == 1
    # As a program does that forgets its tasks.
    loop.close()
    channel.send_nowait("it")
    assert channel.receive_nowait() == "it"
    assert conserved(channel).receivers == 0
    task._log_destroy_pending = False
    task.get_coro().close()


def test_e4_ctrl_c_ends_a_blocking_wait_and_loses_nothing():
    script = """
        import os, signal, threading
        import anabranch as ab
        channel = ab.Channel(1)
        def interrupt():
            while channel.stats().receivers == 0:
                pass
            os.kill(os.getpid(), signal.SIGINT)
        threading.Thread(target=interrupt).start()
        try:
            channel.receive_blocking()
        except KeyboardInterrupt:
            print("interrupted", channel.stats().receivers)
        channel.send_nowait("it")
        print(channel.receive_blocking())
    """
    assert finish(child(script)) == (0, "interrupted 0\nit\n", "")


def test_e7_a_daemon_thread_that_waits_does_not_hold_up_the_exit():
    script = """
        import threading
        import anabranch as ab
        channel = ab.Channel(1)
        threading.Thread(target=channel.receive_blocking, daemon=True).start()
        while channel.stats().receivers == 0:
            pass
        print("leaving")
    """
    assert finish(child(script)) == (0, "leaving\n", "")


def test_e6_waiting_in_a_fork_is_refused():
    script = """
        import os
        import anabranch as ab
        channel = ab.Channel(1, name="orders")
        if os.fork() == 0:
            try:
                channel.receive_blocking()
            except ab.ForkedProcessError as error:
                print(str(error).split(" was made")[0], flush=True)
            os._exit(0)
        os.wait()
    """
    assert finish(child(script)) == (0, "channel 'orders'\n", "")


# Memory.


def test_a_channel_that_holds_itself_is_collected():
    channel = ab.Channel(2)
    watched = weakref.ref(channel)
    channel.send_nowait(channel)
    channel.close(ValueError(channel))
    del channel
    gc.collect()
    assert watched() is None


@within
async def test_f15_waiting_again_and_again_leaves_nothing_behind():
    channel = ab.Channel(1)

    async def exchange(times):
        for number in range(times):
            taker = asyncio.create_task(channel.receive())
            await turns(1)
            await channel.send(number)
            assert await taker == number
            with pytest.raises(TimeoutError):
                await channel.receive(timeout=0)

    await exchange(50)
    gc.collect()
    before = len(gc.get_objects())
    await exchange(500)
    gc.collect()
    # One object left behind by each exchange would be 500.
    assert len(gc.get_objects()) - before < 100


# The law.


async def random_traffic(seed, capacity, on_full):
    """Random senders and receivers, of which some are cancelled, some time out."""
    draw = random.Random(seed)
    channel = ab.Channel(capacity, on_full=on_full)
    accepted, refused, got = [], [], []
    numbers = iter(range(10**9))

    async def send():
        item = next(numbers)
        try:
            await channel.send(item, timeout=draw.choice([None, 0, 0.0001]))
        except (ab.ChannelClosed, ab.ChannelFull, TimeoutError, asyncio.CancelledError):
            refused.append(item)
            raise
        accepted.append(item)

    async def send_many():
        items = [next(numbers) for _ in range(draw.randint(0, capacity))]
        try:
            await channel.send_many(items, timeout=draw.choice([None, 0.0001]))
        except (ab.ChannelClosed, ab.ChannelFull, TimeoutError, asyncio.CancelledError):
            refused.extend(items)
            raise
        accepted.extend(items)

    async def receive():
        got.append(await channel.receive(timeout=draw.choice([None, 0, 0.0001])))

    async def receive_many():
        got.extend(await channel.receive_many(draw.randint(1, 4), timeout=draw.choice([None, 0])))

    tasks = []
    for _ in range(draw.randint(5, 60)):
        step = draw.choice([send, send, send_many, receive, receive, receive_many, "cancel", "turn"])
        if step == "cancel" and tasks:
            draw.choice(tasks).cancel()
        elif step == "turn":
            await turns(draw.randint(1, 3))
        elif callable(step):
            tasks.append(asyncio.create_task(step()))
        conserved(channel)
    if draw.random() < 0.7:
        channel.close(draw.choice([None, ValueError("the end")]))
    await turns(3)
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    kinds = {type(result) for result in results if result is not None}
    allowed = {ab.ChannelClosed, TimeoutError, asyncio.CancelledError, ValueError}
    assert kinds <= (allowed | {ab.ChannelFull} if on_full == "fail" else allowed), kinds
    return channel, accepted, refused, got


@given(
    st.integers(0, 2**32),
    st.integers(1, 5),
    st.sampled_from(["wait", "wait", "drop_newest", "drop_oldest", "fail"]),
)
@settings(max_examples=300)
def test_e8_conservation_over_random_senders_receivers_and_cancels(seed, capacity, on_full):
    channel, accepted, refused, got = asyncio.run(random_traffic(seed, capacity, on_full))
    stats = conserved(channel)
    assert (stats.senders, stats.receivers) == (0, 0), f"seed {seed}"
    left = []
    while True:
        try:
            left.append(channel.receive_nowait())
        except (ab.ChannelEmpty, ab.ChannelClosed, ValueError):
            break
    out = Counter(got) + Counter(left)
    assert max(out.values(), default=1) == 1, f"seed {seed}: received twice"
    assert not set(out) & set(refused), f"seed {seed}: what was refused came out"
    assert set(out) <= set(accepted), f"seed {seed}"
    assert len(accepted) - len(out) == stats.dropped, f"seed {seed}: lost"


@pytest.mark.parametrize("seed", range(5))
def test_e8_conservation_between_threads_and_loops_that_give_up(seed):
    draw = random.Random(seed)
    channel = ab.Channel(draw.randint(1, 4))
    lock, accepted, got = threading.Lock(), [], []

    def note(where, items):
        with lock:
            where.extend(items)

    def sender(name):
        for number in range(200):
            timeout = 0.0001 if number % 5 == 0 else DEADLINE
            try:
                channel.send_blocking((name, number), timeout=timeout)
            except TimeoutError:
                continue
            note(accepted, [(name, number)])

    async def receivers():
        async def receive():
            while True:
                note(got, [await channel.receive()])

        ended = False
        while not ended:
            tasks = [asyncio.create_task(receive()) for _ in range(3)]
            await turns(5)
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            ended = any(isinstance(result, ab.ChannelClosed) for result in results)

    with ThreadPoolExecutor(8) as pool:
        takers = [pool.submit(lambda: asyncio.run(receivers())) for _ in range(2)]
        takers.append(pool.submit(lambda: note(got, list(channel))))
        sending = [pool.submit(functools.partial(sender, name)) for name in "abc"]
        for future in sending:
            future.result(DEADLINE)
        channel.close()
        for future in takers:
            future.result(DEADLINE)
    assert Counter(got) == Counter(accepted), f"seed {seed}"
    conserved(channel)
