"""Quoted fields that hold what look like records: two stray quotes make everything between them one field."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gkiller.data.dialect import clean_name
from gkiller.data.labels import ALIASES, CANONICAL_LABELS, CLASS_NAMES
from gkiller.data.names import ID_NAMES, LABEL_NAMES

_NUMBER = re.compile(r"[+-]?([0-9]+([.,][0-9]*)?|[.,][0-9]+)([eE][+-]?[0-9]+)?")
_UNIT, _NUMERIC, _CODE, _WORD, _TEXT = range(5)
_LEARNT_ROWS = 200
_MOST_WORDS = 8
_ROWS_PER_WORD = 3
_LONGEST_CODE = 64
_MANY = 5
_LABELS = frozenset((*LABEL_NAMES, *CANONICAL_LABELS, *ALIASES))


class Profile:
    """What the fields of each column look like, learnt from a file's first records.

    A column is told by its kind: numbers in 0..1 (and -1), numbers, codes such as ids (one word with a
    digit), or a few words such as class names. Columns of text tell nothing. Before the first record is
    known, the usual names of labels and ids stand for their kinds.

    Args:
        header: the column names.
        separator: one character between fields.

    """

    def __init__(self, header: Sequence[str], separator: str) -> None:
        self._separator = separator
        self._header = list(header)
        self._width = len(header)
        self._rows = 0
        self._named = [_kind_of_name(name) for name in header]
        self._kinds = [_UNIT] * len(header)
        self._words: list[set[str]] = [set() for _ in header]

    def learn(self, fields: Sequence[str]) -> None:
        """Take note of a record on one line; all but a file's first ones are passed over."""
        if self._rows >= _LEARNT_ROWS or len(fields) != self._width:
            return
        if [clean_name(field) for field in fields] == self._header:
            return
        self._rows += 1
        for column, field in enumerate(fields):
            self._kinds[column] = max(self._kinds[column], _kind(field))
            words = self._words[column]
            if len(words) <= _MOST_WORDS and len(field) <= _LONGEST_CODE:
                words.add(field.strip())

    def looks_like_record(self, line: str) -> bool:
        """Whether a physical line, taken alone, has the fields of this file's records."""
        fields = line.rstrip("\r\n").split(self._separator)
        if len(fields) != self._width or self._width < 2:
            return False
        verdicts = [self._fits(column, field) for column, field in enumerate(fields)]
        return False not in verdicts and True in verdicts

    def _fits(self, column: int, field: str) -> bool | None:
        """Whether a field is of its column's kind; None where the column tells nothing."""
        kind, words = self._kinds[column], self._words[column]
        if not self._rows:
            kind = self._named[column]
            alike = _kind(field) <= kind or field.strip().lower() in CLASS_NAMES
            return None if kind == _TEXT else alike and bool(field.strip())
        if kind == _WORD:
            known = len(words) <= _MOST_WORDS and self._rows >= _ROWS_PER_WORD * len(words)
            return field.strip() in words if known else None
        if kind == _TEXT or words == {""}:
            return None
        return field.strip() in words if not field.strip() else _kind(field) <= kind


class Span:
    """The physical lines of one record, and which of them look like records of their own.

    Args:
        profile: judges the lines.
        first: the record's first line.

    """

    def __init__(self, profile: Profile, first: str) -> None:
        self._profile = profile
        self._first = self._last = profile.looks_like_record(first)
        self._inner = self._inner_alike = 0
        self._filled = False
        self.lines = 1

    def add(self, line: str) -> None:
        """Take the next line of the record."""
        if self.lines > 1 and self._filled:
            self._inner += 1
            self._inner_alike += self._last
        self._filled = not line.isspace()
        self._last = self._profile.looks_like_record(line)
        self.lines += 1

    def swallowed(self, *, faulty: bool) -> bool:
        """Whether the record is most likely several: a stray quote opened it, and another one closed it.

        A comment over several lines has no label at the end of its first line, so that line is no record;
        or, where the label comes first, its last line is none.

        Args:
            faulty: whether the record is bad anyway, so that less evidence is enough.

        """
        if self.lines < 2:
            return False
        mostly = 2 * self._inner_alike >= self._inner
        ends = self._first and self._last and mostly
        many = self._inner_alike >= _MANY and 5 * self._inner_alike >= 4 * self._inner
        return ends or many or (faulty and mostly and self._inner_alike > 0)


def _kind_of_name(name: str) -> int:
    if name.lower() in _LABELS:
        return _UNIT
    return _CODE if name.lower() in ID_NAMES else _TEXT


def _kind(field: str) -> int:
    """Return the narrowest kind of a field; an empty one, which may stand anywhere, is of the first."""
    word = field.strip()
    if not word:
        return _UNIT
    if len(word) > _LONGEST_CODE or len(word.split()) > 1:
        return _TEXT
    if _NUMBER.fullmatch(word):
        number = float(word.replace(",", "."))
        return _UNIT if 0 <= number <= 1 or number == -1 else _NUMERIC
    return _CODE if any(map(str.isdigit, word)) else _WORD
