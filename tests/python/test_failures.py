"""Failures are items: past handlers, windows and keys to the operators behind them."""

import asyncio

import pytest
from support import DRIVERS, balanced, every_driver, every_sink, every_way, go, with_sink

import anabranch as ab


def number(text):
    return int(text)


async def number_async(text):
    await asyncio.sleep(0)
    return int(text)


class Taken:
    """An operator's callable that keeps what it was given; `def` or `async def`."""

    def __init__(self, result=None, *, raises=None):
        self.failures = []
        self._result = result
        self._raises = raises

    def __call__(self, failure):
        self.failures.append(failure)
        if self._raises is not None:
            raise self._raises
        return self._result

    def called(self, how):
        if how == "def":
            return self

        async def taken(failure):
            await asyncio.sleep(0)
            return self(failure)

        return taken

    @property
    def codes(self):
        return [failure.code for failure in self.failures]

    @property
    def items(self):
        return [failure.item for failure in self.failures]


every_how = pytest.mark.parametrize("how", ["def", "async"])
# Where a failure arises: in the pass, in a leg of its own, behind another.
PARSERS = {
    "pass": lambda p: p.map(number),
    "leg": lambda p: p.map(number_async),
    "retried": lambda p: p.map(number, retry=ab.Retry.fixed(0, attempts=2, retry_on=ValueError)),
    "behind a leg": lambda p: p.map(number_async, name="first").map(
        lambda n: 1 // n, name="second"
    ),
    "behind ctx": lambda p: p.map(lambda text, ctx: number(text)),
}
every_parser = pytest.mark.parametrize("parser", PARSERS)


def parsed(parser, texts=("1", "x", "3")):
    texts = ["0" if parser == "behind a leg" and text == "x" else text for text in texts]
    return PARSERS[parser](ab.Pipeline("p").source(texts))


@every_how
@every_parser
@every_driver
def test_t3_recover_makes_an_item_that_goes_on_behind_it(driver, parser, how):
    taken = Taken(7)
    pipeline = parsed(parser).recover(taken.called(how)).map(lambda n: n * 10).collect()
    report = balanced(go(pipeline, driver))
    assert sorted(report.items) == sorted(
        [70, *([10, 0] if parser == "behind a leg" else [10, 30])]
    )
    assert (report.failed, report.recovered, report.committed) == (0, 1, 3)
    assert report.ok
    assert report.codes == {}
    assert len(taken.failures) == 1


@every_how
@every_driver
def test_t3_what_is_recovered_does_not_pass_the_stages_before_its_operator(driver, how):
    seen = []
    pipeline = ab.Pipeline("p").source(["1", "x"]).map(number).tap(seen.append, name="before")
    pipeline = pipeline.recover(Taken(7).called(how)).tap(lambda n: seen.append(-n)).collect()
    report = balanced(go(pipeline, driver))
    assert sorted(seen) == [-7, -1, 1]
    assert sorted(report.items) == [1, 7]


@every_driver
def test_t3_what_is_recovered_behind_a_window_does_not_go_into_it(driver):
    pipeline = ab.Pipeline("p").source(["1", "x", "2"]).map(number).window(max_items=2)
    pipeline = pipeline.recover(lambda failure: [0]).collect()
    report = balanced(go(pipeline, driver))
    assert sorted(report.items) == [[0], [1, 2]]


@pytest.mark.parametrize("takes_ctx", [False, True])
@every_driver
def test_t3_a_failure_tells_what_its_own_stage_was_given(driver, takes_ctx):
    def many(n, ctx=None):
        return [n, -n]

    def one_by_one(n):
        yield from many(n)

    def last(n):
        return 1 // (n + 2)

    pipeline = ab.Pipeline("p").source(["1", "x", "2"]).map(number)
    pipeline = pipeline.flat_map(many if takes_ctx else one_by_one).map(last).collect()
    report = balanced(go(pipeline, driver))
    told = {(failure.stage, failure.item) for failure in report.failures}
    assert told == {("number", "x"), ("last", -2)}


@every_parser
@every_driver
def test_t3_failures_pass_map_filter_and_window_untouched(driver, parser):
    seen = []
    taken = Taken()
    pipeline = parsed(parser).filter(lambda n: n > 0, name="positive").tap(seen.append)
    pipeline = pipeline.map(lambda n: n).window(max_items=10).map(list).collect().tap_error(taken)
    report = balanced(go(pipeline, driver))
    assert report.failed == 1
    assert len(taken.failures) == 1
    assert 0 not in seen
    assert report.failures == tuple(taken.failures)


