"""What ``gkiller compare`` draws."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from gkiller.cli.console import results_table, stdout
from gkiller.errors import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from rich.console import RenderableType
    from rich.table import Table

    from gkiller.evaluation.comparison import Comparison, SliceComparison
    from gkiller.evaluation.sides import ScoredSide
    from gkiller.evaluation.significance import Difference

TITLES = {"f1": "F1", "ap": "AP", "roc_auc": "ROC-AUC"}
EXCERPT = 60


def comparison_blocks(
    comparison: Comparison, a: ScoredSide, b: ScoredSide, title: str, *, width: int | None = None
) -> Iterator[RenderableType]:
    """Yield the whole comparison, block by block.

    Args:
        comparison: what to show.
        a: the first side.
        b: the second side.
        title: what was compared on.
        width: the columns that there are to draw in; the console's by default.
    """
    room = stdout().width if width is None else width
    yield _sides(comparison, a, b)
    yield fitting(room, (_figures(comparison, title, intervals=shown) for shown in (True, False)))
    yield from _verdicts(comparison)
    yield fitting(room, (_decisions(comparison, everything=shown) for shown in (True, False)))
    choices = (tuple(TITLES), ("f1", "ap"), ("f1",), ())
    yield fitting(room, (_slices(comparison, shown) for shown in choices))
    if comparison.examples:
        yield _examples(comparison)


def fitting(room: int, tables: Iterable[Table]) -> Table:
    """Return the first table that is no wider than ``room``, else the last one."""
    from rich.console import Console

    ruler = Console(width=10_000)
    *wide, last = tables
    return next((table for table in wide if ruler.measure(table).maximum <= room), last)


def _sides(comparison: Comparison, a: ScoredSide, b: ScoredSide) -> Table:
    rows = [
        (letter, side.name, one.label, f"{side.thresholds[one.label]:.4f}", side.origins[one.label])
        for letter, side in (("A", a), ("B", b))
        for one in comparison.labels
    ]
    told = "\n".join(f"{letter}: {read_how(side.reading)}" for letter, side in (("A", a), ("B", b)))
    return results_table("Sides", ("", "scores of", "label", "cut", "which is"), rows, caption=told)


def read_how(reading: Mapping[str, Any]) -> str:
    """Return how a side's comments were read."""
    from gkiller.model.reading import reading_text

    if "max_length" in reading:
        return reading_text(reading["long_text"], reading["max_length"])
    known = {"window": "long comments read in windows", "truncate": "long comments read without their end"}
    unknown = "which does not say how long comments were read"
    return f"a file of scores, {known.get(str(reading.get('long_text')), unknown)}"


def _figures(comparison: Comparison, title: str, *, intervals: bool) -> Table:
    rows = []
    for one in comparison.labels:
        for name, text in TITLES.items():
            d = one.paired.differences[name]
            delta = signed(d, interval=intervals)
            rows.append((one.label, text, _number(d.a), _number(d.b), delta, _p(one.p_holm[name])))
    caption = (
        f"n = {comparison.rows:,}{', weighted' if comparison.weighted else ''}; "
        f"{'in brackets ' if intervals else 'below, '}{comparison.confidence:.0%} intervals "
        f"(paired bootstrap, {comparison.resamples:,} resamples); "
        f"p: of the same draws, at least {2 / (comparison.resamples + 1):.4f} each{_holm(comparison)}"
    )
    return results_table(title, ("label", "figure", "A", "B", "A - B", "p"), rows, caption=caption)


def _verdicts(comparison: Comparison) -> Iterator[RenderableType]:
    from rich.text import Text

    yield Text(f"\nDoes A keep within {100 * comparison.margin:g} % of B?")
    for one in comparison.labels:
        for name, text in TITLES.items():
            yield Text(f"  {one.label} {text}: {one.verdicts[name].text}")
    yield Text("")


def _holm(comparison: Comparison) -> str:
    """Say that p-values are adjusted for the labels, where they are several."""
    return f", adjusted for {len(comparison.labels)} labels (Holm)" if len(comparison.labels) > 1 else ""


def _decisions(comparison: Comparison, *, everything: bool) -> Table:
    rows = []
    for one in comparison.labels:
        (neither, only_b), (only_a, both) = one.paired.agreement.tolist()
        share = (both + neither) / one.paired.n if one.paired.n else math.nan
        tests = one.paired.mcnemar
        right = (tests.only_a_right, tests.only_b_right, _p(one.p_holm["mcnemar"]))
        cells = (both, only_a, only_b, neither) if everything else ()
        rows.append((one.label, *cells, f"{share:.1%}", *right))
    header = ("label", *(("both +", "A +", "B +", "both -") if everything else ()), "agree")
    header = (*header, "A right", "B right", "p")
    caption = "rows, unweighted; A right: A alone is; p: McNemar's exact test" + _holm(comparison)
    return results_table("Decisions", header, rows, caption=caption)


def _slices(comparison: Comparison, shown: Sequence[str]) -> Table:
    several = len(comparison.labels) > 1

    def row(one: SliceComparison) -> tuple[object, ...]:
        deltas = [signed(one.paired.differences[name], "{:+.3f}", ", ") for name in shown]
        tests = one.paired.mcnemar
        name = f"{one.column}: {one.value}"
        first = (name, one.label) if several else (name,)
        sizes = (one.paired.n, one.paired.positives)
        return (*first, *sizes, *deltas, tests.only_a_right, tests.only_b_right, _p(one.p_holm))

    header = ["slice", *(["label"] if several else []), "n", "pos."]
    header += [f"{TITLES[name]}, A - B" for name in shown] + ["A right", "B right", "p"]
    caption = (
        f"length: in characters; p: McNemar's, adjusted for {len(comparison.slices)} slices (Holm); "
        "intervals: of one slice at a time"
    )
    if len(shown) < len(TITLES):
        caption += "\nno room for all differences: see --json"
    return results_table("Slices", header, [row(one) for one in comparison.slices], caption=caption)


def _examples(comparison: Comparison) -> Table:
    rows = [
        (
            one.row,
            one.label,
            one.truth,
            f"{one.a:.3f}{'+' if one.flag_a else ''}",
            f"{one.b:.3f}{'+' if one.flag_b else ''}",
            _excerpt(one.text),
        )
        for one in comparison.examples
    ]
    header = ("row", "label", "truth", "A", "B", "comment")
    caption = "decided differently, then by the difference of scores; +: at or above the side's cut"
    return results_table("Where they differ most", header, rows, caption=caption)


def _excerpt(text: str) -> str:
    flat = one_line(ValueError(text)) if text.strip() else "(empty)"
    return flat if len(flat) <= EXCERPT else flat[: EXCERPT - 3] + "..."


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


def signed(d: Difference, form: str = "{:+.4f}", between: str = " to ", *, interval: bool = True) -> str:
    """Return a difference, with its interval when wanted, such as "-0.0031 (-0.0102 to +0.0040)"."""
    if math.isnan(d.delta):
        return "-"
    text = form.format(d.delta)
    return (
        text
        if math.isnan(d.low) or not interval
        else f"{text} ({form.format(d.low)}{between}{form.format(d.high)})"
    )


def _p(value: float) -> str:
    return "-" if math.isnan(value) else ("< 0.0001" if value < 1e-4 else f"{value:.4f}")
