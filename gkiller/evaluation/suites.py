"""What the identity and robustness suites share: rows, intervals, differences from the first model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gkiller.data.dataset import FloatArray, IntArray
from gkiller.errors import LabelMismatchError, ScoreRangeError, SettingsError, SingleClassError
from gkiller.evaluation.evaluate import TOO_FEW
from gkiller.evaluation.metrics import HALF, interval
from gkiller.evaluation.results import Figure, number
from gkiller.evaluation.significance import Difference, paired_difference
from gkiller.scoring.scorers import Scorer
from gkiller.wording import Progress, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gkiller.data.load import Labelled


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


NO_THRESHOLD: Final = "none is stored in it"


@dataclass(frozen=True)
class Contestant:
    """A model with the label and the threshold that it is measured at."""

    scorer: Scorer
    label: str
    threshold: float
    origin: str

    @property
    def name(self) -> str:
        """The model's name."""
        return self.scorer.name

    def scores(self, texts: Sequence[str], progress: Progress | None = None) -> FloatArray:
        """Return the scores (n,) of the label.

        Raises:
            ScoreRangeError: a score is not a number in 0..1.
        """
        column = self.scorer.labels.index(self.label)
        found = np.asarray(self.scorer.score(texts, progress)[:, column], dtype=np.float64)
        bad = ~((found >= 0) & (found <= 1))  # NaN fails both
        if bad.any():
            row = int(np.argmax(bad))
            raise ScoreRangeError(
                f"the score {found[row]:g} is not a probability",
                where=f"{self.name}, comment {row + 1}",
                remedy="a NaN here means that the model's weights overflow: train it again",
            )
        return found

    def described(self) -> dict[str, Any]:
        """Return plain values for a report."""
        stated = {"name": self.name, "threshold": self.threshold, "threshold_origin": self.origin}
        return {**stated, **self.scorer.reading}


def choose_label(asked: str | None, labels: Sequence[str], scorers: Sequence[Scorer]) -> str:
    """Return the label to measure: the one asked for, else the data's first that all models have.

    Raises:
        LabelMismatchError: the data or a model lack it, or they have none in common.
    """
    shared = [label for label in labels if all(label in scorer.labels for scorer in scorers)]
    if asked is not None and asked not in shared:
        raise LabelMismatchError(
            f"the data and all models have no label {asked!r}",
            where="--label",
            remedy=did_you_mean(asked, shared) if shared else "name another one, or other data",
        )
    if not shared:
        sides = "; ".join(f"{scorer.name}: {', '.join(scorer.labels)}" for scorer in scorers)
        raise LabelMismatchError(
            f"the data and the models have no label in common: the data {', '.join(labels)}; {sides}",
            remedy="name the matching columns with --label-columns, or other models",
        )
    return shared[0] if asked is None else asked


def contestants(
    scorers: Sequence[Scorer], label: str, overall: float | None, single: Mapping[str, float]
) -> list[Contestant]:
    """Give each model its threshold: the one given, else its stored one, else 0.5.

    Raises:
        SettingsError: a threshold for a model that is not there.
        ScoreRangeError: a threshold outside 0..1.
    """
    names = [scorer.name for scorer in scorers]
    for name in single:
        if name not in names:
            raise SettingsError(f"there is no model {name!r}", where="--threshold", remedy=did_you_mean(name, names))
    for value in (*([] if overall is None else [overall]), *single.values()):
        if not 0 <= value <= 1:
            raise ScoreRangeError(
                f"the threshold {value:g} is outside 0..1", where="--threshold", remedy="give a number in 0..1"
            )
    found = []
    for scorer in scorers:
        given = single.get(scorer.name, overall)
        if given is not None:
            found.append(Contestant(scorer, label, given, "--threshold"))
        elif label in scorer.thresholds:
            found.append(Contestant(scorer, label, scorer.thresholds[label], scorer.origin))
        else:
            found.append(Contestant(scorer, label, HALF, NO_THRESHOLD))
    return found