@every_driver
def test_t5_filter_keeps_failures_and_drops_what_does_not_match(driver):
    pipeline = ab.Pipeline("p").source(["1", "x", "2"]).map(number)
    pipeline = pipeline.filter(lambda n: n > 1).recover(lambda failure: 0).collect()
    report = balanced(go(pipeline, driver))
    assert sorted(report.items) == [0, 2]
    assert (report.filtered, report.recovered) == (1, 1)


@every_way
def test_t3_failures_of_the_sink_reach_what_stands_behind_it(driver, kind):
    def store(batch, ctx):
        if 3 in batch:
            raise OSError("full")

    fell_back = Taken()
    pipeline = ab.Pipeline("p").source(range(6)).window(max_items=2)
    pipeline = with_sink(pipeline, kind, store).recover(fell_back)
    report = balanced(go(pipeline, driver))
    assert fell_back.items == [[2, 3]]
    assert fell_back.failures[0].items == 2
    assert (report.committed, report.recovered, report.failed) == (6, 2, 0)


@every_how
@every_way
def test_t2_tap_error_looks_and_passes_on(driver, kind, how):
    first, second = Taken("ignored"), Taken()

    def store(n, ctx):
        if n % 2:
            raise OSError(n)

    pipeline = with_sink(ab.Pipeline("p").source(range(6)), kind, store)
    pipeline = pipeline.tap_error(first.called(how)).tap_error(second.called(how))
    report = balanced(go(pipeline, driver))
    assert sorted(first.items) == sorted(second.items) == [1, 3, 5]
    assert (report.failed, report.codes) == (3, {"OSError": 3})
    assert set(report.failures) == set(first.failures) == set(second.failures)


@every_how
@every_driver
def test_t3_operators_take_only_the_codes_and_types_they_are_told(driver, how):
    def fail(n):
        raise [ValueError, KeyError, OSError, LookupError][n](n)

    one, other, rest = Taken(), Taken("recovered"), Taken()
    pipeline = ab.Pipeline("p").source(range(4)).map(fail)
    pipeline = pipeline.tap_error(one.called(how), codes="ValueError", name="one")
    pipeline = pipeline.recover(other.called(how), types=LookupError, name="other")
    pipeline = pipeline.tap_error(rest.called(how), codes=["OSError"], types=(ValueError,))
    report = balanced(go(pipeline.collect(), driver))
    assert one.codes == ["ValueError"]
    assert sorted(other.codes) == ["KeyError", "LookupError"]
    assert sorted(rest.codes) == ["OSError", "ValueError"]
    assert report.items == ["recovered"] * 2
    assert report.codes == {"ValueError": 1, "OSError": 1}


@every_how
@pytest.mark.parametrize("kind", ["recover", "tap_error", "map_error", "dead_letter"])
@every_driver
def test_t3_an_operator_that_raises_is_a_failure_whose_cause_is_the_original(driver, kind, how):
    broken = Taken(raises=OSError("broken"))
    last = Taken()
    pipeline = ab.Pipeline("p").source(["1", "x"]).map(number)
    pipeline = getattr(pipeline, kind)(broken.called(how), name="broken")
    pipeline = pipeline.tap_error(last).collect()
    report = balanced(go(pipeline, driver))
    (failure,) = report.failures
    assert (failure.code, failure.stage, failure.item) == ("OSError", "broken", "x")
    assert type(failure.error.__cause__) is ValueError
    assert failure.error.__cause__ is broken.failures[0].error
    assert any("'broken'" in note for note in failure.error.__notes__)
    assert last.failures == [failure]
    assert report.codes == {"OSError": 1}
    assert report.failed == 1


@every_driver
def test_t3_items_of_branches_do_not_go_straight_past_their_keys(driver):
    """A sink that takes what the source brings as it is, behind a key, with an operator."""
    committed = []

    async def store(item):
        if item[1] == 3:
            raise OSError(item)
        committed.append(item)

    items = [("acme", n) for n in range(5)] + [("globex", n) for n in range(5)]
    taken = Taken()
    pipeline = ab.Pipeline("p").source(items).fan_out(by=ab.item(0)).for_each(store)
    report = balanced(go(pipeline.dead_letter(taken, inline=True), driver))
    assert sorted(taken.items) == [("acme", 3), ("globex", 3)]
    assert {it.tenant: it.committed for it in report.branches} == {"acme": 4, "globex": 4}
    assert (report.committed, report.dead_lettered) == (8, 2)


