"""A trainer on the toy corpus, without the files that surround a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from gkiller.data.load import load_dataset
from gkiller.model.network import build_classifier
from gkiller.model.pretrained import load_tokenizer
from gkiller.settings.definition import Settings
from gkiller.training.checkpoint import CheckpointStore
from gkiller.training.runtime import Ranks, runtime
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
