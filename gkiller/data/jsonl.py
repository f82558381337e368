"""JSON Lines, a JSON array, or JSON objects over several lines each: one row per object."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from gkiller.data.jsonvalues import BrokenJsonError, RepeatedKeyError, json_values, spans_lines, unique_keys
from gkiller.data.rows import MAX_FIELD_CHARACTERS, BadRowError, RawBatch, RawRow, in_batches, place
from gkiller.data.textfile import (
    TextReader,
    check_text,
    encoding_error,
    lines_as_they_come,
    text_blocks,
    text_lines,
)
from gkiller.errors import DataError, EmptyDataError, FormatError, RowError

_PEEK_ROWS = 1000
_DEEPEST = 4  # objects inside each other whose fields are columns
_STRING = "text"  # the column of a bare string


class _Found(NamedTuple):
    """A row: its number, its line, its object or what is wrong with it, and about how many characters."""

    row: int
    line: int
    value: dict[str, Any]
    fault: BadRowError | None
    size: int


class JsonLinesReader(TextReader):
    """Reads a JSON file with an object per row; a key that a row lacks counts as null.

    The objects stand one on each line (JSON Lines), in one array, or over several lines each. An array may
    also hold strings: comments without labels. A field inside of an object is named by its way there:
    ``comment.text``.
    """

    _columns: Sequence[str] = ()

    def columns(self) -> list[str]:
        """Return the keys of the first thousand objects, in order of appearance, then those inside of them.

        Raises:
            DataError: the file cannot be read, is empty, or holds no object there.

        """
        if not self._columns:
            check_text(self.path, self.name)
            self._columns = self._keys(_PEEK_ROWS)
        return list(self._columns)

    def all_columns(self) -> list[str]:
        """Return the keys of every object: a whole pass over the file."""
        self._columns = self._keys(None)
        return list(self._columns)

    def _keys(self, limit: int | None) -> list[str]:
        keys: dict[str, None] = {}
        inner: dict[str, None] = {}
        first: BadRowError | None = None
        empty = True
        for found in islice(self._found(), limit):
            if found is None:
                if keys:  # what a stream has sent so far must do
                    break
                continue
            empty = False
            first = first or found.fault
            keys.update(dict.fromkeys(found.value))
            inner.update(dict.fromkeys(_inner_names(found.value)))
        if empty:
            raise EmptyDataError(
                "the file is empty", where=self.name, remedy="give a file with a JSON object per line"
            )
        if not keys:
            raise (
                first.error
                if first is not None
                else RowError(
                    "the objects have no keys", where=self.name, remedy="give each object a text and a label"
                )
            )
        return list({**keys, **inner})

    def _found(self) -> Iterator[_Found | None]:
        """Yield the rows, and None wherever more of a stream is waited for."""
        lines = text_lines(self.path, self.name, "\n")
        first = next((line for line in lines if not line.isspace()), "")
        return self._document() if spans_lines(first) else self._lines()

    def _lines(self) -> Iterator[_Found | None]:
        row = number = 0
        for line in lines_as_they_come(self.path, self.name, "\n"):
            if line is None:
                yield None
                continue
            number += 1
            if line.isspace():  # no row
                continue
            row += 1
            size = min(len(line), MAX_FIELD_CHARACTERS)
            try:
                yield _Found(row, number, self._parse(line, row, number), None, size)
            except BadRowError as bad:
                yield _Found(row, number, {}, bad, size)

    def _parse(self, line: str, row: int, number: int) -> dict[str, Any]:
        where = place(self.name, row, number)
        broken = encoding_error(line, where)
        if broken is not None:
            raise BadRowError("encoding", broken)
        try:
            value = unique_keys(line)
        except RepeatedKeyError as error:
            raise BadRowError("json", _json_error(f"the key {error.key!r} stands twice", where)) from error
        except BrokenJsonError as error:
            raise BadRowError("json", _json_error(str(error), where)) from error
        return self._object(value, where)

    def _document(self) -> Iterator[_Found | None]:
        """Yield the rows of an array, or of objects over several lines: nothing can be read past an error."""
        row = 0
        try:
            for found in json_values(text_blocks(self.path, self.name)):
                if found is None:
                    yield None
                    continue
                row += 1
                where = place(self.name, row, found.line)
                broken = encoding_error(found.text, where)
                size = min(len(found.text), MAX_FIELD_CHARACTERS)
                try:
                    if broken is not None:
                        raise BadRowError("encoding", broken)
                    if found.repeated is not None:
                        repeated = f"the key {found.repeated!r} stands twice"
                        raise BadRowError("json", _json_error(repeated, where))
                    value = {_STRING: found.value} if isinstance(found.value, str) else found.value
                    yield _Found(row, found.line, self._object(value, where), None, size)
                except BadRowError as bad:
                    yield _Found(row, found.line, {}, bad, size)
        except BrokenJsonError as error:
            raise FormatError(
                f"not valid JSON: {error}",
                where=place(self.name, row + 1, error.line),
                remedy="mend the file: an array of objects, or one object per line",
            ) from error

    def _object(self, value: Any, where: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise BadRowError(
                "json", _json_error(f"a JSON {_kind(value)} stands where an object should", where)
            )
        return value

    def batches(self, wanted: Sequence[str]) -> Iterator[RawBatch]:
        """Yield the wanted keys of all rows, in order.

        Raises:
            DataError: the file cannot be read.

        """
        yield from in_batches(wanted, self._parsed(wanted))

    def _parsed(self, wanted: Sequence[str]) -> Iterator[RawRow | None]:
        for found in self._found():
            if found is None:
                yield None
                continue
            values = [field(found.value, name) for name in wanted]
            yield RawRow(found.row, found.line, values, found.size, found.fault)


def field(value: Mapping[str, Any], name: str) -> Any:
    """Return an object's field by its key, or by the way to it with dots; None where there is none."""
    if name in value or "." not in name:
        return value.get(name)
    head, _, rest = name.partition(".")
    while rest:
        inner = value.get(head)
        if isinstance(inner, dict):
            return field(inner, rest)
        more, _, rest = rest.partition(".")
        head = f"{head}.{more}"
    return None


def _inner_names(value: Mapping[str, Any], depth: int = _DEEPEST) -> Iterator[str]:
    """Yield the ways to the fields inside of an object's objects."""
    for key, inner in value.items():
        if isinstance(inner, dict) and depth:
            for name, last in inner.items():
                if not isinstance(last, dict):
                    yield f"{key}.{name}"
            yield from (f"{key}.{name}" for name in _inner_names(inner, depth - 1))


def _json_error(what: str, where: str) -> DataError:
    return RowError(what, where=where, remedy="mend the line, or skip such rows with --on-error skip")


def _kind(value: object) -> str:
    names = {list: "array", str: "string", bool: "boolean", int: "number", float: "number"}
    return names.get(type(value), "null")
