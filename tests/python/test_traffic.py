"""The traffic generator: repeatable, whole per tenant, and safe on the wire."""

from collections import Counter, defaultdict
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

import anabranch as ab
from anabranch.traffic import Entry, _slots, entries, parse, tenant_names


def take(number, tenants=12, **options):
    return list(islice(entries(tenant_names(tenants), **options), number))


def test_the_same_seed_gives_the_same_traffic_and_another_one_another():
    assert take(500, seed=3) == take(500, seed=3)
    assert take(500, seed=3) != take(500, seed=4)


def test_each_tenant_counts_from_zero_without_a_gap():
    sequences = defaultdict(list)
    for entry in take(5000):
        sequences[entry.tenant].append(entry.sequence)
    assert all(numbers == list(range(len(numbers))) for numbers in sequences.values())


@pytest.mark.parametrize("tenants", [1, 2, 24, 600])
def test_every_tenant_sends_and_the_first_most(tenants):
    sent = Counter(entry.tenant for entry in take(100_000, tenants))
    assert set(sent) == set(tenant_names(tenants))
    assert sent.most_common(1)[0][0] == tenant_names(tenants)[0]


@pytest.mark.parametrize("tenants", [1, 1023, 1024, 5000])
def test_every_tenant_has_a_share(tenants):
    slots = _slots(tenants)
    assert set(slots) == set(range(tenants))
    assert len(slots).bit_count() == 1, "chosen by mask"


def test_lines_are_one_line_each_and_not_only_ascii():
    lines = [entry.line for entry in take(5000)]
    assert all(line.splitlines() == [line] and "\t" not in line for line in lines)
    assert not all(line.isascii() for line in lines)
    assert len(set(lines)) > 4900


@given(
    st.text(st.characters(exclude_characters="\t\n", codec="utf-8"), min_size=1),
    st.integers(min_value=0),
    st.text(st.characters(exclude_characters="\n", codec="utf-8")),
)
def test_what_is_encoded_is_parsed_to_the_same(tenant, sequence, line):
    entry = Entry(tenant, sequence, line)
    data = entry.encode()
    assert data.endswith(b"\n")
    assert data.count(b"\n") == 1
    assert parse(data[:-1].decode()) == entry


@pytest.mark.parametrize("line", ["", "acme", "acme\t7", "acme\tseven\ttext"])
def test_a_line_of_another_form_is_a_value_error_that_shows_it(line):
    with pytest.raises(ValueError, match=r"tenant<TAB>sequence<TAB>line: '") as caught:
        parse(line)
    assert repr(line) in str(caught.value)


def test_names_go_on_when_they_run_out():
    assert len(set(tenant_names(1000))) == 1000
    assert tenant_names(30)[:24] == tenant_names(24)


@pytest.mark.parametrize("number", [0, -1, 1.5, "3", True, None])
def test_a_wrong_number_of_tenants_is_refused(number):
    with pytest.raises(ab.ConfigError, match="number must be an int >= 1"):
        tenant_names(number)


@pytest.mark.parametrize("names", [[], [""], ["a\tb"], ["a\n"]])
def test_names_that_would_not_survive_the_wire_are_refused_at_once(names):
    with pytest.raises(ab.ConfigError, match="tenants must be"):
        entries(names)
