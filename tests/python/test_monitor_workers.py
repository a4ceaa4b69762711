"""What the monitor tells of those who work on outboxes: how many, what is paused, who rests."""

from looker import sockets
from test_monitor import ENDLESS, directory, running  # noqa: F401 - a fixture
from test_monitor_outbox import Clerk
from test_top import anabranch

import anabranch as ab

# A worker has a message of acme in hand until a line comes; its database is moved away by then.
WORKING = (
    ENDLESS.replace("sys.stdin.readline(), ended.set()", "obey(), ended.set()").replace(
        "ended = threading.Event()",
        """
    from pathlib import Path

    def obey():
        for line in sys.stdin:
            if line == "end\\n":
                worker.stop()
                return
            outboxes[line.strip()].pause("order.*")
            Path("PLACE/acme.db").rename("PLACE/moved.db")
            go_on.set()

    ended = threading.Event()""",
    )
    + """
    go_on = threading.Event()
    outboxes = {it: ab.Outbox(f"sqlite:///PLACE/{it}.db") for it in ("acme", "globex")}
    for outbox in outboxes.values():
        outbox.migrate()
    outboxes["acme"].enqueue("mail", {"to": "ada"})
    worker = ab.OutboxWorker(outboxes)

    @worker.on("mail")
    def send(message):
        go_on.wait()

    working = threading.Thread(target=worker.run_blocking)
    working.start()
    pipeline().run_blocking()
    working.join()
"""
)


def test_dashboard_outbox_workers_pauses_and_a_worker_that_rests_are_told_of(directory, tmp_path):  # noqa: F811
    script = WORKING.replace("PLACE", str(tmp_path))
    with running(script) as process, Clerk(*sockets(directory)) as clerk:
        name = "acme"
        clerk.until_told(lambda it: it.stores.get(name, {}).get("workers") == 1)
        told = clerk.stores[name]
        assert (told.get("paused"), told.get("resting")) == (None, None)
        clerk.until_told(lambda it: it.stores[name]["leased"] == 1)
        process.stdin.write("globex\n")
        process.stdin.flush()
        clerk.until_told(lambda it: it.stores[name].get("resting") is True)
        clerk.until_told(lambda it: it.stores["globex"].get("paused") == ["order.*"])
        assert "resting" not in clerk.stores["globex"], "the other one works"
        with ab.attach(process.pid) as job:
            rows = {row.name: row for row in job.look_blocking().outboxes}
        assert (rows[name].resting, rows[name].paused) == (True, ())
        globex = rows["globex"]
        assert (globex.resting, globex.paused, globex.workers) == (False, ("order.*",), 1)
        code, out, _ = anabranch("top", "--once")
        assert code == 0
        stores = out.partition("STORE ")[2].splitlines()
        row = next(line for line in stores if line.startswith("globex"))
        assert row.split()[-2:] == ["1", "order.*"]
        row = next(line for line in stores if line.startswith(name))
        assert row.split()[2] == "rest"
