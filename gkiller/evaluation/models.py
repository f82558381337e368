"""Measure a saved model, tune its thresholds, and see what ``flagged`` then reaches."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gkiller.data.dataset import Dataset, Split
from gkiller.errors import LabelMismatchError, ThresholdTargetError
from gkiller.evaluation.evaluate import evaluate
from gkiller.evaluation.metrics import ratio
from gkiller.evaluation.results import Evaluation, few_rows, number
from gkiller.evaluation.thresholds import SLACK, Threshold, kept_notes, tune_thresholds
from gkiller.inference.results import reached
from gkiller.model.layout import read_flag_labels
from gkiller.scoring.models import AnyModel, score_any
from gkiller.wording import Progress

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gkiller.settings.definition import EvaluationSettings
    from gkiller.tokens.batches import LongText


@dataclass(frozen=True)
class Measured:
    """A model's scores on a split."""

    labels: tuple[str, ...]
    missing: tuple[str, ...]
    truth: npt.NDArray[np.float32]  # (n, L) 0, 1 or NaN
    scores: npt.NDArray[np.float64]  # (n, L) probabilities
    weights: npt.NDArray[np.float64]  # (n,)
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


def evaluate_measured(measured: Measured, settings: EvaluationSettings, progress: Progress | None = None) -> Evaluation:
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


@dataclass(frozen=True)
class Flagged:
    """How good the decision is whether a comment is flagged.

    A comment is positive when any of the deciding labels is, and known when one is positive or all are known.
    """

    labels: tuple[str, ...]
    n: int = 0
    positives: int = 0
    # weighted; None where nothing is flagged, or where the data lack one of the labels
    precision: float | None = None
    recall: float | None = None  # weighted; None without positives, or where the data lack one of the labels

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def flagged_figures(measured: Measured, thresholds: Mapping[str, float], deciding: Sequence[str]) -> Flagged:
    """Return what the decision reaches on the rows of a measured model."""
    if not set(deciding) <= set(measured.labels):
        return Flagged(tuple(deciding))
    truth = measured.truth[:, [measured.labels.index(label) for label in deciding]]
    positive = (truth == 1).any(1)
    known = (positive | ~np.isnan(truth).any(1)) & (measured.weights > 0)
    flagged = reached(measured.scores, measured.labels, thresholds, deciding).any(1)
    mass = np.where(known, measured.weights, 0.0)
    right = mass[positive & flagged].sum()
    precision, recall = (ratio(right, mass[each].sum()) for each in (flagged, positive))
    n, positives = int(known.sum()), int((known & positive).sum())
    return Flagged(tuple(deciding), n, positives, number(float(precision)), number(float(recall)))


def target_warnings(flagged: Flagged, measured: Measured, settings: EvaluationSettings) -> list[str]:
    """Return whether the decision misses the precision or recall that each label was tuned for."""
    targets = {"precision": settings.min_precision, "recall": settings.min_recall}
    name, least = next(((key, value) for key, value in targets.items() if value is not None), ("", 0.0))
    if not name or len(flagged.labels) == 1:
        return []
    remedy = "let one label decide, such as with --labels " + measured.labels[0]
    if lacking := [label for label in flagged.labels if label not in measured.labels]:
        also = f"`flagged` is also decided by {', '.join(lacking)}, which the data lack"
        return [f"{also}: its {name} is not known; {remedy}"]
    value = flagged.precision if name == "precision" else flagged.recall
    if value is None or value >= least - SLACK:
        return []
    several = ", ".join(flagged.labels)
    return [f"`flagged` is decided by {several} together: its {name} is {value:.4f}, below {least:g}; " + remedy]


@dataclass(frozen=True)
class Tuning:
    """A model's thresholds, tuned again."""

    tuned: Mapping[str, Threshold]  # by label, those requested; a label that cannot be tuned keeps its own
    flagged: Flagged
    warnings: tuple[str, ...]

    def stored(self, record: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Return what gkiller.json says of the labels that were tuned."""
        return {label: {**one.as_dict(), "tuned_on": record} for label, one in self.tuned.items() if not one.note}


def retune(
    loaded: AnyModel, measured: Measured, settings: EvaluationSettings, labels: Sequence[str] | None = None
) -> Tuning:
    """Tune a measured model's thresholds.

    Args:
        labels: those to tune, which decide from then on; None for all, and the deciding ones as they were.

    Raises:
        ThresholdTargetError: no threshold reaches the target, or no label can be tuned.
        LabelMismatchError: the data lack one of the labels.
    """
    chosen = measured if labels is None else narrowed(measured, labels)
    tuned = tune_measured(chosen, settings)
    thresholds = {**measured.thresholds, **{label: one.value for label, one in tuned.items()}}
    deciding = read_flag_labels(loaded.metadata, loaded.labels) if labels is None else labels
    flagged = flagged_figures(measured, thresholds, deciding)
    warnings = kept_notes(tuned)
    if chosen.missing:
        warnings.append(f"left as they were, as the data lack them: {', '.join(chosen.missing)}")
    warnings += few_rows({label: (one.positives, one.n) for label, one in tuned.items() if not one.note})
    warnings += target_warnings(flagged, measured, settings)
    return Tuning(tuned, flagged, tuple(warnings))
