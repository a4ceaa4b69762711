"""`ab.broadcast`, `ab.balance` and `ab.fan_out`: one reader becomes several."""

import asyncio

import pytest
from channels import conserved, drained, filled, in_thread, parked
from support import DEADLINE, flat, turns, within

import anabranch as ab


def closed(*items, error=None, **options):
    channel = filled(*items, capacity=max(10, len(items)), **options)
    channel.close(error)
    return channel


async def later(_):
    return 1


async def collected(channel):
    return [item async for item in channel]


@within
async def test_b1_every_branch_sees_all_items_in_the_same_order():
    async with ab.broadcast(closed(*range(1000)), 3, capacity=7) as branches:
        seen = await asyncio.gather(*map(collected, branches))
    assert seen == [list(range(1000))] * 3


@within
async def test_b1_a_thread_may_read_and_a_thread_may_send():
    source = ab.Channel(3)
    async with ab.broadcast(source, ["one", "two"], capacity=3) as (one, two):
        reading = in_thread(lambda: list(one))
        other = asyncio.ensure_future(collected(two))
        for item in range(100):
            await source.send(item)
        source.close()
        assert await other == list(range(100))
        assert await asyncio.to_thread(reading.result, DEADLINE) == list(range(100))


@within
async def test_b1_a_slow_branch_holds_up_the_source_and_says_so():
    source = filled(1, 2, 3)
    async with ab.broadcast(source, 2, capacity=1) as (one, two):
        assert await one.receive() == 1
        await parked(two, senders=1)
        assert one.depth == 0
        assert await two.receive() == 1
        assert await two.receive() == 2
        assert two.blocked > 0


@within
async def test_b1_with_drops_nobody_waits_and_every_drop_is_counted():
    async with ab.broadcast(closed(*range(9)), 2, capacity=3, on_full="drop_oldest") as branches:
        await branches[0].receive()
        await turns(20)
        for branch in branches:
            stats = conserved(branch)
            assert (stats.sent, stats.senders) == (9, 0)
            assert stats.dropped >= 5


@within
async def test_b1_a_branch_that_is_closed_by_its_reader_is_left_out():
    source = filled(1)
    async with ab.broadcast(source, 2) as (one, two):
        assert await one.receive() == 1
        one.close()
        await source.send(2)
        source.close()
        assert await collected(two) == [1, 2]


@within
async def test_b2_each_item_goes_to_one_branch_exactly_once():
    async with ab.balance(closed(*range(1000)), 4) as branches:
        seen = await asyncio.gather(*map(collected, branches))
    assert sorted(flat(seen)) == list(range(1000))
    assert all(len(items) > 100 for items in seen)
    assert all(items == sorted(items) for items in seen)


@within
async def test_b2_who_has_least_to_do_gets_the_next():
    async with ab.balance(closed(*range(8)), 2, capacity=10) as branches:
        await turns(20)
        assert [branch.depth for branch in branches] == [4, 4]


@within
async def test_b1_when_nobody_reads_any_more_the_rest_stays():
    source = filled(1, 2, capacity=10)
    async with ab.broadcast(source, 2, capacity=1) as branches:
        await parked(branches[0], senders=1)
        for branch in branches:
            branch.close()
        await turns(20)
        assert drained(source) == [2]


@within
async def test_b2_a_slow_one_keeps_few():
    async with ab.balance(closed(*range(100)), ["slow", "fast"]) as (slow, fast):
        first = await slow.receive()
        rest = []
        while len(rest) < 98:
            rest.append(await fast.receive())
        assert sorted([first, *rest, await slow.receive()]) == list(range(100))


@within
@pytest.mark.parametrize("make", [ab.broadcast, ab.balance])
async def test_b8_a_fault_reaches_every_branch_after_its_items(make):
    async with make(closed(1, 2, error=OSError("torn")), 2, capacity=5) as branches:
        for branch in branches:
            if make is ab.broadcast:
                assert [await branch.receive(), await branch.receive()] == [1, 2]
            else:
                await branch.receive()
            with pytest.raises(OSError, match="torn"):
                await branch.receive()


@within
@pytest.mark.parametrize("make", [ab.broadcast, ab.balance])
async def test_b9_a_cancellation_reaches_every_branch(make):
    stop = ab.Cancel()
    ctx = ab.Context("job", cancel=ab.Cancel(stop))
    async with make(ab.Channel(), 2, ctx=ctx) as branches:
        reading = [asyncio.ensure_future(branch.receive()) for branch in branches]
        for branch in branches:
            await parked(branch, receivers=1)
        stop.cancel("closing time")
        for one in reading:
            with pytest.raises(ab.Cancelled, match="closing time"):
                await one


