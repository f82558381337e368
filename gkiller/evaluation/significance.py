"""Whether two sides that scored the same rows differ: paired bootstrap, McNemar's test, and a verdict.

Each resample draws rows, and both sides are measured on the rows drawn, so that what is hard for both falls
out of the difference (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 13 and 15).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from gkiller.data.dataset import FloatArray
from gkiller.errors import LabelMismatchError, ScoreRangeError
from gkiller.evaluation.checks import checked_tables
from gkiller.evaluation.metrics import POINT_FIGURES, RANK_FIGURES, draws, interval, plan, rank, ratio, resample
from gkiller.evaluation.results import Evaluation, Figure, number
from gkiller.wording import Progress

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from gkiller.settings.definition import EvaluationSettings


FIGURES = ("f1", "ap", "roc_auc")

MARGIN = 0.02

EQUAL = 1e-12  # a difference below it comes from the order of a sum

Kind: TypeAlias = Literal["within", "worse", "not shown"]

_COLUMNS = [(*RANK_FIGURES, *POINT_FIGURES).index(name) for name in FIGURES]


@dataclass(frozen=True)
class Side:
    """One side's scores of one label."""

    scores: FloatArray  # float64 of shape (n,), probabilities
    threshold: float  # a score at or above it is positive; tuned on other rows


@dataclass(frozen=True)
class Difference:
    """One figure of both sides; NaN where it is undefined."""

    a: float
    b: float
    delta: float
    low: float  # lower end of delta's paired bootstrap interval
    high: float
    relative: float
    relative_low: float  # lower end of the interval of a / b
    relative_high: float
    p: float  # two-sided bootstrap p-value of delta = 0; never below 2 / (resamples + 1)


@dataclass(frozen=True)
class McNemar:
    """McNemar's test of the decisions, exact and unweighted."""

    only_a_right: int
    only_b_right: int
    p: float  # two-sided; 1 without such rows


@dataclass(frozen=True)
class Paired:
    """Two sides on the same rows of one label."""

    n: int
    positives: int
    # by name, "f1" (at each side's own threshold), "ap" and "roc_auc"; weighted
    differences: Mapping[str, Difference]
    mcnemar: McNemar
    # int64 of shape (2, 2): rows by the decisions of the first side (down: negative, positive) and of the second
    # (across); unweighted
    agreement: NDArray[np.int64]


def compare_sides(
    truth: Any,
    a: Side,
    b: Side,
    weights: Any | None = None,
    *,
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
    progress: Progress | None = None,
) -> Paired:
    """Compare two sides on one label, with one set of draws for both.

    Args:
        truth: (n,) 0, 1, or NaN where unknown; unknown rows are left out.
        weights: (n,) sample weights, or None for ones. Figures and bootstrap honour them; the agreement and
            McNemar's test count rows.

    Raises:
        DataError, EvaluationError: see ``checked_tables``; also a threshold outside 0..1.
    """
    column, scores, mass = _checked(truth, a, b, weights)
    sides = [Side(scores[:, 0], a.threshold), Side(scores[:, 1], b.threshold)]
    plans = [plan(rank(column, side.scores, mass), (side.threshold,), 1) for side in sides]
    whole = np.ones((1, len(column)))
    points = np.stack([one.figures(whole)[0, _COLUMNS] for one in plans])
    replicas = resample(plans, len(column), resamples, seed, progress)[:, :, _COLUMNS]
    used = ~np.isnan(column) & (mass > 0)
    positive = column[used] == 1
    flags = [side.scores[used] >= side.threshold for side in sides]
    return Paired(
        n=int(used.sum()),
        positives=int(positive.sum()),
        differences={
            name: paired_difference(points[:, k], replicas[:, :, k], confidence) for k, name in enumerate(FIGURES)
        },
        mcnemar=_mcnemar(*(flag == positive for flag in flags)),
        agreement=np.bincount(2 * flags[0] + flags[1], minlength=4).reshape(2, 2).astype(np.int64),
    )


