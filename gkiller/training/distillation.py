"""What a student learns from and how far it got: comments without labels, and agreement with its teachers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from gkiller.data.dataset import Dataset, Split
from gkiller.data.rows import fold_text
from gkiller.errors import ColumnError, EmptyDataError, FormatError, ThresholdTargetError
from gkiller.evaluation.evaluate import evaluate
from gkiller.evaluation.report import aligned, figure_text
from gkiller.evaluation.significance import Taught, agreement
from gkiller.evaluation.thresholds import Threshold, tune_thresholds
from gkiller.inference.bulk.reading import from_file
from gkiller.scoring.network import logit_texts
from gkiller.tokens.encoding import clean
from gkiller.wording import counted

if TYPE_CHECKING:
    import numpy.typing as npt

    from gkiller.data.dataset import Dataset
    from gkiller.evaluation.results import Evaluation
    from gkiller.evaluation.significance import Taught
    from gkiller.model.directory import LoadedModel
    from gkiller.settings.definition import EvaluationSettings, Settings
    from gkiller.training.teachers import Lesson, Logits, Teacher


PREFIX = "transfer-"
"""What the id of a transfer comment begins with; its row follows."""


def transfer_texts(settings: Settings, dataset: Dataset) -> dict[int, str]:
    """Return the comments of the transfer file that are new, by their row, counted from 1; {} without a file.

    Blank comments are left out, and those of any split of the data set, in whatever case and spacing: a
    validation or test comment must not be learnt, not even from a teacher.

    Args:
        settings: of the run; ``data.on_error`` says what becomes of bad rows, and ``data.split_seed`` draws
            where ``distill.transfer_rows`` is less than there is.

    Raises:
        DataError: the file cannot be read, or has no new comment.
    """
    own = settings.distill
    if own.transfer is None:
        return {}
    try:
        source = from_file(Path(own.transfer).expanduser(), own.transfer, text_column=own.transfer_column)
    except ColumnError as error:
        remedy = "name the comments' column: --set distill.transfer_column=NAME"
        raise ColumnError(error.what.replace(" (--text-column)", ""), where=error.where, remedy=remedy) from error
    except FormatError as error:
        remedy = error.remedy.replace("; else name the format with --input-format", "")
        raise FormatError(error.what, where=error.where, remedy=remedy) from error
    seen = {fold_text(text) for split in dataset.splits.values() for text in split.texts} | {""}
    found: dict[int, str] = {}
    for row in filter(None, source.rows()):
        if row.fault is not None:
            if settings.data.on_error == "refuse":
                raise row.fault
            continue
        text = clean(row.text)
        folded = fold_text(text)
        if folded not in seen:
            seen.add(folded)
            found[row.number] = text
    if not found:
        raise EmptyDataError(
            "no comment there that the data do not have",
            where=own.transfer,
            remedy="name other comments, or leave --transfer out",
        )
    if own.transfer_rows is None or own.transfer_rows >= len(found):
        return found
    chosen = np.random.default_rng(settings.data.split_seed).permutation(len(found))[: own.transfer_rows]
    rows = list(found)
    return {rows[place]: found[rows[place]] for place in np.sort(chosen)}


def with_transfer(dataset: Dataset, texts: Mapping[int, str]) -> Dataset:
    """Return the data set with more training comments, whose labels are unknown.

    Args:
        texts: the comments by their row, counted from 1: row 7 has the id "transfer-7", whatever else is
            taken, so that a file of scores can name it.
    """
    train, count = dataset.split("train"), len(texts)
    if not count:
        return dataset
    unknown = np.full((count, len(dataset.labels)), np.nan, np.float32)
    joined = Split(
        ids=[*train.ids, *(f"{PREFIX}{row}" for row in texts)],
        texts=[*train.texts, *texts.values()],
        labels=np.concatenate([train.labels, unknown]),
        weights=np.concatenate([train.weights, np.ones(count)]),
    )
    return Dataset(dataset.labels, {**dataset.splits, "train": joined}, dataset.manifest)


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
        scores: (n, L), the student's.
        settings: intervals, and the target that thresholds are tuned for.
    """
    texts = dataset.split("valid").texts
    logits = logit_texts(student, texts, settings.batch_size, long_text=settings.long_text)
    sides = [(teacher.name, each) for teacher, each in zip(teachers, lesson.each, strict=True)]
    if len(teachers) > 1:
        sides.append((f"the mean of {counted(len(teachers), 'teacher')}", lesson.logits))
    return tuple(
        _beside(name, each, dataset, (logits, scores), cuts, settings) for name, each in sides if _known(each).size
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


HEADER = ("label", "teacher's F1", "student's F1", "teacher's AP", "student's AP", "equal", "r of logits")

NOTE = (
    "Each model at its own threshold, tuned on these rows. Equal: the share of equal decisions; r: Pearson's "
    "correlation\nof the logits."
)


def distillation_text(taught: Sequence[Taught], student: Evaluation) -> str:
    """Return a section of the model card: a table per teacher; nothing without one."""
    if not taught:
        return ""
    blocks = []
    for one in taught:
        rows = []
        for same in one.agreement:
            sides = [evaluation.label(same.label) for evaluation in (one.evaluation, student)]
            figures = [*(side.stored.f1 for side in sides), *(side.ap for side in sides)]
            rows.append([same.label, *map(figure_text, (*figures, same.decisions, same.logits))])
        blocks.append("\n".join(aligned(one.name, HEADER, rows)))
    tables = "\n\n".join(blocks)
    return f"\n### Teachers\n\n{NOTE}\n\n```text\n{tables}\n```\n"
