"""``gkiller threshold``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gkiller.cli.console import emit_json, next_command, progress, results_table, show, stages, warn
from gkiller.cli.evaluate import DATA_HELP, AnyModelArgument, split_help
from gkiller.cli.options import JsonFlag, with_settings

if TYPE_CHECKING:
    from gkiller.settings import Resolved

SplitOption = Annotated[str | None, typer.Option("--split", metavar="SPLIT", help=split_help("valid"))]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Write a copy of the model there, and leave it as it is."),
]


@with_settings(
    "data",
    "evaluation",
    without=("data.sample_size", "evaluation.resamples"),
    helps={"data.source": DATA_HELP},
)
def threshold(
    resolved: Resolved,
    asked: frozenset[str],
    model: AnyModelArgument,
    split: SplitOption = None,
    out: OutOption = None,
    json: JsonFlag = False,
) -> None:
    """Tune a model's thresholds again, on other comments.

    For the best F1 (--threshold-rule says which), or with --min-precision or --min-recall for the best of the
    other at that target. It reads the validation split (all rows of a single file), never the test split
    unless --split names it, and stores the thresholds in the model, with what they were tuned on. Without
    --data it reads the data of the model's own run, and refuses them when they have changed since.

    A model without weights, such as the shipped one, is scored with its graph. The shipped one itself is not
    written to: --out says where its copy with the new thresholds goes.
    """
    from gkiller.deployment.deploy import target_for
    from gkiller.errors import OutputError
    from gkiller.evaluation.deployed import load_any
    from gkiller.evaluation.models import measure, tune_measured
    from gkiller.evaluation.source import choose_data, load_chosen, run_of, tuned_on, tuning_warnings
    from gkiller.model.directory import rewrite_model, stored_files
    from gkiller.model.layout import CARD, is_default
    from gkiller.model.reading import reading_text
    from gkiller.report.card import update_card, with_thresholds

    loaded = load_any(model)
    if out is None and is_default(model):
        what = "the shipped model is not written to"
        raise OutputError(what, where=model, remedy="name a directory for its copy with --out")
    assert loaded.path is not None  # it was just read from there
    target = target_for(loaded, out)
    settings, how = resolved.settings, resolved.settings.evaluation
    choice = choose_data(loaded.path, settings.data, asked)
    with stages() as on_data:
        found = load_chosen(choice, split, on_data, default="valid")
    with progress("scoring") as advance:
        measured = measure(
            loaded, found.dataset, found.rows, how.batch_size, advance, long_text=how.long_text
        )
    tuned = tune_measured(measured, how)
    before = loaded.metadata["thresholds"]
    record = tuned_on(found, how.long_text)
    new = {label: {**threshold.as_dict(), "tuned_on": record} for label, threshold in tuned.items()}
    thresholds = {**before, **new}
    card = with_thresholds(stored_files(loaded, (CARD,))[CARD].decode("utf-8"), thresholds)
    rewrite_model(target, loaded, thresholds=thresholds, card=card)
    run = run_of(target)
    if run is not None:
        update_card(run / "README.md", thresholds)
    warnings = tuning_warnings(choice, found)
    for line in warnings:
        warn(line)
    if measured.missing:
        warn(f"left as they were, as the data lack them: {', '.join(measured.missing)}")
    if json:
        reading = {"long_text": how.long_text, "max_length": loaded.max_length}
        facts = {"model": str(target), "split": found.name, "rows": len(found.rows), **reading}
        emit_json({**facts, "thresholds": thresholds, "warnings": warnings})
        return
    rows = [
        (label, t.positives, before[label]["value"], t.value, t.target, t.precision, t.recall, t.f1)
        for label, t in tuned.items()
    ]
    header = ("label", "pos.", "before", "now", "target", "prec.", "recall", "F1")
    notes = "\n".join(f"{label}: {t.note}" for label, t in tuned.items() if t.note)
    reading_told = reading_text(how.long_text, loaded.max_length)
    title = f"Thresholds tuned on {found.name} ({len(found.rows):,} rows, {reading_told})"
    show(results_table(title, header, rows, caption=notes or None))
    next_command(f"gkiller evaluate {out or model}")
