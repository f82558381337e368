"""Tables that several commands draw."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gkiller.cli.console import results_table

if TYPE_CHECKING:
    from rich.table import Table

    from gkiller.evaluation.results import Evaluation, Figure, LabelResult, MacroResult


def evaluation_table(evaluation: Evaluation, title: str) -> Table:
    """Return the headline figures of an evaluation, a row per label and one for their mean."""
    rows = [_row(result.label, str(result.positives), result) for result in evaluation.labels]
    if len(evaluation.labels) > 1:
        rows.append(_row("macro", "", evaluation.macro))
    caption = (
        f"n = {evaluation.rows:,}{', weighted' if evaluation.weighted else ''}; in brackets "
        f"{evaluation.confidence:.0%} intervals (bootstrap over rows, {evaluation.resamples:,} resamples)"
    )
    header = ("label", "pos.", "cut", "F1", "prec.", "recall", "ROC-AUC", "AP", "F1@0.5")
    return results_table(title, header, rows, caption=caption)


def _row(name: str, positives: str, result: LabelResult | MacroResult) -> tuple[str, ...]:
    stored = result.stored
    threshold = "" if stored.threshold is None else f"{stored.threshold:.3f}"
    return (
        name,
        positives,
        threshold,
        figure_text(stored.f1),
        figure_text(stored.precision, interval=False),
        figure_text(stored.recall, interval=False),
        figure_text(result.roc_auc),
        figure_text(result.ap),
        figure_text(result.half.f1, interval=False),
    )


def figure_text(figure: Figure, *, interval: bool = True) -> str:
    """Return a figure, with its interval when wanted, such as "0.812 (0.790-0.834)"."""
    if figure.value is None:
        return "-"
    if not interval or figure.low is None or figure.high is None:
        return f"{figure.value:.3f}"
    return f"{figure.value:.3f} ({figure.low:.3f}-{figure.high:.3f})"
