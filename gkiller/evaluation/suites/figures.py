"""What both suites share: which rows count, figures with intervals, differences from the first model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gkiller.errors import SingleClassError
from gkiller.evaluation.bootstrap import interval
from gkiller.evaluation.checks import FloatArray, IntArray
from gkiller.evaluation.evaluate import TOO_FEW
from gkiller.evaluation.results import Figure, number
from gkiller.evaluation.significance import Difference, paired_difference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gkiller.data.labelled import Labelled


def used_rows(truth: Any, weights: Any) -> IntArray:
    """Return the rows (m,) of known truth (n,) and positive weight (n,)."""
    known = ~np.isnan(np.asarray(truth, dtype=np.float64)) & (np.asarray(weights) > 0)
    return np.flatnonzero(known)


def truth_of(found: Labelled, label: str) -> FloatArray:
    """Return the truth (n,) of a label: 0, 1, or NaN where unknown."""
    column: FloatArray = found.rows.labels[:, found.dataset.labels.index(label)].astype(np.float64)
    return column


def one_class(label: str, which: str) -> SingleClassError:
    """Return the error of comments that lack a class."""
    return SingleClassError(
        f"no comment is {which}: there is nothing to measure",
        where=f"label {label!r}",
        remedy="measure on comments that hold both classes, or another label with --label",
    )


def figures_of(points: FloatArray, replicas: FloatArray, confidence: float) -> list[Figure]:
    """Join values with their intervals.

    Args:
        points: (K,) NaN where undefined.
        replicas: (R, K) the same in each resample.
        confidence: coverage of the intervals.
    """
    found = []
    for value, resampled in zip(points, replicas.T, strict=True):
        if np.isnan(value):
            found.append(Figure(None, note="undefined: a class is missing"))
            continue
        low, high, defined = interval(resampled, confidence)
        note = TOO_FEW if np.isnan(low) else ""
        found.append(Figure(float(value), number(low), number(high), defined, note))
    return found


def differences_from_first(
    points: Sequence[FloatArray], replicas: Sequence[FloatArray], confidence: float
) -> list[list[Difference]]:
    """Return for each model but the first its differences from the first, K of them: its own value is ``a``.

    Args:
        points: of each model (K,).
        replicas: of each model (R, K), all on the same draws.
        confidence: coverage of the intervals.
    """
    return [
        [
            paired_difference(
                np.array([points[model][k], points[0][k]]),
                np.stack([replicas[model][:, k], replicas[0][:, k]]),
                confidence,
            )
            for k in range(len(points[0]))
        ]
        for model in range(1, len(points))
    ]
