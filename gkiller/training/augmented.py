"""Training comments of which a share is changed anew in each epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gkiller.data.augment import augment
from gkiller.tokens.batches import Tokens, tokenize

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_EPOCH_BITS = 32


@dataclass(frozen=True)
class Augmented:
    """Comments, each seen by an epoch as it is or changed; which depends on seed and epoch alone.

    Attributes:
        intensity: share of the places in a comment that a change touches.
    """

    texts: Sequence[str]
    tokens: Tokens
    tokenizer: Tokenizer
    kinds: tuple[str, ...]
    intensity: float
    share: float
    seed: int

    def in_epoch(self, epoch: int) -> Tokens:
        """Return the n comments' tokens as an epoch, counted from 0, sees them."""
        seed = self.seed << _EPOCH_BITS | epoch
        seen = augment(self.texts, self.kinds, self.share, seed, intensity=self.intensity)
        rows = [row for row, (text, was) in enumerate(zip(seen, self.texts, strict=True)) if text != was]
        return self.tokens.replaced(
            np.array(rows, np.int64), tokenize(self.tokenizer, [seen[row] for row in rows])
        )
