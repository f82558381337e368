"""A trainer on the toy corpus, without the files that surround a run."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

import torch

from gkiller.data.load import load_dataset
from gkiller.model.classifier import build_classifier
from gkiller.model.tokenizer import load_tokenizer
from gkiller.training.checkpoint import CheckpointStore
from gkiller.training.runtime import runtime
from gkiller.training.train import _encode, _token, growing
from gkiller.training.trainer import Trainer

TIMINGS = ("seconds", "rows_per_second")


@contextmanager
def toy_trainer(settings, folder: Path, on_event=lambda event: None):
    """Yield a trainer and the list that its metrics go to."""
    dataset = load_dataset(settings.data, cache=folder / "data")
    tokenizer = load_tokenizer(settings.model)
    rows: list[dict] = []
    with runtime(settings.train, torch.device("cpu")):
        model = build_classifier(settings.model, dataset.labels, tokenizer.get_vocab_size())
        with growing(settings, model) as growth:
            yield (
                Trainer(
                    settings,
                    dataset.labels,
                    _encode(tokenizer, dataset.split("train")),
                    _encode(tokenizer, dataset.split("valid")),
                    growth,
                    CheckpointStore(folder / "checkpoints", settings.train.keep_checkpoints),
                    mask_token=_token(tokenizer, "[MASK]"),
                    special_tokens=[_token(tokenizer, t) for t in ("[PAD]", "[CLS]", "[SEP]")],
                    on_event=on_event,
                    on_metrics=rows.append,
                ),
                rows,
            )


def untimed(rows):
    """Metrics without what a clock says."""
    return [{key: value for key, value in row.items() if key not in TIMINGS} for row in rows]
