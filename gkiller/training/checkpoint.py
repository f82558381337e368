"""Checkpoints: everything a training needs to go on, as safetensors and JSON."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gkiller.errors import ResumeError
from gkiller.files import atomic_directory, json_text, sha256_file
from gkiller.model.growth import State
from gkiller.training.phases import Phase

FORMAT_VERSION = 1
_STATE, _WEIGHTS, _OPTIMIZER = "state.json", "weights.safetensors", "optimizer.safetensors"
_RNG = "rng.torch"
_START_ANEW = "start a new training"


@dataclass
class Progress:
    """Where a training stands, without its tensors.

    Attributes:
        phase: the current phase, or the last one once ``finished``.
        phase_number: which phase it is, counted from 1.
        phase_epoch: epochs done in it.
        epoch: epochs done in all.
        stale: epochs in this phase since its best score.
        phase_best: best score of this phase, or None before its first epoch.
        best: best score so far, by dendrites per Linear.
        best_epoch: the epoch of that score, by dendrites per Linear.
        tracked: the scores that the history rule has seen.
        finished: whether all phases are done.
        stopped_early: phases that patience or the history rule ended, such as "neuron at epoch 4".
        seconds: training time so far.
    """

    phase: Phase
    phase_number: int = 1
    phase_epoch: int = 0
    epoch: int = 0
    stale: int = 0
    phase_best: float | None = None
    best: dict[int, float] = field(default_factory=dict)
    best_epoch: dict[int, int] = field(default_factory=dict)
    tracked: list[float] = field(default_factory=list)
    finished: bool = False
    stopped_early: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def start(self, phase: Phase) -> None:
        """Begin a phase."""
        self.phase, self.phase_number = phase, self.phase_number + 1
        self.phase_epoch, self.stale, self.phase_best = 0, 0, None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Progress:
        """Read what `as_dict` gave, after JSON has made its keys text."""
        plain = dict(values)
        plain["phase"] = Phase(**plain["phase"])
        for key in ("best", "best_epoch"):
            plain[key] = {int(count): value for count, value in plain[key].items()}
        return cls(**plain)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint read back.

    Attributes:
        progress: where the training stood.
        weights: folded weights.
        optimizer: the optimiser's tensors by parameter, "<folded name>/<key>"; empty at a phase's start.
        rng: torch's CPU generator state.
    """

    progress: Progress
    weights: State
    optimizer: dict[str, Tensor]
    rng: Tensor


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: Mapping[str, nn.Parameter]) -> State:
    """Return an optimiser's state as flat tensors named "<parameter>/<key>", on the CPU."""
    flat = {}
    for name, parameter in names.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            flat[f"{name}/{key}"] = torch.as_tensor(value).detach().cpu().clone()
    return flat


def restore_optimizer(
    optimizer: torch.optim.Optimizer, names: Mapping[str, nn.Parameter], flat: Mapping[str, Tensor]
) -> None:
    """Put back what `optimizer_tensors` returned."""
    for entry, tensor in flat.items():
        name, _, key = entry.rpartition("/")
        parameter = names[name]
        # A fused optimiser keeps its step count with the parameter.
        optimizer.state[parameter][key] = tensor.clone().to(parameter.device)


