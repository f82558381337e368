"""From comments to padded batches of token ids, windows of long comments included. numpy alone.

`windowed` cuts comments for all that scores them, so that figures are of what users get.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from gkiller.errors import ModelFormatError
from gkiller.tokens.encoding import Encoder, clean
from gkiller.tokens.visible import visible
from gkiller.tokens.wordpiece import special_ids
from gkiller.wording import Progress

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TokenArray = npt.NDArray[np.int64]
Network = Callable[[TokenArray, TokenArray], npt.NDArray[Any]]
"""Maps ids and mask, int64 (rows, tokens), to a value per label, (rows, L)."""

LongText = Literal["window", "truncate"]
BATCH_ROWS = 16
BATCH_TOKENS = 512
"""The most rows, and tokens with padding, of one call: what it works on then stays in a core's cache.
experiments/inference_batches.py compares sizes."""
CHUNK_ROWS = 2048
CHUNK_CHARACTERS = 4 << 20
"""So much of long inputs is tokenized and scored together."""
OVERLAP = 8
"""Neighbouring windows share at least an eighth of their length, so that no phrase is only seen cut."""
_CHUNK = 4096
_BUCKET = 50  # batches sorted by length together: long enough to pad little, short enough to stay random


@dataclass(frozen=True)
class Tokens:
    """The token ids of n comments, end to end."""

    ids: npt.NDArray[np.int32]  # int32 of shape (total tokens,)
    starts: npt.NDArray[np.int64]  # int64 of shape (n + 1,): comment i is ids[starts[i]:starts[i + 1]]
    pad: int

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens in each comment, shape (n,)."""
        return np.diff(self.starts)

    def pad_batch(self, rows: npt.NDArray[np.int64]) -> tuple[TokenArray, TokenArray]:
        """Return ids and mask of these comments, each int64 (rows, longest), padded on the right."""
        lengths = self.starts[rows + 1] - self.starts[rows]
        mask = np.arange(int(lengths.max(initial=1))) < lengths[:, None]
        batch = np.full(mask.shape, self.pad, dtype=np.int64)
        batch[mask] = np.concatenate([self.ids[self.starts[r] : self.starts[r + 1]] for r in rows])
        return batch, mask.astype(np.int64)

    def replaced(self, rows: npt.NDArray[np.int64], others: Tokens) -> Tokens:
        """Return these comments with others in the place of some."""
        lengths = self.lengths
        lengths[rows] = others.lengths
        starts = _starts(lengths)
        new = np.zeros(len(self), bool)
        new[rows] = True
        of_others = np.repeat(new, lengths)
        ids = np.empty(int(starts[-1]), np.int32)
        ids[~of_others] = self.ids[np.repeat(~new, self.lengths)]
        ids[of_others] = others.taken(np.argsort(rows)).ids
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
        pieces += [np.asarray(encoding.ids, dtype=np.int32) for encoding in encodings]
    flat = np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int32)
    return Tokens(flat, _starts([len(piece) for piece in pieces]), max(0, special_ids(tokenizer).pad))


def training_batches(
    lengths: npt.NDArray[np.int64], batch_size: int, seed: int, epoch: int
) -> list[npt.NDArray[np.int64]]:
    """Return an epoch's batches as row numbers: random, yet of similar length within a batch.

    Rows are shuffled, cut into buckets of `_BUCKET` batches, sorted by length inside each, cut into batches, and the
    batches shuffled. The order depends on ``seed`` and ``epoch`` alone, so that a resumed training sees the same one.
    """
    generator = np.random.default_rng((seed, epoch))
    order = generator.permutation(len(lengths))
    batches: list[npt.NDArray[np.int64]] = []
    for start in range(0, len(order), batch_size * _BUCKET):
        bucket = order[start : start + batch_size * _BUCKET]
        bucket = bucket[np.argsort(lengths[bucket], kind="stable")]
        batches += [bucket[i : i + batch_size] for i in range(0, len(bucket), batch_size)]
    return [batches[i] for i in generator.permutation(len(batches))]


