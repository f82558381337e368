"""A tokenizer that reads disguised words: letters of other scripts, signs for letters, letters set apart.

A comment can be disguised with letters that a reader takes for Latin ones; a vocabulary of English has no
words of them. `reading_disguises` undoes that in the tokenizer itself, so that every program that reads its
tokenizer.json does the same: first Unicode's compatibility forms (NFKC: full width, mathematical and circled
letters), then, letter by letter, `LOOKALIKES`, then gkiller's own readings of leet and of words whose letters
stand apart (`gkiller.model.disguises`). Words that are meant in other letters are changed too: this is for
models of English.
"""

from __future__ import annotations

from tokenizers import Regex, Tokenizer, normalizers

from gkiller.data.augment.letters import HOMOGLYPHS
from gkiller.model.disguises import READINGS

_ALIKE = {
    "a": "αᴀɑ",
    "b": "вʙ",
    "c": "ςᴄ",
    "d": "ԁᴅɗ",
    "e": "εᴇɛ",
    "f": "ꜰƒ",
    "g": "ԍɢɡɠ",
    "h": "һʜհ",
    "i": "ιɪıɩ",
    "j": "ϳᴊ",
    "k": "кκᴋ",
    "l": "ӏʟł",
    "m": "мᴍ",
    "n": "пηɴո",
    "o": "οᴏøօ",
    "p": "ρᴘ",
    "q": "ԛզ",
    "r": "гʀ",
    "s": "ꜱ",
    "t": "тτᴛŧ",
    "u": "υᴜսʉ",
    "v": "ѵνᴠʋ",
    "w": "ԝωѡᴡ",
    "x": "χ",
    "y": "үγʏ",
    "z": "ζᴢ",
    "A": "Α",
    "B": "Β",
    "D": "Ꭰ",
    "E": "ΕЁ",
    "G": "Ԍ",
    "H": "ΗҺ",
    "I": "ΙӀ",
    "J": "Ϳ",
    "K": "Κ",
    "L": "ᏞŁ",
    "M": "Μ",
    "N": "Ν",
    "O": "ΟՕØ",
    "P": "Ρ",
    "Q": "Ԛ",
    "R": "Ꭱ",
    "S": "ՏᏚ",
    "T": "ΤŦ",
    "U": "ՍᑌɄ",
    "V": "ѴᏙ",
    "W": "ԜᎳ",
    "X": "Χ",
    "Y": "ΥҮ",
    "Z": "ΖᏃ",
}
"""Latin letters, and letters of Cyrillic, Greek, Armenian, Cherokee and rare Latin that look like them."""

LOOKALIKES: dict[str, str] = {
    **{alike: latin for latin, several in _ALIKE.items() for alike in several},
    **{alike: latin for latin, alike in HOMOGLYPHS.items()},
}
"""Characters, and the Latin letter that each is read as. Those of the augmentation are among them."""


def reading_disguises(tokenizer: Tokenizer) -> Tokenizer:
    """Return a copy of a tokenizer of BERT's kind that reads disguised words."""
    made = Tokenizer.from_str(tokenizer.to_str())
    alike = [normalizers.Replace(alike, latin) for alike, latin in LOOKALIKES.items()]
    undone = [normalizers.Replace(Regex(pattern), letters) for pattern, letters in READINGS]
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), *alike, *undone, made.normalizer])
    return made
