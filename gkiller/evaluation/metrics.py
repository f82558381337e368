"""The figures of one label, weighted, for the data as they are and for every resample at once.

All sums run over a ``counts`` matrix (R, n): how often each row was drawn in each of R resamples. The data
as they are have R = 1 and counts of one, so a figure and its bootstrap come from the same code. Intervals
are percentile intervals as in Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13;
one set of seeded resamples serves all labels and figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gkiller.data.dataset import FloatArray, IntArray
from gkiller.errors import SingleClassError
from gkiller.evaluation.checks import checked_tables
from gkiller.wording import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True)
class Side:
    """The positives or the negatives of a label, by descending score."""

    rows: IntArray  # (m,) their row numbers in the table, from 0
    scores: FloatArray  # (m,) descending
    weights: FloatArray  # (m,) all above 0

    def masses(self, counts: FloatArray) -> FloatArray:
        """Return the weight of each row in each resample, (R, m)."""
        drawn: FloatArray = np.take(counts, self.rows, axis=1)
        drawn *= self.weights
        return drawn

    def above(self, cuts: FloatArray) -> IntArray:
        """Return how many rows score above each cut (C,)."""
        return np.searchsorted(-self.scores, -cuts, side="left")

    def at_or_above(self, cuts: FloatArray) -> IntArray:
        """Return how many rows score at or above each cut (C,)."""
        return np.searchsorted(-self.scores, -cuts, side="right")


@dataclass(frozen=True)
class Ranking:
    """A label's known rows of positive weight, apart by class."""

    positives: Side
    negatives: Side

    @property
    def one_class(self) -> str:
        """Say why the classes cannot be told apart, or return an empty string."""
        if not len(self.positives.rows) and not len(self.negatives.rows):
            return "no row of this label is known and weighted"
        if not len(self.positives.rows):
            return "there are only negatives"
        if not len(self.negatives.rows):
            return "there are only positives"
        return ""


def rank(truth: FloatArray, scores: FloatArray, weights: FloatArray) -> Ranking:
    """Sort one label's rows by descending score.

    Args:
        truth: (n,) 0, 1 or NaN; unknown rows are left out.
        scores: (n,).
        weights: (n,); rows of weight 0 are left out, for they change no figure.
    """
    order = np.argsort(-scores, kind="stable")

    def side(value: float) -> Side:
        rows = order[(truth[order] == value) & (weights[order] > 0)]
        return Side(rows=rows, scores=scores[rows], weights=weights[rows])

    return Ranking(positives=side(1.0), negatives=side(0.0))


def running(masses: FloatArray) -> FloatArray:
    """Return the sums of the first 0, 1, ..., m masses of each resample, (R, m + 1)."""
    sums = np.zeros((masses.shape[0], masses.shape[1] + 1))
    np.cumsum(masses, axis=1, out=sums[:, 1:])
    return sums


@dataclass(frozen=True)
class Cuts:
    """Every way to cut a ranking between two distinct scores."""

    # (G,) the distinct scores, descending; cut g calls all rows at or above scores[g] positive
    scores: FloatArray
    tp: FloatArray  # (G,) weight of the true positives of each cut
    fp: FloatArray  # (G,) weight of the false positives
    positives: float
    negatives: float


def cuts_of(ranking: Ranking) -> Cuts:
    """Return all cuts of a ranking."""
    pos, neg = ranking.positives, ranking.negatives
    distinct = np.unique(np.concatenate([pos.scores, neg.scores]))[::-1]
    tp = running(pos.weights[None, :])[0]
    fp = running(neg.weights[None, :])[0]
    return Cuts(
        scores=distinct,
        tp=tp[pos.at_or_above(distinct)],
        fp=fp[neg.at_or_above(distinct)],
        positives=float(tp[-1]),
        negatives=float(fp[-1]),
    )


@dataclass(frozen=True)
class Reliability:
    """A label's scores in equal-width bins."""

    edges: FloatArray  # (B + 1,) from 0 to 1
    weight: FloatArray  # (B,) weight in each bin
    rows: IntArray  # (B,) rows in each bin
    score: FloatArray  # (B,) weighted mean score, NaN in an empty bin
    rate: FloatArray  # (B,) weighted share of positives, NaN in an empty bin
    effective: FloatArray  # (B,) Kish's effective number of rows, (sum w)^2 / sum w^2


def bin_of(scores: FloatArray, bins: int) -> IntArray:
    """Return the equal-width bin of each score; a score of exactly 1 falls into the last."""
    return np.minimum((scores * bins).astype(np.intp), bins - 1)


