"""``gkiller evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gkiller.cli.console import emit_json, next_command, note, progress, show, warn
from gkiller.cli.options import JsonFlag, out_place, with_settings
from gkiller.cli.tables import evaluation_table

if TYPE_CHECKING:
    from gkiller.settings import Resolved

MODEL_HELP = "A model directory, or a run that has one"
ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help=f"{MODEL_HELP}.")]
AnyModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help=f"{MODEL_HELP}; 'default' for the shipped one.")]
DATA_HELP = (
    "Labelled comments, instead of those of the model's own run: 'sample', a prepared directory, a file or "
    "folder, or a hub data set."
)
NOT_TUNED = (
    "data.sample_size",
    "evaluation.min_precision",
    "evaluation.min_recall",
    "evaluation.threshold_rule",
    "evaluation.f1_slack",
)
"""Settings that a command has no use for which measures and tunes no threshold."""


def split_help(default: str) -> str:
    """Return the help of ``--split``; ``default`` is what the command reads without it."""
    text = f"train, valid, test or all. [default: {default}; all for a single file named with --data]"
    return text.replace("[", "\\[")


SplitOption = Annotated[str | None, typer.Option("--split", metavar="SPLIT", help=split_help("test"))]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        callback=out_place,
        metavar="DIR",
        help="Where reports and plots go; without it the model's run, for the run's own data.",
    ),
]


@with_settings("data", "evaluation", without=NOT_TUNED, helps={"data.source": DATA_HELP})
def evaluate(
    resolved: Resolved,
    asked: frozenset[str],
    model: AnyModelArgument,
    split: SplitOption = None,
    out: OutOption = None,
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
    warnings = [
        *measuring_warnings(choice, found, loaded.metadata["thresholds"]),
        *evaluation.undefined(),
        *evaluation.rough(),
    ]
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
    for line in found.dataset.manifest.get("notes", ()):
        note(line)
    for line in warnings:
        warn(line)
    if measured.missing:
        warn(f"not measured, as the data lack them: {', '.join(measured.missing)}")
    if found.dataset.manifest.get("synthetic"):
        warn("these comments are synthetic: the figures say nothing about real ones")
    if json:
        emit_json({**facts, **evaluation.as_dict(), "files": written})
        return
    show(evaluation_table(evaluation, f"{source}, {found.name}, {reading_text(how.long_text, loaded.max_length)}"))
    if where is not None:
        note(f"reports and plots: {where}")
    if isinstance(loaded, DeployedModel):
        note(f"scored with the {loaded.precision} graph: this copy of the model has no weights")
        return
    next_command(f"gkiller threshold {model} --min-precision 0.9")
