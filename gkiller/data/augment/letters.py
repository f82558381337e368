"""Operators on the letters of single words: typing errors and disguises.

Typing errors leave the first and the last letter of a word alone, and words of less than four letters, so
that a reader still sees the word (Rawlinson 1976; Belinkov and Bisk 2018 for machines). Numbers and scripts
other than Latin, Greek and Cyrillic are left as they are. One limit is common to all: a changed letter can
make another real word of a harmless one, or of a rude one; with errors inside longer words that is rare.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from numpy.random import Generator

from gkiller.data.augment.edits import LETTERS, choose, rewrite, share, some

LEET = {"a": "@4", "e": "3", "i": "1!", "o": "0", "s": "$5", "t": "7"}
"""Letters and the digits and signs that look like them."""

HOMOGLYPHS = dict(zip("aceijopsxyhABCEHIKMOPSTXY", "асеіјорѕхуһАВСЕНІКМОРЅТХУ", strict=True))
"""Latin letters and the Cyrillic ones of the same shape."""

ZERO_WIDTH = ("\u200b", "\u2060", "\ufeff")
"""Zero width space, word joiner, and zero width no-break space."""

SEPARATORS = (" ", ".", "-", "*", "_")
MOST_REPEATS = 4
LONGEST_SPACED = 20

_WORD = re.compile(f"[{LETTERS}]{{3,}}")
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
NEIGHBOURS = {
    key: "".join(row[i] for i in (at - 1, at + 1) if 0 <= i < len(row))
    for row in _ROWS
    for at, key in enumerate(row)
}
"""Each letter's neighbours in its row of a QWERTY keyboard."""


def swap(text: str, rng: Generator, intensity: float) -> str:
    """Swap two different neighbouring letters inside words: "stupid" becomes "stpuid".

    Why the label survives: the word is still read. Limit: the common one of this module.
    """
    return _once_per_word(text, rng, intensity, swappable, swapped)


def swappable(word: str) -> list[int]:
    """Return the places of a word's inner letters that differ from the inner letter behind them."""
    return [at for at in _inner(word)[:-1] if word[at] != word[at + 1]]


def swapped(word: str, at: int) -> str:
    """Return a word with the letter at a place and the one behind it swapped."""
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]


def delete(text: str, rng: Generator, intensity: float) -> str:
    """Leave out a letter inside words: "stupid" becomes "stupd".

    Why the label survives: the word is still read. Limit: the common one of this module.
    """
    return _once_per_word(text, rng, intensity, _inner, lambda word, at: word[:at] + word[at + 1 :])


def insert(text: str, rng: Generator, intensity: float) -> str:
    """Hit a neighbouring key beside the right one inside words: "stupid" becomes "stuipid".

    Why the label survives: the word is still read. Limit: the common one of this module; QWERTY only.
    """

    def change(word: str, at: int) -> str:
        return word[: at + 1] + _neighbour(word[at], rng) + word[at + 1 :]

    return _once_per_word(text, rng, intensity, _keys, change)


def neighbour(text: str, rng: Generator, intensity: float) -> str:
    """Hit a neighbouring key instead of the right one inside words: "stupid" becomes "stypid".

    Why the label survives: the word is still read. Limit: the common one of this module; QWERTY only.
    """

    def change(word: str, at: int) -> str:
        return word[:at] + _neighbour(word[at], rng) + word[at + 1 :]

    return _once_per_word(text, rng, intensity, _keys, change)


def repeat(text: str, rng: Generator, intensity: float) -> str:
    """Draw words out by repeating a letter: "stupid" becomes "stupiiid".

    Why the label survives: the word is still read, only louder. Limit: it adds emphasis, which graded labels
    such as ``severe_toxicity`` can depend on.
    """

    def change(word: str, at: int) -> str:
        return word[:at] + word[at] * int(rng.integers(2, MOST_REPEATS + 1)) + word[at:]

    return _once_per_word(text, rng, intensity, lambda word: range(1, len(word)), change)


def leet(text: str, rng: Generator, intensity: float) -> str:
    """Write digits and signs for letters of like shape: "stupid" becomes "5tup1d".

    Why the label survives: the shape is read as the word; who disguises a word still says it. Limit: harmless
    words are disguised too, so a model learns the word behind it and not that a disguise is suspicious.
    """
    return _substitute(text, rng, intensity, {**LEET, **{key.upper(): to for key, to in LEET.items()}})


def homoglyph(text: str, rng: Generator, intensity: float) -> str:
    """Write Cyrillic letters for Latin ones of the same shape; the text looks as before.

    Why the label survives: a reader sees no difference. Limit: as `leet`.
    """
    return _substitute(text, rng, intensity, HOMOGLYPHS)


def spacing(text: str, rng: Generator, intensity: float) -> str:
    """Put spaces, dots or other signs between the letters of words: "idiot" becomes "i d i o t".

    Why the label survives: the letters are read in their order. Limit: with spaces and a high intensity the
    ends of words are lost to a reader; words of over 20 letters are left alone.
    """
    words = [match for match in _WORD.finditer(text) if len(match[0]) <= LONGEST_SPACED]
    return rewrite(text, share(rng, words, intensity), lambda word: choose(rng, SEPARATORS).join(word))


def zero_width(text: str, rng: Generator, intensity: float) -> str:
    """Put characters that are not drawn between letters of words; the text looks as before.

    Why the label survives: a reader sees no difference. Limit: BERT's normaliser drops these characters, so
    for a model with such a tokenizer, the one gkiller ships among them, nothing changes; others see broken
    words.
    """

    def change(word: str) -> str:
        gaps = set(some(rng, range(1, len(word))))
        marks = (choose(rng, ZERO_WIDTH) if at in gaps else "" for at in range(len(word)))
        return "".join(mark + letter for mark, letter in zip(marks, word, strict=True))

    return rewrite(text, share(rng, list(_WORD.finditer(text)), intensity), change)


def _inner(word: str) -> Sequence[int]:
    """Return the places of a word's inner letters; none in a word of three letters."""
    return range(1, len(word) - 1) if len(word) > 3 else range(0)


def _keys(word: str) -> list[int]:
    return [at for at in _inner(word) if word[at].lower() in NEIGHBOURS]


def _neighbour(letter: str, rng: Generator) -> str:
    key = choose(rng, NEIGHBOURS[letter.lower()])
    return key.upper() if letter.isupper() else key


def _once_per_word(
    text: str,
    rng: Generator,
    intensity: float,
    places: Callable[[str], Sequence[int]],
    change: Callable[[str, int], str],
) -> str:
    """Change one of the places that a word has, in a share of the words that have any."""
    words = [match for match in _WORD.finditer(text) if places(match[0])]
    return rewrite(text, share(rng, words, intensity), lambda word: change(word, choose(rng, places(word))))


def _substitute(text: str, rng: Generator, intensity: float, table: dict[str, str]) -> str:
    """Replace about half of the letters in the table, in a share of the words that have any."""

    def places(word: str) -> list[int]:
        return [at for at, letter in enumerate(word) if letter in table]

    def change(word: str) -> str:
        letters = list(word)
        for at in some(rng, places(word)):
            letters[at] = choose(rng, table[word[at]])
        return "".join(letters)

    words = [match for match in _WORD.finditer(text) if places(match[0])]
    return rewrite(text, share(rng, words, intensity), change)
