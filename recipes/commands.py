"""Run the commands that a recipe consists of, each printed before it runs."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def command(*words: object, may_end_with: int = 0) -> None:
    """Run a program of this Python; another end than 0 or ``may_end_with`` is this program's too."""
    line = [str(word) for word in words]
    sys.stderr.write(f"$ python {shlex.join(line)}\n")
    status, _ = ended(line)
    if status not in (0, may_end_with):
        sys.exit(status)


def ended(line: Sequence[str], stdout: int | None = None) -> tuple[int, bytes]:
    """Run a program of this Python to its end, also where this one is to end; return status and output."""
    with subprocess.Popen([sys.executable, *line], stdout=stdout) as child:
        before = signal.signal(signal.SIGTERM, lambda number, frame: child.send_signal(number))
        try:
            output, _ = child.communicate()
        finally:
            signal.signal(signal.SIGTERM, before)
    status = child.returncode
    return status if status >= 0 else 128 - status, output or b""


def gkiller(*words: object, may_end_with: int = 0) -> None:
    """Run a command of gkiller; as `command`."""
    command("-m", "gkiller", *words, may_end_with=may_end_with)


def answer(*words: object) -> dict[str, Any]:
    """Run a command of gkiller with ``--json``, and return what it prints; its failure is this program's."""
    line = ["-m", "gkiller", *(str(word) for word in words), "--json"]
    sys.stderr.write(f"$ python {shlex.join(line)}\n")
    status, output = ended(line, subprocess.PIPE)
    if status:
        sys.exit(status)
    found: dict[str, Any] = json.loads(output)
    return found


def finished(run: Path) -> bool:
    """Whether a run has been trained to its end."""
    return (run / "README.md").is_file() and (run / "manifest.json").is_file()


def train(runs: Path, name: str, *flags: object) -> Path:
    """Train a run to its end, going on where it was stopped; return it."""
    run = runs / name
    if not finished(run):
        if (run / "settings.toml").is_file():
            gkiller("train", "--out", runs, "--resume", run)
        else:
            gkiller("train", "--out", runs, "--name", name, *flags)
    return run


def export(run: Path, *flags: object, int8: Sequence[object] = (), may_end_with: int = 0) -> Path:
    """Write what is missing of a run's fp32 and int8 graphs, both with the flags; return the run."""
    for step, graph, more in (("export", "model.onnx", ()), ("quantize", "model.int8.onnx", int8)):
        if not (run / "model" / "onnx" / graph).is_file():
            gkiller(step, run, *flags, *more, may_end_with=may_end_with)
    return run


def settings(pairs: Sequence[str]) -> list[str]:
    """Return flags that set what the pairs say."""
    return [word for pair in pairs for word in ("--set", pair)]


def settings_of(name: str, pairs: Sequence[str]) -> list[str]:
    """Return flags that set what pairs such as "name:key=value" say of one of several networks."""
    return settings([pair.partition(":")[2] for pair in pairs if pair.startswith(f"{name}:")])
