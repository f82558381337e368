"""CSV and TSV: RFC 4180 with embedded quotes and line ends, one record at a time.

The parser is gkiller's own because Python's ``csv`` has a field limit that is one global of the process,
does not notice a quote that is never closed, and does not say on which line a record starts. Unlike RFC
4180 it accepts any line end and a quote inside an unquoted field.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from gkiller.data.rows import MAX_FIELD_CHARACTERS, BadRowError, RawBatch, RawRow, in_batches, place
from gkiller.data.textfile import TextReader, check_text, encoding_problem, text_lines
from gkiller.errors import ColumnError, EmptyDataError, EncodingError, RowError

_SEPARATORS = {".csv": ",;\t", ".tsv": "\t,;"}


class Record(NamedTuple):
    """One record: the line it starts on, its fields, and what is wrong with it (or an empty string)."""

    line: int
    fields: list[str]
    fault: str


class UnclosedQuoteError(Exception):
    """The file ends inside a quoted field that started on ``line``."""

    def __init__(self, line: int) -> None:
        self.line = line
        super().__init__(line)


def parse_records(lines: Iterator[str], separator: str) -> Iterator[Record]:
    """Yield the records of a delimited file; blank lines are no records.

    Args:
        lines: physical lines with their ends.
        separator: one character between fields.

    Raises:
        UnclosedQuoteError: the file ends inside a quoted field.

    """
    return _Parser(lines, separator).records()


class _Parser:
    def __init__(self, lines: Iterator[str], separator: str) -> None:
        self.lines = lines
        self.separator = separator
        self.number = 0
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
                    yield Record(start, fields, "oversized" if long else "")
                continue
            self.line = line
            self.fault = ""
            yield Record(start, self._fields(start), self.fault)

    def _fields(self, start: int) -> list[str]:
        fields = []
        position: int | None = 0
        while position is not None:
            if self.line.startswith('"', position):
                value, position = self._quoted(position + 1, start)
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

    def _quoted(self, position: int, start: int) -> tuple[str, int | None]:
        """Return a quoted field, whose content starts at ``position``, and where the next one starts."""
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
                position = 0
            elif self.line.startswith('"', stop + 1):
                pieces.append('"')
                position = stop + 2
            else:
                rest, following_field = self._plain(stop + 1)
                if rest:
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
        self._separator = ""
        self._header: list[str] = []

    def columns(self) -> list[str]:
        """Return the header's names.

        Raises:
            DataError: the file cannot be read, is empty, or its header is broken.

        """
        if self._header:
            return self._header
        check_text(self.path, self.name)
        expected = _SEPARATORS[self._form]
        first = next((line for line in text_lines(self.path, self.name, "") if line.strip("\r\n")), "")
        self._separator = next((mark for mark in expected if mark in first), expected[0])
        if self._separator != expected[0]:
            self.notes.append(f"{self.name}: fields are separated by {self._separator!r}")
        record = next(self._records(), None)
        if record is None:
            raise EmptyDataError(
                "the file is empty", where=self.name, remedy="give a file with a header and rows"
            )
        self._check_header(record)
        self._header = record.fields
        return self._header

    def _check_header(self, record: Record) -> None:
        where = f"{self.name}, header (line {record.line})"
        for name in record.fields:
            problem = encoding_problem(name)
            if problem:
                raise EncodingError(problem, where=where, remedy="convert the file to UTF-8")
        if record.fault:
            raise RowError("a column name is too long or badly quoted", where=where, remedy="mend the header")
        named = [name for name in record.fields if name]
        twice = sorted({name for name in named if named.count(name) > 1})
        if twice:
            raise ColumnError(
                f"the header names {', '.join(map(repr, twice))} more than once",
                where=where,
                remedy="give every column its own name",
            )

    def _records(self) -> Iterator[Record]:
        try:
            yield from parse_records(iter(self.lines("")), self._separator)
        except UnclosedQuoteError as error:
            raise RowError(
                "the file ends inside a quoted field that starts in this record",
                where=f"{self.name}, line {error.line:,}",
                remedy='close the quote there; a quote inside a quoted field is written twice, as ""',
            ) from error

    def batches(self, wanted: Sequence[str]) -> Iterator[RawBatch]:
        """Yield the wanted columns of all rows, in order.

        Raises:
            DataError: the file cannot be read, or a quote is never closed.

        """
        header = self.columns()
        yield from in_batches(wanted, self._parsed([header.index(name) for name in wanted]), self.watched())

    def _parsed(self, slots: Sequence[int]) -> Iterator[RawRow]:
        records = self._records()
        next(records)
        for row, record in enumerate(records, start=1):
            fault = self._fault(record, row)
            if fault is None:
                values = [record.fields[slot] for slot in slots]
                yield RawRow(row, record.line, values, sum(map(len, values)))
            else:
                yield RawRow(row, record.line, [None] * len(slots), 0, fault)

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
        if record.fault == "quoting":
            return BadRowError(
                "quoting",
                RowError(
                    "text follows the closing quote of a field",
                    where=where,
                    remedy='write a quote inside a quoted field twice, as "", or use --on-error skip',
                ),
            )
        if len(record.fields) != len(self._header):
            return BadRowError(
                "ragged",
                RowError(
                    f"the row has {len(record.fields)} fields, the header {len(self._header)}",
                    where=where,
                    remedy="quote fields that hold the separator, or skip such rows with --on-error skip",
                ),
            )
        return None
