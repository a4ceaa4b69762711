"""The report and the errors made from it; that a run counts right is tested where it runs."""

import json
import pickle
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

import anabranch as ab

COUNTS = (
    "received",
    "produced",
    "committed",
    "filtered",
    "failed",
    "dropped",
    "dead_lettered",
    "returned",
    "left",
    "recovered",
    "retried",
    "windows",
)


def counts(**some):
    return dict.fromkeys(COUNTS, 0) | some


def raised(error):
    """Give `error` a traceback, as a handler would."""
    try:
        raise error
    except type(error) as caught:
        return caught


def failure(error, **more):
    data = {
        "code": type(error).__name__,
        "stage": "store",
        "tenant": "acme",
        "items": 1,
        "attempts": 1,
        "delay": 0.0,
        "error": raised(error),
        "history": [error],
    }
    return ab.Failure(**data | more)


def action(error=None, **more):
    data = {
        "name": "delete_batch",
        "stage": "store",
        "tenant": "acme",
        "outcome": "done" if error is None else "failed",
        "seconds": 0.5,
        "error": error,
    }
    return data | more


def undone(**some):
    return {"done": 0, "failed": 0, "skipped": 0, "finalized": 0, "actions": []} | some


def report(**some):
    data = {
        "pipeline": "ingest",
        "outcome": "completed",
        "seconds": 2.0,
        "blocked": 0.0,
        "counts": counts(),
        "columns": ["tenant", *counts()],
        "branches": [],
        "codes": {},
        "failures": [],
        "compensations": undone(),
        "timeouts": {"abandoned": 0, "late": 0, "calls": []},
        "items": [],
    }
    return ab.Report.from_core(data | some)


def eventful():
    return report(
        seconds=2.5,
        counts=counts(received=10_000, committed=8_999, filtered=1, failed=1_000, windows=20),
        branches=[
            ("acme", *counts(received=1_000, failed=1_000).values()),
            (("globex", 7), *counts(received=8_999, committed=8_999).values()),
        ],
        codes={"OSError": 999, "KeyError": 1},
        failures=[
            failure(OSError("disk full"), items=500, attempts=5, delay=1.5),
            failure(KeyError("tenant"), stage="fan_out", tenant=None),
        ],
        compensations=undone()
        | {
            "done": 3,
            "failed": 1,
            "actions": [action(), action(ConnectionError("gone"))],
        },
    )


@given(st.fixed_dictionaries({name: st.integers(0, 10**12) for name in COUNTS}))
def test_e8_balanced_says_whether_the_sum_holds(numbers):
    ended = sum(numbers[name] for name in COUNTS[2:9])
    assert report(counts=numbers).balanced == (numbers["received"] + numbers["produced"] == ended)
    numbers["received"] = ended
    numbers["produced"] = 0
    assert report(counts=numbers).balanced


def test_e8_a_report_that_does_not_add_up_says_so():
    assert "do not add up" in str(report(counts=counts(received=1)))
    assert "add up" not in str(eventful())


def test_r5_a_failure_keeps_attempts_each_error_and_the_total_delay():
    history = [OSError("first"), OSError("second")]
    told = failure(history[-1], attempts=2, delay=0.75, history=history)
    run = report(counts=counts(received=1, failed=1), failures=[told])
    (kept,) = run.failures
    assert (kept.attempts, kept.delay, kept.history) == (2, 0.75, tuple(history))
    with pytest.raises(ab.PipelineFailed) as caught:
        run.raise_for_failure()
    (error,) = caught.value.exceptions
    assert (error.code, error.stage, error.tenant) == ("OSError", "store", "acme")
    assert (error.attempts, error.delay, error.history) == (2, 0.75, tuple(history))


def test_e3_the_user_s_exception_is_the_cause_with_its_traceback():
    with pytest.raises(ab.PipelineFailed) as caught:
        eventful().raise_for_failure()
    first = caught.value.exceptions[0]
    assert str(first) == (
        "stage 'store', tenant 'acme': OSError: disk full after 5 attempts (500 items)"
    )
    assert type(first.__cause__) is OSError
    text = "".join(traceback.format_exception(caught.value))
    assert "in raised" in text
    assert "direct cause" in text


def test_a_failed_report_raises_all_it_knows_and_says_how_many_more():
    with pytest.raises(ab.PipelineFailed) as caught:
        eventful().raise_for_failure()
    assert caught.value.message == (
        "pipeline 'ingest' completed, 1,000 items failed, 499 more than listed here"
    )
    store, fan_out, undone = caught.value.exceptions
    assert isinstance(store, ab.HandlerError)
    assert str(fan_out) == "stage 'fan_out': KeyError: 'tenant'"
    assert isinstance(undone, ab.CompensationError)
    assert undone.message == "1 undo action failed"
    assert str(undone.exceptions[0]) == (
        "stage 'store', tenant 'acme': undo 'delete_batch': ConnectionError: gone"
    )


def test_an_error_of_ours_is_raised_as_it_is():
    source = ab.SourceError("reset by 10.0.0.1:99", code="source.truncated", peer="10.0.0.1:99")
    run = report(counts=counts(failed=0), outcome="failed", failures=[failure(source)])
    with pytest.raises(ab.PipelineFailed) as caught:
        run.raise_for_failure()
    assert caught.value.exceptions == (source,)


def test_an_aborted_run_without_failures_raises_too():
    run = report(outcome="aborted", counts=counts(received=2, left=2))
    with pytest.raises(ab.PipelineFailed, match="pipeline 'ingest' aborted, 2 items left"):
        run.raise_for_failure()


