"""``gkiller train``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gkiller.cli.console import BarDisplay, emit_json, next_command, note, progress, results_table, show, warn
from gkiller.cli.options import JsonFlag, out_place, with_settings
from gkiller.cli.tables import evaluation_table, teacher_table
from gkiller.errors import SettingsError
from gkiller.training.phases import CANDIDATES, phase_name
from gkiller.wording import counted

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bars

    from gkiller.settings import Resolved, Settings
    from gkiller.training.phases import TrainingEvent
    from gkiller.training.train import TrainResult


class TrainingDisplay(BarDisplay):
    """Draws training events on stderr; use it as a context manager and pass it as the callback.

    On a terminal: a bar per phase with epoch, loss, score, time left and rows per second. Elsewhere:
    one plain line per phase, epoch and note.
    """

    def __call__(self, event: TrainingEvent) -> None:
        """Draw one event; the first one starts the bars."""
        if self._bars is None and self._console.is_terminal:
            self._bars = _bars(self._console)
            self._bars.start()
        if event.kind != "step":
            self._line(event)
        if self._bars is not None and event.kind != "note":
            self._update(self._bars, event)

    def _line(self, event: TrainingEvent) -> None:
        if event.kind == "phase" and self._bars is not None and not event.message:
            return  # its bar says so
        self._print(event_line(event))

    def _update(self, bars: Bars, event: TrainingEvent) -> None:
        """Move the phase's bar: its length is the most steps the phase may take."""
        total = event.epochs * event.steps or None
        if event.phase_index not in self._tasks:
            self._tasks[event.phase_index] = bars.add_task(
                phase_name(event.phase, event.trains), total=total, epoch="", loss="", score="", speed=""
            )
        done = event.epoch * event.steps if event.kind == "epoch" else (event.epoch - 1) * event.steps + event.step
        fields: dict[str, Any] = {"epoch": f"epoch {event.epoch}/{event.epochs}"}
        if event.loss is not None:
            fields["loss"] = _loss(event)
        if event.score is not None:
            fields["score"] = f"{event.metric} {event.score:.4f}"
        if event.rows_per_second is not None:
            fields["speed"] = f"{event.rows_per_second:,.0f} rows/s"
        bars.update(self._tasks[event.phase_index], completed=max(done, 0), total=total, **fields)


def event_line(event: TrainingEvent) -> str:
    """Return an event as one plain line."""
    if event.kind == "note":
        return event.message
    name = phase_name(event.phase, event.trains)
    parts = [f"{name} phase", f"epoch {event.epoch}/{event.epochs}"]
    if event.kind == "phase":
        parts = [f"phase {event.phase_index}: {name}", f"up to {counted(event.epochs, 'epoch')}"]
    if event.loss is not None:
        parts.append(_loss(event))
    if event.score is not None:
        parts.append(f"{event.metric} {event.score:.4f}")
    if event.rows_per_second is not None:
        parts.append(f"{event.rows_per_second:,.0f} rows/s")
    if event.message:
        parts.append(event.message)
    return ", ".join(parts)


def _loss(event: TrainingEvent) -> str:
    """Return the loss in words; candidates have none, but a correlation that they raise."""
    assert event.loss is not None
    return f"correlation {-event.loss:.4f}" if event.trains == CANDIDATES else f"loss {event.loss:.4f}"


def _bars(console: Console) -> Bars:
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    return Bars(
        TextColumn("{task.description}", style="bold", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[epoch]}", markup=False),
        TextColumn("{task.fields[loss]}", markup=False),
        TextColumn("{task.fields[score]}", markup=False),
        TextColumn("{task.fields[speed]}", style="dim", markup=False),
        TimeRemainingColumn(),
        console=console,
    )


OutOption = Annotated[
    Path, typer.Option("--out", callback=out_place, metavar="DIR", help="The directory that holds runs.")
]

NameOption = Annotated[
    str | None, typer.Option("--name", metavar="NAME", help="The run's name; else train-1, train-2, ...")
]

ResumeOption = Annotated[
    str | None,
    typer.Option("--resume", metavar="RUN", help="Go on with a stopped run: its directory, its name, or 'last'."),
]


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
    from gkiller.training.train import train as run_training

    settings, path = resolved.settings, None
    if resume is not None:
        if name is not None:
            raise SettingsError(
                "--name is for a new run", where="--name", remedy="leave it out: a resumed run keeps its name"
            )
        path = _resumed(out, resume)
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
    for line in warnings:
        warn(line)
    if json:
        emit_json({**_facts(result, settings), "warnings": warnings})
        return
    _show(result, settings)


def _resumed(out: Path, resume: str) -> Path:
    from gkiller.training.run import RunDirectory

    if resume == "last":
        return RunDirectory.newest(out).path
    return RunDirectory.find(out, resume).path


def _resumed_settings(run: Path, resolved: Resolved) -> Settings:
    """Return the run's own settings; what the command line asks for beside them must not differ.

    Variables and ``gkiller.toml`` are not asked: they may have changed since, and the run has its own file.

    Raises:
        ResumeError: a setting given on the command line differs from the run's, and it is not a harmless one.
    """
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
    for one in finished.taught:
        show(teacher_table(one, finished.evaluation))
    show(results_table("", ("", ""), _summary(result, settings)))
    note(f"run directory: {run.path}")
    next_command(f"gkiller evaluate {run.path}")


def _summary(result: TrainResult, settings: Settings) -> list[tuple[str, str]]:
    from gkiller.training.phases import gain_line

    finished, progress = result.finished, result.progress
    metric = settings.train.metric.upper()
    rows = [("parameters", f"{finished.parameters:,}")]
    rows += [
        (
            "neurons alone" if count == 0 else f"with {count} dendrite{'s' * (count > 1)} per Linear",
            f"{metric} {score:.4f} (epoch {progress.best_epoch[count]})",
        )
        for count, score in sorted(progress.best.items())
    ]
    if settings.dendrites.enabled:
        rows += [("dendrites", gain_line(count, gain)) for count, gain in sorted(progress.gains.items())]
    if finished.dendrite_report:
        ap = finished.dendrite_report["ap"]
        rows.append(("AP with dendrites zeroed / at their mean", f"{ap['zeroed']:.4f} / {ap['mean']:.4f}"))
        rows.append(("mean |top weight|", f"{finished.dendrite_report['top_weight_mean']:.4f}"))
    rows.append(("folded logits differ by at most", f"{finished.fold_difference:.1e}"))
    rows.append(("training time", f"{progress.seconds:.0f} s in {counted(progress.epoch, 'epoch')}"))
    return rows
