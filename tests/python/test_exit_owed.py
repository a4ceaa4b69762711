"""What is still to be undone when the process ends: it is undone, or said; rows C3, C19, E7."""

import pytest
from support import child, finish

# Actions of a unit that is in hand, of one that waits, and of the run; of both kinds.
BEGUN = """
    import asyncio, sys, threading
    import anabranch as ab

    begun, never = threading.Event(), threading.Lock()
    never.acquire()

    def undo(n):
        print("undone", n)

    async def undo_async(n):
        print("undone, awaited", n)

    def register(n, ctx):
        ctx.compensate(undo, n, level="pipeline")
        ctx.compensate(undo_async, n, level="pipeline")

    async def store(n, ctx):
        ctx.compensate(undo, 10 + n)
        begun.set()
        await asyncio.Event().wait()

    def stuck(n, ctx):
        ctx.compensate(undo, 10 + n)
        begun.set()
        never.acquire()

    pipeline = ab.Pipeline("p").source([1, 2]).tap(register)

    def start(running):
        async def main():
            await running.__aenter__()
            while not begun.is_set():
                await asyncio.sleep(0)

        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        return loop
"""
LEFT = {
    "a stopped loop": "loop = start(running)",
    "a closed loop": "loop = start(running); loop.close()",
    "a thread that has ended": """
    def main():
        global loop
        loop = start(running)

    thread = threading.Thread(target=main)
    thread.start()
    thread.join()
    """,
}


@pytest.mark.parametrize("how", LEFT)
def test_c3_c19_e7_what_nothing_drives_is_undone_at_exit_and_the_rest_is_said(how):
    script = f"""{BEGUN}
    running = pipeline.for_each(store).start()
    {LEFT[how].strip()}
    sys.exit(4)
    """
    code, out, err = finish(child(script, flags=()))
    # The last registered first.
    assert (code, out.split("\n")) == (4, ["undone 11", "undone 2", "undone 1", ""])
    assert err == (
        "pipeline 'p': 2 undo actions are stuck, `report.retry_stuck()` tries them again: "
        "2 x 'undo_async' of stage 'register'\n"
    )


def test_e7_what_is_not_undone_under_a_stuck_callable_is_said():
    script = f"""{BEGUN}
    pipeline = pipeline.for_each(stuck, inline=True)
    threading.Thread(target=pipeline.run_blocking, daemon=True).start()
    begun.wait()
    sys.exit(4)
    """
    said = (
        "pipeline 'p': the process ends before its run does, and 5 undo actions and finalizers have"
        " not run: 4 x stage 'register', 1 x stage 'stuck'\n"
    )
    assert finish(child(script)) == (4, "", said)


def test_e7_a_handler_stuck_in_a_thread_is_left_behind_so_that_all_is_undone_at_exit():
    script = f"""{BEGUN}
    pipeline = pipeline.for_each(stuck)
    threading.Thread(target=pipeline.run_blocking, daemon=True).start()
    begun.wait()
    sys.exit(4)
    """
    undone = ["undone 11", "undone, awaited 2", "undone 2", "undone, awaited 1", "undone 1", ""]
    assert finish(child(script)) == (4, "\n".join(undone), "")


LEFT_BEHIND = {
    "pool": "",
    "async": "pipeline 'p': tasks are still busy and were left behind: 2 of stage "
    "'store_late_async'\n",
}


@pytest.mark.parametrize("kind", LEFT_BEHIND)
def test_e7_r8_nor_is_one_waited_for_that_has_timed_out_before(kind):
    # In 5 s it would be left behind by itself, which the process does not wait for.
    script = f"""{BEGUN}
    def store_late(n, ctx):
        ctx.compensate(undo, 10 + n)
        if n == 1:
            never.acquire()
        begun.set()
        never.acquire()

    async def store_late_async(n, ctx):
        ctx.compensate(undo, 10 + n)
        if n == 2:
            begun.set()
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                pass

    store = {{"pool": store_late, "async": store_late_async}}["{kind}"]
    pipeline = ab.Pipeline("p").source([1, 2]).tap(register).for_each(store, timeout=0.01)
    threading.Thread(target=pipeline.run_blocking, daemon=True).start()
    begun.wait()
    sys.exit(4)
    """
    code, out, err = finish(child(script))
    undone = ["undone, awaited 2", "undone 2", "undone, awaited 1", "undone 1", ""]
    assert (code, out.split("\n")[-5:], err) == (4, undone, LEFT_BEHIND[kind])


def test_c3_what_is_stuck_at_the_end_of_a_run_is_said(caplog):
    import anabranch as ab

    def handler(n, ctx):
        ctx.compensate(print, n, name="broken", when=n == 1)
        ctx.compensate(int, "x")
        raise ValueError

    pipeline = ab.Pipeline("p").source([1, 2]).for_each(handler, inline=True, name="store")
    pipeline.run_blocking()
    said = [it.getMessage() for it in caplog.records]
    assert said[-1] == (
        "pipeline 'p': 2 undo actions are stuck, `report.retry_stuck()` tries them again: "
        "2 x 'int' of stage 'store'"
    )