def _checked(truth: Any, a: Side, b: Side, weights: Any | None) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return truth (n,), both sides' scores (n, 2) and weights (n,)."""
    names = ("A", "B")
    shapes = [np.shape(truth), *(np.shape(side.scores) for side in (a, b))]
    if len(set(shapes)) > 1 or len(shapes[0]) != 1:
        raise LabelMismatchError(
            f"truth {shapes[0]} and scores {shapes[1]} and {shapes[2]} do not fit together",
            remedy="give one value per row, of the same rows",
        )
    both = np.stack([a.scores, b.scores], axis=1)
    table, scores, mass = checked_tables(names, np.stack([truth, truth], axis=1), both, weights)
    for name, side in zip(names, (a, b), strict=True):
        if not 0 <= side.threshold <= 1:
            raise ScoreRangeError(
                f"the threshold {side.threshold:g} is outside 0..1",
                where=f"side {name}",
                remedy="give a threshold in 0..1",
            )
    return table[:, 0], scores, mass


def paired_difference(point: FloatArray, replicas: FloatArray, confidence: float) -> Difference:
    """Join a figure's values on both sides with their replicas.

    Args:
        point: (2,) the first and the second side's value; NaN where undefined.
        replicas: (2, R) the same in each resample, both on the same draws.
    """
    a, b = (float(value) for value in point)
    deltas = replicas[0] - replicas[1]
    deltas[np.abs(deltas) < EQUAL] = 0.0
    quotients = ratio(replicas[0], replicas[1])
    defined = math.isfinite(a - b)
    low, high, _ = interval(deltas, confidence) if defined else (np.nan, np.nan, 0)
    relative = float(ratio(point[0], point[1]))
    ends = interval(quotients, confidence)[:2] if math.isfinite(relative) else (np.nan, np.nan)
    p = np.nan if math.isnan(low) else _p_value(deltas)
    return Difference(a, b, a - b, low, high, relative, *ends, p)


def _p_value(deltas: FloatArray) -> float:
    """Return twice the smaller share of resamples on one side of 0, the data as they are counted as one more.

    It is the level at which the percentile interval just reaches 0.
    """
    known = deltas[np.isfinite(deltas)]
    tail = min(int((known <= 0).sum()), int((known >= 0).sum()))
    return min(1.0, 2 * (tail + 1) / (len(known) + 1))


def _mcnemar(right_a: NDArray[np.bool_], right_b: NDArray[np.bool_]) -> McNemar:
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    return McNemar(only_a, only_b, mcnemar_p(only_a, only_b))


def mcnemar_p(only_a: int, only_b: int) -> float:
    """Return the exact two-sided p-value of McNemar's test (McNemar 1947; a binomial test at 1/2)."""
    least, n = min(only_a, only_b), only_a + only_b
    if 2 * least >= n:
        return 1.0
    log_mass = math.lgamma(n + 1) - math.lgamma(least + 1) - math.lgamma(n - least + 1) - n * math.log(2)
    k = np.arange(least, 0, -1)
    shares = np.cumprod(k / (n - k + 1))  # mass of k - 1 by that of the least
    return float(min(1.0, 2 * math.exp(log_mass) * (1 + shares.sum())))


