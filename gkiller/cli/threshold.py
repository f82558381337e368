"""``gkiller threshold``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gkiller.cli.console import emit_json, next_command, progress, results_table, show, stages, warn
from gkiller.cli.evaluate import ModelArgument, SplitOption
from gkiller.cli.options import JsonFlag, with_settings

if TYPE_CHECKING:
    from gkiller.settings import Resolved


@with_settings("data", "evaluation", without=("data.sample_size", "evaluation.resamples"))
def threshold(
    resolved: Resolved,
    model: ModelArgument,
    split: SplitOption = None,
    json: JsonFlag = False,
) -> None:
    """Tune a model's thresholds again, on other comments.

    For the best F1, or with --min-precision or --min-recall for the best of the other at that target. It
    reads the validation split (all rows of a single file), never the test split unless --split names it, and
    stores the thresholds in the model.
    """
    from gkiller.data.labelled import load_labelled
    from gkiller.evaluation.models import data_of, measure, run_of, tune_measured
    from gkiller.model.directory import load_model, rewrite_model
    from gkiller.report.card import with_thresholds

    loaded = load_model(model)
    assert loaded.path is not None  # it was just read from there
    settings = resolved.settings
    given = resolved.origins["data.source"] != "default"
    data = settings.data if given else data_of(run_of(loaded.path), loaded.path)
    with stages() as on_data:
        found = load_labelled(data, split, on_data, default="valid")
    with progress("scoring") as advance:
        measured = measure(loaded, found.dataset, found.rows, settings.evaluation.batch_size, advance)
    tuned = tune_measured(measured, settings.evaluation)
    before = loaded.metadata["thresholds"]
    thresholds = {**before, **{label: found_.as_dict() for label, found_ in tuned.items()}}
    card = with_thresholds((loaded.path / "README.md").read_text("utf-8"), thresholds)
    rewrite_model(loaded.path, loaded, thresholds=thresholds, card=card)
    if measured.missing:
        warn(f"left as they were, as the data lack them: {', '.join(measured.missing)}")
    if json:
        emit_json({"model": str(loaded.path), "split": found.name, "thresholds": thresholds})
        return
    rows = [
        (label, before[label]["value"], t.value, t.target, t.precision, t.recall, t.f1, t.positives, t.note)
        for label, t in tuned.items()
    ]
    header = ("label", "before", "now", "target", "precision", "recall", "F1", "positives", "note")
    show(results_table(f"Thresholds tuned on {found.name} ({len(found.rows):,} rows)", header, rows))
    next_command(f"gkiller evaluate {model}")
