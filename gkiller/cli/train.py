"""``gkiller train``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gkiller.cli.console import BarDisplay, emit_json, key_values, next_command, note, progress, show, warn
from gkiller.cli.options import JsonFlag, place, with_settings
from gkiller.cli.tables import evaluation_table, teacher_table
from gkiller.errors import SettingsError
from gkiller.training.phases import CANDIDATES, phase_name
from gkiller.wording import counted

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

    from gkiller.settings import Resolved, Settings
    from gkiller.training.phases import TrainingEvent
    from gkiller.training.train import TrainResult


class TrainingDisplay(BarDisplay):
    """Draws training events on stderr: a bar per phase on a terminal, elsewhere a line per phase, epoch and note."""

    def __call__(self, event: TrainingEvent) -> None:
        """Draw one event; the first one starts the bars."""
        from rich.progress import TimeRemainingColumn

        if self._bars is None and self._console.is_terminal:
            self._start(("epoch", "loss", "score", "speed"), TimeRemainingColumn)
        # a phase's bar says that it begins
        if event.kind != "step" and (event.kind != "phase" or self._bars is None or event.message):
            self._print(event_line(event))
        if self._bars is not None and event.kind != "note":
            self._update(self._bars, event)

    def _update(self, bars: Bars, event: TrainingEvent) -> None:
        completed, total = steps_done(event)
        if event.phase_index not in self._tasks:
            self._tasks[event.phase_index] = bars.add_task(
                phase_name(event.phase, event.trains), total=total, epoch="", loss="", score="", speed=""
            )
        fields: dict[str, Any] = {"epoch": f"epoch {event.epoch}/{event.epochs}", **_figures(event)}
        bars.update(self._tasks[event.phase_index], completed=completed, total=total, **fields)


def steps_done(event: TrainingEvent) -> tuple[int, int | None]:
    """Return the steps of the phase that are done, and the most that it may take."""
    done = event.epoch * event.steps if event.kind == "epoch" else (event.epoch - 1) * event.steps + event.step
    return max(done, 0), event.epochs * event.steps or None


def event_line(event: TrainingEvent) -> str:
    """Return an event as one plain line."""
    if event.kind == "note":
        return event.message
    name = phase_name(event.phase, event.trains)
    parts = [f"{name} phase", f"epoch {event.epoch}/{event.epochs}"]
    if event.kind == "phase":
        parts = [f"phase {event.phase_index}: {name}", f"up to {counted(event.epochs, 'epoch')}"]
    return ", ".join([*parts, *_figures(event).values(), *([event.message] if event.message else [])])


def _figures(event: TrainingEvent) -> dict[str, str]:
    """Return what an event has of loss, score and speed, in words; candidates raise a correlation instead of a loss."""
    found = {}
    if event.loss is not None:
        raised = event.trains == CANDIDATES
        found["loss"] = f"correlation {-event.loss:.4f}" if raised else f"loss {event.loss:.4f}"
    if event.score is not None:
        found["score"] = f"{event.metric} {event.score:.4f}"
    if event.rows_per_second is not None:
        found["speed"] = f"{event.rows_per_second:,.0f} rows/s"
    return found


OutOption = Annotated[Path, place("The directory that holds runs.")]
_NAME = "The run's name; else train-1, train-2, ..."
NameOption = Annotated[str | None, typer.Option("--name", metavar="NAME", help=_NAME)]
_RESUME = "Go on with a stopped run: its directory, its name, or 'last'."
ResumeOption = Annotated[str | None, typer.Option("--resume", metavar="RUN", help=_RESUME)]


@with_settings("data", "model", "dendrites", "train", "distill", "evaluation")
def train(
    resolved: Resolved,
    out: OutOption = Path("runs"),
    name: NameOption = None,
    resume: ResumeOption = None,
    json: JsonFlag = False,
) -> None:
    """Train a classifier: first its neurons, then its dendrites.

    Without any flag it trains on the embedded synthetic sample. The run directory holds the settings, the
    metrics of each epoch, checkpoints, plots and the model.
    """
    from gkiller.training.run import RunDirectory
    from gkiller.training.train import train as run_training

    settings, path = resolved.settings, None
    if resume is not None:
        if name is not None:
            remedy = "leave it out: a resumed run keeps its name"
            raise SettingsError("--name is for a new run", where="--name", remedy=remedy)
        path = (RunDirectory.newest(out) if resume == "last" else RunDirectory.find(out, resume)).path
        settings = _resumed_settings(path, resolved)
    with progress() as on_data, TrainingDisplay() as display:
        result = run_training(
            settings,
            out=path.parent if path else out,
            name=name,
            resume=path,
            argv=sys.argv,
            on_event=display,
            on_data=on_data,
            signals=True,
        )
    if not result.first:
        return
    warnings = _warnings(result)
    warn(*warnings)
    if json:
        emit_json({**_facts(result, settings), "warnings": warnings})
        return
    _show(result, settings)


def _resumed_settings(run: Path, resolved: Resolved) -> Settings:
    """Return the run's own settings; those of the command line, not of ``gkiller.toml``, must not differ."""
    from gkiller.settings import resolve
    from gkiller.training.run import resumed_settings

    arch = resolved.settings.model.arch
    around = resolve()  # what would be resolved without the command line
    given = [
        key
        for key, origin in resolved.origins.items()
        if origin.startswith("-") or origin not in ("default", f"arch {arch}", around.origins[key])
    ]
    return resumed_settings(run, resolved.settings, given)


