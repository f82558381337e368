"""Tables that several commands draw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from gkiller.cli.console import results_table, stdout

if TYPE_CHECKING:
    from rich.table import Table

    from gkiller.evaluation.results import Evaluation, Figure, LabelResult, MacroResult
    from gkiller.evaluation.significance import Taught


class _Shape(NamedTuple):
    """How much of an evaluation a table holds: all columns or the main ones, and where intervals stand."""

    everything: bool
    intervals: Literal["beside", "below", "nowhere"]


_SHAPES = (
    _Shape(everything=True, intervals="beside"),
    _Shape(everything=True, intervals="below"),
    _Shape(everything=False, intervals="beside"),
    _Shape(everything=False, intervals="below"),
    _Shape(everything=False, intervals="nowhere"),
)
"""From the widest to the narrowest."""


def evaluation_table(evaluation: Evaluation, title: str, *, width: int | None = None) -> Table:
    """Return the headline figures of an evaluation, a row per label and one for their mean.

    Args:
        width: the columns that there are to draw in; the console's by default. Where the whole table does not fit,
            intervals move below their figures, or precision, recall and F1 at 0.5 are left out; the caption says so.
    """
    from rich.console import Console

    ruler = Console(width=10_000)
    room = stdout().width if width is None else width
    for shape in _SHAPES:
        table = _table(evaluation, title, shape)
        if ruler.measure(table).maximum <= room:
            break
    return table


def _table(evaluation: Evaluation, title: str, shape: _Shape) -> Table:
    rows = [_row(result.label, str(result.positives), result, shape) for result in evaluation.labels]
    if len(evaluation.labels) > 1:
        rows.append(_row("macro", "", evaluation.macro, shape))
    header = ["label", "pos.", "cut", "F1", "ROC-AUC", "AP"]
    if shape.everything:
        header = ["label", "pos.", "cut", "F1", "prec.", "recall", "ROC-AUC", "AP", "F1@0.5"]
    return results_table(title, header, rows, caption=_caption(evaluation, shape))


def _caption(evaluation: Evaluation, shape: _Shape) -> str:
    """Return what the figures stand on, and what the table leaves out."""
    place = {"beside": "in brackets", "below": "below the figures", "nowhere": ""}[shape.intervals]
    lines = [f"n = {evaluation.rows:,}{', weighted' if evaluation.weighted else ''}"]
    if place:
        lines[0] += f"; {place} {evaluation.confidence:.0%} intervals"
        lines.append(f"(bootstrap over rows, {evaluation.resamples:,} resamples)")
    if shape.everything:
        return " ".join(lines)
    gone = "precision, recall, F1@0.5" + ("" if place else ", intervals")
    return "\n".join([*lines, f"no room for {gone}: see --json"])


def _row(name: str, positives: str, result: LabelResult | MacroResult, shape: _Shape) -> tuple[str, ...]:
    stored = result.stored
    threshold = "" if stored.threshold is None else f"{stored.threshold:.3f}"

    def main(figure: Figure) -> str:
        text = figure_text(figure, interval=shape.intervals != "nowhere")
        return below(text) if shape.intervals == "below" else text

    f1, roc_auc, ap = main(stored.f1), main(result.roc_auc), main(result.ap)
    if not shape.everything:
        return (name, positives, threshold, f1, roc_auc, ap)
    precision, recall, half = (
        figure_text(figure, interval=False) for figure in (stored.precision, stored.recall, result.half.f1)
    )
    return (name, positives, threshold, f1, precision, recall, roc_auc, ap, half)


def teacher_table(taught: Taught, student: Evaluation) -> Table:
    """Return a teacher beside its student, a row per label that both have."""
    rows = []
    for same in taught.agreement:
        sides = [evaluation.label(same.label) for evaluation in (taught.evaluation, student)]
        plain = [figure_text(one, interval=False) for side in sides for one in (side.stored.f1, side.ap)]
        rows.append((same.label, *plain, figure_text(same.decisions), figure_text(same.logits)))
    header = ["label", "F1", "AP", "student F1", "student AP", "equal decisions", "r of logits"]
    return results_table(
        f"Teacher: {taught.name}",
        header,
        rows,
        caption="validation split; teacher and student each at its own threshold, tuned there",
    )


def below(text: str) -> str:
    """Return a figure's text with its interval in a line of its own."""
    return text.replace(" (", "\n").rstrip(")")


def figure_text(figure: Figure, *, interval: bool = True) -> str:
    """Return a figure, with its interval when wanted, such as "0.812 (0.790-0.834)"."""
    if figure.value is None:
        return "-"
    if not interval or figure.low is None or figure.high is None:
        return f"{figure.value:.3f}"
    return f"{figure.value:.3f} ({figure.low:.3f}-{figure.high:.3f})"
