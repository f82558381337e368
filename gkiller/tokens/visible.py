"""A comment as people see it: invisible characters left out, reversed runs and disguised words undone.

Every tokenizer gets its comments from here, in training, in measuring and in scoring. Left out are:

* Default_Ignorable_Code_Point of Unicode's DerivedCoreProperties.txt: soft hyphen, zero-width characters,
  direction marks, variation selectors, tags, Hangul fillers;
* control characters that are no white space, annotation marks, format characters of hieroglyphs and of Arabic
  numbers, and fillers and blanks that are no white space (U+2800, U+16FE4);
* marks that strike through, underline or enclose (general category Me, U+20D0-20F0) and others that are no
  accent of a Latin letter, every mark on a digit, and of a stack on one letter all but the first two.

What joins an emoji's parts stays, and so do the accents of letters. Text between a right-to-left override and
its end is displayed from the right, so it is turned round (Unicode Standard Annex 9, without mirrored signs);
letters of Hebrew and Arabic keep the order in which they are read.

A vocabulary has no words for "5tup1d" or "s.t.u.p.i.d". `READINGS` are replacements for the normalizer of a
tokenizer.json, so that every program that reads the file undoes the same:

* signs and digits for letters, as in `LEET`, inside a word, at the start of one with two more letters behind
  them or at the end of one with two before. "1st", "4th", "5pm" and "1990s" stay, and so does an exclamation
  mark that is not between two letters. "mp3" becomes "mpe", "4chan" "achan" and the "@" of an e-mail address
  "a": a model that is trained so reads them so;
* single letters with the same sign between each two, three or more of them with `MARKS` and four or more with
  spaces: "e.g." and "u r a" stay, "u.s.a." becomes "usa.".

They look at Latin letters alone, in either case, and each matches within a few characters, so their time
grows with a comment's length and with nothing else. Models have a published pattern in their files, so it
is never changed: better ones are added.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

_CONTROLS = r"\x00-\x08\x0e-\x1b\x7f"
_SHOWN_NEVER = (
    _CONTROLS + r"\x80-\x84\x86-\x9f\u00ad\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200c\u200e\u200f"
    r"\u202a-\u202e\u2060-\u206f\u2800\u3164\ufe00-\ufe0e\ufeff\uffa0\ufff0-\ufffb"
    r"\U0001bca0-\U0001bca3\U0001d159\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
    r"\u0890\u0891\u08e2\U000110cd\U00013430-\U0001343f\U00016fe4\U0001cf00-\U0001cf46"
    r"\u0305\u030d\u030e\u0310\u0312\u0315-\u031a\u031c-\u0322\u032a-\u032c\u032f\u0332-\u0337\u0339-\u033f"
    r"\u0346-\u0357\u0359-\u036f\u0488\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20f0\ua670-\ua672\ufe20-\ufe2f"
)
_EMOJI = (
    r"\u00a9\u00ae\u203c\u2049\u2122\u2139\u2190-\u27bf\u2900-\u2bff\u3030\u303d\u3297\u3299"
    r"\U0001f000-\U0001faff"
)
_ACCENTS = r"\u0300-\u036f"
_CONTROL = re.compile(f"[{_CONTROLS}]")
_SUSPECT = re.compile(rf"[{_SHOWN_NEVER}{_ACCENTS}\u200d\ufe0f]")
_HIDDEN = re.compile(
    rf"[{_SHOWN_NEVER}]|[{_ACCENTS}](?<=[{_ACCENTS}]{{3}})"
    rf"|\u0338(?<=[A-Za-z]\u0338)|[{_ACCENTS}](?:(?<=[0-9@$!].)|(?<=[0-9@$!][{_ACCENTS}].))"
    rf"|\ufe0f(?<![{_EMOJI}]\ufe0f)|\u200d(?!(?<=[{_EMOJI}\ufe0f]\u200d)[{_EMOJI}])"
)

_TURNS = re.compile(r"[\u202e\u2067]")
_OVERRIDE, _POP, _ISOLATE, _POP_ISOLATE = "\u202e", "\u202c", "\u2067", "\u2069"
_ISOLATES: Final = frozenset("\u2066\u2067\u2068")
_MARKS: Final = _ISOLATES | frozenset("\u202a\u202b\u202c\u202d\u202e\u2069")
_PARAGRAPH_ENDS: Final = frozenset("\n\r\x1c\x1d\x1e\x85\u2029")
_DEEPEST: Final = 125  # runs within runs; the annex ignores what is deeper


def visible(text: str) -> str:
    """Return a comment as it is seen; most are returned as they are."""
    if (_CONTROL if text.isascii() else _SUSPECT).search(text) is None:
        return text
    return visible_places(text)[0] if _TURNS.search(text) else _HIDDEN.sub("", text)


def visible_places(text: str) -> tuple[str, list[int]]:
    """Return a comment as it is seen, and the place of each of its characters in the comment."""
    hidden = {match.start() for match in _HIDDEN.finditer(text)}
    order = _displayed(text) if _TURNS.search(text) else range(len(text))
    places = [place for place in order if place not in hidden]
    return "".join([text[place] for place in places]), places


@dataclass
class _Run:
    """What stands between a direction mark and its end."""

    mark: str = ""
    isolates: int = 0
    parts: list[list[int] | _Run] = field(default_factory=list)
    letters: bool = False  # whether a letter or a digit stands in it, outside of runs within
    from_right: bool = False  # whether its last part holds letters that are read from the right

    def displayed(self) -> Iterator[list[int] | _Run]:
        """Return the parts from left to right."""
        turned = self.mark == _OVERRIDE or (self.mark == _ISOLATE and not self.letters)
        return reversed(self.parts) if turned else iter(self.parts)

    def add(self, character: str, place: int) -> None:
        """Add a character: marks stay with their letter, and letters read from the right with each other."""
        kind = unicodedata.bidirectional(character)
        last = self.parts[-1] if self.parts else None
        from_right = kind in ("R", "AL")
        if isinstance(last, list) and (kind == "NSM" or (from_right and self.from_right)):
            last.append(place)
        else:
            self.parts.append([place])
            self.from_right = from_right
        self.letters |= character.isalnum()


def _displayed(text: str) -> list[int]:
    """Return the places of a text's characters in the order in which they are displayed."""
    whole = _Run()
    opened = [whole]
    for place, character in enumerate(text):
        if character in _MARKS:
            _turn(opened, character)
            continue
        if character in _PARAGRAPH_ENDS:
            del opened[1:]
        opened[-1].add(character, place)
    order: list[int] = []
    waiting = [whole.displayed()]
    while waiting:
        part = next(waiting[-1], None)
        if part is None:
            waiting.pop()
        elif isinstance(part, _Run):
            waiting.append(part.displayed())
        else:
            order += part
    return order


def _turn(opened: list[_Run], mark: str) -> None:
    """Open a run or close the last one; an end without a beginning counts for nothing."""
    last = opened[-1]
    if mark == _POP_ISOLATE:
        while last.isolates and opened.pop().mark not in _ISOLATES:
            pass
    elif mark == _POP:
        if len(opened) > 1 and last.mark not in _ISOLATES:
            opened.pop()
    elif len(opened) <= _DEEPEST:
        run = _Run(mark, last.isolates + (mark in _ISOLATES))
        last.parts.append(run)
        opened.append(run)


LEET: Final = {"a": "@4", "e": "3", "i": "1!", "o": "0", "s": "$5", "t": "7"}
"""Letters, and the signs that are read as them."""
MARKS: Final = (".", "-", "*", "_")
"""What can stand between the letters of one word, besides spaces."""
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
