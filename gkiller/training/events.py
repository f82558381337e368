"""What a training tells its listener."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class TrainingEvent:
    """One moment of a training.

    Attributes:
        kind: "phase" when a phase starts, "step" after a step, "epoch" after an epoch and its
            validation, "note" for anything else worth a line.
        phase: the phase's name, such as "neuron".
        phase_index: which phase this is, counted from 1.
        epoch: the epoch within the phase, counted from 1; 0 before the first.
        epochs: the most epochs that this phase may take.
        step: steps done in this epoch.
        steps: steps in an epoch.
        loss: mean training loss (of the step, or of the epoch), or None; where candidates train, minus
            their mean correlation with the neurons' error.
        score: the validation metric, or None where it was not measured.
        metric: the metric's name, such as "ap".
        rows_per_second: training speed, or None where it was not measured.
        message: a sentence for the reader, or an empty string.
        trains: which parameters the phase moves, such as "candidates", or an empty string.
    """

    kind: Literal["phase", "step", "epoch", "note"]
    phase: str = ""
    phase_index: int = 1
    epoch: int = 0
    epochs: int = 0
    step: int = 0
    steps: int = 0
    loss: float | None = None
    score: float | None = None
    metric: str = ""
    rows_per_second: float | None = None
    message: str = ""
    trains: str = ""
