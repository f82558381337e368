"""CSV and TSV: RFC 4180 with embedded quotes and line ends, one record at a time.

The parser is gkiller's own because Python's ``csv`` has a field limit that is one global of the process,
does not notice a quote that is never closed, and does not say on which line a record starts. Unlike RFC
4180 it accepts any line end and a quote inside an unquoted field.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

from gkiller.data import labels
from gkiller.data.labels import CLASS_NAMES, ID_NAMES, TEXT_NAMES, refuse_repeated
from gkiller.data.readers import MAX_FIELD_CHARACTERS, BadRowError, RawRow, place
from gkiller.data.readers.text import TextReader, check_text, encoding_problem, text_lines
from gkiller.errors import EmptyDataError, EncodingError, FormatError, RowError
from gkiller.wording import counted

_MARKS = {".csv": ",;\t|", ".tsv": "\t,;|"}
_SEP_LINE = re.compile(r'\ufeff?"?sep *= *([^\s"\\]|\t|\\t)"?[,;\s]*', re.IGNORECASE)
_AROUND = "\ufeff\u200b\u200c\u200d\u2060\u00ad"  # seen by nobody
_QUOTED = re.compile(r'"[^"]*"')
_LOOKED_AT = 20

_LABELS = frozenset((*labels.LABEL_NAMES, *labels.CANONICAL_LABELS, *labels.ALIASES))
_PURPOSES = dict.fromkeys(TEXT_NAMES, "text") | dict.fromkeys(ID_NAMES, "id") | dict.fromkeys(_LABELS, "label")
_USUAL = frozenset((*_PURPOSES, "weight"))


class Dialect(NamedTuple):
    """How a file is written."""

    separator: str
    announced: bool  # whether a line such as sep=; stands above the header, as Excel writes and reads it
    padded: bool  # whether spaces stand between a separator and an opening quote


def clean_name(name: str) -> str:
    """Return a column's name without white space and invisible characters around it."""
    return name.strip().strip(_AROUND).strip()


def separator_line(line: str) -> str:
    """Return the separator that a ``sep=`` line announces, or an empty string."""
    match = _SEP_LINE.fullmatch(line.rstrip("\r\n"))
    return match[1].replace("\\t", "\t") if match else ""


def find_dialect(lines: Iterable[str], form: str) -> Dialect:
    """Find out how a ``.csv`` or ``.tsv`` file is written; more than its header is read only in doubt."""
    rows = (line for line in lines if line.strip("\r\n"))
    header = next(rows, "")
    if announced := separator_line(header):
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


_NUMBER = re.compile(r"[+-]?([0-9]+([.,][0-9]*)?|[.,][0-9]+)([eE][+-]?[0-9]+)?")
_UNIT, _NUMERIC, _CODE, _WORD, _TEXT = range(5)
_LEARNT_ROWS = 200
_MOST_WORDS = 8
_ROWS_PER_WORD = 3
_LONGEST_CODE = 64
_MANY = 5


class Profile:
    """What the fields of each column look like, learnt from a file's first records.

    A column is told by its kind: numbers in 0..1 (and -1), numbers, codes such as ids (one word with a
    digit), or a few words such as class names. Columns of text tell nothing. Before the first record is
    known, the usual names of labels and ids stand for their kinds.
    """

    def __init__(self, header: Sequence[str], separator: str) -> None:
        self._separator = separator
        self._header = list(header)
        self._width = len(header)
        self._rows = 0
        kinds = dict.fromkeys(ID_NAMES, _CODE) | dict.fromkeys(_LABELS, _UNIT)
        self._named = [kinds.get(name.lower(), _TEXT) for name in header]
        self._kinds = [_UNIT] * len(header)
        self._words: list[set[str]] = [set() for _ in header]

    def learn(self, fields: Sequence[str]) -> None:
        """Take note of a record on one line; all but a file's first ones are passed over."""
        full = self._rows >= _LEARNT_ROWS or len(fields) != self._width
        if full or [clean_name(field) for field in fields] == self._header:
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
        verdicts = {self._fits(column, field) for column, field in enumerate(fields)}
        return False not in verdicts and True in verdicts

    def _fits(self, column: int, field: str) -> bool | None:
        """Whether a field is of its column's kind; None where the column tells nothing."""
        kind, words, word = self._kinds[column], self._words[column], field.strip()
        if not self._rows:
            kind = self._named[column]
            alike = _kind(field) <= kind or word.lower() in CLASS_NAMES
            return None if kind == _TEXT else alike and bool(word)
        if kind == _WORD:
            known = len(words) <= _MOST_WORDS and self._rows >= _ROWS_PER_WORD * len(words)
            return word in words if known else None
        if kind == _TEXT or words == {""}:
            return None
        return _kind(field) <= kind if word else word in words


