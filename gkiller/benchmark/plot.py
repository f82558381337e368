"""Quality against speed: one bubble per system, its area the size of all files needed to predict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gkiller.drawing import GREY, colour, new_figure, plain, safe, save
from gkiller.errors import SettingsError
from gkiller.private import matplotlib_apart
from gkiller.storage.files import writing

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gkiller.benchmark.bench import BenchResult


with matplotlib_apart():
    from matplotlib.lines import Line2D

AREA_PER_MB = 12.0
LEAST_AREA = 30.0
SIZES = (3, 30, 300)
NEAR = 1.35
"""Neighbouring rates below this ratio would have their labels overlap."""

_SHOWN_SETS = ("test", "valid")


@dataclass(frozen=True)
class Bubble:
    """One system: its rate in comments per second, F1 with its interval, and MB."""

    name: str
    runtime: str
    rate: float
    f1: float
    low: float
    high: float
    megabytes: float

    @property
    def area(self) -> float:
        """Of the drawn bubble, in square points."""
        return area_of(self.megabytes)


def area_of(megabytes: float) -> float:
    """Return a bubble's area in square points; very small files still show."""
    return max(LEAST_AREA, AREA_PER_MB * megabytes)


def write_bench_plot(result: BenchResult, path: Path) -> Path:
    """Draw F1 against comments per second (logarithmic) and write a PNG.

    The rows are those of the test split; of the validation split where there is no other.

    Raises:
        SettingsError: quality was not measured.
        OutputError: the file cannot be written.
    """
    name, bubbles = bubbles_of(result)
    figure = new_figure(9.5, 5.6)
    axes = figure.add_subplot()
    models = list(dict.fromkeys(one.name for one in bubbles))
    for one in sorted(bubbles, key=lambda bubble: -bubble.megabytes):
        _draw(axes, one, models.index(one.name))
    _label(axes, bubbles)
    rates = [one.rate for one in bubbles]
    axes.set_xscale("log")
    axes.set_xlim(min(rates) / 2.2, max(rates) * 2.2)
    axes.xaxis.set_major_formatter(lambda rate, place: f"{rate:,.0f}" if rate >= 1 else f"{rate:g}")
    unit = f"{result.facts['threads']} thread{'s' * (result.facts['threads'] > 1)}"
    what = f"F1 of {safe(result.label)}, {safe(name)} rows"
    plain(axes, "Quality against speed", f"comments per second, {unit}", what)
    _legend(figure, models, bubbles)
    with writing(path):
        return save(figure, path)


def bubbles_of(result: BenchResult) -> tuple[str, list[Bubble]]:
    """Return the set that is shown and a bubble per scored system.

    Raises:
        SettingsError: quality was not measured.
    """
    if result.quality is None:
        raise SettingsError(
            "there is no quality to draw", where="--plot", remedy="leave out --benchmark-only and --speed-only"
        )
    sets = {one.name: one for one in result.quality.sets}
    chosen = next(sets[name] for name in _SHOWN_SETS if name in sets)
    found = []
    for system in result.systems:
        evaluation = chosen.systems.get(system.spec.key)
        if evaluation is None or result.label not in [one.label for one in evaluation.labels]:
            continue
        f1 = evaluation.label(result.label).stored.f1
        if f1.value is None:
            continue
        found.append(
            Bubble(
                system.spec.name,
                system.spec.runtime,
                system.speed.whole.value,
                f1.value,
                f1.value if f1.low is None else f1.low,
                f1.value if f1.high is None else f1.high,
                system.bytes / 1e6,
            )
        )
    return chosen.name, found


def _draw(axes: Axes, one: Bubble, place: int) -> None:
    axes.errorbar(
        [one.rate],
        [one.f1],
        yerr=[[one.f1 - one.low], [one.high - one.f1]],
        color=GREY,
        linewidth=1,
        capsize=2,
        zorder=2,
    )
    axes.scatter(
        [one.rate], [one.f1], s=one.area, color=colour(place), alpha=0.55, edgecolor="white", linewidth=1, zorder=3
    )


def _label(axes: Axes, bubbles: Sequence[Bubble]) -> None:
    """Write each bubble's runtime below it; lower where the label before it is near."""
    before, steps = 0.0, 0
    for one in sorted(bubbles, key=lambda bubble: bubble.rate):
        steps = steps + 1 if one.rate < before * NEAR else 0
        before = one.rate
        axes.annotate(
            one.runtime.removeprefix("onnx "),
            (one.rate, one.f1),
            xytext=(0, -(one.area**0.5) / 2 - 3 - 9 * (steps % 3)),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=7.5,
            color="#333333",
            zorder=4,
        ).set_bbox({"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.5})


def _legend(figure: Figure, models: Sequence[str], bubbles: Sequence[Bubble]) -> None:
    """Name the models by colour, and show what sizes the areas stand for."""
    largest = max(one.megabytes for one in bubbles)
    sizes = [size for size in SIZES if size <= max(largest, SIZES[0])]
    figure.legend(
        [_dot(60, colour(place)) for place in range(len(models))],
        [f" {safe(name)}" for name in models],
        loc="outside right upper",
        frameon=False,
        fontsize=9,
    )
    figure.legend(
        [_dot(area_of(size), GREY) for size in sizes],
        [f" {size} MB" for size in sizes],
        title="all files needed",
        title_fontsize=9,
        alignment="left",
        loc="outside right lower",
        frameon=False,
        fontsize=9,
        labelspacing=1 + area_of(sizes[-1]) ** 0.5 / 18,
        handletextpad=area_of(sizes[-1]) ** 0.5 / 12,
        borderpad=area_of(sizes[-1]) ** 0.5 / 18,
    )


def _dot(area: float, face: str) -> Line2D:
    return Line2D(
        [],
        [],
        linestyle="none",
        marker="o",
        markersize=area**0.5,
        markerfacecolor=face,
        markeredgecolor="white",
        alpha=0.55,
    )
