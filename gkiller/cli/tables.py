"""What the commands that measure share: tables, figures with their intervals, and how a report ends."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from gkiller.cli.console import PIPED_WIDTH, as_text, emit_json, note, results_table, show, stdout, warn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from rich.console import RenderableType
    from rich.table import Table

    from gkiller.data.load import Labelled
    from gkiller.evaluation.results import Evaluation, Figure, LabelResult, MacroResult
    from gkiller.evaluation.significance import Difference, Taught

    Blocks: TypeAlias = Callable[[int], Iterator[RenderableType]]
    """The tables of a report, for so many columns."""

Intervals: TypeAlias = Literal["in brackets", "below the figures", "nowhere"]
WAYS: tuple[Intervals, ...] = ("in brackets", "below the figures", "nowhere")
"""Where intervals stand, from the widest table to the narrowest."""
NO_ROOM = "no room for {}: see --json"


def fitting(room: int, tables: Iterable[Table]) -> Table:
    """Return the first table that is no wider than ``room``, else the last one."""
    from rich.console import Console

    ruler = Console(width=10_000)
    for table in tables:
        if ruler.measure(table).maximum <= room:
            break
    return table


def with_interval(
    value: float | None,
    low: float | None,
    high: float | None,
    way: Intervals = "in brackets",
    form: str = "{:.3f}",
    between: str = "-",
) -> str:
    """Return a figure with its interval, such as "0.812 (0.790-0.834)"; "-" where it is undefined."""
    if value is None or math.isnan(value):
        return "-"
    text = form.format(value)
    if way == "nowhere" or low is None or high is None or math.isnan(low):
        return text
    ends = f"{form.format(low)}{between}{form.format(high)}"
    return f"{text}\n{ends}" if way == "below the figures" else f"{text} ({ends})"


def figure_text(figure: Figure, way: Intervals = "in brackets") -> str:
    """Return a figure with its interval."""
    return with_interval(figure.value, figure.low, figure.high, way)


def signed(d: Difference, way: Intervals = "in brackets", form: str = "{:+.3f}", between: str = " to ") -> str:
    """Return a difference with its interval, such as "-0.003 (-0.010 to +0.004)"."""
    return with_interval(d.delta, d.low, d.high, way, form, between)


def excerpt(text: str, most: int) -> str:
    """Return the beginning of a comment, on one line of at most so many characters."""
    flat = " ".join(text.split())
    return flat if len(flat) <= most else flat[: most - 3] + "..."


def evaluation_table(evaluation: Evaluation, title: str, *, width: int | None = None) -> Table:
    """Return the headline figures of an evaluation, a row per label and one for their mean.

    Where the whole table does not fit in ``width`` (the console's by default), intervals move below their figures,
    or precision, recall and F1 at 0.5 are left out; the caption says so.
    """
    shapes: list[tuple[bool, Intervals]] = [(True, way) for way in WAYS[:2]] + [(False, way) for way in WAYS]
    return fitting(width or stdout().width, (_table(evaluation, title, *shape) for shape in shapes))


def _table(evaluation: Evaluation, title: str, everything: bool, way: Intervals) -> Table:
    rows = [_row(result.label, str(result.positives), result, everything, way) for result in evaluation.labels]
    if len(evaluation.labels) > 1:
        rows.append(_row("macro", "", evaluation.macro, everything, way))
    header = ["label", "pos.", "cut", "F1", "ROC-AUC", "AP"]
    if everything:
        header = ["label", "pos.", "cut", "F1", "prec.", "recall", "ROC-AUC", "AP", "F1@0.5"]
    lines = [f"n = {evaluation.rows:,}{', weighted' if evaluation.weighted else ''}"]
    if way != "nowhere":
        lines[0] += f"; {way} {evaluation.confidence:.0%} intervals"
        lines.append(f"(bootstrap over rows, {evaluation.resamples:,} resamples)")
    gone = "precision, recall, F1@0.5" + (", intervals" if way == "nowhere" else "")
    caption = " ".join(lines) if everything else "\n".join([*lines, NO_ROOM.format(gone)])
    return results_table(title, header, rows, caption=caption)


def _row(
    name: str, positives: str, result: LabelResult | MacroResult, everything: bool, way: Intervals
) -> tuple[str, ...]:
    stored = result.stored
    threshold = "" if stored.threshold is None else f"{stored.threshold:.3f}"
    f1, roc_auc, ap = (figure_text(figure, way) for figure in (stored.f1, result.roc_auc, result.ap))
    if not everything:
        return (name, positives, threshold, f1, roc_auc, ap)
    precision, recall, half = (
        figure_text(figure, "nowhere") for figure in (stored.precision, stored.recall, result.half.f1)
    )
    return (name, positives, threshold, f1, precision, recall, roc_auc, ap, half)


def teacher_table(taught: Taught, student: Evaluation) -> Table:
    """Return a teacher next to its student, a row per label that both have."""
    rows = []
    for same in taught.agreement:
        sides = [evaluation.label(same.label) for evaluation in (taught.evaluation, student)]
        plain = [figure_text(one, "nowhere") for side in sides for one in (side.stored.f1, side.ap)]
        rows.append((same.label, *plain, figure_text(same.decisions), figure_text(same.logits)))
    header = ["label", "F1", "AP", "student F1", "student AP", "equal decisions", "r of logits"]
    caption = "validation split; teacher and student each at its own threshold, tuned there"
    return results_table(f"Teacher: {taught.name}", header, rows, caption=caption)


def read_how(reading: Mapping[str, Any]) -> str:
    """Return how a side's comments were read."""
    from gkiller.tokens.batches import reading_text

    if "max_length" in reading:
        return reading_text(reading["long_text"], reading["max_length"])
    known = {"window": "long comments read in windows", "truncate": "long comments read without their end"}
    unknown = "which does not say how long comments were read"
    return f"a file of scores, {known.get(str(reading.get('long_text')), unknown)}"


def synthetic_warning(found: Labelled) -> list[str]:
    """Return a warning where the comments that were measured are synthetic."""
    warning = "these comments are synthetic: the figures say nothing about real ones"
    return [warning] if found.dataset.manifest.get("synthetic") else []


def report_text(report: Mapping[str, Any], blocks: Blocks) -> str:
    """Return a report as a text file holds it: its tables, warnings and notes."""
    lines = [*(f"warning: {line}" for line in report["warnings"]), *report["notes"]]
    return as_text(blocks(PIPED_WIDTH)) + "".join(f"{line}\n" for line in lines)


def tell(report: Mapping[str, Any], blocks: Blocks, written: str, *, as_json: bool) -> None:
    """Warn, print a report, and say where it was ``written``, if it was."""
    warn(*report["warnings"])
    if as_json:
        emit_json(report)
        return
    note(*report["notes"])
    show(*blocks(stdout().width))
    if written:
        note(written)
