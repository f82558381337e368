"""``gkiller sweep``."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gkiller.cli.console import BarDisplay, emit_json, next_command, note, progress, results_table, show
from gkiller.cli.options import JsonFlag, place, with_settings
from gkiller.cli.train import steps_done
from gkiller.errors import SettingsError
from gkiller.wording import counted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from gkiller.settings import Resolved, Settings
    from gkiller.sweep.pool import SweepEvent, Trial
    from gkiller.sweep.sweep import SweepResult


class SweepDisplay(BarDisplay):
    """Draws a sweep's events on stderr."""

    def __init__(self, metric: str, console: Console | None = None) -> None:
        super().__init__(console)
        self._metric = metric
        self._whole: TaskID | None = None

    def __call__(self, event: SweepEvent) -> None:
        """Draw one event; the first one starts the bars."""
        from rich.progress import MofNCompleteColumn, TimeElapsedColumn

        if self._bars is None and self._console.is_terminal:
            bars = self._start(("state",), TimeElapsedColumn, MofNCompleteColumn())
            self._whole = bars.add_task("trials", total=event.total, completed=event.done, state="")
        if event.kind == "note":
            self._print(event.message)
        elif event.kind == "begin":
            self._print(f"trial {event.trial} begins: {params_text(event.params)}")
        elif event.ended is not None:
            self._print(self._end_line(event.ended, event))
        if self._bars is not None:
            self._update(self._bars, event)

    def _end_line(self, trial: Trial, event: SweepEvent) -> str:
        parts = (
            f"trial {trial.number} {trial.state}",
            None if trial.score is None else f"{self._metric} {trial.score:.4f}",
            f"ended early after {counted(len(trial.scores), 'epoch')}" if trial.state == "pruned" else None,
            trial.error,
            None if event.best is None else f"best {event.best:.4f}",
            f"{event.done}/{event.total} done",
        )
        return ", ".join(filter(None, parts))

    def _update(self, bars: Bars, event: SweepEvent) -> None:
        assert self._whole is not None
        best = "" if event.best is None else f"best {self._metric} {event.best:.4f}"
        bars.update(self._whole, completed=event.done, total=event.total, state=best)
        if event.kind == "begin":
            self._tasks[event.trial] = bars.add_task(f"trial {event.trial}", total=None, state="starting")
        elif event.kind == "end":
            bars.remove_task(self._tasks.pop(event.trial))
        elif event.training is not None and event.training.kind != "note":
            training = event.training
            score = "" if training.score is None else f", {self._metric} {training.score:.4f}"
            state = f"{training.phase}, epoch {training.epoch}/{training.epochs}{score}"
            completed, total = steps_done(training)
            bars.update(self._tasks[event.trial], completed=completed, total=total, state=state)


def params_text(params: Mapping[str, Any]) -> str:
    """Return searched settings on one line, numbers short."""
    from gkiller.settings import plain_text

    short = {key: f"{value:.3g}" if isinstance(value, float) else plain_text(value) for key, value in params.items()}
    return ", ".join(f"{key}={text}" for key, text in short.items())


SPACE = "sweep.space"
SHOWN = 5
"""Trials in the table of the best."""
SpaceOption = Annotated[
    list[str] | None,
    typer.Option(
        "--space",
        metavar="KEY=RANGE",
        help="Search this setting: log:1e-5..1e-3, 0..0.3, int:1..4, or choices a,b,c. Repeatable; replaces "
        "the space of sweep.space.",
        rich_help_panel="Sweep",
    ),
]
OutOption = Annotated[Path, place("The directory that holds sweeps.")]
_NAME = "The sweep's name; else sweep-1, sweep-2, ..."
NameOption = Annotated[str | None, typer.Option("--name", metavar="NAME", help=_NAME)]
_RESUME = "Go on with a sweep: its directory, or its name."
ResumeOption = Annotated[str | None, typer.Option("--resume", metavar="DIR", help=_RESUME)]


@with_settings("data", "model", "dendrites", "train", "evaluation", "sweep", without=(SPACE,))
def sweep(
    resolved: Resolved,
    asked: frozenset[str],
    space: SpaceOption = None,
    out: OutOption = Path("sweeps"),
    name: NameOption = None,
    resume: ResumeOption = None,
    json: JsonFlag = False,
) -> None:
    """Search for settings: many trainings, compared on validation.

    Each trial is an ordinary training in a directory of its own, with values that Optuna's TPE sampler
    proposes from the space; poor ones are ended early. The best trial's settings are written to best.toml.
    The test split is never scored.
    """
    from gkiller.sweep.sweep import find_sweep, resumed_settings
    from gkiller.sweep.sweep import sweep as run_sweep

    settings = resolved.settings
    if space:
        section = settings.sweep.model_copy(update={"space": tuple(space)})
        settings, asked = settings.model_copy(update={"sweep": section}), asked | {SPACE}
    path = None
    if resume is not None:
        if name is not None:
            remedy = "leave it out: a resumed sweep keeps its name"
            raise SettingsError("--name is for a new sweep", where="--name", remedy=remedy)
        path = find_sweep(out, resume)
        settings = resumed_settings(path, settings, asked)
    with progress() as on_data, SweepDisplay(settings.train.metric) as display:
        result = run_sweep(
            settings,
            out=out,
            name=name,
            resume=path,
            argv=sys.argv,
            on_event=display,
            on_data=on_data,
            signals=True,
            space_from="--space" if space else resolved.origins[SPACE],
        )
    if json:
        emit_json(_facts(result))
        return
    _show(result, settings)


def _facts(result: SweepResult) -> dict[str, Any]:
    from gkiller.sweep.report import BEST, trials_record

    best = result.best
    return {
        "sweep": str(result.path),
        "best_settings": str(result.path / BEST),
        "best_run": str(result.path / "runs" / best.run),
        "best_score": best.score,
        "best_params": dict(best.params),
        **trials_record(result.settings, result.trials, result.importance),
        "out_of_time": result.out_of_time,
        "files": [str(path) for path in result.files],
    }


def _show(result: SweepResult, settings: Settings) -> None:
    from gkiller.sweep.pool import top
    from gkiller.sweep.report import BEST
    from gkiller.sweep.study import shortest_names
    from gkiller.sweep.sweep import RUNS, resume_command

    metric, best = settings.train.metric.upper(), top(result.trials, SHOWN)
    names = shortest_names(best[0].params)
    rows = [
        (trial.number, trial.score, params_text({names[key]: value for key, value in trial.params.items()}))
        for trial in best
    ]
    states = Counter(trial.state for trial in result.trials)
    caption = ", ".join(f"{count} {state}" for state, count in states.items())
    title = "Best trials, on the validation split"
    show(results_table(title, ("trial", metric, "settings"), rows, caption=caption))
    if result.importance:
        title = f"Importance: share of the variance of {metric} over {counted(states['complete'], 'trial')}"
        show(results_table(title, ("setting", "share"), list(result.importance.items())))
    note(*(f"written: {path}" for path in result.files), f"best run: {result.path / RUNS / best[0].run}")
    if result.out_of_time:
        note(f"the time was up; go on with: {resume_command(result.path)}")
    next_command(f"gkiller train --config {result.path / BEST}")
