"""``gkiller threshold``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gkiller.cli.console import emit_json, next_command, progress, results_table, show, stages, warn
from gkiller.cli.evaluate import DATA_HELP, ModelArgument, split_help
from gkiller.cli.options import JsonFlag, with_settings

if TYPE_CHECKING:
    from gkiller.settings import Resolved

SplitOption = Annotated[str | None, typer.Option("--split", metavar="SPLIT", help=split_help("valid"))]


@with_settings(
    "data",
    "evaluation",
    without=("data.sample_size", "evaluation.resamples"),
    helps={"data.source": DATA_HELP},
)
def threshold(
    resolved: Resolved,
    asked: frozenset[str],
    model: ModelArgument,
    split: SplitOption = None,
    json: JsonFlag = False,
) -> None:
    """Tune a model's thresholds again, on other comments.

    For the best F1, or with --min-precision or --min-recall for the best of the other at that target. It
    reads the validation split (all rows of a single file), never the test split unless --split names it, and
    stores the thresholds in the model, with what they were tuned on. Without --data it reads the data of the
    model's own run, and refuses them when they have changed since.
    """
    from gkiller.evaluation.models import measure, tune_measured
    from gkiller.evaluation.source import choose_data, load_chosen, run_of, tuned_on, tuning_warnings
    from gkiller.model.directory import load_model, rewrite_model
    from gkiller.report.card import update_card, with_thresholds

    loaded = load_model(model)
    assert loaded.path is not None  # it was just read from there
    settings = resolved.settings
    choice = choose_data(loaded.path, settings.data, asked)
    with stages() as on_data:
        found = load_chosen(choice, split, on_data, default="valid")
    with progress("scoring") as advance:
        measured = measure(loaded, found.dataset, found.rows, settings.evaluation.batch_size, advance)
    tuned = tune_measured(measured, settings.evaluation)
    before = loaded.metadata["thresholds"]
    record = tuned_on(found)
    new = {label: {**threshold.as_dict(), "tuned_on": record} for label, threshold in tuned.items()}
    thresholds = {**before, **new}
    card = with_thresholds((loaded.path / "README.md").read_text("utf-8"), thresholds)
    rewrite_model(loaded.path, loaded, thresholds=thresholds, card=card)
    run = run_of(loaded.path)
    if run is not None:
        update_card(run / "README.md", thresholds)
    warnings = tuning_warnings(choice, found)
    for line in warnings:
        warn(line)
    if measured.missing:
        warn(f"left as they were, as the data lack them: {', '.join(measured.missing)}")
    if json:
        facts = {"model": str(loaded.path), "split": found.name, "rows": len(found.rows)}
        emit_json({**facts, "thresholds": thresholds, "warnings": warnings})
        return
    rows = [
        (label, t.positives, before[label]["value"], t.value, t.target, t.precision, t.recall, t.f1)
        for label, t in tuned.items()
    ]
    header = ("label", "pos.", "before", "now", "target", "prec.", "recall", "F1")
    notes = "\n".join(f"{label}: {t.note}" for label, t in tuned.items() if t.note)
    title = f"Thresholds tuned on {found.name} ({len(found.rows):,} rows)"
    show(results_table(title, header, rows, caption=notes or None))
    next_command(f"gkiller evaluate {model}")
