"""Dead letters are made ready again at a rate, and who has asked hears how far that is."""

import pytest
from looker import sockets
from test_ctl import ctl
from test_monitor import RUN, directory, running  # noqa: F401 - a fixture
from test_monitor_outbox import MAIL, Clerk

import anabranch as ab
from anabranch._outbox.requeue import Requeue, is_long
from anabranch._outbox.shown import Shown

# As many dead letters as this.
LETTERS = 60
DEAD = (
    MAIL.replace("range(5)", f"range({LETTERS})").replace("claim(3)", f"claim({LETTERS})")
).replace("OUTBOX", "ab.Outbox.memory()") + RUN


class Told:
    """What a monitor would be told."""

    def __init__(self):
        self.left, self.over = [], None

    def progress(self, number, left):
        assert number == 7
        self.left.append(left)

    def answer(self, number, count, message):
        self.over = (number, count, message)

    def refuse(self, number, code, message):
        self.over = (number, code, message)


def outbox_with(dead):
    outbox = ab.Outbox.memory()
    outbox.migrate()
    for n in range(dead):
        outbox.enqueue("mail", {"n": n})
    for message in outbox.claim(dead):
        outbox.fail(message, "no such address")
    return outbox


def request(rate=None, *, ids=(), seen=None, dry=False, operation="dl.requeue"):
    return (7, operation, "mail", list(ids), seen, rate, dry, "ada")


def order(outbox, told, rate=None, seen=None):
    shown = Shown("mail", outbox._store, payloads=False)
    return Requeue(told, request(rate, seen=seen), shown, now=100.0)


def counts(outbox):
    return outbox.counts()["mail"]


def test_dashboard_10_so_many_letters_a_second_are_made_ready_again():
    outbox, told = outbox_with(100), Told()
    requeue = order(outbox, told, rate=40.0)
    assert not requeue.go_on(100.0)
    assert counts(outbox) == {"dead": 60, "ready": 40}, "the first second's at once"
    assert not requeue.go_on(100.05), "not before it is due"
    assert requeue.due == pytest.approx(100.1)
    assert not requeue.go_on(100.5)
    assert counts(outbox) == {"dead": 40, "ready": 60}
    assert told.left == [60, 40]
    assert requeue.go_on(102.0)
    assert counts(outbox) == {"ready": 100}
    assert told.over == (7, 100, "100 dead letters of mail are ready again")


def test_dashboard_10_without_a_rate_two_hundred_a_second_are():
    outbox, told = outbox_with(250), Told()
    requeue = order(outbox, told)
    assert not requeue.go_on(100.0)
    assert counts(outbox) == {"dead": 50, "ready": 200}
    assert requeue.go_on(100.3)


def test_dashboard_10_what_dies_again_meanwhile_is_not_made_ready_once_more():
    outbox, told = outbox_with(30), Told()
    requeue = order(outbox, told, rate=10.0)
    now, tried = 100.0, []
    over = False
    while not over:
        over = requeue.go_on(now)
        for message in outbox.claim(100):
            tried.append(message.id)
            outbox.fail(message, "still no such address")
        now += 1.0
    assert sorted(tried) == list(range(1, 31)), "each once"
    assert told.over == (7, 30, "30 dead letters of mail are ready again")


def test_dashboard_10_letters_that_others_came_to_are_refused_and_a_store_that_fails_says_how_far():
    outbox, told = outbox_with(5), Told()
    assert order(outbox, told, seen=4).go_on(100.0)
    assert told.over == (7, "conflict", "5 letters of mail are dead now, not 4")
    assert counts(outbox) == {"dead": 5}
    requeue = order(outbox, told, rate=2.0)
    assert not requeue.go_on(100.0)

    def down(*_, **__):
        raise ab.StoreUnavailable("it is down", reason="unreachable")

    outbox._store.rows = down
    assert requeue.go_on(101.0)
    number, code, message = told.over
    assert (number, code) == (7, "failed")
    assert message.endswith("2 dead letters of mail are ready again")


def test_dashboard_10_one_that_is_left_says_how_far_it_came():
    outbox, told = outbox_with(5), Told()
    requeue = order(outbox, told, rate=2.0)
    assert not requeue.go_on(100.0)
    requeue.leave("ended", "the process ends")
    told_why = "the process ends; 2 dead letters of mail are ready again"
    assert told.over == (7, "ended", told_why)


def test_dashboard_10_only_what_is_about_all_letters_of_a_store_takes_long():
    assert is_long(request())
    assert not is_long(request(ids=[1]))
    assert not is_long(request(dry=True))
    assert not is_long(request(operation="dl.discard"))


def test_dashboard_10_who_has_asked_hears_how_much_is_left(directory):  # noqa: F811
    with running(DEAD), Clerk(*sockets(directory)) as clerk:
        clerk.until_read("memory")
        dry = clerk.command("dl.requeue", on={"store": "memory"}, dry=True, args={"rate": 40.0})
        assert ", 40 a second, in about 2 s; the first died" in dry["msg"]
        done = clerk.command("dl.requeue", on={"store": "memory"}, args={"rate": 40.0})
        assert (done["ok"], done["n"]) == (True, LETTERS)
        left = [it["left"] for it in clerk.heard if it["t"] == "prog"]
        assert left == sorted(left, reverse=True)
        assert left[0] == LETTERS - 40
        assert all(it["id"] == clerk.commands for it in clerk.heard if it["t"] == "prog")
        bad = clerk.command("dl.requeue", on={"store": "memory"}, args={"rate": -1.0})
        assert bad["err"]["code"] == "invalid"


def test_dashboard_10_ctl_waits_for_letters_that_come_at_a_rate(directory):  # noqa: F811
    with running(DEAD):
        # Without what it hears of how far that is, half a second would be over.
        code, out, err = ctl(
            "requeue",
            "memory",
            "--yes",
            "--rate",
            "40",
            "--timeout",
            "400ms",
            "--process",
            "python",
        )
        assert (code, err) == (0, "")
        assert out == f"memory: {LETTERS} dead letters of memory are ready again\n"
    code, _, err = ctl("requeue", "memory", "--rate", "none")
    assert code == 2
    assert "must be a number per second, above 0" in err
