"""Keys by name: `attr` and `item`, which route without calling into Python."""

from __future__ import annotations

import keyword
from dataclasses import dataclass
from typing import Any

from anabranch.errors import refused


@dataclass(frozen=True, slots=True, repr=False)
class AttrKey:
    """The key `attr` makes.

    Attributes:
        name: The attribute's name.
    """

    name: str

    def __call__(self, obj: object, /) -> Any:  # noqa: ANN401 - an attribute can be anything
        """Return the attribute of `obj`."""
        return getattr(obj, self.name)

    def __repr__(self) -> str:
        return f"attr({self.name!r})"


@dataclass(frozen=True, slots=True, repr=False)
class ItemKey:
    """The key `item` makes.

    Attributes:
        key: What to subscript with.
    """

    key: str | int

    def __call__(self, obj: Any, /) -> Any:  # noqa: ANN401 - anything that can be subscripted
        """Return `obj[key]`."""
        return obj[self.key]

    def __repr__(self) -> str:
        return f"item({self.key!r})"


def attr(name: str) -> AttrKey:
    """Name an attribute of the items as the key to `fan_out` by.

    The same as `lambda obj: obj.name`, but the pipeline looks the attribute up itself, which is
    faster. An item without the attribute becomes a failure item.

    Args:
        name: The attribute; one identifier, without dots.

    Raises:
        ConfigError: `name` is not an identifier.

    Example:
        >>> import anabranch as ab
        >>> ab.attr("real")(3 + 4j)
        3.0
    """
    if not _is_identifier(name):
        raise refused("name", name, "an attribute's name", subject="attr")
    return AttrKey(name)


def item(key: str | int) -> ItemKey:
    """Name an entry of the items, which are dicts, tuples or the like, as the key to `fan_out` by.

    The same as `lambda obj: obj[key]`, but the pipeline looks the entry up itself, which is
    faster. An item without the entry becomes a failure item. `fan_out(by="tenant")` is short for
    `fan_out(by=item("tenant"))`.

    Args:
        key: A dict's key or a sequence's index.

    Raises:
        ConfigError: `key` is neither a str nor an int.

    Example:
        >>> import anabranch as ab
        >>> ab.item(0)(("acme", "line"))
        'acme'
    """
    if not _is_subscript(key):
        raise refused("key", key, "a str or an int", subject="item")
    return ItemKey(key)


def _is_identifier(name: object) -> bool:
    # No obj.class either: a generated pass writes the name as one would by hand.
    return isinstance(name, str) and name.isidentifier() and not keyword.iskeyword(name)


def _is_subscript(key: object) -> bool:
    # True would be taken for 1: hardly what was meant.
    return isinstance(key, str | int) and not isinstance(key, bool)
