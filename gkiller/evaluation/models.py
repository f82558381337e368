"""Measure a saved model and tune its thresholds: where the model, the data and the figures meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gkiller.data.dataset import Dataset, Split
from gkiller.errors import LabelMismatchError, ThresholdTargetError
from gkiller.evaluation.evaluate import evaluate
from gkiller.evaluation.results import Evaluation
from gkiller.evaluation.thresholds import Threshold, kept_notes, tune_thresholds
from gkiller.scoring.models import AnyModel, score_any
from gkiller.wording import Progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gkiller.settings.definition import EvaluationSettings
    from gkiller.tokens.batches import LongText


@dataclass(frozen=True)
class Measured:
    """A model's scores on a split.

    Attributes:
        truth: (n, L) 0, 1 or NaN.
        scores: (n, L) probabilities.
        weights: (n,).
    """

    labels: tuple[str, ...]
    missing: tuple[str, ...]
    truth: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float64]
    weights: npt.NDArray[np.float64]
    thresholds: dict[str, float]


def measure(
    loaded: AnyModel,
    dataset: Dataset,
    split: Split,
    batch_size: int,
    progress: Progress | None = None,
    *,
    long_text: LongText = "window",
) -> Measured:
    """Score a split with a model.

    Args:
        dataset: names the labels of ``split``'s columns.

    Raises:
        LabelMismatchError: the data have none of the model's labels.
    """
    shared = tuple(label for label in loaded.labels if label in dataset.labels)
    if not shared:
        raise LabelMismatchError(
            f"the data have the labels {', '.join(dataset.labels)}, the model {', '.join(loaded.labels)}",
            where=str(dataset.manifest.get("source", "")),
            remedy="name the matching columns with --label-columns",
        )
    scores = score_any(loaded, split.texts, batch_size, progress, long_text=long_text)
    return Measured(
        labels=shared,
        missing=tuple(label for label in loaded.labels if label not in shared),
        truth=split.labels[:, [dataset.labels.index(label) for label in shared]],
        scores=scores[:, [loaded.labels.index(label) for label in shared]],
        weights=split.weights,
        thresholds={label: loaded.thresholds[label] for label in shared},
    )


def evaluate_measured(
    measured: Measured, settings: EvaluationSettings, progress: Progress | None = None
) -> Evaluation:
    """Return the figures of a measured model at its stored thresholds."""
    return evaluate(
        measured.labels,
        measured.truth,
        measured.scores,
        measured.weights,
        measured.thresholds,
        settings,
        progress=progress,
    )


def narrowed(measured: Measured, labels: Sequence[str]) -> Measured:
    """Return the columns of some labels alone.

    Raises:
        LabelMismatchError: the data lack one.
    """
    for label in labels:
        if label not in measured.labels:
            raise LabelMismatchError(
                f"the data have no label {label!r}; they have {', '.join(measured.labels)}",
                where="--labels",
                remedy="name the matching column with --label-columns, or leave the label out",
            )
    columns = [measured.labels.index(label) for label in labels]
    return replace(
        measured,
        labels=tuple(labels),
        missing=(),
        truth=measured.truth[:, columns],
        scores=measured.scores[:, columns],
        thresholds={label: measured.thresholds[label] for label in labels},
    )


def tune_measured(measured: Measured, settings: EvaluationSettings) -> dict[str, Threshold]:
    """Return thresholds for the labels that were measured; those that cannot be tuned keep the stored one.

    Raises:
        ThresholdTargetError: no threshold reaches the asked precision or recall, or no label can be tuned.
    """
    tuned = tune_thresholds(
        measured.labels,
        measured.truth,
        measured.scores,
        measured.weights,
        stored=measured.thresholds,
        **settings.tuning(),
    )
    if all(one.note for one in tuned.values()):
        raise ThresholdTargetError(
            "no threshold can be tuned on these rows: " + "; ".join(kept_notes(tuned)),
            remedy="use rows that hold positives and negatives of a label, with scores that differ",
        )
    return tuned
