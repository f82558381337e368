"""Precision-recall, ROC and reliability plots of one set of scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gkiller.data.dataset import FloatArray
from gkiller.drawing import (
    GREY,
    PALE,
    colour,
    columns_for,
    dash,
    marker,
    new_figure,
    new_square,
    plain,
    safe,
    save,
    shown,
)
from gkiller.evaluation.checks import checked_tables, checked_thresholds
from gkiller.evaluation.metrics import Cuts, Plan, Ranking, Reliability, cuts_of, plan, rank, reliability_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure


@dataclass(frozen=True)
class Curve:
    """One label, ready to draw."""

    name: str
    place: int
    ranking: Ranking
    threshold: float
    figures: FloatArray  # roc_auc, ap, brier, ece, f1, precision, recall, accuracy, mcc
    cuts: Cuts

    @property
    def at_threshold(self) -> tuple[float, float]:
        """Return true and false positives' weight at the stored threshold."""
        called = int(np.count_nonzero(self.cuts.scores >= self.threshold))
        if not called:
            return 0.0, 0.0
        return float(self.cuts.tp[called - 1]), float(self.cuts.fp[called - 1])


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
        f"{curve.name}\nECE {shown(curve.figures[3])}, Brier {shown(curve.figures[2])}", loc="left", fontsize=9
    )
    top.set_xlim(-0.01, 1.01)
    top.set_ylim(-0.02, 1.02)
    bottom.bar(summed.edges[:-1], summed.rows, width=np.diff(summed.edges), align="edge", color=tint, alpha=0.75)
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


MOST_POINTS = 4000  # of a curve; more are not seen
ROOM_FOR_CLOSE_UP = 0.85  # an ROC-AUC from which the lower right corner is empty


def write_evaluation_plots(
    labels: Sequence[str],
    truth: Any,
    scores: Any,
    weights: Any | None,
    thresholds: Mapping[str, float],
    directory: Path,
    *,
    ece_bins: int = 15,
) -> list[Path]:
    """Write precision-recall.png, roc.png and reliability.png and return their paths.

    Labels whose known rows are of one class have no curve; the legend says so.

    Args:
        truth: (n, L) 0, 1, or NaN where unknown.
        scores: (n, L) probabilities.
        weights: (n,) sample weights, or None for ones.

    Raises:
        DataError, EvaluationError: see ``gkiller.evaluation.evaluate.evaluate``.
    """
    table, probabilities, mass = checked_tables(labels, truth, scores, weights)
    marks = checked_thresholds(labels, thresholds)
    whole = np.ones((1, len(table)))
    curves = []
    for i, name in enumerate(labels):
        ranking = rank(table[:, i], probabilities[:, i], mass)
        prepared: Plan = plan(ranking, (float(marks[i]),), ece_bins)
        figures = prepared.figures(whole)[0]
        curves.append(Curve(safe(name), i, ranking, float(marks[i]), figures, cuts_of(ranking)))
    return [
        _precision_recall(curves, directory / "precision-recall.png"),
        _roc(curves, directory / "roc.png"),
        write_reliability(curves, ece_bins, directory / "reliability.png"),
    ]


def _thinned(*lines: FloatArray) -> tuple[FloatArray, ...]:
    """Keep at most MOST_POINTS points of lines of equal length, the ends among them."""
    count = len(lines[0])
    if count <= MOST_POINTS:
        return lines
    kept = np.unique(np.linspace(0, count - 1, MOST_POINTS).round().astype(np.intp))
    return tuple(line[kept] for line in lines)


def _unit_square(axes: Axes) -> None:
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.02)
    axes.set_aspect("equal")


def _mark(axes: Axes, curve: Curve, x: float, y: float) -> None:
    axes.plot(
        [x],
        [y],
        marker=marker(curve.place),
        markersize=9,
        color=colour(curve.place),
        markeredgecolor="white",
        markeredgewidth=1.4,
        linestyle="none",
        zorder=5,
        clip_on=False,
    )