def scoring_batches(lengths: npt.NDArray[np.int64], batch_size: int) -> Iterator[npt.NDArray[np.int64]]:
    """Yield batches in order of length, so that little is padded."""
    order = np.argsort(lengths, kind="stable")
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def call_batches(lengths: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    """Yield batches of like length within `BATCH_ROWS` and `BATCH_TOKENS`; they depend on the lengths alone."""
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        rows = min(BATCH_ROWS, max(1, BATCH_TOKENS // int(lengths[order[start]])))
        yield order[start : start + rows]
        start += rows


def in_chunks(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Divide comments into chunks within `CHUNK_ROWS` and `CHUNK_CHARACTERS`, at least one comment each."""
    start, size = 0, 0
    for position, text in enumerate(texts):
        if position > start and (position - start >= CHUNK_ROWS or size + len(text) > CHUNK_CHARACTERS):
            yield texts[start:position]
            start, size = position, 0
        size += len(text)
    if start < len(texts):
        yield texts[start:]


def reading_text(long_text: LongText, max_length: int) -> str:
    """Return how comments were read, for tables and reports."""
    return f"read {'in windows of' if long_text == 'window' else 'up to'} {max_length} tokens"


def window_starts(tokens: int, size: int) -> npt.NDArray[np.int64]:
    """Return where the windows of a long comment start: evenly spaced, the last one at the end."""
    if tokens <= size:
        return np.zeros(1, np.int64)
    stride = max(1, size - size // OVERLAP)
    steps = -(-(tokens - size) // stride)
    return np.arange(steps + 1) * (tokens - size) // steps


@dataclass(frozen=True)
class Read:
    """What is read of n comments."""

    tokens: Tokens  # of m windows, the special tokens included
    count: npt.NDArray[np.int64]  # (n,), windows of each comment, at least 1
    truncated: npt.NDArray[np.bool_]  # (n,), whether its end is in no window

    def highest(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return of each comment the highest value of its windows: (m, L) to (n, L)."""
        if len(self.count) == len(values):
            return values
        found: npt.NDArray[Any] = np.maximum.reduceat(values, np.cumsum(self.count) - self.count)
        return found


def windowed(
    comments: Sequence[list[int]],
    max_length: int,
    before: Sequence[int],
    after: Sequence[int],
    pad: int,
    long_text: LongText = "window",
) -> Read:
    """Return the windows of n comments, each between the special tokens.

    Args:
        comments: their token ids, without special tokens.
        max_length: most tokens of a window, special ones included.
        long_text: "window" reads every token, "truncate" the first window alone.
    """
    size = max_length - len(before) - len(after)
    long = np.array([len(ids) > size for ids in comments], bool)
    count = np.ones(len(comments), np.int64)
    windows: list[list[int]] = []
    for number, ids in enumerate(comments):
        starts = window_starts(len(ids), size).tolist() if long[number] and long_text == "window" else [0]
        windows += [[*before, *ids[start : start + size], *after] for start in starts]
        count[number] = len(starts)
    return Read(end_to_end(windows, pad), count, long & (long_text == "truncate"))


class Reader:
    """Turns comments into windows; ``max_length`` and ``long_text`` are those of `windowed`.

    Attributes:
        by_word: whether the ids of words are kept, as `gkiller.load` does.
    """

    def __init__(
        self, tokenizer: Tokenizer, max_length: int, long_text: LongText = "window", pad: int | None = None
    ) -> None:
        self._max_length, self._long_text = max_length, long_text
        self._pad = max(0, special_ids(tokenizer).pad) if pad is None else pad
        self._ids: Callable[[str], list[int]]
        try:
            encoder = Encoder(tokenizer.to_str(), "the tokenizer", max_length)
            self._ids, self.by_word = encoder.ids, encoder.by_word
            self._before, self._after = [encoder.cls], [encoder.sep]
        except ModelFormatError:  # of transformers, and of a kind that gkiller does not train with
            self._ids, self._before, self._after = _of_another_kind(tokenizer)
            self.by_word = False

    def read(self, texts: Sequence[str], limit: int | None = None) -> Read:
        """Return the windows of n comments; with a limit, the first so many tokens, special ones included."""
        size = min(limit or self._max_length, self._max_length)
        comments = [self._ids(text) for text in texts]
        return windowed(comments, size, self._before, self._after, self._pad, "truncate" if limit else self._long_text)

    def scores(
        self, texts: Sequence[str], network: Network, columns: int, batch_size: int, progress: Progress | None = None
    ) -> npt.NDArray[np.float64]:
        """Return of each comment the highest values of its windows, (n, columns), in bounded memory."""
        found = np.zeros((len(texts), columns))
        start = 0
        for chunk in in_chunks(texts):
            read = self.read(chunk)
            values = np.zeros((len(read.tokens), columns))
            owner, left = np.repeat(np.arange(len(chunk)), read.count), read.count.copy()
            for rows in scoring_batches(read.tokens.lengths, batch_size):
                values[rows] = network(*read.tokens.pad_batch(rows))
                np.subtract.at(left, owner[rows], 1)
                if progress is not None:
                    progress(start + int((left == 0).sum()), len(texts))
            found[start : start + len(chunk)] = read.highest(values)
            start += len(chunk)
        return found


def _of_another_kind(tokenizer: Tokenizer) -> tuple[Callable[[str], list[int]], list[int], list[int]]:
    """Return what gives a comment's ids, and the special tokens that the tokenizer puts before and after them."""
    own = type(tokenizer).from_str(tokenizer.to_str())
    own.no_truncation()
    own.no_padding()
    encoding = own.encode("a")
    real = [place for place, special in enumerate(encoding.special_tokens_mask) if not special]
    first, last = (real[0], real[-1] + 1) if real else (len(encoding.ids), len(encoding.ids))
    own.encode_special_tokens = True  # what a comment spells like [SEP] is text

    def ids(text: str) -> list[int]:
        found: list[int] = own.encode(clean(text), add_special_tokens=False).ids
        return found

    return ids, encoding.ids[:first], encoding.ids[last:]
