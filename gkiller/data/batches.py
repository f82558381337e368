"""From comments to padded token batches, with numpy alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gkiller.model.visible import visible
from gkiller.model.wordpiece import special_ids

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TokenArray = npt.NDArray[np.int64]

_CHUNK = 4096
_BUCKET = 50  # batches sorted by length together: long enough to pad little, short enough to stay random


@dataclass(frozen=True)
class Tokens:
    """The token ids of n comments, end to end.

    Attributes:
        ids: int32 of shape (total tokens,).
        starts: int64 of shape (n + 1,): comment i is ``ids[starts[i]:starts[i + 1]]``.
        pad: the padding id.

    """

    ids: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int64]
    pad: int

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens in each comment, shape (n,)."""
        return np.diff(self.starts)

    def pad_batch(self, rows: npt.NDArray[np.int64]) -> tuple[TokenArray, TokenArray]:
        """Return ids and mask of these comments, each (rows, longest), padded on the right."""
        lengths = self.lengths[rows]
        mask = np.arange(int(lengths.max(initial=1))) < lengths[:, None]
        batch = np.full(mask.shape, self.pad, dtype=np.int64)
        batch[mask] = np.concatenate([self.ids[self.starts[r] : self.starts[r + 1]] for r in rows])
        return batch, mask.astype(np.int64)

    def replaced(self, rows: npt.NDArray[np.int64], others: Tokens) -> Tokens:
        """Return these comments with others in the place of some.

        Args:
            rows: m different comments of these.
            others: m comments.
        """
        lengths = self.lengths
        lengths[rows] = others.lengths
        starts = _starts(lengths)
        new = np.zeros(len(self), bool)
        new[rows] = True
        of_others = np.repeat(new, lengths)
        ids = np.empty(int(starts[-1]), np.int32)
        ids[~of_others] = self.ids[np.repeat(~new, self.lengths)]
        order = np.argsort(rows)
        ids[of_others] = others.taken(order).ids
        return Tokens(ids, starts, self.pad)

    def taken(self, rows: npt.NDArray[np.int64]) -> Tokens:
        """Return some of the comments, in the order of ``rows``."""
        lengths = self.lengths[rows]
        starts = _starts(lengths)
        places = np.arange(int(starts[-1])) + np.repeat(self.starts[rows] - starts[:-1], lengths)
        return Tokens(self.ids[places], starts, self.pad)


def _starts(lengths: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Return where comments of these lengths begin, and where the last one ends."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def end_to_end(comments: Sequence[Sequence[int]], pad: int) -> Tokens:
    """Return comments' token ids as `Tokens`."""
    starts = _starts([len(ids) for ids in comments])
    return Tokens(np.fromiter(chain.from_iterable(comments), np.int32, int(starts[-1])), starts, pad)


def tokenize(tokenizer: Tokenizer, texts: Sequence[str]) -> Tokens:
    """Tokenize comments as they are seen; truncation is the tokenizer's own setting."""
    pieces: list[npt.NDArray[np.int32]] = []
    for start in range(0, len(texts), _CHUNK):
        encodings = tokenizer.encode_batch_fast([visible(text) for text in texts[start : start + _CHUNK]])
        pieces.extend(np.asarray(encoding.ids, dtype=np.int32) for encoding in encodings)
    starts = _starts([len(piece) for piece in pieces])
    flat = np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int32)
    return Tokens(flat, starts, max(0, special_ids(tokenizer).pad))


def training_batches(
    lengths: npt.NDArray[np.int64], batch_size: int, seed: int, epoch: int
) -> list[npt.NDArray[np.int64]]:
    """Return an epoch's batches as row numbers: random, yet of similar length within a batch.

    Rows are shuffled, cut into buckets of `_BUCKET` batches, sorted by length inside each, cut into
    batches, and the batches shuffled. The order depends on ``seed`` and ``epoch`` alone, so that a
    resumed training sees the same one.
    """
    generator = np.random.default_rng((seed, epoch))
    order = generator.permutation(len(lengths))
    batches: list[npt.NDArray[np.int64]] = []
    for start in range(0, len(order), batch_size * _BUCKET):
        bucket = order[start : start + batch_size * _BUCKET]
        bucket = bucket[np.argsort(lengths[bucket], kind="stable")]
        batches.extend(bucket[i : i + batch_size] for i in range(0, len(bucket), batch_size))
    return [batches[i] for i in generator.permutation(len(batches))]


def scoring_batches(lengths: npt.NDArray[np.int64], batch_size: int) -> Iterator[npt.NDArray[np.int64]]:
    """Yield batches in order of length, so that little is padded."""
    order = np.argsort(lengths, kind="stable")
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]
