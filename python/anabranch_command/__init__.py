"""The command `anabranch`, as the shell starts it.

What looks at processes is in the extension alone. To import the package around it would take longer
than to list a hundred processes, so it is only imported for the demo, which runs a
pipeline, and for outboxes, whose drivers are in Python.
"""

import sys
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec


def main() -> int:
    """Run the command with the arguments of the process.

    Returns:
        The exit code, as `anabranch.cli.main` tells it.

    Raises:
        ImportError: The package is not installed as a whole.
    """
    given = sys.argv[1:]
    if given[:1] in (["demo"], ["outbox"]):
        from anabranch.cli import main as play

        return play(given)
    package = find_spec("anabranch")
    name = "anabranch._core"
    spec = package and PathFinder.find_spec(name, package.submodule_search_locations)
    if not spec or not spec.loader:
        raise ImportError(f"{name} is missing: install anabranch again", name=name)
    core = module_from_spec(spec)
    spec.loader.exec_module(core)
    code: int = core.command(["anabranch", *given])
    return code


if __name__ == "__main__":
    sys.exit(main())
