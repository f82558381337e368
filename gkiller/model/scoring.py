"""Score comments with a loaded model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch

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
    tokens = tokenize(loaded.tokenizer, texts)
    scores = np.zeros((len(texts), len(loaded.labels)))
    done = 0
    with torch.inference_mode():
        for rows in scoring_batches(tokens.lengths, batch_size):
            ids, mask = tokens.pad_batch(rows)
            logits = loaded.model(torch.from_numpy(ids), torch.from_numpy(mask))
            scores[rows] = loaded.model.probabilities(logits).double().numpy()
            done += len(rows)
            if progress is not None:
                progress(done, len(texts))
    if not np.isfinite(scores).all():
        row = int(np.flatnonzero(~np.isfinite(scores).all(axis=1))[0])
        raise ScoreRangeError(
            "the model's score of a comment is not a number",
            where=f"{loaded.path or 'the model'}, comment {row + 1}",
            remedy="its weights overflow: train it again, with a lower learning rate",
        )
    return scores
