"""Score comments with a loaded model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gkiller.data.batches import scoring_batches, tokenize
from gkiller.errors import ScoreRangeError
from gkiller.model.directory import LoadedModel


def score_texts(
    loaded: LoadedModel,
    texts: Sequence[str],
    batch_size: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> npt.NDArray[np.float64]:
    """Return the probability of every label for every comment.

    Args:
        loaded: the model.
        texts: n comments.
        batch_size: comments per forward pass.
        progress: called with the comments done and n.

    Returns:
        float64 of shape (n, L), in the order of ``loaded.labels``.

    Raises:
        ScoreRangeError: a score is not a number; the model's weights are far too large.
    """
    scores = _over(loaded, texts, batch_size, loaded.model.probabilities, progress)
    if not np.isfinite(scores).all():
        row = int(np.flatnonzero(~np.isfinite(scores).all(axis=1))[0])
        raise ScoreRangeError(
            "the model's score of a comment is not a number",
            where=f"{loaded.path or 'the model'}, comment {row + 1}",
            remedy="its weights overflow: train it again, with a lower learning rate",
        )
    return scores


def logit_texts(loaded: LoadedModel, texts: Sequence[str], batch_size: int = 256) -> npt.NDArray[np.float64]:
    """Return one logit per label for every comment, whose sigmoid is the score; as `score_texts`."""
    return _over(loaded, texts, batch_size, lambda logits: loaded.model.label_logits(logits.float()), None)


def _over(
    loaded: LoadedModel,
    texts: Sequence[str],
    batch_size: int,
    of_logits: Callable[[Tensor], Tensor],
    progress: Callable[[int, int], None] | None,
) -> npt.NDArray[np.float64]:
    """Return what a function makes of the logits of every comment, (n, L)."""
    tokens = tokenize(loaded.tokenizer, texts)
    found = np.zeros((len(texts), len(loaded.labels)))
    done = 0
    with torch.inference_mode():
        for rows in scoring_batches(tokens.lengths, batch_size):
            ids, mask = tokens.pad_batch(rows)
            logits = loaded.model(torch.from_numpy(ids), torch.from_numpy(mask))
            found[rows] = of_logits(logits).double().numpy()
            done += len(rows)
            if progress is not None:
                progress(done, len(texts))
    return found
