"""What the monitor tells of branches that have failed, and of what cannot be done to them."""

import pytest
from looker import Looker, sockets
from test_ctl import ctl
from test_monitor import ENDLESS, directory, running  # noqa: F401 - a fixture

# One tenant's store is out of order until its branch has failed; what comes for it goes on.
FAILING = (
    ENDLESS.replace('OSError("disk full")', 'TimeoutError("slow")')
    .replace(
        "        stored += 1\n",
        "        stored += 1\n"
        '        if event["tenant"] == "t3":\n'
        '            raise ConnectionError("out of order")\n',
    )
    .replace('fan_out(by="tenant")', 'fan_out(by="tenant", on_branch_error=ab.fail(after=2))')
    + "\n    pipeline().run_blocking()\n"
)


# All fail with another error from the first line on.
CHANGING = (
    ENDLESS.replace(
        "(sys.stdin.readline(), ended.set())",
        "(sys.stdin.readline(), other.set(), sys.stdin.readline(), ended.set())",
    )
    .replace("    ended = ", "    other = threading.Event()\n    ended = ")
    .replace(
        'raise OSError("disk full")',
        'raise TimeoutError("slow") if other.is_set() else OSError("disk full")',
    )
    + "\n    pipeline().run_blocking()\n"
)


@pytest.fixture
def failed(directory):  # noqa: F811 - the fixture
    with running(FAILING), Looker(*sockets(directory)) as looker:
        looker.watch("totals", "branches", "errors", "log")
        looker.until_told(lambda it: (it.of("t3") or {}).get("st") == "fail")
        looker.until_told(lambda it: it.errors.get("branch.failed", {}).get("n", 0) > 10)
        yield looker


def test_v1_a_branch_that_has_failed_tells_why_whatever_it_refuses_since(failed):
    failed.until_told(lambda it: it.of("t3")["err"] > 10)
    assert failed.of("t3")["lerr"] == "ConnectionError"
    error = failed.errors["ConnectionError"]
    assert error["branches"] == [failed.of("t3")["id"]]
    failed.until_told(lambda it: it.errors["TimeoutError"]["n"] > 2)
    assert failed.errors["ConnectionError"]["stage"] == "store", "though it had others since"
    told = "the branch has failed: ConnectionError"
    failed.until_told(lambda it: any(entry["msg"] == told for entry in it.log))


def test_dashboard_10_a_dry_run_refuses_what_would_be_refused(failed, directory):  # noqa: F811
    on = {"p": 0, "branch": failed.of("t3")["id"]}
    for op in ("branch.drain", "branch.cancel", "branch.pause", "branch.resume", "branch.throttle"):
        dry = failed.command(op, on=on, dry=True, args={"rate": 5.0})
        assert dry["err"]["code"] == "state", (op, dry)
        assert dry["err"]["msg"] == f"branch 't3' is failed, with 0 inside: cannot {op[7:]}"
        assert failed.command(op, on=on, args={"rate": 5.0})["err"]["code"] == "state", op
    assert failed.command("branch.restart", on=on, dry=True)["ok"]
    assert failed.of("t3")["st"] == "fail", "nothing was done"
    code, out, err = ctl("drain", "t3", "--dry-run")
    assert (code, out) == (6, "")
    assert "is failed, with 0 inside: cannot drain (state)" in err


def test_dashboard_5_an_error_tells_of_the_tenants_it_was_in_that_have_others_since(directory):  # noqa: F811
    with running(CHANGING) as process, Looker(*sockets(directory)) as looker:
        looker.watch("totals", "branches", "errors")
        odd = {"t1", "t3", "t5", "t7"}

        def tenants(code):
            error = looker.errors.get(code, {"p": 0, "branches": []})
            return {looker.names.get((error["p"], it)) for it in error["branches"]}

        looker.until_told(lambda _: tenants("OSError") == odd)
        process.stdin.write("other\n")
        process.stdin.flush()
        looker.until_told(lambda _: tenants("TimeoutError") == odd)
        assert tenants("OSError") == odd
