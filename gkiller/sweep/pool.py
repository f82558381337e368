"""The trials of a sweep, and the sweep's side of its worker processes."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from queue import SimpleQueue
from tempfile import TemporaryFile
from typing import Any, Literal, Protocol

from gkiller.training.phases import TrainingEvent
from gkiller.wording import one_line

State = Literal["complete", "pruned", "failed", "lost", "running", "waiting"]
ENDED: tuple[State, ...] = ("complete", "pruned", "failed")


@dataclass(frozen=True)
class Trial:
    """One trial."""

    number: int
    # "complete"; "pruned", ended early; "failed"; "lost", its process or sweep died, and another trial tries its values
    # again; "running"; or "waiting", to be tried again
    state: State
    params: Mapping[str, Any]
    # the validation metric of the chosen weights; of a pruned trial that of its last epoch; or None
    score: float | None = None
    scores: Mapping[int, float] = field(default_factory=dict)
    seconds: float | None = None  # from its beginning to its end, or None
    run: str = ""  # its run directory's name, or an empty string
    facts: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""  # why it failed, or an empty string
    retry_of: int | None = None  # the lost trial that this one repeats, or None


@dataclass(frozen=True)
class SweepEvent:
    """One moment of a sweep."""

    # "begin" and "end" of a trial, "training" for an event of its training, "note" for a line
    kind: Literal["begin", "training", "end", "note"]
    trial: int = -1
    params: Mapping[str, Any] = field(default_factory=dict)
    ended: Trial | None = None
    best: float | None = None  # the best score so far, or None
    done: int = 0
    total: int = 0
    training: TrainingEvent | None = None
    message: str = ""  # a sentence for the reader, or an empty string


def best_of(trials: Iterable[Trial]) -> Trial | None:
    """Return the complete trial of the best score, the earliest of equals; None when there is none."""
    scored = [trial for trial in trials if trial.state == "complete" and trial.score is not None]
    return max(scored, key=lambda trial: (trial.score or 0.0, -trial.number), default=None)


def top(trials: Iterable[Trial], count: int) -> list[Trial]:
    """Return the best complete trials, best first."""
    scored = [trial for trial in trials if trial.state == "complete" and trial.score is not None]
    return sorted(scored, key=lambda trial: (-(trial.score or 0.0), trial.number))[:count]


def ended(trials: Iterable[Trial]) -> list[Trial]:
    """Return the trials that count: lost ones are tried again."""
    return [trial for trial in trials if trial.state in ENDED]


Message = dict[str, Any]
Inbox = SimpleQueue[tuple["Channel", Message | None]]
"""What workers tell; None when one has ended."""

Start = Callable[[int, Inbox], "Channel"]
"""Starts a worker: the number of jobs, and where its messages go."""

_PATIENCE = 10.0
"""Seconds that a worker may take to end when it is told to."""


class Channel(Protocol):
    """A worker, as the sweep sees it."""

    def send(self, message: Message) -> None:
        """Send a message; one to a worker that has ended is lost."""

    def close(self) -> None:
        """End the worker."""

    def complaint(self) -> str:
        """Return why the worker, which has ended, did so."""


class Worker:
    """A process of `gkiller.sweep.worker`.

    It is no member of the terminal's process group: Ctrl-C reaches the sweep alone, which lets it finish its step.

    Args:
        jobs: how many workers share the threads.
    """

    def __init__(self, jobs: int, inbox: Inbox) -> None:
        self._errors = TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - closed below
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gkiller.sweep.worker", str(jobs)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            encoding="utf-8",
            start_new_session=os.name != "nt",
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        self._inbox = inbox
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                if line.endswith("\n"):  # else its writer was killed
                    self._inbox.put((self, json.loads(line)))
        self._inbox.put((self, None))

    def send(self, message: Message) -> None:
        """Send a message; one to a worker that has ended is lost."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError, ValueError):
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()

    def close(self) -> None:
        """End the process: its input ends, and it with it; else it is killed."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        self._errors.close()

    def complaint(self) -> str:
        """Return the exit status and the last line of the errors."""
        status = self._process.wait()
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors.read().splitlines() if line.strip()]
        last = f": {one_line(ValueError(lines[-1]))}" if lines else ""
        return f"its process ended with status {status}{last}"
