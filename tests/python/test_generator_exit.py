"""A GeneratorExit of a callable is an error; that of a closed coroutine is no step: E4, E6."""

import asyncio

import pytest

import anabranch as ab


def raises_its_own(ctx, undone):
    ctx.compensate(undone.append, "undone")
    raise GeneratorExit("out")


async def grouped(part):
    async with ab.ErrGroup() as group:
        group.go(part)


CALLS = {
    "retry": lambda part: ab.retry(part, ab.Retry.fixed(1.0)),
    "timeout": lambda part: ab.timeout(part, 9.0),
    "all_of": ab.all_of,
    "race": ab.race,
    "fallback": ab.fallback,
    "saga": lambda part: ab.Saga("s").step("one", lambda _, ctx: part(ctx)).run(),
    "group": grouped,
}


@pytest.mark.parametrize("asynchronous", [False, True], ids=["def", "async"])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_e4_a_generator_exit_of_a_part_is_undone_like_any_error(call, asynchronous, caplog):
    undone = []

    def part(ctx):
        raises_its_own(ctx, undone)

    async def part_async(ctx):
        await asyncio.sleep(0)
        part(ctx)

    async def main():
        with pytest.raises(GeneratorExit, match="out"):
            await call(part_async if asynchronous else part)

    ab.testing.run(main())
    assert undone == ["undone"]
    assert "never retrieved" not in caplog.text


def test_e4_so_it_is_of_a_handler_whose_item_goes_back():
    undone = []

    async def handle(item, ctx):
        await asyncio.sleep(0)
        raises_its_own(ctx, undone)

    async def main():
        channel = ab.Channel(1)
        channel.send_nowait("item")
        with pytest.raises(GeneratorExit, match="out"):
            await ab.fan_in([channel], handle)
        return channel.receive_nowait()

    assert (ab.testing.run(main()), undone) == ("item", ["undone"])


def test_e4_so_it_is_of_what_a_result_goes_on_to():
    undone = []

    async def part(n, ctx):
        await asyncio.sleep(0)
        raises_its_own(ctx, undone)

    async def main():
        with pytest.raises(GeneratorExit, match="out"):
            await ab.Ok(1).map(part)

    ab.testing.run(main())
    assert undone == ["undone"]


def closed_in_the_middle(coroutine):
    """Begin a coroutine, and close the loop under it and all its tasks."""
    loop = asyncio.new_event_loop()
    begun = loop.create_task(coroutine)
    for _ in range(5):
        loop.run_until_complete(asyncio.sleep(0))
    tasks = {begun, *asyncio.all_tasks(loop)}
    loop.close()
    for task in tasks:
        task._log_destroy_pending = False
        task.get_coro().close()


def test_e6_a_call_that_is_closed_ends_without_a_step_more():
    undone = []

    async def part(ctx):
        ctx.compensate(undone.append, "undone")
        await asyncio.Event().wait()

    closed_in_the_middle(ab.retry(part, ab.Retry.fixed(1.0)))
    assert undone == []


def test_e6_so_does_a_rollback():
    ran = []

    async def undo():
        ran.append("undo")
        await asyncio.Event().wait()

    scope = ab.CompensationScope()
    scope.compensate(ran.append, "first")
    scope.compensate(undo, retries=1)
    closed_in_the_middle(scope.rollback())
    assert ran == ["undo"]


def test_f10_an_item_in_hand_goes_back_when_the_loop_is_closed():
    async def handle(_):
        await asyncio.Event().wait()

    channel = ab.Channel(2)
    channel.send_many_nowait(["one", "two"])
    closed_in_the_middle(ab.fan_in([channel], handle))
    assert channel.receive_many_nowait() == ["one", "two"]
