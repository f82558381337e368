"""From truth, scores, weights and thresholds to an Evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gkiller.data.dataset import Dataset, FloatArray, Split
from gkiller.errors import LabelMismatchError, ThresholdTargetError
from gkiller.evaluation.checks import checked_tables, checked_thresholds
from gkiller.evaluation.metrics import (
    HALF,
    POINT_FIGURES,
    RANK_FIGURES,
    Plan,
    interval,
    plan,
    rank,
    ratio,
    resample,
)
from gkiller.evaluation.results import (
    Confusion,
    Evaluation,
    Figure,
    LabelResult,
    MacroResult,
    OperatingPoint,
    number,
)
from gkiller.evaluation.thresholds import Threshold, kept_notes, tune_thresholds
from gkiller.scoring.models import AnyModel, score_any
from gkiller.wording import Progress

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gkiller.settings.definition import EvaluationSettings
    from gkiller.tokens.batches import LongText


COLUMNS = (*RANK_FIGURES, *(f"stored.{n}" for n in POINT_FIGURES), *(f"half.{n}" for n in POINT_FIGURES))
SHIFTED = RANK_FIGURES.index("ece")
ECE_NOTE = "resampling adds noise to every bin, so its resamples are centred on the value"
TOO_FEW = "undefined in more than half of the resamples, so without an interval"


def evaluate(
    labels: Sequence[str],
    truth: Any,
    scores: Any,
    weights: Any | None,
    thresholds: Mapping[str, float],
    settings: EvaluationSettings,
    *,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure the scores of all labels, with bootstrap intervals over rows.

    Args:
        truth: (n, L) 0, 1, or NaN where unknown; unknown rows are left out label by label.
        scores: (n, L) probabilities.
        weights: (n,) sample weights, or None for ones.

    Raises:
        EmptyDataError: there are no rows.
        LabelValueError: a truth outside 0, 1 and NaN, or a bad weight.
        LabelMismatchError: shapes differ, or a label has no threshold.
        ScoreRangeError: a score or threshold outside 0..1.
    """
    table, probabilities, mass = checked_tables(labels, truth, scores, weights)
    cuts = checked_thresholds(labels, thresholds)
    plans = [
        plan(rank(table[:, i], probabilities[:, i], mass), (float(cuts[i]), HALF), settings.ece_bins)
        for i in range(len(labels))
    ]
    points = np.concatenate([one.figures(np.ones((1, len(table)))) for one in plans])
    replicas = resample(plans, len(table), settings.resamples, settings.bootstrap_seed, progress)
    results = tuple(
        _label_result(
            name,
            plans[i],
            table[:, i],
            probabilities[:, i],
            mass,
            float(cuts[i]),
            _figures(points[i], replicas[i], settings.confidence, _reasons(plans[i], points[i])),
        )
        for i, name in enumerate(labels)
    )
    return Evaluation(
        labels=results,
        macro=_macro_result(points, replicas, settings.confidence),
        rows=len(table),
        weighted=bool((mass != mass[0]).any()),
        confidence=settings.confidence,
        resamples=settings.resamples,
        bootstrap_seed=settings.bootstrap_seed,
        ece_bins=settings.ece_bins,
    )


def _reasons(prepared: Plan, point: FloatArray) -> list[str]:
    """Say for each column why it is undefined, or that it is not."""
    one_class = prepared.ranking.one_class
    unknown = np.isnan(point)
    return [("" if not unknown[k] else one_class or "no row is called positive") for k in range(len(COLUMNS))]


def _figures(point: FloatArray, replicas: FloatArray, confidence: float, notes: list[str]) -> list[Figure]:
    """Join values (K,) with the intervals of their replicas (R, K)."""
    figures = []
    for k, value in enumerate(point):
        if np.isnan(value):
            figures.append(Figure(value=None, note=notes[k]))
            continue
        centre = float(value) if k == SHIFTED else None
        low, high, defined = interval(replicas[:, k], confidence, centre=centre)
        parts = [notes[k], ECE_NOTE if k == SHIFTED else "", TOO_FEW if np.isnan(low) else ""]
        note = "; ".join(part for part in parts if part)
        figures.append(Figure(float(value), number(low), number(high), defined, note))
    return figures


def _label_result(
    name: str,
    prepared: Plan,
    truth: FloatArray,
    scores: FloatArray,
    weights: FloatArray,
    threshold: float,
    figures: list[Figure],
) -> LabelResult:
    known = ~np.isnan(truth)
    positive = truth == 1
    total = weights[known].sum()
    prior = number(float(ratio(weights[positive].sum(), total)))

    def point(cut: float, prefix: str) -> OperatingPoint:
        called = scores >= cut
        cells = {
            "tp": positive & called,
            "fp": known & ~positive & called,
            "fn": positive & ~called,
            "tn": known & ~positive & ~called,
        }
        return OperatingPoint(
            threshold=cut,
            confusion=Confusion(**{key: float(weights[cell].sum()) for key, cell in cells.items()}),
            counts=Confusion(**{key: int(cell.sum()) for key, cell in cells.items()}),
            **_at(figures, prefix),
        )

    return LabelResult(
        label=name,
        n=int(known.sum()),
        unknown=int((~known).sum()),
        positives=int(positive.sum()),
        prior=prior,
        stored=point(threshold, "stored"),
        half=point(HALF, "half"),
        **_ranked(figures),
    )


def _ranked(figures: list[Figure]) -> dict[str, Figure]:
    return dict(zip(RANK_FIGURES, figures, strict=False))


def _at(figures: list[Figure], prefix: str) -> dict[str, Any]:
    return {name: figures[COLUMNS.index(f"{prefix}.{name}")] for name in POINT_FIGURES}


def _macro_result(points: FloatArray, replicas: FloatArray, confidence: float) -> MacroResult:
    """Average over labels.

    A resample averages the same labels as the point estimate; where one of them is undefined in it, the
    resample is left out rather than averaged over other labels.
    """
    total = len(points)
    point = np.full(len(COLUMNS), np.nan)
    means = np.full(replicas.shape[1:], np.nan)
    notes = []
    for k in range(len(COLUMNS)):
        known = np.isfinite(points[:, k])
        if known.any():
            point[k] = points[known, k].mean()
            means[:, k] = replicas[known, :, k].mean(axis=0)
            notes.append("" if known.all() else f"over {int(known.sum())} of {total} labels")
        else:
            notes.append("undefined for every label")
    figures = _figures(point, means, confidence, notes)
    return MacroResult(
        stored=OperatingPoint(threshold=None, **_at(figures, "stored")),
        half=OperatingPoint(threshold=HALF, **_at(figures, "half")),
        **_ranked(figures),
    )


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