@within
async def test_b14_branches_stay_open_if_wanted():
    async with ab.broadcast(closed(1), 1, close_branches=False) as (branch,):
        assert await branch.receive() == 1
        await turns(10)
        assert not branch.closed


def events(text):
    return [{"tenant": tenant, "n": n} for n, tenant in enumerate(text)]


@within
async def test_b3_the_same_key_the_same_branch_in_order_and_hooks_run():
    opened, closed_ones = [], []
    router = ab.fan_out(
        closed(*events("abcabcaaa")),
        by="tenant",
        on_new_branch=lambda tenant, _: opened.append(tenant),
        on_branch_closed=closed_ones.append,
    )
    async with router as branches:
        await branches.finished()
        assert opened == list(branches) == ["a", "b", "c"]
        assert [e["n"] for e in drained(branches["a"])] == [0, 3, 6, 7, 8]
        assert [e["n"] for e in drained(branches["c"])] == [2, 5]
        branches.drain("b")
    assert closed_ones == ["b"]


@within
async def test_b3_a_key_may_be_computed_and_keys_may_be_anything():
    async with ab.fan_out(closed(*range(10)), by=lambda n: n % 3 == 0) as branches:
        await branches.finished()
        assert {key: drained(branch) for key, branch in branches.items()} == {
            True: [0, 3, 6, 9],
            False: [1, 2, 4, 5, 7, 8],
        }


@within
async def test_b4_branches_are_added_drained_and_removed_while_it_runs():
    source, opened = ab.Channel(10), []
    router = ab.fan_out(source, "tenant", on_new_branch=lambda *new: opened.append(new))
    async with router as branches:
        early = branches.add("early")
        assert branches["early"] is early
        with pytest.raises(ab.BranchError, match="open already"):
            branches.add("early")
        await source.send_many(events("aab"))
        await turns(20)
        first = branches["a"]
        branches.drain("a")
        branches.remove("b")
        assert "a" not in branches
        # What a drained branch holds is finished; the next item opens it again.
        await source.send_many(events("ab"))
        await turns(20)
        assert [e["n"] for e in await collected(first)] == [0, 1]
        assert branches["a"] is not first
        assert len(drained(branches["a"])) == 1
        # A removed one stays away, until it is added.
        assert "b" not in branches
        assert branches.refused == 1
        branches.add("b")
        await source.send_many(events("b"))
        await turns(20)
        assert branches["b"].depth == 1
        with pytest.raises(ab.BranchError, match="there is no branch 'zzz'"):
            branches.drain("zzz")
    assert [tenant for tenant, _ in opened] == ["early", "a", "b", "a", "b"]


@ab.testing.virtual_time
async def test_b4_an_idle_branch_is_closed_and_comes_back_for_its_next_item(clock):
    source, closed_ones = ab.Channel(10), []
    router = ab.fan_out(source, "tenant", idle_ttl=10.0, on_branch_closed=closed_ones.append)
    async with router as branches:
        await source.send_many(events("aab"))
        await clock.advance(6.0)
        assert len(drained(branches["b"])) == 1
        await source.send_many(events("a"))
        await clock.advance(6.0)
        # Nothing has come for the one, which is empty, for 12 s; for the other for 6 s.
        assert (list(branches), closed_ones) == (["a"], ["b"])
        # What still holds something stays.
        await clock.advance(30.0)
        assert list(branches) == ["a"]
        first = branches["a"]
        assert len(drained(first)) == 3
        await clock.advance(10.0)
        assert (list(branches), closed_ones, first.closed) == ([], ["b", "a"], True)
        await source.send_many(events("a"))
        await clock.advance(0.0)
        assert branches["a"].depth == 1


@ab.testing.virtual_time
async def test_b4_what_is_told_of_an_idle_branch_may_raise(clock):
    source = ab.Channel(10)

    def told(tenant):
        raise PermissionError(tenant)

    with pytest.raises(PermissionError, match="a"):
        async with ab.fan_out(source, "tenant", idle_ttl=1.0, on_branch_closed=told) as branches:
            await source.send_many(events("a"))
            await clock.advance(0.5)
            assert len(drained(branches["a"])) == 1
            await clock.advance(1.0)
            await branches.finished()


@within
async def test_b5_capacity_and_overflow_may_depend_on_the_tenant():
    router = ab.fan_out(
        closed(*events("abababab")),
        "tenant",
        capacity=lambda tenant: 2 if tenant == "a" else 100,
        on_full=lambda tenant: "drop_newest" if tenant == "a" else "wait",
    )
    async with router as branches:
        await branches.finished()
        assert [e["n"] for e in drained(branches["a"])] == [0, 2]
        assert branches["a"].stats().dropped == 2
        assert branches["b"].depth == 4


