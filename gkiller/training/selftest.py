"""A tiny training from end to end, for ``gkiller doctor``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from gkiller.model.dendrites.perforated import unavailable_reason
from gkiller.model.directory import load_model
from gkiller.scoring.network import score_texts
from gkiller.settings import resolve
from gkiller.training.train import train

_TINY = (
    "data.sample_size=64",
    "model.layers=1",
    "model.hidden=16",
    "model.ffn=16",
    "model.max_length=16",
    "train.epochs=1",
    "dendrites.epochs=1",
    "dendrites.joint_epochs=0",
    "evaluation.resamples=10",
    "train.threads=1",
)


def round_trip() -> dict[str, Any]:
    """Train on a few sample rows, save, load twice and predict.

    Returns:
        "ok": whether both loaded models give the same finite scores; "dendrites": whether dendrites were
        trained; "fold_difference": of the folded model; "scores": of one comment, by label.

    Raises:
        GkillerError: whatever goes wrong on the way.
    """
    dendrites = not unavailable_reason()
    settings = resolve(overrides=[*_TINY, f"dendrites.enabled={str(dendrites).lower()}"], environ={}).settings
    with tempfile.TemporaryDirectory(prefix="gkiller-selftest-") as folder:
        result = train(settings, out=Path(folder))
        scores = [score_texts(load_model(result.run.path), ["you are kind"]) for _ in range(2)]
        labels = load_model(result.run.path).labels
    same = bool(np.isfinite(scores[0]).all() and np.array_equal(scores[0], scores[1]))
    return {
        "ok": same,
        "dendrites": dendrites,
        "fold_difference": result.finished.fold_difference,
        "scores": dict(zip(labels, scores[0][0].tolist(), strict=True)),
    }
