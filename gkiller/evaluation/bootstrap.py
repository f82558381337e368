"""Seeded bootstrap over rows: one set of resamples, shared by all labels and figures.

Percentile intervals as in Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from gkiller.evaluation.checks import FloatArray

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gkiller.evaluation.metrics import Plan

Progress: TypeAlias = Callable[[int, int], None]

CELLS = 1 << 20  # counts held at once: 8 MiB, and a few working copies of it
MIN_DEFINED = 0.5  # share of resamples in which a figure must exist for an interval


def draws(rows: int, resamples: int, seed: int) -> Iterator[FloatArray]:
    """Yield how often each row was drawn, as (R, rows) with R resamples at a time.

    Every resample draws ``rows`` rows with replacement. The draws depend on the seed alone, not on how many
    are held at once.
    """
    rng = np.random.default_rng(seed)
    at_once = max(1, CELLS // rows)
    for start in range(0, resamples, at_once):
        counts = np.empty((min(at_once, resamples - start), rows))
        for row in counts:
            row[:] = np.bincount(rng.integers(0, rows, size=rows), minlength=rows)
        yield counts


def resample(
    plans: Sequence[Plan], rows: int, resamples: int, seed: int, progress: Progress | None = None
) -> FloatArray:
    """Return every figure of every label in every resample, (L, R, K); NaN where undefined.

    Args:
        plans: a plan per label, all with the same number of thresholds.
        rows: n, the rows that are drawn from (with unknown ones: a row is drawn for all labels together).
        resamples: R.
        seed: of the draws.
        progress: called with the resamples done and R.
    """
    parts: list[FloatArray] = []
    done = 0
    for counts in draws(rows, resamples, seed):
        parts.append(np.stack([one.figures(counts) for one in plans]))
        done += len(counts)
        if progress is not None:
            progress(done, resamples)
    return np.concatenate(parts, axis=1)


def interval(
    values: FloatArray, confidence: float, *, centre: float | None = None
) -> tuple[float, float, int]:
    """Return the percentile interval of a figure, and in how many resamples it was defined.

    The ends are NaN when fewer than half of the resamples define the figure.

    Args:
        values: (R,) the figure in each resample, NaN where undefined.
        confidence: coverage, such as 0.95.
        centre: for a figure that resampling biases: the resamples are first shifted so that their mean is
            this value, and cut off at 0.
    """
    known = values[np.isfinite(values)]
    if len(known) < max(1, MIN_DEFINED * len(values)):
        return np.nan, np.nan, len(known)
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(known, (tail, 1.0 - tail))
    if centre is not None:
        shift = centre - float(known.mean())
        low, high = max(0.0, low + shift), max(0.0, high + shift)
    return float(low), float(high), len(known)