@within
async def test_b6_a_full_branch_does_not_hold_up_what_is_in_hand_for_others():
    async with ab.fan_out(filled(*events("aaabc")), "tenant", capacity=1) as branches:
        await turns(20)
        assert [branches[tenant].depth for tenant in "abc"] == [1, 1, 1]
        assert branches["a"].stats().senders == 1


@within
async def test_b10_one_branch_too_many_is_an_error_and_nothing_is_lost():
    source = closed(*events("abc"))
    with pytest.raises(ab.BranchRefused, match="one branch more than the 2 allowed") as refused:
        async with ab.fan_out(source, "tenant", max_branches=2) as branches:
            await branches.finished()
    assert refused.value.code == "branch.limit"
    assert [e["tenant"] for e in drained(source)] == ["c"]


@within
async def test_a_key_that_raises_ends_it_and_reaches_the_branches():
    source = filled({"tenant": "a"})
    with pytest.raises(KeyError):
        async with ab.fan_out(source, "tenant") as branches:
            await turns(10)
            assert drained(branches["a"]) == [{"tenant": "a"}]
            await source.send_many([{"tenant": "a"}, {"x": 1}])
            with pytest.raises(KeyError):
                await branches["a"].receive()
    assert drained(source) == [{"tenant": "a"}, {"x": 1}]


@within
async def test_f10_a_cancelled_fan_out_puts_back_what_it_holds_in_order_per_key():
    source = filled(*events("abababab"))
    async with ab.fan_out(source, "tenant", capacity=1) as branches:
        await turns(20)
        a, b = branches["a"], branches["b"]
        assert a.stats().senders == 1
    rest = drained(source)
    for tenant, branch, numbers in (("a", a, [0, 2, 4, 6]), ("b", b, [1, 3, 5, 7])):
        stayed = [e["n"] for e in rest if e["tenant"] == tenant]
        assert [e["n"] for e in drained(branch)] + stayed == numbers


@within
@pytest.mark.parametrize("make", [ab.broadcast, ab.balance])
async def test_b9_a_context_that_is_cancelled_already_lets_nothing_begin(make):
    source, stop = filled(1, 2), ab.Cancel()
    stop.cancel("closed today")
    with pytest.raises(ab.Cancelled, match="closed today"):
        async with make(source, 2, ctx=ab.Context("job", cancel=stop)):
            pass
    assert drained(source) == [1, 2]


@within
async def test_what_the_block_raises_goes_before_what_a_key_has_raised():
    with pytest.raises(ValueError, match="mine"):
        async with ab.fan_out(filled({"x": 1}), "tenant") as branches:
            with pytest.raises(KeyError, match="tenant"):
                await branches.finished()
            raise ValueError("mine")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ab.broadcast([1], 2), r"broadcast: reader must be a Channel, got \[1\]"),
        (lambda: ab.broadcast(ab.Channel(), 0), "branches must be an int from 1 to 256"),
        (lambda: ab.broadcast(ab.Channel(), ["a", "a"]), "branches must be names that differ"),
        (lambda: ab.balance(ab.Channel(), ["a", ""]), r"branches\[1\] must be a str that is not"),
        (lambda: ab.balance(ab.Channel(), 2, capacity=0), "balance: capacity must be an int >= 1"),
        (lambda: ab.broadcast(ab.Channel(), 2, capacity=True), "broadcast: capacity must be an"),
        (
            lambda: ab.broadcast(ab.Channel(), 2, on_full="fall"),
            "broadcast: on_full must be",
        ),
        (lambda: ab.broadcast(ab.Channel(), 2, ctx=1), "ctx must be a Context or None, got 1"),
        (lambda: ab.fan_out(ab.Channel(), 1), "fan_out: by must be a name, ab.item"),
        (lambda: ab.fan_out(ab.Channel(), "a", max_branches=0), "max_branches must be an int >= 1"),
        (lambda: ab.fan_out(ab.Channel(), "a", capacity=0), "fan_out: capacity must be an int"),
        (lambda: ab.fan_out(ab.Channel(), "a", capacity=later), "fan_out: capacity must be a def"),
        (lambda: ab.fan_out(ab.Channel(), "a", on_full=later), "fan_out: on_full must be a def"),
        (
            lambda: ab.fan_out(ab.Channel(), "a", capacity=0, on_full=lambda _: "wait"),
            "fan_out: capacity must be an int",
        ),
        (lambda: ab.fan_out(ab.Channel(), "a", idle_ttl=0), "idle_ttl must be"),
        (
            lambda: ab.fan_out(ab.Channel(), "a", on_new_branch=1),
            "on_new_branch must be a callable",
        ),
        (lambda: ab.fan_out(ab.Channel(), "a", close_branches=1), "close_branches must be True or"),
    ],
)
def test_a_bad_argument_is_refused(make, said):
    with pytest.raises(ab.ConfigError, match=said):
        make()
