"""The end of a process, or of an event loop, under pipelines that run.

What has to hold each time, however the race goes, is in `test_lifecycle.py`.
"""

import asyncio
import gc
import itertools

import pytest
from support import child, finish


def test_c8_a_loop_that_shuts_down_waits_for_the_rollback():
    script = """
    import asyncio, itertools
    import anabranch as ab

    begun, undone = [], []

    async def undo(n):
        await asyncio.sleep(0)
        undone.append(n)

    async def sink(n, ctx):
        ctx.compensate(undo, n)
        begun.append(n)
        await asyncio.Event().wait()

    pipeline = ab.Pipeline("p").source(itertools.count()).for_each(sink)

    async def main():
        await pipeline.start().__aenter__()
        while not begun:
            await asyncio.sleep(0)

    asyncio.run(main())
    print(undone == begun, pipeline.last_report.outcome, pipeline.last_report.compensated)
    """
    assert finish(child(script)) == (0, "True aborted 1\n", "")


def test_c8_a_loop_that_shuts_down_cancels_no_undo_action():
    script = """
    import asyncio, itertools
    import anabranch as ab

    undoing, undone = asyncio.Event(), []

    async def undo(n):
        undoing.set()
        for _ in range(10):
            await asyncio.sleep(0)
        undone.append(n)

    async def sink(n, ctx):
        ctx.compensate(undo, n)
        await asyncio.Event().wait()

    pipeline = ab.Pipeline("p").source([1]).for_each(sink)

    async def main():
        running = await pipeline.start().__aenter__()
        for _ in range(10):
            await asyncio.sleep(0)
        running.abort()
        await undoing.wait()

    asyncio.run(main())
    print(undone, pipeline.last_report.compensated, pipeline.last_report.stuck)
    """
    assert finish(child(script)) == (0, "[1] 1 0\n", "")


def test_e7_a_pooled_handler_that_is_at_work_at_exit_does_no_harm():
    script = """
    import sys, threading
    import anabranch as ab

    begun, never = threading.Event(), threading.Event()

    def busy(n):
        begun.set()
        while True:
            # Comes back for the interpreter again and again, also when it is gone.
            never.wait(0.0005)

    pipeline = ab.Pipeline("p").source([1]).for_each(busy)
    threading.Thread(target=pipeline.run_blocking, daemon=True).start()
    begun.wait()
    sys.exit(4)
    """
    assert finish(child(script)) == (4, "", "")


def test_e7_a_callable_that_runs_inline_at_exit_does_no_harm():
    script = """
    import sys, threading
    import anabranch as ab

    begun, never = threading.Event(), threading.Event()

    def busy(n):
        begun.set()
        while True:
            # Comes back for the interpreter again and again.
            never.wait(0.0005)

    pipeline = ab.Pipeline("p").source([1]).for_each(busy, inline=True)
    threading.Thread(target=pipeline.run_blocking, daemon=True).start()
    begun.wait()
    sys.exit(4)
    """
    assert finish(child(script)) == (4, "", "")


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_e7_exit_rolls_back_what_runs_in_a_daemon_thread(kind):
    script = f"""
    import asyncio, sys, threading
    import anabranch as ab

    begun = threading.Event()

    {kind} undo(n):
        print("undone", n, flush=True)

    async def held(n, ctx):
        ctx.compensate(undo, n)
        begun.set()
        await asyncio.Event().wait()

    pipeline = ab.Pipeline("p").source([1]).for_each(held)
    threading.Thread(target=pipeline.run_blocking, daemon=True).start()
    begun.wait()
    sys.exit(4)
    """
    assert finish(child(script)) == (4, "undone 1\n", "")


def test_e7_a_program_may_end_its_loop_at_exit_however_long_the_rollback_takes():
    script = """
    import asyncio, atexit, itertools, sys, threading

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    @atexit.register
    def stop():
        # Registered before ours, so it runs after it.
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        print("joined")

    import anabranch as ab

    begun = threading.Event()

    async def undo():
        await asyncio.Event().wait()

    async def sink(n, ctx):
        ctx.compensate(undo)
        begun.set()
        await asyncio.Event().wait()

    pipeline = ab.Pipeline("p").source(itertools.count()).for_each(sink)
    asyncio.run_coroutine_threadsafe(pipeline.run(), loop)
    begun.wait()
    sys.exit(5)
    """
    # The loop is stopped with tasks in it: asyncio itself complains about them.
    assert finish(child(script))[:2] == (5, "joined\n")


@pytest.mark.parametrize("source", ["itertools.count()", "counted()"])
def test_a_loop_closed_under_a_running_pipeline_is_no_crash(source):
    script = f"""
    import asyncio, gc, itertools
    import anabranch as ab

    async def counted():
        for n in itertools.count():
            yield n

    seen = []

    async def main():
        running = ab.Pipeline("p").source({source}).for_each(seen.append).start()
        await running.__aenter__()
        while not seen:
            await asyncio.sleep(0)
        return running

    loop = asyncio.new_event_loop()
    running = loop.run_until_complete(main())
    loop.close()
    for ask in (running.drain, running.abort, lambda: asyncio.run(running.wait())):
        try:
            ask()
        except ab.ClosedError as error:
            print(error)
    """
    told = (
        "pipeline 'p' cannot be told anything: its event loop was closed while it ran; it is "
        "aborted when it is let go of, or the process ends\n"
    )
    # Of asyncio nothing, either: it would complain about each task of a loop that was closed.
    assert finish(child(script, flags=())) == (
        0,
        f"{told}{told}pipeline 'p' runs in another event loop\n",
        "",
    )