def _facts(result: TrainResult, settings: Settings) -> dict[str, Any]:
    finished = result.finished
    return {
        "run": str(result.run.path),
        "model": str(result.run.model),
        "labels": result.manifest["data"]["labels"],
        "synthetic": result.manifest["data"]["synthetic"],
        "epochs": result.progress.epoch,
        "training_seconds": result.progress.seconds,
        "parameters": finished.parameters,
        "best": result.manifest["best"],
        "dendrites_kept": finished.dendrites,
        "dendrite_gains": result.manifest["dendrite_gains"],
        "dendrites": finished.dendrite_report,
        "fold_difference": finished.fold_difference,
        "thresholds": {label: t.as_dict() for label, t in finished.thresholds.items()},
        "long_text": settings.evaluation.long_text,
        "max_length": settings.model.max_length,
        "validation": finished.evaluation.as_dict(),
        **({"teachers": [one.as_dict() for one in finished.taught]} if finished.taught else {}),
    }


def _warnings(result: TrainResult) -> list[str]:
    from gkiller.evaluation.results import learnt_nothing
    from gkiller.evaluation.thresholds import kept_notes

    finished = result.finished
    warnings = [*kept_notes(finished.thresholds), *finished.evaluation.rough("validation")]
    if unlearnt := learnt_nothing(finished.evaluation):
        names = ", ".join(unlearnt)
        warnings.append(f"no better than chance on validation: {names}; try a lower --lr or more epochs")
    if result.manifest["data"]["synthetic"]:
        warnings.append("trained on the synthetic sample: a demonstration, not a model for real comments")
    return warnings


def _show(result: TrainResult, settings: Settings) -> None:
    from gkiller.tokens.batches import reading_text

    finished, run = result.finished, result.run
    reading = reading_text(settings.evaluation.long_text, settings.model.max_length)
    show(evaluation_table(finished.evaluation, f"Validation split, {reading}, at thresholds tuned on it"))
    show(*(teacher_table(one, finished.evaluation) for one in finished.taught))
    show(key_values("", _summary(result, settings)))
    note(f"run directory: {run.path}")
    next_command(f"gkiller evaluate {run.path}")


def _summary(result: TrainResult, settings: Settings) -> dict[str, object]:
    from gkiller.training.phases import gain_line

    finished, progress = result.finished, result.progress
    metric = settings.train.metric.upper()
    rows: dict[str, object] = {"parameters": f"{finished.parameters:,}"}
    for count, score in sorted(progress.best.items()):
        name = f"with {counted(count, 'dendrite')} per Linear" if count else "neurons alone"
        rows[name] = f"{metric} {score:.4f} (epoch {progress.best_epoch[count]})"
    if settings.dendrites.enabled and progress.gains:
        rows["dendrites"] = "\n".join(gain_line(count, gain) for count, gain in sorted(progress.gains.items()))
    if report := finished.dendrite_report:
        ap = report["ap"]
        rows["AP with dendrites zeroed / at their mean"] = f"{ap['zeroed']:.4f} / {ap['mean']:.4f}"
        rows["mean |top weight|"] = f"{report['top_weight_mean']:.4f}"
    rows["folded logits differ by at most"] = f"{finished.fold_difference:.1e}"
    rows["training time"] = f"{progress.seconds:.0f} s in {counted(progress.epoch, 'epoch')}"
    return rows
