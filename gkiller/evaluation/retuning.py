"""What ``flagged`` reaches when several labels decide it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gkiller.evaluation.metrics import ratio
from gkiller.evaluation.models import narrowed, tune_measured
from gkiller.evaluation.results import few_rows, number
from gkiller.evaluation.thresholds import SLACK, Threshold, kept_notes
from gkiller.inference.results import reached
from gkiller.model.layout import read_flag_labels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gkiller.evaluation.models import Measured
    from gkiller.scoring.models import AnyModel
    from gkiller.settings.definition import EvaluationSettings


@dataclass(frozen=True)
class Flagged:
    """How good the decision is whether a comment is flagged.

    A comment is positive when any of the deciding labels is, and known when one is positive or all are known.

    Attributes:
        precision: weighted; None where nothing is flagged, or where the data lack one of the labels.
        recall: weighted; None without positives, or where the data lack one of the labels.
    """

    labels: tuple[str, ...]
    n: int = 0
    positives: int = 0
    precision: float | None = None
    recall: float | None = None

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
    return [
        f"`flagged` is decided by {several} together: its {name} is {value:.4f}, below {least:g}; " + remedy
    ]


@dataclass(frozen=True)
class Tuning:
    """A model's thresholds, tuned again.

    Attributes:
        tuned: by label, those that were asked for; a label that cannot be tuned keeps its own.
    """

    tuned: Mapping[str, Threshold]
    flagged: Flagged
    warnings: tuple[str, ...]

    def stored(self, record: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Return what gkiller.json says of the labels that were tuned.

        Args:
            record: of the rows that they were tuned on.
        """
        return {
            label: {**one.as_dict(), "tuned_on": record} for label, one in self.tuned.items() if not one.note
        }


def retune(
    loaded: AnyModel, measured: Measured, settings: EvaluationSettings, labels: Sequence[str] | None = None
) -> Tuning:
    """Tune a measured model's thresholds.

    Args:
        settings: what thresholds are tuned for.
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
