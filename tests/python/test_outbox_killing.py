"""Workers that are killed: rows Z1 and Z5, bounded; `make trials` kills more of them."""

import os
import random

import killing
import outboxes
import pytest


@pytest.mark.parametrize("kind", ["postgres", "sqlite"])
def test_z1_z5_what_killed_workers_held_is_handled_and_every_effect_happens_once(kind, tmp_path):
    seed = int(os.environ.get("SEED", "0")) or random.randrange(2**31)
    print(f"SEED={seed}")  # noqa: T201 - it brings a failure back
    side = outboxes.opened(kind, tmp_path)
    try:
        killing.trial([side.url], messages=30, workers=2, kills=2, seed=seed)
    finally:
        side.close()
