"""Random pipelines over virtual time, compared with a reference: see `storms`."""

import os

from storms import seed, storms


def test_e8_c21_random_pipelines_lose_nothing_and_undo_what_the_reference_does():
    storms(int(os.environ.get("STORMS", "500")), seed())
