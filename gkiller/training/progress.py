"""Where a training stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, TypeAdapter

from gkiller.training.gain import Finite, Gain
from gkiller.training.phases import PARTS, Phase

Count = Annotated[int, Field(ge=0, lt=2**31)]
Duration = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass
class Progress:
    """Where a training stands, without its tensors.

    Attributes:
        phase: the current phase, or the last one once ``finished``.
        phase_number: which phase it is, counted from 1.
        phase_epoch: epochs done in it.
        epoch: epochs done in all.
        step: steps done in the epoch that has begun; 0 between two epochs.
        epoch_loss: sum of the rows' losses in these steps.
        epoch_rows: rows in these steps.
        epoch_seconds: time they took.
        stale: epochs in this phase since its best score.
        phase_best: best score of this phase, or None before its first epoch.
        best: best score so far, by dendrites per Linear.
        best_epoch: the epoch of that score, by dendrites per Linear.
        gains: what each dendrite gained, by dendrites per Linear, once it is judged.
        tracked: the scores that the history rule has seen; from them the tracker is set up again.
        metrics: the rows of ``metrics.jsonl`` so far.
        stopped_early: a sentence for each phase that patience or the history rule ended.
        seconds: training time so far, whole epochs only.
        finished: whether all phases are done.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    phase: Phase
    phase_number: Count = 1
    phase_epoch: Count = 0
    epoch: Count = 0
    step: Count = 0
    epoch_loss: Finite = 0.0
    epoch_rows: Count = 0
    epoch_seconds: Duration = 0.0
    stale: Count = 0
    phase_best: Finite | None = None
    best: dict[Count, Finite] = field(default_factory=dict)
    best_epoch: dict[Count, Count] = field(default_factory=dict)
    gains: dict[Count, Gain] = field(default_factory=dict)
    tracked: list[Finite] = field(default_factory=list)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    stopped_early: list[str] = field(default_factory=list)
    seconds: Duration = 0.0
    finished: bool = False

    def start(self, phase: Phase) -> None:
        """Begin a phase."""
        self.phase, self.phase_number = phase, self.phase_number + 1
        self.phase_epoch, self.stale, self.phase_best = 0, 0, None

    def stepped(self, loss: float, rows: int, seconds: float) -> None:
        """Count a step."""
        self.step += 1
        self.epoch_loss += loss * rows
        self.epoch_rows += rows
        self.epoch_seconds += seconds

    def close_epoch(self) -> None:
        """Count an epoch whose steps are all done."""
        self.epoch, self.phase_epoch = self.epoch + 1, self.phase_epoch + 1
        self.step, self.epoch_loss, self.epoch_rows, self.epoch_seconds = 0, 0.0, 0, 0.0

    def place(self) -> str:
        """Return where it stands, for a reader."""
        if self.step:
            return f"step {self.step:,} of epoch {self.epoch + 1}"
        return f"epoch {self.epoch}"

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Progress:
        """Read what `as_dict` gave, after JSON has made its keys text.

        Raises:
            ValueError: it is something else.
        """
        progress = _READER.validate_python(dict(values))
        if fault := _impossible(progress):
            raise ValueError(f"no training comes to a place where {fault}")
        return progress


def _impossible(progress: Progress) -> str:
    """Return what cannot be of a place in a training; "" when all can."""
    phase, best, epochs = progress.phase, progress.best, progress.best_epoch
    faults = {
        "a phase has no epochs": phase.epochs < 1,
        "the neuron phase trains dendrites, or another one has none": (phase.name == "neuron")
        != (phase.dendrites == 0),
        f"the {phase.name} phase trains {phase.trains}": phase.trains not in PARTS[phase.name],
        "a phase has more epochs than the training": progress.phase_epoch > progress.epoch,
        "steps have no rows, or rows no step": (progress.step == 0) != (progress.epoch_rows == 0),
        "scores and their epochs are of different dendrites": best.keys() != epochs.keys(),
        "there are scores for more dendrites than were grown": max(best, default=0) > phase.dendrites,
        "a dendrite was judged without a score": not best.keys() >= progress.gains.keys(),
        "there is no score to go on from": not best.keys() >= set(range(phase.dendrites)),
        "an epoch has no score": progress.epoch > 0 and 0 not in best,
        "the best epoch is not over": any(not 1 <= epoch <= progress.epoch for epoch in epochs.values()),
        "all phases are over after no epoch": progress.finished and progress.epoch == 0,
    }
    return next((fault for fault, found in faults.items() if found), "")


_READER = TypeAdapter(Progress)