@every_how
@every_driver
def test_t3_an_operator_s_failure_never_comes_back_to_it(driver, how):
    broken = Taken(raises=OSError("broken"))
    pipeline = ab.Pipeline("p").source(["x"] * 20).map(number).recover(broken.called(how)).collect()
    report = balanced(go(pipeline, driver))
    assert len(broken.failures) == 20
    assert report.codes == {"OSError": 20}


@every_how
@every_driver
def test_e1_map_error_gives_a_failure_another_code_or_exception(driver, how):
    class Unreadable(Exception):
        @property
        def metadata(self):
            return {"line": 7}

    def mapped(failure):
        if failure.item == "x":
            return Unreadable("no number")
        return failure.replace(code="text.empty", message="nothing there", metadata={"n": 1})

    async def mapped_async(failure):
        return mapped(failure)

    pipeline = ab.Pipeline("p").source(["x", "", "1"]).map(number)
    pipeline = pipeline.map_error(mapped if how == "def" else mapped_async).collect()
    report = balanced(go(pipeline, driver))
    assert report.codes == {"Unreadable": 1, "text.empty": 1}
    by_code = {failure.code: failure for failure in report.failures}
    first, second = by_code["Unreadable"], by_code["text.empty"]
    assert type(first.error.__cause__) is ValueError
    assert (first.stage, first.item, first.message) == ("number", "x", "no number")
    assert first.metadata == {"line": 7}
    assert type(second.error) is ValueError
    assert (second.message, second.metadata) == ("nothing there", {"n": 1})


@every_driver
def test_e1_map_error_must_return_an_error(driver):
    pipeline = ab.Pipeline("p").source(["x"]).map(number).map_error(lambda failure: "oops")
    report = balanced(go(pipeline.collect(), driver))
    (failure,) = report.failures
    assert failure.code == "TypeError"
    assert "map_error must return" in failure.message
    assert type(failure.error.__cause__) is ValueError


@pytest.mark.parametrize("parser", ["sync", "async", "ctx", "retried"])
@every_driver
def test_t1_ensure_makes_a_failure_of_what_is_not_true(driver, parser):
    async def positive(n):
        await asyncio.sleep(0)
        return n > 0

    predicates = {
        "sync": (lambda n: n > 0, {}),
        "async": (positive, {}),
        "ctx": (lambda n, ctx: n > 0 and ctx.tenant is None, {}),
        "retried": (lambda n: n > 0, {"retry": ab.Retry.fixed(0, attempts=2)}),
    }
    fn, options = predicates[parser]
    pipeline = ab.Pipeline("p").source([1, -1, 2])
    pipeline = pipeline.ensure(fn, code="number.negative", message="too small", name="e", **options)
    report = balanced(go(pipeline.collect(), driver))
    assert report.items == [1, 2]
    (failure,) = report.failures
    assert (failure.code, failure.message, failure.stage) == ("number.negative", "too small", "e")
    assert type(failure.error) is ab.EnsureError
    assert failure.item == -1
    assert failure.attempts == (2 if parser == "retried" else 1)


def test_t1_ensure_names_the_item_by_itself():
    pipeline = ab.Pipeline("p").source([-1]).ensure(lambda n: n > 0, name="positive").collect()
    (failure,) = pipeline.run_blocking().failures
    assert (failure.code, failure.message) == ("ensure.failed", "positive is not true of -1")
    with pytest.raises(ab.ConfigError, match="code must be a code that is none of the library's"):
        ab.Pipeline("p").source([1]).ensure(bool, code="timeout")


EVENTS = [{"tenant": "acme", "n": 1}, {"n": 2}, {"tenant": "globex", "n": 0}]


