"""Robustness to obfuscation: how much recall a model loses when toxic comments are disguised.

The positives are changed by the operators of `gkiller.data.augment`, each kind alone; what the changes leave
is still toxic to a reader. Negatives stay as they are: whether a model takes any disguise for toxic is not
measured here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gkiller.data.augment import augment, resolve_kinds
from gkiller.evaluation.bootstrap import draws
from gkiller.evaluation.metrics import ratio
from gkiller.evaluation.significance import EQUAL
from gkiller.evaluation.suites.figures import (
    differences_from_first,
    figures_of,
    one_class,
    truth_of,
    used_rows,
)

if TYPE_CHECKING:
    from gkiller.data.labelled import Labelled
    from gkiller.evaluation.checks import FloatArray
    from gkiller.evaluation.results import Figure
    from gkiller.evaluation.significance import Difference
    from gkiller.evaluation.suites.scorers import Contestant
    from gkiller.settings.definition import AugmentSettings, EvaluationSettings

DEFAULT_KINDS: Final = ("noise", "obfuscation", "casing")
MEAN: Final = "mean"
"""Name of the mean over the kinds."""

Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class ModelRobustness:
    """One model's figures.

    Attributes:
        model: name and threshold.
        f1: on the comments as they are, at the threshold.
        recall: on the positives as they are.
        hidden: by kind, and for their mean, recall on the changed positives.
        lost: by kind, and for their mean, ``recall`` less that: what the change hides from the model.
    """

    model: Contestant
    f1: Figure
    recall: Figure
    hidden: Mapping[str, Figure]
    lost: Mapping[str, Figure]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            **self.model.described(),
            "f1": asdict(self.f1),
            "recall": asdict(self.recall),
            "kinds": {
                kind: {"recall": asdict(self.hidden[kind]), "lost": asdict(self.lost[kind])}
                for kind in self.hidden
            },
        }


@dataclass(frozen=True)
class RobustnessDifference:
    """A model's differences from the first one: its own figure is ``a``, the first model's ``b``.

    Attributes:
        name: of the model.
        f1: on the comments as they are.
        recall: on the positives as they are.
        lost: by kind, and for their mean; ``relative`` is the share of the first model's loss that this model
            loses, given where the interval of the first one's loss lies above 0.
    """

    name: str
    f1: Difference
    recall: Difference
    lost: Mapping[str, Difference]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, None where undefined."""
        return {
            "name": self.name,
            "f1": self.f1.as_dict(),
            "recall": self.recall.as_dict(),
            "lost": {kind: one.as_dict() for kind, one in self.lost.items()},
        }


@dataclass(frozen=True)
class Robustness:
    """What was measured.

    Attributes:
        label: the label.
        rows: comments measured.
        positives: those of them that are positive, and were changed.
        changed: by kind, the positives that differ from what they were.
        rate: share of the positives that are drawn.
        intensity: share of the places in a comment that a change touches.
        seed: of the changes.
        models: in the order given.
        differences: of each model but the first.
        resamples: of the bootstrap.
        confidence: coverage of the intervals.
        bootstrap_seed: seed of the draws.
    """

    label: str
    rows: int
    positives: int
    changed: Mapping[str, int]
    rate: float
    intensity: float
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
        plain = {**vars(self), "changed": dict(self.changed)}
        plain["models"] = [one.as_dict() for one in self.models]
        plain["differences"] = [one.as_dict() for one in self.differences]
        return plain


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

    Args:
        found: n comments.
        label: the label.
        models: at least one.
        augmenting: kinds (by default DEFAULT_KINDS), rate, intensity and seed.
        settings: resamples, confidence and seed.
        progress: told what is done, how far, and of how much.

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
    texts = [found.rows.texts[row] for row in used.tolist()]
    plain = [texts[row] for row in positive.tolist()]
    disguised = {}
    for place, kind in enumerate(kinds):
        disguised[kind] = augment(
            plain, [kind], augmenting.rate, augmenting.seed, intensity=augmenting.intensity
        )
        if progress is not None:
            progress("disguising", place + 1, len(kinds))
    flags = [_flags(model, texts, positive.tolist(), disguised, progress) for model in models]
    tables = [_Table(clean, hidden, truth[used] == 1, found.rows.weights[used]) for clean, hidden in flags]
    points = [table.figures(np.ones((1, len(used))))[0] for table in tables]
    parts: list[list[FloatArray]] = [[] for _ in models]
    done = 0
    for counts in draws(len(used), settings.resamples, settings.bootstrap_seed):
        for place, table in enumerate(tables):
            parts[place].append(table.figures(counts))
        done += len(counts)
        if progress is not None:
            progress("resampling", done, settings.resamples)
    replicas = [np.concatenate(part) for part in parts]
    apart = differences_from_first(points, replicas, settings.confidence)
    measured = [
        ModelRobustness(model, *_by_name(figures_of(point, drawn, settings.confidence), kinds))
        for model, point, drawn in zip(models, points, replicas, strict=True)
    ]
    return Robustness(
        label=label,
        rows=len(used),
        positives=len(positive),
        changed={
            kind: sum(new != old for new, old in zip(made, plain, strict=True))
            for kind, made in disguised.items()
        },
        rate=augmenting.rate,
        intensity=augmenting.intensity,
        seed=augmenting.seed,
        models=tuple(measured),
        differences=tuple(
            RobustnessDifference(model.name, f1, recall, _with_shares(lost, measured[0]))
            for model, (f1, recall, _, lost) in zip(
                models[1:], (_by_name(one, kinds) for one in apart), strict=True
            )
        ),
        resamples=settings.resamples,
        confidence=settings.confidence,
        bootstrap_seed=settings.bootstrap_seed,
    )


