"""Comments to what a network reads of them: windows of token ids, of which the highest score counts.

All that scores and is not `gkiller.load` reads here, torch and graphs alike; both cut comments with
`gkiller.inference.batches.make_windows`, so that figures are of what users get.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gkiller.data.batches import TokenArray, Tokens, scoring_batches
from gkiller.errors import ModelFormatError
from gkiller.inference.batches import LongText, in_chunks, make_windows
from gkiller.inference.encoding import Encoder, clean
from gkiller.model.wordpiece import special_ids

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Progress = Callable[[int, int], None]
Network = Callable[[TokenArray, TokenArray], npt.NDArray[Any]]
"""Maps ids and mask, int64 (rows, tokens), to a value per label, (rows, L)."""


def reading_text(long_text: LongText, max_length: int) -> str:
    """Return how comments were read, for tables and reports."""
    if long_text == "window":
        return f"read in windows of {max_length} tokens"
    return f"read up to {max_length} tokens"


@dataclass(frozen=True)
class Read:
    """What is read of n comments.

    Attributes:
        tokens: of m windows, the special tokens included.
        count: int64 (n,), windows of each comment, at least 1.
    """

    tokens: Tokens
    count: npt.NDArray[np.int64]

    def highest(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return of each comment the highest value of its windows: (m, L) to (n, L)."""
        if len(self.count) == len(values):
            return values
        found: npt.NDArray[Any] = np.maximum.reduceat(values, np.cumsum(self.count) - self.count)
        return found


class Reader:
    """Turns comments into windows.

    Args:
        tokenizer: as the network was trained with; its own truncation does not count.
        max_length: tokens that the network reads at once, special ones included.
        long_text: as `gkiller.inference.classifier.Classifier.predict` takes it.
        pad: the padding id; by default the tokenizer's.

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
            self._ids, self.by_word = _whole(tokenizer), False
            self._before, self._after = _around(tokenizer)

    def read(self, texts: Sequence[str], limit: int | None = None) -> Read:
        """Return the windows of n comments.

        Args:
            texts: the comments.
            limit: with it, only so many tokens of each are read, special ones included.
        """
        size = min(limit or self._max_length, self._max_length)
        comments = [self._ids(text) for text in texts]
        return windowed(
            comments, size, self._before, self._after, self._pad, "truncate" if limit else self._long_text
        )

    def scores(
        self,
        texts: Sequence[str],
        network: Network,
        columns: int,
        batch_size: int,
        progress: Progress | None = None,
    ) -> npt.NDArray[np.float64]:
        """Return of each comment the highest values of its windows, (n, columns), in bounded memory.

        Args:
            texts: n comments.
            network: gives values that rise with the score.
            columns: values of a window.
            batch_size: windows per call of the network.
            progress: called with the comments done and n.
        """
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
        before: special tokens that a window begins with.
        after: those that it ends with.
        pad: the padding id.
        long_text: "window" reads every token, "truncate" the first window alone.
    """
    ends = len(before) + len(after)
    windows = make_windows(comments, max_length - ends, long_text)
    starts = np.concatenate([[0], np.cumsum(windows.length + ends)]).astype(np.int64)
    ids = np.empty(int(starts[-1]), np.int32)
    begun = np.cumsum(windows.length) - windows.length
    place = np.arange(int(windows.length.sum())) - np.repeat(begun, windows.length)
    real = np.repeat(starts[:-1] + len(before), windows.length) + place
    ids[real] = windows.flat[np.repeat(windows.first, windows.length) + place]
    for offset, token in enumerate(before):
        ids[starts[:-1] + offset] = token
    for offset, token in enumerate(reversed(after), start=1):
        ids[starts[1:] - offset] = token
    return Read(Tokens(ids, starts, pad), windows.count)


def _whole(tokenizer: Tokenizer) -> Callable[[str], list[int]]:
    """Return what gives a comment's ids, without special tokens and without a limit."""
    own = type(tokenizer).from_str(tokenizer.to_str())
    own.encode_special_tokens = True  # what a comment spells like [SEP] is text
    own.no_truncation()
    own.no_padding()

    def ids(text: str) -> list[int]:
        found: list[int] = own.encode(clean(text), add_special_tokens=False).ids
        return found

    return ids


def _around(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """Return the special tokens that a tokenizer puts before and after a comment."""
    own = type(tokenizer).from_str(tokenizer.to_str())
    own.no_truncation()
    own.no_padding()
    encoding = own.encode("a")
    real = [place for place, special in enumerate(encoding.special_tokens_mask) if not special]
    first, last = (real[0], real[-1] + 1) if real else (len(encoding.ids), len(encoding.ids))
    return encoding.ids[:first], encoding.ids[last:]
