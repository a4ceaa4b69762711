"""Makes `support` importable: pytest imports each test file by its path alone."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
