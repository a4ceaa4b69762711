"""The command `anabranch`."""

from __future__ import annotations

import argparse
import logging
import math
import os
import sqlite3
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from anabranch import __version__
from anabranch.errors import AnabranchError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_FAILED = 1
_USAGE = 2
_INTERRUPTED = 130  # as a shell tells of SIGINT


class _Parser(argparse.ArgumentParser):
    """Tells what is wrong in one line, and where to read on."""

    def error(self, message: str) -> NoReturn:
        self.exit(_USAGE, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: The arguments; those of the process by default.

    Returns:
        The exit code: 0, or 1 if what was asked for failed, 2 if it makes no sense, 130 if it was
        interrupted.

    Raises:
        SystemExit: After `--help`, `--version`, and wrong arguments.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    # What goes wrong in a pipeline is printed; without a handler it would be logged to stderr, too.
    logging.getLogger("anabranch").addHandler(logging.NullHandler())
    try:
        return _demo(arguments) if arguments.command else _helped(parser)
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


def _helped(parser: argparse.ArgumentParser) -> int:
    parser.print_help(sys.stderr)
    return _USAGE


def _told(what: str, code: int) -> int:
    print(f"anabranch: {what}", file=sys.stderr)
    return code


def _demo(arguments: argparse.Namespace) -> int:
    # Here, not above: it needs asyncio, and `--version` should be quick.
    from anabranch.demo import Options, run

    options = Options(
        seconds=arguments.seconds,
        tenants=arguments.tenants,
        seed=arguments.seed,
        database=arguments.database,
        port=arguments.port,
    )
    return 0 if run(options, _say) else _FAILED


def _say(line: str) -> None:
    # At once, also into a pipe: it is progress.
    print(line, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="anabranch", description="Multi-tenant event pipelines for Python.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"anabranch {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    demo = commands.add_parser(
        "demo",
        help="run a gateway for many tenants on loopback, into SQLite",
        description="A gateway on loopback takes lines of many tenants, parses them, fans them out "
        "per tenant, gathers windows and stores them in a SQLite file. One tenant fails on purpose "
        "and is undone; the others must be whole, which is checked at the end. "
        "Ctrl-C ends the traffic; a second one rolls back at once.",
        allow_abbrev=False,
    )
    demo.add_argument(
        "--seconds", type=_seconds, default=3.0, metavar="S", help="how long to send (default: 3)"
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
