"""`attr` and `item` as objects; what a pipeline does with them is tested where it runs."""

import pickle
from types import SimpleNamespace

import pytest

import anabranch as ab


def test_b3_keys_can_be_called_like_any_key_function():
    assert ab.attr("tenant")(SimpleNamespace(tenant="acme")) == "acme"
    assert ab.item("tenant")({"tenant": "acme"}) == "acme"
    assert ab.item(-1)(("line", "acme")) == "acme"
    with pytest.raises(AttributeError):
        ab.attr("tenant")(object())
    with pytest.raises(KeyError):
        ab.item("tenant")({})


def test_keys_are_values():
    for key, shown in [(ab.attr("x"), "attr('x')"), (ab.item("x"), "item('x')")]:
        assert repr(key) == shown
        assert key == pickle.loads(pickle.dumps(key))
        assert hash(key) == hash(pickle.loads(pickle.dumps(key)))
    assert repr(ab.item(0)) == "item(0)"
    assert len({ab.attr("x"), ab.attr("x"), ab.item("x"), ab.item("y")}) == 3


@pytest.mark.parametrize("name", ["", "a.b", "a b", "class", 3, None])
def test_attr_takes_one_identifier(name):
    with pytest.raises(ab.ConfigError, match=r"^attr: name must be an attribute's name, got "):
        ab.attr(name)


@pytest.mark.parametrize("key", [True, None, 1.5, b"x"])
def test_item_takes_a_str_or_an_int(key):
    with pytest.raises(ab.ConfigError, match=r"^item: key must be a str or an int, got "):
        ab.item(key)
