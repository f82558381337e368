"""Scores of a network in torch, read as `gkiller.load` reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gkiller.errors import ScoreRangeError
from gkiller.model.directory import LoadedModel
from gkiller.tokens.batches import Reader, TokenArray
from gkiller.wording import Progress

if TYPE_CHECKING:
    from gkiller.tokens.batches import LongText


def score_texts(
    loaded: LoadedModel,
    texts: Sequence[str],
    batch_size: int = 256,
    progress: Progress | None = None,
    *,
    long_text: LongText = "window",
) -> npt.NDArray[np.float64]:
    """Return the probability of every label for every comment, read as `gkiller.load` reads it.

    Args:
        long_text: "window" reads every token and takes a comment's highest score, "truncate" the first
            ``loaded.max_length`` alone.

    Returns:
        float64 of shape (n, L), in the order of ``loaded.labels``.

    Raises:
        ScoreRangeError: a score is not a number; the model's weights are far too large.
    """
    scores = _over(loaded, texts, batch_size, loaded.model.probabilities, long_text, progress)
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
) -> npt.NDArray[np.float64]:
    """Return one logit per label for every comment, whose sigmoid is the score; as `score_texts`."""
    return _over(loaded, texts, batch_size, lambda logits: loaded.model.label_logits(logits.float()), long_text)


def _over(
    loaded: LoadedModel,
    texts: Sequence[str],
    batch_size: int,
    of_logits: Callable[[Tensor], Tensor],
    long_text: LongText,
    progress: Progress | None = None,
) -> npt.NDArray[np.float64]:
    """Return what a rising function makes of the logits of every comment, (n, L)."""

    def network(ids: TokenArray, mask: TokenArray) -> npt.NDArray[np.float64]:
        found: npt.NDArray[np.float64] = (
            of_logits(loaded.model(torch.from_numpy(ids), torch.from_numpy(mask))).double().numpy()
        )
        return found

    reader = Reader(loaded.tokenizer, loaded.max_length, long_text)
    with torch.inference_mode():
        return reader.scores(texts, network, len(loaded.labels), batch_size, progress)
