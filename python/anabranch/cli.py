"""The command `anabranch`: what looks at processes is in the extension, the demo is here.

What looks after outboxes is in `_outbox.command`: databases are worked on by Python's drivers.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import sqlite3
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, NoReturn, cast

from anabranch import _core
from anabranch.errors import AnabranchError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_FAILED = 1
_USAGE = 2
_INTERRUPTED = 130  # as a shell tells of SIGINT

# How long the demo sends by default, alone and under the dashboard, and how fast there: so many
# lines make a database of 80 MB at most.
_SECONDS, _WATCHED = 3.0, 300.0
_RATE = 5000.0


class _Parser(argparse.ArgumentParser):
    """Tells what is wrong in one line, and where to read on."""

    def error(self, message: str) -> NoReturn:
        self.exit(_USAGE, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: The arguments; those of the process by default.

    Returns:
        The exit code: 0; 2 if the arguments make no sense; 3 if there is nothing to attach to, 4 if
        a process was lost or did not answer, 5 if it let us not in, 6 if what was asked for did not
        work. Of the demo 1 if it failed, and 130 if it was interrupted.

    Raises:
        SystemExit: After `demo --help`, and wrong arguments of the demo.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    if given[:1] == ["demo"]:
        return _play(given)
    if given[:1] == ["outbox"]:
        from anabranch._outbox.command import main as look_after

        return look_after(given)
    # What was printed before comes first: the extension writes past Python's buffers.
    sys.stdout.flush()
    return _core.command(["anabranch", *given])


def _play(argv: Sequence[str]) -> int:
    arguments = _parser().parse_args(argv)
    # What goes wrong in a pipeline is printed; without a handler it would be logged to stderr, too.
    logging.getLogger("anabranch").addHandler(logging.NullHandler())
    try:
        return _demo(arguments)
    except BrokenPipeError:
        # Whoever read the output has gone. Python would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _FAILED
    except KeyboardInterrupt:
        return _told("interrupted", _INTERRUPTED)
    except ConfigError as error:
        return _told(str(error), _USAGE)
    except (AnabranchError, OSError) as error:
        return _told(str(error), _FAILED)
    except sqlite3.Error as error:
        return _told(f"database {arguments.database or ''}: {error}", _FAILED)


def _told(what: str, code: int) -> int:
    print(f"anabranch: {what}", file=sys.stderr)
    return code


def _demo(arguments: argparse.Namespace) -> int:
    watched = arguments.watched
    if not (watched or arguments.plain) and _can_draw():
        return _watch(arguments)
    # Here, not above: it needs asyncio, and `--version` should be quick.
    from anabranch import _observe
    from anabranch.demo import Options, run

    _observe.name = "demo"
    seconds = arguments.seconds
    options = Options(
        seconds=_WATCHED if seconds is None and watched else seconds or _SECONDS,
        tenants=arguments.tenants,
        seed=arguments.seed,
        database=arguments.database,
        port=arguments.port,
        rate=_RATE if watched else None,
        until=sys.stdin.fileno() if watched else None,
    )
    return 0 if run(options, _say) else _FAILED


def _can_draw() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def _watch(arguments: argparse.Namespace) -> int:
    """Run the demo in a process of its own, and look at it until the dashboard is left."""
    import subprocess
    from threading import Thread

    told = {"tenants": arguments.tenants, "seed": arguments.seed, "port": arguments.port}
    told |= {"seconds": arguments.seconds, "database": arguments.database}
    options = [f"--{name}={value}" for name, value in told.items() if value is not None]
    command = [sys.executable, "-m", "anabranch.cli", "demo", "--watched", *options]
    # It is there to be looked at, whatever else may be.
    environment = os.environ | {"ANABRANCH_OBSERVE": "auto"}
    job = subprocess.Popen(  # noqa: S603 - this interpreter, with options that were read as such
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        # A key that is meant for the dashboard is no signal for the job.
        start_new_session=True,
    )
    code, lines, begun = 0, list[str](), False
    with job:
        # Both are pipes.
        until, said = cast("IO[str]", job.stdin), cast("IO[str]", job.stdout)
        for line in said:
            lines.append(line)
            begun = line.startswith("gateway ")
            if begun:
                break
        reader = Thread(target=lines.extend, args=(said,), name="anabranch-demo")
        reader.start()
        try:
            if begun:
                code = _core.command(["anabranch", "top", str(job.pid)])
        finally:
            # Its end ends the traffic; what was sent is stored and counted all the same.
            until.close()
            reader.join()
    _say("".join(lines).rstrip())
    return code or job.returncode


def _say(line: str) -> None:
    # At once, also into a pipe: it is progress.
    print(line, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="anabranch", description="Multi-tenant event pipelines for Python.", allow_abbrev=False
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    demo = commands.add_parser(
        "demo",
        help="run a gateway for many tenants on loopback, into SQLite",
        description="A gateway on loopback takes lines of many tenants, parses them, fans them out "
        "per tenant, gathers windows and stores them in a SQLite file. One tenant fails on purpose "
        "and is undone; the others must be whole, which is checked at the end. On a terminal the "
        "dashboard shows it until `q`, with 5000 lines per second; otherwise a picture of it is "
        "printed in the middle, Ctrl-C ends the traffic, and a second one rolls back at once.",
        allow_abbrev=False,
    )
    demo.add_argument(
        "--seconds",
        type=_seconds,
        metavar="S",
        help="how long to send (default: 3; under the dashboard 300)",
    )
    demo.add_argument(
        "--tenants", type=_at_least(2), default=24, metavar="N", help="how many (default: 24)"
    )
    demo.add_argument(
        "--seed",
        type=_at_least(0),
        default=1,
        metavar="N",
        help="the same seed sends the same lines (default: 1)",
    )
    demo.add_argument(
        "--database",
        type=Path,
        metavar="PATH",
        help="a SQLite file to make and keep (default: a temporary one)",
    )
    demo.add_argument(
        "--port",
        type=_at_least(0, 65_535),
        default=0,
        metavar="P",
        help="the gateway's port (default: a free one)",
    )
    demo.add_argument("--plain", action="store_true", help="no dashboard, even on a terminal")
    demo.add_argument("--watched", action="store_true", help=argparse.SUPPRESS)
    return parser


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"must be seconds > 0, got {text!r}")
    return seconds


def _at_least(least: int, most: float = math.inf) -> Callable[[str], int]:
    allowed = f"an int >= {least}" if most == math.inf else f"an int from {least} to {most}"

    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"must be {allowed}, got {text!r}")
        return value

    return number


if __name__ == "__main__":
    sys.exit(main())
