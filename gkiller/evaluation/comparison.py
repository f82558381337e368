"""Two models, or files of their scores, compared on the same rows: sides, slices and differences."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gkiller.data.scorefiles import join, read_column
from gkiller.errors import ColumnError, LabelMismatchError, ScoreRangeError, SettingsError
from gkiller.evaluation.results import few_rows
from gkiller.evaluation.significance import FIGURES, MARGIN, Paired, Side, Verdict, compare_sides, holm, verdict
from gkiller.scoring.scorers import STORED, UNKNOWN, scorer_of_file
from gkiller.storage.strict_json import plain
from gkiller.wording import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gkiller.data.dataset import FloatArray, IntArray
    from gkiller.data.load import Labelled
    from gkiller.scoring.models import AnyModel
    from gkiller.settings.definition import EvaluationSettings
    from gkiller.tokens.batches import LongText
    from gkiller.wording import Progress


@dataclass(frozen=True)
class GivenThresholds:
    """Thresholds of the command line."""

    flag: str
    overall: float | None = None
    single: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ScoredSide:
    """The scores of one side on the rows that are compared."""

    name: str
    kind: Literal["model", "scores"]
    labels: tuple[str, ...]
    scores: FloatArray  # float64 of shape (n, L)
    thresholds: dict[str, float]
    origins: dict[str, str]
    notes: tuple[str, ...] = ()
    # long_text and max_length, as the comments were read; None where that is not known
    reading: Mapping[str, Any] = field(default_factory=dict)

    def column(self, label: str) -> FloatArray:
        """Return the scores (n,) of a label."""
        return self.scores[:, self.labels.index(label)]


def side_of_model(
    name: str,
    loaded: AnyModel,
    found: Labelled,
    batch_size: int,
    given: GivenThresholds,
    progress: Progress | None = None,
    *,
    long_text: LongText = "window",
) -> ScoredSide:
    """Score the rows with a model, at its stored thresholds unless others are given.

    Raises:
        LabelMismatchError: the data have none of its labels.
        SettingsError, ScoreRangeError: an unknown label, or a threshold outside 0..1.
    """
    from gkiller.evaluation.models import measure

    measured = measure(loaded, found.dataset, found.rows, batch_size, progress, long_text=long_text)
    thresholds, origins = _given(given, measured.labels)
    for label in measured.labels:
        thresholds.setdefault(label, measured.thresholds[label])
        origins.setdefault(label, STORED)
    reading = {"long_text": long_text, "max_length": loaded.max_length}
    return ScoredSide(name, "model", measured.labels, measured.scores, thresholds, origins, (), reading)


def side_of_file(name: str, found: Labelled, given: GivenThresholds) -> ScoredSide:
    """Read a file of scores for the rows.

    Its thresholds are those given, else they are read off its flags, which predict sets at the model's own
    thresholds. None is ever tuned on the rows compared.

    Raises:
        SettingsError: it has no flags of a label that has no threshold, or an unknown label is named.
        DataError, EvaluationError: see ``read_scores`` and ``join``.
    """
    own = found.dataset.labels if given.overall is not None else given.single
    scorer = scorer_of_file(name, found, given=own)
    thresholds, origins = _given(given, scorer.labels)
    for label in scorer.labels:
        if label in thresholds:
            continue
        if label not in scorer.thresholds:
            raise SettingsError(
                f"the score file has no flags of {label!r}, so its threshold is not known",
                where=name,
                remedy=f"name it, tuned on other rows: {given.flag} {label}=0.5",
            )
        thresholds[label] = scorer.thresholds[label]
        origins[label] = scorer.origin
    scores = scorer.score(found.rows.texts, None)
    notes = (scorer.notes[0], UNKNOWN)
    return ScoredSide(name, "scores", scorer.labels, scores, thresholds, origins, notes, scorer.reading)


def other_reading(first: ScoredSide, second: ScoredSide) -> list[str]:
    """Return a warning where two sides are known to have read long comments in different ways."""
    ways = {"window": "in windows", "truncate": "without their end"}
    how = [ways.get(str(side.reading.get("long_text"))) for side in (first, second)]
    if None in how or how[0] == how[1]:
        return []
    return [f"long comments are read {how[0]} by A, and {how[1]} by B (--long-text)"]


def _given(given: GivenThresholds, labels: tuple[str, ...]) -> tuple[dict[str, float], dict[str, str]]:
    """Return the thresholds that were given, and where they are from."""
    for label in given.single:
        if label not in labels:
            raise SettingsError(f"there is no label {label!r}", where=given.flag, remedy=did_you_mean(label, labels))
    start = {} if given.overall is None else dict.fromkeys(labels, given.overall)
    thresholds = {**start, **given.single}
    for label, value in thresholds.items():
        if not 0 <= value <= 1:
            raise ScoreRangeError(
                f"the threshold {value:g} is outside 0..1",
                where=f"{given.flag}, label {label!r}",
                remedy="give a number in 0..1",
            )
    return thresholds, dict.fromkeys(thresholds, given.flag)


LENGTH = "length"
MISSING = "(missing)"
MOST = 20
"""A column of more different values is cut at its quartiles when they are numbers, else refused."""


@dataclass(frozen=True)
class Slice:
    """Some of the rows."""

    column: str
    value: str
    rows: IntArray


def length_slices(texts: Sequence[str]) -> list[Slice]:
    """Return four slices by the comments' length in characters: it does not depend on a side's tokenizer."""
    return _quartiles(LENGTH, np.array([len(text) for text in texts], dtype=np.float64))


def truth_slices(label: str, truth: Any) -> list[Slice]:
    """Return the positives and the negatives of a label, truth (n,); unknown rows are in neither."""
    values = np.asarray(truth, dtype=np.float64)
    slices = [Slice(label, name, np.flatnonzero(values == code)) for code, name in ((1, "1"), (0, "0"))]
    return [one for one in slices if len(one.rows)]


def column_slices(column: str, values: Sequence[Any]) -> list[Slice]:
    """Return a slice for each value of a column, or for each quarter of its numbers.

    Args:
        values: (n,) of any kind; None, NaN and empty texts are missing.

    Raises:
        ColumnError: it has over MOST different values that are no numbers.
    """
    names = [_name(value) for value in values]
    different = dict.fromkeys(names)
    if len(different) > MOST:
        numbers = _numbers(values)
        if numbers is None:
            raise ColumnError(
                f"the column {column!r} has {len(different):,} different values",
                where="--slice",
                remedy=f"name one with at most {MOST}, or one of numbers",
            )
        missing = np.flatnonzero(np.isnan(numbers))
        return _quartiles(column, numbers) + ([Slice(column, MISSING, missing)] if len(missing) else [])
    table = np.array(names)
    return [Slice(column, value, np.flatnonzero(table == value)) for value in sorted(different)]


def named_slices(
    columns: Sequence[str],
    found: Labelled,
    file: str | None,
    *,
    text_column: str | None = None,
    id_column: str | None = None,
) -> tuple[list[Slice], list[str]]:
    """Return the slices of columns that were asked for, and how the file was joined.

    Args:
        columns: labels of the data, or columns of ``file``: data in memory keep no other column.
        file: the file that the data are from, or another one with the same comments; None when there is none.
        text_column: its column of the comment; else one with a usual name.
        id_column: its column of the id; else one with a usual name.

    Raises:
        ColumnError: no such column, or too many different values.
        RowError: the file's comments are not those of the data.
    """
    slices: list[Slice] = []
    notes: list[str] = []
    for column in dict.fromkeys(columns):
        if column in found.dataset.labels:
            slices += truth_slices(column, found.rows.labels[:, found.dataset.labels.index(column)])
            continue
        if file is None:
            raise ColumnError(
                f"there is no label {column!r}, and prepared data keep no other columns",
                where="--slice",
                remedy="name a file of the same comments that has the column with --slice-data; "
                + did_you_mean(column, found.dataset.labels),
            )
        records, values = read_column(file, column, text_column=text_column, id_column=id_column)
        places, how = join(records, found.rows)
        slices += column_slices(column, [values[place] for place in places.tolist()])
        notes.append(how)
    return slices, list(dict.fromkeys(notes))


def _name(value: Any) -> str:
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return MISSING
    return str(value)[:60]


def _numbers(values: Sequence[Any]) -> FloatArray | None:
    """Return values (n,) as numbers, NaN where missing, or None when one is neither."""
    try:
        return np.array([np.nan if _name(value) == MISSING else float(value) for value in values])
    except (TypeError, ValueError, OverflowError):
        return None


def _quartiles(column: str, values: FloatArray) -> list[Slice]:
    """Cut at the quartiles; a value that fills several quarters leaves fewer slices."""
    known = values[~np.isnan(values)]
    place = np.searchsorted(np.unique(np.quantile(known, (0.25, 0.5, 0.75))), values, side="left")
    slices = []
    for quarter in range(4):
        rows = np.flatnonzero((place == quarter) & ~np.isnan(values))
        if len(rows):
            low, high = values[rows].min(), values[rows].max()
            slices.append(Slice(column, f"{low:g} to {high:g}", rows))
    return slices


MCNEMAR = "mcnemar"


@dataclass(frozen=True)
class LabelComparison:
    """Both sides on one label."""

    label: str
    threshold_a: float
    threshold_b: float
    paired: Paired
    verdicts: Mapping[str, Verdict]  # by figure, whether the first side keeps up with the second
    # by figure, and for "mcnemar", the p-value adjusted for the number of labels (Holm)
    p_holm: Mapping[str, float]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        found: dict[str, Any] = plain(self)
        paired = found.pop("paired")
        last = {name: found.pop(name) for name in ("verdicts", "p_holm")}
        return {**found, **paired, **last}


@dataclass(frozen=True)
class SliceComparison:
    """Both sides on one label in some of the rows."""

    column: str
    value: str
    label: str
    paired: Paired
    p_holm: float

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        names = {"column": self.column, "value": self.value, "label": self.label}
        return {**names, **plain(self.paired), "p_holm": self.p_holm}


@dataclass(frozen=True)
class Example:
    """A comment that the sides score differently."""

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
    """Everything compared."""

    labels: tuple[LabelComparison, ...]
    missing: tuple[str, ...]
    slices: tuple[SliceComparison, ...]
    examples: tuple[Example, ...]
    rows: int
    weighted: bool  # whether the sample weights differ from each other
    margin: float
    confidence: float
    resamples: int
    bootstrap_seed: int

    def rough(self) -> list[str]:
        """Return a warning of the labels with few positives or negatives; see `few_rows`."""
        return few_rows({one.label: (one.paired.positives, one.paired.n) for one in self.labels})

    def as_dict(self) -> dict[str, Any]:
        """Return plain values: no NaN, so strict JSON takes them; labels by name."""
        found = {**vars(self)}
        found["labels"] = {row.pop("label"): row for row in (one.as_dict() for one in self.labels)}
        found["missing_labels"] = list(found.pop("missing"))
        found["slices"] = [one.as_dict() for one in self.slices]
        found["examples"] = plain(self.examples)
        return found


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

    Apart from the slices given, the rows are parted by length and by the truth of each label.

    Args:
        margin: what the first side may lose for the verdict "within".

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


def _parts(found: Labelled, truth: Mapping[str, FloatArray], named: Sequence[Slice]) -> list[tuple[Slice, str]]:
    """Return slices with the labels to compare on them, those without a known and weighted row left out."""
    pairs = [(part, label) for part in length_slices(found.rows.texts) for label in truth]
    pairs += [(part, label) for label, values in truth.items() for part in truth_slices(label, values)]
    pairs += [(part, label) for part in named for label in truth if part.column != label]
    weighted = found.rows.weights > 0
    return [(part, label) for part, label in pairs if (~np.isnan(truth[label]) & weighted)[part.rows].any()]


def _labels(whole: Mapping[str, Paired], a: ScoredSide, b: ScoredSide, margin: float) -> list[LabelComparison]:
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
