"""The picture of an inspection: label rates and lengths, per split."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from gkiller.errors import OutputError, SettingsError
from gkiller.files import write_bytes
from gkiller.private import matplotlib_apart
from gkiller.wording import visible

# What is written about the file itself: the program's name, but no date, so that the bytes stay the same.
METADATA: dict[str, dict[str, str | None]] = {
    ".png": {"Software": "gkiller"},
    ".svg": {"Creator": "gkiller", "Date": None},
    ".pdf": {"Creator": "gkiller", "CreationDate": None},
}
"""The formats of a plot, by suffix."""


def check_plot(path: Path) -> None:
    """Refuse a plot's name before any work is done for it.

    Raises:
        SettingsError: its suffix names no format that a plot can have.
        OutputError: its folder is not there.

    """
    if path.suffix.lower() not in METADATA:
        what = f"a plot cannot be {path.suffix!r}" if path.suffix else "the plot's name has no suffix"
        stem = path.with_suffix("") if path.name else Path("plot")
        remedy = f"name it {stem}.png, {stem}.svg or {stem}.pdf"
        raise SettingsError(what, where=f"--plot {path}", remedy=remedy)
    if not path.parent.is_dir():
        what = f"there is no folder {str(path.parent)!r}"
        raise OutputError(what, where=f"--plot {path}", remedy="make it first, or name another")


def plot_inspection(result: dict[str, Any], path: Path) -> None:
    """Draw the result of :func:`gkiller.data.inspect.inspect` as a PNG, SVG or PDF file, by its suffix.

    Left: the share of positive rows per label and split. Right: how long the comments are, as shares of
    their split, with the model's cut marked; the last bar holds everything longer.

    Raises:
        SettingsError: the suffix names none of these formats.
        OutputError: its folder is not there, or the file cannot be written.

    """
    check_plot(path)
    with matplotlib_apart():
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    rates, lengths = figure.subplots(1, 2)
    _draw_rates(rates, result)
    _draw_lengths(lengths, result)
    figure.suptitle(_shown(Path(str(result["source"])).name or str(result["source"])), fontsize=11)
    kind = path.suffix.lower()
    drawn = io.BytesIO()
    with rc_context({"svg.hashsalt": "gkiller"}):  # else an SVG's ids are drawn anew each time
        figure.savefig(drawn, dpi=120, format=kind.removeprefix("."), metadata=METADATA[kind])
    write_bytes(path, drawn.getvalue())


def _shown(text: str) -> str:
    """Return text that matplotlib draws as it is: a dollar sign would begin a formula."""
    return visible(text, lines=False).replace("$", r"\$")


def _draw_rates(axes: Any, result: dict[str, Any]) -> None:
    labels, splits = result["labels"], result["splits"]
    width = 0.8 / len(splits)
    for position, (name, split) in enumerate(splits.items()):
        places = [index + (position - (len(splits) - 1) / 2) * width for index in range(len(labels))]
        shares = [100 * (split["labels"][label]["rate"] or 0.0) for label in labels]
        bars = axes.bar(places, shares, width=width, label=_shown(f"{name} ({split['rows']:,} rows)"))
        axes.bar_label(bars, fmt="%.3g", fontsize=6, padding=1)
    axes.set_xticks(range(len(labels)), list(map(_shown, labels)), rotation=20, ha="right")
    axes.set_ylabel("positive rows, % of known")
    axes.set_title("Label rates", fontsize=10)
    axes.margins(y=0.12)
    axes.legend(fontsize=8)


def _draw_lengths(axes: Any, result: dict[str, Any]) -> None:
    unit, cut = result["unit"], result["max_length"]
    for name, split in result["splits"].items():
        counts = [100 * count / split["rows"] for count in split["histogram"]["counts"]]
        share = 100 * split["lengths"]["truncated_share"]
        axes.stairs(counts, split["histogram"]["edges"], label=_shown(f"{name} ({share:.1f} % over {cut})"))
    axes.axvline(cut, color="black", linestyle="--", linewidth=1)
    axes.annotate(
        f"cut at {cut}", (cut, 1), xycoords=("data", "axes fraction"), xytext=(4, -90),
        textcoords="offset points", fontsize=8, va="top",
    )  # fmt: skip
    axes.set_xlabel(f"{unit} per comment (the last bar holds all longer ones)")
    axes.set_ylabel("rows, % of the split")
    axes.set_title("Lengths", fontsize=10)
    axes.legend(fontsize=8, loc="upper center")
