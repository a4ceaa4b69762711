"""The scripts in python/examples and the README's code run as they stand."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
EXAMPLES = sorted((REPOSITORY / "python/examples").glob("*.py"))
BLOCKS = re.findall(
    r"^```python\n(.*?)^```$", (REPOSITORY / "README.md").read_text(), re.MULTILINE | re.DOTALL
)


def run(script):
    done = subprocess.run(
        [sys.executable, "-W", "error", script],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.stem)
def test_the_example_runs_by_itself_and_prints_its_report(script):
    assert re.search(r"^pipeline '\w+': (completed|drained) in ", run(script), re.MULTILINE)


def test_the_fan_out_stores_all_but_the_tenant_that_fails():
    said = run(REPOSITORY / "python/examples/tenant_fanout.py")
    stored = dict(re.findall(r"'(\w+)': (\d+)", said.splitlines()[-1]))
    assert stored.keys() == {"acme", "globex"}
    (committed,) = re.findall(r"committed +([\d,]+)", said)
    assert sum(map(int, stored.values())) == int(committed.replace(",", ""))


def test_the_gateway_stores_what_its_clients_sent():
    said = run(REPOSITORY / "python/examples/tcp_gateway.py")
    stored = "in the database: {'acme': 2500, 'globex': 1200, 'initech': 10}"
    assert said.splitlines()[-1] == stored


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_the_code_in_the_readme_runs(block):
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})


def test_the_readme_has_code():
    assert len(BLOCKS) >= 2
