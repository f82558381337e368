"""Static embeddings (model2vec) and a logistic regression: a rival only where model2vec is installed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from gkiller.benchmark.linear import fit_head
from gkiller.data.dataset import Split
from gkiller.deployment.runtime import sigmoid
from gkiller.errors import ModelFormatError, SettingsError, one_line
from gkiller.files import atomic_directory

HEAD = "head.safetensors"
SOURCE = "source.txt"
C = 1.0


@dataclass(frozen=True)
class Static:
    """Mean embeddings of a comment's tokens, and a logistic regression for each label.

    Attributes:
        source: directory of the static model.
        encoder: model2vec's model.
        coefficients: float64 (L, F).
        intercepts: float64 (L,).
    """

    source: str
    encoder: Any
    coefficients: npt.NDArray[np.float64]
    intercepts: npt.NDArray[np.float64]

    @property
    def parameters(self) -> int:
        """Embeddings, coefficients and intercepts."""
        return int(np.size(self.encoder.embedding)) + self.coefficients.size + self.intercepts.size

    def prepare(self, texts: Sequence[str], limit: int | None = None) -> npt.NDArray[np.float64]:
        """Return the embeddings (n, F), tokenizer included."""
        return np.asarray(self.encoder.encode(list(texts)), np.float64)

    def run(self, prepared: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the scores (n, L)."""
        return sigmoid(prepared @ self.coefficients.T + self.intercepts)

    def length(self, text: str) -> None:
        """Return None: its tokens are not counted."""
        return

    def save(self, directory: Path) -> None:
        """Write the head and where the embeddings are, whole or not at all."""
        with atomic_directory(directory) as temporary:
            weights = {"coefficients": self.coefficients, "intercepts": self.intercepts}
            save_file(weights, temporary / HEAD)
            (temporary / SOURCE).write_text(self.source, "utf-8")


def fit_static(source: str, train: Split, labels: Sequence[str]) -> Static:
    """Fit a logistic regression for each label on static embeddings.

    Args:
        source: a local directory of a model2vec model.
        train: n comments with L labels.
        labels: their names, for messages.

    Raises:
        SettingsError: model2vec is not installed.
        ModelFormatError: it cannot read the directory.
        SingleClassError: a label has one class only.
    """
    encoder = _encoder(source)
    embedded = np.asarray(encoder.encode(list(train.texts)), np.float64)
    heads = [fit_head(embedded, train.labels[:, place], name, C) for place, name in enumerate(labels)]
    coefficients, intercepts = zip(*heads, strict=True)
    return Static(source, encoder, np.stack(coefficients), np.array(intercepts))


def load_static(directory: Path) -> Static:
    """Read what `Static.save` wrote.

    Raises:
        SettingsError: model2vec is not installed.
        ModelFormatError: it cannot read the embeddings.
    """
    source = (directory / SOURCE).read_text("utf-8")
    weights = load_file(directory / HEAD)
    return Static(source, _encoder(source), weights["coefficients"], weights["intercepts"])


def _encoder(source: str) -> Any:
    try:
        library = import_module("model2vec")
    except ImportError as error:
        raise SettingsError(
            "static embeddings need the package model2vec, which is not installed",
            where="--static",
            remedy="pip install model2vec, or leave --static out",
        ) from error
    try:
        return library.StaticModel.from_pretrained(source)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelFormatError(
            f"model2vec cannot read it: {one_line(error)}",
            where=source,
            remedy="name a directory that model2vec saved",
        ) from error
