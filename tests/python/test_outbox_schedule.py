"""The schedule of a worker's turns: rows X2 to X6 as pure state, with random courses."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import anabranch as ab
from anabranch._outbox.schedule import Schedule, Turn
from anabranch.selection import selection_of

FULL, SOME, NONE = Turn("full"), Turn("some"), Turn("none")
NAMES = ["round_robin", "drain_first", "weighted", "longest_backlog", "oldest_first"]


def schedule(selection="round_robin", *, parallel=1, poll=(1.0, 30.0)) -> Schedule:
    return Schedule(selection_of(selection)[0], parallel=parallel, poll=poll, seed=7)


def served(made: Schedule, backlog: dict[str, int], turns: int, *, now=0.0) -> list[str]:
    """Give turns to stores that each have so many full claims, and tell who had them."""
    order = []
    for _ in range(turns):
        for key in made.begin(now):
            order.append(key)
            backlog[key] -= 1
            left = backlog[key]
            made.end(key, now, Turn("full" if left > 0 else "none", None, left, float(left)))
    return order


def with_stores(selection, backlog, **weights) -> Schedule:
    made = schedule(selection)
    for key in backlog:
        made.add(key, 0.0, tenant=key, weight=weights.get(key, 1.0))
    return made


def test_x4_round_robin_takes_turns():
    backlog = {"a": 9, "b": 9, "c": 9}
    assert served(with_stores("round_robin", backlog), backlog, 7) == list("abcabca")


def test_x4_drain_first_stays_until_a_store_is_empty():
    backlog = {"a": 3, "b": 2}
    order = served(with_stores("drain_first", backlog), backlog, 5)
    assert order in (list("aaabb"), list("bbaaa"))


def test_x4_drain_first_passes_nobody_over_for_long():
    backlog = {"a": 1000, "b": 1000}
    order = served(with_stores("drain_first", backlog), backlog, 100)
    assert min(order.count("a"), order.count("b")) >= 3


def test_x4_weighted_gives_turns_by_weight():
    backlog = {"a": 1000, "b": 1000, "c": 1000}
    order = served(with_stores("weighted", backlog, a=3.0, b=2.0), backlog, 600)
    assert {key: order.count(key) for key in backlog} == {"a": 300, "b": 200, "c": 100}
    # In every stretch, not only in the end.
    assert all(2 <= order[at : at + 6].count("a") <= 4 for at in range(0, 600, 6))


def test_x4_weighted_one_that_was_away_does_not_catch_up():
    backlog = {"a": 1000, "b": 1}
    made = with_stores("weighted", backlog)
    served(made, backlog, 100)
    backlog["b"] = 1000
    made.hear("b", 0.0)
    order = served(made, backlog, 20)
    assert 9 <= order.count("b") <= 11


@pytest.mark.parametrize("selection", ["longest_backlog", "oldest_first"])
def test_x4_the_one_with_most_to_do_is_next(selection):
    backlog = {"a": 5, "b": 8}
    order = served(with_stores(selection, backlog), backlog, 6)
    # Each is looked at first.
    assert sorted(order[:2]) == ["a", "b"]
    assert order[2:5] == ["b", "b", "b"]


def test_x4_a_store_that_was_told_of_something_is_looked_at_again():
    backlog = {"a": 50, "b": 1}
    made = with_stores("longest_backlog", backlog)
    served(made, backlog, 3)
    backlog["b"] = 1
    made.hear("b", 0.0)
    assert "b" in served(made, backlog, 2)


def test_x4_a_callable_sees_depth_age_and_failures():
    seen = []

    def last(stores):
        seen.extend((it.tenant, it.depth, it.oldest, it.failures) for it in stores)
        return stores[-1]

    backlog = {"a": 3, "b": 3}
    made = with_stores(last, backlog)
    made.begin(0.0)
    made.fail("b", 0.0)
    served(made, backlog, 3, now=100.0)
    assert ("b", None, None, 1) in seen
    assert ("a", 2, 2.0, 0) in seen or ("b", 2, 2.0, 0) in seen


def test_x4_a_callable_that_returns_something_else_is_refused():
    made = with_stores(lambda stores: None, {"a": 1, "b": 1})
    with pytest.raises(ab.ConfigError, match="selection must return one of the stores"):
        made.begin(0.0)


@pytest.mark.parametrize("given", ["robin", 7, None])
def test_x4_what_is_no_selection_is_refused(given):
    with pytest.raises(ab.ConfigError, match="selection must be one of 'round_robin'"):
        selection_of(given)


def test_x5_a_store_that_cannot_be_reached_is_left_alone_for_longer_each_time():
    made = with_stores("round_robin", {"a": 1})
    rests = []
    now = 0.0
    for _ in range(12):
        assert made.begin(now) == ["a"]
        rests.append(made.fail("a", now))
        assert made.begin(now + rests[-1] / 2) == []
        now += rests[-1]
    assert rests[0] <= 0.2
    assert all(15.0 <= rest <= 30.0 for rest in rests[-3:])
    # What is enqueued meanwhile does not make it rest less; once it works it is as before.
    made.hear("a", now - 1.0)
    assert made.begin(now - 0.5) == []
    assert made.begin(now) == ["a"]
    made.end("a", now, FULL)
    assert made.view("a").failures == 0
    assert made.begin(now) == ["a"]


def test_x5_stores_that_cannot_be_reached_keep_no_turns_from_the_others():
    made = schedule(parallel=8)
    dead, live = [f"dead{n}" for n in range(20)], [f"live{n}" for n in range(4)]
    for key in dead:
        made.add(key, 0.0)
    now = 0.0
    failed = set()
    while len(failed) < len(dead):
        for key in made.begin(now):
            made.fail(key, now)
            failed.add(key)
        now += 0.001
    for key in live:
        made.add(key, now + 100.0)
    begun = made.begin(now + 100.0)
    # Two of the eight turns are enough to see whether they work again.
    assert sorted(set(begun) & set(live)) == live
    assert len(set(begun) & set(dead)) == 2


def test_x6_a_full_batch_is_followed_by_the_next_claim_at_once():
    made = with_stores("round_robin", {"a": 1})
    for _ in range(3):
        assert made.begin(5.0) == ["a"]
        made.end("a", 5.0, FULL)


def test_x6_an_idle_store_is_asked_less_often_a_hot_one_each_second():
    made = with_stores("round_robin", {"a": 1})
    now, polls = 0.0, []
    for _ in range(9):
        assert made.begin(now) == ["a"]
        made.end("a", now, NONE)
        polls.append(made.until() - now)
        now = made.until()
    assert 0.9 <= polls[0] <= 1.0
    assert 27.0 <= polls[-1] <= 30.0
    assert all(one <= 4.1 * before for before, one in itertools.pairwise(polls))
    made.hear("a", now - 10.0)
    assert made.begin(now - 10.0) == ["a"]
    made.end("a", now - 10.0, SOME)
    assert 0.9 <= made.until() - (now - 10.0) <= 1.0


def test_x6_polls_of_many_stores_are_spread():
    made = schedule(parallel=1000)
    for number in range(500):
        made.add(number, 0.0)
    now = 0.0
    while now < 60.0:
        for key in made.begin(now):
            made.end(key, now, NONE)
        now = made.until()
    busiest = 0
    for _ in range(60):
        now += 1.0
        begun = made.begin(now)
        busiest = max(busiest, len(begun))
        for key in begun:
            made.end(key, now, NONE)
    assert busiest <= 120


def test_x6_what_is_enqueued_during_a_turn_is_not_missed():
    made = with_stores("round_robin", {"a": 1})
    assert made.begin(0.0) == ["a"]
    made.hear("a", 0.5)
    made.end("a", 1.0, NONE)
    assert made.begin(1.0) == ["a"]


def test_k8_a_turn_comes_when_something_is_due():
    made = with_stores("round_robin", {"a": 1})
    made.begin(0.0)
    made.end("a", 0.0, Turn("none", 0.25))
    assert made.begin(0.2) == []
    assert made.until() == 0.25
    assert made.begin(0.25) == ["a"]


def test_x3_a_store_may_be_removed_in_any_state():
    made = with_stores("round_robin", {"waiting": 1, "due": 1, "running": 1})
    made.begin(0.0)
    for key in ("running", "due", "waiting"):
        made.remove(key)
        made.remove(key)
    for key in ("running", "due", "waiting"):
        made.end(key, 0.0, FULL)
        made.hear(key, 0.0)
        made.hint(key, 0.0)
        assert made.fail(key, 0.0) > 0.0
    assert made.until() is None
    made.add("running", 1.0)
    assert made.begin(1.0) == ["running"]


class Course:
    """Random things that happen to a schedule, and what must hold all along."""

    STEPS = ("add", "remove", "hear", "hint", "end", "fail", "pass_time")

    def __init__(self, seed: int, selection: str, parallel: int) -> None:
        self.chance = random.Random(seed)
        self.made = schedule(selection, parallel=parallel)
        self.parallel = parallel
        self.present, self.running = set(), set()
        self.now = 0.0

    def step(self) -> None:
        getattr(self, self.chance.choice(self.STEPS))(self.chance.randrange(12))
        for begun in self.made.begin(self.now):
            assert begun in self.present
            assert begun not in self.running
            self.running.add(begun)
        assert len(self.running) <= self.parallel

    def add(self, key):
        self.made.add(key, self.now, tenant=key, weight=self.chance.choice([0.5, 1.0, 4.0]))
        self.present.add(key)

    def remove(self, key):
        self.made.remove(key)
        self.present.discard(key)
        self.running.discard(key)

    def hear(self, key):
        self.made.hear(key, self.now)

    def hint(self, key):
        self.made.hint(key, self.now + self.chance.random())

    def pass_time(self, key):
        self.now += self.chance.choice([0.0, 0.1, 40.0])

    def end(self, key):
        if key in self.running:
            self.running.remove(key)
            depth = self.chance.randrange(5)
            found = self.chance.choice(["full", "some", "none", "blocked"])
            self.made.end(key, self.now, Turn(found, None, depth, float(depth)))

    def fail(self, key):
        if key in self.present:
            self.running.discard(key)
            self.made.fail(key, self.now)

    def all_have_their_turn(self) -> None:
        for key in sorted(self.running):
            self.made.end(key, self.now, FULL)
        missing = set(self.present)
        for _ in range(4000):
            for key in self.made.begin(self.now):
                missing.discard(key)
                self.made.end(key, self.now, FULL if self.chance.random() < 0.9 else NONE)
            self.now += 0.05
            if not missing:
                break
        assert not missing


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    selection=st.sampled_from(NAMES),
    parallel=st.integers(1, 9),
)
def test_x3_x4_x6_whatever_happens_every_store_has_its_turn(seed, selection, parallel):
    """No turn too many, none twice at once, none for a store that is gone, and nobody starves."""
    course = Course(seed, selection, parallel)
    for _ in range(400):
        course.step()
    course.all_have_their_turn()
