"""How many connections there are, and whose: row X6, without a database."""

import asyncio

from anabranch._outbox.places import Ears, Places


class Plain:
    """A store that knows only whether its connection was closed."""

    def __init__(self, name):
        self.name = name
        self.costs = True
        self.line = self
        self.rests = 0
        self.heard = []

    def __repr__(self):
        return self.name

    def rest(self):
        self.rests += 1

    def listen(self, heard):
        self.heard.append(heard)
        return self.heard.clear


async def aside(call):
    await asyncio.sleep(0)
    return call()


def test_x6_the_connection_that_was_needed_longest_ago_makes_room():
    a, b, c = Plain("a"), Plain("b"), Plain("c")

    async def main():
        places = Places(2, aside)
        for store in (a, b, a, c):
            async with places.of(store):
                assert places.taken <= 2
        assert (a.rests, b.rests, c.rests) == (0, 1, 0)

    asyncio.run(main())


def test_x6_idle_stores_do_not_close_the_connection_of_one_at_work():
    hot, idle = Plain("hot"), [Plain(f"idle{n}") for n in range(50)]

    async def main():
        places = Places(3, aside, lambda store: store is hot)
        for store in (hot, *idle):
            async with places.of(store):
                pass
        async with places.of(hot):
            pass
        assert hot.rests == 0
        assert sum(store.rests for store in idle) == 48

    asyncio.run(main())


def test_x6_who_finds_none_free_waits_for_one():
    a, b = Plain("a"), Plain("b")
    order = []

    async def main():
        places = Places(1, aside)
        go_on = asyncio.Event()

        async def use(store, wait):
            async with places.of(store):
                order.append(store.name)
                if wait:
                    await go_on.wait()

        first = asyncio.create_task(use(a, wait=True))
        await asyncio.sleep(0)
        cut, second = (asyncio.create_task(use(b, wait=False)) for _ in range(2))
        await asyncio.sleep(0)
        # One that waits is cut short, and keeps nobody from its place.
        cut.cancel()
        go_on.set()
        await asyncio.gather(first, second)
        assert (order, a.rests, places.taken) == (["a", "b"], 1, 1)
        await places.leave(b)
        assert (b.rests, places.taken) == (1, 0)

    asyncio.run(main())


def test_x6_those_that_had_messages_last_are_listened_to():
    a, b, c = Plain("a"), Plain("b"), Plain("c")
    ears = Ears(2)
    for store in (a, b, c):
        ears.warm(store, float("-inf"), print)
    assert len([it for it in (a, b, c) if it in ears]) == 2
    ears.warm(a, 100.0, print)
    ears.warm(c, 101.0, print)
    assert (a in ears, b in ears, c in ears) == (True, False, True)
    # Both are warm: a third one is not listened to until one of them has been cold for a while.
    ears.warm(b, 102.0, print)
    assert b not in ears
    ears.warm(b, 120.0, print)
    assert (a in ears, b in ears) == (False, True)
    ears.close()
    assert not any(it.heard for it in (a, b, c))