@pytest.mark.parametrize("how", ["run", "start"])
@pytest.mark.parametrize("undo", ["def", "async def"])
@pytest.mark.parametrize("end", ["close", "stop"])
def test_c8_a_run_whose_loop_has_ended_is_rolled_back_when_it_is_forgotten(end, how, undo):
    script = f"""
    import asyncio, gc, itertools, logging, signal, warnings
    import anabranch as ab

    logging.getLogger("anabranch").addHandler(logging.NullHandler())
    # Of Python itself: a loop that is left open.
    warnings.simplefilter("ignore", ResourceWarning)
    stored, undone = [], []

    {undo} remove(n):
        undone.append(n)

    async def store(n, ctx):
        ctx.compensate(remove, n)
        stored.append(n)
        if n == 2:
            await asyncio.Event().wait()

    pipeline = ab.Pipeline("p").source(itertools.count()).for_each(store)

    async def main():
        if {how!r} == "start":
            running = pipeline.start()
            await running.__aenter__()
        else:
            running = asyncio.ensure_future(pipeline.run())
        while len(stored) < 3:
            await asyncio.sleep(0)
        return running

    loop = asyncio.new_event_loop()
    running = loop.run_until_complete(main())
    loop.{end}()
    del running, loop
    gc.collect()
    report = pipeline.last_report
    assert report.balanced, report
    print(report.outcome, report.committed, report.codes, stored, undone)
    print([(it.name, it.outcome, str(it.error)) for it in report.compensations])
    print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)
    """
    code, out, err = finish(child(script))
    told = "[2]" if undo == "def" else "[]"
    outcome = "'done', 'None'" if undo == "def" else "'failed', 'there is no event loop any more'"
    # There is no loop any more in which a coroutine could be awaited: the report says so.
    assert (code, out) == (
        0,
        f"aborted 2 {{'cancelled': 1}} [0, 1, 2] {told}\n[('remove', {outcome})]\nTrue\n",
    )
    assert "panicked" not in err
    assert "Traceback" not in err


ENDED = {
    "loop.close(); del running, loop; gc.collect()": "its event loop was closed while it ran",
    "loop.close()": "the process ended while it ran",
    "pass": "the process ended while it ran",
}


@pytest.mark.parametrize("flags", [("-W", "error"), ("-W", "default"), ("-X", "dev")])
@pytest.mark.parametrize("how", ENDED)
def test_e7_e8_a_run_that_nobody_has_ended_is_warned_of_as_an_open_file_is(how, flags):
    script = f"""
    import asyncio, gc, itertools, sys
    import anabranch as ab

    def undo(name):
        print("undone", name)

    async def main():
        begun = []

        async def store(name, ctx):
            ctx.compensate(undo, name)
            begun.append(name)
            await asyncio.Event().wait()

        running = [ab.Pipeline(name).source([name]).for_each(store).start() for name in "ab"]
        for it in running:
            await it.__aenter__()
        while len(begun) < 2:
            await asyncio.sleep(0)
        return running

    loop = asyncio.new_event_loop()
    running = loop.run_until_complete(main())
    {how}
    sys.exit(3)
    """
    code, out, err = finish(child(script, flags=flags))
    # One that is made an error does not cost the other run its end.
    assert (code, sorted(out.splitlines())) == (3, ["undone a", "undone b"])
    assert "ResourceWarning: pipeline " in err
    assert all(f"pipeline '{it}': {ENDED[how]}; it was aborted\n" in err for it in "ab"), err


def run_in_a_loop_that_is_closed(begun):
    loop = asyncio.new_event_loop()
    loop.run_until_complete(begun())
    loop.close()


def test_e7_e8_a_log_that_is_configured_says_so_too(caplog):
    import anabranch as ab

    async def begun():
        running = ab.Pipeline("p").source(itertools.count()).for_each(len, inline=True).start()
        await running.__aenter__()
        return running

    run_in_a_loop_that_is_closed(begun)
    told = "pipeline 'p': its event loop was closed while it ran; it was aborted"
    with pytest.warns(ResourceWarning, match=told):
        gc.collect()
    assert told in [it.getMessage() for it in caplog.records]


@pytest.mark.parametrize("where", ["at a yield", "in an await", "in its own aclose", "at its end"])
def test_t8_an_async_source_is_closed_though_its_loop_was_closed_under_it(where, caplog):
    import anabranch as ab

    log = []

    async def source():
        try:
            yield 1
            if where == "in an await":
                await asyncio.Event().wait()
            for n in range(2) if where == "at its end" else itertools.count(2):
                yield n
        finally:
            if where == "in its own aclose":
                await asyncio.sleep(0)
            log.append("closed")

    async def begun():
        taken = asyncio.Event()

        async def store(n):
            taken.set()
            await asyncio.Event().wait()

        running = ab.Pipeline("p").source(source()).for_each(store).start()
        await running.__aenter__()
        await taken.wait()
        for _ in range(20):
            await asyncio.sleep(0)
        return running

    run_in_a_loop_that_is_closed(begun)
    with pytest.warns(ResourceWarning):
        gc.collect()
    told = [it.getMessage() for it in caplog.records if it.levelname == "ERROR"]
    if where == "in its own aclose":
        assert (log, told) == ([], ["pipeline 'p', stage 'source': closing the source raised"])
    else:
        assert (log, told) == (["closed"], [])


def test_importing_starts_nothing():
    script = """
    import sys, threading
    import anabranch
    print(threading.active_count(), "asyncio" in sys.modules)
    """
    assert finish(child(script)) == (0, "1 False\n", "")
