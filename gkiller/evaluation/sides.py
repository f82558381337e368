"""One side of a comparison: a model that scores the rows, or a file of their scores."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from gkiller.errors import ScoreRangeError, SettingsError, did_you_mean
from gkiller.evaluation.scorefiles import join, read_scores

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gkiller.data.labelled import Labelled
    from gkiller.evaluation.checks import FloatArray
    from gkiller.evaluation.deployed import AnyModel
    from gkiller.evaluation.models import Progress
    from gkiller.inference.batches import LongText

STORED = "stored in the model"
BY_FLAGS = "where the file's flags part its scores"
UNKNOWN = (
    "a file of scores does not tell whether its model was trained, or its threshold tuned, on these rows"
)


@dataclass(frozen=True)
class GivenThresholds:
    """Thresholds of the command line.

    Attributes:
        flag: what gave them, for messages.
        overall: for every label, or None.
        single: by label.
    """

    flag: str
    overall: float | None = None
    single: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ScoredSide:
    """The scores of one side on the rows that are compared.

    Attributes:
        name: as it was given.
        kind: a model or a file of scores.
        labels: L labels that it and the data have.
        scores: float64 of shape (n, L).
        thresholds: by label.
        origins: by label, where the threshold is from.
        notes: what else to know.
        reading: ``long_text`` and ``max_length``, as the comments were read; None where that is not known.
    """

    name: str
    kind: Literal["model", "scores"]
    labels: tuple[str, ...]
    scores: FloatArray
    thresholds: dict[str, float]
    origins: dict[str, str]
    notes: tuple[str, ...] = ()
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
    file = read_scores(name, found.dataset.labels)
    places, how = join(file.records, found.rows)
    thresholds, origins = _given(given, file.labels)
    for column, label in enumerate(file.labels):
        if label in thresholds:
            continue
        if label not in file.decided:
            raise SettingsError(
                f"the score file has no flags of {label!r}, so its threshold is not known",
                where=name,
                remedy=f"name it, tuned on other rows: {given.flag} {label}=0.5",
            )
        thresholds[label] = file.threshold(column)
        origins[label] = BY_FLAGS
    reading = {"long_text": file.long_text}
    notes = (how, UNKNOWN)
    return ScoredSide(name, "scores", file.labels, file.scores[places], thresholds, origins, notes, reading)


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
            raise SettingsError(
                f"there is no label {label!r}", where=given.flag, remedy=did_you_mean(label, labels)
            )
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
