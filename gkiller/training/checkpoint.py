"""What a training keeps on the disk, sealed: checkpoints, best weights, and arrays that were computed once."""

from __future__ import annotations

import contextlib
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
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

_VERSION: Final = 2
_STATE, _WEIGHTS, _OPTIMIZER = "state.json", "weights.safetensors", "optimizer.safetensors"
_MOST_BYTES: Final = 8 * 2**30
"""Of a file of tensors: a giant's optimiser is far below."""
_ARRAYS, _ARRAYS_VERSION = "scores.json", 1
_DTYPES: Final[dict[str, npt.DTypeLike]] = {".f16": np.float16, ".f32": np.float32}
_START_ANEW = "start a new training"


@contextlib.contextmanager
def new_arrays(place: Path, shapes: Mapping[str, Sequence[int]]) -> Iterator[Path]:
    """Give a directory for arrays by file name (``NAME.f16`` or ``NAME.f32``); it is sealed when the block ends well.

    Raises:
        OutputError: there is no room for them on the disk, or they cannot be written.
    """
    size = sum(math.prod(shape) * np.dtype(_DTYPES[Path(name).suffix]).itemsize for name, shape in shapes.items())
    require_space(place.parent, size)
    with atomic_directory(place) as temporary:
        yield temporary
        seal(temporary, _ARRAYS, {"format_version": _ARRAYS_VERSION, "shapes": shapes})


def read_arrays(place: Path) -> dict[str, npt.NDArray[Any]] | None:
    """Map the arrays of `new_arrays` after comparing their digests; None where they are missing or damaged."""
    try:
        shapes = unseal(place, _ARRAYS, version=_ARRAYS_VERSION, keep={}, exact=True).content["shapes"]
    except (SealBrokenError, OSError):
        return None
    dtypes = {name: _DTYPES[Path(name).suffix] for name in shapes}
    return {name: np.memmap(place / name, dtypes[name], "r", shape=tuple(shape)) for name, shape in shapes.items()}


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a training needs to go on."""

    progress: Position  # where the training stood, with its metrics, early stopping and place in the data
    weights: State
    optimizer: dict[str, Tensor]  # the optimiser's, by "<folded parameter>/<key>"; empty at a phase's start
    rng: list[dict[str, Any]]  # the random generators' states, one for each rank, as rng_state gives them


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: Mapping[str, nn.Parameter]) -> State:
    """Return an optimiser's state as flat tensors named "<parameter>/<key>", on the CPU."""
    return {
        f"{name}/{key}": torch.as_tensor(value).detach().cpu().clone()
        for name, parameter in names.items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, names: Mapping[str, nn.Parameter], flat: Mapping[str, Tensor]
) -> None:
    """Put back what `optimizer_tensors` returned; a ResumeError where it does not belong to these parameters."""
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
    """Write a checkpoint directory, whole or not at all; an OutputError where that fails."""
    tensors = {_WEIGHTS: checkpoint.weights, _OPTIMIZER: checkpoint.optimizer}
    _write(directory, tensors, {"progress": checkpoint.progress.as_dict(), "rng": checkpoint.rng})


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
            raise ValueError("the random generators' states are not a list")
        return Checkpoint(progress, read_tensors(sealed.kept[_WEIGHTS]), optimizer, rng)


def save_weights(directory: Path, weights: State) -> None:
    """Write a directory of weights alone, whole or not at all; an OutputError where that fails."""
    _write(directory, {_WEIGHTS: weights}, {})


def load_weights(directory: Path) -> State:
    """Read what `save_weights` wrote; a ResumeError where it is missing or damaged."""
    with _readable(directory):
        return read_tensors(_unseal(directory, _WEIGHTS).kept[_WEIGHTS])


def _write(directory: Path, tensors: Mapping[str, State], content: Mapping[str, Any]) -> None:
    with writing(directory), atomic_directory(directory) as temporary:
        for name, state in tensors.items():
            (temporary / name).write_bytes(save(state))  # not save_file: Python's errors say what is wrong
        seal(temporary, _STATE, {"format_version": _VERSION, **content})


def _unseal(directory: Path, *files: str) -> Sealed:
    return unseal(directory, _STATE, version=_VERSION, keep=dict.fromkeys(files, _MOST_BYTES), exact=True)


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
    ``keep`` checkpoints stay; those that `newest` has found damaged do not.
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
        self._make_room([*checkpoint.weights.values(), *checkpoint.optimizer.values()], more=1 << 18)
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

    def _make_room(self, tensors: Sequence[Tensor], more: int = 0) -> None:
        make_directory(self.directory)
        require_space(self.directory, sum(tensor.nbytes for tensor in tensors) + more)

    def _bests_of(self, checkpoint: Path) -> list[Path]:
        """Return the best weights that a checkpoint refers to; none when its state is damaged."""
        try:
            state = parse_json((checkpoint / _STATE).read_bytes())
            return [self._best(int(c), at) for c, at in state["progress"]["best_epoch"].items()]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return []

    def _best(self, count: int, epoch: int) -> Path:
        return self.directory / f"best-{count}-epoch-{epoch:05d}"

    def save_best(self, weights: State, count: int, epoch: int) -> None:
        """Write the best weights with ``count`` dendrites per Linear, those of ``epoch``; errors as `save`."""
        self._make_room(list(weights.values()))
        save_weights(self._best(count, epoch), weights)

    def load_best(self, count: int, epoch: int) -> State:
        """Read what `save_best` wrote; a ResumeError where it is missing or damaged."""
        return load_weights(self._best(count, epoch))

    def tidy(self) -> None:
        """Remove what a killed process left half-written; call it only as the run's one writer."""
        remove_leftovers(self.directory)

    def newest(self, on_damaged: Callable[[ResumeError], None] = lambda error: None) -> Checkpoint | None:
        """Read the newest checkpoint that is whole, with the best weights that it refers to; None without any.

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
        raise ResumeError(f"no usable checkpoint ({first})", where=str(self.directory), remedy=_START_ANEW)
