"""Checkpoints: everything a training needs to go on, as safetensors and JSON."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from gkiller.errors import ResumeError
from gkiller.model.dendrites.growth import State
from gkiller.storage.files import atomic_directory, make_directory, remove_leftovers, require_space, writing
from gkiller.storage.sealed import SealBrokenError, Sealed, seal, unseal
from gkiller.storage.strict_json import parse_json
from gkiller.storage.tensors import read_tensors
from gkiller.training.phases import Position

FORMAT_VERSION = 2
STATE = "state.json"
MAX_FILE_BYTES = 8 * 2**30
"""Of a file of tensors: a giant's optimiser is far below."""

_WEIGHTS, _OPTIMIZER = "weights.safetensors", "optimizer.safetensors"
_START_ANEW = "start a new training"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint read back."""

    progress: Position  # where the training stood, with its metrics, early stopping and place in the data
    weights: State
    # the optimiser's tensors by parameter, "<folded name>/<key>"; empty at a phase's start
    optimizer: dict[str, Tensor]
    rng: list[dict[str, Any]]  # the random generators' states, one for each rank, as rng_state gives them

    def size(self) -> int:
        """Return about how many bytes it takes on the disk."""
        tensors = [*self.weights.values(), *self.optimizer.values()]
        return sum(tensor.nbytes for tensor in tensors) + (1 << 18)


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
    """Put back what `optimizer_tensors` returned.

    Raises:
        ResumeError: it does not belong to these parameters.
    """
    for entry, tensor in flat.items():
        name, _, key = entry.rpartition("/")
        if name not in names:
            raise ResumeError(f"the optimiser's {entry!r} belongs to no parameter", remedy=_START_ANEW)
        parameter = names[name]
        if tensor.ndim and tensor.shape != parameter.shape:
            raise ResumeError(f"the optimiser's {entry!r} has another shape", remedy=_START_ANEW)
        # A fused optimiser keeps its step count with the parameter.
        optimizer.state[parameter][key] = tensor.clone().to(parameter.device)


def save_checkpoint(directory: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint directory whole or not at all.

    Raises:
        OutputError: it cannot be written there, or the disk is full.
    """
    tensors = {_WEIGHTS: checkpoint.weights, _OPTIMIZER: checkpoint.optimizer}
    write_sealed(directory, tensors, {"progress": checkpoint.progress.as_dict(), "rng": checkpoint.rng})


def load_checkpoint(directory: Path) -> Checkpoint:
    """Read a checkpoint directory.

    Raises:
        ResumeError: it is incomplete, damaged, of an unknown version, or no checkpoint of ours.
    """
    with _readable(directory):
        sealed = _unseal(directory, _WEIGHTS, _OPTIMIZER)
        optimizer = read_tensors(sealed.kept[_OPTIMIZER])
        progress, rng = Position.from_dict(sealed.content["progress"]), sealed.content["rng"]
        if not isinstance(rng, list):
            raise ValueError("the random generators' states are no list")
        return Checkpoint(progress, read_tensors(sealed.kept[_WEIGHTS]), optimizer, rng)


def save_weights(directory: Path, weights: State) -> None:
    """Write a directory of weights alone, whole or not at all.

    Raises:
        OutputError: it cannot be written there, or the disk is full.
    """
    write_sealed(directory, {_WEIGHTS: weights}, {})


def load_weights(directory: Path) -> State:
    """Read what `save_weights` wrote.

    Raises:
        ResumeError: it is not there or damaged.
    """
    with _readable(directory):
        return read_tensors(_unseal(directory, _WEIGHTS).kept[_WEIGHTS])


def write_sealed(directory: Path, tensors: Mapping[str, State], content: Mapping[str, Any]) -> None:
    """Write safetensors files and ``state.json``, which holds the content and the digests of the others."""
    with writing(directory), atomic_directory(directory) as temporary:
        for name, state in tensors.items():
            (temporary / name).write_bytes(save(state))  # not save_file: Python's errors say what is wrong
        seal(temporary, STATE, {"format_version": FORMAT_VERSION, **content})


def _unseal(directory: Path, *files: str) -> Sealed:
    limits = dict.fromkeys(files, MAX_FILE_BYTES)
    return unseal(directory, STATE, version=FORMAT_VERSION, keep=limits, exact=True)


