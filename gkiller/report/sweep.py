"""What a sweep leaves to read: trials.json, trials.csv, best.toml and sweep.png."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gkiller.files import json_text, write_text
from gkiller.settings import settings_toml
from gkiller.sweep.trials import Trial, best_of

if TYPE_CHECKING:
    from gkiller.settings import Settings

BEST, JSON, CSV, PLOT = "best.toml", "trials.json", "trials.csv", "sweep.png"


def trials_record(
    settings: Settings, trials: Sequence[Trial], importance: Mapping[str, float]
) -> dict[str, Any]:
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


def write_plot(
    folder: Path, settings: Settings, trials: Sequence[Trial], importance: Mapping[str, float]
) -> Path:
    """Draw sweep.png and return its path.

    Raises:
        OutputError: it cannot be written.
    """
    from gkiller.report.sweep_plot import write_sweep_plot

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
