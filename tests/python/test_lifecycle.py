"""Processes: signals, exit, fork, a closed loop."""

import signal

import pytest
from support import child, every_sink, finish

ENDLESS = """
    import asyncio, itertools, os, signal, sys, threading
    import anabranch as ab

    def register(n, ctx):
        ctx.compensate(undone.append, n)
        return n

    def told(unit):
        if not done:
            print("ready", flush=True)
        done.extend(unit)

    async def told_async(unit):
        await asyncio.sleep(0)
        told(unit)

    undone, done = [], []
    pipeline = ab.Pipeline("p").source(itertools.count())
    pipeline = pipeline.map(register).window(max_items=10)
    pipeline = {
        "inline": lambda: pipeline.for_each(told, inline=True),
        "pool": lambda: pipeline.for_each(told),
        "async": lambda: pipeline.for_each(told_async),
    }[sys.stdin.readline().strip()]()
"""

REPORT = """
    report = pipeline.last_report
    assert report.balanced, report
    # A handler may be cancelled; what it had in hand is undone.
    assert set(report.codes) <= {"cancelled"}, report.codes
    assert report.committed == len(done), (report, len(done))
    assert len(done) + len(undone) == report.received, (report, len(done), len(undone))
    print(report.outcome)
"""


def interrupted(script, kind, number):
    process = child(script)
    process.stdin.write(f"{kind}\n")
    process.stdin.flush()
    assert process.stdout.readline() == "ready\n", finish(process)
    process.send_signal(number)
    return finish(process)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@every_sink
def test_e5_the_first_ctrl_c_or_sigterm_drains_run_blocking(kind, number):
    script = ENDLESS + "    pipeline.run_blocking()" + REPORT
    assert interrupted(script, kind, number) == (0, "drained\n", "")


@every_sink
def test_e5_sigterm_drains_a_run_in_a_loop(kind):
    script = ENDLESS + "    asyncio.run(pipeline.run())" + REPORT
    assert interrupted(script, kind, signal.SIGTERM) == (0, "drained\n", "")


@every_sink
def test_e5_ctrl_c_cancels_a_run_in_a_loop_and_the_report_tells(kind):
    script = (
        ENDLESS
        + """
    try:
        asyncio.run(pipeline.run())
    except KeyboardInterrupt:
        print("interrupted")
"""
        + REPORT
    )
    assert interrupted(script, kind, signal.SIGINT) == (0, "interrupted\naborted\n", "")


STUCK = """
    import asyncio, os, signal, threading
    import anabranch as ab

    undone = []
    entered, leave = threading.Event(), threading.Event()

    def source():
        yield from range(5)
        # On the main thread, where Ctrl-C is heard.
        entered.wait()
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        leave.set()
        while True:
            yield 5

    def register(n, ctx):
        ctx.compensate(undone.append, n)
        return n

    def held(unit):
        entered.set()
        leave.wait()

    pipeline = ab.Pipeline("p").source(source()).map(register).window(max_items=4)
    report = pipeline.for_each(held).run_blocking()
    assert report.balanced, report
    print(report.outcome, report.committed, len(undone) == report.received - 4)
"""


def test_e5_the_second_ctrl_c_rolls_back_at_once():
    assert finish(child(STUCK)) == (0, "aborted 4 True\n", "")


def test_e5_the_third_ctrl_c_leaves():
    script = """
    import os, signal, threading
    import anabranch as ab

    def held(n):
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGINT)
            # Python's handlers run between two lines.
            str(n)

    try:
        ab.Pipeline("p").source([1]).for_each(held, inline=True).run_blocking()
    except KeyboardInterrupt:
        print("left")
    """
    assert finish(child(script)) == (0, "left\n", "")


@every_sink
def test_e7_exit_with_a_running_pipeline_keeps_the_code_and_is_silent(kind):
    script = (
        ENDLESS
        + """
    async def main():
        running = pipeline.start()
        await running.__aenter__()
        while not done:
            await asyncio.sleep(0)
        sys.exit(7)

    asyncio.run(main())
"""
    )
    process = child(script)
    assert finish(process, input=f"{kind}\n") == (7, "ready\n", "")


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


def test_e7_exit_while_a_thread_is_in_a_run_is_silent():
    script = """
    import itertools, sys, threading
    import anabranch as ab

    begun = threading.Event()
    pipeline = ab.Pipeline("p").source(itertools.count()).for_each(lambda n: begun.set())
    threading.Thread(target=pipeline.run_blocking, daemon=True).start()
    begun.wait()
    sys.exit(5)
    """
    assert finish(child(script)) == (5, "", "")


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


