"""How a running sweep looks: a bar for the trials and for each that trains; a line per trial elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gkiller.cli.bars import BarDisplay
from gkiller.errors import counted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console
    from rich.progress import Progress, TaskID

    from gkiller.sweep.trials import SweepEvent, Trial


class SweepDisplay(BarDisplay):
    """Draws a sweep's events on stderr; use it as a context manager and pass it as the callback.

    Args:
        metric: the name of the score.
        console: where to draw; stderr by default.
    """

    def __init__(self, metric: str, console: Console | None = None) -> None:
        super().__init__(console)
        self._metric = metric
        self._whole: TaskID | None = None

    def __call__(self, event: SweepEvent) -> None:
        """Draw one event; the first one starts the bars."""
        if self._bars is None and self._console.is_terminal:
            self._bars = _bars(self._console)
            self._whole = self._bars.add_task("trials", total=event.total, completed=event.done, state="")
            self._bars.start()
        if event.kind == "note":
            self._print(event.message)
        elif event.kind == "begin":
            self._print(f"trial {event.trial} begins: {params_text(event.params)}")
        elif event.ended is not None:
            self._print(self.end_line(event.ended, event))
        if self._bars is not None:
            self._update(self._bars, event)

    def end_line(self, trial: Trial, event: SweepEvent) -> str:
        """Return how a trial ended, as one plain line."""
        parts = [f"trial {trial.number} {trial.state}"]
        if trial.score is not None:
            parts.append(f"{self._metric} {trial.score:.4f}")
        if trial.state == "pruned":
            parts.append(f"ended early after {counted(len(trial.scores), 'epoch')}")
        if trial.error:
            parts.append(trial.error)
        if event.best is not None:
            parts.append(f"best {event.best:.4f}")
        return ", ".join([*parts, f"{event.done}/{event.total} done"])

    def _update(self, bars: Progress, event: SweepEvent) -> None:
        assert self._whole is not None
        best = "" if event.best is None else f"best {self._metric} {event.best:.4f}"
        bars.update(self._whole, completed=event.done, total=event.total, state=best)
        if event.kind == "begin":
            self._tasks[event.trial] = bars.add_task(f"trial {event.trial}", total=None, state="starting")
        elif event.kind == "end":
            bars.remove_task(self._tasks.pop(event.trial))
        elif event.training is not None and event.training.kind != "note":
            training = event.training
            done = max(training.epoch - (training.kind == "step"), 0) * training.steps
            fields: dict[str, Any] = {"state": f"{training.phase}, epoch {training.epoch}/{training.epochs}"}
            if training.score is not None:
                fields["state"] += f", {self._metric} {training.score:.4f}"
            done += training.step if training.kind == "step" else 0
            total = training.epochs * training.steps or None
            bars.update(self._tasks[event.trial], completed=done, total=total, **fields)


def params_text(params: Mapping[str, Any]) -> str:
    """Return searched settings on one line, numbers short."""
    return ", ".join(f"{key}={value_text(value)}" for key, value in params.items())


def value_text(value: object) -> str:
    """Return a searched value for a reader."""
    from gkiller.settings import plain_text

    return f"{value:.3g}" if isinstance(value, float) else plain_text(value)


def _bars(console: Console) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}", style="bold", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}", markup=False),
        TimeElapsedColumn(),
        console=console,
    )
