"""JSON: one object per line (JSON Lines), an array of objects or strings, or objects spread over lines."""

from __future__ import annotations

import codecs
import io
import json
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

from gkiller.data.labels import TEXT_NAMES
from gkiller.data.readers import MAX_FIELD_CHARACTERS, MAX_LINE_CHARACTERS, BadRowError, RawRow, place
from gkiller.data.readers.text import (
    PARQUET,
    TextReader,
    byte_pieces,
    check_text,
    encoding_error,
    open_bytes,
    readable,
    replayable,
)
from gkiller.errors import DataError, EmptyDataError, FormatError, RowError

_SPACE = " \t\r\n"
_CUT = 16
"""Characters before the end of what was read in which an error may be due to the rest missing."""


Layout = Literal["lines", "array", "values"]
_MOST = 1 << 16
OPEN = tuple(",[{:")
"""What a line of JSON that goes on in the next one ends with."""

OBJECT = re.compile(r'\{\s*"(?:[^"\\]|\\.)*"\s*:')


def json_layout(path: Path, name: str) -> Layout:
    """Return how a file of JSON is laid out: a value a line, one array, or values that span lines."""
    with readable(name), open_bytes(path) as stream:
        head, whole = first_lines(cast(io.BufferedReader, stream))
    first = (lines_of(head) or [""])[0].strip()
    if first.startswith("["):
        return "array"
    if first != "{" and not (whole and first[-1:] in OPEN and OBJECT.match(first)):
        return "lines"
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return "values"
    return "lines"


def lines_of(head: bytes) -> list[str]:
    """Return the lines that are not blank."""
    return [line for line in head.decode("utf-8", "surrogateescape").split("\n") if line.strip()]


def first_lines(stream: io.BufferedReader) -> tuple[bytes, bool]:
    """Return a stream's beginning up to its first line that says something, and whether its first line is whole."""
    head, ended = b"", False
    while len(head) < _MOST:
        piece = stream.read1(_MOST - len(head))
        ended = not piece
        head += piece
        found = [line for line in head.removeprefix(codecs.BOM_UTF8).split(b"\n")[:-1] if line.strip()]
        told = len(found) > 1 or (found and found[0].strip() not in (b"[", b"{"))
        if ended or told or head.startswith(PARQUET):
            break
    head = head.removeprefix(codecs.BOM_UTF8)
    return head, ended or b"\n" in head.lstrip()


class _Decoder(json.JSONDecoder):
    """Remembers a key that stands twice in an object: which of its values counts would be a guess."""

    def __init__(self) -> None:
        self.repeated: str | None = None
        super().__init__(object_pairs_hook=self._object)

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) != len(pairs) and self.repeated is None:
            seen: set[str] = set()
            self.repeated = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        return value


class JsonValue(NamedTuple):
    """A value: its number from 1, the line it starts on, its source text, and a key that stands twice."""

    row: int
    line: int
    value: Any
    source: str
    repeated: str | None


class JsonValues:
    """The elements of one JSON ``array``, or JSON values with white space between them."""

    def __init__(self, path: Path, name: str, *, array: bool) -> None:
        self._path = path
        self._name = name
        self._array = array
        self._pieces = byte_pieces(path, name)
        self._decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
        self._buffer = ""
        self._tried = 0
        self._line = 1
        self._row = 0
        self._state = "[" if array else "value"
        self._ended = False
        self._found: deque[JsonValue] = deque()
        self._error: DataError | None = None
        self._json = _Decoder()

    def __iter__(self) -> Iterator[JsonValue]:
        """Yield the values, up to where the file is broken."""
        while True:
            while self._found:
                yield self._found.popleft()
            if self._error is not None:
                raise self._error
            if self._state == "end":
                return
            self._advance()

    def waiting(self) -> bool:
        """Whether the next value has not come yet, and reading it would block; never so for a file."""
        if replayable(self._path) is None:
            return False
        while not self._found and self._error is None and self._state != "end":
            if not self._ended and self._idle():
                return True
            self._advance()
        return False

    def _advance(self) -> None:
        """Find the values in what was read, and read on."""
        try:
            position = 0
            while (following := self._step(position)) is not None:
                position = following
            self._line += self._buffer.count("\n", 0, position)
            self._buffer = self._buffer[position:]
            if self._state != "end" and not self._found:
                self._read()
        except DataError as error:
            self._error = error

    def _read(self) -> None:
        if self._ended:
            raise self._broken("the file ends within the array" if self._array else "the file ends within a value")
        if len(self._buffer) >= MAX_LINE_CHARACTERS:
            raise self._broken(f"a value has over {MAX_LINE_CHARACTERS:,} characters")
        piece = next(self._pieces, b"")
        self._ended = not piece
        self._buffer += self._decode(piece, self._ended)

    def _step(self, position: int) -> int | None:
        """Take a value or a mark from the buffer; return where it ends, or None when more has to be read."""
        text = self._buffer
        while position < len(text) and text[position] in _SPACE:
            position += 1
        if position == len(text):
            if self._ended and self._state in ("value", "closed") and not (self._array and self._state == "value"):
                self._state = "end"
            return None
        mark = text[position]
        if self._state == "closed":
            raise self._broken("text follows the end of the array", position)
        if self._state == "[":
            self._state = "first"
            return position + 1
        if mark == "]" and self._array and self._state in ("first", "comma"):
            self._state = "closed"
            return position + 1
        if self._state == "comma":
            if mark != ",":
                raise self._broken(f"{mark!r} stands where a comma should", position)
            self._state = "value"
            return position + 1
        if mark in ",]}":
            raise self._broken(f"{mark!r} stands where a value should", position)
        return self._value(position)

    def _value(self, position: int) -> int | None:
        text = self._buffer
        if self._tried and not self._ended and len(text) - position < 2 * self._tried and not self._idle():
            return None  # trying again for every piece would make a long value's time quadratic
        self._json.repeated = None
        try:
            value, end = self._json.raw_decode(text, position)
        except json.JSONDecodeError as error:
            cut = error.pos >= len(text) - _CUT or error.msg.startswith("Unterminated string")
            if not cut or self._ended:
                raise self._broken(f"not valid JSON: {error.msg}", error.pos) from error
            self._tried = len(text) - position
            return None
        except (ValueError, RecursionError) as error:  # a number of thousands of digits; endless nesting
            raise self._broken("not usable JSON", position) from error
        self._tried = 0
        self._row += 1
        line = self._line + text.count("\n", 0, position)
        self._found.append(JsonValue(self._row, line, value, text[position:end], self._json.repeated))
        self._state = "comma" if self._array else "value"
        return end

    def _idle(self) -> bool:
        return (pipe := replayable(self._path)) is not None and pipe.blocked()

    def _broken(self, what: str, position: int = 0) -> DataError:
        line = self._line + self._buffer.count("\n", 0, position)
        remedy = "mend the file there; rows after it cannot be told apart, so they cannot be skipped"
        return FormatError(what, where=place(self._name, self._row + 1, line), remedy=remedy)


