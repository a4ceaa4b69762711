"""Signals: Ctrl-C and SIGTERM, once, twice, three times."""

import signal

import pytest
from support import ENDLESS, child, every_sink, finish

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
