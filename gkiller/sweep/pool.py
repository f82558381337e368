"""The trials of a sweep, and the sweep's side of its worker processes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Literal, Protocol

from gkiller.storage.workers import Message, Worker
from gkiller.training.phases import TrainingEvent

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


Inbox = SimpleQueue[tuple["Channel", Message | None]]
"""What workers tell; None when one has ended."""

Start = Callable[[int, Inbox], "Channel"]
"""Starts a worker: the number of jobs, and where its messages go."""


class Channel(Protocol):
    """A worker, as the sweep sees it."""

    def send(self, message: Message) -> None:
        """Send a message; one to a worker that has ended is lost."""

    def close(self) -> None:
        """End the worker."""

    def complaint(self) -> str:
        """Return why the worker, which has ended, did so."""


class Trainer(Worker):
    """A process of `gkiller.sweep.worker`. Ctrl-C reaches the sweep alone, which lets it finish its step.

    Args:
        jobs: how many of them share the threads.
    """

    def __init__(self, jobs: int, inbox: Inbox) -> None:
        super().__init__("gkiller.sweep.worker", [str(jobs)], apart=True)
        self._reader = threading.Thread(target=self._read, args=(inbox,), daemon=True)
        self._reader.start()

    def _read(self, inbox: Inbox) -> None:
        for message in self.messages():
            inbox.put((self, message))
        inbox.put((self, None))

    def close(self) -> None:
        """End the process."""
        super().close()
        self._reader.join()

    def complaint(self) -> str:
        """Return the exit status and the last line of the errors."""
        status, last = self.wait(), super().complaint()
        return f"its process ended with status {status}" + (f": {last}" if last else "")
