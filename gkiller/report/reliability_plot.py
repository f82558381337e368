"""Reliability diagrams: how often a score comes true."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gkiller.evaluation.checks import FloatArray
from gkiller.evaluation.ranking import Reliability, reliability_of
from gkiller.report.drawing import (
    GREY,
    PALE,
    colour,
    columns_for,
    marker,
    new_figure,
    plain,
    save,
    shown,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.figure import SubFigure

    from gkiller.report.curves import Curve


def write_reliability(curves: Sequence[Curve], bins: int, path: Path) -> Path:
    """Draw a panel per label: share of positives against mean score, and the scores' histogram below."""
    columns = columns_for(len(curves))
    rows = -(-len(curves) // columns)
    figure = new_figure(max(4.6, 3.5 * columns), 4.6 * rows + 0.5)
    figure.suptitle("Reliability (bars: 95 % intervals)", x=0.01, ha="left", fontsize=11, fontweight="bold")
    panels = figure.subfigures(rows, columns, squeeze=False)
    for i, panel in enumerate(panels.flat):
        if i < len(curves):
            _reliability_panel(panel, curves[i], bins)
    return save(figure, path)


def _reliability_panel(panel: SubFigure, curve: Curve, bins: int) -> None:
    top, bottom = panel.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    summed = reliability_of(curve.ranking, bins)
    tint = colour(curve.place)
    top.plot([0, 1], [0, 1], color=PALE, linewidth=1, zorder=1)
    full = summed.weight > 0
    if full.any():
        low, high = _wilson(summed, full)
        top.vlines(summed.score[full], low, high, color=tint, linewidth=1.2, alpha=0.55, zorder=2)
        top.plot(
            summed.score[full],
            summed.rate[full],
            color=tint,
            marker=marker(curve.place),
            markersize=5.5,
            markeredgecolor="white",
            linewidth=1.6,
            zorder=3,
        )
    else:
        top.text(0.5, 0.5, "no known row", color=GREY, ha="center", bbox={"color": "white"})
    for axes in (top, bottom):
        axes.axvline(curve.threshold, color=GREY, linewidth=1, linestyle=(0, (4, 2)), zorder=1)
    plain(top, "", "", "Share of positives")
    top.set_title(
        f"{curve.name}\nECE {shown(curve.figures[3])}, Brier {shown(curve.figures[2])}",
        loc="left",
        fontsize=9,
    )
    top.set_xlim(-0.01, 1.01)
    top.set_ylim(-0.02, 1.02)
    bottom.bar(
        summed.edges[:-1], summed.rows, width=np.diff(summed.edges), align="edge", color=tint, alpha=0.75
    )
    plain(bottom, "", "Score (dashed: threshold)", "Rows")
    # Limits first: a logarithmic axis cannot find its own when all bars are empty.
    bottom.set_ylim(0.7, max(10.0, float(summed.rows.max(initial=1)) * 2))
    bottom.set_yscale("log")
    panel.align_ylabels()


def _wilson(summed: Reliability, full: Any) -> tuple[FloatArray, FloatArray]:
    """Return 95 % intervals of each full bin's share of positives.

    Wilson's score interval (1927), with the effective number of rows where rows are weighted.
    """
    z = 1.959964
    n, p = summed.effective[full], summed.rate[full]
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return centre - half, centre + half
