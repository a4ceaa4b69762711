"""`anabranch outbox work module:worker`: a worker that a module has, from the shell."""

from __future__ import annotations

import importlib
import logging
import sys
from typing import Final

from anabranch._outbox.command_told import complain
from anabranch.errors import AnabranchError, ConfigError
from anabranch.worker import OutboxWorker

_FAILED: Final = 6


def work(place: str, *, once: bool) -> int:
    """Run a worker until it is told to stop; return the exit code."""
    worker = found(place)
    if not logging.getLogger().handlers:
        logging.basicConfig(
            level=logging.INFO, format="%(asctime)s %(levelname)-7s %(message)s", stream=sys.stderr
        )
    try:
        if once:
            worker.run_once_blocking()
            return 0
        reports = worker.run_blocking()
    except ConfigError:
        raise
    except AnabranchError as error:
        from anabranch._outbox.command import code_of

        complain(str(error))
        return code_of(error)
    return 0 if all(report.ok for report in reports.values()) else _FAILED


def found(place: str) -> OutboxWorker:
    """Return the worker at a place, as `shop.jobs:worker`; one that a function makes, too."""
    module, colon, name = place.partition(":")
    if not (module and colon and name):
        raise ConfigError(f"{place!r} names no worker: give MODULE:WORKER, as in shop.jobs:worker")
    # As for `python -m`: what is here can be imported.
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        thing: object = importlib.import_module(module)
    except ModuleNotFoundError as error:
        # What the module itself imports and is missing is its own matter.
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise ConfigError(
            f"there is no module {error.name!r} here: install it, or run this in its folder"
        ) from error
    for part in name.split("."):
        if not hasattr(thing, part):
            raise ConfigError(f"module {module!r} has no {name!r}: see how it names its worker")
        thing = getattr(thing, part)
    if not isinstance(thing, OutboxWorker) and callable(thing):
        thing = thing()
    if not isinstance(thing, OutboxWorker):
        raise ConfigError(f"{place} is a {type(thing).__name__}: it must be an ab.OutboxWorker")
    return thing
