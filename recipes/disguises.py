"""A tokenizer that reads disguised words: letters of other scripts, signs for letters, letters set apart.

    python recipes/disguises.py MODEL --out DIR
    gkiller threshold DIR --data prepared

A comment can be disguised with letters that a reader takes for Latin ones; a vocabulary of English has no
words of them. `reading_disguises` undoes that in the tokenizer itself, so that every program that reads its
tokenizer.json does the same: first Unicode's compatibility forms (NFKC: full width, mathematical and circled
letters), then, letter by letter, `LOOKALIKES`, then gkiller's own readings of leet and of words whose letters
stand apart (`gkiller.tokens.visible`). Words that are meant in other letters are changed too: this is for
models of English.

``recipes/pretrain.py`` gives its encoder such a tokenizer. The first command above writes a copy of a model
that was trained without: the same network and graphs, and its own tokenizer so changed. Its scores differ, so
that the second tunes its thresholds again.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

from tokenizers import Regex, Tokenizer, normalizers

from gkiller.data.augment.operators import HOMOGLYPHS
from gkiller.model.directory import add_files, stored_files
from gkiller.model.layout import CARD, TOKENIZER
from gkiller.scoring.models import load_any
from gkiller.tokens.visible import READINGS
from gkiller.tokens.wordpiece import is_reading, normalizers_in

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


ROW = (
    "| reads as words | letters of other scripts that look like Latin ones, leet, and letters set apart; "
    "not when it was trained, nor for the figures on the validation split |"
)


def reading_disguises(tokenizer: Tokenizer) -> Tokenizer:
    """Return a copy of a tokenizer of BERT's kind that reads disguised words."""
    made = Tokenizer.from_str(tokenizer.to_str())
    alike = [normalizers.Replace(alike, latin) for alike, latin in LOOKALIKES.items()]
    undone = [normalizers.Replace(Regex(pattern), letters) for pattern, letters in READINGS]
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), *alike, *undone, made.normalizer])
    return made


def write_copy(model: Path, out: Path) -> None:
    """Write a copy of a model that reads disguised words; one that does already ends the program."""
    loaded = load_any(model)
    text = stored_files(loaded, (TOKENIZER,))[TOKENIZER].decode("utf-8")
    if any(map(is_reading, normalizers_in(json.loads(text)["normalizer"]))):
        sys.exit(f"{model} reads disguised words already")
    card = with_row(stored_files(loaded, (CARD,))[CARD].decode("utf-8"))
    changed = reading_disguises(Tokenizer.from_str(text)).to_str()
    add_files(out, loaded, {TOKENIZER: changed.encode("utf-8"), CARD: card.encode("utf-8")})


def with_row(card: str) -> str:
    """Return a model card that says so; one without the table of ours is returned as it is."""
    return re.sub(r"^\| reads \|.*\n", rf"\g<0>{ROW}\n", card, count=1, flags=re.MULTILINE)


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a run or a model directory")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new model directory")
    arguments = parser.parse_args()
    write_copy(arguments.model, arguments.out)


if __name__ == "__main__":
    main()
