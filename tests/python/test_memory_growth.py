"""`memory_growth` and `MemoryWatch` see what is kept."""

import mmap

import pytest

import anabranch as ab


def test_memory_growth_sees_one_object_per_call():
    kept = []
    assert ab.testing.memory_growth(lambda: None, calls=100).blocks < 10
    assert ab.testing.memory_growth(lambda: kept.append(object()), calls=100).blocks >= 100


def test_memory_growth_sees_pages_that_are_not_pythons():
    page, kept = b"x" * (1 << 20), []

    def keep_a_mebibyte():
        kept.append(mmap.mmap(-1, len(page)))
        kept[-1].write(page)

    growth = ab.testing.memory_growth(keep_a_mebibyte, calls=10)
    assert growth.resident is None or growth.resident >= 9 << 20
    for pages in kept:
        pages.close()


def test_memory_watch_tells_the_highest_after_the_warm_up():
    watch, kept = ab.testing.MemoryWatch(warm_up=2), []
    with pytest.raises(RuntimeError, match="twice"):
        _ = watch.growth
    for size in (5000, 0, 0, 300, 0):
        kept[:] = [object() for _ in range(size)]
        watch.look()
    assert 300 <= watch.growth.blocks < 400


@pytest.mark.parametrize("argument", ["calls", "warm_up", "rounds"])
def test_memory_helpers_refuse_bad_counts(argument):
    with pytest.raises(ab.ConfigError, match=f"memory_growth: {argument} must be"):
        ab.testing.memory_growth(int, **{argument: 0})
    with pytest.raises(ab.ConfigError, match="MemoryWatch: warm_up must be"):
        ab.testing.MemoryWatch(warm_up=-1)
