"""What follows the last epoch: choose, fold, check, tune thresholds, measure the teachers, save, report."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gkiller.data.load import Labelled
from gkiller.data.sources import public_source
from gkiller.errors import ThresholdTargetError
from gkiller.evaluation.evaluate import evaluate
from gkiller.evaluation.metrics import macro_score
from gkiller.evaluation.models import Measured
from gkiller.evaluation.report import aligned, evaluation_text, figure_text, write_evaluation
from gkiller.evaluation.results import Evaluation
from gkiller.evaluation.significance import Taught, agreement
from gkiller.evaluation.source import tuned_on
from gkiller.evaluation.thresholds import Threshold, tune_thresholds
from gkiller.model.dendrites.growth import check_fold, dendrite_counts, folded
from gkiller.model.directory import LoadedModel, save_model
from gkiller.model.network import parameter_count
from gkiller.scoring.models import logit_texts, score_texts
from gkiller.storage.files import json_text
from gkiller.tokens.wordpiece import parse_tokenizer
from gkiller.training.phases import ablated_scores, kept_dendrites, top_weight_mean
from gkiller.training.report import CardFacts, model_card, write_training_plots
from gkiller.wording import counted

if TYPE_CHECKING:
    import numpy.typing as npt

    from gkiller.data.dataset import Dataset, Split
    from gkiller.settings.definition import EvaluationSettings, Settings
    from gkiller.training.phases import Position
    from gkiller.training.run import RunDirectory, RunManifest
    from gkiller.training.teachers import Lesson, Logits, Teacher
    from gkiller.training.trainer import Trainer

    Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Finished:
    """A saved model."""

    dendrites: int
    parameters: int
    fold_difference: float  # largest difference between the folded and the training model's logits
    evaluation: Evaluation  # on the validation split, at the tuned thresholds
    thresholds: dict[str, Threshold]
    dendrite_report: dict[str, Any]
    taught: tuple[Taught, ...] = ()  # the teachers next to the model, on the validation split


def finish(
    trainer: Trainer,
    run: RunDirectory,
    dataset: Dataset,
    tokenizer_json: str,
    manifest: RunManifest,
    teachers: tuple[Sequence[Teacher], Lesson] | None = None,
) -> Finished:
    """Turn a finished training into a model directory and the run's reports, which rank 0 alone writes.

    ``teachers`` are those that were learnt from, with what they say of the validation split. A request to stop is
    heeded between the steps before the writing, as the checkpoints hold all that there is; the writing is not stopped.
    A FoldMismatchError where the folded model does not compute the training model's logits.
    """
    settings, progress, growth, pause = trainer.settings, trainer.progress, trainer.growth, trainer.heed_stop
    own, length = settings.evaluation, settings.model.max_length
    count = kept_dendrites(progress.gains)
    state = trainer.store.load_best(count, progress.best_epoch[count])
    growth.load(state)
    plain = folded(growth.model, state, settings.dendrites.activation)
    difference = check_fold(growth, plain)
    tokenizer = parse_tokenizer(tokenizer_json, "the run's tokenizer", length)
    loaded = LoadedModel(plain, tokenizer, dataset.labels, {}, length)
    pause()
    valid = dataset.split("valid")
    scores = score_texts(loaded, valid.texts, own.batch_size, long_text=own.long_text)
    pause()
    thresholds = tune_thresholds(dataset.labels, valid.labels, scores, valid.weights, **own.tuning())
    cuts = {label: threshold.value for label, threshold in thresholds.items()}
    evaluation = evaluate(dataset.labels, valid.labels, scores, valid.weights, cuts, own)
    teaching = _taught(*teachers, dataset, loaded, (scores, cuts), own) if teachers else ()
    pause()
    report = _dendrite_report(loaded, valid, own)
    finished = Finished(count, parameter_count(plain), difference, evaluation, thresholds, report, teaching)
    pause()
    _close_manifest(manifest, progress, finished)
    if trainer.ranks.first:
        run.write_json("manifest.json", manifest)
        card = _save(settings, run, dataset, loaded, tokenizer_json, finished, manifest)
        write_training_plots(run.read_metrics(), run.plots)
        measured = Measured(dataset.labels, (), valid.labels, scores, valid.weights, cuts)
        write_evaluation(
            run.path, _facts(settings, run, dataset, finished), measured, evaluation, own, stem="validation"
        )
        run.close(card)
    return finished


def _dendrite_report(loaded: LoadedModel, split: Split, settings: EvaluationSettings) -> dict[str, Any]:
    """Return how strong a model's dendrites are and what it scores without them; empty without dendrites.

    Returns:
        "top_weight_mean": mean magnitude of the top weights; "ap" and "f1" (macro, at 0.5), each as they are
        ("whole"), with the dendrites' output zeroed, and replaced by its mean over the split's tokens.
    """
    if not (mean := top_weight_mean(loaded)):
        return {}
    scores = ablated_scores(loaded, split.texts, settings.batch_size, long_text=settings.long_text)
    report: dict[str, Any] = {"top_weight_mean": mean}
    report["ap"] = {k: macro_score("ap", split.labels, s, split.weights) for k, s in scores.items()}
    report["f1"] = {k: macro_score("f1", split.labels, s, split.weights) for k, s in scores.items()}
    return report


def _close_manifest(manifest: RunManifest, progress: Position, finished: Finished) -> None:
    manifest["ended"] = datetime.now(UTC).isoformat(timespec="seconds")
    manifest["training_seconds"] = round(progress.seconds, 3)
    manifest["epochs"] = progress.epoch
    manifest["stopped_early"] = progress.stopped_early
    manifest["best"] = {
        str(count): {"score": score, "epoch": progress.best_epoch[count]} for count, score in progress.best.items()
    }
    manifest["dendrites_kept"] = finished.dendrites
    manifest["dendrite_gains"] = {str(count): gain.as_dict() for count, gain in progress.gains.items()}
    manifest["dendrites"] = finished.dendrite_report
    manifest["parameters"] = finished.parameters
    manifest["fold_difference"] = finished.fold_difference


def _save(
    settings: Settings,
    run: RunDirectory,
    dataset: Dataset,
    loaded: LoadedModel,
    tokenizer_json: str,
    finished: Finished,
    manifest: RunManifest,
) -> str:
    """Save the model; return its card."""
    record = tuned_on(Labelled(dataset, dataset.split("valid"), "valid"), settings.evaluation.long_text)
    thresholds = {label: {**one.as_dict(), "tuned_on": record} for label, one in finished.thresholds.items()}
    facts = CardFacts(
        labels=loaded.labels,
        parameters=finished.parameters,
        dendrites=dendrite_counts(dict(loaded.model.named_parameters())),
        max_length=loaded.max_length,
        manifest=manifest,
        thresholds=thresholds,
        evaluation=evaluation_text(finished.evaluation),
        teachers=_taught_text(finished.taught, finished.evaluation),
        confidence=settings.evaluation.confidence,
    )
    card = model_card(facts)
    save_model(
        run.model,
        loaded.model,
        tokenizer_json,
        labels=loaded.labels,
        thresholds=thresholds,
        max_length=loaded.max_length,
        card=card,
        training={
            "source": public_source(str(manifest["data"]["source"])),
            "synthetic": manifest["data"]["synthetic"],
            "manifest_sha256": hashlib.sha256(json_text(manifest).encode()).hexdigest(),
        },
    )
    return card


def _facts(settings: Settings, run: RunDirectory, dataset: Dataset, finished: Finished) -> dict[str, Any]:
    """Return what validation.json says of how its figures were measured."""
    facts: dict[str, Any] = {
        "model": str(run.model),
        "source": str(dataset.manifest.get("source", settings.data.source)),
        "split": "valid",
        "long_text": settings.evaluation.long_text,
        "max_length": settings.model.max_length,
        "note": "the thresholds were tuned on these rows, and they chose the epoch and the dendrites",
    }
    if finished.taught:
        facts["teachers"] = [one.as_dict() for one in finished.taught]
    return facts


# -- the teachers next to their student -------------------------------------------------------------


def _taught(
    teachers: Sequence[Teacher],
    lesson: Lesson,
    dataset: Dataset,
    student: LoadedModel,
    found: tuple[Scores, dict[str, float]],
    settings: EvaluationSettings,
) -> tuple[Taught, ...]:
    """Measure each teacher, and of several also their mean, which the student has learnt.

    A file of scores that lacks validation comments is left out. ``found`` are the student's scores, (n, L), and its
    thresholds.
    """
    texts = dataset.split("valid").texts
    logits = logit_texts(student, texts, settings.batch_size, long_text=settings.long_text)
    sides = [(teacher.name, each) for teacher, each in zip(teachers, lesson.each, strict=True)]
    if len(teachers) > 1:
        sides.append((f"the mean of {counted(len(teachers), 'teacher')}", lesson.logits))
    each = (_side(name, said, dataset, (logits, *found), settings) for name, said in sides)
    return tuple(one for one in each if one is not None)


def _side(
    name: str,
    said: Logits,
    dataset: Dataset,
    student: tuple[Scores, Scores, dict[str, float]],
    settings: EvaluationSettings,
) -> Taught | None:
    """Return one teacher next to the student, whose logits, scores and thresholds are given."""
    valid = dataset.split("valid")
    columns = np.flatnonzero(~np.isnan(said).any(0))  # the labels that it has of all comments
    if not columns.size:
        return None
    labels = tuple(dataset.labels[column] for column in columns)
    truth, teacher = valid.labels[:, columns], said[:, columns].astype(np.float64)
    scores = torch.from_numpy(teacher).sigmoid().numpy()
    try:
        tuned = tune_thresholds(labels, truth, scores, valid.weights, **settings.tuning())
    except ThresholdTargetError:  # it does not reach the student's target: tune for F1
        tuned = tune_thresholds(labels, truth, scores, valid.weights)
    own = {label: one.value for label, one in tuned.items()}
    logits, others, cuts = student
    agreements = tuple(
        agreement(
            label,
            (others[:, column] >= cuts[label], scores[:, place] >= own[label]),
            (logits[:, column], teacher[:, place]),
            valid.weights,
            settings,
        )
        for place, (label, column) in enumerate(zip(labels, columns, strict=True))
    )
    return Taught(name, evaluate(labels, truth, scores, valid.weights, own, settings), agreements)


_HEADER = ("label", "teacher's F1", "student's F1", "teacher's AP", "student's AP", "equal", "r of logits")
_NOTE = (
    "Each model at its own threshold, tuned on these rows. Equal: the share of equal decisions; r: Pearson's "
    "correlation\nof the logits."
)


def _taught_text(taught: Sequence[Taught], student: Evaluation) -> str:
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
        blocks.append("\n".join(aligned(one.name, _HEADER, rows)))
    tables = "\n\n".join(blocks)
    return f"\n### Teachers\n\n{_NOTE}\n\n```text\n{tables}\n```\n"