def reliability_of(ranking: Ranking, bins: int) -> Reliability:
    """Sum a label's scores and positives by bin."""
    pos, neg = ranking.positives, ranking.negatives
    scores = np.concatenate([pos.scores, neg.scores])
    weights = np.concatenate([pos.weights, neg.weights])
    relative = weights / weights.max() if len(weights) else weights  # squares stay above 0
    place = bin_of(scores, bins)

    def total(values: FloatArray | None) -> FloatArray:
        return np.bincount(place, weights=values, minlength=bins).astype(np.float64)

    mass = total(weights)
    full = mass > 0
    hits = np.bincount(place[: len(pos.rows)], weights=pos.weights, minlength=bins).astype(np.float64)

    def share(part: FloatArray, whole: FloatArray) -> FloatArray:
        quotient: FloatArray = np.divide(part, whole, out=np.full(bins, np.nan), where=full)
        return quotient

    return Reliability(
        edges=np.linspace(0.0, 1.0, bins + 1),
        weight=mass,
        rows=total(None).astype(np.intp),
        score=share(total(weights * scores), mass),
        rate=share(hits, mass),
        effective=np.nan_to_num(share(total(relative) ** 2, total(relative**2))),
    )


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
    """Where to look in a ranking's running sums: found once, used for every resample."""

    ranking: Ranking
    ends: IntArray  # (G,) positives at or above each distinct score of a positive
    before: IntArray  # (G,) negatives above that score
    through: IntArray  # (G,) negatives at or above it
    cuts: IntArray  # (C, 2) positives and negatives at or above each threshold
    positive_bins: IntArray  # (B + 1,) edges of the calibration bins among the positives, from the top
    negative_bins: IntArray  # (B + 1,) the same among the negatives

    def figures(self, counts: FloatArray) -> FloatArray:
        """Return roc_auc, ap, brier, ece, then POINT_FIGURES at each threshold, (R, 4 + 5 C).

        Undefined figures are NaN.

        Args:
            counts: (R, n) how often each row counts in each resample.
        """
        pos = self.ranking.positives.masses(counts)
        neg = self.ranking.negatives.masses(counts)
        tp, fp = running(pos), running(neg)
        columns = [np.stack([*self._ranked(tp, fp), *self._calibration(pos, neg, tp[:, -1] + fp[:, -1])], axis=1)]
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

    def _calibration(self, pos: FloatArray, neg: FloatArray, total: FloatArray) -> tuple[FloatArray, FloatArray]:
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
    """Prepare the figures of one label."""
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


CELLS = 1 << 20  # counts held at once: 8 MiB, and a few working copies of it
MIN_DEFINED = 0.5  # share of resamples in which a figure must exist for an interval


def draws(rows: int, resamples: int, seed: int) -> Iterator[FloatArray]:
    """Yield how often each row was drawn, as (R, rows) with R resamples at a time.

    Every resample draws ``rows`` rows with replacement. The draws depend on the seed alone, not on how many
    are held at once.
    """
    rng = np.random.default_rng(seed)
    at_once = max(1, CELLS // rows)
    for start in range(0, resamples, at_once):
        counts = np.empty((min(at_once, resamples - start), rows))
        for row in counts:
            row[:] = np.bincount(rng.integers(0, rows, size=rows), minlength=rows)
        yield counts


def resample(
    plans: Sequence[Plan], rows: int, resamples: int, seed: int, progress: Progress | None = None
) -> FloatArray:
    """Return every figure of every label in every resample, (L, R, K); NaN where undefined.

    Args:
        rows: n, the rows that are drawn from (with unknown ones: a row is drawn for all labels together).
    """
    parts: list[FloatArray] = []
    done = 0
    for counts in draws(rows, resamples, seed):
        parts.append(np.stack([one.figures(counts) for one in plans]))
        done += len(counts)
        if progress is not None:
            progress(done, resamples)
    return np.concatenate(parts, axis=1)


def interval(values: FloatArray, confidence: float, *, centre: float | None = None) -> tuple[float, float, int]:
    """Return the percentile interval of a figure, and in how many resamples it was defined.

    The ends are NaN when fewer than half of the resamples define the figure.

    Args:
        values: (R,) the figure in each resample, NaN where undefined.
        centre: for a figure that resampling biases: the resamples are first shifted so that their mean is
            this value, and cut off at 0.
    """
    known = values[np.isfinite(values)]
    if len(known) < max(1, MIN_DEFINED * len(values)):
        return np.nan, np.nan, len(known)
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(known, (tail, 1.0 - tail))
    if centre is not None:
        shift = centre - float(known.mean())
        low, high = max(0.0, low + shift), max(0.0, high + shift)
    return float(low), float(high), len(known)
