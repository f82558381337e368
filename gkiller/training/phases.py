"""The phases of a training, where it stands, whether a dendrite stays, and what a training tells its listener."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import ConfigDict, Field, TypeAdapter
from torch import Tensor

from gkiller.data.dataset import FloatArray
from gkiller.evaluation.metrics import HALF, plan, rank, ratio, resample
from gkiller.evaluation.results import number
from gkiller.evaluation.significance import paired_difference
from gkiller.model.dendrites.growth import capture, dendritic_modules
from gkiller.model.directory import LoadedModel
from gkiller.scoring.models import score_texts
from gkiller.tokens.batches import scoring_batches, tokenize
from gkiller.wording import counted

if TYPE_CHECKING:
    from gkiller.settings.definition import Settings
    from gkiller.tokens.batches import LongText

PhaseName = Literal["neuron", "dendrite", "joint"]
Part = Literal["neurons", "dendrites", "candidates", "tops", "everything"]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, lt=2**31)]
Duration = Annotated[float, Field(ge=0, allow_inf_nan=False)]
CANDIDATES: Final = "candidates"
"""What the first part of a dendrite phase by correlation trains; its loss is minus a mean correlation."""
_PART_NAMES = {CANDIDATES: "candidates", "tops": "top weights"}
_PARTS: dict[PhaseName, tuple[Part, ...]] = {
    "neuron": ("neurons",),
    "dendrite": ("dendrites", "candidates", "tops"),
    "joint": ("everything",),
}
"""What the phases may train."""
LEAST_STEPS, LEAST_EPOCHS, MOST_EPOCHS = 1000, 1, 60
RESAMPLES = 1000
_COLUMNS = {"ap": 1, "f1": 4}
"""Of the two validation metrics in `Plan.figures`, with one threshold."""


def phase_name(phase: str, trains: str = "", dendrites: int = 0) -> str:
    """Return a phase's name, such as "neuron", "dendrite 2" or "dendrite (top weights)"."""
    number = f" {dendrites}" if phase == "dendrite" and dendrites > 1 else ""
    part = f" ({_PART_NAMES[trains]})" if trains in _PART_NAMES else ""
    return phase + number + part


@dataclass(frozen=True)
class Phase:
    """One phase."""

    name: PhaseName
    # which parameters move: the neurons; the newest dendrites with all top weights; the newest dendrites alone, by
    # correlation ("candidates"); the top weights alone; or everything
    trains: Part
    dendrites: Annotated[int, Field(ge=0, lt=2**15)]
    epochs: Count
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class Lengths:
    """The most epochs of each phase: the neurons', a dendrite's (of which ``tops``), and the joint one."""

    neuron: int
    dendrite: int
    tops: int
    joint: int

    def of(self, phase: Phase) -> int:
        """Return the most epochs that a phase takes."""
        return {
            "neurons": self.neuron,
            "dendrites": self.dendrite,
            "candidates": self.dendrite - self.tops,
            "tops": self.tops,
            "everything": self.joint,
        }[phase.trains]


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


def first_phase(settings: Settings, length: Lengths) -> Phase:
    """Return the neuron phase."""
    return Phase("neuron", "neurons", 0, length.neuron, settings.train.lr)


def next_phase(settings: Settings, length: Lengths, current: Phase, kept: int) -> Phase | None:
    """Return the phase after ``current``, or None when training is over."""
    own, count = settings.dendrites, current.dendrites
    part: Part = "candidates" if own.objective == "correlation" else "dendrites"
    first = Phase("dendrite", part, count + 1, length.dendrite - length.tops, own.lr)  # of the next dendrite
    if current.name == "neuron":
        return first if own.enabled else None
    if current.trains == "candidates":
        return Phase("dendrite", "tops", count, length.tops, own.lr)
    if current.name == "dendrite" and length.joint:
        return Phase("joint", "everything", count, length.joint, own.joint_lr)
    return first if count < own.count and kept == count else None


def ends_dendrite(length: Lengths, phase: Phase) -> bool:
    """Whether a phase is the last one of its dendrite, after which that is judged."""
    return phase.name == "joint" or (phase.trains in ("dendrites", "tops") and not length.joint)


# -- whether a dendrite stays -----------------------------------------------------------------------


