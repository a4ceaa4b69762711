"""Building: each step checked at once, nothing shared, names, drawings, one run per object."""

import asyncio
import operator
from datetime import timedelta

import pytest

import anabranch as ab
from anabranch.pipeline import Pipeline


def begun():
    return ab.Pipeline("ingest").source([{"tenant": "acme", "n": 1}])


def store(batch):
    pass


async def fetch(event, ctx):
    return event


def test_each_call_returns_a_new_pipeline_and_leaves_the_old_one():
    start = begun()
    one = start.map(len)
    other = start.filter(store).collect()
    assert [stage.name for stage in start.stages] == ["list"]
    assert [stage.name for stage in one.stages] == ["list", "len"]
    assert [stage.name for stage in other.stages] == ["list", "store", "collect"]


def test_two_pipelines_with_a_common_beginning_run_each_for_itself():
    start = ab.Pipeline("p").source([1, 2]).map(operator.neg)
    assert start.collect().run_blocking().items == [-1, -2]
    assert start.map(abs).collect().run_blocking().items == [1, 2]
    assert start.last_report is None


def test_a_subclass_stays_one():
    class Ours(Pipeline):
        pass

    assert type(Ours("p").source([1]).collect()) is Ours


def test_names_are_the_callables_and_unique():
    pipeline = begun().map(fetch).map(fetch).map(fetch, name="other").map(lambda event: event)
    pipeline = pipeline.fan_out(by="tenant").window(max_items=2).for_each(store)
    names = [stage.name for stage in pipeline.stages]
    assert names == ["list", "fetch", "fetch_2", "other", "lambda", "fan_out", "window", "store"]
    assert repr(pipeline) == f"<Pipeline 'ingest': {' > '.join(names)}>"
    assert ab.Pipeline("p").source([1], name="numbers").stages[0].name == "numbers"


def test_v2_stages_tell_what_was_found_and_filled_in():
    pipeline = begun().map(fetch, concurrency=4).fan_out(by=ab.item("tenant"))
    pipeline = pipeline.window(max_age=timedelta(minutes=1)).collect()
    source, fetched, fan_out, window, collect = pipeline.stages
    assert (source.kind, dict(source.options)) == ("source", {})
    assert (fetched.is_async, fetched.takes_ctx) == (True, True)
    assert dict(fetched.options) == {
        "concurrency": 4,
        "ordered": True,
        "retry": None,
        "timeout": None,
        "on_error": None,
    }
    assert dict(fan_out.options) == {
        "by": "item('tenant')",
        "capacity": 1000,
        "on_full": "wait",
        "isolate": True,
        "weight": 1,
        "branch_timeout": None,
        "idle_ttl": 300.0,
        "on_branch_error": "continue",
        "max_branches": 1_000_000,
        "on_max_branches": "reject",
        "close_branches": True,
        "on_new_branch": None,
        "on_branch_closed": None,
    }
    assert window.options["max_age"] == 60.0
    assert (collect.kind, dict(collect.options)) == ("collect", {})
    with pytest.raises(TypeError):
        window.options["max_age"] = 1.0


def test_v2_an_async_source_is_told():
    async def ticks():
        yield 1

    source = ticks()
    (stage,) = ab.Pipeline("p").source(source).stages
    assert (stage.name, stage.is_async) == ("ticks", True)


def test_v2_describe_and_mermaid_show_every_stage():
    pipeline = begun().map(fetch).fan_out(by="tenant").window(max_items=500).for_each(store)
    listing = pipeline.describe().splitlines()
    assert listing[0].startswith("pipeline 'ingest': ")
    assert [line.split()[1:3] for line in listing[1:]] == [
        ["source", "list"],
        ["map", "fetch"],
        ["fan_out", "fan_out"],
        ["window", "window"],
        ["for_each", "store"],
    ]
    drawing = pipeline.mermaid()
    assert drawing.startswith("flowchart LR\n")
    assert "one branch per tenant" in drawing


def test_the_driver_gets_values_and_live_objects():
    def size(event):
        return 1

    source = [{"tenant": "acme"}]
    retry = ab.Retry.fixed(1)
    key = ab.attr("tenant")
    pipeline = ab.Pipeline("p", grace=timedelta(seconds=5)).source(source).map(fetch, retry=retry)
    pipeline = pipeline.fan_out(by=key).window(max_bytes=10, size_of=size).for_each(store)
    first, fetched, fan_out, window, sink = pipeline._stages
    assert first.options["source"] is source
    assert first.options["how"] == "sequence"
    assert (fetched.fn, fetched.is_async, fetched.takes_ctx) == (fetch, True, True)
    assert fetched.options["retry"] is retry
    assert (fan_out.fn, fan_out.options["by"]) == (None, key)
    assert window.options["size_of"] is size
    assert (sink.fn, sink.options["inline"]) == (store, False)
    assert pipeline._settings.grace == 5.0


