"""Comments to token ids.

The tokenizer reads a comment word by word: what is between white space (and, in ASCII, between punctuation
marks) becomes the same ids wherever it stands. So the ids of common words are kept, and most comments never
reach the tokenizer. A tokenizer that works in another way is asked for every comment as a whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import BertPreTokenizer

from gkiller.model.wordpiece import (
    check_padding,
    check_vocabulary,
    normalizers_in,
    parse_tokenizer,
    special_ids,
)

Ids = npt.NDArray[np.int64]

_MARKS = r"!-/:-@\[-`{-~"  # ASCII punctuation, each mark a word of its own in BERT's pre-tokenizer
_ASCII_WORDS = re.compile(rf"[^\t\n\r {_MARKS}]+|[{_MARKS}]")
_SPACED = re.compile(r"[^\t\n\r ]+")
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")  # the tokenizer drops them: words may join
_SURROGATES = re.compile(r"[\ud800-\udfff]")

_KEPT_WORDS = 1 << 16
_KEPT_LENGTH = 32


@dataclass(frozen=True)
class Word:
    """A word of a comment: its place in characters, and its ids."""

    start: int
    end: int
    ids: list[int]


class Encoder:
    """Turns comments into token ids, without [CLS] and [SEP] and without a limit.

    Args:
        text: the content of tokenizer.json.
        where: how messages name it.
        max_length: tokens that the network reads at once, [CLS] and [SEP] included.

    Attributes:
        content: tokens of a comment that fit beside [CLS] and [SEP].
        pad, cls, sep, mask: ids of the special tokens, or of those that RoBERTa has in their places; a
            tokenizer without a mask token hides behind the unknown one.
        by_word: whether the ids of words are kept; else the tokenizer is asked for every comment.

    Raises:
        ModelFormatError: the text is no tokenizer, or lacks its special tokens, or does not put them around
            a comment.
    """

    def __init__(self, text: str | bytes, where: str, max_length: int) -> None:
        self._tokenizer = parse_tokenizer(text, where, max_length)
        self._tokenizer.no_truncation()
        self.content = max_length - 2
        special = special_ids(self._tokenizer)
        self.pad, self.cls, self.sep = special.kept
        self.mask = special.unknown if special.mask is None else special.mask
        self._words = _Words(self._tokenizer)
        self.by_word = _reads_word_by_word(self._tokenizer)
        self._lowercase = self.by_word and _normalizers(self._tokenizer)[-1]["lowercase"]

    def check_fits(self, config: Mapping[str, Any]) -> None:
        """Compare the tokenizer with the network, by its config.json.

        Raises:
            ValueError: it can give the network a piece that it does not know, or pads otherwise.
        """
        check_vocabulary(self._tokenizer, config.get("vocab_size"))
        check_padding(self._tokenizer, config)

    def ids(self, text: str) -> list[int]:
        """Return a comment's token ids; lone surrogates are read as U+FFFD, NULs and controls not at all."""
        if not self.by_word or _CONTROLS.search(text) is not None:
            return _ids(self._tokenizer, clean(text))
        words = self._words
        ids: list[int] = []
        if text.isascii():
            for word in _ASCII_WORDS.findall(text.lower() if self._lowercase else text):
                ids += words[word]
            return ids
        for piece in _SPACED.findall(clean(text)):
            if piece.isascii():
                for word in _ASCII_WORDS.findall(piece.lower() if self._lowercase else piece):
                    ids += words[word]
            else:
                ids += words[piece]
        return ids

    def words(self, text: str) -> list[Word]:
        """Return a comment's words with their places; their ids in a row are those of :meth:`ids`."""
        encoding = self._tokenizer.encode(clean(text), add_special_tokens=False)
        words: list[Word] = []
        last: int | None = None
        for token, number, (start, end) in zip(
            encoding.ids, encoding.word_ids, encoding.offsets, strict=True
        ):
            if words and number is not None and number == last:
                word = words[-1]
                words[-1] = Word(word.start, max(word.end, end), [*word.ids, token])
            else:
                words.append(Word(start, end, [token]))
            last = number
        return words

    def empty(self) -> tuple[Ids, Ids]:
        """Return ids and mask, both int64 of shape (1, 2), of a comment without a word."""
        return np.array([[self.cls, self.sep]], np.int64), np.ones((1, 2), np.int64)


class _Words(dict[str, list[int]]):
    """The ids of words, asked of the tokenizer when first met; short ones are kept, up to a bound."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        super().__init__()

    def __missing__(self, word: str) -> list[int]:
        ids = _ids(self._tokenizer, word)
        if len(word) <= _KEPT_LENGTH:
            if len(self) >= _KEPT_WORDS:
                self.clear()
            self[word] = ids
        return ids


def clean(text: str) -> str:
    """Return the text with U+FFFD for each lone surrogate; it keeps its length."""
    return text if text.isascii() else _SURROGATES.sub("\ufffd", text)


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    # `encode` runs on the calling thread; `encode_batch` would start a pool of threads of its own.
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def _reads_word_by_word(tokenizer: Tokenizer) -> bool:
    """Return whether the tokenizer is BERT's, whose words do not depend on their neighbours.

    What its normalizer does before BERT's part may not change ASCII.
    """
    if (type(tokenizer.pre_tokenizer), type(tokenizer.model)) != (BertPreTokenizer, WordPiece):
        return False
    *before, last = _normalizers(tokenizer) or [{"type": None}]
    added = tokenizer.get_added_tokens_decoder().values()
    return (
        last["type"] == "BertNormalizer"
        and last["clean_text"]
        and all(_leaves_ascii(one) for one in before)
        and all(token.special for token in added)
    )


def _normalizers(tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """Return the parts of a tokenizer's normalizer."""
    if tokenizer.normalizer is None:
        return []
    return normalizers_in(json.loads(tokenizer.normalizer.__getstate__()))


def _leaves_ascii(normalizer: dict[str, Any]) -> bool:
    if normalizer["type"] == "Replace":
        return not normalizer["pattern"]["String"].isascii()
    return normalizer["type"] in ("NFC", "NFKC")
