"""One label's rows in descending order of score, and the sums that every figure is made of.

All sums run over a ``counts`` matrix (R, n): how often each row was drawn in each of R resamples. The
data as they are have R = 1 and counts of one, so a figure and its bootstrap come from the same code.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gkiller.evaluation.checks import FloatArray, IntArray


@dataclass(frozen=True)
class Side:
    """The positives or the negatives of a label, by descending score.

    Attributes:
        rows: (m,) their row numbers in the table, from 0.
        scores: (m,) descending.
        weights: (m,) all above 0.
    """

    rows: IntArray
    scores: FloatArray
    weights: FloatArray

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
    """Every way to cut a ranking between two distinct scores.

    Attributes:
        scores: (G,) the distinct scores, descending; cut g calls all rows at or above scores[g] positive.
        tp: (G,) weight of the true positives of each cut.
        fp: (G,) weight of the false positives.
        positives: weight of all positives.
        negatives: weight of all negatives.
    """

    scores: FloatArray
    tp: FloatArray
    fp: FloatArray
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
    """A label's scores in equal-width bins.

    Attributes:
        edges: (B + 1,) from 0 to 1.
        weight: (B,) weight in each bin.
        rows: (B,) rows in each bin.
        score: (B,) weighted mean score, NaN in an empty bin.
        rate: (B,) weighted share of positives, NaN in an empty bin.
        effective: (B,) Kish's effective number of rows, (sum w)^2 / sum w^2.
    """

    edges: FloatArray
    weight: FloatArray
    rows: IntArray
    score: FloatArray
    rate: FloatArray
    effective: FloatArray


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
