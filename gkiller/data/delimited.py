"""CSV and TSV: RFC 4180 with embedded quotes and line ends, one record at a time.

The parser is gkiller's own because Python's ``csv`` has a field limit that is one global of the process,
does not notice a quote that is never closed, and does not say on which line a record starts. Unlike RFC
4180 it accepts any line end and a quote inside an unquoted field.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from gkiller.data.dialect import Dialect, clean_name, find_dialect, purpose, separator_line
from gkiller.data.labels import CLASS_NAMES
from gkiller.data.names import refuse_repeated
from gkiller.data.rows import MAX_FIELD_CHARACTERS, BadRowError, RawBatch, RawRow, in_batches, place
from gkiller.data.swallowed import Profile, Span
from gkiller.data.textfile import TextReader, check_text, encoding_problem, text_lines
from gkiller.errors import EmptyDataError, EncodingError, FormatError, RowError, counted

_EXPECTED = {".csv": ",", ".tsv": "\t"}


class Record(NamedTuple):
    """One record.

    Attributes:
        line: the line it starts on.
        fields: its fields.
        fault: what is wrong with it, or an empty string.
        last: the line it ends on.
        opened: the line on which the first quoted field that goes over several lines starts, or 0.

    """

    line: int
    fields: list[str]
    fault: str
    last: int
    opened: int = 0


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
        lines: physical lines with their ends.
        separator: one character between fields.
        padded: whether spaces before an opening quote are no part of a field.
        profile: tells records that swallow others; their fault is ``swallowed``.

    Raises:
        UnclosedQuoteError: the file ends inside a quoted field.

    """
    return _Parser(lines, separator, padded, profile).records()


class _Parser:
    def __init__(self, lines: Iterator[str], separator: str, padded: bool, profile: Profile | None) -> None:
        self.lines = lines
        self.separator = separator
        self.padded = padded
        self.profile = profile
        self.span: Span | None = None
        self.number = 0
        self.opened = 0
        self.line = ""
        self.fault = ""

    def records(self) -> Iterator[Record]:
        for line in self.lines:
            self.number += 1
            start = self.number
            if '"' not in line:
                body = line.rstrip("\r\n")
                if body:
                    fields = body.split(self.separator)
                    long = len(body) > MAX_FIELD_CHARACTERS and max(map(len, fields)) > MAX_FIELD_CHARACTERS
                    if self.profile is not None:
                        self.profile.learn(fields)
                    yield Record(start, fields, "oversized" if long else "", start)
                continue
            self.line = line
            self.fault = ""
            self.opened = 0
            self.span = Span(self.profile, line) if self.profile is not None else None
            fields = self._fields()
            if self.span is not None and self.span.swallowed(faulty=bool(self.fault)):
                self.fault = "swallowed"
            elif self.profile is not None and start == self.number and not self.fault:
                self.profile.learn(fields)
            yield Record(start, fields, self.fault, self.number, self.opened)

    def _fields(self) -> list[str]:
        fields = []
        position: int | None = 0
        while position is not None:
            opening = self._opening(position)
            if self.line.startswith('"', opening):
                value, position = self._quoted(opening + 1)
            else:
                value, position = self._plain(position)
            if len(value) > MAX_FIELD_CHARACTERS:
                self.fault = self.fault or "oversized"
            fields.append(value)
        return fields

    def _opening(self, position: int) -> int:
        """Return where a field's opening quote would stand."""
        while self.padded and self.line.startswith(" ", position):
            position += 1
        return position

    def _plain(self, position: int) -> tuple[str, int | None]:
        """Return an unquoted field and where the next one starts (None at the record's end)."""
        stop = self.line.find(self.separator, position)
        if stop < 0:
            return self.line[position:].rstrip("\r\n"), None
        return self.line[position:stop], stop + 1

    def _quoted(self, position: int) -> tuple[str, int | None]:
        """Return a quoted field, whose content starts at ``position``, and where the next one starts."""
        start = self.number
        pieces: list[str] = []
        size = 0
        while True:
            stop = self.line.find('"', position)
            end = len(self.line) if stop < 0 else stop
            size += end - position
            if size <= MAX_FIELD_CHARACTERS:
                pieces.append(self.line[position:end])
            else:
                self.fault = "oversized"
            if stop < 0:
                following = next(self.lines, None)
                if following is None:
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
    """Reads one CSV or TSV file.

    Args:
        path: the file, plain or ``.gz``.
        name: how messages name it.
        form: ``.csv`` or ``.tsv``; says which separator is expected.

    """

    def __init__(self, path: Path, name: str, form: str) -> None:
        super().__init__(path, name)
        self._form = form
        self._dialect = Dialect("", announced=False, padded=False)
        self._header: list[str] = []

    def columns(self) -> list[str]:
        """Return the header's names, without the white space around them.

        Raises:
            DataError: the file cannot be read, is empty, or its header is broken.

        """
        if self._header:
            return self._header
        check_text(self.path, self.name)
        self._dialect = find_dialect(text_lines(self.path, self.name, ""), self._form)
        if self._dialect.separator != _EXPECTED[self._form]:
            self.notes.append(f"{self.name}: fields are separated by {self._dialect.separator!r}")
        record = next(self._records(None), None)
        if record is None:
            raise EmptyDataError(
                "the file is empty", where=self.name, remedy="give a file with a header and rows"
            )
        names = [clean_name(name) for name in record.fields]
        self._check_header(record, names)
        if names != record.fields:
            self.notes.append(f"{self.name}: spaces around column names are left out")
        self._header = names
        return self._header

    def _check_header(self, record: Record, names: Sequence[str]) -> None:
        where = f"{self.name}, header (line {record.line})"
        for name in names:
            problem = encoding_problem(name)
            if problem:
                raise EncodingError(problem, where=where, remedy="convert the file to UTF-8")
        if names[0].startswith(("{", "[{")):
            raise FormatError(
                "this is JSON, not CSV or TSV", where=self.name, remedy="name it .jsonl or .json"
            )
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
            raise RowError(
                "the file ends inside a quoted field that starts on this line",
                where=f"{self.name}, line {error.line:,}",
                remedy='close the quote there; a quote inside a quoted field is written twice, as ""',
            ) from error

    def batches(self, wanted: Sequence[str]) -> Iterator[RawBatch]:
        """Yield the wanted columns of all rows, in order.

        Rows of empty fields and repeated headers are no rows; ``notes`` tells of them after the last batch.

        Raises:
            DataError: the file cannot be read, a quote is never closed, or another header follows.

        """
        slots = {name: slot for slot, name in enumerate(self.columns())}
        yield from in_batches(wanted, self._parsed([slots[name] for name in wanted]), self.watched())

    def _parsed(self, slots: Sequence[int]) -> Iterator[RawRow]:
        records = self._records(Profile(self._header, self._dialect.separator))
        next(records)
        extras = _Extras(self.name, self._header)
        row = 0
        for record in records:
            if extras.take(record):
                continue
            row += 1
            fault = self._fault(record, row)
            if fault is None:
                values = [record.fields[slot] for slot in slots]
                yield RawRow(row, record.line, values, sum(map(len, values)))
            else:
                yield RawRow(row, record.line, [None] * len(slots), 0, fault)
        self.notes += [note for note in extras.notes() if note not in self.notes]

    def _fault(self, record: Record, row: int) -> BadRowError | None:
        where = place(self.name, row, record.line)
        if record.fault == "oversized":
            return BadRowError(
                "oversized",
                RowError(
                    f"a field has over {MAX_FIELD_CHARACTERS:,} characters",
                    where=where,
                    remedy="shorten it, look for a missing quote, or skip such rows with --on-error skip",
                ),
            )
        if record.fault == "swallowed":
            what = (
                f"the quoted field that starts on line {record.opened:,} goes on to line {record.last:,} and "
                "holds what look like rows"
            )
            remedy = (
                f"take out the quote on line {record.opened:,}, or close it there; with --on-error skip the "
                f"{record.last - record.line + 1:,} lines are left out"
            )
            return BadRowError("swallowed", RowError(what, where=where, remedy=remedy))
        if record.fault == "quoting":
            return BadRowError(
                "quoting",
                RowError(
                    "text follows the closing quote of a field" + _over_lines(record),
                    where=where,
                    remedy='write a quote inside a quoted field twice, as "", or use --on-error skip',
                ),
            )
        if len(record.fields) != len(self._header):
            return BadRowError(
                "ragged",
                RowError(
                    f"the row has {len(record.fields):,} fields, the header {len(self._header):,}"
                    + _over_lines(record),
                    where=where,
                    remedy="quote fields that hold the separator, or skip such rows with --on-error skip",
                ),
            )
        return None


