"""`per_thread`: one object per thread, all closed together."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Thread

import pytest

import anabranch as ab


class Connection:
    def __init__(self, closed):
        self.closed = closed

    def close(self):
        self.closed.append(self)


def test_each_thread_gets_an_object_of_its_own_and_keeps_it():
    own = ab.per_thread(object)
    together = Barrier(4)

    def use(_):
        together.wait(timeout=30)
        return own(), own()

    with ThreadPoolExecutor(4) as pool:
        pairs = list(pool.map(use, range(4)))
    assert all(first is again for first, again in pairs)
    assert len({id(first) for first, _ in pairs}) == 4


def test_close_closes_all_of_them_latest_first_and_once():
    closed = []
    own = ab.per_thread(lambda: Connection(closed))
    first = own()
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(own).result()
    own.close()
    own.close()
    assert closed == [second, first]


def test_c16_a_sqlite_connection_of_an_ended_thread_is_closed():
    made = []

    def connect():
        made.append(sqlite3.connect(":memory:", check_same_thread=False))
        return made[-1]

    with ab.per_thread(connect) as connection:
        user = Thread(target=lambda: connection().execute("select 1"))
        user.start()
        user.join()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        made[0].execute("select 1")


def test_objects_without_close_are_let_go():
    own = ab.per_thread(object)
    own()
    own.close()


def test_after_close_there_is_a_clear_error():
    own = ab.per_thread(object)
    own()
    own.close()
    with pytest.raises(ab.ClosedError, match=r"per_thread\(object\) is closed"):
        own()


def test_an_object_made_while_closing_is_closed_too():
    closed = []

    def slow():
        own.close()
        return Connection(closed)

    own = ab.per_thread(slow)
    with pytest.raises(ab.ClosedError):
        own()
    assert len(closed) == 1


def test_a_close_that_raises_does_not_spare_the_others():
    closed = []

    class Broken(Connection):
        def close(self):
            super().close()
            raise OSError("cannot")

    own = ab.per_thread(lambda: Broken(closed))
    own()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(own).result()
    with pytest.raises(ExceptionGroup, match="could not close 2 objects") as caught:
        own.close()
    assert [str(error) for error in caught.value.exceptions] == ["cannot", "cannot"]
    assert len(closed) == 2

    alone = ab.per_thread(lambda: Broken(closed))
    alone()
    with pytest.raises(OSError, match="cannot"):
        alone.close()


def test_a_factory_that_raises_is_asked_again():
    answers = iter([OSError("not yet"), "connection"])

    def connect():
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    own = ab.per_thread(connect)
    with pytest.raises(OSError, match="not yet"):
        own()
    assert own() == "connection"
    own.close()


def test_a_factory_can_be_called():
    with pytest.raises(ab.ConfigError, match="factory must be a callable without arguments"):
        ab.per_thread("shop.db")
