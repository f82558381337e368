"""What a dendrite gained on the validation split, and whether it stays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import ConfigDict, Field

from gkiller.errors import counted
from gkiller.evaluation.bootstrap import resample
from gkiller.evaluation.checks import FloatArray
from gkiller.evaluation.metrics import HALF, plan, ratio
from gkiller.evaluation.ranking import rank
from gkiller.evaluation.results import number
from gkiller.evaluation.significance import paired_difference

if TYPE_CHECKING:
    from gkiller.settings.definition import Settings

RESAMPLES = 1000
_COLUMNS = {"ap": 1, "f1": 4}
"""Of the two validation metrics in `Plan.figures`, with one threshold."""

Finite = Annotated[float, Field(allow_inf_nan=False)]


@dataclass(frozen=True)
class Gain:
    """What one more dendrite per Linear gained on the validation split.

    Attributes:
        metric: "ap" or "f1", macro: the one that selects.
        before: best score with one dendrite less.
        after: best score with it.
        low: lower end of the paired bootstrap interval of after - before; None where it is undefined.
        high: upper end.
        confidence: coverage of the interval.
        kept: whether the dendrite stays.
        reason: why.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    metric: str
    before: Finite
    after: Finite
    low: Finite | None
    high: Finite | None
    confidence: Finite
    kept: bool
    reason: str

    @property
    def gain(self) -> float:
        """How much the score rose."""
        return self.after - self.before

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**vars(self), "gain": self.gain}

    def text(self) -> str:
        """Return it in words."""
        span = "none" if self.low is None else f"{self.low:+.4f} to {self.high:+.4f}"
        figures = f"{self.metric.upper()} {self.before:.4f} to {self.after:.4f}, gain {self.gain:+.4f}"
        verdict = "kept" if self.kept else "taken off"
        return f"{figures} ({self.confidence:.0%} interval {span}); {verdict}: {self.reason}"


def judge(
    settings: Settings,
    best: tuple[float, float],
    truth: FloatArray,
    scores: tuple[FloatArray, FloatArray],
    weights: FloatArray,
) -> Gain:
    """Decide whether a dendrite stays: by ``dendrites.min_gain``, or without it by the interval of its gain.

    Args:
        settings: of the run.
        best: best score before and after, of the metric that selects.
        truth: (n, L) 0, 1 or NaN, of the labels that are watched.
        scores: before and after, each (n, L).
        weights: (n,).
    """
    metric, least = settings.train.metric, settings.dendrites.min_gain
    own = settings.evaluation
    ends = gain_interval(metric, truth, scores, weights, seed=own.bootstrap_seed, confidence=own.confidence)
    low, high = map(number, ends)
    if least is not None:
        kept = best[1] - best[0] > least
        reason = f"{'above' if kept else 'not above'} dendrites.min_gain ({least:g})"
    else:
        kept = low is not None and low > 0
        reason = f"the gain's paired interval is {'' if kept else 'not '}above 0"
    return Gain(metric, *best, low, high, own.confidence, kept, reason)


def gain_interval(
    metric: str,
    truth: FloatArray,
    scores: tuple[FloatArray, FloatArray],
    weights: FloatArray,
    *,
    seed: int,
    confidence: float,
) -> tuple[float, float]:
    """Return the paired bootstrap interval of a macro metric's gain; NaN where it is undefined.

    Args:
        metric: "ap" or "f1", the mean over the labels that have both classes.
        truth: (n, L) 0, 1 or NaN.
        scores: before and after, each (n, L).
        weights: (n,).
        seed: of the resamples, which draw rows for both sides alike.
        confidence: coverage.
    """
    rankings = [[rank(truth[:, i], side[:, i], weights) for i in range(truth.shape[1])] for side in scores]
    plans = [plan(one, (HALF,), 2) for side in rankings for one in side if not one.one_class]
    whole = np.stack([one.figures(np.ones((1, len(truth)))) for one in plans])
    replicas = resample(plans, len(truth), RESAMPLES, seed)
    point, each = (_macro(figures[:, :, _COLUMNS[metric]]) for figures in (whole, replicas))
    found = paired_difference(point[::-1, 0], each[::-1], confidence)
    return found.low, found.high


def _macro(values: FloatArray) -> FloatArray:
    """Return the means over the labels of both sides, (2, R), of values (2 L, R)."""
    sides = values.reshape(2, -1, values.shape[1])
    return ratio(np.nansum(sides, axis=1), np.isfinite(sides).sum(1).astype(np.float64))


def kept_dendrites(gains: Mapping[int, Gain]) -> int:
    """Return how many dendrites per Linear the final model keeps: as many as each stays on the last."""
    count = 0
    while count + 1 in gains and gains[count + 1].kept:
        count += 1
    return count


def gain_line(count: int, gain: Gain) -> str:
    """Return in words what the ``count``-th dendrite gained."""
    return f"{counted(count, 'dendrite')} per Linear: {gain.text()}"