def _over_lines(record: Record) -> str:
    """Return how far a bad record goes, so that no line is lost without a word."""
    return f"; the row goes from line {record.line:,} to line {record.last:,}" if record.opened else ""


class _Extras:
    """Records that are no rows: repeated headers, and the rows of commas that Excel writes."""

    def __init__(self, name: str, header: Sequence[str]) -> None:
        self.name = name
        self.header = header
        self.folded = [field.casefold() for field in header]
        self.purposes = [purpose(name) for name in self.folded]
        self.first = frozenset((*self.folded, *self.purposes))
        self.longest = max(map(len, header)) + 20
        self.found: dict[str, tuple[int, int]] = {}

    def take(self, record: Record) -> bool:
        """Whether a record is none of the rows; it is counted.

        Raises:
            FormatError: the header of another file follows.

        """
        fields = record.fields
        if len(fields) > 1 and not any(field.strip() for field in fields):
            return self._count("empty row", record.line)
        if len(fields[0]) > self.longest:
            return False
        first = clean_name(fields[0])
        if len(self.header) == 1:
            repeated = len(fields) == 1 and first == self.header[0]
            return repeated and self._count("repeated header", record.line)
        if len(fields) == 2 and not fields[1].strip() and separator_line(fields[0] + ";"):
            return self._count("repeated header", record.line)
        if purpose(first.strip('"').casefold()) not in self.first or len(fields) != len(self.header):
            return False
        folded = [clean_name(field).strip('"').casefold() for field in fields]
        if self._same_names(folded):
            return self._count("repeated header", record.line)
        if sorted(folded) == sorted(self.folded):
            raise FormatError(
                "a header with the columns in another order stands among the rows",
                where=f"{self.name}, line {record.line:,}",
                remedy="files were joined here: split them there, and name each",
            )
        return False

    def _same_names(self, names: Sequence[str]) -> bool:
        """Whether names are those of the header, or other usual ones for the same purposes.

        A class name such as "toxic" is a name only in the column of that name: else it is a label.
        """
        odd = any(new in CLASS_NAMES and new != old for new, old in zip(names, self.folded, strict=True))
        return not odd and [purpose(name) for name in names] == self.purposes

    def _count(self, what: str, line: int) -> bool:
        """Count a record, and keep the line of the first of its kind."""
        count, first = self.found.get(what, (0, line))
        self.found[what] = (count + 1, first)
        return True

    def notes(self) -> list[str]:
        """Return what was left out."""
        return [
            f"{self.name}: {counted(count, what)} left out ({'on' if count == 1 else 'from'} line {line:,})"
            for what, (count, line) in self.found.items()
        ]
