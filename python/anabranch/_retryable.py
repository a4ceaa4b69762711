"""Which errors are worth another attempt, where nothing else is said."""

from __future__ import annotations

import sys
from typing import cast

from anabranch._callables import check_def
from anabranch.errors import Cancelled, refused

# A second attempt meets the same mistake in the program.
_PROGRAMMING_ERRORS = (
    TypeError,
    AttributeError,
    NameError,
    ImportError,
    SyntaxError,
    AssertionError,
    NotImplementedError,
)


def check_rule(rule: object) -> None:
    """Raise a ConfigError unless `rule` can tell errors apart."""
    if rule is None or _are_types(rule):
        return
    allowed = "an Exception type, a tuple of them, or a def that takes the exception"
    if isinstance(rule, type):
        raise refused("retry_on", rule, allowed, subject="retry")
    check_def(rule, None, argument="retry_on", allowed=allowed, subject="retry")


def _are_types(rule: object) -> bool:
    types = cast("tuple[object, ...]", rule) if isinstance(rule, tuple) else (rule,)
    return bool(types) and all(
        isinstance(each, type) and issubclass(each, Exception) for each in types
    )


def is_hopeless(error: BaseException) -> bool:
    """Return whether another attempt would meet the same mistake, or was not wanted."""
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return any(is_hopeless(each) for each in group.exceptions)
    return isinstance(error, _PROGRAMMING_ERRORS) or _is_cancelled(error)


def _is_cancelled(error: BaseException) -> bool:
    if not isinstance(error, Exception) or isinstance(error, Cancelled):
        return True
    # An Exception, unlike asyncio's. Nobody raises it who has not imported its module.
    futures = sys.modules.get("concurrent.futures")
    return futures is not None and isinstance(error, futures.CancelledError)