def _flags(
    model: Contestant,
    texts: Sequence[str],
    positive: Sequence[int],
    disguised: Mapping[str, Sequence[str]],
    progress: Progress | None,
) -> tuple[FloatArray, FloatArray]:
    """Return what a model calls positive, 0 or 1: of the comments (n,), of the changed positives (P, K)."""
    changed = {
        kind: [at for at, (new, row) in enumerate(zip(made, positive, strict=True)) if new != texts[row]]
        for kind, made in disguised.items()
    }
    more = [disguised[kind][at] for kind, places in changed.items() for at in places]

    def advance(done: int, total: int) -> None:
        if progress is not None:
            progress(f"scoring with {model.name}", done, total)

    scores = model.scores([*texts, *more], advance)
    flags = (scores >= model.threshold).astype(np.float64)
    clean, rest = flags[: len(texts)], flags[len(texts) :]
    hidden = np.repeat(clean[list(positive)][:, None], len(disguised), axis=1)
    start = 0
    for column, places in enumerate(changed.values()):
        hidden[places, column] = rest[start : start + len(places)]
        start += len(places)
    return clean, hidden


class _Table:
    """One model's decisions.

    Args:
        clean: (n,) 0 or 1.
        hidden: (P, K) the same of the P positives, disguised in K ways.
        positive: (n,) the truth.
        weights: (n,) above 0.
    """

    def __init__(self, clean: FloatArray, hidden: FloatArray, positive: Any, weights: FloatArray) -> None:
        self._positive, self._negative = np.flatnonzero(positive), np.flatnonzero(~positive)
        self._weights = weights
        # One product with the masses gives their sum, those flagged as they are, and those flagged disguised.
        own = clean[self._positive]
        self._own = np.column_stack([np.ones(len(own)), own, hidden])
        self._false = clean[self._negative]

    def figures(self, counts: FloatArray) -> FloatArray:
        """Return F1, recall, then recall by kind and its mean, and what is lost by kind, and its mean.

        Args:
            counts: (R, n) how often each row counts in each resample.

        Returns:
            (R, 2 + 2 (K + 1)); NaN where no positive was drawn.
        """
        drawn = counts[:, self._positive] * self._weights[self._positive]
        sums = drawn @ self._own
        mass, hits = sums[:, 0], sums[:, 1]
        false = (counts[:, self._negative] * self._weights[self._negative]) @ self._false
        f1 = np.where(mass > 0, ratio(2 * hits, mass + hits + false), np.nan)
        shares = np.clip(ratio(sums[:, 1:], mass[:, None]), 0.0, 1.0)  # sums of weights may round beyond
        recall = shares[:, :1]
        hidden = np.column_stack([shares[:, 1:], shares[:, 1:].mean(axis=1)])
        lost = recall - hidden
        lost[np.abs(lost) < EQUAL] = 0.0
        return np.column_stack([np.minimum(f1, 1.0), recall, hidden, lost])


def _with_shares(lost: Mapping[str, Difference], first: ModelRobustness) -> dict[str, Difference]:
    """Leave the shares of a loss out that may be none: they would be of chance."""
    none = {"relative": np.nan, "relative_low": np.nan, "relative_high": np.nan}
    return {
        kind: one if (first.lost[kind].low or 0.0) > 0 else replace(one, **none) for kind, one in lost.items()
    }


def _by_name(values: Sequence[Any], kinds: Sequence[str]) -> tuple[Any, Any, dict[str, Any], dict[str, Any]]:
    """Part figures into F1, recall, and by kind recall and what is lost of it."""
    names = (*kinds, MEAN)
    hidden, lost = values[2 : 2 + len(names)], values[2 + len(names) :]
    return values[0], values[1], dict(zip(names, hidden, strict=True)), dict(zip(names, lost, strict=True))