@contextlib.contextmanager
def _readable(directory: Path) -> Iterator[None]:
    """Turn what an incomplete or damaged checkpoint raises into one error."""
    try:
        yield
    except SealBrokenError as error:
        what = f"{error.file.name}: {error.what}"
        raise ResumeError(what, where=str(directory), remedy=_START_ANEW) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"the checkpoint cannot be read: {error}"
        raise ResumeError(what, where=str(directory), remedy=_START_ANEW) from error


class CheckpointStore:
    """A run's checkpoints: the newest few, and the best weights that they refer to.

    Checkpoints are numbered in the order they were written, and none is ever overwritten. The best weights are named by
    dendrites and epoch: a training that goes on from an earlier epoch must find those that were the best at that time.

    Args:
        directory: the run's ``checkpoints`` directory.
        keep: how many checkpoints stay; those that `newest` has found damaged do not.
    """

    def __init__(self, directory: Path, keep: int) -> None:
        self.directory = directory
        self.keep = keep
        self._damaged: set[Path] = set()

    def checkpoints(self) -> list[Path]:
        """Return the checkpoints, newest first."""
        return sorted(self.directory.glob("checkpoint-" + "[0-9]" * 8), reverse=True)

    def save(self, checkpoint: Checkpoint) -> None:
        """Write the next checkpoint; then drop the oldest and the damaged ones, and what they alone refer to.

        Raises:
            OutputError: it cannot be written, or does not fit on the disk; the earlier ones stay.
        """
        self._make_room(checkpoint.size())
        newest = self.checkpoints()[:1]
        number = int(newest[0].name.rpartition("-")[2]) + 1 if newest else 1
        save_checkpoint(self.directory / f"checkpoint-{number:08d}", checkpoint)
        with writing(self.directory):
            whole = [path for path in self.checkpoints() if path not in self._damaged]
            for path in self.checkpoints():
                if path not in whole[: self.keep]:
                    shutil.rmtree(path)
            needed = {best for kept in self.checkpoints() for best in self._bests_of(kept)}
            for best in self.directory.glob("best-*"):
                if best not in needed:
                    shutil.rmtree(best)

    def _make_room(self, size: int) -> None:
        make_directory(self.directory)
        require_space(self.directory, size)

    def _bests_of(self, checkpoint: Path) -> list[Path]:
        """Return the best weights that a checkpoint refers to; none when its state is damaged."""
        try:
            state = parse_json((checkpoint / STATE).read_bytes())
            return [self._best(int(c), at) for c, at in state["progress"]["best_epoch"].items()]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return []

    def _best(self, count: int, epoch: int) -> Path:
        return self.directory / f"best-{count}-epoch-{epoch:05d}"

    def save_best(self, weights: State, count: int, epoch: int) -> None:
        """Write the best weights with ``count`` dendrites per Linear, those of ``epoch``.

        Raises:
            OutputError: they cannot be written, or do not fit on the disk.
        """
        self._make_room(sum(tensor.nbytes for tensor in weights.values()))
        save_weights(self._best(count, epoch), weights)

    def load_best(self, count: int, epoch: int) -> State:
        """Read what `save_best` wrote.

        Raises:
            ResumeError: they are not there or damaged.
        """
        return load_weights(self._best(count, epoch))

    def tidy(self) -> None:
        """Remove what a killed process left half-written; call it only as the run's one writer."""
        remove_leftovers(self.directory)

    def newest(self, on_damaged: Callable[[ResumeError], None] = lambda error: None) -> Checkpoint | None:
        """Read the newest checkpoint that is whole, with the best weights that it refers to.

        Returns:
            None where no checkpoint was ever written.

        Raises:
            ResumeError: all there are are damaged.
        """
        first: ResumeError | None = None
        for directory in self.checkpoints():
            try:
                checkpoint = load_checkpoint(directory)
                for count, epoch in checkpoint.progress.best_epoch.items():
                    self.load_best(count, epoch)
            except ResumeError as error:
                first = first or error
                self._damaged.add(directory)
                on_damaged(error)
            else:
                return checkpoint
        if first is None:
            return None
        raise ResumeError(f"no usable checkpoint ({first})", where=str(self.directory), remedy="start a new training")