def _legend(axes: Axes, curves: Sequence[Curve], texts: Sequence[str], title: str) -> None:
    """Draw the legend beside the plot: each label's line, marker, figure and threshold."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [],
            [],
            color=colour(c.place) if not c.ranking.one_class else PALE,
            linestyle=dash(c.place),
            linewidth=2,
            marker=marker(c.place),
            markersize=7,
            markeredgecolor="white",
        )
        for c in curves
    ]
    axes.legend(
        handles,
        # A leading blank keeps a name with a leading underscore in the legend.
        [f" {c.name}\n {text}" for c, text in zip(curves, texts, strict=True)],
        title=title,
        title_fontsize=9,
        alignment="left",
        loc="upper left",
        bbox_to_anchor=(1.12, 1.0),
        borderaxespad=0,
        frameon=False,
        fontsize=9,
        handlelength=3,
        labelspacing=0.8,
        ncols=1 + (len(curves) - 1) // 12,
    )


def _precision_recall(curves: Sequence[Curve], path: Path) -> Path:
    figure, axes = new_square()
    grid = np.linspace(0.01, 1.0, 200)
    for level in (0.2, 0.4, 0.6, 0.8):
        recall = grid[grid > level / (2 - level)]
        axes.plot(recall, level * recall / (2 * recall - level), color=PALE, linewidth=1, zorder=1)
        axes.text(1.02, level / (2 - level), f"F1 {level}", color=GREY, fontsize=8, va="center")
    texts = []
    for curve in curves:
        cuts = curve.cuts
        if curve.ranking.one_class:
            texts.append(curve.ranking.one_class)
            continue
        recall = np.concatenate([[0.0], cuts.tp / cuts.positives])
        precision = cuts.tp / (cuts.tp + cuts.fp)
        recall, precision = _thinned(recall, np.concatenate([precision[:1], precision]))
        # Average precision is the area under these steps: precision holds back to the last recall.
        axes.step(
            recall,
            precision,
            where="pre",
            color=colour(curve.place),
            linestyle=dash(curve.place),
            linewidth=1.8,
            zorder=3,
        )
        tp, fp = curve.at_threshold
        if tp + fp > 0:
            _mark(axes, curve, tp / cuts.positives, tp / (tp + fp))
        prior = cuts.positives / (cuts.positives + cuts.negatives)
        texts.append(f"AP {shown(curve.figures[1])}, prior {shown(prior)}, at {shown(curve.threshold)}")
    plain(axes, "Precision and recall", "Recall", "Precision")
    _unit_square(axes)
    _legend(axes, curves, texts, "Marker: the stored threshold.\nPrior: what chance reaches.")
    return save(figure, path)


def _roc(curves: Sequence[Curve], path: Path) -> Path:
    figure, axes = new_square()
    axes.plot([0, 1], [0, 1], color=PALE, linewidth=1, zorder=1)
    axes.text(0.19, 0.165, "chance", color=GREY, fontsize=8, rotation=45, rotation_mode="anchor")
    drawn = [curve for curve in curves if not curve.ranking.one_class]
    _roc_lines(axes, drawn)
    plain(axes, "ROC", "False positive rate", "True positive rate (recall)")
    _unit_square(axes)
    if drawn and min(float(curve.figures[0]) for curve in drawn) >= ROOM_FOR_CLOSE_UP:
        _close_up(axes, drawn)
    texts = [
        curve.ranking.one_class or f"AUC {shown(curve.figures[0])}, at {shown(curve.threshold)}" for curve in curves
    ]
    _legend(axes, curves, texts, "Marker: the stored threshold.")
    return save(figure, path)


def _roc_lines(axes: Axes, curves: Sequence[Curve], most: float = 1.0) -> None:
    """Draw curves and markers up to a false positive rate of ``most``."""
    for curve in curves:
        cuts = curve.cuts
        false = np.concatenate([[0.0], cuts.fp / cuts.negatives])
        true = np.concatenate([[0.0], cuts.tp / cuts.positives])
        near = int(np.searchsorted(false, most, side="right")) + 1
        false, true = _thinned(false[:near], true[:near])
        axes.plot(false, true, color=colour(curve.place), linestyle=dash(curve.place), linewidth=1.8, zorder=3)
        tp, fp = curve.at_threshold
        if fp / cuts.negatives <= most:
            _mark(axes, curve, fp / cuts.negatives, tp / cuts.positives)


def _close_up(axes: Axes, curves: Sequence[Curve]) -> None:
    """Draw the left edge again, wider, in the empty corner: there the thresholds lie."""
    most = max(curve.at_threshold[1] / curve.cuts.negatives for curve in curves)
    right = min(0.5, max(0.05, 1.2 * most))
    inset = axes.inset_axes((0.47, 0.1, 0.5, 0.5), zorder=4)
    _roc_lines(inset, curves, right)
    inset.set_xlim(-0.01 * right, right)
    inset.set_ylim(-0.01, 1.02)
    plain(inset, "", "", "")
    inset.set_title("Close-up of the left edge", fontsize=8, loc="left")
    inset.tick_params(labelsize=8)