@pytest.mark.parametrize(
    ("some", "ok"),
    [
        ({}, True),
        ({"outcome": "drained", "counts": counts(received=2, left=2)}, True),
        ({"outcome": "aborted"}, False),
        ({"outcome": "failed"}, False),
        ({"counts": counts(received=1, failed=1)}, False),
        ({"counts": counts(received=2, filtered=1, dropped=1)}, True),
        ({"compensations": undone(done=1, actions=[action()])}, True),
        ({"compensations": undone(failed=1)}, False),
    ],
)
def test_ok_means_the_end_was_reached_and_nothing_failed(some, ok):
    run = report(**some)
    assert run.ok is ok
    if ok:
        run.raise_for_failure()
    else:
        with pytest.raises(ab.PipelineFailed):
            run.raise_for_failure()


def test_the_groups_split_into_their_own_kind():
    group = ab.PipelineFailed("two", [ab.HandlerError("a"), ValueError("b")])
    match, rest = group.split(ab.HandlerError)
    assert (type(match), type(rest)) == (ab.PipelineFailed, ab.PipelineFailed)
    assert type(ab.CompensationError("undo", [OSError()]).subgroup(OSError)) is ab.CompensationError
    assert issubclass(ab.PipelineFailed, ab.AnabranchError)


def test_the_text_is_short_and_aligned():
    assert str(eventful()) == (
        "pipeline 'ingest': completed in 2.5 s, 4,000 items/s\n"
        "  received   10,000\n"
        "  committed   8,999\n"
        "  filtered        1\n"
        "  failed      1,000\n"
        "  windows        20\n"
        "  branches        2\n"
        "failed items by code\n"
        "  OSError   999\n"
        "  KeyError    1\n"
        "failed items by branch, in 1 of 2\n"
        "  acme  1,000\n"
        "undo actions: 3 done, 1 stuck\n"
        "  stage 'store', tenant 'acme': delete_batch: ConnectionError: gone"
    )


def test_the_text_stays_short_however_much_failed():
    branches = [(n, *counts(received=n, failed=n).values()) for n in range(1, 1001)]
    codes = {f"E{n}": n for n in range(1, 1001)}
    total = counts(received=500_500, failed=500_500)
    text = str(report(counts=total, branches=branches, codes=codes))
    assert len(text.splitlines()) < 25
    assert "  1000          1,000\n  999             999\n" in text
    assert "  995 others  495,510" in text


def test_a_run_of_no_time_has_no_rate():
    assert report(seconds=0.0, counts=counts(received=1, committed=1)).rate == 0.0
    assert eventful().rate == 4000.0


def test_to_dict_is_json_and_leaves_nothing_out_but_the_items():
    told = json.loads(json.dumps(eventful().to_dict()))
    assert told["counts"] == counts(
        received=10_000, committed=8_999, filtered=1, failed=1_000, windows=20
    )
    assert [branch["tenant"] for branch in told["branches"]] == ["acme", "('globex', 7)"]
    assert told["codes"] == {"OSError": 999, "KeyError": 1}
    first = told["failures"][0]
    assert (first["error"]["type"], first["error"]["message"]) == ("OSError", "disk full")
    assert first["error"]["traceback"].endswith("OSError: disk full\n")
    assert first["history"] == [first["error"]]
    assert (first["items"], first["attempts"], first["delay"]) == (500, 5, 1.5)
    assert told["compensations"]["actions"][1]["error"]["message"] == "gone"
    assert told["compensations"]["done"] == 3
    assert told["compensations"]["failed"] == 1
    empty = report().to_dict()
    assert set(empty) == set(told)


def test_an_exception_that_cannot_be_printed_does_not_hide_the_report():
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError

    run = report(counts=counts(received=1, failed=1), failures=[failure(Mute())])
    assert run.to_dict()["failures"][0]["error"]["message"] == "<Mute without a text>"
    with pytest.raises(ab.PipelineFailed):
        run.raise_for_failure()


def test_branches_are_found_by_tenant():
    run = eventful()
    assert run.branch(("globex", 7)).committed == 8_999
    with pytest.raises(KeyError):
        run.branch("initech")


def test_the_repr_does_not_print_what_was_collected():
    run = report(counts=counts(received=2, committed=2), items=[1, 2])
    assert run.items == [1, 2]
    assert repr(run) == (
        "<Report of pipeline 'ingest': completed, received=2, committed=2, failed=0>"
    )


@pytest.mark.parametrize(
    "error",
    [
        ab.AnabranchError("a"),
        ab.ClosedError("a"),
        ab.ForkedProcessError("a"),
        ab.ConfigError("a", pipeline="p", stage="s", argument="x", value=0),
        ab.HandlerError("a", code="OSError", stage="s", tenant=7, attempts=2, delay=0.5),
        ab.SourceError("a", code="source.truncated", peer="10.0.0.1:99"),
        ab.CompensationError("a", [OSError("b")]),
        ab.PipelineFailed("a", [OSError("b")]),
    ],
)
def test_errors_survive_pickling(error):
    error.add_note("kept")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


def test_reports_survive_pickling():
    copy = pickle.loads(pickle.dumps(eventful()))
    assert str(copy) == str(eventful())


def test_b13_the_reports_of_branches_are_made_when_they_are_asked_for():
    branches = eventful().branches
    assert [branch.tenant for branch in branches[::-1]] == [("globex", 7), "acme"]
    assert (branches[0], len(branches)) == (branches[-2], 2)
    assert branches == tuple(branches)
    assert branches != ()
    with pytest.raises(IndexError):
        branches[2]
