"""Forks: a pipeline stays with the process that began it."""

from support import child, every_sink, finish


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


def test_e6_a_fork_takes_no_wake_up_of_its_parent():
    script = """
    import asyncio, os, sys, threading, warnings
    import anabranch as ab

    warnings.simplefilter("ignore", DeprecationWarning)

    async def main():
        waiting = asyncio.Event()

        async def source():
            yield 1
            waiting.set()
            await asyncio.Event().wait()

        async with ab.Pipeline("p").source(source()).collect().start() as running:
            await waiting.wait()
            for _ in range(10):
                await asyncio.sleep(0)
            # Its wake-up lies in the pipe, which the fork shares, and is not read before it.
            asking = threading.Thread(target=running.drain)
            asking.start()
            asking.join()
            child = os.fork()
            if child == 0:
                # Closing the loop runs it once more.
                sys.exit(6)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            print((await running.wait()).outcome)

    asyncio.run(main())
    """
    assert finish(child(script)) == (0, "6\ndrained\n", "")


@every_sink
def test_e6_a_handler_that_forks_leaves_the_rest_to_the_parent(kind):
    script = """
    import asyncio, os, sys, warnings
    import anabranch as ab

    # Python itself warns of forks beside threads.
    warnings.simplefilter("ignore", DeprecationWarning)
    parent = os.getpid()
    read, write = os.pipe()

    def source():
        # More than is taken before the first is handled: the fork has it half-way.
        try:
            yield from range(2000)
        finally:
            if os.getpid() != parent:
                os.write(write, b"closed ")

    def fork(n):
        if n == 3 and os.fork() == 0:
            return
        if os.getpid() != parent:
            os.write(write, b"doubled ")
        elif n < 6:
            os.write(write, b"%d " % n)

    async def fork_async(n):
        fork(n)

    pipeline = ab.Pipeline("p").source(source())
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
    assert finish(process) == (0, f"2000 {said}\n{refused}\n", "")


def test_e6_a_fork_does_not_tell_of_its_parents_failures():
    script = """
    import os, warnings
    import anabranch as ab

    warnings.simplefilter("ignore", DeprecationWarning)

    def undo():
        os.fork()

    def sink(n, ctx):
        ctx.compensate(undo)
        raise ValueError

    pipeline = ab.Pipeline("p", on_error="stop").source([1]).for_each(sink, inline=True)
    try:
        report = pipeline.run_blocking()
    except ab.ForkedProcessError:
        os._exit(0)
    os.wait()
    print(report.outcome)
    """
    told = "pipeline 'p' failed with failures: ValueError x1\n"
    assert finish(child(script)) == (0, "failed\n", told)


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
