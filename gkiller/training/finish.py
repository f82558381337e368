"""What a student learns from and how far it got: comments without labels, and agreement with its teachers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gkiller.data.dataset import Dataset, Split
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
from gkiller.scoring.network import logit_texts, score_texts
from gkiller.storage.files import json_text
from gkiller.tokens.wordpiece import parse_tokenizer
from gkiller.training.phases import ablated_scores, kept_dendrites, top_weight_mean
from gkiller.training.report import CardFacts, model_card, write_training_plots
from gkiller.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import numpy.typing as npt

    from gkiller.data.dataset import Dataset, Split
    from gkiller.evaluation.results import Evaluation
    from gkiller.evaluation.significance import Taught
    from gkiller.model.dendrites.growth import Growth, State
    from gkiller.model.directory import LoadedModel
    from gkiller.settings.definition import EvaluationSettings, Settings
    from gkiller.training.checkpoint import CheckpointStore
    from gkiller.training.phases import Position
    from gkiller.training.run import RunDirectory, RunManifest
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


@dataclass(frozen=True)
class Finished:
    """A saved model."""

    dendrites: int
    parameters: int
    fold_difference: float  # largest difference between the folded and the training model's logits
    evaluation: Evaluation  # on the validation split, at the tuned thresholds
    thresholds: dict[str, Threshold]
    dendrite_report: dict[str, Any]
    # the teachers beside the model, on the validation split; none without a teacher
    taught: tuple[Taught, ...] = ()


def finish(
    settings: Settings,
    run: RunDirectory,
    dataset: Dataset,
    tokenizer_json: str,
    growth: Growth,
    store: CheckpointStore,
    progress: Position,
    manifest: RunManifest,
    *,
    teachers: tuple[tuple[Teacher, ...], Lesson] | None = None,
    write: bool = True,
    pause: Callable[[], None] = lambda: None,
) -> Finished:
    """Turn a finished training into a model directory and the run's reports.

    ``teachers`` are those that were learnt from, with what they say of the validation split.

    With ``write`` false nothing is written: other processes of the same training compute what the one that writes does.

    ``pause`` is called between the steps before the writing, by every process alike, and may raise to
    stop there: the checkpoints hold all that there is. The writing itself is not stopped.

    Raises:
        FoldMismatchError: the folded model does not compute the training model's logits.
    """
    count = kept_dendrites(progress.gains)
    state = store.load_best(count, progress.best_epoch[count])
    loaded, difference = _fold(settings, dataset, tokenizer_json, growth, state)
    pause()
    valid = dataset.split("valid")
    scores = score_texts(loaded, valid.texts, settings.evaluation.batch_size, long_text=settings.evaluation.long_text)
    pause()
    thresholds = tune_thresholds(dataset.labels, valid.labels, scores, valid.weights, **settings.evaluation.tuning())
    cuts = {label: threshold.value for label, threshold in thresholds.items()}
    evaluation = evaluate(dataset.labels, valid.labels, scores, valid.weights, cuts, settings.evaluation)
    beside: tuple[Taught, ...] = ()
    if teachers is not None:
        beside = taught(*teachers, dataset, loaded, scores, cuts, settings.evaluation)
    pause()
    finished = Finished(
        dendrites=count,
        parameters=parameter_count(loaded.model),
        fold_difference=difference,
        evaluation=evaluation,
        thresholds=thresholds,
        dendrite_report=dendrite_report(loaded, valid, settings.evaluation),
        taught=beside,
    )
    pause()
    _close_manifest(manifest, progress, finished)
    if not write:
        return finished
    run.write_json("manifest.json", manifest)
    card = _save(settings, run, dataset, loaded, tokenizer_json, finished, manifest)
    _report(settings, run, dataset, scores, cuts, finished)
    run.close(card)
    return finished


def _fold(
    settings: Settings, dataset: Dataset, tokenizer_json: str, growth: Growth, state: State
) -> tuple[LoadedModel, float]:
    growth.load(state)
    plain = folded(growth.model, state, settings.dendrites.activation)
    difference = check_fold(growth, plain)
    length = settings.model.max_length
    tokenizer = parse_tokenizer(tokenizer_json, "the run's tokenizer", length)
    return LoadedModel(plain, tokenizer, dataset.labels, {}, length), difference


def dendrite_report(loaded: LoadedModel, split: Split, settings: EvaluationSettings) -> dict[str, Any]:
    """Return how strong a model's dendrites are and what it scores without them; empty without dendrites.

    Returns:
        "top_weight_mean": mean magnitude of the top weights; "ap" and "f1" (macro, at 0.5), each as they are
        ("whole"), with the dendrites' output zeroed, and replaced by its mean over the split's tokens.
    """
    if not top_weight_mean(loaded):
        return {}
    scores = ablated_scores(loaded, split.texts, settings.batch_size, long_text=settings.long_text)
    report: dict[str, Any] = {"top_weight_mean": top_weight_mean(loaded)}
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
    found = Labelled(dataset, dataset.split("valid"), "valid")
    record = tuned_on(found, settings.evaluation.long_text)
    thresholds = {
        label: {**threshold.as_dict(), "tuned_on": record} for label, threshold in finished.thresholds.items()
    }
    facts = CardFacts(
        labels=loaded.labels,
        parameters=finished.parameters,
        dendrites=dendrite_counts(dict(loaded.model.named_parameters())),
        max_length=loaded.max_length,
        manifest=manifest,
        thresholds=thresholds,
        evaluation=evaluation_text(finished.evaluation),
        teachers=distillation_text(finished.taught, finished.evaluation),
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


def _report(
    settings: Settings,
    run: RunDirectory,
    dataset: Dataset,
    scores: npt.NDArray[np.float64],
    cuts: dict[str, float],
    finished: Finished,
) -> None:
    valid = dataset.split("valid")
    write_training_plots(run.read_metrics(), run.plots)
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
    measured = Measured(dataset.labels, (), valid.labels, scores, valid.weights, cuts)
    write_evaluation(run.path, facts, measured, finished.evaluation, settings.evaluation, stem="validation")
