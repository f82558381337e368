"""JSON: one object per line (JSON Lines), an array of objects or strings, or objects spread over lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

from gkiller.data.jsonvalues import JsonValues
from gkiller.data.names import TEXT_NAMES
from gkiller.data.rows import MAX_FIELD_CHARACTERS, BadRowError, RawBatch, RawRow, in_batches, place
from gkiller.data.sniff import Layout, json_layout
from gkiller.data.textfile import TextReader, check_text, encoding_error
from gkiller.errors import DataError, EmptyDataError, FormatError, RowError

_PEEK_ROWS = 1000
_DEEPEST = 16

WHOLE = "\0whole"
"""As a wanted column: the whole object of a row."""


class JsonLinesReader(TextReader):
    """Reads one file of JSON objects: one per line, an array of them, or spread over lines.

    A key that a row lacks counts as null. ``a.b`` names the key ``b`` of the object ``a``, unless a key with
    a dot has that name. In an array, strings count as objects with the key "text".

    Attributes:
        whole: the keys of the objects that were looked at for :meth:`columns`, not those within objects.
    """

    whole: Sequence[str] = ()
    _columns: Sequence[str] = ()
    _layout: Layout | None = None
    _values: JsonValues | None = None

    def columns(self) -> list[str]:
        """Return the keys of the first thousand objects, in order of appearance; of a pipe's first object.

        Keys of objects within objects are given by their paths.

        Raises:
            DataError: the file cannot be read, is empty, or holds no object there.

        """
        if not self._columns:
            check_text(self.path, self.name)
            self._columns = self._keys(_PEEK_ROWS, until=None if self.watched() is None else _at_once)
        return list(self._columns)

    def more_columns(self) -> list[str]:
        """Return the keys of the first thousand objects, of a pipe, too."""
        self._columns = self._keys(_PEEK_ROWS)
        return list(self._columns)

    def look_further(self) -> None:
        """Know the keys of the first thousand objects; of a pipe of those that come without a pause."""
        self._columns = self._keys(_PEEK_ROWS, until=self.waiting)

    def all_columns(self) -> list[str]:
        """Return the keys of every object: a whole pass over the file."""
        self._columns = self._keys(None)
        return list(self._columns)

    def waiting(self) -> bool:
        """Whether the next row has not come yet, and reading it would block; never so for a file."""
        return self._values.waiting() if self._values is not None else super().waiting()

    def _keys(self, limit: int | None, *, until: Callable[[], bool] | None = None) -> list[str]:
        keys: dict[str, None] = {}
        whole: dict[str, None] = {}
        fault: BadRowError | None = None
        count, value = 0, None
        for _, _, value, _ in islice(self._objects(), limit):
            count += 1
            if isinstance(value, BadRowError):
                fault = fault or value
                continue
            keys.update(dict.fromkeys(_paths(value)))
            whole.update(dict.fromkeys(value))
            if keys and until is not None and until():
                break
        self.whole = list(whole)
        if not count:
            raise EmptyDataError("the file is empty", where=self.name, remedy="give a file with JSON objects")
        if count == 1 and until is None and isinstance(value, dict):
            self._refuse_wrapped(value)
        if not keys:
            raise (
                fault.error
                if fault is not None
                else RowError(
                    "the objects have no keys", where=self.name, remedy="give each object a text and a label"
                )
            )
        return list(keys)

    def _refuse_wrapped(self, value: dict[str, Any]) -> None:
        """Refuse a single object that holds the rows in a list."""
        if any(key.lower() in TEXT_NAMES and isinstance(item, str) for key, item in value.items()):
            return
        for key, item in value.items():
            if isinstance(item, list) and item and isinstance(item[0], dict):
                raise FormatError(
                    f"the file is one JSON object, which holds a list of objects in {key!r}",
                    where=self.name,
                    remedy=f"take the list out of it: jq -c '.[{json.dumps(key)}][]' FILE > NEW.jsonl",
                )

    def _objects(self) -> Iterator[tuple[int, int, dict[str, Any] | BadRowError, int]]:
        """Yield row number, line number, object or fault, and size."""
        if self._layout is None:
            self._layout = json_layout(self.path, self.name)
        if self._layout == "lines":
            for row, number, line in self._rows():
                try:
                    yield row, number, self._parse(line, row, number), len(line)
                except BadRowError as bad:
                    yield row, number, bad, len(line)
            return
        array = self._layout == "array"
        self._values = JsonValues(self.path, self.name, array=array)
        for found in self._values:
            where = place(self.name, found.row, found.line)
            value = {"text": found.value} if array and isinstance(found.value, str) else found.value
            try:
                yield (
                    found.row,
                    found.line,
                    _checked(value, found.source, found.repeated, where),
                    len(found.source),
                )
            except BadRowError as bad:
                yield found.row, found.line, bad, len(found.source)

    def _rows(self) -> Iterator[tuple[int, int, str]]:
        """Yield row number, line number and line; blank lines are no rows."""
        row = 0
        for number, line in enumerate(self.lines("\n"), start=1):
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
            raise BadRowError(
                "json", _json_error(f"not valid JSON: {error.msg} at character {error.colno}", where)
            ) from error
        except (ValueError, RecursionError) as error:  # a number of thousands of digits; endless nesting
            raise BadRowError("json", _json_error("not usable JSON", where)) from error
        return _object(value, where)

    def batches(self, wanted: Sequence[str]) -> Iterator[RawBatch]:
        """Yield the wanted keys of all rows, in order.

        Raises:
            DataError: the file cannot be read.

        """
        yield from in_batches(wanted, self._parsed(wanted), self.watched())

    def _parsed(self, wanted: Sequence[str]) -> Iterator[RawRow]:
        for row, number, value, size in self._objects():
            size = min(size, MAX_FIELD_CHARACTERS)
            if isinstance(value, BadRowError):
                yield RawRow(row, number, [None] * len(wanted), size, value)
            else:
                values = [value if name == WHOLE else picked(value, name) for name in wanted]
                yield RawRow(row, number, values, size)


def _at_once() -> bool:
    return True


def picked(value: Any, name: str) -> Any:
    """Return what a name stands for in an object: a key, or a path with dots; None where there is none."""
    while isinstance(value, dict):
        if name in value:
            return value[name]
        head, dot, name = name.partition(".")
        if not dot:
            return None
        value = value.get(head)
    return None


def _paths(value: dict[str, Any], prefix: str = "", depth: int = 0) -> Iterator[str]:
    """Yield an object's keys; in the place of one that holds an object, the paths to that one's."""
    for key, item in value.items():
        if isinstance(item, dict) and item and depth < _DEEPEST:
            yield from _paths(item, f"{prefix}{key}.", depth + 1)
        else:
            yield prefix + key


def _checked(value: Any, source: str, repeated: str | None, where: str) -> dict[str, Any]:
    """Return an array's element where it is a good object."""
    broken = encoding_error(source, where)
    if broken is not None:
        raise BadRowError("encoding", broken)
    if repeated is not None:
        raise BadRowError("json", _json_error(f"the key {repeated!r} stands twice", where))
    return _object(value, where)


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadRowError("json", _json_error(f"a JSON {_kind(value)} stands where an object should", where))
    return value


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
