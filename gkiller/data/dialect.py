"""What a delimited file is written with: its separator, a ``sep=`` line, spaces before quotes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import chain, islice
from typing import NamedTuple

from gkiller.data.labels import ALIASES, CANONICAL_LABELS
from gkiller.data.names import ID_NAMES, LABEL_NAMES, TEXT_NAMES

_MARKS = {".csv": ",;\t|", ".tsv": "\t,;|"}
_SEP_LINE = re.compile(r'\ufeff?"?sep *= *([^\s"\\]|\t|\\t)"?[,;\s]*', re.IGNORECASE)
_AROUND = "\ufeff\u200b\u200c\u200d\u2060\u00ad"  # seen by nobody
_QUOTED = re.compile(r'"[^"]*"')
_LOOKED_AT = 20
_PURPOSES = (
    dict.fromkeys(TEXT_NAMES, "text")
    | dict.fromkeys(ID_NAMES, "id")
    | dict.fromkeys((*LABEL_NAMES, *CANONICAL_LABELS, *ALIASES), "label")
)
_USUAL = frozenset((*_PURPOSES, "weight"))


class Dialect(NamedTuple):
    """How a file is written.

    Attributes:
        separator: one character between fields.
        announced: whether a line such as ``sep=;`` stands above the header, as Excel writes and reads it.
        padded: whether spaces stand between a separator and an opening quote.

    """

    separator: str
    announced: bool
    padded: bool


def clean_name(name: str) -> str:
    """Return a column's name without white space and invisible characters around it."""
    return name.strip().strip(_AROUND).strip()


def purpose(name: str) -> str:
    """Return what the usual names of comments, ids and labels are for; another name as it is."""
    return _PURPOSES.get(name, name)


def separator_line(line: str) -> str:
    """Return the separator that a ``sep=`` line announces, or an empty string."""
    match = _SEP_LINE.fullmatch(line.rstrip("\r\n"))
    return match[1].replace("\\t", "\t") if match else ""


def find_dialect(lines: Iterable[str], form: str) -> Dialect:
    """Find out how a file is written; only a header that leaves a doubt makes it read more than the header.

    Args:
        lines: the file's physical lines.
        form: ``.csv`` or ``.tsv``: which separator is expected.

    """
    rows = (line for line in lines if line.strip("\r\n"))
    header = next(rows, "")
    announced = separator_line(header)
    if announced:
        header = next(rows, "")
    bare = _QUOTED.sub('""', header)
    marks = [mark for mark in _MARKS[form] if mark in bare]
    if announced and (announced in bare or not marks):
        separator = announced
    elif len(marks) > 1:
        sample = [_QUOTED.sub('""', line) for line in islice(rows, _LOOKED_AT)]
        separator = max(marks, key=lambda mark: _fit(bare, header, sample, mark))  # of equals the first
    else:
        separator = next(chain(marks, _MARKS[form]))
    padded = re.search(rf'{re.escape(separator)} +"', header) is not None
    return Dialect(separator, bool(announced), padded)


def _fit(bare: str, header: str, sample: list[str], mark: str) -> tuple[int, float]:
    """Return how well a separator fits: usual names in the header, and the share of rows of its width."""
    names = {clean_name(name).strip('"').lower() for name in header.split(mark)}
    width = bare.count(mark)
    same = sum(line.count(mark) == width for line in sample)
    return len(names & _USUAL), same / max(1, len(sample))