def test_b3_a_key_callable_is_the_stage_s_callable():
    key = operator.itemgetter("tenant")
    stage = begun().fan_out(by=key)._stages[-1]
    assert stage.fn is key
    assert stage.options["by"] is key


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ab.Pipeline(""), "pipeline: name must be a non-empty str, got ''"),
        (
            lambda: ab.Pipeline("p", threads=0),
            "pipeline 'p': threads must be an int from 1 to 64, got 0",
        ),
        (
            lambda: begun().map(store, concurrency=0),
            "pipeline 'ingest', stage 'store': concurrency must be an int >= 1, got 0",
        ),
        (
            lambda: begun().map(store, retry=3),
            "pipeline 'ingest', stage 'store': retry must be a Retry or None, got 3",
        ),
        (
            lambda: begun().tap(store, name=""),
            "pipeline 'ingest', stage 'tap': name must be a non-empty str, got ''",
        ),
        (
            lambda: begun().for_each("store"),
            (
                "pipeline 'ingest', stage 'for_each': fn must be a callable that takes the item, "
                "got 'store'"
            ),
        ),
        (
            lambda: begun().map(store, concurrency=4),
            (
                "pipeline 'ingest', stage 'store': concurrency must be 1 for a `def` that runs in "
                "the pipeline's own thread, got 4"
            ),
        ),
        (
            lambda: begun().for_each(fetch, inline=True),
            (
                "pipeline 'ingest', stage 'fetch': inline must be False for an `async def`, which "
                "runs in the event loop, got True"
            ),
        ),
        (
            lambda: begun().fan_out(by=3),
            (
                "pipeline 'ingest', stage 'fan_out': by must be the name of an entry, "
                "ab.attr(...), ab.item(...) or a def that takes the item, got 3"
            ),
        ),
        (
            lambda: begun().fan_out(by=""),
            (
                "pipeline 'ingest', stage 'fan_out': by must be the name of an entry, "
                "ab.attr(...), ab.item(...) or a def that takes the item, got ''"
            ),
        ),
        (
            lambda: begun().fan_out(by=fetch, name="route"),
            (
                "pipeline 'ingest', stage 'route': by must be a def: a key is needed at once, "
                "got fetch"
            ),
        ),
        (
            lambda: begun().fan_out(by="tenant", on_full="lose"),
            (
                "pipeline 'ingest', stage 'fan_out': on_full must be 'wait', 'drop_newest', "
                "'drop_oldest', 'fail' or 'dead_letter' or a def that takes the tenant, got 'lose'"
            ),
        ),
        (
            lambda: begun().fan_out(by="tenant", on_branch_error="retry"),
            (
                "pipeline 'ingest', stage 'fan_out': on_branch_error must be 'continue', "
                "'stop_pipeline', ab.fail(...) or ab.restart(...), got 'retry'"
            ),
        ),
        (
            lambda: begun().fan_out(by="tenant", idle_ttl=0),
            (
                "pipeline 'ingest', stage 'fan_out': idle_ttl must be a number of seconds > 0 "
                "(or a timedelta), got 0"
            ),
        ),
        (
            lambda: begun().fan_out(by="tenant", max_branches=0),
            "pipeline 'ingest', stage 'fan_out': max_branches must be an int >= 1, got 0",
        ),
        (
            lambda: begun().throttle(0),
            "pipeline 'ingest', stage 'throttle': rate must be a finite number > 0, got 0",
        ),
        (
            lambda: begun().throttle(1.0, burst=0),
            "pipeline 'ingest', stage 'throttle': burst must be an int >= 1, got 0",
        ),
        (
            lambda: ab.fail(after=0),
            "fail: after must be an int from 1 to 4294967295, got 0",
        ),
        (
            lambda: ab.fail(after=True),
            "fail: after must be an int from 1 to 4294967295, got True",
        ),
        (
            lambda: ab.restart(5.0),
            "restart: backoff must be a Retry, but not Retry.custom, got 5.0",
        ),
    ],
)
def test_a_bad_argument_is_refused_at_once_with_stage_value_and_what_is_allowed(build, message):
    with pytest.raises(ab.ConfigError) as caught:
        build()
    assert str(caught.value) == message
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"max_items": 0}, "max_items"),
        ({"max_items": True}, "max_items"),
        ({"max_age": -1}, "max_age"),
        ({"max_age": float("nan")}, "max_age"),
        ({"idle": timedelta(seconds=-1)}, "idle"),
        ({"max_bytes": 0}, "max_bytes"),
        ({"max_items": 1, "on_cancel": "keep"}, "on_cancel"),
        ({"max_items": 1, "size_of": len}, "size_of"),
        ({"max_bytes": 1, "size_of": 3}, "size_of"),
        ({"max_bytes": 1, "size_of": fetch}, "size_of"),
        ({}, "max_items"),
    ],
)
def test_w8_bad_window_arguments_raise_at_build_time(options, argument):
    with pytest.raises(ab.ConfigError) as caught:
        begun().window(**options)
    assert str(caught.value).startswith(f"pipeline 'ingest', stage 'window': {argument} must be ")
    error = caught.value
    assert (error.pipeline, error.stage, error.argument) == ("ingest", "window", argument)
    assert error.value is options.get(argument)


