"""Two sides on the same rows: every label, slices of the rows, and the comments they differ on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gkiller.errors import LabelMismatchError
from gkiller.evaluation.few import few_rows
from gkiller.evaluation.results import number
from gkiller.evaluation.significance import (
    FIGURES,
    MARGIN,
    Paired,
    Side,
    Verdict,
    compare_sides,
    holm,
    verdict,
)
from gkiller.evaluation.slices import Slice, length_slices, truth_slices

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gkiller.data.labelled import Labelled
    from gkiller.evaluation.checks import FloatArray
    from gkiller.evaluation.sides import ScoredSide
    from gkiller.settings.definition import EvaluationSettings

MCNEMAR = "mcnemar"
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class LabelComparison:
    """Both sides on one label.

    Attributes:
        label: its name.
        threshold_a: of the first side.
        threshold_b: of the second side.
        paired: figures, differences and tests.
        verdicts: by figure, whether the first side keeps up with the second.
        p_holm: by figure, and for "mcnemar", the p-value adjusted for the number of labels (Holm).
    """

    label: str
    threshold_a: float
    threshold_b: float
    paired: Paired
    verdicts: Mapping[str, Verdict]
    p_holm: Mapping[str, float]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "label": self.label,
            "threshold_a": self.threshold_a,
            "threshold_b": self.threshold_b,
            **self.paired.as_dict(),
            "verdicts": {name: asdict(one) for name, one in self.verdicts.items()},
            "p_holm": {name: number(p) for name, p in self.p_holm.items()},
        }


@dataclass(frozen=True)
class SliceComparison:
    """Both sides on one label in some of the rows.

    Attributes:
        column: what the rows are parted by.
        value: what they have in common.
        label: the label compared.
        paired: figures, differences and tests on these rows alone.
        p_holm: McNemar's p-value, adjusted for the number of slices and labels (Holm).
    """

    column: str
    value: str
    label: str
    paired: Paired
    p_holm: float

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        names = {"column": self.column, "value": self.value, "label": self.label}
        return {**names, **self.paired.as_dict(), "p_holm": self.p_holm}


@dataclass(frozen=True)
class Example:
    """A comment that the sides score differently.

    Attributes:
        row: its number in the data, from 1.
        id: its id.
        text: the comment.
        label: the label that they differ on.
        truth: 0 or 1.
        a: the first side's score.
        b: the second side's.
        flag_a: the first side's decision.
        flag_b: the second side's.
    """

    row: int
    id: str
    text: str
    label: str
    truth: int
    a: float
    b: float
    flag_a: bool
    flag_b: bool


@dataclass(frozen=True)
class Comparison:
    """Everything compared.

    Attributes:
        labels: a comparison per label that both sides and the data have.
        missing: labels of the data that a side lacks.
        slices: by slice, then label; those of one label's truth for that label alone.
        examples: where the sides differ most.
        rows: n, rows of the data.
        weighted: whether the sample weights differ from each other.
        margin: of the verdicts.
        confidence: coverage of the intervals.
        resamples: bootstrap resamples.
        bootstrap_seed: seed of the bootstrap.
    """

    labels: tuple[LabelComparison, ...]
    missing: tuple[str, ...]
    slices: tuple[SliceComparison, ...]
    examples: tuple[Example, ...]
    rows: int
    weighted: bool
    margin: float
    confidence: float
    resamples: int
    bootstrap_seed: int

    def rough(self) -> list[str]:
        """Return a warning of the labels with few positives or negatives; see `few_rows`."""
        return few_rows({one.label: (one.paired.positives, one.paired.n) for one in self.labels})

    def as_dict(self) -> dict[str, Any]:
        """Return plain values: no NaN, so strict JSON takes them; labels by name."""
        plain = {**vars(self)}
        plain["labels"] = {row.pop("label"): row for row in (one.as_dict() for one in self.labels)}
        plain["missing_labels"] = list(plain.pop("missing"))
        plain["slices"] = [one.as_dict() for one in self.slices]
        plain["examples"] = [asdict(one) for one in self.examples]
        return plain


def compare(
    found: Labelled,
    a: ScoredSide,
    b: ScoredSide,
    settings: EvaluationSettings,
    *,
    margin: float = MARGIN,
    slices: Sequence[Slice] = (),
    examples: int = 10,
    progress: Progress | None = None,
) -> Comparison:
    """Compare two sides.

    Beside the slices given, the rows are parted by length and by the truth of each label.

    Args:
        found: the rows.
        a: the first side, which is to keep up.
        b: the second side.
        settings: resamples, confidence and seed.
        margin: what the first side may lose for the verdict "within".
        slices: more slices.
        examples: how many of the comments that differ most.
        progress: called with the comparisons done and their number.

    Raises:
        LabelMismatchError: no label is in both sides and the data.
        DataError, EvaluationError: see ``compare_sides``.
    """
    names = found.dataset.labels
    labels = [label for label in names if label in a.labels and label in b.labels]
    if not labels:
        raise LabelMismatchError(
            f"the sides have no label in common: {', '.join(a.labels)} and {', '.join(b.labels)}",
            where=f"{a.name}, {b.name}",
            remedy="compare sides that score the same labels",
        )
    truth = {label: found.rows.labels[:, names.index(label)].astype(np.float64) for label in labels}
    weights = found.rows.weights
    parts = _parts(found, truth, slices)
    total = len(labels) + len(parts)

    def paired(label: str, rows: Any, done: int) -> Paired:
        side_a, side_b = (Side(side.column(label)[rows], side.thresholds[label]) for side in (a, b))
        pair = compare_sides(
            truth[label][rows],
            side_a,
            side_b,
            weights[rows],
            resamples=settings.resamples,
            seed=settings.bootstrap_seed,
            confidence=settings.confidence,
        )
        if progress is not None:
            progress(done + 1, total)
        return pair

    whole = {label: paired(label, slice(None), i) for i, label in enumerate(labels)}
    sliced = [paired(label, part.rows, len(labels) + i) for i, (part, label) in enumerate(parts)]
    adjusted = holm([one.mcnemar.p for one in sliced])
    return Comparison(
        labels=tuple(_labels(whole, a, b, margin)),
        missing=tuple(label for label in names if label not in labels),
        slices=tuple(
            SliceComparison(part.column, part.value, label, one, p)
            for (part, label), one, p in zip(parts, sliced, adjusted, strict=True)
        ),
        examples=tuple(_examples(found, truth, a, b, examples)),
        rows=len(found.rows),
        weighted=bool((weights != weights[0]).any()),
        margin=margin,
        confidence=settings.confidence,
        resamples=settings.resamples,
        bootstrap_seed=settings.bootstrap_seed,
    )


def _parts(
    found: Labelled, truth: Mapping[str, FloatArray], named: Sequence[Slice]
) -> list[tuple[Slice, str]]:
    """Return slices with the labels to compare on them, those without a known and weighted row left out."""
    pairs = [(part, label) for part in length_slices(found.rows.texts) for label in truth]
    pairs += [(part, label) for label, values in truth.items() for part in truth_slices(label, values)]
    pairs += [(part, label) for part in named for label in truth if part.column != label]
    weighted = found.rows.weights > 0
    return [(part, label) for part, label in pairs if (~np.isnan(truth[label]) & weighted)[part.rows].any()]


def _labels(
    whole: Mapping[str, Paired], a: ScoredSide, b: ScoredSide, margin: float
) -> list[LabelComparison]:
    adjusted = {name: holm([one.differences[name].p for one in whole.values()]) for name in FIGURES}
    adjusted[MCNEMAR] = holm([one.mcnemar.p for one in whole.values()])
    return [
        LabelComparison(
            label=label,
            threshold_a=a.thresholds[label],
            threshold_b=b.thresholds[label],
            paired=one,
            verdicts={name: verdict(one.differences[name], margin, n=one.n) for name in FIGURES},
            p_holm={name: values[i] for name, values in adjusted.items()},
        )
        for i, (label, one) in enumerate(whole.items())
    ]


def _examples(
    found: Labelled, truth: Mapping[str, FloatArray], a: ScoredSide, b: ScoredSide, count: int
) -> list[Example]:
    """Return the comments that are decided differently, those of the greatest difference in score first.

    Where they are fewer than ``count``, comments that are decided alike follow.
    """
    rows = found.rows
    ranked: list[tuple[bool, float, Example]] = []
    for label, values in truth.items():
        scores = a.column(label), b.column(label)
        flags = scores[0] >= a.thresholds[label], scores[1] >= b.thresholds[label]
        apart = np.abs(scores[0] - scores[1])
        other = flags[0] != flags[1]
        known = np.flatnonzero(~np.isnan(values) & (apart > 0))
        for i in known[np.lexsort((-apart[known], ~other[known]))][:count].tolist():
            example = Example(
                row=i + 1,
                id=rows.ids[i],
                text=rows.texts[i],
                label=label,
                truth=int(values[i]),
                a=float(scores[0][i]),
                b=float(scores[1][i]),
                flag_a=bool(flags[0][i]),
                flag_b=bool(flags[1][i]),
            )
            ranked.append((not other[i], -float(apart[i]), example))
    ranked.sort(key=lambda one: one[:2])
    return [example for _, _, example in ranked[:count]]