@dataclass(frozen=True)
class Gain:
    """What one more dendrite per Linear gained on the validation split."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    metric: str  # "ap" or "f1", macro: the one that selects
    before: Finite
    after: Finite
    low: Finite | None  # lower end of the paired bootstrap interval of after - before; None where it is undefined
    high: Finite | None
    confidence: Finite  # coverage of the interval
    kept: bool  # whether the dendrite stays
    reason: str

    @property
    def gain(self) -> float:
        """How much the score rose."""
        return self.after - self.before

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**vars(self), "gain": self.gain}

    def text(self) -> str:
        """Return it in words."""
        span = "none" if self.low is None else f"{self.low:+.4f} to {self.high:+.4f}"
        figures = f"{self.metric.upper()} {self.before:.4f} to {self.after:.4f}, gain {self.gain:+.4f}"
        verdict = "kept" if self.kept else "taken off"
        return f"{figures} ({self.confidence:.0%} interval {span}); {verdict}: {self.reason}"


def judge(
    settings: Settings,
    best: tuple[float, float],
    truth: FloatArray,
    scores: tuple[FloatArray, FloatArray],
    weights: FloatArray,
) -> Gain:
    """Decide whether a dendrite stays: by ``dendrites.min_gain``, or without it by the interval of its gain.

    Args:
        truth: (n, L) 0, 1 or NaN, of the labels that are watched.
        scores: before and after, each (n, L).
        weights: (n,).
    """
    metric, least = settings.train.metric, settings.dendrites.min_gain
    own = settings.evaluation
    ends = gain_interval(metric, truth, scores, weights, seed=own.bootstrap_seed, confidence=own.confidence)
    low, high = map(number, ends)
    if least is not None:
        kept = best[1] - best[0] > least
        reason = f"{'above' if kept else 'not above'} dendrites.min_gain ({least:g})"
    else:
        kept = low is not None and low > 0
        reason = f"the gain's paired interval is {'' if kept else 'not '}above 0"
    return Gain(metric, *best, low, high, own.confidence, kept, reason)


def gain_interval(
    metric: str,
    truth: FloatArray,
    scores: tuple[FloatArray, FloatArray],
    weights: FloatArray,
    *,
    seed: int,
    confidence: float,
) -> tuple[float, float]:
    """Return the paired bootstrap interval of the gain of "ap" or "f1"; NaN where it is undefined.

    The metric is the mean over the labels that have both classes; the arrays are those of `judge`.
    """
    rankings = [[rank(truth[:, i], side[:, i], weights) for i in range(truth.shape[1])] for side in scores]
    plans = [plan(one, (HALF,), 2) for side in rankings for one in side if not one.one_class]
    whole = np.stack([one.figures(np.ones((1, len(truth)))) for one in plans])
    replicas = resample(plans, len(truth), RESAMPLES, seed)
    point, each = (_macro(figures[:, :, _COLUMNS[metric]]) for figures in (whole, replicas))
    found = paired_difference(point[::-1, 0], each[::-1], confidence)
    return found.low, found.high


def _macro(values: FloatArray) -> FloatArray:
    """Return the means over the labels of both sides, (2, R), of values (2 L, R)."""
    sides = values.reshape(2, -1, values.shape[1])
    return ratio(np.nansum(sides, axis=1), np.isfinite(sides).sum(1).astype(np.float64))


def kept_dendrites(gains: Mapping[int, Gain]) -> int:
    """Return how many dendrites per Linear the final model keeps: as many as each stays on the last."""
    count = 0
    while count + 1 in gains and gains[count + 1].kept:
        count += 1
    return count


def gain_line(count: int, gain: Gain) -> str:
    """Return in words what the ``count``-th dendrite gained."""
    return f"{counted(count, 'dendrite')} per Linear: {gain.text()}"


def top_weight_mean(loaded: LoadedModel) -> float:
    """Return the mean magnitude of all top weights; 0.0 without dendrites."""
    tops = [m.dendrite_tops.detach().abs().flatten() for m in dendritic_modules(loaded.model).values()]
    return float(torch.cat(tops).mean()) if tops else 0.0


def ablated_scores(
    loaded: LoadedModel, texts: Sequence[str], batch_size: int = 256, *, long_text: LongText = "window"
) -> dict[str, npt.NDArray[np.float64]]:
    """Return the scores of ``texts`` three ways: "whole", "zeroed" and "mean", each (n, L)."""
    variants = {
        "whole": loaded,
        "zeroed": without_dendrites(loaded),
        "mean": with_mean_dendrites(loaded, texts, batch_size),
    }
    return {name: score_texts(variant, texts, batch_size, long_text=long_text) for name, variant in variants.items()}


def without_dendrites(loaded: LoadedModel) -> LoadedModel:
    """Return a copy whose dendrites' outputs are zero."""
    silent = copy.deepcopy(loaded.model)
    with torch.no_grad():
        for module in dendritic_modules(silent).values():
            module.dendrite_tops.zero_()
    return replace(loaded, model=silent)