def test_e7_a_handler_stuck_in_c_does_not_keep_the_process():
    script = """
    import sys, threading
    import anabranch as ab

    begun = threading.Event()
    lock = threading.Lock()
    lock.acquire()

    def stuck(n):
        begun.set()
        lock.acquire()

    async def main():
        async with ab.Pipeline("p", grace=0.01).source([1]).for_each(stuck).start() as running:
            sys.exit(4)

    import asyncio
    threading.Thread(target=asyncio.run, args=(main(),), daemon=True).start()
    begun.wait()
    sys.exit(3)
    """
    assert finish(child(script)) == (3, "", "")


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
    running.drain()
    running.abort()
    try:
        asyncio.run(running.wait())
    except ab.ClosedError as error:
        print(error)
    """
    # Tasks of a closed loop: asyncio itself complains about them at exit.
    code, out, err = finish(child(script))
    assert (code, out) == (0, "pipeline 'p' runs in another event loop\n")
    assert "panicked" not in err
    assert "Traceback" not in err.replace("Task was destroyed but it is pending!", "")


@pytest.mark.parametrize("how", ["run", "start"])
@pytest.mark.parametrize("undo", ["def", "async def"])
def test_c8_a_run_whose_loop_was_closed_is_rolled_back_when_it_is_forgotten(how, undo):
    script = f"""
    import asyncio, gc, itertools, logging, signal
    import anabranch as ab

    logging.getLogger("anabranch").addHandler(logging.NullHandler())
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
    loop.close()
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
    outcome = "'done', 'None'" if undo == "def" else "'failed', 'the event loop was closed'"
    # There is no loop any more in which a coroutine could be awaited: the report says so.
    assert (code, out) == (
        0,
        f"aborted 2 {{'cancelled': 1}} [0, 1, 2] {told}\n[('remove', {outcome})]\nTrue\n",
    )
    assert "panicked" not in err
    assert "Traceback" not in err


def test_e6_use_after_a_fork_is_a_clear_error():
    script = """
    import asyncio, os, sys, warnings
    import anabranch as ab

    # Python itself warns of forks beside threads.
    warnings.simplefilter("ignore", DeprecationWarning)

    def refused(call):
        try:
            call()
        except ab.ForkedProcessError as error:
            return "in its fork" in str(error)
        return False

    async def main():
        ended = asyncio.Event()

        async def source():
            yield 1
            await ended.wait()

        pipeline = ab.Pipeline("p").source(source()).collect()
        fresh = ab.Pipeline("fresh").source([1, 2]).collect()
        async with pipeline.start() as running:
            child = os.fork()
            if child == 0:
                fine = refused(running.drain) and refused(running.abort)
                fine = fine and refused(lambda: running.wait().send(None))
                # Leaving the context ends nothing here: the run is the parent's.
                leaving = running.__aexit__(None, None, None)
                try:
                    leaving.send(None)
                except StopIteration:
                    pass
                else:
                    fine = False
                os._exit(0 if fine else 1)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            ended.set()
            print((await running.wait()).items)
        return fresh

    fresh = asyncio.run(main())
    child = os.fork()
    if child == 0:
        os._exit(0 if fresh.run_blocking().items == [1, 2] else 1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    assert finish(child(script)) == (0, "0\n[1]\n0\n", "")


@every_sink
def test_e6_a_handler_that_forks_leaves_the_rest_to_the_parent(kind):
    script = """
    import asyncio, os, sys, warnings
    import anabranch as ab

    # Python itself warns of forks beside threads.
    warnings.simplefilter("ignore", DeprecationWarning)
    parent = os.getpid()
    read, write = os.pipe()

    def fork(n):
        if n == 3 and os.fork() == 0:
            return
        os.write(write, b"%d " % n if os.getpid() == parent else b"doubled ")

    async def fork_async(n):
        fork(n)

    pipeline = ab.Pipeline("p").source(range(6))
    pipeline = {
        "inline": lambda: pipeline.for_each(fork, inline=True),
        "pool": lambda: pipeline.for_each(fork),
        "async": lambda: pipeline.for_each(fork_async),
    }[sys.argv[1]]()
    try:
        report = pipeline.run_blocking()
    except ab.ForkedProcessError as error:
        os.write(write, b"refused ")
        os._exit(0)
    os.close(write)
    os.wait()
    said = os.read(read, 1000).decode().split()
    # A pool thread of the child is all there is of it, and simply ends.
    print(report.committed, sorted(it for it in said if it != "refused"))
    print(said.count("refused"))
    """
    refused = 0 if kind == "pool" else 1
    process = child(script, arguments=[kind])
    said = ["0", "1", "2", "3", "4", "5"]
    assert finish(process) == (0, f"6 {said}\n{refused}\n", "")


def test_e6_a_pipeline_run_before_a_fork_tells_so():
    script = """
    import os, warnings
    import anabranch as ab

    warnings.simplefilter("ignore", DeprecationWarning)
    pipeline = ab.Pipeline("p").source([1]).collect()
    pipeline.run_blocking()
    child = os.fork()
    if child == 0:
        try:
            pipeline.run_blocking()
        except ab.AnabranchError:
            os._exit(0)
        os._exit(1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    assert finish(child(script)) == (0, "0\n", "")


def test_importing_starts_nothing():
    script = """
    import sys, threading
    import anabranch
    print(threading.active_count(), "asyncio" in sys.modules)
    """
    assert finish(child(script)) == (0, "1 False\n", "")
