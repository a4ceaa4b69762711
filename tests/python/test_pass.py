"""The generated pass: fused callables keep what each of them would have kept alone."""

import itertools
import linecache
import traceback

import pytest
from support import balanced, every_driver, go

import anabranch as ab


def calls(log, name, result=None):
    """Make a callable that logs its calls and fails at every number that ends in its digit."""

    def call(n):
        log.append((name, n))
        if n % 10 == 3 and name == "first":
            raise ValueError(n)
        if n % 10 == 7 and name == "second":
            raise KeyError(n)
        return n if result is None else result

    return call


def plain(log):
    pipeline = ab.Pipeline("p").source(range(5000)).map(calls(log, "first"))
    return pipeline.filter(calls(log, "keep", result=True)).tap(calls(log, "second"))


def tracked(log):
    return plain(log).tap(lambda n, ctx: None)


def keyed(log):
    return plain(log).fan_out(by=calls(log, "key", result="all"))


def tracked_and_keyed(log):
    return tracked(log).fan_out(by=lambda n, ctx: "all").tap(lambda n, ctx: None)


def behind_a_leg(log):
    async def first(n):
        return n

    pipeline = ab.Pipeline("p").source(range(5000)).map(first).map(calls(log, "first"))
    return pipeline.filter(calls(log, "keep", result=True)).tap(calls(log, "second"))


@pytest.mark.parametrize("make", [plain, tracked, keyed, tracked_and_keyed, behind_a_leg])
@every_driver
def test_t13_an_exception_loses_nothing_and_runs_nothing_twice(driver, make):
    log = []
    report = balanced(go(make(log).collect(), driver))
    assert report.items == [n for n in range(5000) if n % 10 not in (3, 7)]
    assert report.codes == {"ValueError": 500, "KeyError": 500}
    assert len(log) == len(set(log)), "something ran twice"
    assert [n for name, n in log if name == "first"] == list(range(5000))
    assert [n for name, n in log if name == "second"] == [n for n in range(5000) if n % 10 != 3]


@pytest.mark.parametrize("with_ctx", [False, True])
@every_driver
def test_t13_the_failing_stage_is_named(driver, with_ctx):
    def stage(bad):
        def call(n):
            if n == bad:
                raise ValueError(n)
            return n + 100 if n < 0 else n

        def call_ctx(n, ctx):
            return call(n)

        return call_ctx if with_ctx else call

    pipeline = ab.Pipeline("p").source([1, 2, 3, 4]).map(stage(1), name="one")
    pipeline = pipeline.filter(stage(2), name="two").tap(stage(3), name="three")
    pipeline = pipeline.fan_out(by=stage(4), name="four").collect()
    report = balanced(go(pipeline, driver))
    assert sorted((it.stage, it.error.args[0]) for it in report.failures) == [
        ("four", 4),
        ("one", 1),
        ("three", 3),
        ("two", 2),
    ]


@pytest.mark.parametrize("with_ctx", [False, True])
@every_driver
def test_t13_behind_the_key_a_failure_belongs_to_its_branch(driver, with_ctx):
    def refuse(pair):
        if pair[1] == 2:
            raise ValueError(pair)
        return pair

    def refuse_ctx(pair, ctx):
        assert ctx.tenant == pair[0]
        return refuse(pair)

    for by in (ab.item(0), lambda pair: pair[0]):
        pipeline = ab.Pipeline("p").source([("a", 1), ("a", 2), ("b", 2), ("b", 3)])
        pipeline = pipeline.fan_out(by=by).map(refuse_ctx if with_ctx else refuse).collect()
        report = balanced(go(pipeline, driver))
        assert [failure.tenant for failure in report.failures] == ["a", "b"]
        assert [(it.tenant, it.committed, it.failed) for it in report.branches] == [
            ("a", 1, 1),
            ("b", 1, 1),
        ]


@pytest.mark.parametrize("with_ctx", [False, True])
@every_driver
def test_t13_a_failing_child_does_not_cost_its_siblings(driver, with_ctx):
    def refuse(n):
        if n % 10 == 5:
            raise ValueError(n)
        return n

    def refuse_ctx(n, ctx):
        return refuse(n)

    def tens(n):
        return range(n * 10, n * 10 + 10)

    pipeline = ab.Pipeline("p").source([1, 2]).flat_map(tens)
    pipeline = pipeline.map(refuse_ctx if with_ctx else refuse).collect()
    report = balanced(go(pipeline, driver))
    assert report.items == [n for n in range(10, 30) if n % 10 != 5]
    assert (report.received, report.produced, report.failed) == (2, 18, 2)


