"""Checkpoints: everything a training needs to go on, as safetensors and JSON."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from gkiller.errors import ResumeError
from gkiller.files import atomic_directory, writing
from gkiller.model.growth import State
from gkiller.sealed import SealBrokenError, Sealed, seal, unseal
from gkiller.tensors import read_tensors
from gkiller.training.progress import Progress

FORMAT_VERSION = 2
STATE = "state.json"
MAX_FILE_BYTES = 8 * 2**30
"""Of a file of tensors: a giant's optimiser is far below."""
_WEIGHTS, _OPTIMIZER = "weights.safetensors", "optimizer.safetensors"
_START_ANEW = "start a new training"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint read back.

    Attributes:
        progress: where the training stood, with its metrics, early stopping and place in the data.
        weights: folded weights.
        optimizer: the optimiser's tensors by parameter, "<folded name>/<key>"; empty at a phase's start.
        rng: the random generators' states, one for each rank, as `rng_state` gives them.
    """

    progress: Progress
    weights: State
    optimizer: dict[str, Tensor]
    rng: list[dict[str, Any]]

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
        progress, rng = Progress.from_dict(sealed.content["progress"]), sealed.content["rng"]
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
