"""What an evaluation takes in: shapes and ranges are checked once, here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gkiller.data.dataset import FloatArray
from gkiller.errors import EmptyDataError, LabelMismatchError, LabelValueError, ScoreRangeError
from gkiller.wording import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


WEIGHT_RANGE = (1e-100, 1e100)  # sums of weights and of their squares stay finite and above 0


def checked_tables(
    labels: Sequence[str], truth: Any, scores: Any, weights: Any | None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return truth, scores and weights as float64 arrays that fit together.

    Args:
        truth: (n, L), 0, 1 or NaN where unknown.
        scores: (n, L), probabilities in 0..1.
        weights: (n,), 0 or within WEIGHT_RANGE, or None for ones.

    Raises:
        EmptyDataError: there are no rows.
        LabelMismatchError: the shapes differ.
        LabelValueError: a truth outside 0, 1 and NaN, or a bad weight.
        ScoreRangeError: a score is not a probability.
    """
    table = np.asarray(truth, dtype=np.float64)
    probabilities = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2 or table.shape != probabilities.shape or table.shape[1] != len(labels):
        raise LabelMismatchError(
            f"truth {table.shape}, scores {probabilities.shape} and {len(labels)} labels do not fit together",
            remedy="give truth and scores as rows x labels, in the order of the labels",
        )
    if table.shape[0] == 0:
        raise EmptyDataError("no rows to evaluate", remedy="choose a split that has rows")
    mass = np.ones(len(table)) if weights is None else np.asarray(weights, dtype=np.float64)
    if mass.shape != (len(table),):
        raise LabelMismatchError(
            f"{len(table)} rows but weights of shape {mass.shape}", remedy="give one weight per row"
        )
    _check_truth(labels, table)
    _check_scores(labels, probabilities)
    _check_weights(mass)
    return table, probabilities, mass


def _check_truth(labels: Sequence[str], table: FloatArray) -> None:
    bad = ~((table == 0) | (table == 1) | np.isnan(table))
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise LabelValueError(
            f"{table[row, column]:g} is not a label",
            where=f"row {row + 1}, label {labels[column]!r}",
            remedy="labels are 0, 1 or unknown (NaN); cut scores at a threshold first",
        )


def _check_scores(labels: Sequence[str], probabilities: FloatArray) -> None:
    bad = ~((probabilities >= 0) & (probabilities <= 1))  # NaN fails both
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise ScoreRangeError(
            f"the score {probabilities[row, column]:g} is not a probability",
            where=f"row {row + 1}, label {labels[column]!r}",
            remedy="scores lie in 0..1; a NaN here means that the model diverged",
        )


def _check_weights(mass: FloatArray) -> None:
    low, high = WEIGHT_RANGE
    bad = ~((mass == 0) | ((mass >= low) & (mass <= high)))  # NaN and infinity fail both
    if bad.any():
        row = int(np.argmax(bad))
        raise LabelValueError(
            f"the weight {mass[row]:g} is not usable",
            where=f"row {row + 1}",
            remedy=f"weights are 0 or numbers in {low:g}..{high:g}",
        )
    if not mass.any():
        raise LabelValueError("every weight is 0", remedy="give at least one row a positive weight")


def checked_thresholds(labels: Sequence[str], thresholds: Mapping[str, float]) -> FloatArray:
    """Return the thresholds (L,) in the order of the labels.

    Raises:
        LabelMismatchError: a label has no threshold.
        ScoreRangeError: a threshold is outside 0..1.
    """
    for label in labels:
        if label not in thresholds:
            raise LabelMismatchError(
                f"no threshold for the label {label!r}",
                where="thresholds",
                remedy=did_you_mean(label, thresholds) if thresholds else "tune the thresholds first",
            )
        if not 0 <= thresholds[label] <= 1:
            raise ScoreRangeError(
                f"the threshold {thresholds[label]:g} is outside 0..1",
                where=f"label {label!r}",
                remedy="tune the thresholds again",
            )
    return np.array([thresholds[label] for label in labels], dtype=np.float64)
