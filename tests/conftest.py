"""What every test run shares: the wheel under test is named, and property tests replay."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

import anabranch

REPOSITORY = Path(__file__).parent.parent

# A slow machine is not a failure, so no deadline; CI must give the same answer twice.
hypothesis.settings.register_profile(
    "anabranch",
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("anabranch")


def pytest_report_header() -> str:
    return f"anabranch {anabranch.__version__} from {Path(anabranch.__file__).parent}"


def pytest_sessionstart() -> None:
    """The installed wheel is tested, never the checkout: that would hide what the wheel lacks."""
    if Path(anabranch.__file__).is_relative_to(REPOSITORY / "python"):
        raise pytest.UsageError("anabranch was imported from the checkout: run `make test`")


@pytest.fixture(scope="session", autouse=True)
def runtime_directory() -> Iterator[Path]:
    """Keep what the tests' processes leave apart from that of the user who runs them."""
    # Short: the path of a socket has little room.
    with tempfile.TemporaryDirectory(prefix="anabranch-tests-") as directory:
        os.environ["ANABRANCH_RUNTIME_DIR"] = directory
        yield Path(directory)
