"""``gkiller sweep``."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gkiller.cli.console import emit_json, next_command, note, results_table, show, stages
from gkiller.cli.options import JsonFlag, out_place, with_settings
from gkiller.cli.sweep_display import SweepDisplay, params_text
from gkiller.errors import SettingsError, counted

if TYPE_CHECKING:
    from gkiller.settings import Resolved, Settings
    from gkiller.sweep.sweep import SweepResult

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
OutOption = Annotated[
    Path, typer.Option("--out", callback=out_place, metavar="DIR", help="The directory that holds sweeps.")
]
NameOption = Annotated[
    str | None, typer.Option("--name", metavar="NAME", help="The sweep's name; else sweep-1, sweep-2, ...")
]
ResumeOption = Annotated[
    str | None,
    typer.Option("--resume", metavar="DIR", help="Go on with a sweep: its directory, or its name."),
]


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
            what = "--name is for a new sweep"
            raise SettingsError(what, where="--name", remedy="leave it out: a resumed sweep keeps its name")
        path = find_sweep(out, resume)
        settings = resumed_settings(path, settings, asked)
    with stages() as on_data, SweepDisplay(settings.train.metric) as display:
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
    from gkiller.report.sweep import BEST, trials_record

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
    from gkiller.report.sweep import BEST
    from gkiller.sweep.space import shortest_names
    from gkiller.sweep.sweep import RUNS, resume_command
    from gkiller.sweep.trials import top

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
    for path in result.files:
        note(f"written: {path}")
    note(f"best run: {result.path / RUNS / best[0].run}")
    if result.out_of_time:
        note(f"the time was up; go on with: {resume_command(result.path)}")
    next_command(f"gkiller train --config {result.path / BEST}")
