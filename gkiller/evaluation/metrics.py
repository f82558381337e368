"""The figures of one label, weighted, for the data as they are and for every resample at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gkiller.errors import SingleClassError
from gkiller.evaluation.checks import FloatArray, IntArray, checked_tables
from gkiller.evaluation.ranking import Ranking, bin_of, rank, running

if TYPE_CHECKING:
    from collections.abc import Sequence

POINT_FIGURES = ("f1", "precision", "recall", "accuracy", "mcc")
RANK_FIGURES = ("roc_auc", "ap", "brier", "ece")
HALF = 0.5


def ratio(part: FloatArray, whole: FloatArray) -> FloatArray:
    """Divide, with NaN where the whole is 0."""
    shape = np.broadcast_shapes(np.shape(part), np.shape(whole))
    quotient: FloatArray = np.divide(part, whole, out=np.full(shape, np.nan), where=np.asarray(whole) > 0)
    return quotient


def confusion_figures(tp: FloatArray, fp: FloatArray, fn: FloatArray, tn: FloatArray) -> FloatArray:
    """Return F1, precision, recall, accuracy and MCC, in the order of POINT_FIGURES, as (R, 5).

    F1, precision and recall are NaN without positives, precision also where nothing is called positive, and
    MCC where the data have one class. MCC is 0, its limit and scikit-learn's convention, where the data have
    both classes but all rows are called the same.

    Args:
        tp: (R,) weight of the true positives.
        fp: (R,) of the false positives.
        fn: (R,) of the false negatives.
        tn: (R,) of the true negatives.
    """
    positives, negatives = tp + fn, tn + fp
    called, passed = tp + fp, tn + fn
    f1 = np.where(positives > 0, ratio(2 * tp, 2 * tp + fp + fn), np.nan)
    precision = np.where(positives > 0, ratio(tp, called), np.nan)
    # Square roots first: the product of four large weights could overflow.
    scale = np.sqrt(called) * np.sqrt(positives) * np.sqrt(negatives) * np.sqrt(passed)
    mcc = np.divide(tp * tn - fp * fn, scale, out=np.zeros_like(tp), where=scale > 0)
    mcc = np.where((positives > 0) & (negatives > 0), mcc, np.nan)
    columns = (f1, precision, ratio(tp, positives), ratio(tp + tn, positives + negatives), mcc)
    return np.stack(columns, axis=1)


@dataclass(frozen=True)
class Plan:
    """Where to look in a ranking's running sums: found once, used for every resample.

    Attributes:
        ranking: the label's rows.
        ends: (G,) positives at or above each distinct score of a positive.
        before: (G,) negatives above that score.
        through: (G,) negatives at or above it.
        cuts: (C, 2) positives and negatives at or above each threshold.
        positive_bins: (B + 1,) edges of the calibration bins among the positives, from the top.
        negative_bins: (B + 1,) the same among the negatives.
    """

    ranking: Ranking
    ends: IntArray
    before: IntArray
    through: IntArray
    cuts: IntArray
    positive_bins: IntArray
    negative_bins: IntArray

    def figures(self, counts: FloatArray) -> FloatArray:
        """Return roc_auc, ap, brier, ece, then POINT_FIGURES at each threshold, (R, 4 + 5 C).

        Undefined figures are NaN.

        Args:
            counts: (R, n) how often each row counts in each resample.
        """
        pos = self.ranking.positives.masses(counts)
        neg = self.ranking.negatives.masses(counts)
        tp, fp = running(pos), running(neg)
        columns = [
            np.stack([*self._ranked(tp, fp), *self._calibration(pos, neg, tp[:, -1] + fp[:, -1])], axis=1)
        ]
        for hit, false in self.cuts:
            columns.append(
                confusion_figures(tp[:, hit], fp[:, false], tp[:, -1] - tp[:, hit], fp[:, -1] - fp[:, false])
            )
        return np.concatenate(columns, axis=1)

    def _ranked(self, tp: FloatArray, fp: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return ROC-AUC and average precision.

        The first is the share of positive-negative pairs in the right order, ties counting half
        (Mann-Whitney); the second is the sum of precision times gain in recall over the distinct scores,
        without interpolation. Negatives between two positives only matter by their sum.
        """
        both = (tp[:, -1] > 0) & (fp[:, -1] > 0)
        hits = tp[:, self.ends]
        gains = np.diff(hits, axis=1, prepend=0.0)
        passed = fp[:, self.through]
        below = fp[:, -1:] - 0.5 * (fp[:, self.before] + passed)
        auc = ratio(ratio(np.einsum("rg,rg->r", gains, below), tp[:, -1]), fp[:, -1])
        called = hits + passed
        precision = np.divide(hits, called, out=np.zeros_like(hits), where=called > 0)
        ap = ratio(np.einsum("rg,rg->r", gains, precision), tp[:, -1])
        return np.where(both, auc, np.nan), np.where(both, ap, np.nan)

    def _calibration(
        self, pos: FloatArray, neg: FloatArray, total: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return the Brier score and the expected calibration error.

        The error of a row is truth minus score: 1 - s for a positive, -s for a negative.
        """
        miss = 1.0 - self.ranking.positives.scores
        false = self.ranking.negatives.scores
        brier = pos @ miss**2 + neg @ false**2
        gaps = np.diff(running(pos * miss)[:, self.positive_bins], axis=1)
        gaps -= np.diff(running(neg * false)[:, self.negative_bins], axis=1)
        return ratio(brier, total), ratio(np.abs(gaps).sum(axis=1), total)


def plan(ranking: Ranking, thresholds: Sequence[float], bins: int) -> Plan:
    """Prepare the figures of one label.

    Args:
        ranking: its rows.
        thresholds: the C thresholds; a score at or above one is positive.
        bins: equal-width bins of the calibration error.
    """
    pos, neg = ranking.positives, ranking.negatives
    distinct = np.unique(pos.scores)[::-1]
    marks = np.asarray(thresholds, dtype=np.float64)
    # Descending scores have descending bins, so a bin is a slice: edges from the top bin to the lowest.
    tops = -np.arange(bins, -1, -1)

    def edges(scores: FloatArray) -> IntArray:
        return np.searchsorted(-bin_of(scores, bins), tops, side="right")

    return Plan(
        ranking=ranking,
        ends=pos.at_or_above(distinct),
        before=neg.above(distinct),
        through=neg.at_or_above(distinct),
        cuts=np.stack([pos.at_or_above(marks), neg.at_or_above(marks)], axis=1),
        positive_bins=edges(pos.scores),
        negative_bins=edges(neg.scores),
    )


def label_figures(
    truth: Any, scores: Any, weights: Any | None = None, *, threshold: float = HALF, bins: int = 15
) -> dict[str, float]:
    """Return every figure of one label by name; NaN where it is undefined.

    Args:
        truth: (n,) 0, 1, or NaN where unknown.
        scores: (n,) probabilities.
        weights: (n,) sample weights, or None for ones.
        threshold: a score at or above it is positive.
        bins: equal-width bins of the calibration error.

    Raises:
        DataError, EvaluationError: see ``checked_tables``.
    """
    column, score = np.asarray(truth)[:, None], np.asarray(scores)[:, None]
    table, probabilities, mass = checked_tables(("label",), column, score, weights)
    prepared = plan(rank(table[:, 0], probabilities[:, 0], mass), (threshold,), bins)
    values = prepared.figures(np.ones((1, len(table))))[0]
    return dict(zip((*RANK_FIGURES, *POINT_FIGURES), map(float, values), strict=True))


def macro_score(metric: Literal["ap", "f1"], truth: Any, scores: Any, weights: Any | None = None) -> float:
    """Return the score that early stopping watches: the mean over the labels that have both classes.

    Args:
        metric: "ap" for average precision, "f1" for F1 at the threshold 0.5.
        truth: (n, L) 0, 1, or NaN where unknown; unknown rows are left out label by label.
        scores: (n, L) probabilities.
        weights: (n,) sample weights, or None for ones.

    Raises:
        SingleClassError: no label has both classes.
        DataError, EvaluationError: see ``checked_tables``.
    """
    names = tuple(f"label {i + 1}" for i in range(np.shape(truth)[1]))
    table, probabilities, mass = checked_tables(names, truth, scores, weights)
    whole = np.ones((1, len(table)))
    column = {"ap": 1, "f1": 4}[metric]
    values = []
    for place in range(len(names)):
        ranking = rank(table[:, place], probabilities[:, place], mass)
        if not ranking.one_class:
            values.append(plan(ranking, (HALF,), 2).figures(whole)[0, column])
    if not values:
        raise SingleClassError(
            "no label has both positives and negatives, so there is nothing to measure",
            remedy="use a larger validation split, or data that hold both classes",
        )
    return float(np.mean(values))
