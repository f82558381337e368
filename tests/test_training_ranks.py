"""Several processes train one network: the same figures as one process with the same batches."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from killing import LONGEST, Killer
from toy import TINY
from training_helpers import CALM, figures, free_port, together

from gkiller.model.directory import load_model
from gkiller.training.losses import loss_mass, task_loss
from gkiller.training.runtime import Ranks, local_processes, rank_device, world_size

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks processes")

CASES = {
    "gradient": ("data.sample_size=49", "dendrites.count=2"),  # the last batch has one row: one rank has none
    "correlation, history": (
        "data.sample_size=48",
        "dendrites.objective=correlation",
        "dendrites.top_epochs=1",
        "dendrites.switch=history",
        "dendrites.switch_patience=1",
    ),
}


@pytest.mark.parametrize("case", list(CASES))
def test_two_processes_train_as_one(case: str, tiny: Callable[..., Any], tmp_path: Path) -> None:
    settings = tiny(*CALM, *CASES[case])
    assert together(settings, tmp_path / "one", tmp_path, size=1) == [0]
    assert together(settings, tmp_path / "two", tmp_path, size=2) == [0, 0]
    phases, one = figures(tmp_path / "one")
    assert figures(tmp_path / "two")[0] == phases
    two = figures(tmp_path / "two")[1]
    own = [i for i, (phase, _) in enumerate(phases) if phase == "neuron" or case == "gradient"]
    # A rank's correlation is over its own rows, so only what comes before it is the same to the last digits.
    np.testing.assert_allclose(two[own], one[own], rtol=1e-4, atol=1e-4)
    manifest = json.loads((tmp_path / "two" / "manifest.json").read_text())
    assert manifest["processes"] == 2
    shapes = [
        {name: tuple(p.shape) for name, p in load_model(tmp_path / run).model.named_parameters()}
        for run in ("one", "two")
    ]
    assert shapes[0] == shapes[1]
    assert [path.name for path in tmp_path.glob("*/model")] == ["model"] * 2


@pytest.mark.slow
def test_a_rank_that_dies_ends_the_others_and_the_run_goes_on(tiny: Callable[..., Any], tmp_path: Path) -> None:
    settings = tiny(*CALM[2:], *CASES["gradient"])  # with dropout: every rank draws its own
    assert together(settings, tmp_path / "whole", tmp_path, size=2) == [0, 0]
    for rank in (0, 1):
        run = tmp_path / f"killed-{rank}"
        codes = together(settings, run, tmp_path, size=2, killers=[(rank, Killer(step=7 if rank else 18))])
        assert codes[rank] == -signal.SIGKILL
        assert codes[1 - rank] == 1  # an error, at once, and not a process that waits for ever
        assert together(settings, run, tmp_path, size=2, resume=True) == [0, 0]
        for name in ("model/model.safetensors",):
            assert (run / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_ranks_draw_different_numbers(tiny: Callable[..., Any], tmp_path: Path) -> None:
    """Else both would drop the same features of their rows."""
    settings = tiny(*CALM[2:], "data.sample_size=48", "dendrites.enabled=false", "train.epochs=1")
    assert together(settings, tmp_path / "two", tmp_path, size=2) == [0, 0]
    newest = max((tmp_path / "two" / "checkpoints").glob("checkpoint-*"))
    states = json.loads((newest / "state.json").read_text())["rng"]
    assert len(states) == 2
    assert states[0]["torch"] != states[1]["torch"]


def test_another_number_of_processes_is_told(tiny: Callable[..., Any], tmp_path: Path) -> None:
    settings = tiny(*CALM, *CASES["gradient"])
    together(settings, tmp_path / "x", tmp_path, size=2, killers=[(0, Killer(step=9))])
    assert together(settings, tmp_path / "x", tmp_path, size=1, resume=True) == [0]
    manifest = json.loads((tmp_path / "x" / "manifest.json").read_text())
    assert (manifest["processes"], len(manifest["resumed"])) == (1, 1)


@pytest.mark.slow
def test_torchrun(prepared: Path, tokenizer_file: Path, tmp_path: Path) -> None:
    """The real launcher and the command line: one table, one run, exit code 0."""
    overrides = [*TINY, f"model.tokenizer={tokenizer_file}", *CALM, "data.sample_size=48"]
    flags = [part for override in overrides for part in ("--set", override)]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, "-m", "gkiller", "train", "--data", str(prepared), *flags, "--name", "x", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=LONGEST,
        env={**os.environ, "MASTER_PORT": free_port()},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["run"] == "runs/x"
    assert done.stderr.count("phase 1: neuron") == 1
    assert [path.name for path in (tmp_path / "runs").iterdir() if path.name[0] != "."] == ["x"]


ENDS = """
import os
import pathlib

import torch

from gkiller.training.runtime import joined

with joined(torch.device("cpu")) as ranks:
    model = ranks.wrap(torch.nn.Linear(3, 3))
    model.itself = model  # as a training has cycles
    model(torch.ones(2, 3)).sum().backward()
    del model
tasks = pathlib.Path("/proc/self/task").iterdir()
names = {(task / "comm").read_text().strip() for task in tasks}
assert "python" in str(names)
assert not any("gloo" in name for name in names), names
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_thread_of_the_group_is_left_when_python_shuts_down(tmp_path: Path) -> None:
    """One that is can abort the process there: pytorch/pytorch#179291."""
    script = tmp_path / "ends.py"
    script.write_text(ENDS)
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", free_port()]
    done = subprocess.run(
        [sys.executable, *launcher, str(script)], capture_output=True, text=True, check=False, timeout=LONGEST
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("labels", [1, 6])
def test_the_parts_losses_make_up_the_whole_batch_s(labels: int) -> None:
    generator = torch.Generator().manual_seed(labels)
    logits = torch.randn(7, 2 if labels == 1 else labels, generator=generator)
    targets = (torch.rand(7, labels, generator=generator) < 0.4).float()
    targets[2] = torch.nan
    weights = torch.rand(labels, 2, generator=generator) + 0.5
    whole = task_loss(logits, targets, weights)
    parts = [(task_loss(logits[p::2], targets[p::2], weights), targets[p::2]) for p in (0, 1)]
    masses = [loss_mass(part, weights) for _, part in parts]
    mean = sum(loss * mass for (loss, _), mass in zip(parts, masses, strict=True)) / sum(masses)
    torch.testing.assert_close(mean, whole)


def test_alone_every_exchange_gives_back_what_was_put_in(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    ranks = Ranks()
    assert (ranks.first, world_size(), local_processes()) == (True, 1, 1)
    assert ranks.share(np.arange(5)).tolist() == [0, 1, 2, 3, 4]
    assert ranks.total(1.5, 2) == [1.5, 2]
    assert ranks.gather({"a": 1}) == [{"a": 1}]
    assert ranks.from_first("x") == "x"
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert rank_device(torch.device("cuda")) == torch.device("cuda", 1)
    assert rank_device(torch.device("cpu")) == torch.device("cpu")
