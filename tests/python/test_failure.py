"""What a Failure is: its parts, its JSON form, and the catalogue of codes."""

import dataclasses
import json
import pickle
import re
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import balanced

import anabranch as ab
from anabranch.monitor import Operation

ROOT = Path(__file__).parents[2]


def failed(error, **more):
    return ab.Failure(code=type(error).__name__, stage="store", error=error, **more)


def test_e1_a_failure_cannot_be_changed():
    failure = failed(OSError("full"), metadata={"a": 1})
    with pytest.raises(dataclasses.FrozenInstanceError):
        failure.code = "other"
    with pytest.raises(TypeError):
        failure.metadata["a"] = 2
    other = failure.replace(code="disk.full", metadata={"b": 2})
    assert (other.code, dict(other.metadata), other.error) == ("disk.full", {"b": 2}, failure.error)
    assert failure.code == "OSError"


def test_e1_a_failure_has_code_message_metadata_cause_and_children():
    class Refused(Exception):
        @property
        def metadata(self):
            return {"status": 503}

    inner = ExceptionGroup("inner", [Refused("busy")])
    failure = failed(ExceptionGroup("both", [inner, KeyError("k")]))
    assert (failure.message, failure.cause) == ("both (2 sub-exceptions)", failure.error)
    group, key = failure.children
    assert (group.code, key.code, key.message) == ("ExceptionGroup", "KeyError", "'k'")
    (refused,) = group.children
    assert (refused.code, refused.message, dict(refused.metadata)) == (
        "Refused",
        "busy",
        {"status": 503},
    )


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=10,
)


@given(item=values, tenant=values, metadata=st.dictionaries(st.text(), values))
def test_e1_json_round_trip(item, tenant, metadata):
    error = ExceptionGroup("two", [OSError("full"), ValueError()])
    failure = failed(
        error, item=item, tenant=tenant, metadata=metadata, history=[OSError(1), error], items=3
    )
    told = json.dumps(failure.to_dict(), allow_nan=False)
    again = ab.Failure.from_dict(json.loads(told))
    assert json.dumps(again.to_dict()) == told
    assert (again.code, again.items, len(again.children)) == ("ExceptionGroup", 3, 2)
    assert type(again.error) is ab.RestoredError
    assert (again.error.kind, str(again.error)) == ("ExceptionGroup", str(error))
    assert again.history[0].kind == "OSError"


class Unlisted(dict):
    def items(self):
        raise OSError("no items")


class Unread(list):
    def __iter__(self):
        raise OSError("no items")


class Untold(Unlisted):
    def __repr__(self):
        raise OSError("no text")


HUGE = 10**5000
AWKWARD = [
    (Unlisted(a=1), "{'a': 1}"),
    (Unread([1]), "[1]"),
    (Untold(), "<Untold without a text>"),
    (HUGE, "<int without a text>"),
    ([1, -HUGE, {"a": HUGE}], [1, "<int without a text>", {"a": "<int without a text>"}]),
    ({"a": Unlisted(a=1), HUGE: 2}, {"a": "{'a': 1}", "<int without a text>": 2}),
]


@pytest.mark.parametrize(("item", "told"), AWKWARD, ids=range(len(AWKWARD)))
def test_e1_t1_an_item_that_has_no_json_form_is_told_by_its_text(item, told, tmp_path):
    def refuse(_):
        raise ValueError("no")

    pipeline = ab.Pipeline("p").source([item]).fan_out(by=lambda _: HUGE).map(refuse).collect()
    report = balanced(pipeline.run_blocking())
    (failure,) = json.loads(json.dumps(report.to_dict(), allow_nan=False))["failures"]
    assert (failure["item"], failure["tenant"]) == (told, "<int without a text>")
    report = balanced(pipeline.dead_letter(tmp_path / "letters").run_blocking())
    assert (report.dead_lettered, report.codes) == (1, {})
    assert json.loads((tmp_path / "letters").read_text())["item"] == told


@pytest.mark.parametrize("told", [{}, {"code": "x"}, {"children": 7}])
def test_e1_what_is_no_failure_is_refused(told):
    with pytest.raises(ValueError, match="not the dict of a Failure"):
        ab.Failure.from_dict(told)


def test_e1_a_failure_survives_pickling():
    copy = pickle.loads(pickle.dumps(failed(OSError("full"), metadata={"a": 1}, item=[1])))
    assert (copy.code, dict(copy.metadata), copy.item, str(copy.error)) == (
        "OSError",
        {"a": 1},
        [1],
        "full",
    )


def test_f14_no_type_of_the_user_s_is_counted_under_a_code_of_ours():
    class timeout(Exception):  # noqa: N801 - the name is the point
        pass

    class cancelled(Exception):  # noqa: N801 - as above
        pass

    def fail(n):
        raise (timeout, cancelled)[n](n)

    report = balanced(ab.Pipeline("p").source([0, 1]).map(fail).collect().run_blocking())
    assert len(report.codes) == 2
    assert not set(report.codes) & set(ab.CODES)
    assert all(code.endswith(("timeout", "cancelled")) for code in report.codes)
    with pytest.raises(ValueError, match="one of anabranch's own"):
        report.failures[0].replace(code="timeout")


def test_e1_the_catalogue_describes_every_code():
    for name, code in ab.CODES.items():
        assert code.name == name
        assert code.description.endswith(".")


def test_e1_every_code_that_is_written_anywhere_is_in_the_catalogue():
    """The dotted ones by their look, the others where a code is assigned or compared."""
    areas = {name.split(".")[0] for name in ab.CODES if "." in name}
    dotted = re.compile(rf'"((?:{"|".join(areas)})\.[a-z_0-9]+)"')
    given_here = re.compile(
        r'(?:code(?:: \w+)? = |code: |return )"([a-z_]+)"(?:\.to_owned\(\))?[,\n]'
    )
    files = [*ROOT.glob("src/**/*.rs"), *ROOT.glob("python/anabranch/*.py")]
    assert len(files) > 50
    found = {}
    for path in files:
        text = path.read_text()
        for code in dotted.findall(text):
            found.setdefault(code, path)
        if path.name in ("domain.rs", "errors.py", "_failures.py"):
            for code in given_here.findall(text):
                found.setdefault(code, path)
    assert {"source.failed", "channel.full", "timeout", "cancelled"} <= set(found)
    # What may be asked of a branch looks like a code.
    for operation in get_args(Operation):
        found.pop(operation, None)
    assert {code: path for code, path in found.items() if code not in ab.CODES} == {}


def test_e1_every_exception_of_ours_has_a_code_in_the_catalogue():
    from anabranch import errors

    ours = [it for it in vars(errors).values() if isinstance(it, type)]
    ours = [it for it in ours if issubclass(it, ab.AnabranchError)]
    assert len(ours) > 12
    for kind in ours:
        if kind is ab.RestoredError:
            continue  # it has the code of what it stands for
        error = kind("text", [ValueError()]) if issubclass(kind, ExceptionGroup) else kind("text")

        def fail(n, error=error):
            raise error

        report = ab.Pipeline("p").source([1]).map(fail).collect().run_blocking()
        assert set(report.codes) <= set(ab.CODES), kind
