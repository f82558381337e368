"""Robustness to obfuscation: recall lost, and false alarms added, when comments are disguised.

The positives, and as many negatives, are changed by the operators of `gkiller.data.augment`, each kind alone;
what the changes leave is to a reader what it was. A model that takes any disguise for toxic loses no recall:
its false alarms show it, and so does its recall at a threshold at which these are no more than before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gkiller.data.augment import augment, resolve_kinds
from gkiller.evaluation.metrics import draws, ratio
from gkiller.evaluation.significance import EQUAL
from gkiller.evaluation.suites import differences_from_first, figures_of, one_class, truth_of, used_rows
from gkiller.storage.strict_json import plain
from gkiller.wording import Progress, staged

if TYPE_CHECKING:
    from gkiller.data.dataset import FloatArray, IntArray
    from gkiller.data.load import Labelled
    from gkiller.evaluation.results import Figure
    from gkiller.evaluation.significance import Difference
    from gkiller.evaluation.suites import Contestant
    from gkiller.settings.definition import AugmentSettings, EvaluationSettings


class EqualFpr:
    """One kind of change: where the threshold would stand, and what recall is there.

    The threshold is the lowest at which no greater share of the changed negatives is flagged than of the same
    ones unchanged at the model's own; so it follows scores that a change moves up or down as a whole, and
    recall that is bought with false alarms does not count.

    Args:
        positive: (P,) scores of the changed positives.
        negative: (N,) scores of the changed negatives.
        flagged: (N,) 0 or 1: the negatives that the model flags unchanged.
    """

    def __init__(self, positive: FloatArray, negative: FloatArray, flagged: FloatArray) -> None:
        self._flagged = flagged
        self._alarms: IntArray = np.argsort(-negative, kind="stable")
        self._hits: IntArray = np.argsort(-positive, kind="stable")
        falling, hits = negative[self._alarms], positive[self._hits]
        # The first changed negative that is one too many is not flagged, nor is what scores as it does: those before
        # all negatives of its score may be, and the positives that score higher.
        self._above = np.searchsorted(-hits, -falling, side="left")

    def recall(self, positive: FloatArray, negative: FloatArray) -> FloatArray:
        """Return the recall in each resample, (R,); NaN where a class has no mass.

        Args:
            positive: (R, P) masses of the positives.
            negative: (R, N) masses of the negatives.
        """
        if not negative.shape[1]:
            return np.full(len(negative), np.nan)
        allowed = negative @ self._flagged
        risen = np.cumsum(negative[:, self._alarms], axis=1)
        fits = risen <= allowed[:, None] * (1 + 1e-9)  # sums in another order round otherwise
        first = np.argmin(fits, axis=1)  # of those that do not fit
        places = np.where(fits.all(axis=1), positive.shape[1], self._above[first])
        gained = np.cumsum(positive[:, self._hits], axis=1)
        gained = np.concatenate([np.zeros((len(gained), 1)), gained], axis=1)
        mass = gained[:, -1]
        found: FloatArray = ratio(gained[np.arange(len(gained)), places], mass)
        found[(mass == 0) | (risen[:, -1] == 0)] = np.nan
        return np.minimum(found, 1.0)


DEFAULT_KINDS: Final = ("noise", "obfuscation", "casing")
MEAN: Final = "mean"
"""Name of the mean over the kinds."""


@dataclass(frozen=True)
class ModelRobustness:
    """One model's figures."""

    model: Contestant
    f1: Figure
    recall: Figure
    hidden: Mapping[str, Figure]  # by kind, and for their mean, recall on the changed positives
    # by kind, and for their mean, recall less that: what the change hides from the model
    lost: Mapping[str, Figure]
    fpr: Figure
    alarms: Mapping[str, Figure]  # by kind, and for their mean, the same on these negatives changed
    # by kind, and for their mean, that less fpr: what only the change has flagged
    added: Mapping[str, Figure]
    # by kind, and for their mean, recall on the changed positives at the lowest threshold at which the FPR on the
    # changed negatives is not above fpr; see EqualFpr
    matched: Mapping[str, Figure]
    # by kind, and for their mean, what is lost at equal FPR: the same recall on the positives as they are, less matched
    price: Mapping[str, Figure]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        by_kind = {
            "recall": self.hidden,
            "lost": self.lost,
            "fpr": self.alarms,
            "added": self.added,
            "recall_at_equal_fpr": self.matched,
            "lost_at_equal_fpr": self.price,
        }
        kinds = {kind: {name: plain(found[kind]) for name, found in by_kind.items()} for kind in self.hidden}
        own = {"f1": plain(self.f1), "recall": plain(self.recall), "fpr": plain(self.fpr)}
        return {**self.model.described(), **own, "kinds": kinds}


