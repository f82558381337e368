"""The only module that touches perforatedai: it grows the dendrites and keeps the library contained.

perforatedai 3.2.9 keeps its configuration and tracker in module globals, prints, opens a debugger or calls ``sys.exit``
on what it dislikes, asks questions, draws from the global random generators, chooses matplotlib's backend, and writes
files under the current directory. Every call into it therefore happens inside `contained`, in a directory that is
thrown away, and one `PerforatedGrowth` at a time owns the globals, until its ``close``.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import pdb
import platform
import random
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import torch
from torch import nn

from gkiller.errors import DendriteError, DendritesUnavailableError
from gkiller.model.dendrites.growth import Growth, State
from gkiller.model.layout import SUPPORTED
from gkiller.model.network import ACTIVATIONS, ToxicityClassifier
from gkiller.private import matplotlib_apart

_NAME: Final = "perforatedai"
_OWNER = threading.Lock()  # perforatedai's globals serve one training per process
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
    A DendriteError where it called its debugger or ``sys.exit``, or asked a question; the message has its last output.
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
        remedy = "check dendrites.patterns, or train with --no-dendrites"
        raise DendriteError(f"perforatedai gave up: {last or type(error).__name__}", remedy=remedy) from error
    finally:
        pdb.set_trace, sys.stdin = set_trace, stdin
        os.chdir(before)
        np.random.set_state(numpy_state)
        random.setstate(python_state)


def unavailable_reason() -> str:
    """Return why dendrites cannot be trained here, or an empty string when they can."""
    if importlib.util.find_spec(_NAME) is not None:
        return ""
    here = f"CPython {platform.python_version()} on {platform.system()} {platform.machine()}"
    return f"perforatedai is not installed, and this is {here}"


def require_available() -> None:
    """Raise `DendritesUnavailableError` where perforatedai is not installed, without importing it."""
    if reason := unavailable_reason():
        raise DendritesUnavailableError(
            reason, where="dendrites", remedy=f"perforatedai supports {SUPPORTED}; elsewhere train with --no-dendrites"
        )


class PerforatedGrowth(Growth):
    """A `Growth` whose chosen Linears are wrapped by perforatedai.

    Use it as a context manager, or call ``close``; only one can be open in a process.

    Args:
        names: the Linears to wrap in place, as `chosen_linears` returns them.
        patience: epochs without gain after which the history rule switches.
        most: the most dendrites that will ever be grown per Linear.
        seed: of the dendrites' initial weights, whose standard deviation is ``init_std``.

    Raises:
        DendritesUnavailableError: perforatedai is not installed.
        DendriteError: another training in this process has perforatedai, or it refused the network.
    """

    def __init__(
        self,
        model: ToxicityClassifier,
        names: list[str],
        *,
        activation: str,
        patience: int,
        most: int,
        seed: int,
        init_std: float = 0.01,
    ) -> None:
        require_available()
        if not _OWNER.acquire(blocking=False):
            remedy = "perforatedai serves one training at a time; close the other, or use another process"
            raise DendriteError("another training in this process is growing dendrites", remedy=remedy)
        super().__init__(model)
        self._names, self._seed, self._init_std, self._closed = names, seed, init_std, False
        self._scratch = tempfile.TemporaryDirectory(prefix="gkiller-dendrites-")
        try:
            self._wrap(activation, patience, most)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> PerforatedGrowth:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Give perforatedai's globals back and remove its files; the network stays usable."""
        if self._closed:
            return
        self._closed = True
        module: Any = sys.modules.get(f"{_NAME}.globals_perforatedai")
        try:
            if module is not None:
                with contained(Path(self._scratch.name), self._seed):
                    module.pc.__init__()
                    module.pai_tracker = []
        finally:
            self._scratch.cleanup()
            _OWNER.release()

    def observe(self, score: float) -> bool:
        """Tell the tracker's history rule a neuron epoch's score; True when it has grown a dendrite."""
        return self._tell(score, self._globals().pc.DOING_HISTORY)

    def grow(self, score: float) -> None:
        """Give every wrapped Linear one more dendrite; a `DendriteError` where perforatedai does not."""
        # The tracker takes a dendrite off again unless the score rose by its own measure; gkiller decides that itself
        # and grows only what it keeps, so each growth is reported as a clear gain.
        count = self.count + 1
        self._tell(score + count, self._globals().pc.DOING_SWITCH_EVERY_TIME)
        if self.count != count:
            raise DendriteError(f"perforatedai grew {self.count} dendrites per Linear, not {count}")

    def neuron_parameters(self) -> dict[str, nn.Parameter]:
        """Return everything that is not a dendrite nor an unused copy of perforatedai's, by folded name."""
        return {
            name.replace(".main_module.", "."): parameter
            for name, parameter in self.model.named_parameters()
            if ".dendrite_module." not in name and ".dendrites_to_" not in name
        }

    def dendrite_parameters(self) -> dict[str, nn.Parameter]:
        """Return the newest dendrites' weights and links and all top weights, by folded name."""
        newest = {"dendrites": self.count - 1, "dendrite_links": self.count - 2, "dendrite_tops": -1}
        named = self.all_dendrites().items()
        return {name: p for name, p in named if newest[_kind(name)[0]] == _kind(name)[1]}

    def all_dendrites(self) -> dict[str, nn.Parameter]:
        """Return every dendrite's weights, links and top weights in use, by folded name."""
        found: dict[str, nn.Parameter] = {}
        for name, module in self.grown().items():
            own = dict(module.named_parameters())
            for k in range(self.count):
                for part in ("weight", "bias"):
                    found[f"{name}.dendrites.{k}.{part}"] = own[f"dendrite_module.layers.{k}.{part}"]
                if k:
                    link = own[f"dendrite_module.dendrites_to_dendrites.{k}"]
                    found[f"{name}.dendrite_links.{k - 1}"] = link
            if self.count:
                found[f"{name}.dendrite_tops"] = own[f"dendrites_to_top.{self.count - 1}"]
        return found

    def grown(self) -> dict[str, nn.Module]:
        """Return the wrapped Linears, by folded name."""
        return {name: m for name, m in self.model.named_modules() if type(m).__name__ == "PAINeuronModule"}

    def load(self, state: State) -> None:
        """Take over weights, as `Growth.load`; a KeyError for a name that this network lacks, or a neuron's missing."""
        neurons, dendritic = self.neuron_parameters(), self.all_dendrites()
        if unknown := state.keys() - {*neurons, *dendritic}:
            raise KeyError(min(unknown))
        with torch.no_grad():
            for name, parameter in neurons.items():
                parameter.copy_(state[name])
            for name, parameter in dendritic.items():
                if name.endswith(".dendrite_tops"):
                    parameter.zero_()
                    if name in state:
                        parameter[: len(state[name])].copy_(state[name])
                elif name in state:
                    parameter.copy_(state[name])

    def _globals(self) -> Any:
        return importlib.import_module(f"{_NAME}.globals_perforatedai")

    def _wrap(self, activation: str, patience: int, most: int) -> None:
        with contained(Path(self._scratch.name), self._seed):
            utils = importlib.import_module(f"{_NAME}.utils_perforatedai")
            shared = self._globals()
            _configure(shared.pc, self._names, activation, patience, most, str(self._device()))
            wrapped = utils.perforate_model(self.model, save_name="pai", maximizing_score=True)
            shared.pai_tracker.making_graphs = False
            self.model = cast(ToxicityClassifier, wrapped)
            self._renew_optimizer()
        found = sorted(self.grown())
        if found != sorted(self._names):
            raise DendriteError(f"perforatedai wrapped {found}, not {self._names}")

    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def _renew_optimizer(self) -> None:
        # The tracker wants to see an optimizer to record a learning rate; gkiller steps with its own.
        self._globals().pai_tracker.set_optimizer_instance(torch.optim.SGD(self.model.parameters(), lr=1.0))

    def _prime(self) -> None:
        """Pass one batch forward and back: a wrapped Linear learns its shapes only there."""
        vocabulary = self.model.bert.config.vocab_size
        ids = torch.arange(8, device=self._device()).reshape(2, 4) % vocabulary
        was_training = self.model.training
        frozen = [p for p in self.model.parameters() if not p.requires_grad]
        for parameter in frozen:
            parameter.requires_grad_(True)
        self.model.train()
        self.model(ids, torch.ones_like(ids)).sum().backward()
        self.model.train(was_training)
        self.model.zero_grad(set_to_none=True)
        for parameter in frozen:
            parameter.requires_grad_(False)

    def _tell(self, score: float, switch_mode: int) -> bool:
        shared = self._globals()
        before = self.state()
        with contained(Path(self._scratch.name), self._seed + self.count):
            self._prime()
            tracker = shared.pai_tracker
            shared.pc.set_switch_mode(switch_mode)
            tracker.member_vars["switch_mode"] = switch_mode
            model, restructured, _ = tracker.add_validation_score(score, self.model)
            self.model = cast(ToxicityClassifier, model)
            if restructured:
                self._renew_optimizer()
                self.count = len(next(iter(self.grown().values())).dendrite_module.layers)  # type: ignore[union-attr,arg-type]
        if restructured:
            self.load(before)  # its own idea of the best weights is not ours
            self._initialize_newest()
        return bool(restructured)

    def _initialize_newest(self) -> None:
        """Draw the newest dendrites' weights on the CPU, so that every device starts from the same ones."""
        generator = torch.Generator().manual_seed(self._seed + self.count)
        with torch.no_grad():
            for name, parameter in self.dendrite_parameters().items():
                kind, _ = _kind(name)
                if kind == "dendrites":
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * self._init_std)
                elif kind == "dendrite_links":
                    parameter.zero_()


