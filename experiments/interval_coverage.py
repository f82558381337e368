"""How often the paired bootstrap interval of a difference holds the true one, by the number of positives.

    python experiments/interval_coverage.py

Samples are drawn from a large made population of comments, of which one in ten is positive. Two sides score
them: both see the same of a comment, and each errs in its own way besides. A 95 % interval should hold the
population's difference in 95 of 100 samples; over 400 samples that is known to about two points.
"""

from __future__ import annotations

import sys

import numpy as np

from gkiller.evaluation.metrics import label_figures
from gkiller.evaluation.significance import FIGURES, Side, compare_sides

SAMPLES, RESAMPLES, SHARE = 400, 500, 0.1
POSITIVES = (10, 25, 50, 100, 200)
CUT = 0.5


def population(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return truth and both sides' scores, each (rows,)."""
    rng = np.random.default_rng(seed)
    truth = (rng.random(rows) < SHARE).astype(float)
    seen = rng.normal(size=rows) - 1.5
    logits = [seen + 0.7 * rng.normal(size=rows) + gain * truth for gain in (3.0, 2.7)]
    first, second = (1 / (1 + np.exp(-values)) for values in logits)
    return truth, first, second


def main() -> None:
    """Print a row per sample size."""
    truth, a, b = population(2_000_000, seed=0)
    left, right = (label_figures(truth, scores, threshold=CUT) for scores in (a, b))
    sys.stdout.write("positives      n  " + "  ".join(f"{name:>8}" for name in FIGURES) + "\n")
    for positives in POSITIVES:
        n = round(positives / SHARE)
        held = dict.fromkeys(FIGURES, 0)
        for sample in range(SAMPLES):
            rows = slice(sample * n, sample * n + n)
            found = compare_sides(truth[rows], Side(a[rows], CUT), Side(b[rows], CUT), resamples=RESAMPLES, seed=sample)
            for name in FIGURES:
                one = found.differences[name]
                held[name] += one.low <= left[name] - right[name] <= one.high
        shares = "  ".join(f"{held[name] / SAMPLES:>8.1%}" for name in FIGURES)
        sys.stdout.write(f"{positives:>9} {n:>6}  {shares}\n")


if __name__ == "__main__":
    main()
