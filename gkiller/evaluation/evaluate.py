"""From truth, scores, weights and thresholds to an Evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gkiller.data.dataset import FloatArray
from gkiller.evaluation.checks import checked_tables, checked_thresholds
from gkiller.evaluation.metrics import HALF, POINT_FIGURES, RANK_FIGURES, Plan, interval, plan, rank, ratio, resample
from gkiller.evaluation.results import Confusion, Evaluation, Figure, LabelResult, MacroResult, OperatingPoint, number
from gkiller.wording import Progress

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gkiller.settings.definition import EvaluationSettings


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