def _configure(config: Any, names: list[str], activation: str, patience: int, most: int, device: str) -> None:
    """Set everything: what is left unset opens a prompt or a debugger, or runs a smoke test."""
    config.__init__()
    values = {
        "configuration_confirmed": True,
        "unwrapped_modules_confirmed": True,
        "checked_skipped_modules": True,
        "testing_dendrite_capacity": False,
        "silent": True,
        "verbose": False,
        "device": device,
        "modules_to_perforate": [],
        "module_names_to_perforate": [],
        "module_ids_to_perforate": [f".{name}" for name in names],
        "modules_to_track": [nn.LayerNorm, nn.Embedding],
        "output_dimensions": [-1, -1, 0],  # rows, tokens, neurons: 0 marks the neurons' axis
        "switch_mode": config.DOING_NO_SWITCH,
        "n_epochs_to_switch": patience,
        "max_dendrites": most + 1,  # gkiller stops growing itself; at its own limit the tracker reloads
        "max_dendrite_tries": most + 1,
        "retain_all_dendrites": False,
        "improvement_threshold": [0.001, 0.0001, 0.0],
        "pai_forward_function": ACTIVATIONS[activation],
        "find_best_lr": False,
        "dont_give_up_unless_learning_rate_lowered": False,
        "test_saves": False,
        "dashboard_events_enabled": False,
    }
    for key, value in values.items():
        getattr(config, f"set_{key}")(value)  # a misspelt name raises here; perforatedai would ignore it


def _kind(name: str) -> tuple[str, int]:
    """Return a folded dendritic name's kind and index (-1 for top weights)."""
    for kind in ("dendrites", "dendrite_links"):
        _, found, rest = name.partition(f".{kind}.")
        if found:
            return kind, int(rest.split(".")[0])
    return "dendrite_tops", -1
