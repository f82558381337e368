"""Device, threads and determinism: set for a training, and put back after it."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from gkiller.errors import SettingsError
from gkiller.training.ranks import local_processes
from gkiller.training.rng import seed_everything

if TYPE_CHECKING:
    from gkiller.settings.definition import TrainSettings


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
