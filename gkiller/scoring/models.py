"""Models opened to be measured: whole ones by torch, and those without weights by their graphs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gkiller.inference.classifier import Classifier
from gkiller.inference.loading import load
from gkiller.model.directory import LoadedModel, load_model
from gkiller.model.layout import (
    CONFIG,
    FORMAT_VERSION,
    LIMITS,
    META,
    TOKENIZER,
    consistent,
    find_model,
    has_weights,
    unbroken,
)
from gkiller.model.network import read_description
from gkiller.storage.sealed import unseal
from gkiller.storage.strict_json import parse_json
from gkiller.tokens.batches import in_chunks
from gkiller.tokens.wordpiece import parse_tokenizer
from gkiller.wording import Progress

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from gkiller.tokens.batches import LongText


@dataclass(frozen=True)
class DeployedModel:
    """A model that scores with its graph: there are no weights."""

    classifier: Classifier
    tokenizer: Tokenizer  # truncates at max_length
    parameters: int
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def labels(self) -> tuple[str, ...]:
        """In the order of the scores' columns."""
        return self.classifier.labels

    @property
    def thresholds(self) -> dict[str, float]:
        """By label; a score at or above it is positive."""
        return self.classifier.thresholds

    @property
    def max_length(self) -> int:
        """Tokens read of a comment at once."""
        return self.classifier.max_length

    @property
    def precision(self) -> str:
        """Of the graph that scores: "int8", "fp32" or "fp16"."""
        return self.classifier.precision

    @property
    def path(self) -> Path:
        """Where it was loaded from."""
        return self.classifier.path

    def score(
        self, texts: Sequence[str], progress: Progress | None = None, *, long_text: LongText = "window"
    ) -> npt.NDArray[np.float64]:
        """Return the scores of n comments, float64 of shape (n, L)."""
        found = np.zeros((len(texts), len(self.labels)))
        done = 0
        for some in in_chunks(texts):
            found[done : done + len(some)] = self.classifier.predict_proba(some, long_text=long_text)
            done += len(some)
            if progress is not None:
                progress(done, len(texts))
        return found


AnyModel = LoadedModel | DeployedModel


def load_any(name: str | Path) -> AnyModel:
    """Read a whole model, or where it has no weights what it scores with.

    Args:
        name: a model directory, a run, or "default".

    Raises:
        ModelNotFoundError: there is no model, or neither weights nor a graph.
        ModelTamperedError: a file differs from its recorded SHA-256.
        ModelFormatError: the format is unknown or inconsistent.
    """
    directory = find_model(name)
    return load_model(directory) if has_weights(directory) else _load_deployed(directory)


def score_any(
    loaded: AnyModel,
    texts: Sequence[str],
    batch_size: int,
    progress: Progress | None = None,
    *,
    long_text: LongText = "window",
) -> npt.NDArray[np.float64]:
    """Return the scores of n comments, float64 of shape (n, L): by torch, or without weights by the graph.

    Raises:
        ScoreRangeError: a score is not a number; the model's weights are far too large.
    """
    if isinstance(loaded, DeployedModel):
        return loaded.score(texts, progress, long_text=long_text)
    from gkiller.scoring.network import score_texts

    return score_texts(loaded, texts, batch_size, progress, long_text=long_text)


def _load_deployed(directory: Path) -> DeployedModel:
    classifier = load(directory)
    keep = {file: LIMITS[file] for file in (CONFIG, TOKENIZER)}
    with unbroken():
        sealed = unseal(directory, META, version=FORMAT_VERSION, keep=keep, check="kept")
    with consistent(directory):
        description = read_description(parse_json(sealed.kept[CONFIG]))
        shapes = description.shapes(description.least_tensors)
        tokenizer = parse_tokenizer(sealed.kept[TOKENIZER], str(directory / TOKENIZER), classifier.max_length)
    return DeployedModel(classifier, tokenizer, sum(map(math.prod, shapes.values())), sealed.content)
