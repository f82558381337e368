"""New thresholds for a model, and which labels decide whether a comment is flagged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gkiller.evaluation.few import few_rows
from gkiller.evaluation.flagged import Flagged, flagged_figures, target_warnings
from gkiller.evaluation.models import narrowed, tune_measured
from gkiller.evaluation.thresholds import Threshold, kept_notes
from gkiller.model.layout import read_flag_labels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gkiller.evaluation.deployed import AnyModel
    from gkiller.evaluation.models import Measured
    from gkiller.settings.definition import EvaluationSettings


@dataclass(frozen=True)
class Tuning:
    """A model's thresholds, tuned again.

    Attributes:
        tuned: by label, those that were asked for; a label that cannot be tuned keeps its own.
        flagged: the labels that decide, and what their decision reaches.
        warnings: what to know of them.
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
        loaded: the model.
        measured: its scores on the rows to tune on.
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
