"""The random generators that a training draws from: their state as plain values."""

from __future__ import annotations

import base64
import contextlib
import os
import random
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gkiller.errors import SettingsError
from gkiller.training.ranks import local_processes

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
        "torch": _text(torch.get_rng_state()),
        "numpy": [kind, np.asarray(keys).tolist(), int(position), int(has_gauss), float(gauss)],
        "python": [version, list(internal), following],
    }
    if device.type == "cuda":
        state["cuda"] = _text(torch.cuda.get_rng_state(device))
    return state


def restore_rng(state: dict[str, Any], device: torch.device) -> None:
    """Put back what `rng_state` returned.

    Raises:
        KeyError, TypeError, ValueError: the state is not one.
    """
    torch.set_rng_state(_tensor(state["torch"]))
    kind, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), position, has_gauss, gauss))
    version, internal, following = state["python"]
    random.setstate((version, tuple(internal), following))
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(_tensor(state["cuda"]), device)


def _text(tensor: torch.Tensor) -> str:
    return base64.b64encode(tensor.numpy().tobytes()).decode("ascii")


def _tensor(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text, validate=True)), dtype=torch.uint8)


def resolve_device(name: str) -> torch.device:
    """Return the device of that name; "auto" is CUDA, else Apple's MPS, else the CPU.

    Raises:
        SettingsError: this machine has no such device.
    """
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
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def thread_count(settings: TrainSettings) -> int:
    """Return the CPU threads of this process: those set, else OMP_NUM_THREADS, else its part of the cores.

    OMP_NUM_THREADS is each process's own number. It is passed over where it is no whole number from 1 to
    1024, and where it is 1 beside other processes: torchrun writes that whenever nobody has set it.
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


SIGNALS = (signal.SIGINT, signal.SIGTERM)


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
        """Take a signal; a second interrupt stops at once.

        Raises:
            KeyboardInterrupt: this is the second interrupt.
        """
        if number == signal.SIGINT and self._interrupted:
            raise KeyboardInterrupt
        self._interrupted = self._interrupted or number == signal.SIGINT
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
    before = {number: signal.signal(number, request.ask) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
