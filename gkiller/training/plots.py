"""How a run went, epoch by epoch, from the rows of its metrics.jsonl."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gkiller.drawing import COLOURS, GREY, finite, new_figure, plain, save
from gkiller.training.phases import CANDIDATES, phase_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


PHASE_SHADES = {"neuron": "#E3EEF6", "dendrite": "#FBE9DC", "joint": "#E0F2EC"}
OTHER_SHADE = "#F0F0F0"
BLUE, VERMILLION, GREEN, PURPLE = COLOURS[:4]
LINE_PIXELS = 17.0  # height of a phase name's line


@dataclass(frozen=True)
class _Span:
    """Epochs first..last of one phase, or of one part of it."""

    phase: str
    dendrites: int
    first: int
    last: int
    trains: str = ""


def write_training_plots(metrics: Sequence[Mapping[str, Any]], directory: Path) -> list[Path]:
    """Write training.png (loss and score) and schedule.png (learning rate and speed), return their paths.

    Where dendrites were trained by correlation, training.png shows the candidates' correlation apart from
    the loss.

    Args:
        metrics: rows of metrics.jsonl, one per epoch; a repeated epoch (after a resume) counts by its last
            row, and a missing, null or infinite value leaves a gap.

    Returns:
        The paths, or an empty list when there are no epochs yet.
    """
    rows = sorted({int(row["epoch"]): row for row in metrics}.values(), key=lambda row: int(row["epoch"]))
    if not rows:
        return []
    spans = _spans(rows)
    return [
        _training(rows, spans, directory / "training.png"),
        _schedule(rows, spans, directory / "schedule.png"),
    ]


def _spans(rows: Sequence[Mapping[str, Any]]) -> list[_Span]:
    """Cut the epochs into phases; a second dendrite phase is a span of its own."""
    spans: list[_Span] = []
    before: Mapping[str, Any] | None = None
    for row in rows:
        epoch, dendrites = int(row["epoch"]), int(row.get("dendrites", 0))
        same = (
            before is not None
            and row["phase"] == before["phase"]
            and int(row.get("phase_epoch", epoch)) > int(before.get("phase_epoch", epoch - 1))
        )
        if same:
            spans[-1] = replace(spans[-1], dendrites=dendrites, last=epoch)
        else:
            spans.append(_Span(str(row["phase"]), dendrites, epoch, epoch, str(row.get("trains", ""))))
        before = row
    return spans


def _column(rows: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    return finite(row.get(key) for row in rows)


def _line(axes: Axes, rows: Sequence[Mapping[str, Any]], key: str, tint: str, label: str, mark: str) -> None:
    """Draw one column; an empty label stays out of the legend."""
    axes.plot(
        [int(row["epoch"]) for row in rows],
        _column(rows, key),
        color=tint,
        label=label or None,
        marker=mark,
        markersize=5 if len(rows) <= 40 else 3,  # a lone epoch must show
        markeredgecolor="white",
        linewidth=1.8,
        linestyle="solid" if mark == "o" else (0, (5, 1.5)),
        zorder=3,
    )


def _training(rows: Sequence[Mapping[str, Any]], spans: Sequence[_Span], path: Path) -> Path:
    rows = [_apart(row) for row in rows]
    correlated = any("correlation" in row for row in rows)
    figure = new_figure(9.0, 8.0 if correlated else 6.4)
    heights = (2.0, 2.0, 1.0) if correlated else (1.0, 1.0)
    panels = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    loss, score = panels[:2]
    _line(loss, rows, "train_loss", BLUE, "training", "o")
    _line(loss, rows, "valid_loss", VERMILLION, "validation", "s")
    plain(loss, "", "", "Loss")
    _line(score, rows, "valid_ap", GREEN, "average precision", "o")
    _line(score, rows, "valid_f1", PURPLE, "F1 at 0.5", "s")
    plain(score, "", "" if correlated else "Epoch", "Validation score (macro)")
    _mark_best(score, rows)
    if correlated:
        _line(panels[2], rows, "correlation", BLUE, "candidates with\nthe neurons' error", "o")
        plain(panels[2], "", "Epoch", "Correlation")
    return _finish(figure, panels, spans, path)


def _apart(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a row whose loss is the task's or none: candidates lower minus their mean correlation."""
    if row.get("trains") != CANDIDATES:
        return row
    loss = row.get("train_loss")
    return {**row, "train_loss": None, "correlation": None if loss is None else -loss}


def _schedule(rows: Sequence[Mapping[str, Any]], spans: Sequence[_Span], path: Path) -> Path:
    figure = new_figure(9.0, 5.2)
    rate, speed = figure.subplots(2, 1, sharex=True)
    # Apart by phase: the rate jumps at a switch, it does not glide.
    for i, span in enumerate(spans):
        part = [row for row in rows if span.first <= int(row["epoch"]) <= span.last]
        _line(rate, part, "lr", BLUE, "" if i else "learning rate", "o")
    plain(rate, "", "", "Learning rate")
    if all(value > 0 for value in _column(rows, "lr")):
        rate.set_yscale("log")
    _line(speed, rows, "rows_per_second", VERMILLION, "training speed", "s")
    plain(speed, "", "Epoch", "Rows per second")
    known = [value for value in _column(rows, "rows_per_second") if value > 0]
    speed.set_ylim(0, 1.15 * max(known, default=1.0))
    return _finish(figure, (rate, speed), spans, path)


def _mark_best(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """Put a star on the epoch that the run kept: the last row that was the best so far."""
    best = [row for row in rows if row.get("best") and finite([row.get("valid_ap")])[0] == row["valid_ap"]]
    if best:
        axes.plot(
            [int(best[-1]["epoch"])],
            [float(best[-1]["valid_ap"])],
            marker="*",
            markersize=15,
            color=GREEN,
            markeredgecolor="black",
            markeredgewidth=0.8,
            linestyle="none",
            label=f"best, epoch {int(best[-1]['epoch'])}",
            zorder=5,
        )


def _finish(figure: Figure, panels: Sequence[Axes], spans: Sequence[_Span], path: Path) -> Path:
    """Shade the phases, mark the switches, name the phases above the first panel and save."""
    from matplotlib.ticker import MaxNLocator

    for axes in panels:
        for span in spans:
            shade = PHASE_SHADES.get(span.phase, OTHER_SHADE)
            axes.axvspan(span.first - 0.5, span.last + 0.5, color=shade, linewidth=0, zorder=0)
        for span in spans[1:]:
            axes.axvline(span.first - 0.5, color=GREY, linewidth=1.2, linestyle=(0, (4, 2)), zorder=2)
        axes.set_xlim(spans[0].first - 0.5, spans[-1].last + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0, frameon=False, fontsize=9)
    _name_phases(figure, panels[0], spans)
    return save(figure, path)


def _name_phases(figure: Figure, axes: Axes, spans: Sequence[_Span]) -> None:
    """Write each phase's name above its band, a line higher where it would touch another name."""
    figure.draw_without_rendering()
    ends: list[float] = []
    for span in spans:
        text = axes.annotate(
            phase_name(span.phase, span.trains, span.dendrites),
            ((span.first + span.last) / 2, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 4),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=9,
            color="#333333",
        )
        box = text.get_window_extent()
        level = next((i for i, end in enumerate(ends) if box.x0 > end + 6), len(ends))
        if level == len(ends):
            ends.append(box.x1)
        ends[level] = box.x1
        text.set_position((0, 4 + level * LINE_PIXELS * 72 / figure.dpi))