def test_a_stage_stands_only_where_it_can():
    with pytest.raises(ab.ConfigError, match=r"source\(...\) must come first"):
        ab.Pipeline("p").map(store)
    with pytest.raises(ab.ConfigError, match="a pipeline has one source"):
        begun().source([2])
    with pytest.raises(ab.ConfigError, match="nothing can follow the sink 'store'"):
        begun().for_each(store).collect()
    with pytest.raises(ab.ConfigError, match="a pipeline fans out once"):
        begun().fan_out(by="tenant").fan_out(by="n")


def test_an_incomplete_pipeline_does_not_run():
    with pytest.raises(ab.ConfigError, match=r"no source; begin with source\(...\)"):
        ab.Pipeline("p").run_blocking()
    with pytest.raises(
        ab.ConfigError, match=r"no sink; end with for_each\(...\), collect\(\) or to_channel"
    ):
        begun().run_blocking()


def test_e6_a_pipeline_object_runs_once():
    pipeline = begun().collect()
    report = pipeline.run_blocking()
    assert pipeline.last_report is report
    with pytest.raises(ab.ClosedError, match="pipeline 'ingest' has been run already"):
        pipeline.run_blocking()
    with pytest.raises(ab.ClosedError, match="build one for each run"):
        pipeline.start()
    assert pipeline.last_report is report


def test_e6_an_attempt_that_could_not_begin_does_not_count():
    start = begun()
    for _ in range(2):
        with pytest.raises(ab.ConfigError):
            start.run_blocking()
    pipeline = start.collect()

    async def main():
        with pytest.raises(RuntimeError, match=r"'ingest': .*await pipeline.run\(\)"):
            pipeline.run_blocking()
        return await pipeline.run()

    assert asyncio.run(main()).committed == 1


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"port": 65536}, "port"),
        ({"host": ""}, "host"),
        ({"max_line": 0}, "max_line"),
        ({"max_connections": 0}, "max_connections"),
        ({"idle_timeout": 0}, "idle_timeout"),
        ({"encoding": "latin-1"}, "encoding"),
        ({"errors": "ignore"}, "errors"),
        ({"peer": 1}, "peer"),
        ({"until": "later"}, "until"),
    ],
)
def test_e9_bad_tcp_lines_arguments_are_named_with_their_values(options, argument):
    with pytest.raises(ab.ConfigError, match=rf"^tcp_lines: {argument} must be .*, got ") as caught:
        ab.tcp_lines(**{"host": "127.0.0.1", "port": 0, **options})
    assert caught.value.value == options[argument]


def test_e9_tcp_lines_holds_what_it_was_told():
    lines = ab.tcp_lines("::1", 9400, idle_timeout=timedelta(minutes=1), until=2)
    assert (lines.host, lines.port, lines.idle_timeout, lines.until) == ("::1", 9400, 60.0, 2.0)
    assert (lines.encoding, lines.errors, lines.peer) == ("utf-8", "strict", False)
    with pytest.raises(TypeError):
        iter(lines)


def test_everything_public_is_there():
    assert all(hasattr(ab, name) for name in ab.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Pipelines'"):
        ab.Pipelines  # noqa: B018 - the access is the test
