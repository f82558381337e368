"""Comments to token ids.

The tokenizer reads a comment word by word: what is between white space (and, in ASCII, between punctuation
marks) becomes the same ids wherever it stands. So the ids of common words are kept, and most comments never
reach the tokenizer. A tokenizer that works in another way is asked for every comment as a whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, normalizers
from tokenizers.models import WordPiece
from tokenizers.normalizers import Normalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from gkiller.tokens.visible import may_be_disguised, visible, visible_places
from gkiller.tokens.wordpiece import (
    check_padding,
    check_vocabulary,
    is_reading,
    normalizers_in,
    parse_tokenizer,
    special_ids,
)

Ids = npt.NDArray[np.int64]
_MARKS = r"!-/:-@\[-`{-~"  # ASCII punctuation, each mark a word of its own in BERT's pre-tokenizer
_ASCII_WORDS = re.compile(rf"[^\t\n\r {_MARKS}]+|[{_MARKS}]")
_SPACED = re.compile(r"[^\t\n\r ]+")
_CHINESE = r"\u3400-\u4dbf\u4e00-\u9fff"  # each character a word of its own in BERT's normalizer
_SPACED_OR_CHINESE = re.compile(rf"[{_CHINESE}]|[^\t\n\r {_CHINESE}]+")
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_JOINED = re.compile(r"[\x0b\x0c\x1c-\x1f]")  # white space that the tokenizer drops: words may join
_SURROGATES = re.compile(r"[\ud800-\udfff]")
_KEPT_WORDS = 1 << 16
_KEPT_LENGTH = 32
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Word:
    """A word of a comment: its place in characters, and its ids."""

    start: int
    end: int
    ids: list[int]


class Encoder:
    """Turns comments into token ids, without [CLS] and [SEP] and without a limit; errors as of `parse_tokenizer`.

    Attributes:
        pad, cls, sep, mask: ids of the special tokens, or of those that RoBERTa has in their places; a
            tokenizer without a mask token hides behind the unknown one.
        by_word: whether the ids of words are kept; else the tokenizer is asked for every comment.
    """

    def __init__(self, text: str | bytes, where: str, max_length: int) -> None:
        self._tokenizer = parse_tokenizer(text, where, max_length)
        self._tokenizer.no_truncation()
        self.content = max_length - 2
        special = special_ids(self._tokenizer)
        self.pad, self.cls, self.sep = special.kept
        self.mask = special.unknown if special.mask is None else special.mask
        self.by_word = _reads_word_by_word(self._tokenizer)
        bert = _normalizers(self._tokenizer)[-1] if self.by_word else {}
        self._lowercase = bert.get("lowercase", False)
        self._pieces = _SPACED_OR_CHINESE if bert.get("handle_chinese_chars") else _SPACED
        self._disguises = _Disguises.of(self._tokenizer) if self.by_word else None
        own = self._disguises.without if self._disguises else self._tokenizer
        self._words: _Kept[str, list[int]] = _Kept(lambda word: _ids(own, word), lambda word: len(word) <= _KEPT_LENGTH)

    def check_fits(self, config: Mapping[str, Any]) -> None:
        """Raise a ValueError where the network, by its config.json, does not know a piece, or pads otherwise."""
        check_vocabulary(self._tokenizer, config.get("vocab_size"))
        check_padding(self._tokenizer, config)

    def ids(self, text: str) -> list[int]:
        """Return the token ids of a comment as it is seen, with U+FFFD for each lone surrogate."""
        if not text.isascii() or _CONTROLS.search(text) is not None:
            text = clean(visible(text))
            if _JOINED.search(text) is not None:
                return _ids(self._tokenizer, text)
        if not self.by_word:
            return _ids(self._tokenizer, text)
        if self._disguises is not None and self._disguises.may_be_in(text):
            if not text.isascii():
                return _ids(self._tokenizer, text)
            text = self._disguises.undo(text)
        words = self._words
        ids: list[int] = []
        for piece in [text] if text.isascii() else self._pieces.findall(text):
            if piece.isascii():
                for word in _ASCII_WORDS.findall(piece.lower() if self._lowercase else piece):
                    ids += words[word]
            else:
                ids += words[piece]
        return ids

    def words(self, text: str) -> list[Word]:
        """Return a comment's words with their places; their ids in a row are those of :meth:`ids`.

        The words stand in the order in which they are read, which differs from the order of their places
        where the comment reverses a run.
        """
        seen, places = visible_places(text)
        encoding = self._tokenizer.encode(clean(seen), add_special_tokens=False)
        words: list[Word] = []
        last: int | None = None
        for token, number, (start, end) in zip(encoding.ids, encoding.word_ids, encoding.offsets, strict=True):
            here = places[start:end] or places[start : start + 1] or [len(text)]
            first, stop = min(here), max(here) + (end > start)
            if words and number is not None and number == last:
                word = words[-1]
                word.ids.append(token)
                words[-1] = Word(min(word.start, first), max(word.end, stop), word.ids)
            else:
                words.append(Word(first, stop, [token]))
            last = number
        return words

    def empty(self) -> tuple[Ids, Ids]:
        """Return ids and mask, both int64 of shape (1, 2), of a comment without a word."""
        return np.array([[self.cls, self.sep]], np.int64), np.ones((1, 2), np.int64)


class _Kept(dict[_Key, _Value]):
    """What a function gives, asked when a key is first met; some keys are kept, up to a bound."""

    def __init__(self, make: Callable[[_Key], _Value], keep: Callable[[_Key], bool] = lambda _: True) -> None:
        self._make, self._keep = make, keep
        super().__init__()

    def __missing__(self, key: _Key) -> _Value:
        made = self._make(key)
        if self._keep(key):
            if len(self) >= _KEPT_WORDS:
                self.clear()
            self[key] = made
        return made


class _Disguises:
    """The readings of a tokenizer, which look beyond words; their result is read word by word."""

    def __init__(self, tokenizer: Tokenizer, parts: list[dict[str, Any]]) -> None:
        readings = [one for one in parts if is_reading(one)]
        others = [one for one in parts if not is_reading(one)]
        self.without = Tokenizer.from_str(tokenizer.to_str())
        self.without.encode_special_tokens = True
        self.without.normalizer = _normalizer(others)
        self.undo: Callable[[str], str] = _normalizer(readings).normalize_str
        before = _normalizer(others[:-1])

        def seen(number: int) -> str:
            """Return what the normalizer makes of a character, with "~" for each that is not ASCII."""
            made = before.normalize_str(clean(chr(number)))
            return "".join(one if one.isascii() else "~" for one in made)

        self._seen = _Kept(seen)

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> _Disguises | None:
        """Return those of a tokenizer that reads word by word; None where it has none."""
        parts = _normalizers(tokenizer)
        return cls(tokenizer, parts) if any(map(is_reading, parts)) else None

    def may_be_in(self, text: str) -> bool:
        """Return whether a reading may match: False is certain, of the text and of each of its words."""
        return may_be_disguised(text if text.isascii() else text.translate(self._seen))


def _normalizer(parts: list[dict[str, Any]]) -> Normalizer:
    """Return a normalizer of such parts as a tokenizer.json has."""
    made = normalizers.Sequence([])
    made.__setstate__(json.dumps({"type": "Sequence", "normalizers": parts}).encode())
    return made


def clean(text: str) -> str:
    """Return the text with U+FFFD for each lone surrogate; it keeps its length."""
    return text if text.isascii() else _SURROGATES.sub("\ufffd", text)


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    # `encode` runs on the calling thread; `encode_batch` would start a pool of threads of its own.
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def _reads_word_by_word(tokenizer: Tokenizer) -> bool:
    """Return whether the tokenizer is BERT's, whose words do not depend on their neighbours.

    What its normalizer does before BERT's part may not change ASCII, but for readings.
    """
    if (type(tokenizer.pre_tokenizer), type(tokenizer.model)) != (BertPreTokenizer, WordPiece):
        return False
    *before, last = _normalizers(tokenizer) or [{"type": None}]
    added = tokenizer.get_added_tokens_decoder().values()
    return (
        last["type"] == "BertNormalizer"
        and last["clean_text"]
        and all(is_reading(one) or _leaves_ascii(one) for one in before)
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
