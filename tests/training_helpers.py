"""A trainer on the toy corpus, without the files that surround a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from killing import LONGEST, Killer, server, train_in_process

from gkiller.data.load import load_dataset
from gkiller.model.network import build_classifier
from gkiller.model.pretrained import load_tokenizer
from gkiller.settings.definition import Settings
from gkiller.training.checkpoint import Checkpoint, CheckpointStore
from gkiller.training.phases import Phase, Position
from gkiller.training.run import RunDirectory
from gkiller.training.runtime import Ranks, rng_state, runtime
from gkiller.training.train import encode, growing, new_learner
from gkiller.training.trainer import Trainer

TIMINGS = ("seconds", "rows_per_second")


@contextmanager
def toy_trainer(
    settings: Settings, folder: Path, on_event: Callable[..., Any] = lambda event: None
) -> Iterator[tuple[Trainer, list[Any]]]:
    """Yield a trainer and the list that its metrics go to."""
    dataset = load_dataset(settings.data, cache=folder / "data")
    tokenizer = load_tokenizer(settings.model)
    rows: list[dict] = []  # type: ignore[type-arg]
    with runtime(settings.train, torch.device("cpu")):
        model = build_classifier(settings.model, dataset.labels, tokenizer.get_vocab_size())
        with growing(settings, model) as growth:
            learner = new_learner(settings, dataset, tokenizer, growth, Ranks())
            yield (
                Trainer(
                    settings,
                    dataset.labels,
                    encode(tokenizer, dataset.split("valid")),
                    learner,
                    CheckpointStore(folder / "checkpoints", settings.train.keep_checkpoints),
                    on_event=on_event,
                    on_metrics=rows.append,
                ),
                rows,
            )


def untimed(rows: list[dict[str, bool | float | str]]) -> list[dict[str, bool | float | str]]:
    """Metrics without what a clock says."""
    return [{key: value for key, value in row.items() if key not in TIMINGS} for row in rows]


def untimed_state(state: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint's state.json without what a clock says, and the digest that counts it in."""
    progress = {k: v for k, v in state["progress"].items() if k not in ("seconds", "epoch_seconds")}
    rest = {key: value for key, value in state.items() if key != "digest"}
    return {**rest, "progress": {**progress, "metrics": untimed(progress["metrics"])}}


def checkpoint(epoch: int = 3, value: float = 1.0) -> Checkpoint:
    progress = Position(
        Phase("dendrite", "tops", 1, 4, 0.01),
        phase_number=2,
        phase_epoch=1,
        epoch=epoch,
        stale=1,
        phase_best=0.25,
        best={0: 0.5, 1: 0.625},
        best_epoch={0: 1, 1: 1},
        tracked=[0.1, 0.2],
        metrics=[{"epoch": 1, "valid_ap": 0.5}],
        step=3,
        epoch_loss=0.1,
        epoch_rows=24,
        stopped_early=["neuron phase ended by patience after epoch 2"],
        seconds=1.5,
    )
    weights = {"classifier.bias": torch.full((2,), value)}
    optimizer = {"classifier.bias/step": torch.tensor(7.0), "classifier.bias/exp_avg": torch.ones(2)}
    return Checkpoint(progress, weights, optimizer, [rng_state(CPU)])


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


CALM = ("model.dropout=0", "train.token_dropout=0", "dendrites.min_gain=-1", "train.checkpoint_steps=1")


def together(*given: Any, **named: Any) -> list[int]:
    processes = start(*given, **named)
    for process in processes:
        process.join(LONGEST)
    return [process.exitcode for process in processes]


def figures(run: Path) -> tuple[list[tuple[str, int]], np.ndarray[Any, Any]]:
    rows = RunDirectory(run).read_metrics()
    return [(r["phase"], r["dendrites"]) for r in rows], np.array(
        [[r["train_loss"], r["valid_loss"], r["valid_ap"], r["valid_f1"]] for r in rows]
    )


CPU = torch.device("cpu")


def start(
    settings: Settings, run: Path, folder: Path, *, size: Any, resume: Any = False, killers: Any = ()
) -> list[Any]:
    """Start ranks as torchrun does: by variables; returns the processes."""
    port, context = free_port(), server()
    processes = []
    for rank in range(size):
        environment = {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(size),
            "LOCAL_WORLD_SIZE": str(size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        }
        killer = dict(killers).get(rank, Killer())
        given = (settings, run, resume, killer, folder / f"counts-{rank}.json", environment)
        processes.append(context.Process(target=train_in_process, args=given))
    for process in processes:
        process.start()
    return processes


def free_port() -> str:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])
