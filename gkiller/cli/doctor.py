"""``gkiller doctor``: whether everything that gkiller needs is here and works."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from gkiller.cli import checks
from gkiller.cli.checks import Check
from gkiller.cli.console import emit_json, progress, results_table, show
from gkiller.cli.model_checks import check_model
from gkiller.cli.options import JsonFlag

STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red", "skipped": "dim"}


def doctor(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="Also score an exported model's probes, as where it was made; 'default' is the shipped one.",
        ),
    ] = None,
    online: Annotated[
        bool, typer.Option("--online/--offline", help="Ask whether the hub answers, over the network.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Check the set-up, down to a tiny training.

    Versions, processor, device, perforatedai, settings, the run directory, the shipped files, and a round
    trip: train, save, load, predict; with --online the hub, too. Ends with 1 when a check failed; a hub
    that cannot be reached is a warning. With MODEL, every graph of it must score as it did where it was
    exported: int8 arithmetic is not the same on every processor.
    """
    found = _examine(online=online, model=model)
    failed = [check for check in found if check.status == "failed"]
    if json:
        emit_json({"ok": not failed, "checks": found})
    else:
        _draw(found)
    if failed:
        raise typer.Exit(1)


def _examine(*, online: bool, model: str | None) -> list[Check]:
    """Run the checks one after the other."""
    examinations: list[Callable[[], list[Check]]] = [
        checks.check_versions,
        checks.check_cpu,
        checks.check_device,
        checks.check_perforatedai,
        partial(checks.check_hub, online=online),
        checks.check_settings,
        partial(checks.check_runs, Path.cwd()),
        checks.check_assets,
        checks.check_round_trip,
    ]
    if model is not None:
        examinations.append(partial(check_model, model))
    found: list[Check] = []
    with progress("checking") as advance:
        for done, examination in enumerate(examinations):
            advance(done, len(examinations))
            found += examination()
    return found


def _draw(found: list[Check]) -> None:
    rows = [
        (check.name, Text(check.status, style=STYLES[check.status]), check.detail, check.remedy)
        for check in found
    ]
    show(results_table("", ("check", "status", "finding", "remedy"), rows))
    counts = [f"{sum(check.status == status for check in found)} {status}" for status in STYLES]
    show(", ".join(counts))