@every_how
@every_driver
def test_t3_before_the_fan_out_a_failure_is_the_pipeline_s_and_behind_it_the_branch_s(driver, how):
    taken = Taken()
    pipeline = ab.Pipeline("p").source(EVENTS).tap(lambda event: event["tenant"], name="early")
    pipeline = pipeline.fan_out(by="tenant").map(lambda event: 1 // event["n"], name="late")
    pipeline = pipeline.collect().tap_error(taken.called(how))
    report = balanced(go(pipeline, driver))
    places = {(failure.stage, failure.tenant) for failure in taken.failures}
    assert places == {("early", None), ("late", "globex")}
    assert {branch.tenant: branch.failed for branch in report.branches} == {"acme": 0, "globex": 1}
    assert report.failed == 2


@pytest.mark.parametrize("by", ["tenant", ab.item("tenant"), lambda event: event["tenant"]])
@pytest.mark.parametrize("stages", ["none", "map", "leg", "window"])
@every_driver
def test_t3_a_key_s_failure_recovered_behind_the_fan_out_goes_to_the_branch_of_its_key(
    driver, stages, by
):
    async def same(event):
        return event

    pipeline = ab.Pipeline("p").source([*EVENTS, {"n": 4}]).fan_out(by=by)
    if stages == "map":
        pipeline = pipeline.map(dict, name="between")
    elif stages == "leg":
        pipeline = pipeline.map(same)
    elif stages == "window":
        pipeline = pipeline.window(max_items=1).map(lambda window: window[0])

    def recover(failure):
        return {"tenant": "acme", **failure.item} if failure.item["n"] == 2 else {}

    pipeline = pipeline.recover(recover).collect()
    report = balanced(go(pipeline, driver))
    got = {branch.tenant: branch.committed for branch in report.branches}
    assert got == {"acme": 2, "globex": 1}
    (failure,) = report.failures
    assert (failure.code, failure.stage, failure.tenant) == ("KeyError", "fan_out", None)
    assert (report.recovered, report.failed, report.committed) == (2, 1, 3)


@every_way
def test_c17_a_unit_is_undone_before_its_failure_goes_on(driver, kind):
    log = []

    def mark(n, ctx):
        ctx.compensate(log.append, ("undone", n))
        return n

    def store(n, ctx):
        ctx.compensate(log.append, ("undone in the sink", n))
        if n == 1:
            raise OSError(n)

    pipeline = with_sink(ab.Pipeline("p").source(range(3)).map(mark), kind, store)
    pipeline = pipeline.recover(lambda failure: log.append(("told", failure.item)))
    report = balanced(go(pipeline, driver))
    assert log == [("undone in the sink", 1), ("undone", 1), ("told", 1)]
    assert (report.recovered, report.compensated, report.failed) == (1, 2, 0)


@every_way
@pytest.mark.parametrize("recovers", [True, False])
def test_c11_a_run_that_commits_at_its_end_commits_what_was_recovered(driver, kind, recovers):
    undone = []

    def store(n, ctx):
        ctx.compensate(undone.append, n)
        if n == 1:
            raise OSError(n)

    pipeline = with_sink(ab.Pipeline("p", commit="end").source(range(3)), kind, store)
    if recovers:
        pipeline = pipeline.recover(lambda failure: None)
    report = balanced(go(pipeline, driver))
    assert sorted(undone) == ([1] if recovers else [0, 1, 2])
    assert report.failed == (0 if recovers else 1)


@every_driver
def test_c17_what_a_recover_registers_goes_with_its_item(driver):
    undone = []

    def recover(failure, ctx):
        ctx.compensate(undone.append, ctx.stage)
        return -1

    def store(n, ctx):
        if n < 0:
            raise OSError(n)

    pipeline = ab.Pipeline("p").source(["x"]).map(number).recover(recover)
    report = balanced(go(pipeline.for_each(store), driver))
    assert undone == ["recover"]
    assert (report.failed, report.recovered) == (1, 1)


@every_sink
def test_t10_an_operator_has_a_timeout_of_its_own(kind):
    async def recover(failure, ctx):
        assert ctx.deadline is not None
        await asyncio.sleep(60.0)

    def store(n, ctx):
        raise OSError(n)

    pipeline = with_sink(ab.Pipeline("p").source([1]), kind, store)
    pipeline = pipeline.recover(recover, timeout=5.0)
    report = balanced(ab.testing.run(pipeline.run()))
    (failure,) = report.failures
    assert (failure.code, failure.stage) == ("timeout", "recover")
    assert type(failure.error.__cause__) is OSError


@every_driver
def test_r1_an_operator_is_tried_again(driver):
    attempts = []

    async def recover(failure, ctx):
        attempts.append(ctx.attempt)
        if ctx.attempt < 3:
            raise OSError(ctx.attempt)
        return 0

    pipeline = ab.Pipeline("p").source(["x"]).map(number)
    pipeline = pipeline.recover(recover, retry=ab.Retry.fixed(0, attempts=3)).collect()
    report = balanced(go(pipeline, driver))
    assert attempts == [1, 2, 3]
    assert report.items == [0]


@every_driver
def test_r5_a_failure_tells_operators_of_all_its_attempts(driver):
    taken = Taken()
    pipeline = ab.Pipeline("p").source(["x"])
    pipeline = pipeline.map(number, retry=ab.Retry.fixed(0, attempts=3, retry_on=ValueError))
    balanced(go(pipeline.collect().tap_error(taken), driver))
    (failure,) = taken.failures
    assert (failure.attempts, failure.gave_up, len(failure.history)) == (3, "attempts", 3)
    assert failure.history[-1] is failure.error is failure.cause


@pytest.mark.parametrize("fatal", [KeyboardInterrupt, SystemExit])
@every_how
@every_driver
def test_e4_an_operator_may_end_the_process(driver, how, fatal):
    pipeline = ab.Pipeline("p").source(["x", "1"]).map(number)
    pipeline = pipeline.tap_error(Taken(raises=fatal("out")).called(how)).collect()
    with pytest.raises(fatal, match="out"):
        go(pipeline, driver)
    balanced(pipeline.last_report)


@every_way
def test_b7_a_tenant_that_always_fails_and_is_recovered_slowly_does_not_lose_others(driver, kind):
    def store(item, ctx):
        if item[0] == "bad":
            raise OSError(item)

    async def recover(failure):
        for _ in range(3):
            await asyncio.sleep(0)

    items = [(("bad", "good")[n % 2], n) for n in range(400)]
    pipeline = ab.Pipeline("p").source(items).fan_out(by=ab.item(0), capacity=10)
    pipeline = with_sink(pipeline, kind, store).recover(recover)
    report = balanced(go(pipeline, driver))
    assert report.branch("good").committed == 200
    assert (report.branch("bad").recovered, report.failed) == (200, 0)


def test_t3_a_plan_with_operators_is_drawn():
    pipeline = ab.Pipeline("p").source(["x"]).map(number).recover(Taken(0), codes="ValueError")
    pipeline = pipeline.collect().dead_letter("letters.jsonl")
    lines = [line.split()[1:] for line in pipeline.describe().splitlines()[3:]]
    assert lines == [
        ["recover", "Taken", "only=ValueError"],
        ["collect", "collect"],
        ["dead_letter", "dead_letter", "label=dead_letter"],
    ]
    assert "recover" in pipeline.mermaid()
    assert [stage.kind for stage in pipeline.stages][-1] == "dead_letter"


BAD = {
    "codes": (lambda p: p.recover(bool, codes=7), "codes must be a code, or several of them"),
    "no codes": (lambda p: p.recover(bool, codes=[]), "codes must be a code"),
    "types": (lambda p: p.tap_error(bool, types=int), "types must be an exception type"),
    "target": (lambda p: p.dead_letter(7), "target must be a callable that takes a Failure"),
    "path": (lambda p: p.dead_letter(""), "target must be the path of a file"),
    "concurrency": (lambda p: p.recover(bool, concurrency=2), "concurrency must be 1 for a `def`"),
    "timeout": (lambda p: p.recover(bool, timeout=2), "timeout must be None for a def that runs"),
    "every": (lambda p: p.collect_errors(every=0.0, to=print), "every must be a number of seconds"),
    "every alone": (lambda p: p.collect_errors(every="x"), "every must be a number of seconds"),
    "to": (lambda p: p.collect_errors(every=1.0), "to must be a callable that takes the ErrorSu"),
    "samples": (lambda p: p.collect_errors(samples=-1), "samples must be an int from 0 to 1000"),
    "on_error": (lambda p: p.map(number, on_error="dead_letter"), "where the pipeline has no dead"),
    "fn": (lambda p: p.recover(7), "fn must be a callable"),
}


@pytest.mark.parametrize("bad", BAD)
def test_t3_bad_arguments_are_named_with_their_values(bad):
    build, said = BAD[bad]
    with pytest.raises(ab.ConfigError, match=said) as caught:
        build(ab.Pipeline("p").source([1]))
    assert caught.value.pipeline == "p"
    assert caught.value.stage is not None


@pytest.mark.parametrize("driver", DRIVERS)
def test_t8_a_generator_source_is_closed_when_a_failure_stops_the_run(driver):
    closed = []

    def source():
        try:
            yield from ("1", "x", *["1"] * 10_000)
        finally:
            closed.append(True)

    pipeline = ab.Pipeline("p", on_error="stop").source(source()).map(number).collect()
    report = balanced(go(pipeline, driver))
    assert (report.outcome, closed) == ("failed", [True])
