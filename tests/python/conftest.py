"""Makes `support` importable: pytest imports each test file by its path alone."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session", autouse=True)
def servers() -> Iterator[None]:
    """Stop the servers that tests have started."""
    yield
    if "postgres" in sys.modules:
        sys.modules["postgres"].stop_all()
