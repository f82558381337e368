"""Tune a threshold per label, on validation rows only.

Every threshold lies halfway between two neighbouring distinct scores, so that a difference in the last
digits of a score (another runtime, another batch size) cannot turn a decision.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gkiller.data.dataset import FloatArray
from gkiller.errors import SettingsError, ThresholdTargetError
from gkiller.evaluation.checks import checked_tables
from gkiller.evaluation.metrics import HALF, Ranking, confusion_figures, cuts_of, rank, ratio, running
from gkiller.evaluation.results import number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


EXTREME = 1e-6
"""Scores are taken no nearer to 0 and 1 than this: the logit of a rounded 0 would be without bounds."""

SLACK = 1e-12  # a target of 0.9 is reached by 9 of 10, whatever the last bit of the sum


@dataclass(frozen=True)
class Threshold:
    """A label's threshold and what it reaches on the rows it was tuned on (weighted)."""

    value: float
    precision: float | None  # None without positives, or where nothing is called positive
    recall: float | None  # None without positives
    f1: float | None  # None without positives
    # what it was tuned for: "max f1" or "max expected f1", also with " less 0.01" after it, "precision >= 0.9", "recall
    # >= 0.8" or "none"
    target: str
    positives: int
    n: int
    note: str = ""  # why the label was not tuned and keeps the threshold it had, or empty

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _Candidates:
    """Cuts by descending threshold: their values, precisions and recalls, each (C,)."""

    values: FloatArray
    precision: FloatArray
    recall: FloatArray
    f1: FloatArray


def tune_thresholds(
    labels: Sequence[str],
    truth: Any,
    scores: Any,
    weights: Any | None = None,
    *,
    min_precision: float | None = None,
    min_recall: float | None = None,
    expected: bool = False,
    f1_slack: float = 0.0,
    stored: Mapping[str, float] | None = None,
) -> dict[str, Threshold]:
    """Return the best threshold of each label.

    Without a target it is the one of greatest F1; with ``min_precision`` the one of greatest recall that
    reaches it, with ``min_recall`` the one of greatest precision. Ties go to the higher threshold. A label
    whose known rows are of one class, or have equal scores, keeps its stored threshold, and its note says so.

    The greatest F1 that is observed depends on a few rows near the threshold. With ``expected`` it is the
    greatest that is expected (Lipton et al. 2014, arXiv:1402.1892) of probabilities that Platt's logistic
    calibration (1999) makes of the scores, or the observed one where scores fall with the truth.

    F1 is often nearly the same over a range of thresholds. With ``f1_slack`` it is the lowest one whose F1
    is at most that much less than the greatest: it finds more of the positives, and is nearer to the best
    where they are a larger share than here.

    Args:
        truth: (n, L) 0, 1, or NaN where unknown.
        scores: (n, L) probabilities.
        weights: (n,) sample weights, or None for ones.
        min_precision: least weighted precision, in (0, 1].
        min_recall: least weighted recall, in (0, 1].
        f1_slack: how much less than the greatest F1 may be, in [0, 1), where no target is given.

    Raises:
        SettingsError: both targets are given, or one or the slack is out of its range.
        ThresholdTargetError: no threshold of a label reaches the target; the best reachable one is named.
        DataError, EvaluationError: see ``checked_tables``.
    """
    _check_targets(min_precision, min_recall, f1_slack)
    table, probabilities, mass = checked_tables(labels, truth, scores, weights)
    tuned = {}
    for i, label in enumerate(labels):
        ranking = rank(table[:, i], probabilities[:, i], mass)
        candidates = _candidates(ranking)
        if not len(candidates.values):
            tuned[label] = _kept(ranking, (stored or {}).get(label, HALF))
            continue
        if min_precision is not None:
            best, target = _reaching(label, "precision", min_precision, candidates)
        elif min_recall is not None:
            best, target = _reaching(label, "recall", min_recall, candidates)
        else:
            f1 = _expected_f1(ranking, candidates) if expected else None
            target = "max f1" if f1 is None else "max expected f1"
            best = _best_f1(candidates.f1 if f1 is None else f1, candidates.precision, f1_slack)
            target += f" less {f1_slack:g}" if f1_slack else ""
        tuned[label] = Threshold(
            value=float(candidates.values[best]),
            precision=float(candidates.precision[best]),
            recall=float(candidates.recall[best]),
            f1=float(candidates.f1[best]),
            target=target,
            positives=len(ranking.positives.rows),
            n=len(ranking.positives.rows) + len(ranking.negatives.rows),
        )
    return tuned


def _check_targets(min_precision: float | None, min_recall: float | None, f1_slack: float) -> None:
    if not 0 <= f1_slack < 1:
        raise SettingsError(
            f"{f1_slack:g} is out of range", where="evaluation.f1_slack", remedy="give a number in [0, 1)"
        )
    if min_precision is not None and min_recall is not None:
        raise SettingsError(
            "a least precision and a least recall cannot both be asked for",
            where="evaluation.min_precision, evaluation.min_recall",
            remedy="set one of them",
        )
    for name, value in (("min_precision", min_precision), ("min_recall", min_recall)):
        if value is not None and not 0 < value <= 1:
            raise SettingsError(
                f"{value:g} is out of range", where=f"evaluation.{name}", remedy="give a number in (0, 1]"
            )


