"""How a running training looks: bars on a terminal, one line per epoch elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gkiller.cli.bars import BarDisplay
from gkiller.errors import counted
from gkiller.report.phases import CANDIDATES, phase_name

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from gkiller.training.events import TrainingEvent


class TrainingDisplay(BarDisplay):
    """Draws training events on stderr; use it as a context manager and pass it as the callback.

    On a terminal: a bar per phase with epoch, loss, score, time left and rows per second. Elsewhere:
    one plain line per phase, epoch and note.

    Args:
        console: where to draw; stderr by default.
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

    def _update(self, bars: Progress, event: TrainingEvent) -> None:
        """Move the phase's bar: its length is the most steps the phase may take."""
        total = event.epochs * event.steps or None
        if event.phase_index not in self._tasks:
            self._tasks[event.phase_index] = bars.add_task(
                phase_name(event.phase, event.trains), total=total, epoch="", loss="", score="", speed=""
            )
        done = (
            event.epoch * event.steps
            if event.kind == "epoch"
            else (event.epoch - 1) * event.steps + event.step
        )
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


def _bars(console: Console) -> Progress:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}", style="bold", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[epoch]}", markup=False),
        TextColumn("{task.fields[loss]}", markup=False),
        TextColumn("{task.fields[score]}", markup=False),
        TextColumn("{task.fields[speed]}", style="dim", markup=False),
        TimeRemainingColumn(),
        console=console,
    )
