"""Trainings in processes of their own, killed at chosen moments and gone on with.

The processes are forked from a server that has imported torch and the rest once, so that a kill costs a
second. `experiments/kills.py` runs the same for longer.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from gkiller.settings import Settings
from gkiller.training.run import RunDirectory

TIMINGS = ("seconds", "rows_per_second")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_PATH_EVENTS = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.truncate")
LONGEST = 120


def server() -> Any:
    """Return the multiprocessing context whose server has imported what a training needs."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["preloaded"])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(Path(__file__).parent), before)))
    try:
        forkserver.ensure_running()  # it finds what it preloads by its own path only
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
    return context


@dataclass(frozen=True)
class Killer:
    """When a training kills itself.

    Attributes:
        operation: before this file operation in the run's directory, counted from 1; 0 for never.
        step: after this training step, counted from 1 over all epochs; 0 for never.
    """

    operation: int = 0
    step: int = 0


def train_in_process(
    settings: Settings, run: Path, resume: bool, killer: Killer, counts: Path, environment: dict[str, str]
) -> None:
    """Train; the target of a process.

    Args:
        settings: of the run.
        run: its directory.
        resume: whether to go on with it.
        killer: when to die.
        counts: where to write how many file operations and steps there were.
        environment: variables to set, such as a rank.
    """
    os.environ.update(environment)
    from gkiller.evaluation import report as evaluation
    from gkiller.training import finish
    from gkiller.training.learner import Learner
    from gkiller.training.train import train

    finish.write_training_plots = lambda rows, folder: None  # type: ignore[assignment]
    evaluation.write_evaluation_plots = lambda *given, **named: []
    seen = count_operations(run, killer.operation)
    seen["steps"] = 0

    def step(learner: Learner, *given: Any) -> float:
        loss = take_step(learner, *given)
        seen["steps"] += 1
        if seen["steps"] == killer.step:
            os.kill(os.getpid(), signal.SIGKILL)
        return loss

    take_step, Learner.step = Learner.step, step  # type: ignore[assignment, method-assign]
    train(settings, out=run.parent, name=None if resume else run.name, resume=run if resume else None)
    counts.write_text(json.dumps(seen))


def count_operations(folder: Path, last: int) -> dict[str, int]:
    """Count this process's file operations in a folder from now on, and kill it before the ``last`` one."""
    seen = {"operations": 0}

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if _is_write(event, arguments, str(folder)):
            seen["operations"] += 1
            if seen["operations"] == last:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    return seen


def _is_write(event: str, arguments: tuple[Any, ...], run: str) -> bool:
    """Whether an audit event is about to change something in the run's directory."""
    if event == "open":
        path, mode, flags = arguments
        writes = bool(flags & _WRITES) if isinstance(flags, int) else "r" not in str(mode)
        return isinstance(path, str) and path.startswith(run) and writes
    if event not in _PATH_EVENTS:
        return False
    in_tree = isinstance(arguments[-1], int) and arguments[-1] != -1  # rmtree works with open directories
    return in_tree or any(isinstance(a, str) and a.startswith(run) for a in map(_text, arguments))


def _text(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


@dataclass
class Trainings:
    """Runs of one configuration, to be killed and compared with one that nobody kills.

    Attributes:
        settings: of every run.
        folder: where runs go.
    """

    settings: Settings
    folder: Path

    def __post_init__(self) -> None:
        self.context = server()
        self.counts = self.folder / "counts.json"

    def start(self, run: Path, *, resume: bool = False, killer: Killer | None = None) -> Any:
        """Start a training in a process of its own."""
        given: Any = (self.settings, run, resume, killer or Killer(), self.counts, {})
        process = self.context.Process(target=train_in_process, args=given)
        process.start()
        return process

    def finish(self, run: Path, *, resume: bool) -> dict[str, int]:
        """Train to the end; return how many file operations and steps that took."""
        process = self.start(run, resume=resume)
        process.join(LONGEST)
        assert process.exitcode == 0, f"{run.name}: exit code {process.exitcode}"
        return json.loads(self.counts.read_text())

    def kill(self, run: Path, killer: Any, *, resume: bool = False) -> int:
        """Train until the killer strikes, or to the end where it does not; return the exit code."""
        process = self.start(run, resume=resume, killer=killer)
        process.join(LONGEST)
        assert process.exitcode in (0, -signal.SIGKILL), f"{run.name}: exit code {process.exitcode}"
        return process.exitcode

    def kill_after(self, run: Path, seconds: Any, *, resume: bool = False) -> int:
        """Train, and kill from outside after some time; return the exit code."""
        process = self.start(run, resume=resume)
        time.sleep(seconds)
        process.kill()
        process.join(LONGEST)
        assert process.exitcode in (0, -signal.SIGKILL), f"{run.name}: exit code {process.exitcode}"
        return process.exitcode

    def go_on(self, run: Path) -> None:
        """Go on with a killed run; where it had not even begun, begin it under the same name."""
        if RunDirectory(run).complete:
            return
        self.finish(run, resume=(run / "settings.toml").is_file())


def outcome(run: Path) -> dict[str, Any]:
    """Everything a run must end with, whatever happened to it: weights, thresholds, metrics."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {
        "model": (run / "model" / "model.safetensors").read_bytes(),
        "thresholds": json.loads((run / "model" / "gkiller.json").read_text())["thresholds"],
        "metrics": [{key: value for key, value in row.items() if key not in TIMINGS} for row in rows],
        "validation": (run / "validation.json").read_text().replace(str(run), ""),
        "leftovers": sorted(p.name for p in run.rglob(".*") if p.name != ".lock"),
    }


def check(runs: Trainings, run: Path, expected: dict[str, Any]) -> None:
    """Compare a run's outcome with the expected one, then remove it."""
    found = outcome(run)
    for key, value in expected.items():
        assert found[key] == value, f"{run.name}: {key} differ"
    shutil.rmtree(run)


def kill_and_compare(
    runs: Trainings, moments: Sequence[Killer | float], on_kill: Callable[[str], None] = lambda what: None
) -> int:
    """Kill a run at each moment, go on, and compare with an unbroken run.

    Args:
        runs: the configuration.
        moments: a killer, or seconds after which the process is killed from outside.
        on_kill: told of each moment, and whether the kill struck.

    Returns:
        How many kills struck before the training had ended.
    """
    whole = runs.folder / "whole"
    if not (whole / "validation.json").is_file():
        runs.finish(whole, resume=False)
    expected = outcome(whole)
    assert expected["leftovers"] == []
    struck = 0
    for number, moment in enumerate(moments):
        run = runs.folder / f"killed-{number}"
        strike = runs.kill_after if isinstance(moment, float) else runs.kill
        code = strike(run, moment)
        struck += code != 0
        on_kill(f"{moment}: {'killed' if code else 'too late'}")
        if code and number % 3 == 2:  # and once more while it goes on
            again = Killer(operation=random.Random(number).randrange(1, 60))
            if (run / "settings.toml").is_file():
                struck += runs.kill(run, again, resume=True) != 0
        runs.go_on(run)
        check(runs, run, expected)
    return struck
