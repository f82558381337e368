"""Models opened to be measured: whole ones by torch, and those without weights by their graphs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gkiller.errors import ScoreRangeError
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
from gkiller.tokens.batches import Reader, TokenArray, in_chunks
from gkiller.tokens.wordpiece import parse_tokenizer
from gkiller.wording import Progress

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

    from gkiller.tokens.batches import LongText


Scores = npt.NDArray[np.float64]


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
    ) -> Scores:
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
) -> Scores:
    """Return the scores of n comments, float64 of shape (n, L): by torch, or without weights by the graph.

    Raises:
        ScoreRangeError: a score is not a number; the model's weights are far too large.
    """
    if isinstance(loaded, DeployedModel):
        return loaded.score(texts, progress, long_text=long_text)
    return score_texts(loaded, texts, batch_size, progress, long_text=long_text)


def score_texts(
    loaded: LoadedModel,
    texts: Sequence[str],
    batch_size: int = 256,
    progress: Progress | None = None,
    *,
    long_text: LongText = "window",
) -> Scores:
    """Return the scores of n comments by torch, float64 of shape (n, L), read as `gkiller.load` reads them.

    Args:
        long_text: "window" reads every token and takes a comment's highest score, "truncate" the first
            ``loaded.max_length`` alone.

    Raises:
        ScoreRangeError: a score is not a number; the model's weights are far too large.
    """
    reader, network = Reader(loaded.tokenizer, loaded.max_length, long_text), loaded.model
    scores = by_torch(
        reader,
        lambda ids, mask: network.probabilities(network(ids, mask)),
        texts,
        len(loaded.labels),
        batch_size,
        progress,
    )
    if not np.isfinite(scores).all():
        row = int(np.flatnonzero(~np.isfinite(scores).all(axis=1))[0])
        raise ScoreRangeError(
            "the model's score of a comment is not a number",
            where=f"{loaded.path or 'the model'}, comment {row + 1}",
            remedy="its weights overflow: train it again, with a lower learning rate",
        )
    return scores


def logit_texts(
    loaded: LoadedModel, texts: Sequence[str], batch_size: int = 256, *, long_text: LongText = "window"
) -> Scores:
    """Return one logit per label for every comment, whose sigmoid is the score; as `score_texts`."""
    reader, network = Reader(loaded.tokenizer, loaded.max_length, long_text), loaded.model
    return by_torch(
        reader,
        lambda ids, mask: network.label_logits(network(ids, mask).float()),
        texts,
        len(loaded.labels),
        batch_size,
    )


def by_torch(
    reader: Reader,
    network: Callable[[Tensor, Tensor], Tensor],
    texts: Sequence[str],
    labels: int,
    batch_size: int,
    progress: Progress | None = None,
) -> Scores:
    """Return what a network in torch makes of ids and mask (rows, tokens), of each comment the highest, (n, labels)."""
    import torch

    def found(ids: TokenArray, mask: TokenArray) -> Scores:
        scores: Scores = network(torch.from_numpy(ids), torch.from_numpy(mask)).double().numpy()
        return scores

    with torch.inference_mode():
        return reader.scores(texts, found, labels, batch_size, progress)


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
