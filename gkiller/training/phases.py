"""Which phases a training has, and which comes next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from gkiller.settings.definition import Settings

PhaseName = Literal["neuron", "dendrite", "joint"]
Part = Literal["neurons", "dendrites", "candidates", "tops", "everything"]


@dataclass(frozen=True)
class Phase:
    """One phase.

    Attributes:
        name: "neuron", "dendrite" or "joint".
        trains: which parameters move: the neurons; the newest dendrites with all top weights; the newest
            dendrites alone, by correlation ("candidates"); the top weights alone; or everything.
        dendrites: dendrites per Linear while it lasts.
        epochs: the most epochs it takes.
        lr: its peak learning rate.
    """

    name: PhaseName
    trains: Part
    dendrites: int
    epochs: int
    lr: float


def first_phase(settings: Settings) -> Phase:
    """Return the neuron phase."""
    return Phase("neuron", "neurons", 0, settings.train.epochs, settings.train.lr)


def next_phase(settings: Settings, current: Phase, best: dict[int, float]) -> Phase | None:
    """Return the phase after ``current``, or None when training is over.

    Args:
        settings: of the run.
        current: the phase that has just ended.
        best: best validation score so far, by dendrites per Linear.
    """
    own, count = settings.dendrites, current.dendrites
    if current.name == "neuron":
        return dendrite_phase(settings, 1) if own.enabled else None
    if current.trains == "candidates":
        return Phase("dendrite", "tops", count, own.top_epochs, own.lr)
    if current.name == "dendrite" and own.joint_epochs:
        return Phase("joint", "everything", count, own.joint_epochs, own.joint_lr)
    if count < own.count and improved(best, count, own.min_gain):
        return dendrite_phase(settings, count + 1)
    return None


def dendrite_phase(settings: Settings, count: int) -> Phase:
    """Return the phase that trains the ``count``-th dendrite."""
    own = settings.dendrites
    if own.objective == "correlation":
        return Phase("dendrite", "candidates", count, own.epochs - own.top_epochs, own.lr)
    return Phase("dendrite", "dendrites", count, own.epochs, own.lr)


def improved(best: dict[int, float], count: int, min_gain: float) -> bool:
    """Whether the ``count``-th dendrite raised the best validation score by more than ``min_gain``."""
    return count in best and best[count] > best[count - 1] + min_gain


def kept_dendrites(best: dict[int, float], min_gain: float) -> int:
    """Return how many dendrites per Linear the final model keeps: as many as each improved on the last."""
    count = 0
    while improved(best, count + 1, min_gain):
        count += 1
    return count