def save_checkpoint(directory: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint directory whole or not at all."""
    with atomic_directory(directory) as temporary:
        save_file(checkpoint.weights, temporary / _WEIGHTS)
        save_file({**checkpoint.optimizer, _RNG: checkpoint.rng}, temporary / _OPTIMIZER)
        _write_state(temporary, {"progress": checkpoint.progress.as_dict()})


def load_checkpoint(directory: Path) -> Checkpoint:
    """Read a checkpoint directory.

    Raises:
        ResumeError: it is incomplete, damaged, or of an unknown version.
    """
    with _readable(directory):
        state = _read_state(directory)
        optimizer = load_file(directory / _OPTIMIZER)
        rng = optimizer.pop(_RNG)
        progress = Progress.from_dict(state["progress"])
        return Checkpoint(progress, load_file(directory / _WEIGHTS), optimizer, rng)


def _write_state(directory: Path, content: Mapping[str, Any]) -> None:
    """Write ``state.json``: content, format version and the digests of the other files."""
    files = {path.name: sha256_file(path) for path in sorted(directory.iterdir())}
    state = {"format_version": FORMAT_VERSION, **content, "files": files}
    (directory / _STATE).write_text(json_text(state), "utf-8")


def _read_state(directory: Path) -> dict[str, Any]:
    """Read ``state.json`` and check the digests in it."""
    state: dict[str, Any] = json.loads((directory / _STATE).read_text("utf-8"))
    if state["format_version"] != FORMAT_VERSION:
        raise ResumeError(
            f"checkpoint format {state['format_version']!r} is unknown",
            where=str(directory),
            remedy=f"this gkiller reads format {FORMAT_VERSION}; use the version that wrote it",
        )
    for name, digest in state["files"].items():
        if sha256_file(directory / name) != digest:
            raise ResumeError(f"{name} is damaged", where=str(directory), remedy=_START_ANEW)
    return state


@contextlib.contextmanager
def _readable(directory: Path) -> Iterator[None]:
    """Turn what an incomplete or damaged checkpoint raises into one error."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        what = f"the checkpoint cannot be read: {error}"
        raise ResumeError(what, where=str(directory), remedy=_START_ANEW) from error


class CheckpointStore:
    """A run's checkpoints: the newest few epochs, and the best weights that they refer to.

    The best weights are named by dendrites and epoch, not overwritten: a training that goes on from an
    earlier epoch must find those that were the best at that time.

    Args:
        directory: the run's ``checkpoints`` directory.
        keep: how many epoch checkpoints stay.
    """

    def __init__(self, directory: Path, keep: int) -> None:
        self.directory = directory
        self.keep = keep

    def epochs(self) -> list[Path]:
        """Return the epoch checkpoints, newest first."""
        return sorted(self.directory.glob("epoch-*"), reverse=True)

    def save_epoch(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint for the current epoch; drop the oldest ones and what they alone refer to."""
        save_checkpoint(self.directory / f"epoch-{checkpoint.progress.epoch:05d}", checkpoint)
        for old in self.epochs()[self.keep :]:
            shutil.rmtree(old)
        needed = {path for epoch in self.epochs() for path in self._bests_of(epoch)}
        for best in self.directory.glob("best-*"):
            if best not in needed:
                shutil.rmtree(best)

    def _bests_of(self, epoch: Path) -> list[Path]:
        """Return the best weights that an epoch checkpoint refers to; none when its state is damaged."""
        try:
            with _readable(epoch):
                state = json.loads((epoch / _STATE).read_text("utf-8"))
                return [self._best(int(c), at) for c, at in state["progress"]["best_epoch"].items()]
        except ResumeError:
            return []

    def _best(self, count: int, epoch: int) -> Path:
        return self.directory / f"best-{count}-epoch-{epoch:05d}"

    def save_best(self, weights: State, count: int, epoch: int) -> None:
        """Write the best weights with ``count`` dendrites per Linear, those of ``epoch``."""
        with atomic_directory(self._best(count, epoch)) as temporary:
            save_file(weights, temporary / _WEIGHTS)
            _write_state(temporary, {})

    def load_best(self, count: int, epoch: int) -> State:
        """Read what `save_best` wrote.

        Raises:
            ResumeError: they are not there or damaged.
        """
        directory = self._best(count, epoch)
        with _readable(directory):
            _read_state(directory)
            return load_file(directory / _WEIGHTS)

    def newest(self) -> Checkpoint:
        """Read the newest epoch checkpoint that is whole.

        Raises:
            ResumeError: there is none.
        """
        first: ResumeError | None = None
        for directory in self.epochs():
            try:
                return load_checkpoint(directory)
            except ResumeError as error:
                first = first or error
        raise ResumeError(
            f"no usable checkpoint{f' ({first})' if first else ''}",
            where=str(self.directory),
            remedy=_START_ANEW,
        )