class Span:
    """The physical lines of one record, and which of them look like records of their own."""

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

        The first line of a comment over several lines has no label at its end, so that it is no record; or, where
        the label comes first, the last line has none. For a ``faulty`` record less evidence is enough.
        """
        if self.lines < 2:
            return False
        mostly = 2 * self._inner_alike >= self._inner
        ends = self._first and self._last and mostly
        many = self._inner_alike >= _MANY and 5 * self._inner_alike >= 4 * self._inner
        return ends or many or (faulty and mostly and self._inner_alike > 0)


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


class Record(NamedTuple):
    """One record."""

    line: int
    fields: list[str]
    fault: str  # what is wrong with it, or an empty string
    last: int
    opened: int = 0  # the line on which the first quoted field that goes over several lines starts, or 0


class UnclosedQuoteError(Exception):
    """The file ends inside a quoted field that started on ``line``."""

    def __init__(self, line: int) -> None:
        self.line = line
        super().__init__(line)


def parse_records(
    lines: Iterator[str], separator: str, *, padded: bool = False, profile: Profile | None = None
) -> Iterator[Record]:
    """Yield the records of a delimited file; blank lines are no records.

    Args:
        padded: whether spaces before an opening quote are no part of a field.
        profile: tells records that swallow others; their fault is ``swallowed``.

    Raises:
        UnclosedQuoteError: the file ends inside a quoted field.
    """
    return _Parser(lines, separator, padded, profile).records()


@dataclass
class _Parser:
    lines: Iterator[str]
    separator: str
    padded: bool
    profile: Profile | None
    span: Span | None = None
    number: int = 0
    opened: int = 0
    line: str = ""
    fault: str = ""

    def records(self) -> Iterator[Record]:
        profile = self.profile
        for line in self.lines:
            self.number += 1
            start = self.number
            if '"' not in line:
                if body := line.rstrip("\r\n"):
                    fields = body.split(self.separator)
                    long = len(body) > MAX_FIELD_CHARACTERS and max(map(len, fields)) > MAX_FIELD_CHARACTERS
                    if profile is not None:
                        profile.learn(fields)
                    yield Record(start, fields, "oversized" if long else "", start)
                continue
            self.line, self.fault, self.opened = line, "", 0
            self.span = Span(profile, line) if profile is not None else None
            fields = self._fields()
            if self.span is not None and self.span.swallowed(faulty=bool(self.fault)):
                self.fault = "swallowed"
            elif profile is not None and start == self.number and not self.fault:
                profile.learn(fields)
            yield Record(start, fields, self.fault, self.number, self.opened)

    def _fields(self) -> list[str]:
        fields = []
        position: int | None = 0
        while position is not None:
            opening = position
            while self.padded and self.line.startswith(" ", opening):
                opening += 1
            if self.line.startswith('"', opening):
                value, position = self._quoted(opening + 1)
            else:
                value, position = self._plain(position)
            if len(value) > MAX_FIELD_CHARACTERS:
                self.fault = self.fault or "oversized"
            fields.append(value)
        return fields

    def _plain(self, position: int) -> tuple[str, int | None]:
        """Return an unquoted field and where the next one starts (None at the record's end)."""
        stop = self.line.find(self.separator, position)
        if stop < 0:
            return self.line[position:].rstrip("\r\n"), None
        return self.line[position:stop], stop + 1

    def _quoted(self, position: int) -> tuple[str, int | None]:
        """Return a quoted field, whose content starts at ``position``, and where the next one starts."""
        start, size = self.number, 0
        pieces: list[str] = []
        while True:
            stop = self.line.find('"', position)
            end = len(self.line) if stop < 0 else stop
            size += end - position
            if size <= MAX_FIELD_CHARACTERS:
                pieces.append(self.line[position:end])
            else:
                self.fault = "oversized"
            if stop < 0:
                if (following := next(self.lines, None)) is None:
                    raise UnclosedQuoteError(start)
                self.line = following
                self.number += 1
                self.opened = self.opened or start
                if self.span is not None:
                    self.span.add(following)
                position = 0
            elif self.line.startswith('"', stop + 1):
                pieces.append('"')
                position = stop + 2
            else:
                rest, following_field = self._plain(stop + 1)
                if rest.strip(" ") if self.padded else rest:
                    self.fault = self.fault or "quoting"
                return "".join(pieces), following_field


class DelimitedReader(TextReader):
    """Reads one CSV or TSV file, plain or ``.gz``; ``form`` is ``.csv`` or ``.tsv``, the expected separator."""

    def __init__(self, path: Path, name: str, form: str) -> None:
        super().__init__(path, name)
        self._form = form
        self._dialect = Dialect("", announced=False, padded=False)
        self._header: list[str] = []

    def columns(self) -> list[str]:
        """Return the header's names, without the white space around them."""
        if self._header:
            return self._header
        check_text(self.path, self.name)
        self._dialect = find_dialect(text_lines(self.path, self.name, ""), self._form)
        if self._dialect.separator != _MARKS[self._form][0]:
            self.notes.append(f"{self.name}: fields are separated by {self._dialect.separator!r}")
        record = next(self._records(None), None)
        if record is None:
            raise EmptyDataError("the file is empty", where=self.name, remedy="give a file with a header and rows")
        names = [clean_name(name) for name in record.fields]
        self._check_header(record, names)
        if names != record.fields:
            self.notes.append(f"{self.name}: spaces around column names are left out")
        self._header = names
        return self._header

    def _check_header(self, record: Record, names: Sequence[str]) -> None:
        where = f"{self.name}, header (line {record.line})"
        if problem := next(filter(None, map(encoding_problem, names)), ""):
            raise EncodingError(problem, where=where, remedy="convert the file to UTF-8")
        if names[0].startswith(("{", "[{")):
            raise FormatError("this is JSON, not CSV or TSV", where=self.name, remedy="name it .jsonl or .json")
        if record.fault:
            raise RowError("a column name is too long or badly quoted", where=where, remedy="mend the header")
        refuse_repeated(names, "the header", where)

    def _lines(self) -> Iterator[str]:
        """Yield the physical lines; one that announces the separator comes as a blank one."""
        announced = self._dialect.announced
        for line in self.lines(""):
            if announced and line.strip("\r\n"):
                announced = False
                yield "\n"
            else:
                yield line

    def _records(self, profile: Profile | None) -> Iterator[Record]:
        separator, _, padded = self._dialect
        try:
            yield from parse_records(self._lines(), separator, padded=padded, profile=profile)
        except UnclosedQuoteError as error:
            what = "the file ends inside a quoted field that starts on this line"
            remedy = 'close the quote there; a quote inside a quoted field is written twice, as ""'
            raise RowError(what, where=f"{self.name}, line {error.line:,}", remedy=remedy) from error

    def parsed(self, wanted: Sequence[str]) -> Iterator[RawRow]:
        """Yield the rows: those of empty fields and repeated headers are none; ``notes`` tells of them at the end."""
        places = {name: slot for slot, name in enumerate(self.columns())}
        slots = [places[name] for name in wanted]
        records = self._records(Profile(self._header, self._dialect.separator))
        next(records)
        extras = _Extras(self.name, self._header)
        row = 0
        for record in records:
            if extras.take(record):
                continue
            row += 1
            if record.fault or len(record.fields) != len(self._header):
                yield RawRow(row, record.line, [None] * len(slots), 0, self._fault(record, row))
            else:
                values = [record.fields[slot] for slot in slots]
                yield RawRow(row, record.line, values, sum(map(len, values)))
        self.notes += [note for note in extras.notes() if note not in self.notes]

    def _fault(self, record: Record, row: int) -> BadRowError:
        # how far a bad record goes, so that no line is lost without a word
        over = f"; the row goes from line {record.line:,} to line {record.last:,}" if record.opened else ""
        match record.fault:
            case "oversized":
                what = f"a field has over {MAX_FIELD_CHARACTERS:,} characters"
                remedy = "shorten it, look for a missing quote, or skip such rows with --on-error skip"
            case "swallowed":
                what = f"the quoted field that starts on line {record.opened:,} goes on to line {record.last:,} and "
                what += "holds what look like rows"
                remedy = f"take out the quote on line {record.opened:,}, or close it there; with --on-error skip the "
                remedy += f"{record.last - record.line + 1:,} lines are left out"
            case "quoting":
                what = f"text follows the closing quote of a field{over}"
                remedy = 'write a quote inside a quoted field twice, as "", or use --on-error skip'
            case _:
                what = f"the row has {len(record.fields):,} fields, the header {len(self._header):,}{over}"
                remedy = "quote fields that hold the separator, or skip such rows with --on-error skip"
        error = RowError(what, where=place(self.name, row, record.line), remedy=remedy)
        return BadRowError(record.fault or "ragged", error)


class _Extras:
    """Records that are no rows: repeated headers, and the rows of commas that Excel writes."""

    def __init__(self, name: str, header: Sequence[str]) -> None:
        self.name = name
        self.header = header
        self.folded = [field.casefold() for field in header]
        self.purposes = [_PURPOSES.get(name, name) for name in self.folded]
        self.first = frozenset((*self.folded, *self.purposes))
        self.longest = max(map(len, header)) + 20
        self.found: dict[str, tuple[int, int]] = {}

    def take(self, record: Record) -> bool:
        """Whether a record is none of the rows; it is counted."""
        what = ""
        if len(record.fields) > 1 and not any(field.strip() for field in record.fields):
            what = "empty row"
        elif self._is_header(record):
            what = "repeated header"
        if what:
            count, first = self.found.get(what, (0, record.line))
            self.found[what] = (count + 1, first)
        return bool(what)

    def _is_header(self, record: Record) -> bool:
        fields = record.fields
        if len(fields[0]) > self.longest:
            return False
        first = clean_name(fields[0])
        if len(self.header) == 1:
            return len(fields) == 1 and first == self.header[0]
        if len(fields) == 2 and not fields[1].strip() and separator_line(fields[0] + ";"):
            return True
        word = first.strip('"').casefold()
        if _PURPOSES.get(word, word) not in self.first or len(fields) != len(self.header):
            return False
        folded = [clean_name(field).strip('"').casefold() for field in fields]
        # A class name such as "toxic" is a name only in the column of that name: else it is a label.
        odd = any(new in CLASS_NAMES and new != old for new, old in zip(folded, self.folded, strict=True))
        if not odd and [_PURPOSES.get(name, name) for name in folded] == self.purposes:
            return True
        if sorted(folded) == sorted(self.folded):
            what = "a header with the columns in another order stands among the rows"
            remedy = "files were joined here: split them there, and name each"
            raise FormatError(what, where=f"{self.name}, line {record.line:,}", remedy=remedy)
        return False

    def notes(self) -> list[str]:
        """Return what was left out."""
        return [
            f"{self.name}: {counted(count, what)} left out ({'on' if count == 1 else 'from'} line {line:,})"
            for what, (count, line) in self.found.items()
        ]