_PEEK_ROWS = 1000
_DEEPEST = 16
WHOLE = "\0whole"
"""As a wanted column: the whole object of a row."""


class JsonLinesReader(TextReader):
    """Reads one file of JSON objects: one per line, an array of them, or spread over lines.

    A key that a row lacks counts as null. ``a.b`` names the key ``b`` of the object ``a``, unless a key with
    a dot has that name. In an array, strings count as objects with the key "text".
    """

    # the keys of the objects that were looked at for :meth:columns, not those within objects
    whole: Sequence[str] = ()
    _columns: Sequence[str] = ()
    _layout: Layout | None = None
    _values: JsonValues | None = None

    def columns(self) -> list[str]:
        """Return the keys of the first thousand objects, in order of appearance; of a pipe's first object.

        Keys of objects within objects are given by their paths.
        """
        if not self._columns:
            check_text(self.path, self.name)
            self._columns = self._keys(_PEEK_ROWS, until=None if self.watched() is None else lambda: True)
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
        if not keys and fault is not None:
            raise fault.error
        if not keys:
            raise RowError("the objects have no keys", where=self.name, remedy="give each object a text and a label")
        return list(keys)

    def _refuse_wrapped(self, value: dict[str, Any]) -> None:
        """Refuse a single object that holds the rows in a list."""
        if any(key.lower() in TEXT_NAMES and isinstance(item, str) for key, item in value.items()):
            return
        for key, item in value.items():
            if isinstance(item, list) and item and isinstance(item[0], dict):
                what = f"the file is one JSON object, which holds a list of objects in {key!r}"
                remedy = f"take the list out of it: jq -c '.[{json.dumps(key)}][]' FILE > NEW.jsonl"
                raise FormatError(what, where=self.name, remedy=remedy)

    def _objects(self) -> Iterator[tuple[int, int, dict[str, Any] | BadRowError, int]]:
        """Yield row number, line number, object or fault, and size."""
        if self._layout is None:
            self._layout = json_layout(self.path, self.name)
        if self._layout == "lines":
            found = self._rows()
        else:
            self._values = JsonValues(self.path, self.name, array=self._layout == "array")
            found = iter(self._values)
        for row, line, value, source, repeated in found:
            if self._layout == "array" and isinstance(value, str):
                value = {"text": value}
            where, what = place(self.name, row, line), ""
            if (broken := encoding_error(source, where)) is not None:
                value = BadRowError("encoding", broken)
            elif isinstance(value, _Unusable):
                what = value.what
            elif repeated is not None:
                what = f"the key {repeated!r} stands twice"
            elif not isinstance(value, dict):
                what = f"a JSON {_KINDS.get(type(value), 'null')} stands where an object should"
            if what:
                remedy = "mend the line, or skip such rows with --on-error skip"
                value = BadRowError("json", RowError(what, where=where, remedy=remedy))
            yield row, line, value, len(source)

    def _rows(self) -> Iterator[JsonValue]:
        """Yield the value of each line; blank lines are no rows."""
        decoder, row = _Decoder(), 0
        for number, line in enumerate(self.lines("\n"), start=1):
            if line.isspace():
                continue
            row += 1
            decoder.repeated = None
            try:
                value = decoder.decode(line)
            except json.JSONDecodeError as error:
                value = _Unusable(f"not valid JSON: {error.msg} at character {error.colno}")
            except (ValueError, RecursionError):  # a number of thousands of digits; endless nesting
                value = _Unusable("not usable JSON")
            yield JsonValue(row, number, value, line, decoder.repeated)

    def parsed(self, wanted: Sequence[str]) -> Iterator[RawRow]:
        """Yield the wanted keys of all rows."""
        for row, number, value, size in self._objects():
            size = min(size, MAX_FIELD_CHARACTERS)
            if isinstance(value, BadRowError):
                yield RawRow(row, number, [None] * len(wanted), size, value)
            else:
                values = [value if name == WHOLE else picked(value, name) for name in wanted]
                yield RawRow(row, number, values, size)


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


class _Unusable(NamedTuple):
    """Stands for the value of a line that holds none."""

    what: str


_KINDS = {list: "array", str: "string", bool: "boolean", int: "number", float: "number"}
