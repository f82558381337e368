"""What is known of a sweep's trials, and what a sweep tells while it runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from gkiller.training.events import TrainingEvent

State = Literal["complete", "pruned", "failed", "lost", "running", "waiting"]
ENDED: tuple[State, ...] = ("complete", "pruned", "failed")


@dataclass(frozen=True)
class Trial:
    """One trial.

    Attributes:
        number: counted from 0, in the order of the proposals.
        state: "complete"; "pruned", ended early; "failed"; "lost", its process or sweep died, and another
            trial tries its values again; "running"; or "waiting", to be tried again.
        params: the searched settings' values, by dotted key.
        score: the validation metric of the chosen weights; of a pruned trial that of its last epoch; or None.
        scores: the validation metric after each epoch, by epoch from 1.
        seconds: from its beginning to its end, or None.
        run: its run directory's name, or an empty string.
        facts: figures of its model.
        error: why it failed, or an empty string.
        retry_of: the lost trial that this one repeats, or None.
    """

    number: int
    state: State
    params: Mapping[str, Any]
    score: float | None = None
    scores: Mapping[int, float] = field(default_factory=dict)
    seconds: float | None = None
    run: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    retry_of: int | None = None


@dataclass(frozen=True)
class SweepEvent:
    """One moment of a sweep.

    Attributes:
        kind: "begin" and "end" of a trial, "training" for an event of its training, "note" for a line.
        trial: the trial's number, -1 for a note.
        params: of the trial that begins.
        ended: the trial that has ended.
        best: the best score so far, or None.
        done: trials that have ended.
        total: trials that were asked for.
        training: what the trial's training tells.
        message: a sentence for the reader, or an empty string.
    """

    kind: Literal["begin", "training", "end", "note"]
    trial: int = -1
    params: Mapping[str, Any] = field(default_factory=dict)
    ended: Trial | None = None
    best: float | None = None
    done: int = 0
    total: int = 0
    training: TrainingEvent | None = None
    message: str = ""


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