def with_mean_dendrites(loaded: LoadedModel, texts: Sequence[str], batch_size: int = 256) -> LoadedModel:
    """Return a copy whose dendrites always give their mean over the real tokens of ``texts``.

    If it scores as well as the whole model, the dendrites act as a bias and compute nothing.
    """
    constant, means = without_dendrites(loaded), _mean_outputs(loaded, texts, batch_size)
    with torch.no_grad():
        for name, module in dendritic_modules(constant.model).items():
            module.bias.add_(means[name].to(module.bias.dtype))
    return constant


def _mean_outputs(loaded: LoadedModel, texts: Sequence[str], batch_size: int) -> dict[str, Tensor]:
    """Return the dendrites' mean contribution to each module's output, by module: (units,), float64."""
    modules, count = dendritic_modules(loaded.model), 0
    sums = {n: torch.zeros(m.out_features, dtype=torch.float64) for n, m in modules.items()}
    tokens = tokenize(loaded.tokenizer, texts)
    with torch.inference_mode(), capture(modules) as seen:
        for rows in scoring_batches(tokens.lengths, batch_size):
            ids, mask = (torch.from_numpy(part) for part in tokens.pad_batch(rows))
            loaded.model(ids, mask)
            real = mask.bool()
            count += int(real.sum())
            for name, module in modules.items():
                neuron = torch.nn.functional.linear(seen.inputs[name], module.weight, module.bias)
                sums[name] += (seen.outputs[name] - neuron)[real].double().sum(0)
    return {name: total / max(1, count) for name, total in sums.items()}


# -- where a training stands ------------------------------------------------------------------------


@dataclass
class Position:
    """Where a training stands, without its tensors."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    phase: Phase  # the current phase, or the last one once finished
    phase_number: Count = 1
    phase_epoch: Count = 0
    epoch: Count = 0
    step: Count = 0
    epoch_loss: Finite = 0.0
    epoch_rows: Count = 0
    epoch_seconds: Duration = 0.0
    stale: Count = 0
    phase_best: Finite | None = None  # best score of this phase, or None before its first epoch
    best: dict[Count, Finite] = field(default_factory=dict)
    best_epoch: dict[Count, Count] = field(default_factory=dict)
    gains: dict[Count, Gain] = field(default_factory=dict)
    # the scores that the history rule has seen; from them the tracker is set up again
    tracked: list[Finite] = field(default_factory=list)
    metrics: list[dict[str, Any]] = field(default_factory=list)  # the rows of metrics.jsonl so far
    stopped_early: list[str] = field(default_factory=list)
    seconds: Duration = 0.0  # training time so far, whole epochs only
    finished: bool = False  # whether all phases are done

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
        return f"step {self.step:,} of epoch {self.epoch + 1}" if self.step else f"epoch {self.epoch}"

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Position:
        """Read what `as_dict` gave, after JSON has made its keys text; a ValueError for anything else."""
        progress = _READER.validate_python(dict(values))
        if fault := _impossible(progress):
            raise ValueError(f"no training comes to a place where {fault}")
        return progress


def _impossible(progress: Position) -> str:
    """Return what cannot be of a place in a training; "" when all can."""
    phase, best, epochs = progress.phase, progress.best, progress.best_epoch
    dendritic = phase.name != "neuron"
    faults = {
        "a phase has no epochs": phase.epochs < 1,
        "the neuron phase trains dendrites, or another one has none": dendritic != (phase.dendrites > 0),
        f"the {phase.name} phase trains {phase.trains}": phase.trains not in _PARTS[phase.name],
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


_READER = TypeAdapter(Position)


@dataclass(frozen=True)
class TrainingEvent:
    """One moment of a training."""

    kind: Literal["phase", "step", "epoch", "note"]  # a phase's start, a step's or an epoch's end, or a `note`
    phase: str = ""  # the phase's name, such as "neuron"
    phase_index: int = 1
    epoch: int = 0
    epochs: int = 0
    step: int = 0
    steps: int = 0
    # mean training loss of the step or the epoch; where candidates train, minus their mean correlation with the
    # neurons' error
    loss: float | None = None
    score: float | None = None  # the validation metric, or None where it was not measured
    metric: str = ""  # the metric's name, such as "ap"
    rows_per_second: float | None = None  # training speed, or None where it was not measured
    message: str = ""  # of a note: a sentence for the reader
    trains: str = ""  # which parameters the phase moves, such as "candidates"


def note(message: str) -> TrainingEvent:
    """Return an event that is worth a line."""
    return TrainingEvent("note", message=message)
