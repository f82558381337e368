"""What a sweep leaves to read: trials.json, trials.csv, best.toml and sweep.png."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gkiller.drawing import COLOURS, GREY, new_figure, plain, safe, save
from gkiller.settings import settings_toml
from gkiller.storage.files import json_text, write_text
from gkiller.sweep.pool import Trial, best_of, ended

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from gkiller.settings import Settings


BLUE, VERMILLION, GREEN = COLOURS[:3]
_ROW = 0.32  # inches of a bar


def write_sweep_plot(trials: Sequence[Trial], metric: str, importance: Mapping[str, float], path: Path) -> Path:
    """Draw the history of a sweep, and below it the importance of settings where it is known.

    Args:
        importance: share of the score's variance by dotted key, most important first; may be empty.

    Raises:
        OutputError: it cannot be written.
    """
    bars = 0.9 + _ROW * len(importance) if importance else 0.0
    figure = new_figure(8.0, 4.2 + bars)
    if importance:
        history, below = figure.subplots(2, 1, height_ratios=(4.2, bars))
        _importance(below, importance)
    else:
        history = figure.subplots()
    _history(history, trials, metric)
    return save(figure, path)


def _history(axes: Axes, trials: Sequence[Trial], metric: str) -> None:
    from matplotlib.ticker import MaxNLocator

    shown = ended(trials)
    for state, tint, mark, label in (
        ("complete", BLUE, "o", "complete"),
        ("pruned", GREY, "x", "ended early, last epoch"),
    ):
        points = [(t.number, t.score) for t in shown if t.state == state and t.score is not None]
        if points:
            axes.plot(*zip(*points, strict=True), mark, color=tint, label=label, zorder=3)
    failed = [trial.number for trial in shown if trial.state == "failed"]
    if failed:
        axes.plot(
            failed,
            [0.02] * len(failed),
            "v",
            color=VERMILLION,
            label="failed",
            transform=axes.get_xaxis_transform(),
            zorder=3,
        )
    best: list[tuple[int, float]] = []
    for trial in shown:
        if trial.state == "complete" and trial.score is not None:
            best.append((trial.number, max(trial.score, best[-1][1] if best else trial.score)))
    if best:
        last = max(trial.number for trial in shown)
        numbers, scores = zip(*best, (last, best[-1][1]), strict=True)
        axes.step(numbers, scores, where="post", color=GREEN, linewidth=1.8, label="best so far", zorder=2)
    plain(axes, "Trials on the validation split", "Trial", metric.upper())
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0, frameon=False, fontsize=9)


def _importance(axes: Axes, importance: Mapping[str, float]) -> None:
    names = [safe(key) for key in importance]
    axes.barh(names, list(importance.values()), color=BLUE, height=0.6)
    axes.invert_yaxis()
    plain(axes, "Importance of settings", "Share of the score's variance (fANOVA)", "")
    axes.set_xlim(0, 1)


BEST, JSON, CSV, PLOT = "best.toml", "trials.json", "trials.csv", "sweep.png"


def trials_record(settings: Settings, trials: Sequence[Trial], importance: Mapping[str, float]) -> dict[str, Any]:
    """Return a sweep's results as plain values."""
    best = best_of(trials)
    return {
        "metric": settings.train.metric,
        "split": "valid",
        "best": None if best is None else best.number,
        "importance": dict(importance),
        "trials": [_record(trial) for trial in trials],
    }


def write_trials(
    folder: Path, settings: Settings, trials: Sequence[Trial], importance: Mapping[str, float]
) -> list[Path]:
    """Write trials.json and trials.csv, and return their paths.

    Raises:
        OutputError: they cannot be written.
    """
    write_text(folder / JSON, json_text(trials_record(settings, trials, importance)))
    write_text(folder / CSV, _csv(trials))
    return [folder / JSON, folder / CSV]


def write_best(folder: Path, settings: Settings) -> Path:
    """Write the best trial's settings, complete, and return the file's path.

    Raises:
        OutputError: it cannot be written.
    """
    write_text(folder / BEST, settings_toml(settings))
    return folder / BEST


def write_plot(folder: Path, settings: Settings, trials: Sequence[Trial], importance: Mapping[str, float]) -> Path:
    """Draw sweep.png and return its path.

    Raises:
        OutputError: it cannot be written.
    """
    return write_sweep_plot(trials, settings.train.metric, importance, folder / PLOT)


def _record(trial: Trial) -> dict[str, Any]:
    return {
        "number": trial.number,
        "state": trial.state,
        "score": trial.score,
        "params": dict(trial.params),
        "scores": {str(epoch): score for epoch, score in trial.scores.items()},
        "seconds": trial.seconds,
        "run": trial.run,
        "facts": dict(trial.facts),
        "error": trial.error,
        "retry_of": trial.retry_of,
    }


def _csv(trials: Sequence[Trial]) -> str:
    keys = list(dict.fromkeys(key for trial in trials for key in trial.params))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["number", "state", "score", *keys, "epochs", "seconds", "run", "error"])
    for trial in trials:
        values = [trial.params.get(key) for key in keys]
        rest = [len(trial.scores), trial.seconds, trial.run, trial.error]
        writer.writerow([trial.number, trial.state, trial.score, *values, *rest])
    return text.getvalue()
