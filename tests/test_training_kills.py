"""A training killed at any moment goes on and ends in the very same bytes.

Real processes, real SIGKILLs: before file operations of all kinds (so in the middle of checkpoint writes),
after steps of every phase, and at random times. `experiments/kills.py` does it several hundred times.
"""

import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from killing import Killer, Trainings, kill_and_compare

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks processes")

CASES = {
    "gradient": ("dendrites.objective=gradient",),
    "correlation, history": (
        "dendrites.objective=correlation",
        "dendrites.top_epochs=1",
        "dendrites.switch=history",
        "dendrites.switch_patience=1",
    ),
}
OPERATIONS, STEPS, TIMES = 8, 4, 3


@pytest.mark.slow
@pytest.mark.parametrize("case", list(CASES))
def test_killed_at_any_moment_it_ends_in_the_same_bytes(case: str, tiny: Callable[..., Any], tmp_path: Path) -> None:
    overrides = ("data.sample_size=48", "train.checkpoint_steps=1", "dendrites.min_gain=-1", *CASES[case])
    runs = Trainings(tiny(*overrides), tmp_path)
    counts = runs.finish(tmp_path / "whole", resume=False)
    draw = random.Random(case)
    operations = sorted(draw.sample(range(1, counts["operations"] + 1), OPERATIONS))
    steps = sorted(draw.sample(range(1, counts["steps"] + 1), STEPS))
    moments = [Killer(operation=n) for n in operations] + [Killer(step=n) for n in steps]
    struck = kill_and_compare(runs, [*moments, *(draw.uniform(0.05, 0.8) for _ in range(TIMES))])
    assert struck >= OPERATIONS + STEPS
