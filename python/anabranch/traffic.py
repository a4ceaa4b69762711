"""Traffic to try pipelines with: log lines of invented systems, the same for the same seed.

The wire format is `tenant<TAB>sequence<TAB>line`, one entry per line. Each tenant runs one system,
some send much more than others, and the sequence of each counts up from 0: whoever counts what
arrived knows what is missing.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

from anabranch.errors import refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_NAMES = (
    "alder", "basalt", "cobalt", "dorado", "ember", "fjord", "gannet", "heron",
    "ibis", "juniper", "kestrel", "linden", "marlin", "nimbus", "osprey", "plover",
    "quartz", "rowan", "sorrel", "tamarin", "umbra", "vireo", "willow", "zephyr",
)  # fmt: skip
# The lines' clock starts here and goes on by itself: the wall clock would make each run another.
_START = datetime(2024, 3, 1, 6, tzinfo=UTC)
# The tenants share out at least 2**12 slots among themselves; a power of two, to choose by mask.
_LEAST_BITS = 12


class Entry(NamedTuple):
    r"""One log line of one tenant.

    Attributes:
        tenant: Whose line it is.
        sequence: Its number among the tenant's lines, from 0.
        line: The line itself, without an end.

    Example:
        >>> Entry("acme", 7, "disk full").encode()
        b'acme\t7\tdisk full\n'
    """

    tenant: str
    sequence: int
    line: str

    def encode(self) -> bytes:
        """Return the entry as it is sent: UTF-8, ended by LF."""
        return f"{self.tenant}\t{self.sequence}\t{self.line}\n".encode()


def parse(line: str) -> Entry:
    r"""Read one received line.

    Args:
        line: The line without its end.

    Raises:
        ValueError: It is not of the form `tenant<TAB>sequence<TAB>line`.

    Example:
        >>> parse("acme\t7\tdisk full")
        Entry(tenant='acme', sequence=7, line='disk full')
    """
    try:
        tenant, sequence, text = line.split("\t", 2)
        return Entry(tenant, int(sequence), text)
    except ValueError:
        raise ValueError(f"not of the form tenant<TAB>sequence<TAB>line: {line[:80]!r}") from None


def tenant_names(number: int) -> list[str]:
    """Return the names of so many tenants, all different.

    Args:
        number: How many; at least 1.

    Raises:
        ConfigError: `number` is not an int of at least 1.

    Example:
        >>> tenant_names(3)
        ['alder', 'basalt', 'cobalt']
    """
    if type(number) is not int or number < 1:
        raise refused("number", number, "an int >= 1", subject="tenant_names")
    laps = (name if lap == 0 else f"{name}-{lap + 1}" for lap in count() for name in _NAMES)
    return [name for name, _ in zip(laps, range(number), strict=False)]


def entries(tenants: Sequence[str], *, seed: int = 1) -> Iterator[Entry]:
    """Return endless traffic of these tenants, the first of them the busiest.

    The n-th tenant sends about 1/n of what the first one sends.

    Args:
        tenants: Their names, without tabs and line ends.
        seed: The same seed gives the same entries.

    Raises:
        ConfigError: There are no tenants, or a name would not survive the wire.

    Example:
        >>> from itertools import islice
        >>> for tenant, sequence, line in islice(entries(["alder", "basalt"], seed=0), 2):
        ...     print(tenant, sequence, line[:48])
        alder 0 10.12.251.190 - - [2024-03-01T06:00:00.000Z] "PU
        basalt 0 2024-03-01T06:00:00.004 lockbox[8772]: Failed pa
    """
    names = list(tenants)
    if not names:
        raise refused("tenants", tenants, "at least one name", subject="entries")
    for name in names:
        if not name or any(end in name for end in "\t\r\n"):
            raise refused("tenants", name, "names without tabs and line ends", subject="entries")
    return _entries(names, seed)


def _entries(tenants: list[str], seed: int) -> Iterator[Entry]:
    # One draw per line, cut into pieces: a call of `choice` for each would cost five times more.
    draw = random.Random(seed).getrandbits  # noqa: S311 - traffic, no secrets
    slots = _slots(len(tenants))
    mask, width = len(slots) - 1, len(slots).bit_length() - 1
    systems = [_SYSTEMS[index % len(_SYSTEMS)] for index in range(len(tenants))]
    sequences = [0] * len(tenants)
    stamp, ticks = _START, 0
    shown = _START.strftime("%Y-%m-%dT%H:%M:%S")
    while True:
        bits = draw(52 + width)
        index = slots[bits & mask]
        bits >>= width
        ticks += bits & 15
        if ticks >= 1000:  # noqa: PLR2004 - milliseconds
            stamp, ticks = stamp + timedelta(seconds=1), ticks - 1000
            shown = stamp.strftime("%Y-%m-%dT%H:%M:%S")
        sequence = sequences[index]
        sequences[index] = sequence + 1
        line = systems[index](f"{shown}.{ticks:03d}", bits >> 4)
        yield Entry(tenants[index], sequence, line)


def _slots(tenants: int) -> list[int]:
    """Return which tenant each slot belongs to; every tenant has one at least."""
    size = 1 << max(_LEAST_BITS, (4 * tenants).bit_length())
    weights = [1 / place for place in range(1, tenants + 1)]
    each = (size - tenants) / sum(weights)
    slots = [index for index, weight in enumerate(weights) for _ in range(1 + int(weight * each))]
    return slots + [0] * (size - len(slots))


def _harbor(stamp: str, bits: int) -> str:
    """Write the access log of a web gateway."""
    method = ("GET", "GET", "GET", "POST", "PUT", "DELETE", "GET", "HEAD")[bits & 7]
    path = ("/", "/v2/orders", "/v2/carts", "/login", "/health", "/static/app.js")[(bits >> 3) % 6]
    status = (200, 200, 200, 201, 204, 304, 404, 503)[(bits >> 6) & 7]
    size, millis = (bits >> 9) % 60_000, (bits >> 25) % 900
    address = f"10.{(bits >> 9) & 31}.{(bits >> 14) & 255}.{(bits >> 22) & 255}"
    return f'{address} - - [{stamp}Z] "{method} {path} HTTP/1.1" {status} {size} {millis}ms'


def _lockbox(stamp: str, bits: int) -> str:
    """Write the syslog of a login service."""
    user = ("root", "deploy", "backup", "mia", "jonas", "admin", "guest", "oracle")[bits & 7]
    what = ("Accepted publickey", "Failed password", "Invalid key", "Session closed")[bits >> 3 & 3]
    address = f"192.0.2.{(bits >> 5) & 255}"
    port, process = 1024 + (bits >> 13) % 60_000, 400 + (bits >> 30) % 9000
    return f"{stamp} lockbox[{process}]: {what} for {user} from {address} port {port}"


def _ledgerd(stamp: str, bits: int) -> str:
    """Write the log of a payment service, as keys and values."""
    level = ("info", "info", "info", "warn")[bits & 3]
    event = ("authorized", "captured", "refunded", "declined")[(bits >> 2) & 3]
    currency = ("EUR", "USD", "CHF", "JPY")[(bits >> 4) & 3]
    cents, payment = (bits >> 6) % 5_000_000, (bits >> 12) & 0xFFFF_FFFF
    amount = f"{cents // 100}.{cents % 100:02d}"
    return (
        f"ts={stamp}Z level={level} event={event} amount={amount} {currency} id=pay_{payment:08x}"
    )


def _kettle(stamp: str, bits: int) -> str:
    """Write what sensors report, as JSON, with a unit outside ASCII."""
    site = ("boiler", "attic", "cold store", "Gießerei")[bits & 3]
    celsius, battery = (bits >> 2) % 1200 / 10 - 20, (bits >> 13) % 101
    sensor = (bits >> 20) & 0xFFFF
    return (
        f'{{"ts":"{stamp}Z","sensor":"k{sensor:04x}","site":"{site}",'
        f'"reading":"{celsius:.1f} °C","battery":{battery}}}'
    )


def _forklift(stamp: str, bits: int) -> str:
    """Write the log of a job runner."""
    level, what = (
        ("INFO ", "started on node"),
        ("INFO ", "finished on node"),
        ("DEBUG", "heartbeat from node"),
        ("ERROR", "lost its lease on node"),
    )[bits & 3]
    job, node, thread = (bits >> 2) & 0xF_FFFF, (bits >> 22) % 48, (bits >> 28) % 16
    return f"{stamp} {level} [pool-{thread}] forklift.Scheduler - job_{job:06d} {what} {node}"


_SYSTEMS: tuple[Callable[[str, int], str], ...] = (_harbor, _lockbox, _ledgerd, _kettle, _forklift)