@dataclass(frozen=True)
class RobustnessDifference:
    """A model's differences from the first one: its own figure is ``a``, the first model's ``b``."""

    name: str
    f1: Difference
    recall: Difference
    # by kind, and for their mean; relative is the share of the first model's loss that this model loses, given where
    # the interval of the first one's loss lies above 0
    lost: Mapping[str, Difference]
    fpr: Difference
    added: Mapping[str, Difference]  # by kind, and for their mean
    # by kind, and for their mean, what is lost at equal FPR; with shares as in lost
    price: Mapping[str, Difference]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, None where undefined."""
        found: dict[str, Any] = plain(self)
        found["lost_at_equal_fpr"] = found.pop("price")
        return found


@dataclass(frozen=True)
class Robustness:
    """What was measured."""

    label: str
    rows: int
    positives: int
    negatives: int  # those of the others that were changed too: drawn with the seed, as many as positives
    changed: Mapping[str, int]
    rate: float  # share of both that is changed
    intensity: float  # share of the places in a comment that a change touches
    seed: int
    models: tuple[ModelRobustness, ...]
    differences: tuple[RobustnessDifference, ...]
    resamples: int
    confidence: float
    bootstrap_seed: int

    def blind(self) -> list[str]:
        """Return a line for each model that flags no positive, and so has no recall to lose."""
        told = "flags no positive comment, so it has no recall to lose"
        return [f"{one.model.name}: {told}" for one in self.models if one.recall.value == 0]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        models, apart = ([one.as_dict() for one in each] for each in (self.models, self.differences))
        return {**vars(self), "changed": dict(self.changed), "models": models, "differences": apart}


def measure_robustness(
    found: Labelled,
    label: str,
    models: Sequence[Contestant],
    augmenting: AugmentSettings,
    settings: EvaluationSettings,
    progress: Progress | None = None,
) -> Robustness:
    """Score comments as they are and disguised with every model, and resample both together.

    A comment that a kind does not change keeps its score.

    Raises:
        SingleClassError: no comment is positive.
        SettingsError: there is no such kind.
        ScoreRangeError: a model gives a score outside 0..1.
    """
    kinds = resolve_kinds(augmenting.kinds or DEFAULT_KINDS)
    truth = truth_of(found, label)
    used = used_rows(truth, found.rows.weights)
    positive = np.flatnonzero(truth[used] == 1)
    if not len(positive):
        raise one_class(label, "positive")
    negative = _drawn(np.flatnonzero(truth[used] == 0), len(positive), augmenting.seed)
    texts = [found.rows.texts[row] for row in used.tolist()]
    rows = [*positive.tolist(), *negative.tolist()]
    unchanged = [texts[row] for row in rows]
    disguised = _disguised(unchanged, kinds, augmenting, progress)
    others, weights = np.flatnonzero(truth[used] == 0), found.rows.weights[used]
    tables = [
        _Table(model.threshold, *scores, positive, negative, others, weights)
        for model, scores in ((one, _scores(one, texts, rows, disguised, progress)) for one in models)
    ]
    points = [table.figures(np.ones((1, len(used))))[0] for table in tables]
    replicas = _resampled(tables, len(used), settings, progress)
    apart = differences_from_first(points, replicas, settings.confidence)
    measured = [
        ModelRobustness(model, **_by_name(figures_of(point, drawn, settings.confidence), kinds))
        for model, point, drawn in zip(models, points, replicas, strict=True)
    ]
    return Robustness(
        label=label,
        rows=len(used),
        positives=len(positive),
        negatives=len(negative),
        changed={
            kind: sum(new != old for new, old in zip(made[: len(positive)], unchanged, strict=False))
            for kind, made in disguised.items()
        },
        rate=augmenting.rate,
        intensity=augmenting.intensity,
        seed=augmenting.seed,
        models=tuple(measured),
        differences=tuple(
            _difference(model.name, _by_name(one, kinds), measured[0])
            for model, one in zip(models[1:], apart, strict=True)
        ),
        resamples=settings.resamples,
        confidence=settings.confidence,
        bootstrap_seed=settings.bootstrap_seed,
    )


def _drawn(rows: IntArray, most: int, seed: int) -> IntArray:
    """Return some of the rows, drawn without replacement, in their order."""
    if len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


def _disguised(
    texts: Sequence[str], kinds: Sequence[str], how: AugmentSettings, progress: Progress | None
) -> dict[str, list[str]]:
    """Return by kind the texts as it changes them."""
    made = {}
    for place, kind in enumerate(kinds):
        made[kind] = augment(texts, [kind], how.rate, how.seed, intensity=how.intensity)
        if progress is not None:
            progress(place + 1, len(kinds), "disguising")
    return made


def _resampled(
    tables: Sequence[_Table], rows: int, settings: EvaluationSettings, progress: Progress | None
) -> list[FloatArray]:
    """Return of each table its figures in each resample, all on the same draws."""
    parts: list[list[FloatArray]] = [[] for _ in tables]
    done = 0
    for counts in draws(rows, settings.resamples, settings.bootstrap_seed):
        for part, table in zip(parts, tables, strict=True):
            part.append(table.figures(counts))
        done += len(counts)
        if progress is not None:
            progress(done, settings.resamples, "resampling")
    return [np.concatenate(part) for part in parts]


def _scores(
    model: Contestant,
    texts: Sequence[str],
    rows: Sequence[int],
    disguised: Mapping[str, Sequence[str]],
    progress: Progress | None,
) -> tuple[FloatArray, FloatArray]:
    """Return a model's scores: of all comments (n,), and of the rows' changed ones (D, K)."""
    changed = {
        kind: [at for at, (new, row) in enumerate(zip(made, rows, strict=True)) if new != texts[row]]
        for kind, made in disguised.items()
    }
    more = [disguised[kind][at] for kind, places in changed.items() for at in places]

    advance = staged(progress, f"scoring with {model.name}")
    scores = model.scores([*texts, *more], advance).astype(np.float64)
    clean, rest = scores[: len(texts)], scores[len(texts) :]
    hidden = np.repeat(clean[list(rows)][:, None], len(disguised), axis=1)
    start = 0
    for column, places in enumerate(changed.values()):
        hidden[places, column] = rest[start : start + len(places)]
        start += len(places)
    return clean, hidden


class _Table:
    """One model's decisions.

    Args:
        clean: (n,) scores.
        hidden: (P + N, K) the same of the positives and the drawn negatives, disguised in K ways.
        positive: (P,) places of the positives.
        negative: (N,) places of the drawn negatives.
        weights: (n,) above 0.
    """

    def __init__(
        self,
        threshold: float,
        clean: FloatArray,
        hidden: FloatArray,
        positive: IntArray,
        negative: IntArray,
        others: IntArray,
        weights: FloatArray,
    ) -> None:
        self._positive, self._negative, self._others = positive, negative, others
        self._weights = weights
        flags, hits, alarms = (
            (scores >= threshold).astype(np.float64)
            for scores in (clean, hidden[: len(positive)], hidden[len(positive) :])
        )
        # One product with the masses gives their sum, those flagged as they are, and those flagged disguised.
        self._hits = _with_mass(flags[positive], hits)
        self._alarms = _with_mass(flags[negative], alarms)
        self._false = flags[others]
        drawn = clean[[*positive, *negative]]
        self._equal = [
            EqualFpr(scores[: len(positive)], scores[len(positive) :], flags[negative]) for scores in (drawn, *hidden.T)
        ]

    def figures(self, counts: FloatArray) -> FloatArray:
        """Return F1; recall, by kind and its mean, and what is lost; so the false-positive rate; equal FPR.

        Args:
            counts: (R, n) how often each row counts in each resample.

        Returns:
            (R, 3 + 6 (K + 1)), see `_by_name`; NaN where no row of a class was drawn.
        """
        positive, negative = (self._masses(counts, rows) for rows in (self._positive, self._negative))
        sums = positive @ self._hits
        mass, hits = sums[:, 0], sums[:, 1]
        false = self._masses(counts, self._others) @ self._false
        f1 = np.where(mass > 0, ratio(2 * hits, mass + hits + false), np.nan)
        recall, hidden, lost = _shares(sums)
        fpr, alarms, spared = _shares(negative @ self._alarms)
        equal = np.column_stack([one.recall(positive, negative) for one in self._equal])
        matched = _with_mean(equal[:, 1:])
        price = _less(equal[:, :1], matched)
        return np.column_stack([np.minimum(f1, 1.0), recall, hidden, lost, fpr, alarms, 0.0 - spared, matched, price])

    def _masses(self, counts: FloatArray, rows: IntArray) -> FloatArray:
        drawn: FloatArray = counts[:, rows] * self._weights[rows]
        return drawn


def _with_mass(own: FloatArray, hidden: FloatArray) -> FloatArray:
    """Return a column of ones, that of the flags as they are, and those of the flags disguised."""
    return np.column_stack([np.ones(len(own)), own, hidden])


def _shares(sums: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the share flagged as it is (R, 1), disguised by kind and in the mean, and their differences.

    Args:
        sums: (R, 2 + K) mass, and what of it is flagged as it is and disguised.
    """
    shares = np.clip(ratio(sums[:, 1:], sums[:, :1]), 0.0, 1.0)  # sums of weights may round beyond
    shares[sums[:, 0] == 0] = np.nan
    own = shares[:, :1]
    hidden = _with_mean(shares[:, 1:])
    return own, hidden, _less(own, hidden)