def _candidates(ranking: Ranking) -> _Candidates:
    """Return every cut whose threshold lies strictly between 0 and 1; of one class or score none."""
    if ranking.one_class:
        return _Candidates(*[np.empty(0)] * 4)
    cuts = cuts_of(ranking)
    lower = np.append(cuts.scores[1:], 0.0)
    middle = lower + (cuts.scores - lower) / 2
    # Between neighbouring floats the middle rounds to one of them; the lower one would let it in.
    values = np.where(middle > lower, middle, cuts.scores)
    inside = (values > 0) & (values < 1) & (len(values) > 1)
    tp, fp = cuts.tp[inside], cuts.fp[inside]
    precision = ratio(tp, tp + fp)
    recall = tp / cuts.positives
    f1 = 2 * tp / (tp + fp + cuts.positives)
    return _Candidates(values=values[inside], precision=precision, recall=recall, f1=f1)


def _reaching(label: str, name: str, least: float, candidates: _Candidates) -> tuple[int, str]:
    """Return the place of the best candidate that reaches a precision or recall, and the target's name."""
    pair = (candidates.precision, candidates.recall)
    reached, other = pair if name == "precision" else pair[::-1]
    _require(label, name, reached, other, least)
    return _best(other, reached, reached >= least - SLACK), f"{name} >= {least:g}"


def _best_f1(f1: FloatArray, precision: FloatArray, slack: float) -> int:
    """Return the place of the greatest F1, or of the lowest threshold that has at most ``slack`` less."""
    if slack:
        return int(np.flatnonzero(f1 >= np.max(f1) - slack)[-1])
    return _best(f1, precision, np.ones(len(f1), dtype=bool))


def _expected_f1(ranking: Ranking, candidates: _Candidates) -> FloatArray | None:
    """Return the expected F1 of each candidate; None where scores fall with the truth."""
    from sklearn.linear_model import LogisticRegression  # slow to import

    pos, neg = ranking.positives, ranking.negatives
    scores = np.concatenate([pos.scores, neg.scores])
    weights = np.concatenate([pos.weights, neg.weights])
    inner = scores.clip(EXTREME, 1 - EXTREME)
    logits = np.log(inner / (1 - inner))[:, None]
    # Platt's targets are a little inside of 0 and 1, so that classes that do not overlap have a fit too.
    count, others = len(pos.rows), len(neg.rows)
    truth = np.repeat([(count + 1) / (count + 2), 1 / (others + 2)], [count, others])
    fit = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000)
    ends = np.repeat([1, 0], len(truth))
    fit.fit(np.tile(logits, (2, 1)), ends, np.concatenate([weights * truth, weights * (1 - truth)]))
    if fit.coef_[0, 0] <= 0:
        return None
    order = np.argsort(-scores, kind="stable")
    called = running(weights[None, order])[0]
    right = running((weights * fit.predict_proba(logits)[:, 1])[None, order])[0]
    cuts = np.searchsorted(-scores[order], -candidates.values, side="right")
    f1: FloatArray = 2 * right[cuts] / (called[cuts] + right[-1])
    return f1


def _best(first: FloatArray, second: FloatArray, fits: Any) -> int:
    """Return the place of the greatest ``first`` among those that fit; ties go by ``second``, then order."""
    top = fits & (first >= np.max(first[fits]) - SLACK)
    top &= second >= np.max(second[top]) - SLACK
    return int(np.argmax(top))


def _require(label: str, name: str, reached: FloatArray, other: FloatArray, target: float) -> None:
    best = int(np.argmax(reached))
    if reached[best] >= target - SLACK:
        return
    opposite = "recall" if name == "precision" else "precision"
    raise ThresholdTargetError(
        f"no threshold reaches a {name} of {target:g}; "
        f"the best is {reached[best]:.4f}, at a {opposite} of {other[best]:.4f}",
        where=f"label {label!r}",
        remedy=f"ask for a lower {name}, or drop the target to tune for F1",
    )


def _kept(ranking: Ranking, value: float) -> Threshold:
    """Return a threshold that stays as it is, with what it reaches."""
    pos, neg = ranking.positives, ranking.negatives
    at = pos.scores >= value, neg.scores >= value
    tp, fp = pos.weights[at[0]].sum(), neg.weights[at[1]].sum()
    fn, tn = pos.weights[~at[0]].sum(), neg.weights[~at[1]].sum()
    f1, precision, recall = confusion_figures(*(np.array([cell]) for cell in (tp, fp, fn, tn)))[0, :3]
    return Threshold(
        value=value,
        precision=number(precision),
        recall=number(recall),
        f1=number(f1),
        target="none",
        positives=len(pos.rows),
        n=len(pos.rows) + len(neg.rows),
        note=f"kept at {value:.4g}: {ranking.one_class or 'all scores are equal'}",
    )


def stored_entries(
    tuned: Mapping[str, Threshold], before: Mapping[str, Mapping[str, Any]], record: Mapping[str, Any] | None = None
) -> dict[str, dict[str, Any]]:
    """Return what gkiller.json says of thresholds: of a label that was not tuned what it said before."""
    tuned_on = {"tuned_on": record} if record is not None else {}
    return {
        label: dict(before[label]) if one.note and label in before else {**one.as_dict(), **tuned_on}
        for label, one in tuned.items()
    }


def kept_notes(tuned: Mapping[str, Threshold]) -> list[str]:
    """Return a line for each label that was not tuned, with the reason."""
    return [f"{label}: threshold {one.note}" for label, one in tuned.items() if one.note]
