"""The processes of one training: usually one, several under ``torchrun``.

Every rank holds the whole network and the whole data, and takes its share of each batch; gradients are
averaged by torch's DistributedDataParallel. Rank 0 alone writes files and reports. Nothing is pickled:
what ranks tell each other are tensors and JSON text.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import inspect
import json
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gkiller.errors import RankLostError

if TYPE_CHECKING:
    from collections.abc import Sequence

Rows = npt.NDArray[np.int64]


class Ranks:
    """One process on its own: every exchange gives back what was put in."""

    rank = 0
    size = 1

    @property
    def first(self) -> bool:
        """Whether this process writes and reports."""
        return self.rank == 0

    def share(self, rows: Rows) -> Rows:
        """Return this rank's rows of a batch; it may have none."""
        return rows[self.rank :: self.size]

    def total(self, *values: float) -> list[float]:
        """Return the sum of each value over the ranks."""
        return list(values)

    def add(self, tensor: Tensor) -> Tensor:
        """Return the sum of a tensor over the ranks."""
        return tensor

    def gather(self, value: Any) -> list[Any]:
        """Return every rank's value, in order of rank; values are plain, as JSON has them."""
        return [value]

    def from_first(self, value: Any) -> Any:
        """Return rank 0's value, which is plain, as JSON has it."""
        return value

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return what to call for a forward pass, so that a backward pass averages the gradients."""
        return model


class Group(Ranks):
    """Several processes, joined by torch.distributed; its default process group must be up."""

    def __init__(self, device: torch.device) -> None:
        import torch.distributed as dist

        self._dist = dist
        self._device = device
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def total(self, *values: float) -> list[float]:
        """Return the sum of each value over the ranks."""
        return self.add(torch.tensor(values, dtype=torch.float64)).tolist()

    def add(self, tensor: Tensor) -> Tensor:
        """Return the sum of a tensor over the ranks."""
        moved = tensor.to(self._device)
        self._dist.all_reduce(moved)
        return moved.to(tensor.device)

    def gather(self, value: Any) -> list[Any]:
        """Return every rank's value, in order of rank; values are plain, as JSON has them."""
        text = json.dumps(value).encode()
        sizes = [0] * self.size
        sizes[self.rank] = len(text)
        lengths = [int(size) for size in self.total(*sizes)]
        texts = torch.zeros(self.size, max(lengths), dtype=torch.uint8)
        texts[self.rank, : len(text)] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        rows = self.add(texts).cpu().numpy()
        return [json.loads(rows[i, : lengths[i]].tobytes()) for i in range(self.size)]

    def from_first(self, value: Any) -> Any:
        """Return rank 0's value, which is plain, as JSON has it."""
        return self.gather(value if self.first else None)[0]

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the network inside DistributedDataParallel.

        It is not told to copy rank 0's network to the others: `check_same` has compared them, and
        perforatedai keeps a text with times in a buffer, whose length is not the same in each.
        """
        from torch.nn.parallel import DistributedDataParallel

        known = inspect.signature(DistributedDataParallel).parameters
        buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        options: dict[str, Any] = {"init_sync": False, buffers: False}
        if self._device.type == "cuda":
            options["device_ids"] = [self._device.index]
        return DistributedDataParallel(model, **options)


def world_size() -> int:
    """Return how many processes ``torchrun`` has started for this training; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_processes() -> int:
    """Return how many of them are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def rank_device(device: torch.device) -> torch.device:
    """Return this rank's own device: a graphics card each where the training uses CUDA."""
    if device.type == "cuda" and world_size() > 1:
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return device


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """Join the processes that ``torchrun`` started, for the block; alone without it.

    Raises:
        RankLostError: the others could not be reached, or one of them ended while the block ran.
    """
    if world_size() == 1:
        yield Ranks()
        return
    import torch.distributed as dist

    # DistributedDataParallel imports it, and its functions keep the group that is up then as a default: the
    # group would never end, and a worker thread of it could abort the process while Python shuts down.
    importlib.import_module("torch.distributed.nn.functional")
    with _lost_ranks():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        try:
            yield Group(device)
        finally:
            dist.destroy_process_group()
            gc.collect()  # of a network in DistributedDataParallel, which has the group too


@contextlib.contextmanager
def _lost_ranks() -> Iterator[None]:
    """Turn what torch raises when another process has ended into one error.

    Raises:
        RankLostError: an exchange between the processes failed.
    """
    from torch.distributed import DistError

    try:
        yield
    except DistError as error:
        raise _lost(error) from error
    except RuntimeError as error:
        if not any(sign in str(error) for sign in ("gloo", "NCCL", "Connection closed", "peer")):
            raise
        raise _lost(error) from error


def _lost(error: Exception) -> RankLostError:
    return RankLostError(
        f"another process of this training has ended: {' '.join(str(error).split())[:200]}",
        where=f"rank {os.environ.get('RANK', '?')}",
        remedy="see what that one said, then go on with --resume",
    )


def check_same(ranks: Ranks, digests: Sequence[str]) -> None:
    """Check that all ranks hold the same network.

    Raises:
        RankLostError: they do not.
    """
    found = ranks.gather(list(digests))
    if any(other != found[0] for other in found):
        raise RankLostError(
            "the processes of this training hold different networks",
            where=f"rank {ranks.rank}",
            remedy="use one version of gkiller and torch, and one kind of processor, for all of them",
        )
