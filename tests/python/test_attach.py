"""Looking at pipelines from Python, in this process and in others: typed, awaited or blocking."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import threading

import pytest
from looker import sockets
from test_monitor import ENDLESS, RUN, directory, running  # noqa: F401 - a fixture
from test_monitor_undo import RUN as RUN_STUCK
from test_monitor_undo import STUCK

import anabranch as ab


@pytest.fixture
def job(directory):  # noqa: F811 - the fixture
    with running(STUCK + RUN_STUCK) as process:
        yield ab.attach(process.pid)


def looks(job, *, blocking):
    """Look at a process in either way."""
    return job.look_blocking() if blocking else asyncio.run(job.look())


@pytest.mark.parametrize("blocking", [True, False])
def test_v1_all_that_a_pipeline_tells_is_there(job, blocking):
    now = looks(job, blocking=blocking)
    assert (now.process.name, now.process.version) == ("python", ab.__version__)
    assert now.memory > 1_000_000
    row = now.pipeline("ingest")
    assert row is now.pipeline()
    assert (row.phase, row.control) == ("run", True)
    assert row.inside in (None, "events")
    assert [it.name for it in row.stages] == ["events", "fan_out", "store"]
    assert (row.failed, row.compensated, row.stuck) == (3, 3, 3)
    acme = row.branch("acme")
    assert (acme.state, acme.generation, acme.failed) == ("run", 1, 3)
    assert (acme.compensated, acme.last_error, acme.capacity) == (3, "ValueError", 1000)
    assert now.at - 60 < acme.last_error_at <= now.at
    assert row.branches[0].tenant is None
    with pytest.raises(KeyError):
        row.branch("nobody")
    with pytest.raises(KeyError):
        now.pipeline("nobody")
    (error,) = row.errors
    assert (error.code, error.items, error.last_minute) == ("ValueError", 3, 3)
    assert (error.stage, error.tenants, error.sample) == ("store", ("acme",), ("ValueError: full",))
    assert len(row.rollbacks) == 3
    for rollback in row.rollbacks:
        assert (rollback.level, rollback.tenant) == ("unit", "acme")
        assert (rollback.cause, rollback.stuck) == ("store ValueError", 1)
        unlink, delete = rollback.actions
        assert (unlink.name, unlink.error) == ("unlink file", "OSError: disk on fire")
        assert (unlink.stuck, delete.stuck, delete.state) == (True, False, "done")
        assert now.at - 60 < unlink.registered <= now.at
    assert any(it.message == "the pipeline has begun" for it in now.log)
    assert row.stages[2].last_error == "ValueError"
    assert row.states["run"] + row.states["idle"] == 2


def test_v1_who_does_not_want_the_branches_does_not_get_them(job):
    assert job.look_blocking(branches=False).pipeline().branches == ()
    assert asyncio.run(job.look(branches=False)).pipeline().branches == ()


@pytest.mark.parametrize("blocking", [True, False])
def test_dashboard_10_stuck_undo_actions_are_tried_again_once_confirmed(job, blocking):
    def command(*arguments, **options):
        if blocking:
            return job.command_blocking(*arguments, **options)
        return asyncio.run(job.command(*arguments, **options))

    about = {"pipeline": "ingest", "tenant": "acme"}
    assert command("comp.retry", dry=True, **about) == "3 stuck undo actions would be tried again"
    for confirm in (None, "ingest", ""):
        with pytest.raises(ab.ConfigError, match="confirm must be 'acme'") as refused:
            command("comp.retry", confirm=confirm, **about)
        assert refused.value.argument == "confirm"
    with pytest.raises(ab.CommandError, match="generation 1") as conflict:
        command("comp.retry", confirm="acme", generation=7, **about)
    assert conflict.value.reason == "conflict"
    one = job.look_blocking().pipeline().rollbacks[0].number
    told = command("comp.skip", rollback=one, confirm="acme", **about)
    assert told == "1 stuck undo action was left out for good"
    assert command("comp.retry", pipeline="ingest", confirm="ingest").startswith("2 stuck")
    with pytest.raises(ab.CommandError) as nothing:
        command("comp.retry", pipeline="ingest", confirm="ingest")
    assert (nothing.value.reason, nothing.value.code) == ("state", "command.refused")
    row = job.look_blocking().pipeline()
    assert (row.stuck, row.compensated) == (0, 5)


def test_v1_how_long_a_branch_is_in_its_state_is_told_though_its_numbers_change(directory):  # noqa: F811
    with running() as process, ab.attach(process.pid) as job:
        job.command_blocking("branch.pause", tenant="t3")
        first = job.look_blocking().pipeline().branch("t3")
        assert first.state == "pause"
        for now in job.watch_blocking(interval=0.05):
            row = now.pipeline().branch("t3")
            assert (row.state, row.entered) == ("pause", first.entered)
            if row.queued > first.queued + 2:
                break
        assert row.since > first.since
        job.command_blocking("branch.resume", tenant="t3")
        assert job.look_blocking().pipeline().branch("t3").entered > first.entered


def test_what_can_be_taken_back_needs_no_confirmation(directory):  # noqa: F811
    with running() as process:
        job = ab.attach(process.pid)
        assert job.command_blocking("branch.pause", tenant="t3") == "branch 't3' is paused"
        assert job.look_blocking().pipeline().branch("t3").state == "pause"
        assert "is open" in job.command_blocking("branch.resume", tenant="t3")
        with pytest.raises(ab.CommandError) as missing:
            job.command_blocking("branch.pause", tenant="nobody")
        assert missing.value.reason == "not_found"
        with pytest.raises(ab.ConfigError, match="operation must be one of"):
            job.command_blocking("branch.tickle", tenant="t3")
        with pytest.raises(ab.ConfigError, match="pipeline must be"):
            job.command_blocking("pipeline.drain", confirm="ingest")
        audit = [it for it in job.look_blocking().log if it.kind == "audit"]
        assert [it.operation for it in audit[:2]] == ["branch.pause", "branch.resume"]
        assert (audit[0].by, audit[0].worked) == (f"anabranch-python/{ab.__version__}", True)


@pytest.mark.parametrize("blocking", [True, False])
def test_a_process_is_watched_until_it_ends(directory, blocking):  # noqa: F811
    with running() as process:
        job = ab.attach(process.pid)
        counts = []

        def take(now):
            counts.append(now.pipeline().received)
            if len(counts) == 3:
                process.stdin.write("end\n")
                process.stdin.flush()

        async def watch():
            async for now in job.watch(interval=0.05):
                take(now)

        with pytest.raises(ab.AttachError) as over:
            if blocking:
                for now in job.watch_blocking(interval=0.05):
                    take(now)
            else:
                asyncio.run(watch())
        assert over.value.reason in ("ended", "lost")
        assert counts == sorted(counts)
        assert counts[0] < counts[-1]
        assert process.wait(10) == 0


def test_watching_ends_when_the_caller_has_enough(directory):  # noqa: F811
    async def first(job):
        return await anext(job.watch(interval=0.05))

    with running() as process:
        job = ab.attach(process.pid)
        for _ in range(20):
            # Eight clients at most look at once: each has hung up.
            with contextlib.closing(job.watch_blocking(interval=0.05)) as watched:
                next(watched)
        assert asyncio.run(first(job)).pipeline().name == "ingest"
        for odd in (0.01, 61, True, "1"):
            with pytest.raises(ab.ConfigError, match="interval"):
                next(job.watch_blocking(interval=odd))


@pytest.mark.parametrize("blocking", [True, False])
def test_what_is_still_watched_ends_with_its_block(directory, blocking):  # noqa: F811
    async def watch(job):
        async with job:
            watched = job.watch(interval=0.05)
            assert (await anext(watched)).pipeline().name == "ingest"
        await anext(watched)

    with running() as process:
        job = ab.attach(process.pid)
        with pytest.raises(ab.AttachError, match="closed here") as over:
            if blocking:
                with job:
                    watched = job.watch_blocking(interval=0.05)
                    assert next(watched).pipeline().name == "ingest"
                next(watched)
            else:
                asyncio.run(watch(job))
        assert over.value.reason == "closed"
        with pytest.raises(ab.AttachError) as late:
            job.look_blocking()
        assert late.value.reason == "closed"
        assert ab.attach(process.pid).look_blocking().pipeline().name == "ingest"


@pytest.mark.parametrize("blocking", [True, False])
def test_another_thread_ends_what_waits(directory, blocking):  # noqa: F811
    with running() as process:
        job = ab.attach(process.pid, timeout=30.0)
        os.kill(process.pid, signal.SIGSTOP)  # it answers nothing
        heard = []

        def look():
            with pytest.raises(ab.AttachError) as over:
                looks(job, blocking=blocking)
            heard.append(over.value.reason)

        thread = threading.Thread(target=look)
        thread.start()
        while not job._lines:
            os.sched_yield()
        job.close()
        thread.join()
        assert heard == ["closed"]
        os.kill(process.pid, signal.SIGCONT)


def test_a_process_is_found_by_pid_name_and_place(directory):  # noqa: F811
    with pytest.raises(ab.AttachError, match="none runs here") as nobody:
        ab.attach()
    assert (nobody.value.reason, nobody.value.code) == ("not_found", "attach.failed")
    with running() as process:
        (at,) = sockets(directory)
        for target in (None, process.pid, str(process.pid), "python", at):
            job = ab.attach(target)
            assert (job.at, job.look_blocking().process.pid) == (at, process.pid)
        assert repr(job) == f"<Attached to {at}>"
        with running():
            with pytest.raises(ab.AttachError, match=r"2 processes .* by its pid") as several:
                ab.attach("python")
            assert several.value.reason == "ambiguous"
    with pytest.raises(ab.AttachError) as gone:
        job.look_blocking()
    assert gone.value.reason == "lost"
    with pytest.raises(ab.AttachError) as gone:
        asyncio.run(job.look())
    assert gone.value.reason == "lost"
    for odd in (0, -1, True, "1", None):
        with pytest.raises(ab.ConfigError, match="timeout must be seconds"):
            ab.attach(timeout=odd)
    for odd in ("tcp:x", "tcp::80", "tcp:localhost:0", "tcp:localhost:99999", "unix:", True, 1.5):
        with pytest.raises(ab.ConfigError, match=r"tcp:HOST:PORT, got ") as refused:
            ab.attach(odd)
        assert refused.value.argument == "target"


def test_over_tcp_the_token_is_found(directory):  # noqa: F811
    with running(ENDLESS + "    OPTIONS['observe'] = 'tcp:127.0.0.1:0'\n" + RUN) as process:
        job = ab.attach(process.pid)
        assert job.at.startswith("tcp:127.0.0.1:")
        assert asyncio.run(job.look()).pipeline().name == "ingest"
        assert ab.attach(job.at).look_blocking().pipeline().name == "ingest"
        with pytest.raises(ab.AttachError, match="token") as refused:
            ab.attach(job.at, token="0" * 64).look_blocking()
        assert refused.value.reason == "auth"
        with pytest.raises(ab.CommandError) as readonly:
            job.command_blocking("branch.pause", tenant="t1")
        assert readonly.value.reason == "readonly"


def test_v3_a_pipeline_that_is_held_up_tells_its_last_numbers(directory):  # noqa: F811
    script = (
        ENDLESS
        + """
    def store(event):
        global stored
        stored += 1
        if stored == 500:
            print("ready", flush=True)
            while not ended.is_set():
                pass
    """
        + RUN
    )
    with running(script) as process:
        now = ab.attach(process.pid).look_blocking()
        assert now.pipeline().inside == "store"
        # Those of the end of the slice before: where that was, the speed of the machine says.
        assert now.pipeline().received > 0


def test_a_process_that_does_not_answer_holds_up_nobody(directory):  # noqa: F811
    with running() as process:
        job = ab.attach(process.pid, timeout=0.1)
        os.kill(process.pid, signal.SIGSTOP)
        with pytest.raises(ab.AttachError, match=r"has not answered within 0.1 s") as silent:
            job.look_blocking()
        with pytest.raises(ab.AttachError, match="has not answered"):
            asyncio.run(job.look())
        os.kill(process.pid, signal.SIGCONT)
        assert silent.value.reason == "timeout"


def test_dashboard_10_a_command_whose_answer_was_lost_is_sent_again_and_runs_once(tmp_path):
    """With the same key: the monitor knows it."""
    heard = []

    def serve(listener):
        for answers in (False, True):
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as lines:
                lines.readline()
                welcome = {"t": "welcome", "server": {}, "caps": ["control"], "cols": []}
                connection.sendall(json.dumps(welcome).encode() + b"\n")
                heard.append(json.loads(lines.readline()))
                if answers:
                    connection.sendall(b'{"t":"done","id":1,"ok":true,"msg":"paused"}\n')

    for blocking in (True, False):
        heard.clear()
        with socket.socket(socket.AF_UNIX) as listener:
            path = tmp_path / f"{blocking}.sock"
            listener.bind(str(path))
            listener.listen()
            server = threading.Thread(target=serve, args=[listener])
            server.start()
            job = ab.attach(f"unix:{path}")
            if blocking:
                said = job.command_blocking("branch.pause", tenant="acme")
            else:
                said = asyncio.run(job.command("branch.pause", tenant="acme"))
            server.join()
        assert said == "paused"
        assert heard[0] == heard[1]
        assert len(heard[0]["key"]) == 32


def test_looking_can_be_cancelled_and_hangs_up(directory):  # noqa: F811
    async def cancelled(job):
        # Nine at once would be one too many.
        for steps in range(9):
            task = asyncio.create_task(job.look())
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        return await job.look()

    with running() as process:
        assert asyncio.run(cancelled(ab.attach(process.pid))).pipeline().phase == "run"


# The pipeline of one's own.


async def while_running(act, **options):
    """Run a pipeline of ten items in two branches, and do something before it ends."""
    channel = ab.Channel(100)
    done = asyncio.Event()

    async def store(n):
        if n == 9:
            done.set()
        if n == 3:
            raise ValueError(n)

    pipeline = ab.Pipeline("mine", **options).source(channel).fan_out(by=lambda n: f"t{n % 2}")
    async with pipeline.for_each(store).start() as running:
        for n in range(10):
            await channel.send(n)
        await done.wait()
        result = await act(running)
        channel.close()
    return result


def test_v1_a_running_pipeline_shows_itself():
    async def act(running):
        return await running.attach().look()

    now = asyncio.run(while_running(act))
    (row,) = now.pipelines
    assert (row.name, row.received, row.committed, row.failed) == ("mine", 10, 9, 1)
    assert row.branch("t0").committed == 5
    assert now.process.pid == os.getpid()


def test_v1_a_running_pipeline_is_steered_by_its_own_process():
    async def act(running):
        await running.attach().command("branch.pause", tenant="t1")
        state = running.branch("t1").state
        await running.attach().command("branch.resume", tenant="t1")
        return state

    assert asyncio.run(while_running(act)) == "paused"


def test_v1_metrics_are_text_that_prometheus_reads():
    async def act(running):
        # Asked over the monitor, which waits for a fresh sweep.
        await running.attach().look()
        return running.metrics(), running.metrics(branches=True)

    short, long = asyncio.run(while_running(act))
    lines = short.splitlines()
    assert short.endswith("\n")
    assert 'anabranch_received_total{pipeline="mine"} 10' in lines
    assert 'anabranch_failed_total{pipeline="mine"} 1' in lines
    assert 'anabranch_errors_total{pipeline="mine",code="ValueError"} 1' in lines
    assert 'anabranch_stage_failed_total{pipeline="mine",stage="store"} 1' in lines
    assert "# TYPE anabranch_queued gauge" in lines
    name = "anabranch_attempt_duration_seconds"
    assert f'{name}_count{{pipeline="mine",stage="store"}} 10' in lines
    assert f'{name}_bucket{{pipeline="mine",stage="store",le="+Inf"}} 10' in lines
    assert "tenant" not in short
    assert 'anabranch_branch_committed_total{pipeline="mine",tenant="t0"} 5' in long.splitlines()
    samples = [line for line in long.splitlines() if not line.startswith("#")]
    assert len(samples) == len({line.rpartition(" ")[0] for line in samples}), "each once"


def test_labels_are_escaped():
    from anabranch._metrics import _labels

    assert _labels({"tenant": 'a"\\\n'}) == '{tenant="a\\"\\\\\\n"}'


def test_nobody_looks_at_a_pipeline_that_is_not_to_be_seen():
    async def act(running):
        for look in (running.attach, running.metrics, running.snapshot):
            with pytest.raises(ab.AttachError, match="its observe is 'off'") as off:
                look()
        return off.value.reason

    assert asyncio.run(while_running(act, observe="off")) == "off"
    running = ab.Pipeline("p").source([1]).collect().start()
    with pytest.raises(ab.AttachError, match="has not begun"):
        running.metrics()


def test_v4_a_failure_is_counted_once_however_often_it_is_tried_and_handed_on():
    tapped = []
    before = ab.stats()
    pipeline = (
        ab.Pipeline("p")
        .source(range(10))
        .map(lambda n: 1 // (n % 5))
        .tap_error(tapped.append)
        .tap_error(tapped.append)
        .map_error(lambda failure: failure.error)
        .for_each(fail_twice(), retry=ab.Retry.fixed(attempts=4, delay=0.0))
    )
    report = pipeline.run_blocking()
    after = ab.stats()
    assert len(tapped) == 4
    assert report.failed == 2
    assert after.failed - before.failed == 2
    assert after.codes["ZeroDivisionError"] - before.codes.get("ZeroDivisionError", 0) == 2
    assert after.retried - before.retried == report.retried > 0
    assert (after.received - before.received, after.committed - before.committed) == (10, 8)
    assert (after.pipelines - before.pipelines, after.running) == (1, before.running)


def fail_twice():
    tried = {}

    def store(n):
        tried[n] = tried.get(n, 0) + 1
        if tried[n] <= 2:
            raise OSError("busy")

    return store


def test_v4_the_process_totals_have_what_runs_and_what_has_ended():
    async def act(running):
        await running.attach().look()
        return ab.stats()

    before = ab.stats()
    during = asyncio.run(while_running(act))
    after = ab.stats()
    for now in (during, after):
        assert now.received - before.received == 10
        assert now.committed - before.committed == 9
        assert now.failed - before.failed == 1
        assert now.pipelines - before.pipelines == 1
    assert (during.running - before.running, after.running - before.running) == (1, 0)


def test_v4_a_fork_begins_with_nothing(directory):  # noqa: F811
    from support import child, finish

    script = """
    import os, warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    import anabranch as ab

    ab.Pipeline("p").source([1, 2]).collect().run_blocking()
    if os.fork() == 0:
        print(ab.stats().received, flush=True)
        ab.Pipeline("child").source([1]).collect().run_blocking()
        print(ab.stats().received, flush=True)
        os._exit(0)
    os.wait()
    print(ab.stats().received)
    """
    assert finish(child(script)) == (0, "0\n1\n2\n", "")


def test_v1_opentelemetry_reads_the_same_numbers():
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    from anabranch import otel

    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader])

    def read():
        data = reader.get_metrics_data()
        found = data.resource_metrics[0].scope_metrics[0].metrics if data else []
        return {
            (metric.name, *sorted(point.attributes.items())): point.value
            for metric in found
            for point in metric.data.data_points
        }

    async def act(running):
        await running.attach().look()
        with otel.export(running, meter_provider=provider, branches=True):
            inside = read()
        return inside, read()

    inside, outside = asyncio.run(while_running(act))
    mine = ("pipeline", "mine")
    assert inside["anabranch.received", mine] == 10
    assert inside["anabranch.errors", ("code", "ValueError"), mine] == 1
    assert inside["anabranch.branch_committed", mine, ("tenant", "t0")] == 5
    assert inside["anabranch.stage_failed", mine, ("stage", "store")] == 1
    assert outside == {}
    provider.shutdown()