def holm(values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for being several (Holm 1979), in their order; NaN ones are not counted."""
    adjusted = np.full(len(values), np.nan)
    known = [i for i, p in enumerate(values) if not math.isnan(p)]
    least = 0.0
    for smaller, i in enumerate(sorted(known, key=lambda i: values[i])):
        least = max(least, min(1.0, (len(known) - smaller) * values[i]))
        adjusted[i] = least
    return [float(p) for p in adjusted]


@dataclass(frozen=True)
class Verdict:
    """Whether the first side keeps up with the second."""

    # of the relative difference, a / b - 1: "within" when its interval lies above -margin, "worse" when it lies below,
    # else "not shown"
    kind: Kind
    text: str  # one line with both differences and their intervals
    # rows of this kind that would show "within" if the relative difference stays as it is; None when it is shown, or no
    # number of rows would show it
    needed_n: int | None
    absolute: Kind
    absolute_needed_n: int | None


def verdict(difference: Difference, margin: float = MARGIN, *, n: int) -> Verdict:
    """Judge a difference by its interval.

    On few positives (or negatives) a bootstrap interval is too narrow, at the worst of no width where both
    sides decide all of them alike; then "within" says little.

    Args:
        margin: what the first side may lose: a share of the second side's figure, and in the absolute verdict
            a number of the figure itself.
        n: rows that the interval stands on; its half-width is taken to shrink as 1 / sqrt(n).
    """
    d = difference
    kind, needed = _judged(d.relative - 1, d.relative_low - 1, d.relative_high - 1, margin, n)
    absolute, absolute_needed = _judged(d.delta, d.low, d.high, margin, n)
    relative_text = _told(
        *(100 * (value - 1) for value in (d.relative, d.relative_low, d.relative_high)), digits=2, unit=" %"
    )
    absolute_text = _told(d.delta, d.low, d.high, digits=4, unit="")
    text = (
        f"relative {relative_text}: {_ruling(kind, f'{100 * margin:g} %', needed, d.relative_low > 1)}; "
        f"absolute {absolute_text}: {_ruling(absolute, f'{margin:g}', absolute_needed, d.low > 0)}"
    )
    return Verdict(kind, text, needed, absolute, absolute_needed)


def _judged(value: float, low: float, high: float, margin: float, n: int) -> tuple[Kind, int | None]:
    if low > -margin:
        return "within", None
    if high < -margin:
        return "worse", None
    room = value + margin
    if not room > 0 or math.isnan(low):
        return "not shown", None
    return "not shown", max(n, math.floor(n * ((value - low) / room) ** 2)) + 1


def _told(value: float, low: float, high: float, *, digits: int, unit: str) -> str:
    if math.isnan(value):
        return "undefined"
    span = "no interval" if math.isnan(low) else f"{low:+.{digits}f} to {high:+.{digits}f}"
    return f"{value:+.{digits}f}{unit} ({span})"


def _ruling(kind: Kind, margin: str, needed: int | None, ahead: bool) -> str:
    if kind == "within":
        return f"{'ahead, so ' if ahead else ''}within {margin}"
    if kind == "worse":
        return f"worse by more than {margin}"
    return f"not shown within {margin}" + (f", about {needed:,} rows needed" if needed is not None else "")


@dataclass(frozen=True)
class Agreement:
    """A student and a teacher on one label."""

    label: str
    n: int
    decisions: Figure  # share of rows that both decide alike, each at its own threshold
    logits: Figure  # Pearson's correlation of their logits; None where one of them does not vary

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, without the label."""
        plain = asdict(self)
        del plain["label"]
        return plain


@dataclass(frozen=True)
class Taught:
    """A teacher, or the mean of several, next to the student on the validation split."""

    name: str
    evaluation: Evaluation  # the teacher's own figures, at thresholds tuned on the same rows as the student's
    agreement: tuple[Agreement, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "name": self.name,
            "validation": self.evaluation.as_dict(),
            "agreement": {one.label: one.as_dict() for one in self.agreement},
        }


def agreement(
    label: str,
    decided: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    logits: tuple[FloatArray, FloatArray],
    weights: FloatArray,
    settings: EvaluationSettings,
) -> Agreement:
    """Compare two models on one label, with bootstrap intervals over rows.

    Args:
        decided: (n,) each, what either calls positive.
        logits: (n,) each.
        weights: (n,).
    """
    one, other = (_centred(each, weights) for each in logits)
    equal = decided[0] == decided[1]
    table = np.stack([np.ones(len(equal)), equal, one, other, one * one, other * other, one * other], axis=1)
    point = _figures(weights[None] @ table)[0]
    counts = draws(len(equal), settings.resamples, settings.bootstrap_seed)
    replicas = np.concatenate([_figures((drawn * weights) @ table) for drawn in counts])
    figures = []
    for value, found in zip(point, replicas.T, strict=True):
        if np.isnan(value):
            figures.append(Figure(None, note="a model gives all comments the same logit"))
            continue
        low, high, defined = interval(found, settings.confidence)
        figures.append(Figure(float(value), number(low), number(high), defined))
    return Agreement(label, len(equal), *figures)


def _centred(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Return values of mean 0, at most 1 apart from it, so that sums of their products lose no digits."""
    values = np.asarray(values, np.float64)
    if np.ptp(values) == 0:
        return np.zeros(len(values))
    shifted = values - np.average(values, weights=weights)
    scaled: FloatArray = shifted / np.abs(shifted).max()
    return scaled


def _figures(sums: FloatArray) -> FloatArray:
    """Return share of equal decisions and correlation, (R, 2), of sums (R, 7) over the table's columns."""
    mass = sums[:, :1]
    equal, one, other, squared_one, squared_other, product = (sums[:, 1:] / np.where(mass > 0, mass, np.nan)).T
    spread = np.sqrt(np.maximum(squared_one - one**2, 0) * np.maximum(squared_other - other**2, 0))
    together = product - one * other
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = np.where(spread > 0, together / spread, np.nan)
    return np.stack([equal, np.clip(correlation, -1, 1)], axis=1)
