"""JSON Lines: one JSON object per line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from gkiller.data.rows import MAX_FIELD_CHARACTERS, BadRowError, RawBatch, RawRow, in_batches, place
from gkiller.data.textfile import TextReader, check_text, encoding_error, text_lines
from gkiller.errors import DataError, EmptyDataError, FormatError, RowError

_PEEK_ROWS = 1000

WHOLE = "\0whole"
"""As a wanted column: the whole object of a row."""


class JsonLinesReader(TextReader):
    """Reads one JSON Lines file; a key that a row lacks counts as null."""

    _columns: Sequence[str] = ()

    def columns(self) -> list[str]:
        """Return the keys of the first thousand objects, in order of appearance.

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
        first: BadRowError | None = None
        empty = True
        for row, number, line in islice(self._rows(), limit):
            empty = False
            try:
                keys.update(dict.fromkeys(self._parse(line, row, number)))
            except BadRowError as bad:
                first = first or bad
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
        return list(keys)

    def _rows(self) -> Iterator[tuple[int, int, str]]:
        """Yield row number, line number and line; blank lines are no rows."""
        row = 0
        for number, line in enumerate(text_lines(self.path, self.name, "\n"), start=1):
            if not line.isspace():
                row += 1
                yield row, number, line

    def _parse(self, line: str, row: int, number: int) -> dict[str, Any]:
        where = place(self.name, row, number)
        broken = encoding_error(line, where)
        if broken is not None:
            raise BadRowError("encoding", broken)
        try:
            value = json.loads(line, object_pairs_hook=_unique)
        except _RepeatedKeyError as error:
            raise BadRowError("json", _json_error(f"the key {error.key!r} stands twice", where)) from error
        except json.JSONDecodeError as error:
            if row == 1 and line.lstrip().startswith("["):
                raise FormatError(
                    "this is a JSON array, not JSON Lines",
                    where=where,
                    remedy="write one object per line, for example: jq -c '.[]' FILE > NEW.jsonl",
                ) from error
            raise BadRowError(
                "json", _json_error(f"not valid JSON: {error.msg} at character {error.colno}", where)
            ) from error
        except (ValueError, RecursionError) as error:  # a number of thousands of digits; endless nesting
            raise BadRowError("json", _json_error("not usable JSON", where)) from error
        if isinstance(value, list) and row == 1:
            raise FormatError(
                "this is a JSON array, not JSON Lines",
                where=where,
                remedy="write one object per line, for example: jq -c '.[]' FILE > NEW.jsonl",
            )
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

    def _parsed(self, wanted: Sequence[str]) -> Iterator[RawRow]:
        for row, number, line in self._rows():
            value: dict[str, Any] = {}
            fault = None
            try:
                value = self._parse(line, row, number)
            except BadRowError as bad:
                fault = bad
            size = min(len(line), MAX_FIELD_CHARACTERS)
            yield RawRow(
                row, number, [value if name == WHOLE else value.get(name) for name in wanted], size, fault
            )


class _RepeatedKeyError(Exception):
    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(key)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object, refusing repeated keys: which value counts would be a guess."""
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _RepeatedKeyError(key)
            seen.add(key)
    return value


def _json_error(what: str, where: str) -> DataError:
    return RowError(what, where=where, remedy="mend the line, or skip such rows with --on-error skip")


def _kind(value: object) -> str:
    names = {list: "array", str: "string", bool: "boolean", int: "number", float: "number"}
    return names.get(type(value), "null")
