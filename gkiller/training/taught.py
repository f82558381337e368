"""What became of the teaching: the teachers on the validation split, and how far their student agrees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from gkiller.errors import ThresholdTargetError, counted
from gkiller.evaluation.agreement import Taught, agreement
from gkiller.evaluation.evaluate import evaluate
from gkiller.evaluation.thresholds import Threshold, tune_thresholds
from gkiller.model.scoring import logit_texts

if TYPE_CHECKING:
    import numpy.typing as npt

    from gkiller.data.dataset import Dataset
    from gkiller.model.directory import LoadedModel
    from gkiller.settings.definition import EvaluationSettings
    from gkiller.training.teachers import Lesson, Logits, Teacher


def taught(
    teachers: Sequence[Teacher],
    lesson: Lesson,
    dataset: Dataset,
    student: LoadedModel,
    scores: npt.NDArray[np.float64],
    cuts: dict[str, float],
    settings: EvaluationSettings,
) -> tuple[Taught, ...]:
    """Measure each teacher, and of several also their mean, which the student has learnt.

    A file of scores that lacks validation comments is left out.

    Args:
        teachers: at least one.
        lesson: what they say of the validation split.
        dataset: with that split.
        student: the trained model, of the data's labels.
        scores: (n, L), the student's.
        cuts: the student's thresholds by label.
        settings: intervals, and the target that thresholds are tuned for.
    """
    texts = dataset.split("valid").texts
    logits = logit_texts(student, texts, settings.batch_size, long_text=settings.long_text)
    sides = [(teacher.name, each) for teacher, each in zip(teachers, lesson.each, strict=True)]
    if len(teachers) > 1:
        sides.append((f"the mean of {counted(len(teachers), 'teacher')}", lesson.logits))
    return tuple(
        _beside(name, each, dataset, (logits, scores), cuts, settings)
        for name, each in sides
        if _known(each).size
    )


def _known(found: Logits) -> npt.NDArray[np.intp]:
    """Return the columns of the labels that a teacher has of all comments: what it can be measured on."""
    return np.flatnonzero(~np.isnan(found).any(0))


def _beside(
    name: str,
    found: Logits,
    dataset: Dataset,
    student: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]],
    cuts: dict[str, float],
    settings: EvaluationSettings,
) -> Taught:
    """Return one teacher beside the student, whose logits and scores are given."""
    valid = dataset.split("valid")
    columns = _known(found)
    labels = tuple(dataset.labels[column] for column in columns)
    truth, teacher = valid.labels[:, columns], found[:, columns].astype(np.float64)
    scores = torch.from_numpy(teacher).sigmoid().numpy()
    own = {label: one.value for label, one in _tuned(labels, truth, scores, valid.weights, settings).items()}
    agreements = tuple(
        agreement(
            label,
            (student[1][:, column] >= cuts[label], scores[:, place] >= own[label]),
            (student[0][:, column], teacher[:, place]),
            valid.weights,
            settings,
        )
        for place, (label, column) in enumerate(zip(labels, columns, strict=True))
    )
    return Taught(name, evaluate(labels, truth, scores, valid.weights, own, settings), agreements)


def _tuned(
    labels: tuple[str, ...],
    truth: npt.NDArray[np.float32],
    scores: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64],
    settings: EvaluationSettings,
) -> dict[str, Threshold]:
    """Tune a teacher's thresholds for the student's target; for F1 where the teacher does not reach it."""
    try:
        return tune_thresholds(labels, truth, scores, weights, **settings.tuning())
    except ThresholdTargetError:
        return tune_thresholds(labels, truth, scores, weights)
