"""The scripts in python/examples and the README's code run as they stand."""

import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

import anabranch as ab

REPOSITORY = Path(__file__).parents[2]
EXAMPLES = REPOSITORY / "python/examples"
PIPELINES = ("failures", "tcp_gateway", "tenant_fanout", "virtual_time")
README = (REPOSITORY / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def run(script):
    done = subprocess.run(
        [sys.executable, "-W", "error", script],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.mark.parametrize("name", PIPELINES)
def test_the_example_runs_by_itself_and_prints_its_report(name):
    said = run(EXAMPLES / f"{name}.py")
    assert re.search(r"^pipeline '\w+': (completed|drained) in ", said, re.MULTILINE)


def test_the_fan_out_stores_all_but_the_tenant_that_fails():
    said = run(REPOSITORY / "python/examples/tenant_fanout.py")
    stored = dict(re.findall(r"'(\w+)': (\d+)", said.splitlines()[-1]))
    assert stored.keys() == {"acme", "globex"}
    (committed,) = re.findall(r"committed +([\d,]+)", said)
    assert sum(map(int, stored.values())) == int(committed.replace(",", ""))


def test_the_gateway_stores_what_its_clients_sent():
    said = run(REPOSITORY / "python/examples/tcp_gateway.py")
    stored = "in the database: {'acme': 2500, 'globex': 1200, 'initech': 10}"
    assert said.splitlines()[-1] == stored


def test_t3_b7_failures_are_recovered_counted_kept_and_a_tenant_brought_back():
    said = run(REPOSITORY / "python/examples/failures.py")
    assert said.startswith("hooli is failed after 3 failures in a row\n")
    assert re.search(r"^  recovered +6$", said, re.MULTILINE)
    *_, broken, letters, stored = said.splitlines()
    assert broken == "broken lines: {'JSONDecodeError': 6}"
    # Six broken lines, and three orders of hooli's before it had failed.
    assert letters == "dead letters: 9"
    assert stored == "stored: {'acme': 18, 'globex': 18, 'hooli': 9}"


def test_r10_r8_r11_a_page_has_its_price_in_time_and_losers_give_back_their_leases():
    said = run(EXAMPLES / "time_sensitive_enrichment.py").splitlines()
    assert said == [
        "good: Emma 19.99 (fresh) after 20 ms",
        "good: Persuasion 19.99 (fresh) after 20 ms",
        "good: leases 2 near, 0 far",
        "slow: Emma 19.99 (fresh) after 60 ms",
        "slow: Persuasion 19.99 (fresh) after 60 ms",
        "slow: leases 0 near, 2 far",
        "late: Emma 18.0 (cached) after 90 ms",
        "late: Persuasion 24.0 (list price) after 90 ms",
        "late: leases 0 near, 0 far",
        "bad: Emma 18.0 (cached) after 70 ms",
        "bad: Persuasion 24.0 (list price) after 70 ms",
        "bad: leases 0 near, 0 far",
    ]


def test_g4_g8_uploads_are_cancelled_one_by_one_by_tenant_and_leave_nothing():
    said = run(EXAMPLES / "per_item_cancellation.py").splitlines()
    assert "globex: the account is closed" in said
    assert any(line.startswith("acme: b.bin:") and "took it back" in line for line in said)
    assert "initech: b.bin: stored as initech/b.bin" in said
    assert not any("Traceback" in line for line in said)


def test_r13_g5_a_trip_is_booked_as_a_whole_or_not_at_all():
    said = run(EXAMPLES / "mixed_orchestration.py")
    assert "booked: {'seat': 'seat 7'" in said
    assert "not booked: PermissionError no money" in said
    assert "the customer hung up" in said
    assert said.count("    seat 7 is given back") == 2
    assert said.index("car is given back") < said.index("    seat 7 is given back")


UNREADABLE = "invalid literal for int() with base 10: 'nothing'"


def test_e1_r9_the_errors_of_a_hundred_shops_are_one_answer():
    said = run(EXAMPLES / "error_aggregation.py").splitlines()
    assert said[0] == "stock: 9156, of 90 shops"
    assert "ConnectionError': 5" in said[1]
    assert "after 3 attempts, 1.0 s" in said[2]
    assert said[3].startswith("down: shop 3")
    assert said[4:] == ["wrong:", "  shop 7: 14 again", f"  {UNREADABLE}"]


def test_b3_b4_g4_tenants_come_and_go_and_only_the_rows_of_the_one_that_fails_are_undone():
    said = run(EXAMPLES / "dynamic_fan_out.py").splitlines()
    assert said.count("acme comes") == 2
    assert said.index("acme leaves after 2 orders") < said.index("hooli comes")
    assert said[-10:] == [
        "failed: globex cannot sell",
        "undone: 4 actions",
        "refused: 1",
        "acme: [1, 2, 3]",
        "globex: []",
        "hooli: [7, 8]",
        # Of globex' orders one was told already, and the other is retracted.
        "order.booked: hooli 7",
        "order.cancelled: globex 10",
        "order.booked: acme 3",
        "order.booked: hooli 8",
    ]


def test_f16_f17_three_transports_leave_leases_and_events_as_they_must_be():
    said = run(EXAMPLES / "fan_in_compensation.py").splitlines()
    assert said == [
        "handled: {'web': 2000, 'queue': 2000, 'files': 2100}",
        "told: {'acked': 6100, 'known': 100, 'set aside': 4}",
        "stored: 5996 events: 5996",
        "leases left: ['web-1499', 'web-1999', 'web-499', 'web-999']",
        "left to undo: 0",
        "ended: the store is gone at web-x",
        "undone: ['withdraw']",
        "the event is withdrawn: True",
        "the lease is there: True",
    ]


def test_s2_s4_s7_alarms_before_commands_before_readings_and_something_for_silence():
    said = run(EXAMPLES / "selective_fan_in.py").splitlines()
    assert [line.strip() for line in said] == [
        "0.0  ALARM pressure",
        "1.0  ALARM heat",
        "2.0  command open the valve",
        "2.0  command close the valve",
        "7.0  all is quiet",
        "8.5  readings: [20, 21, 35]",
        "8.5  select.drained",
    ]


def test_m1_q1_who_is_served_next_is_a_matter_of_strategy():
    said = run(EXAMPLES / "priority_merge.py").splitlines()
    assert [line.split()[-1] for line in said] == [
        "gsfgsfgsfgsg",
        "gggggsfsfsfs",
        "gggssfggssff",
        "gsgfsgfsgfsg",
        "gggggssssfff",
        "fffssssggggg",
        "None",
        "10",
        "gold",
    ]


def test_t1_e8_one_item_becomes_many_and_none_and_every_sum_adds_up():
    said = run(EXAMPLES / "flat_map_streams.py").splitlines()
    assert said[-5:] == [
        "acme: 0:Emma, 0:Persuasion, 1:Sanditon",
        "globex: 1:Ulysses",
        "received 4 and made 3 more",
        "committed 4 filtered 2 failed 1",
        "balanced: True codes: {'LookupError': 1}",
    ]


def test_t5_b1_what_is_filtered_out_is_audited_all_the_same():
    said = run(EXAMPLES / "stream_filtering.py").splitlines()
    assert said[-3:] == [
        "audit saw 10 lines, in order: True",
        "stored [1, 3, 1, 2, 3, 4]",
        "filtered 2 failed 2 {'JSONDecodeError': 2}",
    ]


def test_t2_t3_taps_see_everything_and_change_nothing():
    said = run(EXAMPLES / "telemetry_taps.py").splitlines()
    assert said[-5:] == [
        "seen: {'raw': 6, 'parsed': 5, 'good': 4}",
        "hottest: {'acme': 21, 'globex': 99}",
        "failures: {'parse: ValueError': 1, 'extremes: ValueError': 1}",
        "the stream itself: [[('acme', 20), ('acme', 21)], [('globex', 99), ('globex', 19)]]",
        "committed 4 failed 2",
    ]


def test_w1_w5_c10_batches_leave_by_size_or_age_and_one_that_fails_is_rolled_back():
    said = run(EXAMPLES / "batching_windows.py").splitlines()
    assert said == [
        "0.00 s  market: 500 by size",
        "0.25 s  market: 500 by size",
        "2.00 s  market: 200 by age",
        "2.00 s  corner: 2 by age",
        "7.50 s  corner: 1 by close",
        "stored: {'corner': 3, 'market': 1200}",
        # 250 of the market's before the second attempt, and the one order before the bad one.
        "taken out again: 251",
        "failed: 2 {'PermissionError': 2}",
        "retried: 1 balanced: True",
    ]


def test_b12_e9_g1_tcp_and_websocket_clients_are_muted_served_by_weight_and_told():
    said = run(EXAMPLES / "streaming_sockets.py").splitlines()
    assert said[:-1] == [
        "the heartbeat tells that all of acme's is stored",
        "errors: {'JSONDecodeError': 2}",
        "stored: {'acme': 600, 'globex': 600}",
        "muted: 100 retried: 2 balanced: True",
    ]
    told, left = said[-1].rsplit(" ", 1)
    assert told == "when all of acme's was stored, so much of globex's was not:"
    # Three turns for one would leave 400, if both had begun with the same.
    assert int(left) >= 300


def test_r2_r8_replies_find_their_questions_and_survive_broken_connections():
    said = run(EXAMPLES / "duplex_sockets.py").splitlines()
    assert len([line for line in said if line.startswith("lost: ")]) == 2
    assert said[2:] == [
        "answered: 39 in order: True",
        "not answered: {'timeout': 1} still pending: 0",
        "connections: 3",
        "asked again: True counted: 40",
    ]


def test_every_example_is_asserted():
    toolkit = {
        "batching_windows",
        "duplex_sockets",
        "streaming_sockets",
        "dynamic_fan_out",
        "fan_in_compensation",
        "flat_map_streams",
        "priority_merge",
        "selective_fan_in",
        "stream_filtering",
        "telemetry_taps",
        "time_sensitive_enrichment",
        "per_item_cancellation",
        "mixed_orchestration",
        "error_aggregation",
    }
    outbox = {"five_customers", "order_fanout", "transactional_outbox"}
    assert {path.stem for path in EXAMPLES.glob("*.py")} == toolkit | outbox | set(PIPELINES)


def test_the_readme_lists_every_example():
    listed = re.findall(r"^\| `(\w+)\.py` \|", README, re.MULTILINE)
    assert sorted(listed) == sorted(path.stem for path in EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_the_code_in_the_readme_runs(block):
    names = {"__name__": "readme"}
    try:
        exec(compile(block, "README.md", "exec"), names)
    finally:
        # They are left to the end of a program, as short ones do.
        for it in names.values():
            if isinstance(it, sqlite3.Connection | ab.Outbox):
                it.close()


def test_the_readme_has_code():
    assert len(BLOCKS) >= 2


def test_h1_h9_j2_one_order_writes_three_topics_and_one_handler_fails():
    assert run(EXAMPLES / "order_fanout.py").splitlines() == [
        "order 4 is refused",
        "revenue: {'ada': 42, 'bob': 20, 'dan': 8}",
        "mails: [1, 2, 3, 5]",
        "published: [1, 3, 5]",
        "settled: [1, 3, 5] broken: [2]",
        "dead: order 2 of order.broker: Reject: no such exchange",
    ]


def test_n1_a4_a5_k8_an_order_and_its_message_are_written_together_and_handled():
    assert run(EXAMPLES / "transactional_outbox.py").splitlines() == [
        "order 3 of ada is refused",
        "order 4: mail to cleo@example.org, attempt 1",
        "order 1: mail to ada@example.org, attempt 2",
        "dead: order 2: ValueError: bob@nowhere does not exist",
        "order 2: mail to bob@example.org, attempt 2",
        "{'order.created': {'done': 3}}",
    ]


def test_the_five_customers_example_bills_each_of_them_and_the_sixth():
    assert run(EXAMPLES / "five_customers.py").splitlines() == [
        "3 customers are billed while hooli's 500 orders are",
        "globex is billed once its database is there",
        "umbrella, the sixth customer, is billed",
        "acme: 15",
        "globex: 7",
        "hooli: 500",
        "initech: 60",
        "stark: 30",
        "umbrella: 42",
        "initech's outbox: {'order.created': {'done': 2, 'ready': 1}}",
    ]
