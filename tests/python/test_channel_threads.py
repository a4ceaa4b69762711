"""`ab.Channel` between threads and event loops: nothing is lost, nothing left behind."""

import asyncio
import contextlib
import gc
import itertools
import random
import threading
import weakref
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from channels import conserved, drained, filled
from hypothesis import given, settings
from hypothesis import strategies as st
from support import DEADLINE, child, finish, flat, turns, within

import anabranch as ab

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


@within
@pytest.mark.parametrize("none", [0, -1, timedelta(0)])
async def test_f9_what_does_not_wait_blocks_no_loop(none):
    full, empty = filled(1, capacity=1), ab.Channel(1)
    for send in (full.send_blocking, lambda it, **how: full.send_many_blocking([it], **how)):
        with pytest.raises(TimeoutError, match="no room for"):
            send(2, timeout=none)
    for receive in (empty.receive_blocking, empty.receive_many_blocking):
        with pytest.raises(TimeoutError, match="no item within"):
            receive(timeout=none)
    with pytest.raises(TimeoutError):
        ab.select(empty).run_blocking(timeout=none)
    assert (full.stats().senders, empty.stats().receivers) == (0, 0)


class Receivers:
    """Every way to receive until the end; what each got."""

    def __init__(self, channel):
        self.channel = channel
        self.got = []
        self.lock = threading.Lock()

    def keep(self, items):
        with self.lock:
            self.got.append(items)

    def blocking(self):
        self.keep(list(self.channel))

    async def awaiting(self):
        self.keep([item async for item in self.channel])

    async def many(self):
        items = []
        with contextlib.suppress(ab.ChannelClosed):
            while True:
                items += await self.channel.receive_many(7, timeout=DEADLINE)
        self.keep(items)


def test_f2_many_threads_and_several_loops_share_one_channel():
    channel = ab.Channel(3)
    receivers = Receivers(channel)
    senders, count = range(6), 300

    def sends(sender):
        for number in range(count):
            channel.send_blocking((sender, number), timeout=DEADLINE)

    async def sends_async(sender):
        for number in range(count):
            await channel.send((sender, number), timeout=DEADLINE)

    with ThreadPoolExecutor(12) as pool:
        takers = [pool.submit(receivers.blocking) for _ in range(2)]
        takers += [pool.submit(in_a_loop, fn) for fn in (receivers.awaiting, receivers.many)]
        sending = [pool.submit(sends, sender) for sender in senders[::2]]
        sending += [pool.submit(in_a_loop, sends_async, sender) for sender in senders[1::2]]
        for future in sending:
            future.result(DEADLINE)
        channel.close()
        for future in takers:
            future.result(DEADLINE)
    everything = Counter(flat(receivers.got))
    assert everything == Counter(itertools.product(senders, range(count)))
    # Each receiver sees each sender's items in order.
    for items, sender in itertools.product(receivers.got, senders):
        numbers = [number for who, number in items if who == sender]
        assert numbers == sorted(numbers)
    assert conserved(channel).received == len(senders) * count


def in_a_loop(fn, *args):
    asyncio.run(fn(*args))


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


class Traffic:
    """Random senders and receivers, of which some are cancelled, some time out."""

    def __init__(self, seed, capacity, on_full):
        self.draw = random.Random(seed)
        self.channel = ab.Channel(capacity, on_full=on_full)
        self.accepted, self.refused, self.got = [], [], []
        self.numbers = itertools.count()
        self.tasks = []

    def timeout(self):
        return self.draw.choice([None, 0, 0.0001])

    async def note(self, items, sending):
        try:
            await sending
        except BaseException:
            self.refused += items
            raise
        self.accepted += items

    async def send(self):
        item = next(self.numbers)
        await self.note([item], self.channel.send(item, timeout=self.timeout()))

    async def send_many(self):
        count = self.draw.randint(0, self.channel.capacity)
        items = list(itertools.islice(self.numbers, count))
        await self.note(items, self.channel.send_many(items, timeout=self.timeout()))

    async def receive(self):
        self.got.append(await self.channel.receive(timeout=self.timeout()))

    async def receive_many(self):
        most = self.draw.randint(1, 4)
        self.got += await self.channel.receive_many(most, timeout=self.timeout())

    async def cancel(self):
        self.draw.choice(self.tasks).cancel()

    async def turn(self):
        await turns(self.draw.randint(1, 3))

    async def run(self):
        calls = [self.send, self.send, self.send_many, self.receive, self.receive]
        calls.append(self.receive_many)
        self.tasks.append(asyncio.create_task(self.send()))
        for _ in range(self.draw.randint(5, 60)):
            step = self.draw.choice([*calls, self.cancel, self.turn])
            if step in calls:
                self.tasks.append(asyncio.create_task(step()))
            else:
                await step()
            conserved(self.channel)
        if self.draw.random() < 0.7:
            self.channel.close(self.draw.choice([None, ValueError("the end")]))
        await turns(3)
        for task in self.tasks:
            task.cancel()
        results = await asyncio.gather(*self.tasks, return_exceptions=True)
        return {type(result) for result in results if result is not None}


@given(
    st.integers(0, 2**32),
    st.integers(1, 5),
    st.sampled_from(["wait", "wait", "drop_newest", "drop_oldest", "fail"]),
)
@settings(max_examples=300)
def test_e8_conservation_over_random_senders_receivers_and_cancels(seed, capacity, on_full):
    traffic = Traffic(seed, capacity, on_full)
    raised = asyncio.run(traffic.run())
    allowed = {ab.ChannelClosed, TimeoutError, asyncio.CancelledError, ValueError}
    assert raised <= allowed | ({ab.ChannelFull} if on_full == "fail" else set()), f"seed {seed}"
    stats = conserved(traffic.channel)
    assert (stats.senders, stats.receivers) == (0, 0), f"seed {seed}"
    out = Counter(traffic.got) + Counter(drained(traffic.channel))
    assert max(out.values(), default=1) == 1, f"seed {seed}: received twice"
    assert not set(out) & set(traffic.refused), f"seed {seed}: what was refused came out"
    assert set(out) <= set(traffic.accepted), f"seed {seed}"
    assert len(traffic.accepted) - len(out) == stats.dropped, f"seed {seed}: lost"


async def impatient(channel, got):
    """Receive in tasks that are cancelled again and again, to the end."""

    async def receive():
        while True:
            got.append(await channel.receive())

    results = []
    while not any(isinstance(result, ab.ChannelClosed) for result in results):
        tasks = [asyncio.create_task(receive()) for _ in range(3)]
        await turns(5)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("seed", range(5))
def test_e8_conservation_between_threads_and_loops_that_give_up(seed):
    channel = ab.Channel(random.Random(seed).randint(1, 4))
    receivers = Receivers(channel)
    accepted, got = [[], [], []], [[], []]

    def sends(name):
        for number in range(200):
            with contextlib.suppress(TimeoutError):
                timeout = 0.0001 if number % 5 == 0 else DEADLINE
                channel.send_blocking((name, number), timeout=timeout)
                accepted[name].append((name, number))

    with ThreadPoolExecutor(8) as pool:
        takers = [pool.submit(in_a_loop, impatient, channel, items) for items in got]
        takers.append(pool.submit(receivers.blocking))
        sending = [pool.submit(sends, name) for name in range(3)]
        for future in sending:
            future.result(DEADLINE)
        channel.close()
        for future in takers:
            future.result(DEADLINE)
    assert Counter(flat(got + receivers.got)) == Counter(flat(accepted)), f"seed {seed}"
    conserved(channel)
