r"""Disguised writing that a tokenizer can undo before it looks for words: leet, and letters set apart.

A vocabulary has no words for "5tup1d" or "s.t.u.p.i.d". `READINGS` are replacements for the normalizer of a
tokenizer.json, so that every program that reads the file undoes the same:

* **Signs and digits for letters**, as in `LEET`, where they stand inside a word, at the start of one with two
  more letters behind them or at the end of one with two before. "1st", "4th", "5pm" and "1990s" stay, and so
  does an exclamation mark that is not between two letters. "mp3" becomes "mpe", "4chan" "achan" and the "@"
  of an e-mail address "a": a model that is trained so reads them so.
* **Single letters with the same sign between each two**, three or more of them with `MARKS` and four or more
  with spaces: "e.g." and "u r a" stay, "u.s.a." becomes "usa.".

They look at Latin letters alone, in either case, and each matches within a few characters, so that their time
grows with a comment's length and with nothing else. A published pattern is not changed, as models have it in
their files: better ones are added beside it.
"""

from __future__ import annotations

import re
from typing import Final

LEET: Final = {"a": "@4", "e": "3", "i": "1!", "o": "0", "s": "$5", "t": "7"}
"""Letters, and the signs that are read as them."""
MARKS: Final = (".", "-", "*", "_")
"""What can stand between the letters of one word, beside spaces."""

_LETTER = "[A-Za-z]"
_SIGN = "[@$!013457]"
_START, _END = "(?<![A-Za-z0-9@$!_.,])", "(?![A-Za-z0-9@$_])"
_ALONE_BEHIND, _ALONE_BEFORE = "(?<![A-Za-z0-9'])", "(?![A-Za-z0-9'])"


def _sign(letter: str) -> str:
    """Return the pattern of the signs that stand for a letter."""
    signs = LEET[letter]
    at_ends = signs.replace("!", "")
    inside = f"(?<={_LETTER}|{_LETTER}{_SIGN}|{_LETTER}{_SIGN}{_SIGN})[{signs}](?={_SIGN}{{0,2}}{_LETTER})"
    # "@name" is addressed to somebody; "@ss" and "4ss" are no names.
    at_start = f"{_START}[{at_ends.replace('@', '')}](?={_SIGN}?{_LETTER}[A-Za-z@$!013457]{{2,}})"
    at_end = f"(?<={_LETTER}{_LETTER}|{_LETTER}{_SIGN}|{_SIGN}{_LETTER})[{at_ends}]{_END}"
    more = {"a": f"{_START}[@4](?=[Ss$]{{2}})", "s": f"(?<={_LETTER})[$](?=[$]{_END})"}
    return "|".join((inside, at_start, at_end, *([more[letter]] if letter in more else [])))


def _between(mark: str) -> str:
    r"""Return the pattern of a mark between single letters, of which there are three or more.

    What is left of ``\K`` is not replaced. Look-behind has no optional parts here: hence the two beginnings.
    """
    before = f"{_LETTER}{mark}{_LETTER}"
    first = rf"{_ALONE_BEHIND}{_LETTER}\K{mark}(?={before}{_ALONE_BEFORE})"
    later = rf"(?<=\A{before}|[^A-Za-z0-9']{before}){mark}(?={_LETTER}{_ALONE_BEFORE})"
    return f"(?:{first})|{later}"


def _spaces() -> str:
    """Return the pattern of a space between single letters, of which there are four or more."""
    two, three = f"{_LETTER} {_LETTER}", f"{_LETTER} {_LETTER} {_LETTER}"
    first = rf"{_ALONE_BEHIND}{_LETTER}\K (?={three}{_ALONE_BEFORE})"
    middle = rf"(?<=\A{two}|[^A-Za-z0-9']{two}) (?={two}{_ALONE_BEFORE})"
    last = rf"(?<=\A{three}|[^A-Za-z0-9']{three}) (?={_LETTER}{_ALONE_BEFORE})"
    return f"(?:{first})|{middle}|{last}"


READINGS: Final = (
    *((_sign(letter), letter) for letter in LEET),
    ("|".join((*(_between(re.escape(mark)) for mark in MARKS), _spaces())), ""),
)
"""Patterns of Oniguruma's syntax and what is read for their matches, in the order of their use."""

_SIGNS_AT_LETTERS = re.compile(
    r"[@$013457](?:(?<=[A-Za-z].)|(?=[@$!013457]{0,2}[A-Za-z])|(?<=[A-Za-z][@$!013457].)"
    r"|(?<=[A-Za-z][@$!013457]{2}.)|(?=[$]{2}))|!(?=[@$!013457]{0,2}[A-Za-z])"
)
_MARKED = re.compile("[.*_-][A-Za-z][.*_-][A-Za-z]")
_APART = re.compile(" [A-Za-z] [A-Za-z] [A-Za-z]")


def may_be_disguised(text: str) -> bool:
    """Return whether a reading may match: False is certain, of an ASCII text and of each part of it."""
    return any(one.search(text) is not None for one in (_SIGNS_AT_LETTERS, _MARKED, _APART))
