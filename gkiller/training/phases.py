"""Which phases a training has, and which comes next."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

if TYPE_CHECKING:
    from gkiller.settings.definition import Settings

PhaseName = Literal["neuron", "dendrite", "joint"]
Part = Literal["neurons", "dendrites", "candidates", "tops", "everything"]

PARTS: dict[PhaseName, tuple[Part, ...]] = {
    "neuron": ("neurons",),
    "dendrite": ("dendrites", "candidates", "tops"),
    "joint": ("everything",),
}
"""What the phases may train."""

LEAST_STEPS = 1000
LEAST_EPOCHS = 1
MOST_EPOCHS = 60


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
    dendrites: Annotated[int, Field(ge=0, lt=2**15)]
    epochs: Annotated[int, Field(ge=0, lt=2**31)]
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class Lengths:
    """The most epochs of each phase: the neurons', a dendrite's (of which ``tops``), and the joint one."""

    neuron: int
    dendrite: int
    tops: int
    joint: int


def lengths(settings: Settings, steps_per_epoch: int) -> Lengths:
    """Return the phases' lengths: those set, and for the others what suits the data's size.

    A network that starts from random weights needs steps more than epochs: on small data the neuron phase
    is lengthened to about `LEAST_STEPS`, up to `MOST_EPOCHS` epochs. On large data one epoch is enough: on
    33,673 comments it was better on validation than three, with each of two seeds (README).
    """
    own = settings.dendrites
    suited = min(MOST_EPOCHS, max(LEAST_EPOCHS, math.ceil(LEAST_STEPS / steps_per_epoch)))
    neuron = settings.train.epochs or suited
    by_correlation = own.objective == "correlation"
    dendrite = own.epochs or max(math.ceil(neuron / 2), 2 if by_correlation else 1)
    tops = own.top_epochs or max(1, dendrite // 3)
    joint = own.joint_epochs if own.joint_epochs is not None else max(1, neuron // 6)
    return Lengths(neuron, dendrite, min(tops, dendrite - 1) if by_correlation else 0, joint)


def phase_length(length: Lengths, phase: Phase) -> int:
    """Return the most epochs that a phase takes."""
    return {
        "neurons": length.neuron,
        "dendrites": length.dendrite,
        "candidates": length.dendrite - length.tops,
        "tops": length.tops,
        "everything": length.joint,
    }[phase.trains]


def first_phase(settings: Settings, length: Lengths) -> Phase:
    """Return the neuron phase."""
    return Phase("neuron", "neurons", 0, length.neuron, settings.train.lr)


def next_phase(settings: Settings, length: Lengths, current: Phase, kept: int) -> Phase | None:
    """Return the phase after ``current``, or None when training is over.

    Args:
        settings: of the run.
        length: of the phases.
        current: the phase that has just ended.
        kept: how many dendrites per Linear are kept so far.
    """
    own, count = settings.dendrites, current.dendrites
    if current.name == "neuron":
        return dendrite_phase(settings, length, 1) if own.enabled else None
    if current.trains == "candidates":
        return Phase("dendrite", "tops", count, length.tops, own.lr)
    if current.name == "dendrite" and length.joint:
        return Phase("joint", "everything", count, length.joint, own.joint_lr)
    if count < own.count and kept == count:
        return dendrite_phase(settings, length, count + 1)
    return None


def ends_dendrite(length: Lengths, phase: Phase) -> bool:
    """Whether a phase is the last one of its dendrite, after which that is judged."""
    return phase.name == "joint" or (phase.trains in ("dendrites", "tops") and not length.joint)


def dendrite_phase(settings: Settings, length: Lengths, count: int) -> Phase:
    """Return the phase that trains the ``count``-th dendrite."""
    own = settings.dendrites
    if own.objective == "correlation":
        return Phase("dendrite", "candidates", count, length.dendrite - length.tops, own.lr)
    return Phase("dendrite", "dendrites", count, length.dendrite, own.lr)
