"""``gkiller evaluate`` and ``gkiller threshold``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gkiller.cli.console import emit_json, next_command, note, progress, results_table, show, warn
from gkiller.cli.options import (
    DATA_HELP,
    NOT_TUNED,
    AnyModelArgument,
    JsonFlag,
    SplitOption,
    ValidSplitOption,
    label_names,
    place,
    with_settings,
)
from gkiller.cli.tables import evaluation_table, synthetic_warning

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.table import Table

    from gkiller.evaluation.models import Tuning
    from gkiller.scoring.models import AnyModel
    from gkiller.settings import Resolved

EvaluateOutOption = Annotated[
    Path | None, place("Where reports and plots go; without it the model's run, for the run's own data.")
]


@with_settings("data", "evaluation", without=NOT_TUNED, helps={"data.source": DATA_HELP})
def evaluate(
    resolved: Resolved,
    asked: frozenset[str],
    model: AnyModelArgument,
    split: SplitOption = None,
    out: EvaluateOutOption = None,
    json: JsonFlag = False,
) -> None:
    """Measure a model on labelled comments.

    F1, precision, recall, accuracy, ROC-AUC, average precision, MCC, Brier score, calibration error and
    confusion matrix, per label, at 0.5 and at the stored threshold, with bootstrap intervals. Without
    --data it reads the data of the model's own run, and refuses them when they have changed since.
    """
    from gkiller.evaluation.models import evaluate_measured, measure
    from gkiller.evaluation.report import write_evaluation
    from gkiller.evaluation.source import choose_data, load_chosen, measuring_warnings
    from gkiller.scoring.models import DeployedModel, load_any
    from gkiller.storage.files import refuse_inputs
    from gkiller.tokens.batches import reading_text

    loaded = load_any(model)
    assert loaded.path is not None  # it was just read from there
    settings, how = resolved.settings, resolved.settings.evaluation
    choice = choose_data(loaded.path, settings.data, asked)
    if out is not None:
        refuse_inputs(out.glob("evaluation*"), [Path(choice.data.source).expanduser()])
    with progress() as on_data:
        found = load_chosen(choice, split, on_data, default="test")
    with progress("scoring") as advance:
        measured = measure(loaded, found.dataset, found.rows, how.batch_size, advance, long_text=how.long_text)
    with progress("resampling") as advance:
        evaluation = evaluate_measured(measured, how, advance)
    source = str(found.dataset.manifest.get("source", choice.data.source))
    learnt = measuring_warnings(choice, found, loaded.metadata["thresholds"])
    warnings = [*learnt, *evaluation.undefined(), *evaluation.rough()]
    facts = {
        "model": str(loaded.path),
        "precision": loaded.precision,
        "source": source,
        "split": found.name,
        "long_text": how.long_text,
        "max_length": loaded.max_length,
        "missing_labels": list(measured.missing),
        "warnings": warnings,
    }
    where = out or choice.run  # other data's reports do not belong in the run
    written: list[str] = []
    if where is not None:
        stem = "evaluation" if found.name == "test" else f"evaluation-{found.name}"
        written = write_evaluation(where, facts, measured, evaluation, how, stem=stem)
    note(*found.dataset.manifest.get("notes", ()))
    missing = [f"not measured, as the data lack them: {', '.join(measured.missing)}"] if measured.missing else []
    warn(*warnings, *missing, *synthetic_warning(found))
    if json:
        emit_json({**facts, **evaluation.as_dict(), "files": written})
        return
    show(evaluation_table(evaluation, f"{source}, {found.name}, {reading_text(how.long_text, loaded.max_length)}"))
    if where is not None:
        note(f"reports and plots: {where}")
    if isinstance(loaded, DeployedModel):
        note(f"scored with the {loaded.precision} graph: this copy of the model has no weights")
    else:
        next_command(f"gkiller threshold {model} --min-precision 0.9")


ThresholdOutOption = Annotated[Path | None, place("Write a copy of the model there, and leave it as it is.")]
_LABELS_HELP = "Tune these labels alone, and let them alone decide whether a comment is flagged."
LabelsOption = Annotated[list[str] | None, typer.Option("--labels", metavar="LABEL,...", help=_LABELS_HELP)]


@with_settings(
    "data", "evaluation", without=("data.sample_size", "evaluation.resamples"), helps={"data.source": DATA_HELP}
)
def threshold(
    resolved: Resolved,
    asked: frozenset[str],
    model: AnyModelArgument,
    split: ValidSplitOption = None,
    labels: LabelsOption = None,
    out: ThresholdOutOption = None,
    json: JsonFlag = False,
) -> None:
    """Tune a model's thresholds again, on other comments.

    For the best F1 (--threshold-rule says which), or with --min-precision or --min-recall for the best of the
    other at that target. It reads the validation split (all rows of a single file), never the test split
    unless --split names it, and stores the thresholds in the model, with what they were tuned on. Without
    --data it reads the data of the model's own run, and refuses them when they have changed since. A label
    that cannot be tuned on them keeps its threshold.

    A comment is flagged when the score of any label reaches its threshold, unless --labels names those that decide.

    A model without weights, such as the shipped one, is scored with its graph. The shipped one itself is not
    written to: --out says where its copy with the new thresholds goes.
    """
    from gkiller.deployment.deploy import target_for
    from gkiller.errors import OutputError
    from gkiller.evaluation.models import measure, retune
    from gkiller.evaluation.source import choose_data, load_chosen, tuned_on, tuning_warnings
    from gkiller.inference.results import deciding_labels
    from gkiller.model.layout import is_default
    from gkiller.scoring.models import load_any
    from gkiller.tokens.batches import reading_text

    loaded = load_any(model)
    if out is None and is_default(model):
        remedy = "name a directory for its copy with --out"
        raise OutputError("the shipped model is not written to", where=model, remedy=remedy)
    names = labels and deciding_labels(label_names(labels, loaded.labels), loaded.labels, "--labels")
    target = target_for(loaded, out)
    settings, how = resolved.settings, resolved.settings.evaluation
    assert loaded.path is not None  # it was just read from there
    choice = choose_data(loaded.path, settings.data, asked)
    with progress() as on_data:
        found = load_chosen(choice, split, on_data, default="valid")
    with progress("scoring") as advance:
        measured = measure(loaded, found.dataset, found.rows, how.batch_size, advance, long_text=how.long_text)
    tuning = retune(loaded, measured, how, names or None)
    before = loaded.metadata["thresholds"]
    thresholds = {**before, **tuning.stored(tuned_on(found, how.long_text))}
    _store(target, loaded, thresholds, tuning.flagged.labels)
    warnings = [*tuning_warnings(choice, found), *tuning.warnings]
    warn(*warnings)
    if json:
        facts = {
            "model": str(target),
            "split": found.name,
            "rows": len(found.rows),
            "long_text": how.long_text,
            "max_length": loaded.max_length,
            "thresholds": thresholds,
            "flagged": tuning.flagged.as_dict(),
            "warnings": warnings,
        }
        emit_json(facts)
        return
    reading = reading_text(how.long_text, loaded.max_length)
    title = f"Thresholds tuned on {found.name} ({len(found.rows):,} rows, {reading})"
    show(_table(title, tuning, before))
    next_command(f"gkiller evaluate {out or model}")


def _store(target: Path, loaded: AnyModel, thresholds: dict[str, Any], flag_labels: Sequence[str]) -> None:
    """Write the model with its thresholds; the cards of the model and of its run say so."""
    from gkiller.evaluation.source import run_of
    from gkiller.model.directory import rewrite_model, stored_files
    from gkiller.model.layout import CARD
    from gkiller.training.report import update_card, with_thresholds

    some = flag_labels if len(flag_labels) < len(loaded.labels) else ()
    card = with_thresholds(stored_files(loaded, (CARD,))[CARD].decode("utf-8"), thresholds, some)
    rewrite_model(target, loaded, thresholds=thresholds, card=card, flag_labels=flag_labels)
    run = run_of(target)
    if run is not None:
        update_card(run / "README.md", thresholds, some)


def _table(title: str, tuning: Tuning, before: Mapping[str, Any]) -> Table:
    rows: list[tuple[object, ...]] = [
        (label, t.positives, before[label]["value"], t.value, t.target, t.precision, t.recall, t.f1)
        for label, t in tuning.tuned.items()
    ]
    flagged = tuning.flagged
    if len(flagged.labels) > 1 and flagged.n:
        figures = flagged.precision, flagged.recall
        rows.append(("flagged", flagged.positives, None, None, "any of them", *figures, None))
    header = ("label", "pos.", "before", "now", "target", "prec.", "recall", "F1")
    caption = f"a comment is flagged by: {', '.join(flagged.labels)}"
    return results_table(title, header, rows, caption=caption)
