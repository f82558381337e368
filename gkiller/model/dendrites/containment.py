"""A cell for code that prints, prompts, stops the process or changes what belongs to the whole process."""

from __future__ import annotations

import contextlib
import io
import os
import pdb
import random
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gkiller.errors import DendriteError
from gkiller.private import matplotlib_apart

_TERMINATED = 128 + signal.SIGTERM
# perforatedai writes its files in the first of several processes only, and then looks for them in each.
_LAUNCHER = (
    *("RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"),
    *("SLURM_PROCID", "SLURM_LOCALID", "OMPI_COMM_WORLD_RANK", "PMI_RANK"),
)


class _DebuggerStopError(Exception):
    """perforatedai called its debugger."""


def _refuse_debugger(*_: Any, **__: Any) -> None:
    raise _DebuggerStopError


@contextlib.contextmanager
def _plot_backend() -> Iterator[None]:
    """Give matplotlib its backend back: importing perforatedai sets it to one that draws no windows."""
    with matplotlib_apart():
        import matplotlib

    # Read and written as in a plain dict: matplotlib's own access would choose a backend.
    before = dict.__getitem__(matplotlib.rcParams, "backend")
    try:
        yield
    finally:
        if not isinstance(before, str):  # none was chosen yet
            dict.__setitem__(matplotlib.rcParams, "backend", before)
        elif dict.__getitem__(matplotlib.rcParams, "backend") != before:
            matplotlib.use(before)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Hide what a launcher of several processes has set in the environment."""
    before = {name: os.environ.pop(name) for name in _LAUNCHER if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(before)


@contextlib.contextmanager
def contained(directory: Path, seed: int) -> Iterator[None]:
    """Run perforatedai's code: seeded, quiet, in ``directory``, and unable to stop the process.

    Put back afterwards: the current directory, the standard streams, a launcher's variables, warning
    filters, the random states of torch, numpy and Python, ``pdb.set_trace`` and matplotlib's backend.

    Raises:
        DendriteError: it called its debugger or ``sys.exit``, or asked a question; the message has its last output.
    """
    said = io.StringIO()
    numpy_state, python_state, before = np.random.get_state(), random.getstate(), Path.cwd()
    set_trace, stdin = pdb.set_trace, sys.stdin
    devices = list(range(torch.cuda.device_count()))
    try:
        os.chdir(directory)
        pdb.set_trace, sys.stdin = _refuse_debugger, io.StringIO()
        with (
            _plot_backend(),
            _alone(),
            torch.random.fork_rng(devices=devices),
            warnings.catch_warnings(),
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(said),
        ):
            warnings.simplefilter("ignore")
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)
            random.seed(seed)
            yield
    except (SystemExit, EOFError, _DebuggerStopError) as error:
        if isinstance(error, SystemExit) and error.code == _TERMINATED:
            raise  # a signal that came while perforatedai was running
        last = " ".join(said.getvalue().split())[-400:]
        raise DendriteError(
            f"perforatedai gave up: {last or type(error).__name__}",
            remedy="check dendrites.patterns, or train with --no-dendrites",
        ) from error
    finally:
        pdb.set_trace, sys.stdin = set_trace, stdin
        os.chdir(before)
        np.random.set_state(numpy_state)
        random.setstate(python_state)
