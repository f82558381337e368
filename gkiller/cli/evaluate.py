"""``gkiller evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from gkiller.cli.console import emit_json, next_command, note, progress, show, warn
from gkiller.cli.options import DATA_HELP, NOT_TUNED, AnyModelArgument, JsonFlag, SplitOption, place, with_settings
from gkiller.cli.tables import evaluation_table, synthetic_warning

if TYPE_CHECKING:
    from gkiller.settings import Resolved

OutOption = Annotated[
    Path | None, place("Where reports and plots go; without it the model's run, for the run's own data.")
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
    for line in found.dataset.manifest.get("notes", ()):
        note(line)
    missing = [f"not measured, as the data lack them: {', '.join(measured.missing)}"] if measured.missing else []
    for line in [*warnings, *missing, *synthetic_warning(found)]:
        warn(line)
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