def _with_mean(shares: FloatArray) -> FloatArray:
    """Return the columns, one for each kind, and their mean as the last."""
    return np.column_stack([shares, shares.mean(axis=1)])


def _less(own: FloatArray, changed: FloatArray) -> FloatArray:
    """Return what is lost of a share; a difference of rounding alone is none."""
    lost: FloatArray = own - changed
    lost[np.abs(lost) < EQUAL] = 0.0
    return lost


def _difference(name: str, one: Mapping[str, Any], first: ModelRobustness) -> RobustnessDifference:
    """Return a model's differences, without the shares of a loss that may be none: they are of chance."""
    lost, price = _with_shares(one["lost"], first.lost), _with_shares(one["price"], first.price)
    return RobustnessDifference(name, one["f1"], one["recall"], lost, one["fpr"], one["added"], price)


def _with_shares(lost: Mapping[str, Difference], first: Mapping[str, Figure]) -> dict[str, Difference]:
    none = {"relative": np.nan, "relative_low": np.nan, "relative_high": np.nan}
    return {kind: loss if (first[kind].low or 0.0) > 0 else replace(loss, **none) for kind, loss in lost.items()}


def _by_name(values: Sequence[Any], kinds: Sequence[str]) -> dict[str, Any]:
    """Name the figures of a `_Table`: single ones, and by kind those of several."""
    names = (*kinds, MEAN)
    left = iter(values)
    found: dict[str, Any] = {"f1": next(left)}
    for one, *several in (("recall", "hidden", "lost"), ("fpr", "alarms", "added")):
        found[one] = next(left)
        found |= {name: dict(zip(names, islice(left, len(names)), strict=True)) for name in several}
    found |= {name: dict(zip(names, islice(left, len(names)), strict=True)) for name in ("matched", "price")}
    return found
