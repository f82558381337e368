"""What a training runs on: processes, device, precision, threads, random generators, signals.

Every rank holds the whole network and the whole data, and takes its share of each batch; gradients are
averaged by torch's DistributedDataParallel. Rank 0 alone writes files and reports. Nothing is pickled: ranks
send each other tensors and JSON text.
"""

from __future__ import annotations

import base64
import contextlib
import gc
import importlib
import inspect
import json
import os
import random
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gkiller.errors import RankLostError, SettingsError

if TYPE_CHECKING:
    from gkiller.settings.definition import TrainSettings


def seed_everything(seed: int) -> None:
    """Seed torch (every device), numpy and Python."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def rng_state(device: torch.device) -> dict[str, Any]:
    """Return the state of torch's, numpy's and Python's global generators, as JSON can hold it."""
    kind, keys, position, has_gauss, gauss = np.random.get_state()
    version, internal, following = random.getstate()
    state: dict[str, Any] = {
        "torch": _encoded(torch.get_rng_state()),
        "numpy": [kind, np.asarray(keys).tolist(), int(position), int(has_gauss), float(gauss)],
        "python": [version, list(internal), following],
    }
    if device.type == "cuda":
        state["cuda"] = _encoded(torch.cuda.get_rng_state(device))
    return state


def restore_rng(state: dict[str, Any], device: torch.device) -> None:
    """Put back what `rng_state` returned; a KeyError, TypeError or ValueError where it is something else."""
    torch.set_rng_state(_decoded(state["torch"]))
    kind, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), position, has_gauss, gauss))
    version, internal, following = state["python"]
    random.setstate((version, tuple(internal), following))
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(_decoded(state["cuda"]), device)


def _encoded(tensor: torch.Tensor) -> str:
    return base64.b64encode(tensor.numpy().tobytes()).decode("ascii")


def _decoded(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text, validate=True)), dtype=torch.uint8)


def resolve_device(name: str) -> torch.device:
    """Return the device of that name, or a SettingsError; "auto" is CUDA, else Apple's MPS, else the CPU."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(device for device, found in there.items() if found))
    if not there[name]:
        raise SettingsError(f"there is no {name} device here", where="train.device", remedy="use auto or cpu")
    return torch.device(name)


def resolve_precision(name: str, device: torch.device) -> str:
    """Return "bf16" or "fp32"; "auto" is bf16 on CUDA, else fp32."""
    if name == "auto":
        return "bf16" if device.type == "cuda" else "fp32"
    return name


def mixed_precision(name: str, device: torch.device) -> torch.autocast:
    """Return a block whose matrix products are computed on a device with numbers of that precision."""
    enabled = resolve_precision(name, device) == "bf16"
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def cpu_count() -> int:
    """Return the CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def thread_count(settings: TrainSettings) -> int:
    """Return the CPU threads of this process: those set, else OMP_NUM_THREADS, else its part of the cores.

    OMP_NUM_THREADS is each process's own number. It is passed over where it is no whole number from 1 to
    1024, and where it is 1 with other processes: torchrun writes that whenever nobody has set it.
    """
    processes = local_processes()
    asked = os.environ.get("OMP_NUM_THREADS", "").strip()
    openmp = int(asked) if asked.isdecimal() and len(asked) <= 4 else 0
    if openmp > 1024 or (openmp == 1 and processes > 1):
        openmp = 0
    return settings.threads or openmp or max(1, cpu_count() // processes)


@contextlib.contextmanager
def runtime(settings: TrainSettings, device: torch.device) -> Iterator[None]:
    """Fix threads, seed and deterministic kernels for the block, and restore what was there before."""
    threads, numpy_state, python_state = torch.get_num_threads(), np.random.get_state(), random.getstate()
    deterministic = torch.are_deterministic_algorithms_enabled()
    devices = [torch.cuda.current_device()] if device.type == "cuda" else []
    try:
        torch.set_num_threads(thread_count(settings))
        torch.use_deterministic_algorithms(device.type == "cpu")
        with torch.random.fork_rng(devices=devices):
            seed_everything(settings.seed)
            yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)
        torch.use_deterministic_algorithms(deterministic)
        torch.set_num_threads(threads)


class Stopped(Exception):  # noqa: N818 - a request that was met, not an error
    """The training stopped because it was asked to; its checkpoint is written."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(f"stopped by signal {number}")


class StopRequest:
    """Whether somebody asked the training to stop."""

    def __init__(self) -> None:
        self.number = 0
        self._interrupted = False

    def ask(self, number: int, frame: FrameType | None = None) -> None:
        """Take a signal; a second interrupt stops at once, with a KeyboardInterrupt."""
        if number == signal.SIGINT:
            if self._interrupted:
                raise KeyboardInterrupt
            self._interrupted = True
        self.number = number


@contextlib.contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Collect SIGINT and SIGTERM in a request while the block runs, instead of ending the process.

    Outside the main thread, where Python allows no handlers, nobody ever asks.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request.ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


Rows = npt.NDArray[np.int64]


class Ranks:
    """One process on its own: every exchange gives back what was put in. Values are plain, as JSON has them."""

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
        """Return every rank's value, in order of rank."""
        return [value]

    def from_first(self, value: Any) -> Any:
        """Return rank 0's value."""
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

    def total(self, *values: float) -> list[float]:  # noqa: D102
        return self.add(torch.tensor(values, dtype=torch.float64)).tolist()

    def add(self, tensor: Tensor) -> Tensor:  # noqa: D102
        moved = tensor.to(self._device)
        self._dist.all_reduce(moved)
        return moved.to(tensor.device)

    def gather(self, value: Any) -> list[Any]:  # noqa: D102
        text = json.dumps(value).encode()
        sizes = [0] * self.size
        sizes[self.rank] = len(text)
        lengths = [int(size) for size in self.total(*sizes)]
        texts = torch.zeros(self.size, max(lengths), dtype=torch.uint8)
        texts[self.rank, : len(text)] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        rows = self.add(texts).cpu().numpy()
        return [json.loads(rows[i, : lengths[i]].tobytes()) for i in range(self.size)]

    def from_first(self, value: Any) -> Any:  # noqa: D102
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
    """Join the processes that ``torchrun`` started, for the block; a `RankLostError` where one is lost."""
    if world_size() == 1:
        yield Ranks()
        return
    import torch.distributed as dist

    # DistributedDataParallel imports it, and its functions keep the group that is up then as a default: the group would
    # never end, and a worker thread of it could abort the process while Python shuts down.
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
    """Turn what torch raises when another process has ended into `RankLostError`."""
    from torch.distributed import DistError

    try:
        yield
    except RuntimeError as error:
        signs = ("gloo", "NCCL", "Connection closed", "peer")
        if not isinstance(error, DistError) and not any(sign in str(error) for sign in signs):
            raise
        what = f"another process of this training has ended: {' '.join(str(error).split())[:200]}"
        remedy = "see what that one said, then go on with --resume"
        raise RankLostError(what, where=f"rank {os.environ.get('RANK', '?')}", remedy=remedy) from error


def check_same(ranks: Ranks, digest: str) -> None:
    """Raise `RankLostError` unless all ranks have the same digest of their network."""
    if len(set(ranks.gather(digest))) > 1:
        what = "the processes of this training hold different networks"
        remedy = "use one version of gkiller and torch, and one kind of processor, for all of them"
        raise RankLostError(what, where=f"rank {ranks.rank}", remedy=remedy)
