"""What ``export`` and ``quantize`` share: rows for the gate, and how its figures look."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from gkiller.cli.console import emit_json, next_command, progress, results_table, show, warn
from gkiller.cli.evaluate import DATA_HELP, split_help
from gkiller.cli.options import with_settings
from gkiller.errors import ParityError, SettingsError
from gkiller.wording import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rich.table import Table

    from gkiller.data.load import Labelled
    from gkiller.deployment.deploy import Exported
    from gkiller.deployment.parity import ParityRows
    from gkiller.model.directory import LoadedModel
    from gkiller.settings import Resolved

gated = with_settings("data", "deployment", without=("data.sample_size",), helps={"data.source": DATA_HELP})
"""Gives a command the gate's limits, and the data that it compares on."""

COPY_HELP = "write a copy of the model there instead of adding to it"
SplitOption = Annotated[str | None, typer.Option("--split", metavar="SPLIT", help=split_help("valid"))]


def gate_rows(resolved: Resolved, asked: frozenset[str], loaded: LoadedModel, split: str | None) -> ParityRows:
    """Return validation comments with the trained model's scores: of --data, or of the model's own run."""
    from gkiller.deployment.parity import parity_rows

    found = _rows(resolved, asked, loaded, split, "valid")
    missing = [label for label in loaded.labels if label not in found.dataset.labels]
    if missing:
        warn(f"compared by score alone, as the data lack them: {', '.join(missing)}")
    with progress("scoring") as advance:
        return parity_rows(loaded, found, resolved.settings.deployment.parity_rows, advance)


def _rows(resolved: Resolved, asked: frozenset[str], loaded: LoadedModel, split: str | None, default: str) -> Labelled:
    from gkiller.evaluation.source import choose_data, load_chosen

    assert loaded.path is not None  # it was just read from there
    choice = choose_data(loaded.path, resolved.settings.data, asked)
    with progress() as on_data:
        return load_chosen(choice, split, on_data, default=default)


def reference_texts(resolved: Resolved, asked: frozenset[str], loaded: LoadedModel) -> list[str]:
    """Return the training comments (all of a single file): what a vocabulary is trimmed by."""
    return _rows(resolved, asked, loaded, None, "train").rows.texts


def refuse_unused(given: Mapping[str, object], remedy: str) -> None:
    """Refuse flags that would be ignored.

    Args:
        given: values by flag; None and False where it was not given.

    Raises:
        SettingsError: one was given.
    """
    unused = [flag for flag, value in given.items() if value is not None and value is not False]
    if unused:
        raise SettingsError("the flag would be ignored", where=unused[0], remedy=remedy)


@contextmanager
def comparing(as_json: bool) -> Iterator[Progress]:
    """Show how far the block is; and what was measured, before a refusal of the gate is reported."""
    try:
        with progress() as advance:
            yield advance
    except ParityError as error:
        if not as_json:
            show(refusal_table(error))
        raise


def tell(
    exported: Exported,
    rows: ParityRows,
    then: str,
    *,
    as_json: bool,
    tables: Sequence[Table] = (),
    facts: Mapping[str, object] | None = None,
) -> None:
    """Say what was written."""
    if as_json:
        emit_json({**exported.as_dict(), **(facts or {})})
        return
    show(*tables, exported_table(exported, rows))
    next_command(then)


def refusal_table(error: ParityError) -> Table:
    """Return the figures of a refused export, or of every refused candidate."""
    tried = error.report.get("candidates") or [{"name": "the export", "parity": error.report}]
    rows = [
        (one["name"], figures["max_difference"], flips_text(figures), figures["ap_loss"], figures["f1_loss"])
        for one in tried
        for figures in [one["parity"]]
    ]
    header = ("graph", "max |Δ score|", "flips", "AP lost", "F1 lost")
    return results_table("Refused", header, rows)


def flips_text(parity: dict[str, object]) -> str:
    """Return flips with their share."""
    return f"{parity['flips']} ({parity['flip_share']:.3%})"


def exported_table(exported: Exported, rows: ParityRows) -> Table:
    """Return what was written and how it compares, a row per label."""
    parity, limits = exported.parity, exported.limits
    lines = [(one.label, one.flips, one.f1_before, one.f1_after, one.ap_before, one.ap_after) for one in parity.labels]
    caption = (
        f"{parity.rows:,} rows of {rows.split}; max |Δ score| {parity.max_difference:.2g} "
        f"(limit {limits.score_difference:g}), flips {parity.flip_share:.3%} (limit {limits.flips:.3%})\n"
        f"{exported.graph_bytes / 1e6:.2f} MB; "
        f"{exported.total_bytes / 1e6:.2f} MB with all files needed to predict"
    )
    header = ("label", "flips", "F1", "F1 exported", "AP", "AP exported")
    return results_table(f"{exported.file} ({exported.precision})", header, lines, caption=caption)
