"""How far a student does what its teacher does, on the same comments."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gkiller.data.dataset import FloatArray
from gkiller.evaluation.metrics import draws, interval
from gkiller.evaluation.results import Evaluation, Figure, number

if TYPE_CHECKING:
    import numpy.typing as npt

    from gkiller.settings.definition import EvaluationSettings


@dataclass(frozen=True)
class Agreement:
    """A student beside a teacher, on one label.

    Attributes:
        decisions: share of rows that both decide alike, each at its own threshold.
        logits: Pearson's correlation of their logits; None where one of them does not vary.
    """

    label: str
    n: int
    decisions: Figure
    logits: Figure

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, without the label."""
        plain = asdict(self)
        del plain["label"]
        return plain


@dataclass(frozen=True)
class Taught:
    """A teacher, or the mean of several, beside the student on the validation split.

    Attributes:
        evaluation: the teacher's own figures, at thresholds tuned on the same rows as the student's.
    """

    name: str
    evaluation: Evaluation
    agreement: tuple[Agreement, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "name": self.name,
            "validation": self.evaluation.as_dict(),
            "agreement": {one.label: one.as_dict() for one in self.agreement},
        }


def agreement(
    label: str,
    decided: tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]],
    logits: tuple[FloatArray, FloatArray],
    weights: FloatArray,
    settings: EvaluationSettings,
) -> Agreement:
    """Compare two models on one label, with bootstrap intervals over rows.

    Args:
        decided: (n,) each, what either calls positive.
        logits: (n,) each.
        weights: (n,) sample weights.
    """
    one, other = (_centred(each, weights) for each in logits)
    equal = decided[0] == decided[1]
    table = np.stack([np.ones(len(equal)), equal, one, other, one * one, other * other, one * other], axis=1)
    point = _figures(weights[None] @ table)[0]
    counts = draws(len(equal), settings.resamples, settings.bootstrap_seed)
    replicas = np.concatenate([_figures((drawn * weights) @ table) for drawn in counts])
    figures = []
    for value, found in zip(point, replicas.T, strict=True):
        if np.isnan(value):
            figures.append(Figure(None, note="a model gives all comments the same logit"))
            continue
        low, high, defined = interval(found, settings.confidence)
        figures.append(Figure(float(value), number(low), number(high), defined))
    return Agreement(label, len(equal), *figures)


def _centred(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Return values of mean 0, at most 1 apart from it, so that sums of their products lose no digits."""
    values = np.asarray(values, np.float64)
    if np.ptp(values) == 0:
        return np.zeros(len(values))
    shifted = values - np.average(values, weights=weights)
    scaled: FloatArray = shifted / np.abs(shifted).max()
    return scaled


def _figures(sums: FloatArray) -> FloatArray:
    """Return share of equal decisions and correlation, (R, 2), of sums (R, 7) over the table's columns."""
    mass = sums[:, :1]
    equal, one, other, squared_one, squared_other, product = (
        sums[:, 1:] / np.where(mass > 0, mass, np.nan)
    ).T
    spread = np.sqrt(np.maximum(squared_one - one**2, 0) * np.maximum(squared_other - other**2, 0))
    together = product - one * other
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = np.where(spread > 0, together / spread, np.nan)
    return np.stack([equal, np.clip(correlation, -1, 1)], axis=1)
