"""Who may look at the pipelines of this process: the monitors, opened once and closed at exit.

What answers is in the extension: a thread that never needs the interpreter. Here it is opened when
the first pipeline begins, closed when the process ends, and closed at once in a fork, which has the
descriptors but not the thread.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Final

from anabranch import _core
from anabranch._outbox import shown
from anabranch.errors import refused

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

_VARIABLE: Final = "ANABRANCH_OBSERVE"
_WORDS: Final = ("auto", "ro", "off")
_CONTROL: Final = "+control"
# Nobody opens a port to the network by a slip of the pen.
_REMOTE: Final = "+remote"

_logger = logging.getLogger("anabranch")

# By where they answer; None where that went wrong, which is told once. Without a lock, which a fork
# could leave taken for ever: each change is a single operation.
_open: dict[str, _core.Monitor | None] = {}
_hooked = False
# For whoever counts what it costs: by the machine's clock no two runs are alike.
in_virtual_time = False
# What the process calls itself, if not by its script.
name: str | None = None


def checked(observe: object, *, pipeline: object) -> str:
    """Return `observe` as text.

    Raises:
        ConfigError: It is not allowed.
    """
    text = str(observe) if isinstance(observe, (str, PurePath)) else None
    if text and "\0" not in text:
        if text.startswith("tcp:"):
            address = _address(text)
            if address is not None and (_is_local(address) or _REMOTE in text):
                return text
        elif text in _WORDS or "/" in text:
            return text
    name = pipeline if isinstance(pipeline, str) else None
    allowed = (
        '"auto", "ro", "off", a path with a "/" in it, or "tcp:ADDRESS:PORT", with '
        f'"{_CONTROL}" behind it to be steered there, too, and "{_REMOTE}" if the address is none '
        "of this machine's own (better is ssh -L to the socket)"
    )
    raise refused("observe", observe, allowed, pipeline=name)


def opened(observe: str, *, virtual: bool = False) -> tuple[_core.Monitor | None, bool]:
    """Return where a pipeline is shown, None for nowhere, and whether it may be steered.

    What goes wrong is logged, and no reason for a pipeline not to run. In virtual time it is a
    test, at which nobody looks.
    """
    if virtual and not in_virtual_time:
        return None, False
    asked = os.environ.get(_VARIABLE, "") if observe == "auto" else observe
    try:
        choice = checked(asked or "auto", pipeline=None)
    except ValueError as error:
        _warn(asked, f"{_VARIABLE}: {error}")
        return None, False
    if choice == "off":
        return None, False
    if choice == "ro":
        # Nobody would take a process for safe whose outboxes can be emptied.
        shown.only_look()
    place = "auto" if choice in _WORDS else choice
    if place not in _open:
        _open_at(place)
    return _open[place], choice != "ro"


def _open_at(place: str) -> None:
    tcp = _address(place)
    path = None if place == "auto" or tcp is not None else place
    control = tcp is None or _CONTROL in place
    try:
        monitor = _core.Monitor(_name(), path=path, tcp=tcp, control=control)
    except OSError as error:
        _warn(place, str(error))
        return
    if _open.setdefault(place, monitor) is not monitor:
        # Another thread was faster.
        monitor.close()
    else:
        shown.attend(monitor)
    _hook()


def _warn(place: str, why: str) -> None:
    if place not in _open:
        _logger.warning(
            "the pipelines of this process cannot be looked at: %s (observe=%r; observe='off' "
            "turns this off)",
            why,
            place,
        )
    _open[place] = None


def _address(text: str) -> str | None:
    """Return the address in `tcp:ADDRESS:PORT`, None if `text` is no such thing."""
    kind, _, rest = text.partition(":")
    address, *options = rest.split("+")
    port = address.rpartition(":")[2]
    number = port.isascii() and port.isdigit() and int(port) <= 65_535  # noqa: PLR2004 - ports
    known = set(options) <= {_CONTROL[1:], _REMOTE[1:]}
    return address if kind == "tcp" and _host(address) and number and known else None


def _host(address: str) -> IPv4Address | IPv6Address | None:
    from ipaddress import ip_address

    try:
        return ip_address(address.rpartition(":")[0].strip("[]"))
    except ValueError:
        return None


def _is_local(address: str) -> bool:
    """Whether nobody reaches an address but from this machine."""
    host = _host(address)
    return host is None or host.is_loopback


def _name() -> str:
    """Return what the process calls itself: the name of its script, or of its package."""
    if name is not None:
        return name
    script = Path(sys.argv[0] if sys.argv else "")
    if script.name == "__main__.py":
        return script.parent.name
    return script.stem if script.name not in ("", "-c", "-m") else "python"


def _hook() -> None:
    # When there is something to close: nothing happens at import.
    global _hooked  # noqa: PLW0603 - of the process
    if not _hooked:
        _hooked = True
        # No handler: with one, nothing would be printed any more where none was configured.
        _logger.addFilter(_overhear)
        atexit.register(_close)
        os.register_at_fork(after_in_child=_in_child)


def _overhear(record: logging.LogRecord) -> bool:
    """Let those who look read what anabranch has logged; an operator's deeds they know."""
    if not getattr(record, "anabranch_audit", False):
        message = record.getMessage()
        if record.exc_info and (error := record.exc_info[1]) is not None:
            message = f"{message}: {type(error).__name__}: {error}"
        for monitor in tuple(_open.values()):
            if monitor is not None:
                monitor.log(_level(record.levelno), round(record.created * 1000), message)
    return True


def _level(number: int) -> str:
    for least, word in (
        (logging.ERROR, "error"),
        (logging.WARNING, "warn"),
        (logging.INFO, "info"),
    ):
        if number >= least:
            return word
    return "debug"


def _close() -> None:
    for monitor in tuple(_open.values()):
        if monitor is not None:
            monitor.close()
    shown.join()


def _in_child() -> None:
    for descriptor in _core.inherited():
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _open.clear()


def audited(pipeline: str, operation: str, who: str, worked: bool, message: str) -> None:  # noqa: FBT001 - as the extension calls it
    """Write into the process' own log what an operator has done."""
    level = logging.INFO if worked else logging.WARNING
    # What those who look are told of by itself.
    told = {"anabranch_audit": True}
    _logger.log(level, "pipeline %r: %s by %s: %s", pipeline, operation, who, message, extra=told)
