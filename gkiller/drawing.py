"""What all plots share: a figure without global state, colours, safe texts and a PNG with fixed bytes."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

from gkiller.private import matplotlib_apart
from gkiller.storage.files import write_bytes, writing

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from matplotlib.axes import Axes

with matplotlib_apart():
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.font_manager import findfont, get_font

# Okabe and Ito's colours for all kinds of colour vision, without their yellow, which is faint on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
Dash: TypeAlias = Literal["solid"] | tuple[float, Sequence[float]]
DASHES: tuple[Dash, ...] = ("solid", (0, (5, 1.5)), (0, (1.5, 1)), (0, (6, 1.5, 1.5, 1.5)))
MARKERS = ("o", "s", "^", "D", "v", ">", "X")
GREY = "#6B6B6B"
PALE = "#D9D9D9"
DPI = 130
LONGEST_NAME = 26


def new_figure(width: float, height: float) -> Figure:
    """Return a white figure with its own canvas, in inches, laid out so that nothing overlaps."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def new_square(inches: float = 5.8) -> tuple[Figure, Axes]:
    """Return a figure with one square plot; a legend beside it widens the picture, not the plot."""
    figure = Figure(figsize=(inches, inches), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure, figure.add_axes((0.1, 0.1, 0.85, 0.85))


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG whose bytes depend on the drawing alone: no date, no program name."""
    # a figure without a layout is cut to what is drawn
    box, metadata = None if figure.get_layout_engine() else "tight", {"Software": None}
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI, bbox_inches=box, pad_inches=0.12, metadata=metadata)
    write_bytes(path, drawn.getvalue())
    return path


def colour(place: int) -> str:
    """Return the colour of the label at this place."""
    return COLOURS[place % len(COLOURS)]


def dash(place: int) -> Dash:
    """Return a line style that changes with every label and again when the colours repeat."""
    return DASHES[(place % len(COLOURS) + place // len(COLOURS)) % len(DASHES)]


def marker(place: int) -> str:
    """Return the marker of the label at this place."""
    return MARKERS[place % len(MARKERS)]


def safe(name: str) -> str:
    """Return a name that a plot can show: not parsed as a formula, in known glyphs, not too long."""
    glyphs = get_font(findfont("DejaVu Sans"))
    shown = "".join(c if c.isprintable() and glyphs.get_char_index(ord(c)) else "?" for c in name)
    shown = shown if len(shown) <= LONGEST_NAME else shown[: LONGEST_NAME - 1] + "…"
    return shown.replace("$", r"\$")


def plain(axes: Axes, title: str, x: str, y: str) -> None:
    """Give a plot its title, axis names, a faint grid and no box."""
    if title:
        axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(visible=True, color="#EBEBEB", linewidth=0.8)
    axes.set_axisbelow(True)
    for edge in ("top", "right"):
        axes.spines[edge].set_visible(False)


def shown(value: float | None, digits: int = 3) -> str:
    """Return a figure for a legend, or a dash when it is undefined."""
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def columns_for(panels: int) -> int:
    """Return how many columns a grid of this many panels has."""
    return 1 if panels == 1 else 2 if panels in (2, 4) else 3


def finite(values: Iterable[float | None]) -> list[float]:
    """Return values with NaN for None and for infinities, which a line then skips."""
    return [math.nan if v is None or not math.isfinite(v) else float(v) for v in values]