@pytest.mark.parametrize("with_ctx", [False, True])
@every_driver
def test_t13_a_generator_that_raises_midway_keeps_the_children_it_gave(driver, with_ctx):
    def broken(n):
        yield n
        yield n + 1
        if n == 20:
            raise OSError(n)
        yield n + 2

    def broken_ctx(n, ctx):
        yield from broken(n)

    pipeline = ab.Pipeline("p").source([10, 20, 30]).flat_map(broken_ctx if with_ctx else broken)
    report = balanced(go(pipeline.collect(), driver))
    assert report.items == [10, 11, 12, 20, 21, 30, 31, 32]
    assert report.codes == {"OSError": 1}


@pytest.mark.parametrize("depth", [1, 2, 3])
@every_driver
def test_t13_flat_maps_in_a_row_keep_the_books(driver, depth):
    def twice(n):
        if n % 5 == 4:
            raise ValueError(n)
        return (n, n + 1)

    pipeline = ab.Pipeline("p").source(range(200))
    expected, failed = list(range(200)), 0
    for _ in range(depth):
        pipeline = pipeline.flat_map(twice).filter(lambda n: n % 3)
        failed += sum(n % 5 == 4 for n in expected)
        pairs = ((n, n + 1) for n in expected if n % 5 != 4)
        expected = [n for n in itertools.chain.from_iterable(pairs) if n % 3]
    report = balanced(go(pipeline.collect(), driver))
    assert report.items == expected
    assert report.failed == failed


AWKWARD = ["class", "1st", "out", "v1", "error", "chunk", "a-b", "größe", "None", "x" * 200]


@pytest.mark.parametrize("name", AWKWARD)
def test_any_name_can_be_a_stages(name):
    pipeline = ab.Pipeline(name).source([1, 2]).map(lambda n: n + 1, name=name)
    pipeline = pipeline.filter(lambda n: n > 2, name=name).tap(lambda n: None, name=name)
    assert pipeline.collect().run_blocking().items == [3]


@pytest.mark.parametrize("entry", ["it's", 'a "b"', "back\\slash", "new\nline", "{}", "größe"])
def test_any_text_can_be_a_key(entry):
    # A callable behind it puts the key into the generated pass.
    pipeline = ab.Pipeline("p").source([{entry: "a"}]).fan_out(by=entry).map(lambda it: it)
    report = balanced(pipeline.collect().run_blocking())
    assert report.branch("a").committed == 1


def test_two_stages_of_one_callable_are_two_calls():
    def add(n):
        return n + 1

    assert ab.Pipeline("p").source([1]).map(add).map(add).collect().run_blocking().items == [3]


def generated(name):
    return [entry for entry in linecache.cache if f"generated for pipeline '{name}" in entry]


def refused(name):
    def refuse(n):
        raise ValueError(n)

    report = ab.Pipeline(name).source([1]).map(refuse).collect().run_blocking()
    return "".join(traceback.format_exception(report.failures[0].error))


def test_e3_the_generated_source_is_shown_and_kept_once():
    for _ in range(3):
        assert "refuse(v)" in refused("shown")
    assert len(generated("shown")) == 1


def test_the_generated_sources_kept_are_bounded():
    for number in range(300):
        refused(f"many-{number}")
    assert len(generated("many-")) < 300


@pytest.mark.parametrize("with_ctx", [False, True])
@every_driver
def test_t13_a_filter_behind_a_flat_map_is_counted(driver, with_ctx):
    def keep(n):
        return n != 2

    def keep_ctx(n, ctx):
        return keep(n)

    pipeline = ab.Pipeline("p").source([1]).flat_map(lambda n: [1, 2, 3])
    report = balanced(go(pipeline.filter(keep_ctx if with_ctx else keep).collect(), driver))
    assert report.items == [1, 3]
    assert (report.received, report.produced, report.filtered) == (1, 2, 1)
